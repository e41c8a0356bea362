"""Which row another one is compared with: the full context of its model, or itself without compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ledgers.inputs import thoughts
from .rows import Row


def by_model(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of each model and checkpoint, in which alone a partner is looked for: thousands of rows times all rows would
    take most of a board's time."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault(row.key[:2], []).append(row)
    return found


def full_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The full-context row of the same model."""
    return _alike(row, rows, lambda r: r.setting.get("kind") == "full" and not r.setting.get("then"))


def uncompressed(row: Row, rows: Sequence[Row]) -> Row | None:
    """What a compressed row would be without compression: full context for `kv:...`, `rag@4k` for
    `rag@4k+kv:...`. None for rows that compress nothing."""
    if row.setting.get("kind") == "kv":
        return full_of(row, rows)
    if not row.setting.get("then"):
        return None
    own = _context(row.setting)
    return _alike(row, rows, lambda r: not r.setting.get("then") and _context(r.setting) == own)


def compressed(row: Row) -> bool:
    """Whether something is compressed: alone or after retrieval."""
    return row.setting.get("kind") == "kv" or bool(row.setting.get("then"))


def _context(setting: dict[str, Any]) -> tuple[Any, ...]:
    params = setting.get("params") or {}
    return setting.get("kind"), setting.get("method"), setting.get("amount"), repr(sorted(params.items()))


def _alike(row: Row, rows: Sequence[Row], wanted: Callable[[Row], bool]) -> Row | None:
    """The wanted row of the same model, thoughts switched alike: of the same prompt if there is one, and made like this
    row if there are several."""
    how = thoughts(row.heads[0])
    same = [r for r in rows if r is not row and r.key[:2] == row.key[:2] and wanted(r)]
    same = [r for r in same if thoughts(r.heads[0]) == how]
    found = [r for r in same if r.prompt == row.prompt] or same
    for alike in (
        lambda r: r.variant == row.variant,
        lambda r: _made(r) == _made(row),
        lambda r: _made(r)[0] == _made(row)[0],
    ):
        if len(found) > 1:
            found = [r for r in found if alike(r)] or found
    return found[0] if len(found) == 1 else None


def _made(row: Row) -> tuple[Any, dict[str, Any]]:
    """Engine and its arguments, without those that name the compression."""
    inputs = row.heads[0].get("fingerprint_inputs") or {}
    args = inputs.get("model_args") or {}
    return inputs.get("engine"), {k: v for k, v in args.items() if k != "kv" and not k.startswith("kv_")}
