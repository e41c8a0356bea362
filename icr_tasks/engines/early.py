"""What an engine's arguments and its model's configuration rule out of a setting: said before weights load."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from .. import hub
from ..errors import IcrError
from ..kv import choose
from ..kv.prefill import BLOCK
from ..settings import Setting

log = logging.getLogger("icr_tasks")
DENSE = ("hf", "hf-auto", "huggingface")  # engines in this process that read their whole cache
_VLLM = ("vllm", "icr-vllm")
_GREEDY = {"do_sample", "temperature", "top_p", "top_k", "until", "max_gen_toks"}  # arguments of icr-hf
_NAMED = ("revision", "subfolder", "trust_remote_code", "token")


def refuse(engine: str, setting: Setting, args: Mapping[str, Any]) -> None:
    """Raises IcrError where the engine of that name, with these arguments, cannot run the setting."""
    if engine in (*DENSE, "icr-hf"):
        no_cache_type(engine, args)
    stock(engine, setting)
    if engine not in (*DENSE, *_VLLM, "icr-hf"):
        return
    inert(setting)
    if engine == "icr-hf":
        rules_of_hf(setting, bool(args.get("compress_once")), int(args.get("prefill_chunk") or BLOCK))
    if engine in _VLLM and find_spec("vllm") is not None:
        _vllm(engine, setting, args)
    own = setting if setting.kind == "kv" else setting.then
    if own is None or (config := configuration(args)) is None:
        return
    from ..kv.hf import models  # brings torch and transformers

    models.refuse_native(setting, config, str(config.model_type))
    if engine == "icr-hf":
        models.refuse(setting, config)
    elif setting.kv is not None and setting.kv.method not in choose.native():
        models.refuse_in_vllm(setting, config)


def stock(engine: str, setting: Setting) -> None:
    """Raises IcrError for compression in an engine of lm-eval that reads its whole cache."""
    if engine in DENSE or engine == "vllm" and choose.asked() is None:
        no_compression(setting, f"the KV cache, which --model {engine} keeps and reads whole")


def no_compression(setting: Setting, why: str) -> None:
    """Raises IcrError for a setting that compresses, other than by a cache type of the engine's own."""
    kv = setting.kv
    if kv is None or kv.method in choose.native():
        return
    left = f", or unset {choose.VARIABLE}" if os.environ.get(choose.VARIABLE) else ""
    other = f", or {choose.VARIABLE}={str(kv).removeprefix('kv:')} with --model vllm"
    other = "" if left or kv.method not in choose.METHODS else other
    raise IcrError(f"setting {setting} compresses {why}: use --model icr-hf or icr-vllm{other}{left}")


def no_cache_type(engine: str, args: Mapping[str, Any]) -> None:
    """Raises IcrError for a type of the cache, which transformers does not take."""
    if (dtype := args.get("kv_cache_dtype")) not in (None, "auto"):
        raise IcrError(
            f"kv_cache_dtype={dtype} is an option of vLLM, which --model {engine} does not have: leave it out (kv:kivi "
            "in icr-hf stores 4 or 2 bits), or use --model vllm or icr-vllm"
        )


def inert(setting: Setting) -> None:
    """Raises IcrError for a budget of everything, under which nothing can be left out."""
    kv = setting.kv
    if kv is not None and kv.amount == 1.0 and kv.params.get("prefill", "dense") == "dense":
        raise IcrError(
            f"setting {setting} keeps everything, so it measures full attention: give a budget below 1, or take setting "
            f"{'full' if setting.then is None else setting.context}"
        )


def rules_of_hf(setting: Setting, once: bool, chunk: int) -> None:
    """What icr-hf cannot combine. `once`: compress_once; `chunk`: tokens of a prefill pass. Raises IcrError."""
    kv = setting.kv
    if kv is None:
        return
    sparse = kv.params.get("prefill", "dense") != "dense"
    if sparse and str(kv.method).startswith("press."):
        raise IcrError(f"{setting}: a press runs in its own prefill; leave prefill= out")
    if sparse and chunk % BLOCK:
        raise IcrError(
            f"{setting}: a sparse prefill goes in pieces of a multiple of {BLOCK} tokens, not prefill_chunk={chunk}"
        )
    if once and not agnostic(kv):
        raise IcrError(
            f"compress_once asks every question after the compression: write {setting},query-agnostic, or leave "
            "compress_once out"
        )


def agnostic(kv: Setting) -> bool:
    """Whether the question is read after the compression."""
    return kv.params.get("split") == "query-agnostic"


def greedy(engine: str, kwargs: Mapping[str, Any]) -> None:
    """Raises IcrError for generation arguments that icr-hf does not have."""
    if engine != "icr-hf":
        return
    if kwargs.get("do_sample"):
        raise IcrError("icr-hf decodes greedily: leave do_sample and temperature out of --gen_kwargs")
    if unknown := set(kwargs) - _GREEDY:
        raise IcrError(f"icr-hf does not know the generation argument {sorted(unknown)[0]!r}; leave it out")


def configuration(args: Mapping[str, Any]) -> Any:
    """The configuration of the model that arguments name; None where it cannot be read (the engine says why)."""
    name = args.get("pretrained")
    if not isinstance(name, str):
        return None
    from transformers import AutoConfig

    given = {k: args[k] for k in _NAMED if args.get(k) is not None}
    try:
        here = hub.local(name, "pretrained", args.get("revision"))
        return AutoConfig.from_pretrained(name, local_files_only=here, **given)
    except (OSError, ValueError, IcrError) as error:
        log.debug("%s: %s", name, error)
        return None


def _vllm(engine: str, setting: Setting, args: Mapping[str, Any]) -> None:
    """What vLLM's arguments rule out. Raises IcrError."""
    from ..kv.vllm import seam
    from ..kv.vllm.sparse import method_of
    from ..kv.vllm.state import EngineState

    if engine == "icr-vllm":
        if reason := EngineState(dict(args)).refusal(setting, str(args.get("kv_cache_dtype") or "auto")):
            raise IcrError(reason)
        return
    if (asked := choose.asked()) is None or not setting.compressed:
        return
    caching = bool(args.get("enable_prefix_caching", True))
    ranks = int(args.get("tensor_parallel_size") or 1)
    if reason := seam.refusal_of_args(args) or seam.refusal_of_method(method_of(asked), caching, ranks):
        raise IcrError(reason)
