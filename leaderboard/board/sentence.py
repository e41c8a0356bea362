"""One sentence on what to use, every number of which stands in the table below it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..stats import Effect
from ..text.names import amount
from ..text.printed import settled
from . import render
from .partners import compressed
from .tables import of_effect

if TYPE_CHECKING:
    from .advice import Advice, Setting, Use

MOST = 4  # settings about which it says something
SOME = 2  # of those that were measured at some lengths only


def sentence(advice: Advice) -> str:
    """`up to 16k full context; from 32k rag@4k, +13.7 [+8.2, +19.2] at 32k; kv:topk@0.05 costs 4.8 ±1.7`."""
    served = [line for line in advice.lines[1:] if not line.reference]
    if not served:
        return "only reference lines beside full context."
    parts, said = _by_length(advice)
    rest = [line for line in served if line.row.label not in said and line.whole.delta is not None]
    rest.sort(key=lambda line: not compressed(line.row))  # what compression costs comes first
    parts += [_over_all(line) for line in rest[:MOST]]
    if len(rest) > MOST:
        parts.append(f"others below ({', '.join(line.row.setting['text'] for line in rest[MOST:])})")
    parts += _at_some(
        advice, [line for line in served if line.whole.delta is None and line.row.label not in said]
    )
    return "; ".join(parts) + "."


def _by_length(advice: Advice) -> tuple[list[str], set[str]]:
    """Which setting at which lengths: full context, unless another is better beyond noise."""
    chosen: list[tuple[Setting, list[int]]] = []
    for j in range(len(advice.bands)):
        line = _best(advice, j)
        if chosen and chosen[-1][0] is line:
            chosen[-1][1].append(j)
        else:
            chosen.append((line, [j]))
    parts, said = [], set()
    for k, (line, at) in enumerate(chosen):
        full = line is advice.full
        name = "full context" if full else line.row.setting["text"]
        where = _where(advice, at, first=k == 0, last=k == len(chosen) - 1)
        if full:
            parts.append(f"{where} {name}".strip())
            continue
        said.add(line.row.label)
        told = at if len(at) < 4 else (at[0], at[-1])
        shown = [f"{_signed(line.uses[j].delta)} at {advice.bands[j].name}" for j in told]
        shown = [_signed(line.uses[at[0]].delta)] if len(at) == 1 else shown
        parts.append(f"{where} {name}, {' and '.join(shown)}".strip())
    return parts, said


def _best(advice: Advice, j: int) -> Setting:
    better = [line for line in advice.lines[1:] if line.uses[j].better]
    return max(better, key=lambda line: (_mean(line.uses[j]), line.row.label), default=advice.full)


def _mean(use: Use) -> float:
    return use.delta.mean if use.delta else -math.inf


def _where(advice: Advice, at: list[int], *, first: bool, last: bool) -> str:
    names = [advice.bands[j].name for j in at]
    if first and last:
        return "at every length" if len(names) > 1 else f"at {names[0]}" if names[0] != "all" else ""
    if first:
        return f"up to {names[-1]}" if len(names) > 1 else f"at {names[0]}"
    nominal = advice.bands[at[0]].masks is None
    return f"from {names[0]}" if last and nominal else f"at {' and '.join(names)}"


def _over_all(line: Setting) -> str:
    effect, name = line.whole.delta, line.row.setting["text"]
    assert effect is not None
    if line.whole.worse or line.whole.better:
        said = f"{name} {'costs' if line.whole.worse else 'gains'} {_signed(effect)[1:]}"
    else:
        said = f"{name} {_signed(effect)}, no difference seen"
    if compressed(line.row) and line.read is not None:
        said += f", reads {amount(line.read, '%')}"
    return said


def _at_some(advice: Advice, lines: list[Setting]) -> list[str]:
    """Settings that were measured at some lengths only (rag@32k has no sense at 16k): what each does at its longest one;
    the longest first, then the highest."""
    last = {
        line.row.label: max(j for j, use in enumerate(line.uses) if use.delta is not None)
        for line in lines
        if any(use.delta is not None for use in line.uses)
    }
    known = [line for line in lines if line.row.label in last]
    known.sort(
        key=lambda line: (-last[line.row.label], -_mean(line.uses[last[line.row.label]]), line.row.label)
    )
    told = [_at_last(advice, line, last[line.row.label]) for line in known[:SOME]]
    parts = [f"at some lengths only: {', '.join(told)}"] if told else []
    if rest := [line for line in lines if line not in known[:SOME]]:
        parts.append(f"not compared at every length: {', '.join(m.row.setting['text'] for m in rest)}")
    return parts


def _at_last(advice: Advice, line: Setting, j: int) -> str:
    use, name = line.uses[j], line.row.setting["text"]
    assert use.delta is not None
    shown = _signed(use.delta)
    low, high = use.delta.ci()
    said = f"{name} {shown} at {advice.bands[j].name}"
    if use.worse or use.better:
        return f"{name} {'costs' if use.worse else 'gains'} {shown[1:]} at {advice.bands[j].name}"
    alone = settled(low) > 0 or settled(high) < 0
    return f"{said} ({'not sure among so many comparisons' if alone else 'no difference seen'})"


def _signed(effect: Effect | None) -> str:
    """The difference as its table shows it."""
    assert effect is not None
    return render.text(of_effect(effect, 0.95, kind="diff"))
