"""What to use: settings against full context by length, the sentence about them, effective lengths, and a
ranking that equal rows stay together in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import board_tree
import numpy as np
import pytest
from board_tree import SETTINGS, cells, scores, table

from icr_tasks.leaderboard.board import render, tables
from icr_tasks.leaderboard.board.advice import Advice, Reach
from icr_tasks.leaderboard.board.bands import LEAST
from icr_tasks.leaderboard.board.build import Board, build
from icr_tasks.leaderboard.board.sentence import sentence
from icr_tasks.leaderboard.board.tables import Options, Table
from icr_tasks.leaderboard.ledgers import ledger
from icr_tasks.leaderboard.multiple import apart, range_p
from icr_tasks.leaderboard.stats import Design

LENGTHS = ("4k", "16k", "64k")


def cross(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Full context falls with length, retrieval does not; compression costs the same everywhere."""
    kind = head["setting"]["text"]
    rng = np.random.default_rng([*head["fingerprint"].encode()])
    for row in rows:
        length = row["keys"]["length"]
        right = {"full": {"4k": 0.9, "16k": 0.85, "64k": 0.3}, "rag@4k": {"4k": 0.7, "16k": 0.7, "64k": 0.7}}
        share = right.get(kind, {}).get(length, 0.5)
        row["score"] = {next(iter(row["score"])): float(rng.random() < share)}


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root = tmp_path_factory.mktemp("crossing")
    kv = {"read_fraction": 0.07}
    for setting in ("full", "rag@4k", "kv:topk@0.05", "none"):
        board_tree.run(root, "m", setting, datasets=("hotpotqa", "nq"), change=cross, kv=kv)
    return build(root, Options())


def advice(board: Board, model: str, benchmark: str) -> Advice:
    return next(a for a in board.advice if (a.model, a.benchmark) == (model, benchmark))


def per_model(board: Board, benchmark: str) -> Table:
    return next(t for t in board.tables if t.name.startswith("use-") and t.name.endswith(benchmark))


