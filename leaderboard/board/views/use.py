"""What to use, per model and benchmark: every setting at every length against full context."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from icr_tasks.registry import view

from ...text.names import shortened, title
from ...text.printed import settled
from ..advice import ALL, KEPT, Advice, Setting, Use, advise
from ..tables import SERIES, Line, Shown, Table, of_effect, shown

if TYPE_CHECKING:
    from ..build import Board

OPEN = 3  # so many tables are open in board.md, more are folded
_NOTES = (
    "Full context: scores. The others: the paired difference to full context on the same items, the score in "
    "brackets. Bold is the best setting of a column that somebody could serve, ≈ is within noise of it, all "
    "settings judged at once; what one costs or gains is judged against full context alone. Reference lines are not "
    "ranked.",
    f"Effective length: the longest one that keeps {100 * KEPT:.0f} % of the score at the shortest; in brackets "
    "between which lengths it lies, + where nothing longer was measured.",
)
_BINS = "Lengths are bins of the full prompt's tokens; items of a bin count equally."


@view("use", order=5)
def use(board: Board) -> list[Table]:
    """What to use: full context, retrieval or compression, up to which length."""
    board.advice, without = advise(board.rows)
    if not board.advice:
        why = "; ".join(f"{shortened(name)}: {reason}" for name, reason in without.items())
        board.left_out["use"] = why or "no run with full context"
        return []
    if len(board.advice) > SERIES:  # board.md shows the first ones: those of the pictures
        from ..picture_lengths import models

        place = {(own[0].name, own[0].variant): k for k, own in enumerate(models(board.rows))}
        board.advice.sort(key=lambda a: place.get((a.model, a.variant), len(place)))
    names = _names(board.advice)
    found = [_summary(board.advice, board.options.level, without)] if len(board.advice) > 1 else []
    for name, advice in zip(names, board.advice, strict=True):
        found.append(_table(name, advice, board.options.level, folded=len(board.advice) > OPEN))
    if len(board.advice) == 1:
        found[0].notes += _absent(without)
    both = _both(board.advice)
    return [*found, both] if both else found


def _absent(without: dict[str, str]) -> list[str]:
    """What has no advice, and why."""
    return [f"{shortened(name)}: {why}." for name, why in without.items()]


def _names(advice: Sequence[Advice]) -> list[str]:
    found: list[str] = []
    for one in advice:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"use-{one.model}-{one.benchmark}")[:70]
        found.append(name if name not in found else f"{name}-{len(found)}")
    return found


def _who(one: Advice, advice: Sequence[Advice]) -> str:
    """The model, with prompt and variant where it has several advices on a benchmark."""
    same = sum((a.model, a.benchmark) == (one.model, one.benchmark) for a in advice)
    rest = " ".join(p for p in (one.prompt, one.variant) if p)
    return f"{one.model} ({rest})" if same > 1 and rest else one.model


def _table(name: str, advice: Advice, level: float, *, folded: bool) -> Table:
    several = len(advice.bands) > 1
    columns = [b.name for b in advice.bands] + ([ALL] if several else [])
    nominal = all(b.masks is None for b in advice.bands) and several
    extra = ["effective length"] if nominal else []
    extra += ["KV read"] if any(line.read is not None for line in advice.lines) else []
    extra += ["prompt tokens"] if any(line.prompt for line in advice.lines) else []
    lines = []
    short = [(line.row.name, line.row.setting["text"], line.row.prompt) for line in advice.lines]
    for line, own in zip(advice.lines, short, strict=True):
        labels = own if short.count(own) == 1 else line.row.labels  # the heading has the variant, as a rule
        uses = [*line.uses, *([line.whole] if several else [])]
        cells = [_cell(u, line, level) for u in uses] + [_extra(line, name) for name in extra]
        lines.append(Line(labels, cells, not line.reference, line.reference))
    notes = [*_NOTES[: 2 if nominal else 1], *([] if all(b.masks is None for b in advice.bands) else [_BINS])]
    notes += [f"Not shown: {'; '.join(advice.left_out)}."] if advice.left_out else []
    heading = f"What to use: {advice.heading}"
    return Table(
        name,
        heading,
        [*columns, *extra],
        lines,
        notes,
        lead=_capital(advice.sentence),
        shared=True,
        folded=folded,
        series="model and benchmark" if folded else "",
    )


def _capital(text: str) -> str:
    """The sentence as it stands: names of settings keep their case."""
    return text if re.match(r"[a-z]+[@:]", text) else text[:1].upper() + text[1:]


def _cell(use: Use, line: Setting, level: float) -> Shown:
    if use.score is None:
        return Shown("diff", reason=use.reason)
    score = of_effect(use.score, level)
    if use.delta is None:
        if use.reason:
            return Shown("diff", reason=use.reason)
        score.mark = use.mark
        return score
    cell = of_effect(use.delta, level, kind="diff")
    cell.mark, cell.extra = use.mark, f"{score.value:.1f}"
    return cell


def _extra(line: Setting, name: str) -> Shown:
    if name == "KV read":
        return Shown("number", line.read, reason="" if line.read is not None else "not measured", unit="%")
    if name == "prompt tokens":
        return Shown("number", line.prompt, reason="" if line.prompt else "not measured")
    if line.reach is None:
        return Shown("length", reason=line.reach_reason)
    reach = line.reach
    return Shown("length", reach.tokens, reach.low, reach.high, unit=str(reach.longest))


def _best(advice: Advice) -> Setting | None:
    return next((line for line in advice.lines if line.whole.mark == "best"), None)


def _summary(advice: Sequence[Advice], level: float, without: dict[str, str]) -> Table:
    """One line a model and benchmark: full context, and the best setting over all lengths."""
    lines = []
    for one in advice:
        best = _best(one)
        cells = [shown(None, level)] * 2
        cells[0] = _cell(one.full.whole, one.full, level)
        cells[0].mark = ""
        if best is None:
            cells[1] = Shown("diff", reason="no setting compared at every length")
        elif best is one.full:
            cells[1] = Shown("diff", reason="full context is the best")
        else:
            cells[1] = _cell(best.whole, best, level)
            cells[1].mark = ""
        reach = [_extra(line, "") if line else Shown("length", reason="none") for line in (one.full, best)]
        name = best.row.setting["text"] if best else ""
        lines.append(Line((_who(one, advice), title(one.benchmark), name), [*cells, *reach]))
    notes = _absent(without)
    columns = ["full context", "best against full", "effective length, full", "effective length, best"]
    heads = ("model", "benchmark", "best setting")
    return Table("use", "What to use", columns, lines, notes, heads)


def _both(advice: Sequence[Advice]) -> Table | None:
    """What two settings answer together: complementarity with full context."""
    lines = []
    for one in advice:
        for line in one.lines[1:]:
            whole = line.whole
            if line.reference or whole.both is None or whole.score is None:
                continue
            values = (whole.only, whole.only_full, whole.both)
            n = whole.score.n
            cells = [Shown("score", settled(100 * float(v or 0.0)), n=n) for v in values]
            labels = (_who(one, advice), line.row.setting["text"], title(one.benchmark))
            lines.append(Line(labels, cells))
    if not lines:
        return None
    notes = [
        "Points that only this setting, or only full context, gets on the same items, and the score of the better "
        "answer of each item: what a perfect choice between the two would reach."
    ]
    columns = ["this alone", "full alone", "better of both"]
    return Table(
        "use-both",
        "Beside full context: answered by one of the two",
        columns,
        lines,
        notes,
        ("model", "setting", "benchmark"),
    )
