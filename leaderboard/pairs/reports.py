"""The gate's answer in four forms made from one object: terminal block, gate.md, gate.json, JUnit XML."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path
from typing import Any
from xml.sax import saxutils

import orjson

from icr_tasks.storage import write_atomic, writing

from .. import plots
from ..ledgers.load import Run
from ..text import escape
from ..text.names import count, interval, plain, points
from ..text.printed import printed, settled
from . import flips, forest
from .compare import Line, compare
from .gate import INCONCLUSIVE, NOT_COMPARABLE, PASS, REGRESSED, Endpoint, Verdict
from .joined import Pairs

SCHEMA = 1


def terminal(found: Verdict, base: str, new: str, first: Verdict | None = None) -> str:
    """At most 12 lines for a benchmark suite of four."""
    lines = [f"icr gate  {plain(new)}", f"     vs  baseline {plain(base)}"]
    if found.comparison:
        lines.append(_counted(found))
        lines.append(f"{'':<24}{'base':>6}{'new':>7}{'Δ':>7}  {_level(found):<15}{'MDE':>5}  verdict")
        lines += [_row(end, found.alpha) for end in found.endpoints]
        worst = _worst(found)
        lines.append(f"worst cells: {worst}" if worst else "no cell is lower")
        flips = found.comparison.flips
        lines.append(
            f"flips: {count(flips.worse)} worse · {count(flips.better)} better · {count(flips.same)} same "
            f"({count(flips.identical)} byte-identical){_origin(first)}"
        )
    else:
        lines += [f"  - {plain(text)}" for text in found.refusals[:6]]
        if len(found.refusals) > 6:
            lines.append(f"  - and {len(found.refusals) - 6} more, all in gate.json")
    return "\n".join([*lines, f"→ {found.verdict}: {plain(found.reason)}"])


def markdown(found: Verdict, base: str, new: str, first: Verdict | None = None) -> str:
    """gate.md: the table carries the message alone, without pictures."""
    mark = {PASS: "✅", REGRESSED: "❌", INCONCLUSIVE: "❔", NOT_COMPARABLE: "⛔"}[found.verdict]
    lines = [
        f"## {mark} {found.verdict}",
        "",
        f"{escape.markdown(new)} vs baseline {escape.markdown(base)}",
        "",
        escape.markdown(found.reason),
        "",
    ]
    if found.comparison:
        lines += [_counted(found), "", f"| | base | new | Δ | {_level(found)} | MDE | margin | verdict |"]
        lines.append("|---|---:|---:|---:|---|---:|---:|---|")
        for end in found.endpoints:
            line, remark = end.line, f" ({end.remark})" if end.remark else ""
            lines.append(
                f"| {escape.markdown(line.title)} | {points(line.base.mean)} | {points(line.new.mean)} "
                f"| {points(line.delta.mean, sign=True)} | {interval(line.delta.ci(1 - 2 * found.alpha))} "
                f"| {points(line.delta.mde(found.alpha))} | {points(end.margin)} | {end.verdict}{remark} |"
            )
        lines += ["", *_cells(found), ""]
    lines += [f"- {escape.markdown(text)}" for text in found.refusals]
    lines += [f"- {escape.markdown(text)}" for text in found.notes]
    lines += [
        f"- left out: {count(number)} items {escape.markdown(why)}" for why, number in found.left_out.items()
    ]
    if first:
        lines.append(
            f"- {_origin(first).removeprefix(' · ') or escape.markdown(f'first baseline: {first.reason}')}"
        )
    return "\n".join(lines).rstrip() + "\n"


def data(found: Verdict, base: Run | None, new: Run | None, first: Verdict | None = None) -> dict[str, Any]:
    """gate.json: everything with full precision; unknown numbers are null."""
    alpha, result = found.alpha, found.comparison
    return {
        "schema": SCHEMA,
        "verdict": found.verdict,
        "exit_code": found.code,
        "reason": found.reason,
        "alpha": alpha,
        "strict": found.strict,
        "baseline": _who(base),
        "candidate": _who(new),
        "n": result.n if result else 0,
        "clusters": result.clusters if result else 0,
        "endpoints": [
            {**line_data(e.line, alpha), "margin": e.margin, "verdict": e.verdict, "remark": e.remark}
            for e in found.endpoints
        ],
        "cells": [line_data(cell, alpha) for cell in result.cells] if result else [],
        "flips": vars(result.flips) if result else None,
        "refusals": found.refusals,
        "notes": found.notes,
        "left_out": found.left_out,
        "first_baseline": {"verdict": first.verdict, "suite": line_data(first.endpoints[0].line, alpha)}
        if first and first.endpoints
        else None,
    }


def line_data(line: Line, alpha: float) -> dict[str, Any]:
    """One compared quantity as plain numbers in score units."""
    low, high = line.delta.ci(1 - 2 * alpha)
    values = {
        "base": line.base.mean,
        "new": line.new.mean,
        "delta": line.delta.mean,
        "se": line.delta.se,
        "df": line.delta.df,
        "ci_low": low,
        "ci_high": high,
        "mde80": line.delta.mde(alpha),
        "p": line.delta.p,
        "p_less": line.delta.p_less,
        "p_adjusted": line.adjusted,
    }
    finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
    n = {"n": line.delta.n, "clusters": line.delta.clusters, "test": line.delta.test}
    return {"name": line.name, "title": line.title, **finite, **n}


def junit(found: Verdict, label: str = "") -> str:
    """One test case an endpoint: REGRESSED fails, so does INCONCLUSIVE (skipped when allowed), no comparison
    errs. `label` tells the cases of several runs apart."""
    suite = "icr.gate" + (f".{label}" if label else "")
    cases, bad = [], {"failure": 0, "error": 0, "skipped": 0}
    for end in found.endpoints:
        kind = {REGRESSED: "failure", INCONCLUSIVE: "failure" if found.strict else "skipped"}.get(end.verdict)
        cases.append(
            _case(suite, end.line.title, kind, f"{end.verdict}: {_short(end.line, found.alpha)}", "")
        )
        if kind:
            bad[kind] += 1
    if found.verdict == NOT_COMPARABLE:
        cases, bad["error"] = (
            [_case(suite, "comparable", "error", found.reason, "\n".join(found.refusals))],
            1,
        )
    counts = (
        f'tests="{len(cases)}" failures="{bad["failure"]}" errors="{bad["error"]}" skipped="{bad["skipped"]}"'
    )
    body = "\n".join(cases)
    named = saxutils.quoteattr(_xml(f"icr gate {label}".strip()))
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<testsuite name={named} {counts}>\n{body}\n</testsuite>\n'
    )


def write(
    folder: Path,
    found: Verdict,
    base: Run | None,
    new: Run | None,
    text: str,
    first: Verdict | None,
    *,
    summary: bool = True,
) -> None:
    """gate.md, gate.json, gate.xml and, with the extra [board], gate.svg; gate.md is also appended to $GITHUB_STEP_SUMMARY when that
    is set."""
    with writing("the gate's report", "choose another folder with -o"):
        write_atomic(folder / "gate.md", text.encode())
        body = orjson.dumps(data(found, base, new, first), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        write_atomic(folder / "gate.json", body + b"\n")
        write_atomic(folder / "gate.xml", junit(found).encode())
        if plots.available():
            drawn = forest.of_gate(found, f"Gate: {found.verdict}").svg()
            write_atomic(folder / "gate.svg", drawn.encode())
        else:
            print(f"note: no gate.svg: {plots.NEEDS}", file=sys.stderr)
        if summary:
            summarise(text)


def summarise(text: str) -> None:
    """Append to $GITHUB_STEP_SUMMARY where that is set."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _case(suite: str, name: str, kind: str | None, message: str, body: str) -> str:
    head = f"  <testcase classname={saxutils.quoteattr(_xml(suite))} name={saxutils.quoteattr(_xml(name))}"
    return (
        f"{head}><{kind} "
        f"message={saxutils.quoteattr(_xml(message))}>{saxutils.escape(_xml(body))}</{kind}></testcase>"
        if kind
        else f"{head}/>"
    )


