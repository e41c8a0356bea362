"""Retrieval beside the score: was the evidence in the prompt, and was the answer right? And what a perfect router
between retrieval and the whole context would reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from icr_tasks.registry import view

from ...stats import Effect
from ..cells import Cell, Column, Places, Scores, design, short_column
from ..partners import by_model, full_of
from ..rows import Row, columns_of, difference
from ..tables import Line, Options, Shown, Table, of_effect
from .settings import settings_order

if TYPE_CHECKING:
    from ..build import Board

HEADS = ("data", "model", "setting", "prompt")
RIGHT = 0.5  # a graded score (F1, a judge's rating) counts as right from here on
COUNTS = ("found, right", "found, wrong", "missed, right", "missed, wrong")

MODELS = 12  # a line a model, setting and cell: of more models the table is a book


def _places(at: Places, mask: np.ndarray) -> Places:
    if mask.all():  # the same object: its design is made once for all rows
        return at
    shared = None if at.shared is None else at.shared[mask]
    return Places(at.item[mask], at.cluster[mask], at.depth[mask], shared)


def counts(scores: Scores) -> tuple[int, int, int, int]:
    """Items by whether all evidence was in the prompt and whether the answer was right, as in COUNTS; those of
    which the evidence is not known are left out."""
    assert scores.evidence is not None
    known = ~np.isnan(scores.evidence)
    found, right = scores.evidence[known] >= 1, scores.score[known] >= RIGHT
    return (
        int((found & right).sum()),
        int((found & ~right).sum()),
        int((~found & right).sum()),
        int((~found & ~right).sum()),
    )


def _score(cell: Cell, column: Column, scores: Scores, mask: np.ndarray) -> Effect:
    """The score of some items of a cell; of all of them it is the cell's."""
    if mask.all() and cell.effect is not None:
        return cell.effect
    return design([_places(scores.at, mask)], [column]).score(scores.score[mask])


def _line(row: Row, column: Column, scores: Scores, options: Options) -> Line:
    assert scores.evidence is not None
    known, cell = ~np.isnan(scores.evidence), row.cells[column]
    recall = design([_places(scores.at, known)], [column]).score(scores.evidence[known])
    cells = [
        of_effect(recall, options.level),
        of_effect(_score(cell, column, scores, known), options.level),
        *(Shown("number", float(n)) for n in counts(scores)),
    ]
    for found in (True, False):
        mask = known & ((scores.evidence >= 1) == found)
        if mask.any():
            cells.append(of_effect(_score(cell, column, scores, mask), options.level))
        else:
            cells.append(Shown(reason="no such item"))
    return Line((short_column(column), *row.labels), cells, row.deployable, not row.deployable)


def _shown(rows: Sequence[Row]) -> Iterator[tuple[Column, Row, Scores]]:
    """Cells with known evidence, of models that retrieve somewhere in that column."""
    for column in columns_of(rows):
        at = [(row, cell) for row in sorted(rows, key=settings_order) if (cell := row.cells.get(column))]
        told = [(r, c.scores) for r, c in at if c.usable and c.scores and c.scores.evidence is not None]
        told = [(r, s) for r, s in told if s.evidence is not None and not np.isnan(s.evidence).all()]
        names = {r.name for r, _ in told if r.setting.get("kind") in ("rag", "route")}
        yield from ((column, r, s) for r, s in told if r.name in names)


def evidence(rows: Sequence[Row], options: Options) -> Table | None:
    """Recall and score on the items whose evidence is known, and the four counts."""
    lines = [_line(row, column, scores, options) for column, row, scores in _shown(rows)]
    if not lines:
        return None
    columns = ["recall", "score", *COUNTS, "score if found", "score if missed"]
    notes = [
        "Items of which the evidence is known (marked gold passages, or an answer that stands in the documents). "
        "Found: all of it is in the prompt. Found and wrong is the model's miss, missed and wrong is retrieval's; "
        "missed and right was known or guessed. Right: a score of at least 0.5.",
        *_routes(rows),
    ]
    return Table("retrieval", "Retrieval and the model", columns, lines, notes, heads=HEADS)


def _routes(rows: Sequence[Row]) -> list[str]:
    """What each route decided."""
    said = []
    for row in rows:
        told = [t["route"] for head in row.heads for t in head["tasks"].values() if t.get("route")]
        if items := sum(t["items"] for t in told):
            went_on = sum(t["went_on"] for t in told)
            decided = "" if 0 < went_on < items else "; it never decided, which makes it another setting"
            said.append(f"{row.label}: {went_on} of {items} items went on to the whole context{decided}.")
    return said


def _tokens(scores: Scores) -> float:
    """Prompt tokens an item; NaN where nobody counted."""
    counted = scores.prompt is not None and not np.isnan(scores.prompt).all()
    return float(np.nanmean(scores.prompt)) if counted and scores.prompt is not None else float("nan")


def router(rows: Sequence[Row], options: Options) -> Table | None:
    """Two settings of one model on the same items: each alone, and the better of both on each item."""
    lines, of_model = [], by_model(rows)
    for row in rows:
        if row.setting.get("kind") != "rag":
            continue
        full = full_of(row, of_model[row.key[:2]])
        for column in columns_of([row]) if full else ():
            assert full
            paired = difference(row, full, [column])
            if isinstance(paired, str):
                continue
            over, part, whole = paired.design, paired.new, paired.base
            a, b = row.cells[column].scores, full.cells[column].scores
            assert a and b
            right = float((part >= RIGHT).mean())
            read, whole_read = _tokens(a), _tokens(b)
            tokens = [read, whole_read, read + (1 - right) * whole_read]
            alone = [row.cells[column].effect, full.cells[column].effect]
            effects = [*(e for e in alone if e is not None), over.score(np.maximum(part, whole))]
            better = part if over.mean(part) >= over.mean(whole) else whole
            gain = over.effect(np.maximum(part, whole) - better, same=paired.same)
            cells = [of_effect(e, options.level) for e in effects]
            cells += [
                of_effect(gain, options.level, kind="diff"),
                Shown("number", 100 * float((part > whole).mean()), unit="%"),
                Shown("number", 100 * float((whole > part).mean()), unit="%"),
                *(
                    Shown("number", t if t == t else None, reason="" if t == t else "not counted")
                    for t in tokens
                ),
            ]
            lines.append(Line((short_column(column), *row.labels), cells))
    if not lines:
        return None
    columns = [
        "retrieved",
        "full",
        "best of both",
        "over the better",
        "retrieval better",
        "full better",
        "tokens retrieved",
        "tokens full",
        "tokens routed",
    ]
    notes = [
        "Upper bound of routing between two settings, from their ledgers: the better score on each item, which "
        "no router can pass. Tokens routed: retrieval for all, and the whole context where retrieval was wrong."
    ]
    return Table("router", "Routing: the upper bound", columns, lines, notes, heads=HEADS)


@view("retrieval", order=55, absent="no model has a retrieving setting whose evidence is known")
def retrieval(board: Board) -> list[Table]:
    """Whether the evidence was in the prompt and the answer right; and the upper bound of routing."""
    names = list(dict.fromkeys(row.name for row in board.rows if row.setting.get("kind") in ("rag", "route")))
    kept = set(names[:MODELS])
    rows = [row for row in board.rows if row.name in kept]
    found = evidence(rows, board.options)
    tables = [t for t in (found, router(rows, board.options) if found else None) if t]
    if len(names) > MODELS:
        for one in tables:
            one.notes.append(f"{MODELS} of {len(names)} models; --model chooses others.")
    return tables
