"""Compressed decode inside vLLM, as an out-of-tree attention backend; off unless `ICR_KV` names a method.

    ICR_KV=topk@0.05 lm_eval --tasks icr_helmet_rag_8k --model vllm --model_args pretrained=...,enforce_eager=True
    # CUDA: also attention_backend=ICR_KV
    icr-vllm: kv=task follows the setting of each task, so that a sweep needs one engine for all of them

The same methods as in `models/kv`, on vLLM's paged cache: prefill is vLLM's own dense kernel, and each generated token
attends to what the method picks. Nothing is evicted, so prefix caching, chunked prefill and preemption stay valid.
It gathers blocks in PyTorch: what it measures is answers and bytes read, not speed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...errors import IcrError

if TYPE_CHECKING:
    from ...context.setting import Setting

METHODS = ("topk", "page", "steady")
VARIABLE = "ICR_KV"
TASK = "task"


def parse(text: str) -> str:
    """The setting string of `ICR_KV`, canonical. Raises IcrError for a method this backend does not have."""
    from ...context.setting import Setting

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
    from . import counters

    return (counters.told() or None) if follows_task() else asked()


def switch(setting: Setting | None) -> None:
    """Let the workers of an idle engine (kv=task) act on another setting; counts start anew when it differs.

    Raises IcrError for a method this backend does not have.
    """
    from . import counters

    compressed = setting is not None and setting.compressed
    text = parse(str(setting)) if compressed else ""
    if text != counters.told():
        counters.tell(text)


def refuse_scoring(setting: Setting | None) -> None:
    """Raises IcrError for likelihoods under a compressed setting: vLLM scores the whole text in one dense prefill."""
    found = asked() or (str(setting) if follows_task() and setting is not None and setting.compressed else None)
    if found:
        raise IcrError(
            f"likelihoods under {found} would be the uncompressed ones (the engine scores prompt and answer in one dense "
            "prefill); use tasks that generate"
        )


def measured() -> dict[str, Any]:
    """What the engine's workers counted so far, and the setting that ran: `full` when no step was sparse."""
    from . import counters

    found = counters.totals()
    ran = running() if found["sparse_steps"] else None
    if ran is None:
        return {"setting": "full", **found}
    shares = {"read_fraction": found["bytes_read"] / found["bytes_full"],
              "attended_fraction": found["tokens_read"] / found["tokens_full"], "stored_fraction": 1.0}  # fmt: skip
    return {"setting": ran, "scope": "run", **shares, **found}


def prepare(args: dict[str, Any]) -> None:
    """Turn kv=METHOD, kv_budget= ... of model arguments into ICR_KV and the engine's own options, in place."""
    from ..kv import choose

    ours = {
        k: args.pop(k) for k in list(args) if k == "kv" or (k.startswith(choose.PREFIX) and k not in choose.NOT_OURS)
    }
    found = choose.from_args(ours)
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
