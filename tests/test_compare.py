"""`icr compare`: the paired numbers, the flips, and the reader underneath."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gatekit
import numpy as np
import orjson
import pytest

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.ledgers.load import find, load, load_run
from icr_tasks.leaderboard.pairs.compare import compare
from icr_tasks.leaderboard.pairs.joined import pair


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    rows = gatekit.rows(seed=1, right=0.5)
    for items in rows.values():  # rows in another order are the same items
        items.reverse()
    return (
        gatekit.write(tmp_path / "results", gatekit.rows()),
        gatekit.write(tmp_path / "results", rows, model="org/new"),
    )


def test_numbers_equal_a_hand_computation(two: tuple[Path, Path]) -> None:
    base, new = map(load_run, two)
    result = compare(pair(base, new))
    means = []
    for task in ("icr_helmet_rag_nq_4k", "icr_helmet_rag_nq_8k"):
        means.append(np.mean(new.tasks[task].headline()) - np.mean(base.tasks[task].headline()))
    nq = float(np.mean(means))
    by_name = {line.name: line for line in result.lines}
    assert by_name["helmet_rag"].delta.mean == pytest.approx(nq)
    assert by_name["helmet_rag"].delta.clusters == 60  # one question over lengths and depths
    others = [by_name[k].delta.mean for k in ("infbench", "longbench_v2", "loong_fin")]
    assert by_name["suite"].delta.mean == pytest.approx(np.mean([nq, *others]))
    assert by_name["suite"].delta.mean == pytest.approx(
        by_name["suite"].new.mean - by_name["suite"].base.mean
    )
    assert [c.title for c in result.cells] == ["nq@4k", "nq@8k", "mc", "LongBench-v2", "Loong-Fin"]
    f = result.flips
    assert f.worse + f.better + f.same == result.n == 660 and f.worse > f.better


def test_command_prints_and_writes_flips(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", two[0].name[:6], str(two[1]), "--flips", "flips.md", "--limit", "5"]) == 0
    out = capsys.readouterr().out
    assert "| suite |" in out and "| nq@8k" in out and "byte-identical" in out
    text = Path("flips.md").read_text()
    assert "| helmet_rag/nq | 4k | 0.0 | 60 |" in text and "more; `--limit` shows them" in text
    assert text.count("`icr_") == 5
    assert main(["compare", str(two[0]), str(two[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparable"] and len(found["lines"]) == 5
    depth = [row for row in found["by_depth"] if row["dataset"] == "helmet_rag/nq"]
    assert [(r["length"], r["depth"]) for r in depth] == [
        (x, d) for x in ("4k", "8k") for d in (0.0, 0.5, 1.0)
    ]
    assert main(["compare", str(two[0]), str(two[1]), "--flips", "no/such/folder.md"]) == 2


def test_the_first_differing_text_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another template or system text is shown where it parts, not only as a hash."""

    def told(template: str, system: str | None) -> Callable[[dict[str, Any]], None]:
        def change(head: dict[str, Any]) -> None:
            head["chat_template_sha"] = template[:2]
            head["texts"] = {"chat_template": template} | ({"system_instruction": system} if system else {})

        return change

    runs = [
        gatekit.write(tmp_path / str(n), gatekit.rows(), model=f"org/m{n}", change=told(*texts))
        for n, texts in enumerate([("a {{ messages }} <end>", "Be brief."), ("b {{ messages }} <end>", None)])
    ]
    assert main(["compare", *map(str, runs)]) != 0
    said = "".join(capsys.readouterr())
    assert "the chat templates part at character 1: 'a {{ messages }} <end>' and 'b {{ messages" in said
    assert "the system texts part at character 1: 'Be brief.' and none" in said
    assert main(["compare", *map(str, runs), "--allow", "template"]) == 0
    assert "the chat templates part at character 1" in "".join(capsys.readouterr())
    assert main(["compare", str(runs[0]), str(runs[0])]) == 0
    assert " part at character" not in "".join(capsys.readouterr())


