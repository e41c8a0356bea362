"""What to use: for one model and one benchmark every setting at every length, against full context.

    for one in advise(board.rows):
        print(one.sentence)
        for line in one.lines:                # one a setting, `line.reference` for gold, none, oracle
            for band, use in zip(one.bands, line.uses):
                use.score, use.delta          # Effects on the same items; None with `use.reason`

Bold is the best setting that somebody could serve; reference lines are never ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..multiple import apart
from ..stats import Effect, holm
from ..text.names import title
from ..text.printed import printed, settled
from .bands import Band, bands
from .cells import Column, short_column
from .costs import macro
from .partners import by_model, full_of
from .rows import Row, columns_of, difference
from .sentence import sentence

KEPT = 0.85  # share of the score at the shortest length that an effective length keeps
ALL = "all"


@dataclass
class Use:
    """One setting at one length. `delta` is its paired difference to full context (None for full itself),
    `better` whether it is above full beyond the noise of all that are compared; `mark`: best, tied or ""."""

    score: Effect | None = None
    delta: Effect | None = None
    reason: str = ""
    mark: str = ""
    better: bool = False
    worse: bool = False
    both: float | None = None  # score of the better of the two answers, item by item
    only: float | None = None  # what this setting has above full, item by item
    only_full: float | None = None


@dataclass
class Reach:
    """Effective length in tokens: the longest one that keeps 85 % of the score at the shortest, and between
    which lengths that lies. `low` is 0 where not even the shortest is sure; `longest` is the longest measured."""

    tokens: int
    low: int
    high: int
    longest: int


@dataclass
class Setting:
    """One setting of a model: its uses in the order of the bands, and over all of them."""

    row: Row
    uses: list[Use]
    whole: Use
    reference: bool
    reach: Reach | None = None
    reach_reason: str = ""
    read: float | None = None  # % of the KV cache read in a decode step; None where not measured
    prompt: float | None = None  # tokens an item


@dataclass
class Advice:
    """What to use for one model on one benchmark."""

    model: str
    variant: str
    prompt: str
    benchmark: str
    bands: list[Band]
    lines: list[Setting]  # full first, then the others as on the board, reference lines last
    sentence: str = ""
    left_out: list[str] = field(default_factory=list)

    @property
    def full(self) -> Setting:
        """The full-context line."""
        return self.lines[0]

    @property
    def heading(self) -> str:
        """Model and benchmark for people."""
        rest = " ".join(p for p in (self.prompt, self.variant) if p)
        return f"{self.model}, {title(self.benchmark)}" + (f" ({rest})" if rest else "")


def advise(rows: Sequence[Row]) -> tuple[list[Advice], dict[str, str]]:
    """One advice a full-context row and benchmark with another setting beside it; and for the others
    (model: benchmark) why there is none."""
    found, without = [], {}
    fulls = [r for r in rows if r.setting.get("kind") == "full" and not r.setting.get("then")]
    place = {name: i for i, name in enumerate(dict.fromkeys(r.name for r in fulls))}
    # of one model first what most was measured under, whatever its folder is called
    fulls.sort(key=lambda r: (place[r.name], -sum(c.usable for c in r.cells.values()), r.prompt, r.variant))
    at, of_model = {id(f) for f in fulls}, by_model(rows)
    beside: dict[int, list[Row]] = {}  # of each full-context row the other settings, in order
    named = {r.name for r in fulls}
    for r in rows:
        if id(r) in at:
            continue
        if partner := full_of(r, of_model[r.key[:2]]):
            beside.setdefault(id(partner), []).append(r)
        elif r.name in named:
            without[r.label] = "no single run with full context that was made like it"
    for name in dict.fromkeys(r.name for r in rows if r.name not in named):
        without[name] = "no run with full context"
    for full in fulls:
        others = beside.get(id(full), [])
        if not others:
            without.setdefault(full.name, "no setting beside full context")
            continue
        for benchmark in dict.fromkeys(c[0] for c in columns_of([full])):
            columns = [c for c in columns_of([full]) if c[0] == benchmark]
            own = [r for r in others if any(c in r.cells for c in columns)]
            own.sort(key=lambda r: (not r.deployable, r.setting.get("kind") != "rag", _amount(r), r.label))
            beyond = [c for c in columns_of(own) if c[0] == benchmark and c not in columns]
            made = _advice(full, own, benchmark, columns, beyond)
            if isinstance(made, str):
                without.setdefault(f"{full.name}, {title(benchmark)}", made)
            else:
                made.sentence = sentence(made)
                found.append(made)
                without.pop(full.name, None)
    return found, without


def _amount(row: Row) -> float:
    amount = row.setting.get("amount")
    return -float(amount) if isinstance(amount, int | float) else 0.0


def _advice(
    full: Row, others: list[Row], benchmark: str, columns: list[Column], beyond: list[Column]
) -> Advice | str:
    """`beyond` are columns that others have and full context has not."""
    usable = [c for c in columns if full.cells[c].usable]
    if not others:
        return "no setting beside full context"
    if not usable:
        return full.gaps(columns) or "full context has no usable cell"
    found, left = bands(full, columns)
    found = [b for b in found if not full.gaps(b.columns)] if all(b.masks is None for b in found) else found
    left += [
        f"{short_column(c)} of full context is {full.cells[c].status}" for c in columns if c not in usable
    ]
    left += [f"{short_column(c)}: no run with full context" for c in beyond]
    if not found:
        return "; ".join(left) or "no length with enough questions"
    whole = _whole(found)
    lines = [_setting(row, full, found, whole) for row in (full, *others)]
    made = Advice(full.name, full.variant, full.prompt, benchmark, found, lines, left_out=left)
    for j in range(len(found)):
        _mark([(line, line.uses[j]) for line in lines], found[j])
    _mark([(line, line.whole) for line in lines], whole)
    _judge(made)
    return made


def _whole(found: list[Band]) -> Band:
    """All lengths together: of bins the items of those that are shown."""
    columns = tuple(dict.fromkeys(c for b in found for c in b.columns))
    masks = [b.masks for b in found if b.masks is not None]
    joined = tuple(np.logical_or.reduce(parts) for parts in zip(*masks, strict=True)) if masks else None
    return Band(ALL, max(b.tokens for b in found), columns, joined, found[0].places)


def _setting(row: Row, full: Row, found: list[Band], whole: Band) -> Setting:
    from .views.cost import value  # the views import this module

    line = Setting(
        row,
        [_use(row, full, b) for b in found],
        _use(row, full, whole),
        not row.deployable,
        read=_percent(macro(row, whole.columns, "kv read share")) or value(row, "KV read"),
        prompt=macro(row, whole.columns, "prompt"),
    )
    line.reach, line.reach_reason = _reach(row, found)
    return line


def _percent(share: float | None) -> float | None:
    return None if share is None else settled(100 * share)


def _use(row: Row, full: Row, band: Band) -> Use:
    score = band.score(row)
    if isinstance(score, str):
        return Use(reason=score)
    if row is full:
        return Use(score)
    paired = band.paired(row, full)
    if isinstance(paired, str):
        return Use(score, reason=f"not compared with full: {paired}")
    mean = paired.design.mean
    return Use(
        score,
        paired.effect(),
        both=mean(np.maximum(paired.new, paired.base)),
        only=mean(np.maximum(paired.change, 0.0)),
        only_full=mean(np.maximum(-paired.change, 0.0)),
    )


def _mark(column: list[tuple[Setting, Use]], band: Band) -> None:
    """Best deployable setting of a column, and those within the noise of all of them."""
    ranked = [(line, use) for line, use in column if not line.reference and use.score and not use.reason]
    if len(ranked) < 2:
        return
    best, use = min(
        ranked, key=lambda x: (-printed(100 * x[1].score.mean), x[0].row.label) if x[1].score else ()
    )
    use.mark = "best"
    for line, other in ranked:
        if line is best:
            continue
        paired = band.paired(line.row, best.row)
        if not isinstance(paired, str) and not apart(paired.effect(), len(ranked)):
            other.mark = "tied"


def _judge(made: Advice) -> None:
    """Which settings are above or below full context beyond noise: Holm over all settings and lengths, and
    over the settings for all lengths together."""
    served = [line for line in made.lines[1:] if not line.reference]
    for uses in ([u for line in served for u in line.uses], [line.whole for line in served]):
        known = [u for u in uses if u.delta is not None]
        for use, p in zip(known, holm([u.delta.p for u in known if u.delta]), strict=True):
            if use.delta and settled(float(p)) < 0.05:
                use.better, use.worse = use.delta.mean > 0, use.delta.mean < 0


def _reach(row: Row, found: list[Band]) -> tuple[Reach | None, str]:
    """Effective length. Only for nominal lengths: bins of tokens hold other questions each."""
    if any(b.masks is not None for b in found) or len(found) < 2:
        return None, "needs the same questions at several lengths"
    first = found[0]
    gone = [row.gaps(b.columns) for b in found]
    if any(gone):
        return None, next(g for g in gone if g).removeprefix("no average: ")
    if settled(row.average(first.columns).effect.mean) <= 0:  # type: ignore[union-attr]
        return None, "nothing right at the shortest length"
    kept, sure, possible = first.tokens, first.tokens, first.tokens
    for band in found[1:]:
        effect = _kept(row, first, band)
        if effect is None:
            return None, "other items at the lengths"
        low, high = effect.ci()
        kept = band.tokens if settled(effect.mean) >= 0 else kept
        sure = band.tokens if settled(low) >= 0 else sure
        possible = band.tokens if settled(high) >= 0 else possible
    return Reach(kept, min(sure, kept), max(possible, kept), found[-1].tokens), ""


def _kept(row: Row, first: Band, band: Band) -> Effect | None:
    """Score at this length minus 85 % of that at the shortest, on the questions of both."""
    datasets = {c[1] for c in first.columns} & {c[1] for c in band.columns}
    columns = [c for b in (first, band) for c in b.columns if c[1] in datasets]
    paired = difference(row, row, columns) if datasets else ""
    if isinstance(paired, str):
        return None
    n = [len(s.score) for c in columns if (s := row.cells[c].scores)]
    # a dataset's mean over both lengths is half their sum
    sign = np.repeat([-2 * KEPT if c[2] == first.columns[0][2] else 2.0 for c in columns], n)
    return paired.design.effect(sign * paired.new)
