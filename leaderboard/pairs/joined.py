"""Two runs joined item by item: `pair(base, new)` gives arrays of the same items, or the reasons why not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icr_tasks.errors import unknown

from ..ledgers.load import Run, TaskItems
from ..ledgers.unfinished import cut_note
from ..stats import Design
from ..text.names import listed
from ..text.printed import DIGITS
from . import axes, comparable, texts
from .axes import Refusal


@dataclass(frozen=True)
class Pairs:
    """Paired items as columns of shape (items,); `refusals` non-empty means: do not compare.

    `base` and `new` are headline scores, `cluster` is unique over benchmarks, `same` tells byte-identical
    answers. `keys` holds each item's keys (length, depth, ...). `left_out` counts what `common` dropped, by
    reason.
    """

    base: np.ndarray
    new: np.ndarray
    task: np.ndarray
    item: np.ndarray
    occ: np.ndarray
    cluster: np.ndarray
    benchmark: np.ndarray
    dataset: np.ndarray
    length: np.ndarray
    keys: list[dict[str, Any]]
    same: np.ndarray
    refusals: list[Refusal] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)  # task -> items its data have
    met: dict[str, int] = field(default_factory=dict)  # task -> items both runs have, scored or not

    def __len__(self) -> int:
        return len(self.base)

    @property
    def change(self) -> np.ndarray:
        """New minus base of each item, in score units, without rounding noise: its sign tells worse from
        better."""
        return np.round(self.new - self.base, DIGITS)

    def design(self, at: np.ndarray) -> Design:
        """The estimator's design for a selection of items (boolean mask)."""
        shared = [key.get("documents") for key, one in zip(self.keys, at, strict=True) if one]
        named = shared if any(shared) else None
        return Design(self.cluster[at], self.length[at], self.dataset[at], named)


