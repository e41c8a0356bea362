"""One decode step of attention, full against each KV method, in one run: milliseconds, bytes, index cost.

    python speed/kv_decode.py --contexts 4k,16k,64k            # one Qwen2.5-7B-shaped layer
    python speed/kv_decode.py --model --contexts 4k            # a whole small model (random weights)

`full (sdpa)` is what stock transformers runs; `full (grouped)` is icr-hf's own dense step on a CPU (the query
group as rows), which evictors take as well. On a CPU seconds are processor time of one thread, so
that a busy machine does not change them much; on a GPU they are wall time. Keys drift slowly like those of
text; speeds depend on them only through cluster sizes.
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
SETTINGS = ("kv:cluster", "kv:page@0.018", "kv:topk@0.018", "kv:steady", "kv:snapkv@0.25")


def method(setting: str) -> Any:
    """The method of a setting string."""
    parsed = Setting.parse(setting)
    return make(str(parsed.method), parsed.amount, dict(parsed.extra))


def clock(device: str) -> Callable[[], float]:
    """Seconds that other processes do not add to."""
    if device == "cpu":
        return time.process_time
    return lambda: (torch.cuda.synchronize(), time.perf_counter())[1]


def best(run: Callable[[], Any], now: Callable[[], float], seconds: float = 1.0) -> float:
    """Least seconds of one call, over calls worth about `seconds`."""
    run()
    found: list[float] = []
    while sum(found) < seconds and len(found) < 200:
        start = now()
        run()
        found.append(now() - start)
    return min(found)


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
    whole = 2 * keys.numel() * keys.element_size()
    full = best(lambda: full_sdpa(query, keys, values, scale), now)
    grouped = best(lambda: full_grouped(query, keys, values, scale), now)
    rows = [
        {"n": n, "setting": "full (sdpa)", "ms": full * 1e3, "stored": whole, "read": whole},
        {"n": n, "setting": "full (grouped)", "ms": grouped * 1e3, "stored": whole, "read": whole},
    ]
    for setting in SETTINGS + (
        ("kv:cluster,build=fast", "kv:cluster,build=naive") if naive else ("kv:cluster,build=fast",)
    ):
        rows.append(_row(setting, keys, values, query, scale, now) | {"n": n})
    for row in rows:
        row["x"], row["x_grouped"] = full * 1e3 / row["ms"], grouped * 1e3 / row["ms"]
        saved = full - row["ms"] / 1e3
        row["even"] = row["build"] / saved if row.get("build") and saved > 0 else None
    return rows


def _row(
    setting: str,
    keys: torch.Tensor,
    values: torch.Tensor,
    query: torch.Tensor,
    scale: float,
    now: Callable[[], float],
) -> dict[str, Any]:
    chosen = method(setting)
    if chosen.frees:
        tail = torch.randn(KV_HEADS, HEADS // KV_HEADS, max(chosen.needs_queries, 1), DIM).to(keys)
        start = now()
        at = chosen.keep(keys, values, tail, scale).unsqueeze(-1).expand(-1, -1, DIM)
        kept_k, kept_v = keys.gather(1, at), values.gather(1, at)
        build = now() - start
        size = 2 * kept_k.numel() * kept_k.element_size()
        ms = best(lambda: full_grouped(query, kept_k, kept_v, scale), now) * 1e3
        return {"setting": setting, "ms": ms, "stored": size, "read": size, "build": build}
    start = now()
    zone = chosen.prepare(keys, values)
    build = now() - start
    done = chosen.attend(query, keys, values, zone, scale)
    ms = best(lambda: chosen.attend(query, keys, values, zone, scale), now) * 1e3
    stored = 2 * keys.numel() * keys.element_size() + chosen.index_bytes(zone)
    return {"setting": setting, "ms": ms, "stored": stored, "read": done.bytes_read, "build": build}


def show(rows: list[dict[str, Any]]) -> str:
    """A markdown table."""
    lines = [
        "| context | setting | ms/step | x sdpa | x grouped | MB read/step | MB stored | build s | pays "
        "off after |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        even = f"{r['even']:.0f} tokens" if r.get("even") else ""
        build = f"{r['build']:.2f}" if r.get("build") is not None else ""
        lines.append(
            f"| {r['n'] // 1024}k | {r['setting']} | {r['ms']:.2f} | {r['x']:.1f} | {r['x_grouped']:.1f} | "
            f"{r['read'] / 1e6:.2f} | {r['stored'] / 1e6:.1f} | {build} | {even} |"
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
    parser.add_argument("--naive", action="store_true", help="also time the naive index build")
    parser.add_argument("--model", action="store_true", help="a whole small model instead of one layer")
    args = parser.parse_args()
    lengths = [parse_tokens(c) for c in args.contexts.split(",")]
    if args.device == "cpu":
        torch.set_num_threads(1)
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
