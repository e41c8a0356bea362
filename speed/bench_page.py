"""What `bench.py` makes of its runs: medians, whether an aim is met, and the page (docs/performance.md)."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

DASH = "–"
_AIM = re.compile(r"(product|ratio|more) (<=|>=) ([\d.]+)")


@dataclass(frozen=True)
class Line:
    """One measurement. `ours` and `peer` in `unit`; memory in MB where it was measured. `aim` is about the product, its
    ratio to the peer, or what it takes more than the peer: `product <= 8`."""

    what: str
    unit: str
    ours: float
    peer: float | None = None
    against: str = DASH
    ours_mb: float | None = None
    peer_mb: float | None = None
    runs: int = 1
    aim: str = ""
    pairs: tuple[tuple[float, float], ...] = ()  # product and peer of each run, where there are several

    @property
    def ratio(self) -> float | None:
        """Product / peer: of several runs the median of theirs, since each pair had its own machine and its own load."""
        found = [a / b for a, b in self._each() if b]
        return statistics.median(found) if found else None

    @property
    def more(self) -> float | None:
        """Product - peer, likewise."""
        found = [a - b for a, b in self._each()]
        return statistics.median(found) if found else None

    def _each(self) -> Sequence[tuple[float, float]]:
        return self.pairs or ([] if self.peer is None else [(self.ours, self.peer)])

    @property
    def met(self) -> bool | None:
        """None where there is no aim, or no peer to hold against."""
        found = _AIM.fullmatch(self.aim)
        if not found:
            return None
        what, kind, bound = found[1], found[2], float(found[3])
        value = {"product": self.ours, "ratio": self.ratio, "more": self.more}[what]
        if value is None:
            return None
        return value <= bound if kind == "<=" else value >= bound


def table(text: str) -> dict[str, list[float]]:
    """First cell -> the numbers of the other cells, of every row of a Markdown table that holds numbers."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip().replace(",", "") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and all(re.fullmatch(r"-?[\d.]+", cell) for cell in cells[1:]):
            found[cells[0]] = [float(cell) for cell in cells[1:]]
    return found


def medians(runs: Sequence[Sequence[Line]]) -> list[Line]:
    """Line by line, the median of each number over the alternations, ratios and differences taken in each; names and
    aims are the last run's."""

    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    out = []
    for lines in zip(*runs, strict=True):
        ours = statistics.median(line.ours for line in lines)
        peer, ours_mb, peer_mb = (
            middle([getattr(line, name) for line in lines]) for name in ("peer", "ours_mb", "peer_mb")
        )
        pairs = tuple((line.ours, line.peer) for line in lines if line.peer is not None)
        found = replace(lines[-1], ours=ours, peer=peer, ours_mb=ours_mb, peer_mb=peer_mb)
        out.append(replace(found, runs=len(lines), pairs=pairs))
    return out


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return DASH if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def rendered(lines: Sequence[Line]) -> str:
    """The Markdown table."""
    rows = [
        "| | product | peer | product / peer | aim | peak MB, product | peak MB, peer | peer | runs |",
        "|---|---:|---:|---:|---|---:|---:|---|---:|",
    ]
    for one in lines:
        unit = f" {one.unit}" if one.unit else ""
        aim = one.aim if one.met is None else f"{one.aim}: {'met' if one.met else '**not met**'}"
        cells = [
            one.what,
            number(one.ours) + unit,
            DASH if one.peer is None else number(one.peer) + unit,
            number(one.ratio),
            aim or DASH,
            number(one.ours_mb),
            number(one.peer_mb),
            one.against,
            str(one.runs),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def machine() -> dict[str, Any]:
    """What a run was measured on, and how busy that was when it began."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return {
        "machine": f"{name[1].strip() if name else platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
    }


def told(machines: Sequence[dict[str, Any]]) -> str:
    """The sentence about the machines of all runs."""
    found: dict[str, list[float]] = {}
    for one in machines:
        found.setdefault(one["machine"], []).extend([] if one["load"] is None else [one["load"]])
    parts = [
        f"{name} (load average as a run began: {min(loads):g} to {max(loads):g})" if loads else name
        for name, loads in sorted(found.items())
    ]
    return f"Machine: {'; '.join(parts) or DASH}."


PAGE = """# Performance

What this package costs beside what one would use without it. Each line was measured product and peer in turn on the
same data in fresh processes; the numbers are medians of that many such runs, the ratio that of each run's own. Where a
machine does other work, read the ratios and CPU seconds, not the speeds. `ratio` is product / peer, `more` is product - peer,
both in an aim.

    make bench BENCH_ARGS="--log {log} -o docs/performance.md"      # in pieces: each call adds to the log

{machine}

{table}
{missing}
Runs of their own: prefill of one document ([sweep.md](sweep.md)), `icr prepare` on real books and against another commit
([retrieval.md](retrieval.md)), memory with lm-eval's `--model vllm` ([install.md](install.md)).

This page is written by that command from the runs in the log; `--alternations 0` writes it again without measuring.
"""


def page(lines: Sequence[Line], machines: Sequence[dict[str, Any]], missing: Sequence[str], log: str) -> str:
    """docs/performance.md."""
    gap = f"\nNot measured: {', '.join(missing)}.\n" if missing else ""
    return PAGE.format(log=log, machine=told(machines), table=rendered(lines), missing=gap)
