"""Boards of trees whose runs do not fit each other everywhere: datasets of other lengths, thoughts switched otherwise,
adapters, partial runs of other items, one cluster, prices of nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gatekit
import pytest

from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.board import pictures
from icr_tasks.leaderboard.board.build import Board, build
from icr_tasks.leaderboard.board.tables import Options, Table
from icr_tasks.leaderboard.ledgers import lm_eval_files
from icr_tasks.leaderboard.ledgers.load import load, load_run
from icr_tasks.leaderboard.ledgers.summary import table as printed
from icr_tasks.leaderboard.pairs.axes import CHECKPOINT, identity
from icr_tasks.leaderboard.pairs.joined import pair
from icr_tasks.schema import read_head

NQ = ("icr_helmet_rag_nq_4k", "icr_helmet_rag_nq_8k")
KV, RAG = "kv:topk@0.05", "rag@4k"
PAGE = Path(__file__).resolve().parent.parent / "leaderboard" / "board" / "page" / "board.js"


def write(
    root: Path,
    right: float,
    tasks: tuple[str, ...] = NQ,
    *,
    seed: int = 0,
    model: str = "org/base",
    setting: str = "full",
    first: int | None = None,
    run: Callable[[dict[str, Any]], None] = lambda run: None,
    **inputs: Any,
) -> Path:
    """A run with further inputs of its fingerprint; of each task the `first` items."""

    def change(head: dict[str, Any]) -> None:
        head["setting"] = {"text": setting, "kind": setting.split("@")[0].split(":")[0], "params": {}}
        head["fingerprint_inputs"] |= {"setting": head["setting"], **inputs}
        run(head)
        head["fingerprint"] = lm_eval_files.run_fingerprint(head["fingerprint_inputs"])

    rows = {task: items[:first] for task, items in gatekit.rows(seed, right, tasks).items()}
    return gatekit.write(root, rows, model=model, setting=setting, change=change)


def table(board: Board, start: str) -> Table:
    return next(t for t in board.tables if t.name.startswith(start))


def test_lengths_ascend_where_datasets_have_others_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {"4k": 0.95, "16k": 0.7, "32k": 0.2}
    places = [("hotpotqa", "16k"), ("hotpotqa", "32k"), ("nq", "4k"), ("nq", "16k")]
    names = {f"icr_helmet_rag_{d}_{n}": (d, n) for d, n in places}
    for name, (dataset, length) in names.items():
        monkeypatch.setitem(gatekit.TASKS, name, ("helmet_rag", dataset, length, "subem", 60, 3))

    def full(head: dict[str, Any]) -> None:
        head["fingerprint_inputs"]["x"] = 1

    rows = {name: gatekit.rows(0, right[n], (name,))[name] for name, (_, n) in names.items()}
    gatekit.write(tmp_path, rows, change=full)
    write(tmp_path, 0.7, tuple(names), seed=1, setting=RAG)
    board = build(tmp_path, Options())
    [advice] = board.advice
    assert [band.name for band in advice.bands] == ["4k", "16k", "32k"]
    assert advice.sentence.startswith("up to 16k full context; from 32k rag@4k, +")
    assert (
        advice.full.reach is None and "other items" in advice.full.reach_reason
    )  # 4k and 32k share no dataset
    pytest.importorskip("altair")
    [heat] = [p.chart.words for p in pictures.pictures(board) if p.name.startswith("depth")]
    assert heat.index("4k") < heat.index("16k") < heat.index("32k"), heat


def test_a_setting_is_not_compared_with_full_context_of_other_thoughts(tmp_path: Path) -> None:
    write(tmp_path, 0.5, thinking="off")
    kv = write(tmp_path, 0.8, seed=1, setting=KV, thinking="on")
    board = build(tmp_path, Options())
    assert not board.advice and not any(t.name.startswith(("use", "drop")) for t in board.tables)
    full = next(run for run in load(tmp_path) if run.setting == "full")
    refused = pair(full, load_run(kv), axis="setting").refusals
    assert {r.check for r in refused} == {"thinking"} and "--allow thinking" in str(refused[0])
    assert not pair(full, load_run(kv), axis="setting", allow=["thinking"]).refusals


def test_a_checkpoint_that_thinks_is_not_gated_against_one_that_does_not(tmp_path: Path) -> None:
    runs = [load_run(write(tmp_path / how, 0.5, seed=i, thinking=how)) for i, how in enumerate(("off", "on"))]
    assert {r.check for r in pair(*runs, axis=CHECKPOINT).refusals} == {"thinking"}
    assert [identity(run.tasks[NQ[0]], run.head).thinking for run in runs] == ["thinking=off", "thinking=on"]


def test_an_adapter_is_another_checkpoint_whatever_the_revision(tmp_path: Path) -> None:
    def revised(head: dict[str, Any]) -> None:
        head["model"]["revision"] = "main"

    def adapted(head: dict[str, Any]) -> None:
        head["model"] |= {"revision": "main", "adapter": "org/lora"}

    write(tmp_path, 0.5, run=revised)
    write(tmp_path, 0.8, seed=1, setting=KV, run=adapted, model_args={"peft": "org/lora"})
    board = build(tmp_path, Options())
    assert {row.name for row in board.rows} == {"org/base@main", "org/base@main+org/lora"}
    assert not board.advice


def test_the_drop_of_the_reference_is_that_of_the_same_thoughts(tmp_path: Path) -> None:
    shares = [("org/base", "off", 0.95, 0.2), ("org/base", "on", 0.95, 0.85), ("org/new", "on", 0.95, 0.85)]
    for i, (model, how, full, kv) in enumerate(shares):
        write(tmp_path, full, seed=2 * i, model=model, thinking=how)
        write(tmp_path, kv, seed=2 * i + 1, model=model, setting=KV, thinking=how)
    made = table(build(tmp_path, Options(base="org/base")), "drop")
    own = {line.labels: line.cells for line in made.lines}
    lost = {k[0::2]: [c.value for c in cells] for k, cells in own.items()}
    theirs, ours = lost["org/base", "ao thinking=on"], lost["org/new", "ao thinking=on"]
    assert ours[-1] == pytest.approx(ours[0] - theirs[0]) and abs(ours[-1]) < 15
    with pytest.raises(IcrError, match="unknown model with a compressed run 'org/bse'.*org/base"):
        build(tmp_path, Options(base="org/bse"))


def test_bins_of_partial_runs_of_other_items_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path, 0.7, ("icr_infbench_mc",), first=48)
    write(tmp_path, 0.7, ("icr_infbench_mc",), seed=1, setting=RAG, first=50)
    [advice] = build(tmp_path, Options()).advice
    [line] = advice.lines[1:]
    assert [use.reason for use in line.uses] == ["other items than full context"] and line.uses[
        0
    ].score is None


@pytest.mark.parametrize("first", [1, 3])
def test_checkpoints_of_one_cluster_are_drawn_without_intervals(tmp_path: Path, first: int) -> None:
    pytest.importorskip("altair")
    for step in (100, 200, 300):
        write(tmp_path, 0.7, seed=step, model=f"run@{step}", first=first)
    [shown] = [p.chart for p in pictures.pictures(build(tmp_path, Options())) if p.name.startswith("trend")]
    assert "nan" not in shown.words and "inf" not in shown.words


def test_a_price_of_nothing_is_a_price_and_rates_are_of_what_was_timed(tmp_path: Path) -> None:
    def costs(usd: float) -> Callable[[dict[str, Any]], None]:
        def run(head: dict[str, Any]) -> None:
            for name, sheet in head["tasks"].items():
                n = sheet["n_scored"]
                sheet |= {"usd": usd * n, "n_told": {"usd": n}, "tokens": {"prompt": 4000 * n, "output": n}}
                if name == NQ[0]:
                    sheet |= {"seconds": {"prefill": 2.0 * n, "wall": 3.0 * n}, "n_timed": n}

        return run

    write(tmp_path, 0.7, model="free", run=costs(0.0))
    write(tmp_path, 0.7, model="paid", run=costs(0.01))
    made = table(build(tmp_path, Options()), "cost")
    values = {
        line.labels[0]: dict(zip(made.columns, [c.value for c in line.cells], strict=True))
        for line in made.lines
    }
    assert [values[m]["USD / item"] for m in ("free", "paid")] == [0.0, 0.01]
    assert values["free"]["USD / right answer"] == 0.0
    assert values["free"]["prefill tokens / s, a request"] == 2000


def test_lines_of_a_collected_table_are_told_apart_and_failed_items_may_be_cut(tmp_path: Path) -> None:
    def failed(head: dict[str, Any]) -> None:
        head["tasks"]["icr_infbench_mc"] |= {"n_scored": 20, "n_failed": 60, "n_truncated": 80}

    tasks = ("icr_infbench_mc",)
    paths = [write(tmp_path, 0.7, tasks, run=failed), write(tmp_path, 0.9, tasks, seed=1, thinking="on")]
    said = printed([(p, read_head(p / "run.json")) for p in paths])
    assert "| full thinking=on | " in said and "(20/80; 100% cut)" in said


def test_a_page_s_address_forgets_nothing_behind_a_link_of_its_menu() -> None:
    if shutil.which("node") is None:
        pytest.skip("no node on PATH")
    code = PAGE.read_text(encoding="utf-8")
    part = code[code.index("let kept") : code.index("function restore()")]
    script = f"""
const location = {{hash: ""}}, history = {{replaceState(a, b, to) {{ location.hash = to; }}}}, box = {{}}, $ = () => box;
{part}
keep({{q: "rag"}}); location.hash = "#pictures"; keep({{sort: "board,3,down"}}); console.log(location.hash, box.hidden);
"""
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["#?q=rag&sort=board%2C3%2Cdown", "false"], done.stderr
