"""What `icr compare` prints: a Markdown table, readable in a terminal; or JSON with full precision."""

from __future__ import annotations

from typing import Any

import orjson

from . import flips
from .compare import Line, compare
from .gate_report import line_data
from .load import Run
from .pairs import Pairs
from .printed import settled
from .suite import count, interval, plain, points

ALPHA = 0.025  # intervals of 95 %


def render(pairs: Pairs, base: Run, new: Run, *, as_json: bool = False) -> str:
    """The comparison, or the reasons why there is none."""
    found = data(pairs, base, new)
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if as_json else _text(pairs, base, new)


def data(pairs: Pairs, base: Run, new: Run) -> dict[str, Any]:
    """Plain numbers in score units; `by_depth` counts flips at each (dataset, length, depth)."""
    head = {"schema": 1, "base": base.fingerprint, "new": new.fingerprint, "comparable": not pairs.refusals}
    tail = {"refusals": [str(r) for r in pairs.refusals], "notes": pairs.notes, "left_out": pairs.left_out}
    if pairs.refusals:
        return {**head, **tail}
    result = compare(pairs)
    return {
        **head,
        "n": result.n,
        "clusters": result.clusters,
        "lines": [line_data(line, ALPHA) for line in result.lines],
        "cells": [line_data(line, ALPHA) for line in result.cells],
        "flips": vars(result.flips),
        "by_depth": flips.table(pairs),
        **tail,
    }


def _text(pairs: Pairs, base: Run, new: Run) -> str:
    lines = [f"{plain(base.label)} → {plain(new.label)}", ""]
    if pairs.refusals:
        lines += ["**NOT COMPARABLE**", "", *(f"- {plain(reason)}" for reason in pairs.refusals)]
        return "\n".join(lines)
    result = compare(pairs)
    lines += [f"{count(result.n)} paired items, {count(result.clusters)} questions or documents", ""]
    lines += ["| | A | B | Δ | 95 % CI | MDE | p |", "|---|---:|---:|---:|---|---:|---:|"]
    lines += [_row(line, line.adjusted) for line in result.lines]
    lines += [_row(cell, cell.delta.p, " ◂" if cell.flagged else "") for cell in result.cells]
    x = result.flips
    lines += [
        "",
        f"{count(x.worse)} worse, {count(x.better)} better, {count(x.same)} same ({count(x.identical)} byte-identical)",
    ]
    lines.append(
        "p: suite and benchmarks after Holm, cells raw; ◂ false discovery rate below 10 %; "
        "MDE: the smallest true difference found with 80 % power"
    )
    lines += [f"- {plain(note)}" for note in pairs.notes]
    lines += [f"- left out: {count(number)} items {plain(why)}" for why, number in pairs.left_out.items()]
    return "\n".join(lines)


def _row(line: Line, p: float, mark: str = "") -> str:
    p = settled(p)
    return (
        f"| {plain(line.title)}{mark} | {points(line.base.mean)} | {points(line.new.mean)} "
        f"| {points(line.delta.mean, sign=True)} | {interval(line.delta.ci(1 - 2 * ALPHA))} "
        f"| {points(line.delta.mde())} | {'<0.001' if p < 0.001 else f'{p:.3f}'} |"
    )