def test_the_crossing_is_said_in_one_sentence(crossing: Board) -> None:
    found = advice(crossing, "m", "helmet_rag")
    assert found.sentence.startswith("up to 16k full context; from 64k rag@4k, +")
    assert "kv:topk@0.05 costs " in found.sentence and "reads 7.0 %" in found.sentence
    assert crossing.tables[0].name == per_model(crossing, "helmet_rag").name  # first on the board
    assert crossing.tables[0].lead.lower() == found.sentence.lower()


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Retrieval only where there is more to read than it may give."""
    root = tmp_path_factory.mktemp("gaps")
    short = tuple(f"icr_helmet_rag_{d}_4k" for d in ("hotpotqa", "nq"))
    board_tree.run(root, "m", "full", datasets=("hotpotqa", "nq"), change=cross)
    board_tree.run(root, "m", "rag@4k", datasets=("hotpotqa", "nq"), change=cross, skip=short)
    board_tree.run(root, "m", "kv:topk@0.05", datasets=("hotpotqa", "nq"), change=cross, skip=short)
    return build(root, Options())


def test_a_setting_of_some_lengths_is_told_where_it_was_measured(gaps: Board) -> None:
    found = advice(gaps, "m", "helmet_rag")
    kv = next(line for line in found.lines if line.row.setting["text"] == "kv:topk@0.05")
    assert found.sentence.startswith("up to 16k full context; from 64k rag@4k, +") and kv.whole.delta is None
    shown = render.text(tables.of_effect(kv.uses[-1].delta, 0.95, kind="diff"))  # type: ignore[arg-type]
    assert (
        kv.uses[-1].better
        and f"at some lengths only: kv:topk@0.05 gains {shown[1:]} at 64k." in found.sentence
    )


def test_a_gain_that_many_comparisons_do_not_bear_is_said_to_be_unsure(gaps: Board) -> None:
    found = advice(gaps, "m", "helmet_rag")
    for line in found.lines[1:]:
        for use in line.uses:
            use.better = use.worse = False
    said = sentence(found)
    assert said.startswith("at every length full context; at some lengths only: rag@4k +")
    assert said.count("at 64k (not sure among so many comparisons)") == 2


@pytest.mark.parametrize("tree_of", ["crossing", "gaps", "board"])
def test_every_number_of_a_sentence_stands_in_its_table(tree_of: str, request: pytest.FixtureRequest) -> None:
    made: Board = request.getfixturevalue(tree_of)
    leads = [t for t in made.tables if t.lead]
    assert leads
    for t in leads:
        shown = " ".join([*t.columns, *(render.text(c) for line in t.lines for c in line.cells)])
        names = [line.labels[1] for line in t.lines]
        text = t.lead
        for name in sorted(names, key=len, reverse=True):
            text = text.replace(name, "")
        numbers = re.findall(r"\d+(?:\.\d+)?k?", text)
        assert numbers and all(n in re.findall(r"\d+(?:\.\d+)?k?", shown) for n in numbers), t.lead


def test_differences_are_paired_with_full_context(tree: Path, board: Board) -> None:
    found = advice(board, "org/base-7b", "helmet_rag")
    line = next(x for x in found.lines if x.row.setting["text"] == "kv:topk@0.05")
    parts = []
    for dataset in ("hotpotqa", "nq"):
        task = f"icr_helmet_rag_{dataset}_16k"
        new, old = (scores(tree, "org/base-7b", s, task) for s in ("kv:topk@0.05", "full"))
        parts.append(np.mean([new[i] - old[i] for i in old]))
    assert line.uses[1].delta is not None
    assert line.uses[1].delta.mean == pytest.approx(np.mean(parts))
    assert line.uses[1].delta.clusters == 40  # questions, not items


def test_reference_lines_are_never_ranked(crossing: Board) -> None:
    assert any(line.reference for t in crossing.tables for line in t.lines)
    for t in crossing.tables:
        for line in t.lines:
            if line.labels[1] in ("none", "gold", "gold@only"):
                assert line.reference and not line.ranked and not any(c.mark for c in line.cells)


def test_a_reference_that_is_best_marks_nothing(tmp_path: Path) -> None:
    """gold@only above everything: the best row is the best that somebody could serve."""

    def gold(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["setting"] = {
            "text": "gold@only",
            "kind": "gold",
            "method": None,
            "amount": "only",
            "params": {},
        }
        head["fingerprint"] = "9" * 12
        for row in rows:
            row["score"] = {"subem": 1.0}

    board_tree.run(tmp_path, "m", datasets=("nq",), change=gold)
    board_tree.run(tmp_path, "m", datasets=("nq",))
    board_tree.run(tmp_path, "m", "kv:topk@0.05", datasets=("nq",))
    made = build(tmp_path, Options())
    top = cells(table(made, "length-helmet_rag-nq"), "m", "gold@only")
    assert top["avg"].value == 100 and top["avg"].mark == ""
    marks = [line.cells[-1].mark for line in table(made, "length-helmet_rag-nq").lines]
    assert marks.count("best") == 1


@pytest.mark.parametrize("retriever", ["oracle", "random", "head"])
def test_retrievers_that_nobody_could_serve_are_references(tmp_path: Path, retriever: str) -> None:
    def known(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["setting"] = SETTINGS["rag@4k"] | {
            "text": f"rag@4k,{retriever}",
            "params": {"retriever": retriever},
        }
        head["fingerprint"] = "8" * 12

    board_tree.run(tmp_path, "m", datasets=("nq",))
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("nq",), change=known)
    found = build(tmp_path, Options()).advice[0]
    assert [line.reference for line in found.lines] == [False, True]


def test_benchmarks_without_lengths_are_binned_by_the_full_prompt(tmp_path: Path) -> None:
    def spread(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for k, row in enumerate(rows):
            row["n_prompt_tokens"] = (
                100 if head["setting"]["kind"] == "rag" else (3000, 9000, 70000)[k % 3 if k < 57 else 0]
            )
            row["cluster"] = f"c{k}"

    for setting in ("full", "rag@4k"):
        board_tree.run(tmp_path, "m", setting, datasets=("all",), change=spread)
    found = build(tmp_path, Options()).advice[0]
    assert [b.name for b in found.bands] == ["2k to 4k"]
    assert any("8k to 16k has 19" in text and str(LEAST) in text for text in found.left_out)
    assert found.lines[1].uses[0].delta is not None and found.lines[1].uses[0].delta.n == 22
    assert found.full.reach is None


def test_effective_length(crossing: Board) -> None:
    found = advice(crossing, "m", "helmet_rag")
    reach = {line.row.setting["text"]: line.reach for line in found.lines}
    assert reach["full"] is not None and reach["full"].tokens == 16384 and reach["full"].high == 16384
    assert reach["rag@4k"] is not None and reach["rag@4k"].tokens == reach["rag@4k"].longest == 65536
    assert "16k" in render.text(cells(per_model(crossing, "helmet_rag"), "m")["effective length"])
    shown = cells(per_model(crossing, "helmet_rag"), "m", "rag@4k")["effective length"]
    assert render.text(shown).startswith("64k+ [")


def test_effective_length_interval_covers() -> None:
    """Of a curve that falls below 85 % between 16k and 32k, 95 of 100 intervals hold 16k."""
    from icr_tasks.leaderboard.board.advice import _reach
    from icr_tasks.leaderboard.board.bands import Band
    from icr_tasks.leaderboard.board.cells import Cell, Places, Scores
    from icr_tasks.leaderboard.board.rows import Row

    rng = np.random.default_rng(3)
    truth = {"4k": 0.70, "16k": 0.66, "32k": 0.50, "64k": 0.40}
    columns = [("b", "d", n) for n in truth]
    cluster = np.repeat(np.arange(100), 3)
    held = 0
    for _ in range(200):
        row = Row("m", "", {"text": "full", "kind": "full"}, "ao", [{"fingerprint": "f"}])
        ease = rng.normal(0, 1, 100)[cluster]
        for c, share in zip(columns, truth.values(), strict=True):
            value = (rng.random(300) < 1 / (1 + np.exp(-(np.log(share / (1 - share)) * 1.2 + ease)))).astype(
                float
            )
            at = Places(np.arange(300), cluster, np.full(300, np.nan))
            row.cells[c] = Cell("complete", effect=Design(cluster).score(value), scores=Scores(at, value, 0))
        found, _ = _reach(
            row, [Band(c[2], t, (c,)) for c, t in zip(columns, (4096, 16384, 32768, 65536), strict=True)]
        )
        assert isinstance(found, Reach)
        held += found.low <= 16384 <= found.high
    assert held >= 186


def test_complementarity(tree: Path, board: Board) -> None:
    found = cells(table(board, "use-both"), "org/base-7b", "kv:topk@0.05")
    line = next(x for x in advice(board, "org/base-7b", "helmet_rag").lines if x.row.setting["kind"] == "kv")
    assert found["better of both"].value == pytest.approx(100 * line.whole.both)
    assert line.whole.score is not None and line.whole.delta is not None
    full = line.whole.score.mean - line.whole.delta.mean
    assert line.whole.both == pytest.approx(full + line.whole.only)
    assert line.whole.delta.mean == pytest.approx(line.whole.only - line.whole.only_full)


def test_without_full_context_the_board_says_why(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("nq",))
    made = build(tmp_path, Options())
    assert not made.advice and made.left_out["use"] == "m: no run with full context"


def test_studentized_range() -> None:
    """Against tables of the distribution (q at 5 %: 4.62 for 12 means, infinite df; 3.77 for 4 means, 60 df)."""
    assert range_p(4.62 / np.sqrt(2), 12, np.inf) == pytest.approx(0.05, abs=0.001)
    assert range_p(3.737 / np.sqrt(2), 4, 60) == pytest.approx(0.05, abs=0.001)
    assert range_p(1.959964, 2, np.inf) == pytest.approx(0.05, abs=1e-4)
    assert range_p(2.0, 2, 60) == pytest.approx(0.05003, abs=1e-3)


def test_twelve_equal_models_stay_together() -> None:
    """The mark is safe for many rows: 12 equal models on one HELMET cell are all within noise of the best in
    at least 93 % of boards (a plain paired test: in about a third)."""
    rng = np.random.default_rng(11)
    cluster = np.repeat(np.arange(100), 3)
    design = Design(cluster)
    together = plain = 0
    boards = 400
    for _ in range(boards):
        ease = rng.normal(0, 1.6, 100)
        logit = ease[cluster] + rng.normal(0, 0.8, (12, 100))[:, cluster]
        value = (rng.random((12, 300)) < 1 / (1 + np.exp(-logit))).astype(float)
        best = value[np.argmax(value.mean(1))]
        effects = [design.effect(v - best) for v in value if v is not best and (v != best).any()]
        together += not any(apart(e, 12) for e in effects)
        plain += not any(e.p < 0.05 for e in effects)
    assert together >= 0.93 * boards
    assert plain < 0.5 * boards


def test_limited_runs_rank_among_equals(tmp_path: Path) -> None:
    for model, skill in (("a", 0.0), ("b", 0.5)):
        board_tree.run(tmp_path, model, drop=0.2, datasets=("nq",), skill=skill)
    made = build(tmp_path, Options())
    t = table(made, "length-helmet_rag-nq")
    assert "All rows: 48 of 60 items." in t.notes
    assert all(c.value is not None for line in t.lines for c in line.cells)
    assert [line.ranked for line in t.lines] == [True, True]
    assert t.lines[0].cells[-1].mark == "best"
    from icr_tasks.leaderboard.board.write import todo

    assert todo(made) == []


def test_a_limited_run_beside_a_complete_one_is_not_ranked(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "a", drop=0.2, datasets=("nq",))
    board_tree.run(tmp_path, "b", datasets=("nq",))
    t = table(build(tmp_path, Options()), "length-helmet_rag-nq")
    assert {line.labels[0]: line.ranked for line in t.lines} == {"a": False, "b": True}
    assert cells(t, "a")["4k"].reason == "partial: 48/60 items"


def test_limited_runs_of_other_items_are_shown_and_not_compared(tmp_path: Path) -> None:
    for model, drop in (("a", 0.2), ("b", 0.2), ("c", 0.5)):
        board_tree.run(tmp_path, model, drop=drop, datasets=("nq",))
    t = table(build(tmp_path, Options()), "length-helmet_rag-nq")
    assert {line.labels[0]: line.ranked for line in t.lines} == {"a": True, "b": True, "c": False}
    assert all(c.value is not None for line in t.lines for c in line.cells)
    assert "other items" in cells(t, "c")["avg"].extra and cells(t, "c")["4k"].reason == "30 of 60 items"


def test_the_prompt_that_most_was_measured_under_comes_first(tmp_path: Path) -> None:
    """Not the one whose folder has the smaller hash."""
    longer = ("icr_helmet_rag_nq_16k", "icr_helmet_rag_nq_64k")
    for setting in ("full", "rag@4k"):
        for prompt, skip in {"ao": longer, "id": (), "idc": longer}.items():
            board_tree.run(tmp_path, "m", setting, prompt=prompt, datasets=("nq",), skip=skip)
    assert [a.prompt for a in build(tmp_path, Options()).advice] == ["id", "ao", "idc"]


def test_prompts_of_one_model_rank_together(tmp_path: Path) -> None:
    for prompt in ("ao", "id", "idc"):
        board_tree.run(tmp_path, "m", prompt=prompt, datasets=("nq",))
    t = table(build(tmp_path, Options()), "length-helmet_rag-nq")
    assert [line.ranked for line in t.lines] == [True] * 3
    board_tree.run(tmp_path, "other", prompt="ao", datasets=("nq",))
    t = table(build(tmp_path, Options()), "length-helmet_rag-nq")
    assert sorted(line.ranked for line in t.lines) == [False, False, True, True]


def test_compression_after_retrieval_is_compared_with_retrieval_alone(tmp_path: Path) -> None:
    both = {
        "text": "rag@4k+kv:topk@0.05",
        "kind": "rag",
        "method": None,
        "amount": 4096,
        "params": {},
        "then": {"text": "kv:topk@0.05", "kind": "kv", "method": "topk", "amount": 0.05, "params": {}},
    }

    def combined(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["setting"], head["fingerprint"] = both, "7" * 12

    board_tree.run(tmp_path, "m", datasets=("mc",))
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("mc",))
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("mc",), skill=-1.5, change=combined)
    [line] = table(build(tmp_path, Options()), "drop").lines
    assert line.labels[1] == "rag@4k+kv:topk@0.05"
    means = {}
    for folder in (tmp_path / "m").glob("rag*/*"):
        means[folder.name == "7" * 12] = np.mean([r["score"]["acc"] for r in ledger.items(folder)])
    assert line.cells[0].value == pytest.approx(100 * (means[True] - means[False]))
