"""The board's view of retrieval: recall beside the score, four counts an item, and what a router could reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import board_tree
import numpy as np
import pytest

from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.tables import Options, Table
from icr_tasks.leaderboard.ledgers.load import load

ROUTE = {"text": "route:self@4k", "kind": "route", "method": "self", "amount": 4096, "params": {}}
# what the ledger of one item may say of its evidence -> the share of it in the prompt (None: nobody knows)
TOLD: list[tuple[dict[str, Any], float | None]] = [
    ({"retrieval": {"recall": 1.0, "whole": False}}, 1.0),
    ({"retrieval": {"recall": 0.5, "whole": False}}, 0.5),
    ({"retrieval": {"recall": 0.0, "whole": False}, "gold_kept": [0, 2]}, 0.0),
    ({"retrieval": {"recall": None, "whole": False}}, None),
    ({"retrieval": {"recall": 0.0, "whole": False}, "route": {"went_on": True}}, 1.0),
    ({"retrieval": {"recall": 0.0, "whole": False}, "route": {"went_on": True}, "gold_kept": [1, 2]}, 0.5),
    ({"retrieval": {"recall": 0.5, "whole": False}, "route": {"went_on": False}, "gold_kept": [2, 2]}, 0.5),
    ({"gold_kept": [2, 2]}, 1.0),
    ({"gold_kept": [1, 2]}, 0.5),
    ({"gold_kept": None}, None),
]


def mark(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Give items what TOLD says, in turn."""
    for i, row in enumerate(rows):
        row.update(TOLD[i % len(TOLD)][0])


def routed(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    mark(head, rows)
    head["setting"] = ROUTE
    head["fingerprint"] = "abcdefabcdef"
    for sheet in head["tasks"].values():
        sheet["route"] = {"items": 10, "went_on": 0}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Table]:
    for setting in ("full", "rag@4k", "rag@32k"):
        board_tree.run(tmp_path, "m", setting, datasets=("nq", "qa"), change=mark)
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("nq", "qa"), change=routed)
    board_tree.run(tmp_path, "other", "full", datasets=("nq", "qa"), change=mark)
    board = build(tmp_path, Options(), views=["retrieval"])
    return {"root": tmp_path, **{t.name: t for t in board.tables}}  # type: ignore[dict-item]


def test_four_counts_against_a_loop_over_the_ledger(tables: dict[str, Any]) -> None:
    table = tables["retrieval"]
    lines = {line.labels: line.cells for line in table.lines}
    assert not any("other" in labels for labels in lines)  # a model that retrieves nowhere
    assert len(lines) == 4 * 4  # nq at three lengths, and qa, under four settings
    for run in load(tables["root"]):
        if run.model != "m":
            continue
        for task in run.tasks.values():
            want, shares, scores = dict.fromkeys(("fr", "fw", "mr", "mw"), 0), [], []
            place: dict[str, int] = {}
            for i in range(len(task)):  # TOLD runs through all rows of a ledger, in its order
                place[task.item[i]] = i
            offset = 0
            for name, other in run.tasks.items():
                if name == task.name:
                    break
                offset += len(other)
            for i in range(len(task)):
                share = TOLD[(i + offset) % len(TOLD)][1]
                if share is None:
                    continue
                right = task.headline()[i] >= 0.5
                want[("f" if share >= 1 else "m") + ("r" if right else "w")] += 1
                shares.append(share)
                scores.append(task.headline()[i])
            data = " ".join(p for p in (task.sheet["dataset"], task.length) if p)
            cells = lines[data, "m", run.setting, "ao"]
            assert [c.value for c in cells[2:6]] == [want[k] for k in ("fr", "fw", "mr", "mw")]
            assert cells[0].value == pytest.approx(100 * sum(shares) / len(shares))
            assert cells[1].value == pytest.approx(100 * sum(scores) / len(scores))
            assert cells[0].low is not None and cells[0].low < cells[0].value < cells[0].high


def test_a_route_that_never_decides_is_told(tables: dict[str, Any]) -> None:
    assert any("0 of 40 items" in note and "another setting" in note for note in tables["retrieval"].notes)


def test_no_router_passes_the_better_of_both(tables: dict[str, Any]) -> None:
    table = tables["router"]
    runs = {run.setting: run for run in load(tables["root"]) if run.model == "m"}
    assert {line.labels[2] for line in table.lines} == {"rag@4k", "rag@32k"}
    for line in table.lines:
        task = board_tree.task_name(*(line.labels[0].split() + [""])[:2])
        part, full = (runs[s].tasks[task] for s in (line.labels[2], "full"))
        of = dict(zip(full.item, full.headline(), strict=True))
        pairs = [(s, of[i]) for i, s in zip(part.item, part.headline(), strict=True)]
        n, shown = len(pairs), [cell.value for cell in line.cells]
        best = 100 * sum(max(p) for p in pairs) / n
        alone = [100 * sum(p[k] for p in pairs) / n for k in (0, 1)]
        assert shown[:3] == pytest.approx([*alone, best])
        assert shown[3] == pytest.approx(best - max(alone)) and best >= max(alone)
        assert shown[4:6] == pytest.approx(
            [100 * sum(a > b for a, b in pairs) / n, 100 * sum(b > a for a, b in pairs) / n]
        )
        right = sum(a >= 0.5 for a, _ in pairs) / n
        tokens = [float(t.n_prompt_tokens.mean()) for t in (part, full)]
        assert shown[6:] == pytest.approx([*tokens, tokens[0] + (1 - right) * tokens[1]])


def test_boards_without_retrieval_have_no_such_table(tmp_path: Path) -> None:
    board_tree.run(tmp_path, "m", "full", datasets=("nq",))
    board_tree.run(tmp_path, "m", "rag@4k", datasets=("nq",))
    assert build(tmp_path, Options(), views=["retrieval"]).tables == []


@pytest.mark.parametrize(
    "kept",
    [
        [[1, 2], [2, 2], [0, 4]],
        [[1, 2], None, [3, 3]],
        [[1, 2], [1, None], [0, 0]],
        [None, None],
        [[2, 2]],
    ],
)
def test_gold_passages_alone_are_read_column_by_column_as_row_by_row(kept: list[Any]) -> None:
    from icr_tasks.leaderboard.ledgers import columns as reading

    rows = [{"gold_kept": k, "retrieval": None} for k in kept]
    slow = [reading._share(row) for row in rows]
    fast = reading._evidence(rows)
    if fast is None:
        assert slow == [None] * len(rows)
    else:
        assert [None if np.isnan(v) else v for v in fast] == slow
