"""Which runs share a line of the board, which cells are out of date, and what tells look-alike rows apart."""

from __future__ import annotations

from typing import Any

from ..ledgers.check import began
from ..ledgers.inputs import differing, switches
from .cells import Cell, Column
from .rows import Row

# What may differ between the runs of one row: benchmarks have prompts and generation lengths of their own.
_NOT_A_VARIANT = (
    *(
        "prompt",
        "gen_kwargs",
        "gen_kwargs_cli",
        "max_model_len",
        "truncation",
        "overflow",
        "chat",
        "num_fewshot",
    ),
)


def started(head: dict[str, Any]) -> float:
    """When a run began, as a number that sorts; 0 when unknown, or when it is a time to come."""
    value = began(head)
    return value if value is not None else 0.0


def mark_stale(found: list[Row]) -> None:
    """Per column the highest (task version, metric version, start) is current; cells of other versions are
    stale."""
    current: dict[Column, tuple[Any, ...]] = {}
    for row in found:
        for column, c in row.cells.items():
            rank = (_number(c.version[0]), _number(str(c.version[2])), started(row.heads[0]))
            if column not in current or rank > current[column][0]:
                current[column] = (rank, c.version)
    for row in found:
        for column, c in row.cells.items():
            if c.version != current[column][1] and c.status in ("complete", "partial"):
                names = ("task version", "metric", "metric version", "data revision")
                changed = [
                    f"{n} {old}, now {new}"
                    for n, old, new in zip(names, c.version, current[column][1], strict=True)
                    if old != new
                ]
                c.status, c.reason, c.counts_as_complete = "stale", "; ".join(changed), False


def mark_limited(found: list[Row]) -> None:
    """Columns that no run has completed: what there is counts, and says how much it is. Beside a complete
    run a partial one does not."""
    by_column: dict[Column, list[Cell]] = {}
    for row in found:
        for column, c in row.cells.items():
            by_column.setdefault(column, []).append(c)
    for cells in by_column.values():
        partial = [c for c in cells if c.status == "partial" and c.effect is not None]
        if any(c.status == "complete" for c in cells) or any(c.counts_as_complete for c in cells):
            continue
        for c in partial:
            assert c.effect is not None
            c.status, c.reason = "limited", f"{c.effect.n} of {c.n_expected or '?'} items"
        if len({c.reason for c in partial}) == 1 and len(partial) == len(cells):
            for c in partial:
                c.limited, c.reason = c.reason, ""


def _number(version: str) -> int:
    digits = version.split(".")[0]
    return int(digits) if digits.isdigit() else 0


def join_prompts(found: list[Row]) -> list[Row]:
    """Benchmarks have their own prompts: runs that differ only in that, and share no column, are one row.

    Where one benchmark was run with several prompts, each makes a row and the runs of the others join all of
    them.
    """
    groups: dict[str, list[Row]] = {}
    for row in found:
        inputs = row.heads[0].get("fingerprint_inputs") or {}
        args = {k: v for k, v in (inputs.get("model_args") or {}).items() if k != "max_model_len"}
        kept = {k: v for k, v in inputs.items() if k not in _NOT_A_VARIANT} | {"model_args": args}
        groups.setdefault(
            repr(sorted(kept.items(), key=lambda p: p[0])) if kept.get("model") else row.runs[0], []
        ).append(row)
    return [joined for group in groups.values() for joined in _join(group)]


def _join(group: list[Row]) -> list[Row]:
    several = [r for r in group if any(r is not o and r.cells.keys() & o.cells.keys() for o in group)]
    alone = [r for r in group if r not in several]
    clash = any(a is not b and not a.cells.keys() & b.cells.keys() for a in several for b in several)
    if clash or not several:
        return [_merge([*alone])] + several if alone else several
    return [_merge([row, *alone]) for row in several]


def _merge(parts: list[Row]) -> Row:
    if len(parts) == 1:
        return parts[0]
    prompts = dict.fromkeys(p.prompt for p in parts if p.prompt)
    first = parts[0]
    row = Row(
        first.model, first.checkpoint, first.setting, " + ".join(prompts), [h for p in parts for h in p.heads]
    )
    for part in parts:
        row.cells.update(part.cells)
    return row


def name_variants(found: list[Row]) -> list[Row]:
    """What switches thoughts is always in a row's name; rows that look the same get what differs (dtype, engine,
    generation arguments) behind it."""
    for row in found:
        row.variant = switches(row.heads[0])
    same: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        same.setdefault((row.name, row.setting["text"], row.prompt, row.variant), []).append(row)
    for group in same.values():
        if len(group) > 1:
            for row, parts in zip(group, differing([r.heads[0] for r in group]), strict=True):
                row.variant = f"{row.variant} {parts}".strip()[:80] or row.runs[0][:6]
            _tell_copies_apart(group)
    return found


def _tell_copies_apart(group: list[Row]) -> None:
    """Two runs of one fingerprint (a copy with other items) are named by their folders."""
    by_variant: dict[str, list[Row]] = {}
    for row in group:
        by_variant.setdefault(row.variant, []).append(row)
    for rows in by_variant.values():
        if len(rows) > 1:
            for number, row in enumerate(rows, 1):
                row.variant += f" in {row.folder}" if row.folder else f" #{number}"
