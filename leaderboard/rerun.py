"""A/A: the same run made twice. What differs is noise of engine and machine, which no paired error bar contains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .compare import compare
from .load import Run
from .pairs import Pairs
from .suite import count, points


@dataclass(frozen=True)
class Noise:
    """One repetition: `delta` per endpoint title (score units), shares of items that flipped and that are identical."""

    n: int
    delta: dict[str, float]
    flipped: float
    identical: float
    first: str | None


def not_the_same(base: Run, again: Run) -> str | None:
    """Why two runs are not repetitions of one another; None when they are."""
    if base.folder.resolve() == again.folder.resolve():
        return f"{base.folder} is given twice; collect the repetition into another folder (icr collect -o results-2)"
    if base.fingerprint != again.fingerprint:
        one, two = base.head.get("fingerprint_inputs", {}), again.head.get("fingerprint_inputs", {})
        differ = sorted(k for k in {*one, *two} if one.get(k) != two.get(k))
        return f"not a repetition, these differ: {', '.join(differ) or 'fingerprints'}; --aa needs the same run twice"
    return None


def noise(pairs: Pairs) -> Noise:
    """Measured re-run noise of one pair. Raises ValueError when the pair has refusals."""
    if pairs.refusals:
        raise ValueError("not comparable")
    result = compare(pairs)
    flipped = pairs.change != 0
    changed = np.flatnonzero(~pairs.same)
    first = f"{pairs.task[changed[0]]} {pairs.item[changed[0]]}" if len(changed) else None
    delta = {line.title: line.delta.mean for line in result.lines}
    return Noise(result.n, delta, float(flipped.mean()), float(pairs.same.mean()), first)


def render(found: list[Noise], label: str) -> str:
    """Terminal block: one line a repetition, then the margins this noise allows."""
    lines = [f"icr gate --aa  {label}"]
    for number, one in enumerate(found, 1):
        deltas = " · ".join(f"{title} {points(value, sign=True)}" for title, value in one.delta.items())
        lines.append(
            f"repetition {number}: {deltas} · {count(one.n)} items, {points(one.flipped)} % flipped, "
            f"{points(one.identical)} % of answers byte-identical{f', first other answer {one.first}' if one.first else ''}"
        )
    titles = found[0].delta
    worst = {title: max(abs(one.delta[title]) for one in found if title in one.delta) for title in titles}
    suite = next(iter(worst))
    rest = max(list(worst.values())[1:], default=worst[suite])
    lines.append(f"→ keep --margin above {points(worst[suite])} and --benchmark-margin above {points(rest)}")
    return "\n".join(lines)