def _xml(text: str) -> str:
    """XML 1.0 forbids most control characters even when escaped."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _who(run: Run | None) -> dict[str, Any] | None:
    keys = ("fingerprint", "model", "setting", "prompt")
    return {key: getattr(run, key) for key in keys} if run else None


def _counted(found: Verdict) -> str:
    assert found.comparison
    left = sum(found.left_out.values())
    tail = f" · {count(left)} left out" if left else ""
    return f"{count(found.comparison.n)} paired items · {count(found.comparison.clusters)} questions or documents{tail}"


def _level(found: Verdict) -> str:
    return f"{100 * (1 - 2 * found.alpha):g} % CI"


def _row(end: Endpoint, alpha: float) -> str:
    line, remark = end.line, f", {end.remark}" if end.remark else ""
    name = ("" if line.name == "suite" else " ") + plain(line.title)
    return (
        f"{name:<24}{points(line.base.mean):>6}{points(line.new.mean):>7}"
        f"{points(line.delta.mean, sign=True):>7}  {interval(line.delta.ci(1 - 2 * alpha)):<15}"
        f"{points(line.delta.mde(alpha)):>5}  {end.verdict} (margin {points(end.margin)}{remark})"
    )


def _origin(first: Verdict | None) -> str:
    if not first or not first.endpoints:
        return ""
    return f" · vs the first baseline {_short(first.endpoints[0].line, first.alpha)} {first.verdict}"


def _short(line: Line, alpha: float) -> str:
    return f"{points(line.delta.mean, sign=True)} {interval(line.delta.ci(1 - 2 * alpha))}"


def _worst(found: Verdict) -> str:
    assert found.comparison
    lower = [c for c in found.comparison.cells if settled(c.delta.mean) < 0]
    low = sorted(lower, key=lambda c: printed(100 * c.delta.mean))[:2]  # those that print alike stay by name
    return " · ".join(f"{plain(c.title)} {_short(c, found.alpha)} {_marked(c)}" for c in low)


def _marked(cell: Line) -> str:
    return "look here" if cell.flagged else "n.s."


def _cells(found: Verdict) -> list[str]:
    assert found.comparison
    lines = [
        "<details><summary>Cells (shown, never gated; ◂ = false discovery rate below 10 %)</summary>",
        "",
    ]
    lines += [
        f"| cell | base | new | Δ | {_level(found)} | MDE | items | |",
        "|---|---:|---:|---:|---|---:|---:|---|",
    ]
    for cell in found.comparison.cells:
        lines.append(
            f"| {escape.markdown(cell.title)} | {points(cell.base.mean)} | {points(cell.new.mean)} | "
            f"{points(cell.delta.mean, sign=True)} "
            f"| {interval(cell.delta.ci(1 - 2 * found.alpha))} | {points(cell.delta.mde(found.alpha))} "
            f"| {cell.delta.n} | {'◂' if cell.flagged else ''} |"
        )
    return [*lines, "", "</details>"]


# ---- compare report ------------------------------------------------------------------------------
# What `icr compare` prints: a Markdown table, readable in a terminal; or JSON with full precision.

ALPHA = 0.025  # intervals of 95 %


def render(pairs: Pairs, base: Run, new: Run, *, as_json: bool = False) -> str:
    """The comparison, or the reasons why there is none."""
    found = compare_data(pairs, base, new)
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if as_json else _text(pairs, base, new)


def compare_data(pairs: Pairs, base: Run, new: Run) -> dict[str, Any]:
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
    lines += [_pair_row(line, line.adjusted) for line in result.lines]
    lines += [_pair_row(cell, cell.delta.p, " ◂" if cell.flagged else "") for cell in result.cells]
    x = result.flips
    lines += [
        "",
        f"{count(x.worse)} worse, {count(x.better)} better, {count(x.same)} same ({count(x.identical)} "
        "byte-identical)",
    ]
    lines.append(
        "p: suite and benchmarks after Holm, cells raw; ◂ false discovery rate below 10 %; "
        "MDE: the smallest true difference found with 80 % power"
    )
    lines += [f"- {plain(note)}" for note in pairs.notes]
    lines += [f"- left out: {count(number)} items {plain(why)}" for why, number in pairs.left_out.items()]
    return "\n".join(lines)


def _pair_row(line: Line, p: float, mark: str = "") -> str:
    p = settled(p)
    return (
        f"| {plain(line.title)}{mark} | {points(line.base.mean)} | {points(line.new.mean)} "
        f"| {points(line.delta.mean, sign=True)} | {interval(line.delta.ci(1 - 2 * ALPHA))} "
        f"| {points(line.delta.mde())} | {'<0.001' if p < 0.001 else f'{p:.3f}'} |"
    )
