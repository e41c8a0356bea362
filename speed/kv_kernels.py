"""Compile the sparse kernels for GPUs that are not here, and print what ptxas gives them.

python speed/kv_kernels.py [--targets 80,90,100] [--dims 64,128,256]      registers, shared memory, spills
python speed/kv_kernels.py --roofline                                     bytes and launches a step, on paper
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# ---- compiling -----------------------------------------------------------------------------------

POINTERS = {
    "extremes_kernel": {"keys": "*bf16", "slots": "*i64", "low": "*bf16", "high": "*bf16"},
    "bound_kernel": {"query": "*bf16", "low": "*bf16", "high": "*bf16", "out": "*fp32"},
    "choose_kernel": {"bounds": "*fp32", "out": "*i32"},
    "score_kernel": {"query": "*bf16", "keys": "*bf16", "out": "*fp32"},
    "decode_kernel": {
        "query": "*bf16",
        "keys": "*bf16",
        "values": "*bf16",
        "part_out": "*fp32",
        "part_top": "*fp32",
        "part_sum": "*fp32",
    },
    "merge_kernel": {"part_out": "*fp32", "part_top": "*fp32", "part_sum": "*fp32", "out": "*bf16"},
}
TABLES = ("tables", "lengths", "first", "last", "heads_pages", "chosen", "n_chosen", "tails", "wanted")


def sizes(dim: int) -> dict[str, Any]:
    """The constants of a model with a query group of 7 (Qwen2.5-7B's) over blocks and pages of 16."""
    return {
        "HEADS": 4,
        "GROUP": 7,
        "ROWS": 16,
        "DIM": dim,
        "WIDTH": 1 << (dim - 1).bit_length(),
        "BLOCK": 16,
        "PAGE": 16,
        "PAGES": 64,
        "TOKENS": 64,
        "SPLITS": 64,
        "ENTRIES": 8192,
        "UPCAST": False,
    }


def build(name: str, capability: int, dim: int) -> Any:
    """A kernel, compiled: `asm["cubin"]` is the machine code, `metadata.shared` its bytes of shared
    memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from icr_tasks.kv.vllm import kernels

    kernel = getattr(kernels, name)
    constants = {k: v for k, v in sizes(dim).items() if k in kernel.arg_names}
    signature = {}
    for argument in kernel.arg_names:
        kind = POINTERS[name].get(argument) or ("*i32" if argument in TABLES else "i32")
        signature[argument] = (
            "constexpr" if argument in constants else "fp32" if argument == "scale" else kind
        )
    # torch's memory and a cache's rows start at multiples of 16 bytes
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, a in enumerate(kernel.arg_names) if _aligned(a, signature[a])
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": 16} if name == "choose_kernel" else {}  # as `paged.best` launches so many entries
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _aligned(argument: str, kind: str) -> bool:
    return kind.startswith("*") or re.fullmatch(r"stride_(value_)?(block|token|head)", argument) is not None


def usage(kernel: Any) -> dict[str, int]:
    """What `cuobjdump -res-usage` says of registers a thread and bytes of stack and spills (LOCAL), and the
    shared memory that a launch asks for."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(kernel.asm["cubin"])
        done = subprocess.run(
            [str(tool), "-res-usage", str(file)], capture_output=True, text=True, check=True
        )
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", done.stdout + done.stderr))
    return {name: int(value) for name, value in found.items()} | {"SHARED": int(kernel.metadata.shared)}


def compiled(targets: list[int], dims: list[int]) -> Iterator[str]:
    """Lines of a table, one a kernel, target and head size. A spill shows as stack or local memory."""
    yield "| kernel | sm | head size | registers | shared bytes | stack + local bytes |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name in POINTERS:
        for capability in targets:
            for dim in dims:
                found = usage(build(name, capability, dim))
                spilled = found["STACK"] + found["LOCAL"]
                yield f"| {name} | {capability} | {dim} | {found['REG']} | {found['SHARED']} | {spilled} |"


# ---- on paper ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """What a decode step moves; Qwen2.5-7B by default, on an H100 of 3.35 TB/s, all in 16 bits."""

    layers: int = 28
    heads: int = 28
    kv_heads: int = 4
    dim: int = 128
    weights: float = 15.2e9
    bandwidth: float = 3.35e12


def step(model: Model, method: str, n: int, budget: float = 0.05, page: int = 16) -> tuple[float, int]:
    """Bytes of one sequence's step over all layers, and launches of a whole step (whatever the batch)."""
    row = model.kv_heads * model.dim * 2  # a token's keys, or its values
    near = 4 + 64 + 2 * page
    scores = {"page": n / page, "topk": n}.get(method, 0.0) * model.heads * 4
    read = {
        "dense": 2 * row * n,
        "page": 2 * row * (near + budget * n) + 2 * row * n / page,
        "topk": 2 * row * (near + budget * n) + row * n,
        "steady": 2 * row * near,
        "snapkv": 2 * row * budget * n,
    }[method]
    # written by the scoring kernel and read where the best are chosen; more than 16384 (`paged.ENTRIES`) go through a
    # softmax and a sum over the group
    moved = read + (2 if method == "page" and n / page <= 16384 else 4) * scores
    # write of the cache and dense kernel; or extremes, scores, choice (of many tokens: softmax, sum, mask (3), top-k), decode,
    # merge
    launches = {"dense": 2, "page": 6, "topk": 12, "steady": 3, "snapkv": 3}[method]
    return moved * model.layers, launches * model.layers


def roofline(model: Model) -> Iterator[str]:
    """Lines of a table: bytes of keys, values and ranking a step, and the least time with the weights."""
    yield "| method | context | batch | KV bytes a step (GB) | launches a step | floor (ms) | dense / this |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for n in (32768, 131072):
        for batch in (1, 8):
            dense = 0.0
            for method in ("dense", "page", "topk", "steady", "snapkv"):
                each, launches = step(model, method, n)
                floor = (model.weights + each * batch) / model.bandwidth * 1e3
                dense = dense or floor
                yield (
                    f"| {method} | {n // 1024}k | {batch} | {each * batch / 1e9:.2f} | {launches} | "
                    f"{floor:.1f} | "
                    f"{dense / floor:.1f} |"
                )


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default="80,90,100")
    parser.add_argument("--dims", default="64,128,256")
    parser.add_argument("--roofline", action="store_true")
    given = parser.parse_args()
    os.environ.pop("TRITON_INTERPRET", None)  # the interpreter's kernels cannot be compiled
    numbers = [[int(x) for x in text.split(",")] for text in (given.targets, given.dims)]
    for line in roofline(Model()) if given.roofline else compiled(*numbers):
        print(line, flush=True)


if __name__ == "__main__":
    main()
