"""The setting of a run from its two entries, which must agree: the task's setting string and --model_args kv=..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...context.setting import Setting
from ...errors import IcrError
from .. import kv_vllm

PREFIX = "kv_"
# other arguments that begin alike
NOT_OURS = ("kv_cache_dtype", "kv_cache_memory_bytes", "kv_transfer_config", "kv_offloading_size",
            "kv_offloading_backend", "kv_sharing_fast_prefill", "kv_cache_dtype_skip_layers", "kv_events_config",
            "kv_cache_metrics", "kv_cache_metrics_sample")  # fmt: skip


def from_args(args: Mapping[str, Any]) -> Setting | None:
    """Setting named by kv=METHOD, kv_budget=, kv_split= and kv_<knob>= in model arguments, else by ICR_KV; or None."""
    ours = {k: v for k, v in args.items() if k == "kv" or (k.startswith(PREFIX) and k not in NOT_OURS)}
    if not ours:
        return None if kv_vllm.asked() is None else Setting.parse(str(kv_vllm.asked()))
    if "kv" not in ours:
        raise IcrError(f"{next(iter(ours))}= is given without kv=METHOD, e.g. kv=topk,kv_budget=0.05")
    method = ours.pop("kv")
    if method is None:
        raise IcrError("kv=none is read as nothing by lm_eval; write kv=full, or kv=steady for sink + window only")
    if str(method) == "full":
        if ours:
            raise IcrError(f"kv=full takes no {next(iter(ours))}=")
        return Setting.parse("full")
    if str(method) == kv_vllm.TASK:
        if ours:
            raise IcrError(f"kv=task takes no {next(iter(ours))}=: each task's own setting counts")
        return None
    budget = ours.pop("kv_budget", None)
    text = f"kv:{method}" + ("" if budget is None else f"@{budget}")
    knobs = [f"{name.removeprefix(PREFIX)}={value}" for name, value in ours.items()]
    return Setting.parse(",".join([text, *knobs]))


def agree(asked: Setting | None, args: Setting | None) -> Setting:
    """One setting of both entries; `asked` full (or None) means that the task leaves it to the model arguments."""
    if args is None:
        return asked or Setting.parse("full")
    if asked is not None and asked.kind != "full" and str(asked) != str(args):
        raise IcrError(f"the task's setting {asked} contradicts --model_args ({args}); give only one of them")
    return args


def verify(setting: Setting, found: dict[str, Any]) -> dict[str, Any]:
    """What an engine measured, with an `error` when it did not run the compressed setting that was asked for."""
    if not setting.compressed or setting.method in native() or found.get("error"):
        return found
    if "kv" not in found and kv_vllm.running() is not None:
        found = {**found, "kv": kv_vllm.measured()}
    ran = found.get("kv", {}).get("setting", "full")
    if ran == str(setting):
        return found
    return {
        **found,
        "error": f"the engine ran {ran}, not {setting}; use --model icr-hf, or {kv_vllm.VARIABLE} with vLLM",
    }


def native() -> tuple[str, ...]:
    """Cache types that only vLLM brings."""
    from ...context.setting import KV_NATIVE

    return KV_NATIVE