def test_what_switches_thoughts_stands_in_a_rows_name(tmp_path: Path) -> None:
    """Alone, and beside a run of the same model that thinks otherwise; its other settings keep the same name."""

    def args(**more: Any) -> Callable[[dict[str, Any]], None]:
        def change(head: dict[str, Any]) -> None:
            inputs = head["fingerprint_inputs"]
            inputs |= {"thinking": more["thinking"]} if "thinking" in more else {}
            inputs["model_args"] |= {k: v for k, v in more.items() if k != "thinking"}
            head["fingerprint"] = hashlib.sha256(repr(sorted(more.items())).encode()).hexdigest()

        return change

    for number, more in enumerate(
        (
            {"thinking": "off"},
            {"thinking": "on"},
            {"chat_template_args": {"enable_thinking": False}},
            {"enable_thinking": True, "dtype": "float16"},
        )
    ):
        gatekit.write(tmp_path / "r" / str(number), gatekit.rows(), change=args(**more))
    labels = sorted(row.variant for row in build(tmp_path / "r", Options()).rows)
    assert labels == ["enable_thinking=False", "enable_thinking=True", "thinking=off", "thinking=on"]


def test_another_metric(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(two[0]), str(two[1]), "--json"])
    whole = json.loads(capsys.readouterr().out)["lines"][0]["delta"]
    main(["compare", str(two[0]), str(two[1]), "--json", "--metric", "other"])
    assert json.loads(capsys.readouterr().out)["lines"][0]["delta"] == pytest.approx(whole / 2)
    assert main(["compare", str(two[0]), str(two[1]), "--metric", "subem"]) == 4
    assert "no item of the baseline has the metric 'subem', only acc, other" in capsys.readouterr().out


def test_settings_may_differ_and_partial_runs_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = gatekit.write(tmp_path, gatekit.rows())
    rows = gatekit.rows()
    for row in rows["icr_infbench_mc"]:
        row["prompt_hash"] = "f" * 16  # another context is what the setting is about
    two = gatekit.write(tmp_path, rows, setting="none")
    assert main(["compare", str(one), str(two)]) == 0
    assert "different settings: full (ao) and none (ao)" in capsys.readouterr().out
    for run, model in (("a", "x"), ("b", "y")):
        short = {k: v[:12] for k, v in gatekit.rows().items()}
        gatekit.write(tmp_path / run, short, model=model)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "the baseline is partial in 5 of 5 tasks" in capsys.readouterr().out


