"""What a row costs: tokens, seconds, memory and measured KV bytes, summed or averaged over its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from icr_tasks.registry import view

from ...text.printed import settled
from ..rows import Row
from ..tables import Line, Shown, Table

if TYPE_CHECKING:
    from ..build import Board

Head = dict[str, Any]


def _items(head: Head) -> int:
    return sum(t.get("n_scored") or 0 for t in head["tasks"].values())


def _sum(path: str) -> Callable[[Sequence[Head]], float | None]:
    """Sum of a value over runs; None unless every run has it."""

    def total(heads: Sequence[Head]) -> float | None:
        found = [_at(h, path) for h in heads]
        return sum(v for v in found if v is not None) if found and None not in found else None

    return total


def _at(head: Head, path: str) -> float | None:
    value: Any = head
    first, _, rest = path.partition(".")
    for key in (first, rest) if rest else (first,):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _ratio(top: str, bottom: str) -> Callable[[Sequence[Head]], float | None]:
    def ratio(heads: Sequence[Head]) -> float | None:
        over, under = _sum(top)(heads), _sum(bottom)(heads)
        return over / under if over is not None and under else None

    return ratio


def _per_item(path: str) -> Callable[[Sequence[Head]], float | None]:
    def share(heads: Sequence[Head]) -> float | None:
        total, n = _sum(path)(heads), sum(map(_items, heads))
        return total / n if total is not None and n else None

    return share


def _max(path: str) -> Callable[[Sequence[Head]], float | None]:
    def largest(heads: Sequence[Head]) -> float | None:
        return max((v for h in heads if (v := _at(h, path)) is not None), default=None)

    return largest


def _mean(path: str) -> Callable[[Sequence[Head]], float | None]:
    def mean(heads: Sequence[Head]) -> float | None:
        found = [(v, _items(h)) for h in heads if (v := _at(h, path)) is not None]
        n = sum(w for _, w in found)
        return sum(v * w for v, w in found) / n if n else None

    return mean


def _percent(path: str) -> Callable[[Sequence[Head]], float | None]:
    mean = _mean(path)
    return lambda heads: None if (share := mean(heads)) is None else 100 * share


def _cut(heads: Sequence[Head]) -> float | None:
    tasks = [t for h in heads for t in h["tasks"].values()]
    n = sum(t.get("n_scored") or 0 for t in tasks)
    return 100 * sum(t.get("n_truncated") or 0 for t in tasks) / n if n else None


# column -> (unit, value of a row's runs)
COSTS: dict[str, tuple[str, Callable[[Sequence[Head]], float | None]]] = {
    "prompt tokens / item": ("", _per_item("tokens.prompt")),
    "answer tokens / item": ("", _per_item("tokens.output")),
    "seconds": ("s", _sum("seconds.total")),
    "prefill tokens / s, a request": ("", _ratio("tokens.prompt", "seconds.prefill")),
    "decode tokens / s, a request": ("", _ratio("tokens.output", "seconds.decode")),
    "peak memory": ("B", _max("peak_memory_bytes")),
    "KV stored / token": ("B", _mean("kv.bytes_stored_per_token")),
    "KV read / step": ("B", _mean("kv.bytes_read_per_step")),
    "KV stored": ("%", _percent("kv.stored_fraction")),
    "KV read": ("%", _percent("kv.read_fraction")),
    "attention kept": ("%", _percent("kv.mass_kept")),
    "prompts cut": ("%", _cut),
}


def value(row: Row, name: str) -> float | None:
    """One cost of a row."""
    found = COSTS[name][1](row.heads)
    return None if found is None else settled(found)


def table(rows: Sequence[Row]) -> Table:
    """All costs; what no row measured is left out. Zero tokens mean that nobody counted."""
    columns = [n for n in COSTS if any(value(r, n) for r in rows)]
    lines = []
    for row in rows:
        cells = []
        for name in columns:
            v = value(row, name)
            counted = v is not None and (v > 0 or name == "prompts cut")
            unit = COSTS[name][0]
            cells.append(
                Shown("number", v if counted else None, reason="" if counted else "not measured", unit=unit)
            )
        labels = (row.name, row.setting["text"], " ".join(p for p in (row.prompt, row.variant) if p))
        lines.append(Line(labels, cells, row.deployable, not row.deployable))
    notes = [
        "Seconds are those of the lm_eval calls; answers found in a store cost none. Prefill and decode "
        "rates are "
        "those one request sees while others run beside it. KV bytes are measured: stored after prefill, "
        "for each token "
        "of the prompt, and read in each decode step; the shares are of what full attention stores and reads."
    ]
    return Table("cost", "Cost", columns, sorted(lines, key=lambda line: line.labels), notes)


@view("cost", order=80)
def cost(board: Board) -> list[Table]:
    """What each row costs."""
    return [table(board.rows)]
