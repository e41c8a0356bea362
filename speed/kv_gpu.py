"""A decode step of compressed attention on a GPU, beside the dense step that vLLM would take.

python speed/kv_gpu.py [--cases 32768x1,131072x8]              one layer of Qwen2.5-7B's shape, 16 bits
python speed/kv_gpu.py --engine "full;kv:page@0.05;task"        whole steps of vLLM, random weights of that model

One layer: medians of CUDA graph replays (the device's time) and of separate launches (what an engine without graphs waits
for), bytes by the paper's formula, and their rate as a share of a large copy's. A dense step is FlashAttention's kernel
of vLLM where it is installed, else this package's own kernel over every key. Engines: one a name, with CUDA graphs of
generated tokens; `task` is one engine of kv=task, which has none, under every setting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -P` leaves a script's folder out

import kv_kernels

from icr_tasks.kv import make
from icr_tasks.kv.vllm import paged

MODEL = kv_kernels.Model()
BLOCK, SCALE = 16, MODEL.dim**-0.5
BUDGETS = {"page": 0.05, "topk": 0.05, "steady": None, "snapkv": 0.05}
SETTINGS = ("full", "kv:page@0.05", "kv:topk@0.05", "kv:steady", "kv:keydiff@0.05")
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "vocab_size": 152064,
    "torch_dtype": "bfloat16",
    "eos_token_id": 151643,
}


# ---- one layer -----------------------------------------------------------------------------------


def timed(run: Callable[[], Any], seconds: float = 0.15) -> float:
    """Median milliseconds of a call on the device, by events."""
    run()
    torch.cuda.synchronize()
    found: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(found) < 5:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last))
    return statistics.median(found)


def replayed(run: Callable[[], Any], times: int = 4) -> float:
    """As `timed`, of one call inside a recorded graph of several."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            run()
    return timed(graph.replay) / times


def copy_rate() -> float:
    """Bytes a second of a large copy, read and written."""
    left, right = (torch.empty(2**30, dtype=torch.int32, device="cuda") for _ in range(2))
    return 2 * left.nbytes / timed(lambda: right.copy_(left)) * 1e3


def dense_of_vllm(
    whole: Any, tables: Any, query: Any, lengths: Any, longest: int
) -> Callable[[], Any] | None:
    """FlashAttention's step over the same cache, or None without vLLM."""
    try:
        from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func, get_flash_attn_version
    except ImportError:
        return None
    keys, values = whole.transpose(1, 2).split(MODEL.dim, -1)
    rows = len(lengths)
    asked, out = query.view(rows, MODEL.heads, MODEL.dim), torch.empty_like(query).view(rows, MODEL.heads, -1)
    starts = torch.arange(rows + 1, dtype=torch.int32, device="cuda")
    version: Any = get_flash_attn_version()
    return lambda: flash_attn_varlen_func(
        q=asked,
        k=keys,
        v=values,
        out=out,
        cu_seqlens_q=starts,
        max_seqlen_q=1,
        seqused_k=lengths,
        max_seqlen_k=longest,
        softmax_scale=SCALE,
        causal=True,
        block_table=tables,
        fa_version=version,
    )


