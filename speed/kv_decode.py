"""One decode step of attention, full against each KV method, in one run: milliseconds, bytes, index cost.

    python speed/kv_decode.py --contexts 4k,16k,64k            # one Qwen2.5-7B-shaped layer, one thread
    python speed/kv_decode.py --contexts 64k --threads 2       # the same on two threads
    python speed/kv_decode.py --model --contexts 4k            # a whole small model (random weights)

`full (sdpa)` is what stock transformers runs; `full (grouped)` is icr-hf's own dense step on a CPU (the query
group as rows), which evictors take as well. On a CPU seconds are processor time of one thread, so
that a busy machine does not change them much; with more threads, and on a GPU, they are wall time. Warm: calls follow
each other, so that what a sparse step reads may still lie in the caches. Cold: a buffer larger than the caches is
written before each call, as other layers do in a model. `of bytes` is the speed against full (grouped), cold, as a
share of the bytes that full reads over the bytes that the step reads. The index is built apart. Keys drift slowly like
those of text; speeds depend on them only through cluster sizes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch

from icr_tasks.kv import make
from icr_tasks.kv.hf import attention
from icr_tasks.settings import Setting, parse_tokens

HEADS, KV_HEADS, DIM = 28, 4, 128  # Qwen2.5-7B
_FLUSH = 256 << 20  # bytes written before a cold call: more than the caches of a processor hold
SETTINGS = ("kv:cluster", "kv:page@0.018", "kv:topk@0.018", "kv:steady", "kv:snapkv@0.25")


def method(setting: str) -> Any:
    """The method of a setting string."""
    parsed = Setting.parse(setting)
    return make(str(parsed.method), parsed.amount, dict(parsed.extra))


def clock(device: str) -> Callable[[], float]:
    """Seconds: of the processor for one thread, which other processes do not add to, else of the clock on the wall."""
    if device == "cpu":
        return time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    return lambda: (torch.cuda.synchronize(), time.perf_counter())[1]


def best(
    run: Callable[[], Any],
    now: Callable[[], float],
    seconds: float = 1.0,
    before: Callable[[], Any] | None = None,
) -> float:
    """Least seconds of one call, over calls worth about `seconds`; `before` each of them runs untimed."""
    run()
    found: list[float] = []
    while sum(found) < seconds and len(found) < 200:
        if before is not None:
            before()
        start = now()
        run()
        found.append(now() - start)
    return min(found)


def timed(run: Callable[[], Any], now: Callable[[], float], flush: torch.Tensor) -> dict[str, float]:
    """Milliseconds of one call, warm and after `flush` went through the caches."""
    return {"ms": best(run, now) * 1e3, "cold": best(run, now, before=lambda: flush.add_(1)) * 1e3}


def keys_like_text(n: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    """(KV_HEADS, n, DIM): a topic every 64 tokens plus noise."""
    torch.manual_seed(0)
    topic = torch.randn(KV_HEADS, -(-n // 64), DIM).repeat_interleave(64, 1)[:, :n]
    return (topic + 0.8 * torch.randn(KV_HEADS, n, DIM)).to(device, dtype)


def full_sdpa(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Stock transformers: sdpa with grouped heads, no mask."""
    q = query.reshape(1, HEADS, 1, DIM)
    return torch.nn.functional.scaled_dot_product_attention(
        q, keys[None], values[None], scale=scale, enable_gqa=True
    )


