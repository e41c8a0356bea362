"""What a row costs an item and a right answer: tokens, seconds of the engine and its devices, dollars, memory
and measured KV bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from icr_tasks.registry import view

from ...text.names import listed
from ...text.printed import settled
from .. import costs
from ..rows import Row
from ..tables import Line, Shown, Table

if TYPE_CHECKING:
    from ..build import Board

Head = dict[str, Any]
Of = Callable[[Row], float | None]


def _items(head: Head) -> int:
    return sum(t.get("n_scored") or 0 for t in head["tasks"].values())


def _at(head: Head, path: str) -> float | None:
    value: Any = head
    first, _, rest = path.partition(".")
    for key in (first, rest) if rest else (first,):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _rate(tokens: str, stage: str) -> Of:
    """Tokens a second of the tasks that were timed as a whole; None unless every run has one."""

    def rate(row: Row) -> float | None:
        parts = [part for head in row.heads if (part := _timed(head, tokens, stage))]
        seconds = sum(s for _, s in parts)
        return sum(n for n, _ in parts) / seconds if len(parts) == len(row.heads) and seconds else None

    return rate


def _timed(head: Head, tokens: str, stage: str) -> tuple[float, float] | None:
    """Tokens of a run and the seconds they took, of the same items: a task of whose answers only some say their time
    counts for neither. A ledger of an older version knows both for whole runs only."""
    sheets = [t for t in head["tasks"].values() if "tokens" in t]
    if not sheets:
        n, s = _at(head, f"tokens.{tokens}"), _at(head, f"seconds.{stage}")
        return (n, s) if n is not None and s is not None else None
    whole = [t for t in sheets if (t.get("n_timed") or 0) >= max(t.get("n_scored") or 0, 1)]
    found = [(n, s) for t in whole if (n := _at(t, f"tokens.{tokens}")) and (s := _at(t, f"seconds.{stage}"))]
    return (sum(n for n, _ in found), sum(s for _, s in found)) if found else None


def _largest(path: str) -> Of:
    return lambda row: max((v for h in row.heads if (v := _at(h, path)) is not None), default=None)


def _mean(path: str, scale: float = 1.0) -> Of:
    """Mean over a row's runs, weighted by their items."""

    def mean(row: Row) -> float | None:
        found = [(v, _items(h)) for h in row.heads if (v := _at(h, path)) is not None]
        n = sum(w for _, w in found)
        return scale * sum(v * w for v, w in found) / n if n else None

    return mean


def _each(name: str) -> Of:
    return lambda row: costs.mean(row, name)


def _right(name: str) -> Of:
    return lambda row: costs.per_right(row, name)


def _cut(row: Row) -> float | None:
    tasks = [t for h in row.heads for t in h["tasks"].values()]
    n = sum((t.get("n_scored") or 0) + (t.get("n_failed") or 0) for t in tasks)  # failed ones may be cut, too
    return 100 * sum(t.get("n_truncated") or 0 for t in tasks) / n if n else None


# column -> (unit, value of a row)
COSTS: dict[str, tuple[str, Of]] = {
    "prompt tokens / item": ("", _each("prompt")),
    "cached tokens / item": ("", _each("cached")),
    "answer tokens / item": ("", _each("output")),
    "reasoning tokens / item": ("", _each("reasoning")),
    "wall s / item": ("s", _each("wall")),
    "device s / item": ("s", _each("device")),
    "USD / item": ("", _each("usd")),
    "prompt tokens / right answer": ("", _right("prompt")),
    "device s / right answer": ("s", _right("device")),
    "USD / right answer": ("", _right("usd")),
    "prefill tokens / s, a request": ("", _rate("prompt", "prefill")),
    "decode tokens / s, a request": ("", _rate("output", "decode")),
    "peak memory": ("B", _largest("peak_memory_bytes")),
    "KV stored / token": ("B", _mean("kv.bytes_stored_per_token")),
    "KV read / step": ("B", _mean("kv.bytes_read_per_step")),
    "KV stored": ("%", _mean("kv.stored_fraction", 100)),
    "KV read": ("%", _mean("kv.read_fraction", 100)),
    "attention kept": ("%", _mean("kv.mass_kept", 100)),
    "prompts cut": ("%", _cut),
}
_MAY_BE_ZERO = (
    "prompts cut",
    "cached tokens / item",
    "reasoning tokens / item",
    "USD / item",
    "USD / right answer",
)


def value(row: Row, name: str) -> float | None:
    """One cost of a row."""
    found = COSTS[name][1](row)
    return None if found is None else settled(found)


def table(rows: Sequence[Row]) -> Table:
    """All costs; what no row measured is left out. Zero prompt or answer tokens mean that nobody counted."""
    columns = [n for n in COSTS if any(value(r, n) for r in rows)]
    lines = []
    for row in rows:
        cells = []
        for name in columns:
            v = value(row, name)
            counted = v is not None and (v > 0 or name in _MAY_BE_ZERO)
            unit = COSTS[name][0]
            cells.append(
                Shown("number", v if counted else None, reason="" if counted else "not measured", unit=unit)
            )
        lines.append(Line(row.labels, cells, row.deployable, not row.deployable))
    notes = [
        "Wall seconds are those in which the engine generated, device seconds are times its devices; an answer "
        "from a store or a replay keeps those of its own generation. A right answer is a point of the score: "
        "total cost over the points of the same items. Prefill and decode rates are those one request sees "
        "while others run beside it. KV bytes are measured: stored after prefill, for each token of the "
        "prompt, and read in each decode step; the shares are of what full attention stores and reads.",
        *_made_on(rows),
    ]
    return Table("cost", "Cost", columns, sorted(lines, key=lambda x: (x.reference, x.labels)), notes)


def _made_on(rows: Sequence[Row]) -> list[str]:
    """On what devices the answers were made."""
    found: dict[str, list[str]] = {}
    for row in rows:
        sheets = [t for h in row.heads for t in h["tasks"].values()]
        for name, count in dict.fromkeys(costs.devices(s) for s in sheets):
            if count:
                found.setdefault(f"{count} x {name}", []).append(row.label)
    if len(found) == 1 and len(next(iter(found.values()))) == len(rows):
        return [f"Devices: {next(iter(found))}."]
    parts = [f"{d}: {listed(n, 3)}" for d, n in found.items()]
    return [f"Devices: {'; '.join(parts)}."] if parts else []


@view("cost", order=80)
def cost(board: Board) -> list[Table]:
    """What each row costs."""
    return [table(board.rows)]