def pair(
    base: Run,
    new: Run,
    *,
    common: bool = False,
    allow: Collection[str] = (),
    whole: bool = False,
    metric: str | None = None,
    axis: Collection[str] | str | None = None,
) -> Pairs:
    """Join two runs on (task, item, occurrence).

    `common` compares the intersection and counts what was left out; `allow` waives named checks
    (`comparable.WAIVABLE`); `whole` also refuses partial runs whose items agree (the gate); `metric` replaces the
    headline metric. `axis` says what may differ (`axes.FREE`); None: `setting` where the settings differ,
    else `checkpoint`.
    """
    for name in allow:
        if name not in comparable.WAIVABLE:
            raise unknown("check to allow", name, comparable.WAIVABLE)
    axis = axis or axes.axis_of(base, new)
    free = axes.allowed(axis)
    found = list(comparable.tasks(base, new))
    if whole:
        found += [*comparable.partial("baseline", base), *comparable.partial("candidate", new)]
    left: dict[str, int] = {}
    met: dict[str, int] = {}
    parts: list[tuple[TaskItems, TaskItems, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for name in sorted(set(base.tasks) & set(new.tasks)):
        one, two = base.tasks[name], new.tasks[name]
        b, n = _join(one, two)
        met[name] = len(b)
        found += comparable.sheets(one, two, (base, new), axis, allow)
        found += comparable.items(one, two, b, n)
        found += comparable.rows(one, two, b, n, free=free, allow=allow)
        named = [metric or (task.metric if task.score else "score") for task in (one, two)]
        found += comparable.scores("baseline", one, named[0])
        found += comparable.scores("candidate", two, named[1])
        if named[0] not in one.score or named[1] not in two.score:
            continue
        scores = (one.score[named[0]], two.score[named[1]])
        use = ~(np.isnan(scores[0][b]) | np.isnan(scores[1][n]))
        _count(left, "not scored in both runs", int(np.count_nonzero(~use)))
        _count(left, "only in the baseline", len(one) - len(b))
        _count(left, "only in the candidate", len(two) - len(n))
        b, n = b[use], n[use]
        parts.append((one, two, b, n, scores[0][b], scores[1][n]))
    for run, other in ((base, new), (new, base)):
        for name in set(run.tasks) - set(other.tasks):
            _count(left, f"in {name}, which one run lacks", len(run.tasks[name]))
    if common:
        found = [r for r in found if r.check not in ("tasks", "items", "partial")]
    if not sum(len(p[2]) for p in parts):
        found.append(
            Refusal(
                "items", "", "the two runs have no scored item in common", "evaluate both on the same tasks"
            )
        )
    said = texts.differences(base.head, new.head)
    joined = _joined(
        parts, texts.explained(_once(found), said), left, [*_notes(base, new, parts, free), *said]
    )
    for one, two, *_ in parts:
        joined.met[one.name] = met[one.name]
        joined.expected[one.name] = max(int(t.sheet.get("n_expected") or len(t)) for t in (one, two))
    return joined


def _once(found: list[Refusal]) -> list[Refusal]:
    """What is a matter of the run (setting, prompt, template, dtype) or of the metric is said for its first task
    only."""
    said: set[tuple[str, str]] = set()
    kept = []
    for one in found:
        if one.check in ("setting", "prompt", "template", "dtype", "thinking", "direction"):
            if (one.check, one.text) in said:
                continue
            said.add((one.check, one.text))
        kept.append(one)
    return kept


def _count(left: dict[str, int], reason: str, number: int) -> None:
    if number:
        left[reason] = left.get(reason, 0) + int(number)


def _join(one: TaskItems, two: TaskItems) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both that carry the same (item, occurrence), in ledger order of the first."""
    rows = {key: row for row, key in enumerate(zip(two.item.tolist(), two.occ.tolist(), strict=True))}
    hits = [rows.get(key, -1) for key in zip(one.item.tolist(), one.occ.tolist(), strict=True)]
    n = np.array(hits, np.int64)
    b = np.flatnonzero(n >= 0)
    return b, n[b]


def _joined(parts: list[Any], found: list[Refusal], left: dict[str, int], notes: list[str]) -> Pairs:
    def column(of: Any) -> np.ndarray:
        return np.concatenate([of(*part) for part in parts]) if parts else np.empty(0)

    def label(of: Any) -> np.ndarray:
        return column(lambda one, two, b, *_: np.full(len(b), of(one), object))

    names = column(lambda one, two, b, *_: one.cluster[b])
    items, occ = column(lambda one, two, b, *_: one.item[b]), column(lambda one, two, b, *_: one.occ[b])
    benchmark, task = label(lambda one: one.benchmark), label(lambda one: one.name)
    triples = zip(benchmark, names, task, items, occ, strict=True)
    # without a label (--allow clusters) an item is its own cluster
    cluster = np.array([f"{k}/{c}" if c else f"{t}/{i}/{o}" for k, c, t, i, o in triples], object)
    return Pairs(
        base=column(lambda one, two, b, n, x, y: x),
        new=column(lambda one, two, b, n, x, y: y),
        task=task,
        item=items,
        occ=occ,
        cluster=cluster,
        benchmark=benchmark,
        dataset=label(lambda one: one.dataset),
        length=label(lambda one: one.length),
        keys=[keys for one, two, b, n, *_ in parts for keys in _keys(one, two, b, n)],
        same=column(
            lambda one, two, b, n, x, y: (one.resp_hash[b] == two.resp_hash[n]) & (one.resp_hash[b] > 0)
        ),
        refusals=found,
        left_out=left,
        notes=notes,
    )


def _keys(one: TaskItems, two: TaskItems, b: np.ndarray, n: np.ndarray) -> list[dict[str, Any]]:
    """Keys of the paired items; documents from whichever ledger names them (older ones do not)."""
    found = [{k: v[i] for k, v in one.keys.items()} for i in b.tolist()]
    if one.shared is None and two.shared is not None:
        for keys, i in zip(found, n.tolist(), strict=True):
            keys["documents"] = two.keys["documents"][i]
    return found


def _notes(base: Run, new: Run, parts: list[Any], free: Collection[str]) -> list[str]:
    """What the reader should know although it does not forbid the comparison."""
    notes = []
    if (base.setting, base.prompt) != (new.setting, new.prompt):
        notes.append(f"different settings: {base.setting} ({base.prompt}) and {new.setting} ({new.prompt})")
    if "truncation" in free:
        cut = [sum(int(p[k].truncated[p[k + 2]].sum()) for p in parts) for k in (0, 1)]
        if any(cut):
            notes.append(f"prompts cut: {cut[0]} in the baseline, {cut[1]} in the candidate")
    one, two = base.head.get("fingerprint_inputs", {}), new.head.get("fingerprint_inputs", {})
    skip = ("model", "model_args", "setting", "prompt")
    differ = sorted(k for k in {*one, *two} - set(skip) if one.get(k) != two.get(k))
    if differ:
        notes.append(f"also different: {', '.join(differ)}")
    for side, run in (("baseline", base), ("candidate", new)):
        notes += [f"the {side}, {t.name}: {note}" for t in run.tasks.values() if (note := cut_note(t.sheet))]
        marked = sorted(f"{t.name} {m}" for t in run.tasks.values() for m in axes.marks(t.sheet, short=True))
        if marked:
            notes.append(f"in the {side}: {listed(marked, 6, '; ')}")
        short = [t.name for t in run.tasks.values() if not t.complete]
        if short:
            notes.append(f"the {side} is partial in {len(short)} of {len(run.tasks)} tasks")
    return notes
