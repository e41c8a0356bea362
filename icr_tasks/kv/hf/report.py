"""Measurements of one item, beside the formula that predicts them. "Stores" and "reads" are different columns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .session import Session


def report(
    session: Session, row: int, stored: int, cache: Any, timing: dict[str, float], peak: int
) -> dict[str, Any]:
    """The digest's `kv` field.

    Bytes are sums over the full-attention layers of keys and values (and of the index where named); what other layers
    keep (windows, linear states) is `bytes_other_layers`. `tokens` is the length that was compressed; `steps` the decode
    steps after it (question tokens included in a query-agnostic run). `read_fraction` = bytes read / bytes full attention
    would have read in the same steps; `attended_fraction` = the same in tokens. Times are those of the whole batch.
    """
    tally, method = session.tallies[row], session.method
    shapes = [shape(cache.layers[i]) for i in session.where]
    layers = len(shapes)
    per_token = sum(2 * heads * dim * item for heads, dim, item in shapes)
    steps, n = tally.steps, tally.prompt
    later = per_token * (steps - 1) / 2  # each step reads one more generated token
    full_read = per_token * (n + 1) + later
    found: dict[str, Any] = {
        "method": "full" if method is None else method.name,
        "frees": bool(method and method.frees),
        "tokens": n,
        "tokens_stored": tally.kept,
        "fallback": _fallback(session, row),
        "steps": steps,
        "sparse_steps": tally.sparse_steps,
        "bytes_full_per_token": per_token,
        "bytes_stored_per_token": round(stored / n, 2),
        "stored_fraction": _share(stored, per_token * n),
        "index_bytes": tally.index_bytes,
        "build_seconds": round(tally.build_seconds, 6),
        "bytes_read_per_step": round(tally.bytes_read / steps) if steps else None,
        "read_fraction": _share(tally.bytes_read, steps * full_read),
        "attended_fraction": _share(tally.tokens_read, layers * steps * (n + 1 + (steps - 1) / 2)),
        "mass_kept": round(sum(tally.masses) / len(tally.masses), 6) if tally.masses else None,
        "peak_memory_bytes": peak,
        "prefill_tokens_per_s": round(sum(t.prompt for t in session.tallies) / timing["prefill"], 2),
        "decode_tokens_per_s": round(sum(t.steps for t in session.tallies) / timing["decode"], 2)
        if steps and timing["decode"]
        else None,
    }
    if session.prefill is not None:
        found |= session.prefill.report()
    if tally.compressions:
        found["compressions"] = tally.compressions
    if len(cache.layers) > layers:
        found["full_layers"], found["layers"] = layers, len(cache.layers)
        found["bytes_other_layers"] = sum(
            held(layer) for i, layer in enumerate(cache.layers) if i not in session.where
        )
    found["formula"] = _formula(session, row, shapes, later)
    return found


def shape(layer: Any) -> tuple[int, int, int]:
    """(KV heads, mean of the dimensions of keys and values, bytes of a number) of a layer's cache."""
    keys, values = layer.keys, layer.values
    return keys.shape[1], (keys.shape[3] + values.shape[3]) // 2, getattr(layer, "item", keys.element_size())


def _fallback(session: Session, row: int) -> bool:
    """A prompt that was read in full: too short, or one of which the budget kept every token. A press that keeps
    everything is none."""
    tally, method = session.tallies[row], session.method
    if tally.sparse_steps or (session.prefill and session.prefill.computed < session.prefill.all):
        return False
    kept_all = tally.steps and method and not hasattr(method, "press") and tally.whole == tally.steps
    return tally.fallback or bool(kept_all)


def _share(part: float, whole: float) -> float | None:
    """None where there is nothing to have a share of: no step, or no full-attention layer."""
    return round(part / whole, 6) if whole else None


def held(layer: Any) -> int:
    """Bytes of everything a layer keeps."""
    parts = [getattr(layer, "keys", None), getattr(layer, "values", None)]
    for states in ("conv_states", "recurrent_states"):
        parts += list((getattr(layer, states, None) or {}).values())
    return sum(t.numel() * t.element_size() for t in parts if isinstance(t, torch.Tensor))


def _formula(session: Session, row: int, shapes: list[tuple[int, int, int]], later: float) -> dict[str, Any]:
    tally, method = session.tallies[row], session.method
    n, total = tally.prompt, {"stored": 0.0, "read": 0.0, "index": 0.0}
    for layer, (heads, dim, item) in enumerate(shapes):
        each = 2 * heads * dim * item
        nominal = {"stored": each * n, "read": each * (n + 1), "index": 0}
        if method is not None and not tally.fallback and layer >= method.dense:
            nominal = method.formula(n, heads, dim, item)  # type: ignore[assignment]
        total = {name: total[name] + nominal[name] for name in total}
    grows = 1.0 if method is None or tally.fallback else getattr(method, "grows", 1.0)
    return {
        "bytes_stored_per_token": round(total["stored"] / n, 2),
        "bytes_read_per_step": round(total["read"] + later * grows) if tally.steps else None,
        "index_bytes": round(total["index"]),
    }


# ---- memory --------------------------------------------------------------------------------------
# Peak memory of a stretch of work: GPU allocations, or this process's resident set on Linux.


def reset_peak(device: torch.device) -> None:
    """Start a new peak. On a system without /proc the peak stays that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes(device: torch.device) -> int:
    """Peak bytes since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