def layer(n: int, rows: int, rate: float) -> Iterator[str]:
    """Lines of the table for sequences of n tokens."""
    each = -(-n // BLOCK)
    shape = (rows * each, MODEL.kv_heads, BLOCK, 2 * MODEL.dim)
    whole = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
    keys, values = whole.transpose(1, 2).split(MODEL.dim, -1)
    cache = paged.Cache(keys, values, BLOCK)
    for first in range(0, rows * n, 2**16):
        cache.wrote(torch.arange(first, min(first + 2**16, rows * n), device="cuda"))
    tables = torch.randperm(rows * each, device="cuda").int().view(rows, each)
    query = torch.randn(
        rows, MODEL.kv_heads, MODEL.heads // MODEL.kv_heads, MODEL.dim, dtype=torch.bfloat16, device="cuda"
    )
    lengths = torch.full((rows,), n, dtype=torch.int32, device="cuda")
    every = paged.Batch.of([paged.Share(n, 0, 0, 0, 1)] * rows, tables)
    ways: dict[str, Callable[[], Any]] = {"dense (own)": lambda: paged.decode(cache, query, every, SCALE)}
    if theirs := dense_of_vllm(whole, tables, query, lengths, n):
        ways = {"dense (vLLM)": theirs, **ways}
        worst = (theirs().float() - ways["dense (own)"]().view(rows, MODEL.heads, -1).float()).abs().max()
        print(f"largest difference of the two dense steps: {float(worst):.1e}")
    for name, budget in BUDGETS.items():
        if name == "snapkv":
            share = paged.Share(n, 0, int(0.05 * n), n - 1, 1)
            kept = (
                torch.rand(rows, MODEL.kv_heads, n - 1, device="cuda")
                .topk(share.chosen)
                .indices.sort()
                .values.int()
            )
        else:
            method = make(name, budget, {"update": 64} if name == "topk" else {})
            share, kept = paged.share(method, n - 1, n), None
        batch = paged.Batch.of([share] * rows, tables)
        ways[name] = partial(paged.decode, cache, query, batch, SCALE, kept)
    dense = 0.0
    for name, run in ways.items():
        inside, apart = replayed(run), timed(run)
        dense = dense or inside
        moved = kv_kernels.step(MODEL, name.split()[0], n)[0] / MODEL.layers * rows
        yield (
            f"| {name} | {n // 1024}k | {rows} | {moved / 1e6:.1f} | {inside:.3f} | {apart:.3f} | "
            f"{moved / inside / rate * 1e5:.0f} % | {dense / inside:.1f} |"
        )


# ---- vLLM ----------------------------------------------------------------------------------------


def engine(name: str, cases: list[tuple[int, int]]) -> Iterator[str]:
    """Lines of the table: milliseconds of a whole step of an engine of this setting, or of kv=task."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from icr_tasks.kv.vllm.state import EngineState
    from icr_tasks.settings import Setting

    folder = tempfile.mkdtemp()
    Path(folder, "config.json").write_text(json.dumps(QWEN))
    args: dict[str, Any] = {
        "model": folder,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "max_model_len": max(n for n, _ in cases) + 1024,
        "num_gpu_blocks_override": (max(n * rows for n, rows in cases) + 16384) // BLOCK,
        "max_num_seqs": max(rows for _, rows in cases),
        "gpu_memory_utilization": 0.8,
    }
    if name == "full":
        args["compilation_config"] = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    else:
        args["kv"] = name if name == "task" else str(Setting.parse(name).kv).removeprefix("kv:")
    state = EngineState(args)
    with state.starting():
        llm = LLM(**args)
    gen = torch.Generator().manual_seed(0)

    def took(prompts: list[Any], new: int) -> float:
        params = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True, detokenize=False)
        start = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start

    for n, rows in cases:
        ids = torch.randint(10, 150000, (rows, n), generator=gen).tolist()
        prompts = [TokensPrompt(prompt_token_ids=one) for one in ids]
        prefill = took(prompts, 1)
        for text in SETTINGS if name == "task" else (name,):
            if name == "task":
                state.switch(Setting.parse(text))
            took(prompts, 5)
            each = [(took(prompts, 65) - took(prompts, 1)) / 64 * 1e3 for _ in range(3)]
            label = f"{text}, no graphs" if name == "task" else text
            yield (
                f"| {label} | {n // 1024}k | {rows} | {statistics.median(each):.2f} | "
                f"{min(each):.2f} to {max(each):.2f} | {prefill:.1f} |"
            )


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", default="32768x1,32768x8,131072x1,131072x8", help="tokens of a sequence x sequences"
    )
    parser.add_argument("--engine", metavar="SETTINGS", help="full, task or settings, with ; between them")
    given = parser.parse_args()
    cases = [(int(n), int(rows)) for n, _, rows in (text.partition("x") for text in given.cases.split(","))]
    if given.engine:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        print(
            "| setting | context | batch | ms a step | range of three | prefill (s) |\n"
            "|---|---:|---:|---:|---:|---:|"
        )
        for name in given.engine.split(";"):
            for line in engine(name, cases):
                print(line, flush=True)
        return
    rate = copy_rate()
    print(f"{torch.cuda.get_device_name()}: a large copy moves {rate / 1e12:.2f} TB/s")
    print(
        "| method | context | batch | MB by formula | ms in a graph | ms launched | of the copy's rate | dense / this |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for n, rows in cases:
        for line in layer(n, rows, rate):
            print(line, flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
