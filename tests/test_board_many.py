"""Boards of very many rows stay readable: Markdown says how much it leaves out, and the page says nothing twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import board_tree
import pytest

from icr_tasks.cli import main
from icr_tasks.leaderboard.board import html, pictures, render, write
from icr_tasks.leaderboard.board.build import Board
from icr_tasks.leaderboard.board.tables import SERIES, Line, Shown, Table


def table(name: str, lines: int, series: str = "") -> Table:
    rows = [Line((f"org/m{i}", "full", ""), [Shown("score", float(i), n=4)]) for i in range(lines)]
    return Table(name, name, ["avg"], rows, ["said of all", f"said of {name}"], folded=True, series=series)


def test_a_long_table_in_markdown_says_how_many_lines_are_elsewhere() -> None:
    long, short = table("long", render.MOST + 7), table("short", render.MOST)
    text = render.table_md(long, 2, render.MOST)
    assert (
        text.count("| `org/m") == render.MOST and "\n\n7 more lines in board.html and board.json.\n" in text
    )
    assert "more lines" not in render.table_md(short, 2, render.MOST)
    assert (
        render.markdown([long]).count("| `org/m") == render.MOST + 7
    )  # standard output has no page beside it


def test_lines_that_are_not_ranked_are_counted_apart() -> None:
    mixed = table("mixed", render.MOST + 20)
    for line in mixed.lines[: render.MOST + 5]:
        line.ranked = False
    text = render.table_md(mixed, 2, render.MOST)
    assert text.count("| `org/m") == render.MOST + 15 and "5 more lines in board.html" in text


def test_a_long_series_in_markdown_shows_its_first_tables() -> None:
    own = [table(f"use-{i}", 2, "model") for i in range(SERIES + 3)]
    found = write._tables([table("first", 1), *own, table("last", 1)])
    assert len(found) == 1 + SERIES + 1 + 1
    assert found[-2] == "3 more such tables, one a model, in board.html and board.json."
    assert "use-0" in found[1] and f"use-{SERIES - 1}" in found[-3] and "last" in found[-1]
    assert len(write._tables(own[:SERIES])) == SERIES


def test_a_long_series_on_the_page_folds_and_says_its_notes_once() -> None:
    own = [html._table(table(f"use-{i}", 2, "model"), {}) for i in range(SERIES + 1)]
    made = html._in_series(own)
    assert [bool(t["opens"]) for t in made] == [True] + [False] * SERIES
    assert [t["closes"] for t in made] == [False] * SERIES + [True]
    assert made[0]["notes"] == ["said of all", "said of use-0"] and made[1]["notes"] == ["said of use-1"]
    few = html._in_series([html._table(table(f"use-{i}", 2, "model"), {}) for i in range(SERIES)])
    assert not any(t["opens"] or t["closes"] for t in few) and len(few[1]["notes"]) == 2


@pytest.mark.parametrize(
    "numbers, text", [([], ""), ([4], "4"), ([3, 1, 2, 9], "1-3 9"), ([5, 5, 6], "5-6"), ([0, 2], "0 2")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert html._ranges(numbers) == text


def test_the_page_holds_every_item_and_chart_and_names_each_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("altair")
    for model in ("org/a", "org/b"):
        for setting in ("full", "rag@4k"):
            board_tree.run(tmp_path / "r", model, setting, datasets=("nq",))
    drawn: list[pictures.Picture] = []
    real = pictures.pictures

    def kept(board: Board) -> list[pictures.Picture]:
        drawn.extend(real(board))
        return drawn

    monkeypatch.setattr(write, "pictures", kept)
    assert main(["board", str(tmp_path / "r"), "-o", str(tmp_path / "b")]) == 0
    text = (tmp_path / "b" / "board.html").read_text()
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert len({run for run, _ in data["runs"]}) == len(data["runs"]) == 4
    assert len(data["tasks"]) == 3 and len(data["items"]) == len(set(data["items"])) == 60
    assert len(data["cells"]) == 12
    for run, task, n, _kind, rows in data["cells"]:
        ledger = [json.loads(x) for x in _lines(tmp_path / "r", data["runs"][run][0])]
        own = [r for r in ledger if r["task"] == data["tasks"][task][0]]
        assert n == len(own) == len(rows)
        assert [(data["items"][r[0]], r[1], r[3]) for r in rows] == [
            (r["item"], r["occ"], r["score"]["subem"]) for r in own
        ]
    whole = [{**data["frames"][c["frame"]], **c["spec"]} for c in data["charts"]]
    assert whole == json.loads(json.dumps([p.chart.spec for p in drawn]))
    assert len(data["frames"]) < len(whole)


def _lines(root: Path, fingerprint: str) -> list[str]:
    import gzip

    (folder,) = root.rglob(fingerprint)
    return gzip.decompress((folder / "items.jsonl.gz").read_bytes()).decode().splitlines()


def test_labels_leave_out_what_all_rows_share(tmp_path: Path) -> None:
    from icr_tasks.leaderboard.board.build import build
    from icr_tasks.leaderboard.board.tables import Options

    for model in ("org/a", "org/b"):
        for setting in ("full", "kv:topk@0.05"):
            board_tree.run(tmp_path, model, setting, datasets=("nq",))
    board = build(tmp_path, Options())
    assert pictures._short_labels([r for r in board.rows if r.name == "org/a"]) == ["full", "kv:topk@0.05"]
    assert set(pictures._short_labels(board.rows)) == {
        f"{m} {s}" for m in ("org/a", "org/b") for s in ("full", "kv:topk@0.05")
    }
    twice = [board.rows[0], board.rows[0], *board.rows[1:]]  # one name is no label of two rows
    assert pictures._short_labels(twice) == [r.label for r in twice]
    pytest.importorskip("altair")
    (chart,) = pictures._drops(board.tables)
    assert "org/a:" in chart.words and "kv:topk" not in chart.words
    one = build(tmp_path, Options(), patterns={"model": ["org/a"]})
    (chart,) = pictures._drops(one.tables)
    assert chart.title.endswith(": org/a") and chart.words.startswith("kv:topk")


def test_a_matrix_of_many_rows_keeps_the_full_context_and_four_references_of_most_columns() -> None:
    pytest.importorskip("altair")
    from icr_tasks.leaderboard.plots.matrix import Choice, _fullest

    choices = [Choice("full", "4k", 50.0, None, 9)]
    choices += [Choice(f"s{i}", "4k", 40.0, None, 9) for i in range(12)]
    choices += [Choice("s11", "8k", 40.0, None, 9)]
    for i in range(6):
        columns = ("4k", "8k") if i in (1, 5) else ("4k",)
        choices += [Choice(f"ref{i}", c, 10.0, None, 9, reference=True) for c in columns]
    rows = list(dict.fromkeys(c.setting for c in choices))
    found = _fullest(rows, choices)
    assert found == ["full", *(f"s{i}" for i in (0, 1, 2, 3, 4, 5, 11)), "ref0", "ref1", "ref2", "ref5"]
