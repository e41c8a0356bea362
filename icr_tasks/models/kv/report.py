"""Measurements of one item, beside the formula that predicts them. "Stores" and "reads" are different columns."""

from __future__ import annotations

from typing import Any

from .session import Session


def report(session: Session, row: int, stored: int, cache: Any, timing: dict[str, float], peak: int) -> dict[str, Any]:
    """The digest's `kv` field.

    Bytes are sums over layers of keys and values (and of the index where named). `tokens` is the length that was
    compressed; `steps` the decode steps after it (question tokens included in a query-agnostic run).
    `read_fraction` = bytes read / bytes full attention would have read in the same steps; `attended_fraction` = the
    same in tokens. Times are those of the whole batch.
    """
    tally, method = session.tallies[row], session.method
    layer = cache.layers[0]
    heads, dim, item = layer.keys.shape[1], layer.keys.shape[3], layer.keys.element_size()
    per_token = 2 * heads * dim * item * session.layers
    steps, n = tally.steps, tally.prompt
    later = per_token * (steps - 1) / 2  # each step reads one more generated token
    full_read = per_token * (n + 1) + later
    found: dict[str, Any] = {
        "method": "full" if method is None else method.name,
        "frees": bool(method and method.frees),
        "tokens": n,
        "tokens_stored": tally.kept,
        "fallback": tally.fallback,
        "steps": steps,
        "sparse_steps": tally.sparse_steps,
        "bytes_full_per_token": per_token,
        "bytes_stored_per_token": round(stored / n, 2),
        "stored_fraction": round(stored / (per_token * n), 6),
        "index_bytes": tally.index_bytes,
        "build_seconds": round(tally.build_seconds, 6),
        "bytes_read_per_step": round(tally.bytes_read / steps) if steps else None,
        "read_fraction": round(tally.bytes_read / (steps * full_read), 6) if steps else None,
        "attended_fraction": round(tally.tokens_read / (session.layers * steps * full_read / per_token), 6) if steps else None,
        "mass_kept": round(sum(tally.masses) / len(tally.masses), 6) if tally.masses else None,
        "peak_memory_bytes": peak,
        "prefill_tokens_per_s": round(sum(t.prompt for t in session.tallies) / timing["prefill"], 2),
        "decode_tokens_per_s": round(sum(t.steps for t in session.tallies) / timing["decode"], 2) if steps and timing["decode"] else None,
    }  # fmt: skip
    if method is not None and not tally.fallback:
        nominal = method.formula(n, heads, dim, item)
    else:
        each = 2 * heads * dim * item
        nominal = {"stored": each * n, "read": each * (n + 1), "index": 0}
    found["formula"] = {
        "bytes_stored_per_token": round(nominal["stored"] * session.layers / n, 2),
        "bytes_read_per_step": round(nominal["read"] * session.layers + later) if steps else None,
        "index_bytes": round(nominal["index"] * session.layers),
    }
    return found
