"""icr board as a command: filters, formats, files, broken and hostile trees, the golden board of real
runs."""

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
from board_tree import cells, table

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.board import render
from icr_tasks.leaderboard.board.build import Board, build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.text import escape
from icr_tasks.registry import VIEWS

GOLDEN = Path(__file__).parent / "golden" / "board.md"


def test_filters_sort_and_views(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = build(tree, Options(), patterns={"model": ["*base*"], "setting": ["rag@*", "full"]})
    assert {(r.model, r.setting["kind"]) for r in kept.rows} == {
        ("org/base-7b", "full"),
        ("org/base-7b", "rag"),
    }
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
        (["--view", "drops"], "Did you mean 'drop'"),
        (["--sort", "nqq"], "column to sort by"),
        (["--model", "nobody"], "widen the filters"),
    ):
        assert main(["board", str(tree), *args]) == 2
        assert message in capsys.readouterr().err


def test_formats_agree(tree: Path, board: Board) -> None:
    rows = list(csv.DictReader(render.tsv(board.tables).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    data = json.loads(render.json(board.tables))["tables"]
    flat = [(t["name"], c["value"]) for t in data for line in t["lines"] for c in line["cells"]]
    assert [(r["table"], float(r["value"]) if r["value"] else None) for r in rows] == flat
    tex = render.latex(board.tables)
    assert (
        tex.count(r"\begin{tabular}") == len(board.tables)
        and r"$\pm$" in tex
        and "_" not in tex.replace(r"\_", "")
    )
    assert escape.latex("a|b <c>_{#}") == r"a\textbar{}b \textless{}c\textgreater{}\_\{\#\}"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_of_items_holds_every_item(form: str, tree: Path, board: Board, tmp_path: Path) -> None:
    main(["board", str(tree), "-o", str(tmp_path), "--items", form])
    if form == "csv":
        with (tmp_path / "items.csv").open() as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "items.parquet").to_pylist()
        assert {r["item"] for r in rows} and all(r["error"] is None for r in rows)
    assert len(rows) == board.n_items
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    mean = np.mean(
        [
            float(r["score"])
            for r in rows
            if (r["model"], r["setting"], r["task"]) == ("org/base-7b", "full", "icr_infbench_mc")
        ]
    )
    assert cells(table(board, "settings"), "org/base-7b")["mc"].value == pytest.approx(100 * mean)


def test_broken_runs_are_named_and_the_others_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        found["mc"].reason == "no item has the metric acc"
        and found["qa"].reason == "f1 is not a score between 0 and 1"
    )


def test_one_cluster_has_no_interval(tmp_path: Path) -> None:
    def same(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["cluster"] = "one book"

    board_tree.run(tmp_path, "m", datasets=("mc",), change=same)
    found = cells(table(build(tmp_path, Options()), "settings"), "m")["mc"]
    assert (
        found.low is None
        and found.reason.startswith("one cluster: no interval")
        and render.text(found).count("±") == 0
    )


def test_document_ranking(tmp_path: Path, board: Board) -> None:
    board_tree.run(tmp_path, "m", datasets=("mc",))
    items = [
        {"item": f"q{i}", "cluster": f"q{i}", "ndcg@10": {"attention": 1.0 - i / 10, "random": 0.4}}
        for i in range(8)
    ]
    for dataset in ("nq", "hotpotqa"):
        data = {"benchmark": "helmet_rag", "dataset": dataset, "length": "32k", "data_revision": "r"}
        report = {
            "model": "m",
            "revision": None,
            "task": f"t_{dataset}",
            "prompt": "ao",
            "data": data,
            "items": items,
        }
        (tmp_path / f"rank_{dataset}.json").write_text(json.dumps(report))
    (tmp_path / "rank_bad.json").write_text("{}")
    made = build(tmp_path, Options())
    [t] = [t for t in made.tables if t.name.startswith("ranking")]
    assert t.columns == ["hotpotqa", "nq", "avg"] and [line.labels[1] for line in t.lines] == [
        "attention",
        "random",
    ]
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
    assert len(data["published"]) == 8 and not any(
        "Qwen" in line["labels"][0] for t in data["tables"] for line in t["lines"]
    )


def test_the_board_needs_no_engine(tree: Path, tmp_path: Path) -> None:
    """No torch, transformers, vllm, lm_eval or datasets is imported: other people's results can be read on a
    laptop."""
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
        from icr_tasks.leaderboard.board.build import main as run

        run([str(tree), "-o", str(tmp_path / "file" / "x")])


def test_views_are_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "leaderboard.md").read_text()
    assert all(f"`{name}`" in text for name in VIEWS)


@pytest.mark.parametrize(
    "name", sorted(p.name for p in GOLDEN.parent.iterdir() if p.is_dir() and p.name[0] not in "._")
)
def test_golden_of_real_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real models on real engines (tests/golden/README.md says how): the board byte for byte, and a tree
    without faults."""
    runs, golden = GOLDEN.parent / name, GOLDEN.with_name(f"board_{name}.md")
    assert main(["check", str(runs)]) == 0
    assert main(["board", str(runs), "-o", str(tmp_path)]) == 0
    text = (tmp_path / "board.md").read_text()
    if os.environ.get("ICR_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert "Not ranked, partial or stale" not in text  # smollm2 was run with --limit: all of it was


def test_a_compressed_run_drops_against_its_own_engine() -> None:
    """The golden SmolLM2 was run in full by two engines; its compressed runs are icr-hf's."""
    t = table(build(GOLDEN.parent / "smollm2", Options()), "drop")
    assert [line.labels[1] for line in t.lines] == ["kv:snapkv@0.5", "kv:steady@0.25", "kv:topk@0.05"]
    assert all(line.cells[0].n == 36 and line.cells[0].value < 0 for line in t.lines)


def test_without_the_extra_a_board_is_its_tables_and_one_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icr_tasks.leaderboard.plots import chart

    real = chart.find_spec
    monkeypatch.setattr(
        chart, "find_spec", lambda name: None if name in ("altair", "vl_convert") else real(name)
    )
    assert main(["board", str(tree), "-o", str(tmp_path)]) == 0
    assert not list(tmp_path.glob("*.svg"))
    for name in ("board.md", "board.html"):
        text = (tmp_path / name).read_text()
        assert text.count('pip install ".[board]"') + text.count("pip install &#34;.[board]&#34;") == 1
        assert "InfiniteBench" in text and "<picture>" not in text and "vegaEmbed =" not in text