def full_grouped(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """The dense step of icr-hf on a CPU: the query group as rows, so that each key and value is read once."""
    rows = query.reshape(1, HEADS, 1, DIM)
    return attention._one_query(rows, keys[None], values[None], None, scale)


@torch.inference_mode()
def layer(n: int, device: str, dtype: torch.dtype, naive: bool) -> list[dict[str, Any]]:
    """Rows of one context length."""
    now, scale = clock(device), DIM**-0.5
    keys, values = keys_like_text(n, device, dtype), keys_like_text(n, device, dtype).flip(1)
    query = torch.randn(KV_HEADS, HEADS // KV_HEADS, DIM).to(device, dtype)
    flush = torch.zeros(_FLUSH >> 2, device=device)
    whole = 2 * keys.numel() * keys.element_size()
    size = {"n": n, "stored": whole, "read": whole}
    full = timed(lambda: full_sdpa(query, keys, values, scale), now, flush)
    grouped = timed(lambda: full_grouped(query, keys, values, scale), now, flush)
    rows: list[dict[str, Any]] = [
        size | {"setting": "full (sdpa)"} | full,
        size | {"setting": "full (grouped)"} | grouped,
    ]
    for setting in SETTINGS + (
        ("kv:cluster,build=fast", "kv:cluster,build=naive") if naive else ("kv:cluster,build=fast",)
    ):
        rows.append(_row(setting, keys, values, query, scale, now, flush) | {"n": n})
    for row in rows:
        row["x"], row["x_grouped"] = full["ms"] / row["ms"], grouped["ms"] / row["ms"]
        row["x_cold"] = grouped["cold"] / row["cold"]
        row["of_bytes"] = row["x_cold"] * row["read"] / whole
        saved = (grouped["ms"] - row["ms"]) / 1e3
        row["even"] = row["build"] / saved if row.get("build") and saved > 0 else None
    return rows


def _row(
    setting: str,
    keys: torch.Tensor,
    values: torch.Tensor,
    query: torch.Tensor,
    scale: float,
    now: Callable[[], float],
    flush: torch.Tensor,
) -> dict[str, Any]:
    chosen = method(setting)
    if chosen.frees:
        tail = torch.randn(KV_HEADS, HEADS // KV_HEADS, max(chosen.needs_queries, 1), DIM).to(keys)
        start = now()
        at = chosen.keep(keys, values, tail, scale).unsqueeze(-1).expand(-1, -1, DIM)
        kept_k, kept_v = keys.gather(1, at), values.gather(1, at)
        build = now() - start
        size = 2 * kept_k.numel() * kept_k.element_size()
        times = timed(lambda: full_grouped(query, kept_k, kept_v, scale), now, flush)
        return {"setting": setting, "stored": size, "read": size, "build": build} | times
    start = now()
    zone = chosen.prepare(keys, values)
    build = now() - start
    done = chosen.attend(query, keys, values, zone, scale)
    times = timed(lambda: chosen.attend(query, keys, values, zone, scale), now, flush)
    stored = 2 * keys.numel() * keys.element_size() + chosen.index_bytes(zone)
    return {"setting": setting, "stored": stored, "read": done.bytes_read, "build": build} | times


def show(rows: list[dict[str, Any]]) -> str:
    """A markdown table."""
    lines = [
        "| context | setting | warm ms | cold ms | x sdpa | x grouped | x grouped, cold | of bytes | MB read | MB stored "
        "| build s | pays off after |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        even = f"{r['even']:.0f} tokens" if r.get("even") else ""
        build = f"{r['build']:.2f}" if r.get("build") is not None else ""
        lines.append(
            f"| {r['n'] // 1024}k | {r['setting']} | {r['ms']:.2f} | {r['cold']:.2f} | {r['x']:.1f} | "
            f"{r['x_grouped']:.1f} | {r['x_cold']:.1f} | {r['of_bytes']:.0%} | {r['read'] / 1e6:.2f} | "
            f"{r['stored'] / 1e6:.1f} | {build} | {even} |"
        )
    return "\n".join(lines)


@torch.inference_mode()
def whole_model(n: int, device: str) -> str:
    """Prefill and decode of a small Llama with random weights, through icr-hf's own loop."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from icr_tasks.kv.hf import decode

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=HEADS // 7,
        num_key_value_heads=2,
        head_dim=DIM,
        max_position_embeddings=1 << 20,
    )
    model = LlamaForCausalLM(config).eval().to(device)
    model.set_attn_implementation(attention.register())
    ids = torch.randint(0, 1000, (n,)).tolist()
    lines = [
        "| context | setting | prefill tok/s | decode tok/s | read | stored |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for setting in ("full", *SETTINGS):
        chosen = None if setting == "full" else method(setting)
        job = decode.Job([ids], 33, frozenset())
        kv = decode.generate(model, job, chosen)[0].kv
        lines.append(
            f"| {n // 1024}k | {setting} | {kv['prefill_tokens_per_s']:.0f} | "
            f"{kv['decode_tokens_per_s']:.1f} | "
            f"{kv['read_fraction']:.1%} | {kv['stored_fraction']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contexts", default="4k,16k,64k")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default 1)")
    parser.add_argument("--naive", action="store_true", help="also time the naive index build")
    parser.add_argument("--model", action="store_true", help="a whole small model instead of one layer")
    args = parser.parse_args()
    lengths = [parse_tokens(c) for c in args.contexts.split(",")]
    if args.device == "cpu":
        torch.set_num_threads(args.threads)
    if args.model:
        print("\n".join(whole_model(n, args.device) for n in lengths))
        return
    dtype = getattr(torch, args.dtype or ("float32" if args.device == "cpu" else "bfloat16"))
    print(show([row for n in lengths for row in layer(n, args.device, dtype, args.naive)]))
    peak = (
        torch.cuda.max_memory_allocated()
        if args.device == "cuda"
        else 1024 * getrusage(RUSAGE_SELF).ru_maxrss
    )
    print(f"\npeak memory of all of it: {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
