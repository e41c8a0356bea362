"""icr board: views, gaps, ties, drops, filters and formats over a simulated results tree, checked against plain numpy."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import board_tree
import numpy as np
import pytest

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard import ledger, render
from icr_tasks.leaderboard.board import Board, build
from icr_tasks.leaderboard.views import VIEWS
from icr_tasks.leaderboard.views_grid import Options, Table

GOLDEN = Path(__file__).parent / "golden" / "board.md"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return board_tree.tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def board(tree: Path) -> Board:
    return build(tree, Options())


def table(board: Board, name: str) -> Table:
    return next(t for t in board.tables if t.name == name)


def cells(t: Table, model: str, setting: str = "full") -> dict[str, Any]:
    line = next(line for line in t.lines if line.labels[:2] == (model, setting))
    return dict(zip(t.columns, line.cells, strict=True))


def scores(tree: Path, model: str, setting: str, task: str, metric: str = "subem") -> dict[str, float]:
    [folder] = (tree / ledger.slug(model) / ledger.slug(setting)).iterdir()
    return {r["item"]: r["score"][metric] for r in ledger.items(folder) if r["task"] == task}


def test_golden(tree: Path, tmp_path: Path) -> None:
    assert main(["board", str(tree), "-o", str(tmp_path)]) == 0
    text = (tmp_path / "board.md").read_text()
    if os.environ.get("ICR_UPDATE_GOLDEN"):  # after a wanted change; read the diff
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    assert main(["board", str(tree), "-o", str(tmp_path / "again")]) == 0
    for path in tmp_path.glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), f"{path.name} is not deterministic"


def test_cells_and_averages_are_those_of_the_items(tree: Path, board: Board) -> None:
    by_length = cells(table(board, "length-helmet_rag-nq"), "org/base-7b")
    means = [
        np.mean(list(scores(tree, "org/base-7b", "full", f"icr_helmet_rag_nq_{n}").values()))
        for n in ("4k", "16k", "64k")
    ]
    for column, mean in zip(("4k", "16k", "64k"), means, strict=True):
        assert by_length[column].value == pytest.approx(100 * mean)
    assert by_length["avg"].value == pytest.approx(100 * np.mean(means))
    every = cells(table(board, "settings"), "org/base-7b")
    assert every["avg"].value == pytest.approx(np.mean([every[c].value for c in ("mc", "qa", "longbench_v2")]))
    for t in board.tables:  # every value has N and, but for costs, an interval around it; every dash has a reason
        for line in t.lines:
            for cell in line.cells:
                if cell.value is None:
                    assert cell.reason
                elif cell.kind != "number":
                    assert cell.n and cell.low <= cell.value <= cell.high


def test_questions_are_clusters_over_depths_and_lengths(tree: Path, board: Board) -> None:
    """Three depths of a question are not three independent items: the interval is that of 20 questions."""
    effect = (
        next(r for r in board.rows if r.name == "org/base-7b" and r.setting["text"] == "full")
        .cells["helmet_rag", "nq", "4k"]
        .effect
    )
    assert effect is not None and (effect.n, effect.clusters) == (60, 20)
    found = scores(tree, "org/base-7b", "full", "icr_helmet_rag_nq_4k")
    means = np.array(list(found.values())).reshape(20, 3).mean(1)
    assert effect.se == pytest.approx(means.std(ddof=1) / np.sqrt(20))


def test_a_gap_is_a_dash_with_a_reason_and_spoils_its_averages(board: Board) -> None:
    row = cells(table(board, "length-helmet_rag-nq"), "org/ours-7b-step-200")
    assert row["4k"].value is not None and row["16k"].value is None and row["avg"].value is None
    assert row["16k"].reason == "no run has it" and row["avg"].reason == "no average: nq 16k missing"
    assert cells(table(board, "board"), "org/base-7b", "rag@32k")["suite"].value is None


def test_partial_and_stale_rows_stand_apart_with_the_command_that_completes_them(
    tree: Path, board: Board, tmp_path: Path
) -> None:
    nq = table(board, "length-helmet_rag-nq")
    assert {line.labels[0] for line in nq.lines if not line.ranked} == {"org/old"}
    assert cells(nq, "org/old")["4k"].reason == "stale: task version 0, now 1"
    hotpot = table(board, "length-helmet_rag-hotpotqa")
    partial = cells(hotpot, "org/partial")
    assert partial["4k"].reason == "partial: 45/60 items" and partial["avg"].value is None
    main(["board", str(tree), "-o", str(tmp_path)])
    opened = {o["row"]: o for o in json.loads((tmp_path / "board.json").read_text())["open"]}
    call = opened["org/ours-7b-step-200 full, ao"]
    assert call["open"] == ["icr_helmet_rag_nq_16k missing"]
    assert "--tasks icr_helmet_rag_nq_16k --model icr-vllm --model_args dtype=bfloat16" in call["command"]
    assert """--metadata '{"setting":"full","prompt":"ao"}'""" in call["command"]
    assert "org/base-7b full, ao" not in opened


def test_partial_flag_ranks_them_and_says_so(tree: Path) -> None:
    found = cells(table(build(tree, Options(), partial=True), "length-helmet_rag-hotpotqa"), "org/partial")
    assert found["avg"].value is not None and "partial" in found["avg"].reason and "45/60" in found["4k"].reason


def test_ties_are_paired(tree: Path, board: Board) -> None:
    """A row is tied when the paired difference to the best is within noise, whatever the two intervals look like."""
    from icr_tasks.leaderboard.board_rows import difference

    t = table(board, "length-helmet_rag-nq")
    marks = {line.labels[:2]: line.cells[-1].mark for line in t.lines if line.ranked}
    best = next(key for key, mark in marks.items() if mark == "best")
    rows = {(r.name, r.setting["text"]): r for r in board.rows}
    columns = [("helmet_rag", "nq", n) for n in ("4k", "16k", "64k")]
    assert set(marks.values()) == {"best", "tied", ""}
    for key, mark in marks.items():
        if key != best and rows[key].average(columns).usable:
            design, new, old = difference(rows[key], rows[best], columns)
            assert (mark == "tied") == (design.effect(new - old).p >= 0.05)


def test_foreign_tasks_do_not_enter_the_suite(tmp_path: Path) -> None:
    """One model with one more benchmark must not turn everybody's average into a dash."""

    def foreign(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["tasks"]["icr_longbench_v2"] |= {"benchmark": "gsm8k", "dataset": "gsm8k"}

    board_tree.run(tmp_path, "a", datasets=("mc", "qa"))
    board_tree.run(tmp_path, "b", datasets=("mc", "qa", "all"), change=foreign)
    made = build(tmp_path, Options())
    assert all(line.cells[-1].value is not None for line in table(made, "settings").lines)
    assert table(made, "board").columns == ["InfiniteBench"] and table(made, "settings-gsm8k").columns == ["gsm8k"]


def test_rows_with_other_items_are_not_compared(tmp_path: Path) -> None:
    def other(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[0]["item"] = "another"

    board_tree.run(tmp_path, "a", datasets=("mc",))
    board_tree.run(tmp_path, "b", datasets=("mc",), skill=-1, change=other)
    found = cells(table(build(tmp_path, Options()), "settings"), "b")["mc"]
    assert found.mark == "" and "other items" in found.extra


def test_drop_and_difference_of_drops(tree: Path, board: Board) -> None:
    t = table(board, "drop")
    base, ours = cells(t, "org/base-7b", "kv:topk@0.05"), cells(t, "org/ours-7b-step-300", "kv:topk@0.05")

    def mean(model: str, setting: str) -> float:
        return float(np.mean(list(scores(tree, model, setting, "icr_infbench_mc", "acc").values())))

    full, small = mean("org/base-7b", "full"), mean("org/base-7b", "kv:topk@0.05")
    assert base["mc"].value == pytest.approx(100 * (small - full))
    assert base["mc"].extra.startswith(f"{100 * (small - full) / full:+.1f} %")
    last = t.columns[-1]
    assert last == "vs drop of org/base-7b" and base[last].reason == "reference"
    assert ours[last].value == pytest.approx(ours["avg"].value - base["avg"].value)
    other = build(tree, Options(base="org/ours-7b-step-300"), views=["drop"])
    assert cells(other.tables[0], "org/base-7b", "kv:topk@0.05")[
        "vs drop of org/ours-7b-step-300"
    ].value == pytest.approx(-ours[last].value)


def test_rag_view_and_setting_blocks(board: Board) -> None:
    assert [line.labels[1] for line in table(board, "rag").lines] == ["full", "rag@32k", "rag@4k"]
    blocks = [line.labels[1].split(":")[0].split("@")[0] for line in table(board, "settings").lines if line.ranked]
    assert blocks == sorted(blocks, key=["full", "none", "kv", "rag"].index)


def test_benchmarks_with_prompts_of_their_own_share_a_row(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", prompt="ao", datasets=("nq",))
    board_tree.run(tmp_path, "m", prompt="id", datasets=("nq",))
    board_tree.run(tmp_path, "m", prompt="paper", datasets=("mc", "qa"))
    found = table(build(tmp_path, Options()), "board")
    assert {line.labels[2] for line in found.lines} == {"ao + paper", "id + paper"}
    assert all(line.cells[-1].value is not None for line in found.lines)


def test_look_alike_rows_are_told_apart(tmp_path: Path) -> None:
    def half(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["fingerprint"], head["fingerprint_inputs"]["model_args"]["dtype"] = "f" * 12, "float16"

    board_tree.run(tmp_path, "m", datasets=("mc",))
    board_tree.run(tmp_path, "m", datasets=("mc",), change=half)
    labels = {line.labels for line in table(build(tmp_path, Options()), "settings").lines}
    assert labels == {("m", "full", "ao dtype=bfloat16"), ("m", "full", "ao dtype=float16")}


def test_checkpoints_are_rows(tmp_path: Path) -> None:
    for revision in ("step-1", "step-2", "step-3"):
        board_tree.run(tmp_path, "m", revision=revision, datasets=("nq",))
    assert main(["board", str(tmp_path), "-o", str(tmp_path / "b")]) == 0
    assert {line.labels[0] for line in table(build(tmp_path, Options()), "board").lines} == {
        "m@step-1",
        "m@step-2",
        "m@step-3",
    }
    assert [p.name for p in (tmp_path / "b").glob("trend-*")] == ["trend-m-full-ao.svg"]


def test_filters_sort_and_views(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = build(tree, Options(), patterns={"model": ["*base*"], "setting": ["rag@*", "full"]})
    assert {(r.model, r.setting["kind"]) for r in kept.rows} == {("org/base-7b", "full"), ("org/base-7b", "rag")}
    only = build(tree, Options(), patterns={"benchmark": ["infbench"]})
    assert {c[0] for r in only.rows for c in r.cells} == {"infbench"}
    short = build(tree, Options(), patterns={"dataset": ["nq"], "length": ["4k", "16k"]})
    assert table(short, "length-helmet_rag-nq").columns == [
        "4k",
        "16k",
        "avg",
    ] and "length-helmet_rag-hotpotqa" not in [t.name for t in short.tables]
    sorted_by = table(build(tree, Options(sort="hotpotqa")), "datasets-helmet_rag")
    values = [line.cells[0].value for line in sorted_by.lines if line.ranked]
    assert values == sorted(values, reverse=True)
    assert main(["board", str(tree), "--view", "drop"]) == 0
    assert capsys.readouterr().out.startswith("### Drop under compression")
    for args, message in (
        (["--view", "drops"], "Did you mean 'drop'"), (["--sort", "nqq"], "column to sort by"), (["--model", "nobody"], "widen the filters"),
    ):  # fmt: skip
        assert main(["board", str(tree), *args]) == 2
        assert message in capsys.readouterr().err


def test_formats_agree(tree: Path, board: Board) -> None:
    rows = list(csv.DictReader(render.tsv(board.tables).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    data = json.loads(render.json(board.tables))["tables"]
    flat = [(t["name"], c["value"]) for t in data for line in t["lines"] for c in line["cells"]]
    assert [(r["table"], float(r["value"]) if r["value"] else None) for r in rows] == flat
    tex = render.latex(board.tables)
    assert tex.count(r"\begin{tabular}") == len(board.tables) and r"$\pm$" in tex and "_" not in tex.replace(r"\_", "")


def test_items_csv_holds_every_item(tree: Path, board: Board, tmp_path: Path) -> None:
    main(["board", str(tree), "-o", str(tmp_path)])
    with (tmp_path / "items.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == board.n_items
    mean = np.mean(
        [
            float(r["score"])
            for r in rows
            if (r["model"], r["setting"], r["task"]) == ("org/base-7b", "full", "icr_infbench_mc")
        ]
    )
    assert cells(table(board, "settings"), "org/base-7b")["mc"].value == pytest.approx(100 * mean)


def test_broken_runs_are_named_and_the_others_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board_tree.run(tmp_path, "good", datasets=("mc",))
    cut = board_tree.run(tmp_path, "cut", datasets=("mc",))
    (cut / "run.json").write_text('{"schema": 1')
    old = board_tree.run(tmp_path, "old", datasets=("mc",))
    (old / "run.json").write_text('{"schema": 0}')
    torn = board_tree.run(tmp_path, "torn", datasets=("mc",))
    (torn / "items.jsonl.gz").write_bytes((torn / "items.jsonl.gz").read_bytes()[:200])
    assert main(["board", str(tmp_path), "-o", str(tmp_path / "b")]) == 2
    text, err = (tmp_path / "b" / "board.md").read_text(), capsys.readouterr().err
    assert "`good`" in text and "## Not readable" in text
    for folder in (cut, old):
        assert f"{folder}/run.json" in err
    assert f"{torn}/items.jsonl.gz" in err
    (tmp_path / "empty").mkdir()
    assert main(["board", str(tmp_path / "empty")]) == 2 and "icr collect" in capsys.readouterr().err
    assert main(["board", str(tmp_path / "none")]) == 2 and "is not a folder" in capsys.readouterr().err


def test_scores_that_are_none(tmp_path: Path) -> None:
    def unscored(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["score"] = {} if row["task"] == "icr_infbench_mc" else {"f1": 3.0}

    board_tree.run(tmp_path, "m", datasets=("mc", "qa"), change=unscored)
    found = cells(table(build(tmp_path, Options()), "settings"), "m")
    assert (
        found["mc"].reason == "no item has the metric acc" and found["qa"].reason == "f1 is not a score between 0 and 1"
    )


def test_one_cluster_has_no_interval(tmp_path: Path) -> None:
    def same(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["cluster"] = "one book"

    board_tree.run(tmp_path, "m", datasets=("mc",), change=same)
    found = cells(table(build(tmp_path, Options()), "settings"), "m")["mc"]
    assert found.low is None and found.reason == "one cluster: no interval" and render.text(found).count("±") == 0


def test_document_ranking(tmp_path: Path, board: Board) -> None:
    board_tree.run(tmp_path, "m", datasets=("mc",))
    items = [
        {"item": f"q{i}", "cluster": f"q{i}", "ndcg@10": {"attention": 1.0 - i / 10, "random": 0.4}} for i in range(8)
    ]
    for dataset in ("nq", "hotpotqa"):
        data = {"benchmark": "helmet_rag", "dataset": dataset, "length": "32k", "data_revision": "r"}
        report = {"model": "m", "revision": None, "task": f"t_{dataset}", "prompt": "ao", "data": data, "items": items}
        (tmp_path / f"rank_{dataset}.json").write_text(json.dumps(report))
    (tmp_path / "rank_bad.json").write_text("{}")
    made = build(tmp_path, Options())
    [t] = [t for t in made.tables if t.name.startswith("ranking")]
    assert t.columns == ["hotpotqa", "nq", "avg"] and [line.labels[1] for line in t.lines] == ["attention", "random"]
    assert t.lines[0].cells[-1].value == pytest.approx(65) and t.lines[0].cells[-1].n == 16
    assert len(made.bad) == 1 and "rank_bad.json: not a report of icr rank" in made.bad[0]


def test_published_rows_are_shown_and_never_ranked(tree: Path, tmp_path: Path) -> None:
    main(["board", str(tree), "-o", str(tmp_path), "--published"])
    text = (tmp_path / "board.md").read_text()
    before, after = text.split("## Published")
    assert "Qwen2.5-7B-Instruct-1M" not in before and "Table 10" in after and "What does not add up" in after
    assert "printed -27.6, Table 2 gives -8.0" in after
    page = (tmp_path / "board.html").read_text()
    assert "published-12" in page
    data = json.loads((tmp_path / "board.json").read_text())
    assert len(data["published"]) == 7 and not any(
        "Qwen" in line["labels"][0] for t in data["tables"] for line in t["lines"]
    )


def test_the_board_needs_no_engine(tree: Path, tmp_path: Path) -> None:
    """No torch, transformers, vllm, lm_eval or datasets is imported: other people's results can be read on a laptop."""
    code = (
        "import sys; from icr_tasks.cli import main; code = main(sys.argv[1:]); "
        "bad = {'torch', 'transformers', 'vllm', 'lm_eval', 'datasets', 'pandas'} & set(sys.modules); "
        "sys.exit(f'imported {bad}' if bad else code)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "board", str(tree), "-o", str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IcrError, match="cannot write"):
        from icr_tasks.leaderboard.board import main as run

        run([str(tree), "-o", str(tmp_path / "file" / "x")])


def test_views_are_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "leaderboard.md").read_text()
    assert all(f"`{name}`" in text for name in VIEWS)


def test_golden_of_real_runs(tmp_path: Path) -> None:
    """SmolLM2-135M under four settings and four lengths, as `icr demo` left them (items were limited: partial)."""
    assert main(["board", str(GOLDEN.parent / "smollm2"), "-o", str(tmp_path), "--partial"]) == 0
    text = (tmp_path / "board.md").read_text()
    golden = GOLDEN.with_name("board_smollm2.md")
    if os.environ.get("ICR_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert main(["board", str(GOLDEN.parent / "smollm2"), "-o", str(tmp_path / "strict")]) == 0
    assert "Not ranked, partial or stale" in (tmp_path / "strict" / "board.md").read_text()