def test_tasks_without_clusters_must_be_waived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for model in ("x", "y"):
        rows = gatekit.rows(tasks=("icr_longbench_v2",))
        for row in rows["icr_longbench_v2"]:
            row["cluster"] = None
        paths.append(str(gatekit.write(tmp_path, rows, model=model)))
    assert main(["compare", *paths]) == 4 and "no common cluster label" in capsys.readouterr().out
    assert main(["compare", *paths, "--allow", "clusters", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clusters"] == 120


def test_repeated_items_join_by_occurrence(tmp_path: Path) -> None:
    runs = []
    for model, scores in (("x", (1.0, 0.0)), ("y", (0.0, 1.0))):
        rows = gatekit.rows(tasks=("icr_infbench_mc",))
        items = rows["icr_infbench_mc"]
        items[1] = {**items[0], "occ": 1, "score": {"acc": scores[1]}}
        items[0] = {**items[0], "score": {"acc": scores[0]}}
        runs.append(load_run(gatekit.write(tmp_path, rows, model=model)))
    joined = pair(*runs)
    assert not joined.refusals and (joined.new - joined.base)[:2].tolist() == [-1.0, 1.0]


def test_find_by_prefix_and_folder(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert find("results", two[0].name[:5]).folder == Path("results") / two[0].relative_to(
        Path("results").resolve()
    )
    assert find("results", str(two[0])).model == "org/base"
    assert find("results", str(two[0].parent)).model == "org/base"
    with pytest.raises(IcrError, match="is 2 runs, name one by its fingerprint"):
        find("results", "results")
    with pytest.raises(IcrError, match="unknown run 'zzzz'"):
        find("results", "zzzz")


def test_runs_of_one_folder_are_told_apart_by_what_differs() -> None:
    """The study's runs of full context differ in their prompt and in what a longer answer needs."""
    folder = Path(__file__).resolve().parent.parent / "results" / "SmolLM2-135M-Instruct" / "full"
    with pytest.raises(IcrError) as refused:
        find("results", str(folder))
    said = str(refused.value)
    assert "SmolLM2-135M-Instruct full (max_gen_toks=96 prompt=id)" in said, said
    assert "prompt=ao)" in said and "pretrained=" not in said and "text=" not in said


def test_load_is_columns_and_keeps_good_runs(two: tuple[Path, Path]) -> None:
    runs = load("results")
    assert [r.model for r in runs] == ["org/base", "org/new"]
    task = runs[0].tasks["icr_helmet_rag_nq_4k"]
    assert len(task) == 180 and task.metric == "subem" and task.complete and task.dataset == "helmet_rag/nq"
    assert task.score["subem"].dtype == float and task.prompt_hash.dtype == np.uint64
    assert set(task.keys["depth"]) == {0.0, 0.5, 1.0}
    assert [r.model for r in load("results", keep=lambda head: head["model"]["id"] == "org/new")] == [
        "org/new"
    ]
    items = two[0] / "items.jsonl.gz"
    whole = gzip.decompress(items.read_bytes()).splitlines(keepends=True)
    cases = {
        b"".join(whole[:5]) + b'{"task": "icr_': "items.jsonl.gz:6: not valid JSON",
        whole[0] + whole[1].replace(b"icr_", b"xxx_", 1): "items.jsonl.gz:2: no task of run.json",
        b"".join(whole).replace(b'"score"', b'"scare"', 1): "not a ledger",
        b"".join(whole[:9]): "has 9 items, run.json counts 180",
        whole[0] + whole[1].replace(b'"other":', b'"other":NaN,"x":'): "items.jsonl.gz:2: not valid JSON",
    }
    for content, words in cases.items():
        items.write_bytes(gzip.compress(content))
        with pytest.raises(IcrError, match=words):
            load("results")
        bad: list[str] = []
        assert [r.model for r in load("results", bad=bad)] == ["org/new"] and words in bad[0]
    head = orjson.loads((two[0] / "run.json").read_bytes())
    for broken, words in (
        (b"{", "not valid JSON"),
        (b"[]", "schema None"),
        (orjson.dumps({**head, "schema": 9}), "schema 9"),
        (orjson.dumps({k: v for k, v in head.items() if k != "tasks"}), "tasks missing"),
    ):
        (two[0] / "run.json").write_bytes(broken)
        with pytest.raises(IcrError, match=words):
            load("results")
    with pytest.raises(IcrError, match="holds no run.json"):
        load(_empty())
    with pytest.raises(IcrError, match="is not a folder"):
        load("nowhere")


def _empty() -> Path:
    Path("empty").mkdir()
    return Path("empty")


def test_missing_headline_metric_has_no_fallback(tmp_path: Path) -> None:
    def change(head: dict[str, object]) -> None:
        head["tasks"]["icr_infbench_mc"]["metric"] = "acc_xfinder"

    run = load_run(gatekit.write(tmp_path, gatekit.rows(tasks=("icr_infbench_mc",)), change=change))
    with pytest.raises(IcrError, match="no item has the metric 'acc_xfinder', only acc, other"):
        run.tasks["icr_infbench_mc"].headline()


def test_no_heavy_imports() -> None:
    modules = ["compare", "gate", "baseline", "check"]
    heavy = "{'torch', 'transformers', 'vllm', 'lm_eval', 'datasets', 'pandas', 'scipy.stats'}"
    code = (
        f"import sys, {', '.join('icr_tasks.cli.' + m for m in modules)}; print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
