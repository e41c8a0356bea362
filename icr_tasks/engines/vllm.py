"""`--model icr-vllm`: lm-eval's vLLM engine, made for long prompts.

    lm_eval --model icr-vllm --model_args pretrained=...,max_model_len=131072,store=answers/ --tasks
    icr_helmet_rag_64k ...

Differences from `--model vllm`: requests stream through the engine, so only those in flight are tokenized (in
pieces, on all cores); each answer is stored as it finishes (`store=`), and never generated twice; a prompt
the engine refuses fails its own item; items that share a document run next to each other (prefix cache);
greedy unless told otherwise; seconds, tokens and prefix-cache hits are recorded per item.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from lm_eval.models.utils import has_bos_prefix
from lm_eval.models.vllm_causallms import VLLM
from tqdm import tqdm

from ..errors import IcrError
from ..kv import choose
from ..kv.counts import KvCounts
from ..kv.hf import models
from ..kv.vllm import counters, own
from ..kv.vllm.state import EngineState
from ..settings import Setting
from . import answers, identity, session, thoughts
from .answers import AnswerStore
from .encode import encode

log = logging.getLogger("icr_tasks")
_TEXT = ("add_bos_token", "prefix_token_id", "think_end_token")
_TOKENS_IN_FLIGHT = 1 << 22  # more than any KV cache holds: enough to keep an engine busy


class IcrVLLM(VLLM):
    """lm-eval's VLLM with streaming requests. `store` is a folder for answers, `in_flight` the requests
    queued at once."""

    keeps_thoughts = True
    native: dict[str, int] | None = None  # layers by kind of a model that compresses by design
    held: Sequence[Any] = ()  # what its own cache takes, as `own.layers`, a rank

    def __init__(self, pretrained: str, store: str | None = None, in_flight: int = 64, **kwargs: Any) -> None:
        if (n := int(kwargs.pop("data_parallel_size", 1) or 1)) > 1:
            raise IcrError(
                f"data_parallel_size={n}: one icr-vllm is one engine; `icr sweep` starts {n} of them for it and divides "
                f"the items, and `vllm serve --data-parallel-size {n}` with --model icr-api serves from all of them"
            )
        self.kv = EngineState(kwargs)
        if (dtype := str(kwargs.get("kv_cache_dtype", "auto"))) != "auto":
            choose.check(dtype)
        self.changed = switch_off(kwargs, config_of(pretrained, kwargs.get("revision")))
        kwargs.setdefault("enable_prefix_caching", True)
        kwargs.setdefault("disable_log_stats", False)  # per-request timing
        kwargs.setdefault("worker_extension_cls", own.EXTENSION)
        with self.kv.starting():
            super().__init__(pretrained, **kwargs)
        import vllm

        self.in_flight = int(in_flight)
        config = self.model.llm_engine.vllm_config
        self.cache_dtype = str(config.cache_config.cache_dtype)
        self.native = models.by_design(config.model_config.hf_text_config)
        ours = kwargs["worker_extension_cls"] == own.EXTENSION
        self.held = self.model.collective_rpc(own.CALL) if self.native and ours else []
        args = {**told(self.model_args, kwargs, self.kv.asked), "engine": vllm.__version__}
        self.store = AnswerStore(store, identity.stored(args)) if store else None
        if self.store is not None and self.store.damaged:
            log.warning(
                "%s: %d damaged lines skipped; those items run again", self.store.path, self.store.damaged
            )

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers in request order; a refused prompt gives "" and its reason in what is recorded with it.

        Requests of one call may have several settings. Raises IcrError when this engine can run none of them.
        """
        with tqdm(total=len(requests), desc="icr-vllm", disable=disable_tqdm) as bar:
            return answers.answer(requests, self.store, self.stream, lambda index, stored: bar.update())

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Stock scoring; refused under a compressed setting."""
        self._dense_scoring()
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Stock scoring; refused under a compressed setting."""
        self._dense_scoring()
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def _dense_scoring(self) -> None:
        choose.refuse_scoring(None if self.kv.asked == choose.TASK else self.kv.asked)
        self.kv.switch(None)

    def stream(self, requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(index, text, measured) of each request as it finishes, one setting after the other."""
        settings = [session.setting_of(request) for request in requests]
        refused = session.refuse((settings[i] for i in order), self._refusal)
        for setting, part in session.by_setting(settings, order).items():
            if setting in refused:
                log.error("%s: %s", setting, refused[setting])
                yield from ((i, "", {"error": refused[setting]}) for i in part)
                continue
            self.kv.switch(setting)
            yield from self._stream(requests, part)

    def _refusal(self, setting: Setting | None) -> str | None:
        if setting is not None:
            config = self.model.llm_engine.vllm_config.model_config.hf_text_config
            try:
                models.refuse_native(setting, config, str(config.model_type))
            except IcrError as error:
                return str(error)
        return self.kv.refusal(setting, self.cache_dtype)

    def _stream(self, requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Requests of one setting; at most `in_flight` are queued in the engine."""
        engine, queue = self.model.llm_engine, deque(order)
        running: dict[str, tuple[int, int, list[str], float]] = {}
        try:
            while queue or running:
                queued = sum(n for _, n, _, _ in running.values())
                while queue and len(running) < self.in_flight and (queued < _TOKENS_IN_FLIGHT or not running):
                    i = queue.popleft()
                    name = f"icr-{time.monotonic_ns()}-{i}"
                    try:
                        n_tokens, until = self._submit(name, *requests[i].args)
                    except (ValueError, TypeError) as error:
                        yield i, "", self._fail(requests[i], str(error))
                        continue
                    running[name] = (i, n_tokens, until, time.perf_counter())
                    queued += n_tokens
                for output in engine.step():
                    if output.finished:
                        i, _, until, since = running.pop(output.request_id)
                        yield i, *self._finish(output, until, time.perf_counter() - since)
        finally:
            if running:  # interrupted, or the caller cannot store: the engine must not go on with them
                engine.abort_request(list(running))

    def get_model_info(self) -> dict[str, Any]:
        """The dtype of the weights and what was changed of the model's own configuration, for the results
        file."""
        native = {"native": self.native} if self.native else {}
        return {**identity.loaded(self), **(self.changed or {}), **native}

    @property
    def mark(self) -> str | None:
        """What ends a thought."""
        return thoughts.mark_of(self)

    def tokens_of(self, prompt: str) -> Any:
        """Ids of a prompt as lm-eval's `tok_encode` gives them, as an int32 array at 4 bytes a token."""
        bos = None if self.prefix_token_id is None else self.tokenizer.decode(self.prefix_token_id)
        special = self.add_bos_token is not False and not has_bos_prefix(prompt, bos)
        return encode(self.tokenizer, prompt, special=special)

    def prepared(self, prompt: str, gen_kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any], list[str]]:
        """(ids as int32, keywords of vLLM's SamplingParams, strings at which the answer is cut).

        Raises ValueError for a prompt that does not fit.
        """
        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        # lm-eval's helpers change the dict they get
        kwargs = (
            deepcopy(gen_kwargs)
            if gen_kwargs.get("do_sample")
            else {"temperature": 0.0, **deepcopy(gen_kwargs)}
        )
        kwargs, until, max_gen_toks = self.modify_gen_kwargs(
            kwargs, eos=eos, default_max_gen_toks=self.max_gen_toks
        )
        ids = self.tokens_of(prompt)
        if len(ids) + max_gen_toks > self.max_length:
            raise ValueError(
                f"prompt of {len(ids)} tokens + {max_gen_toks} to generate exceeds max_model_len "
                f"{self.max_length}"
            )
        stop = [s for s in until if s == eos] if self.mark else until
        return ids, {"max_tokens": max_gen_toks, "stop": stop, **kwargs}, until

    def _submit(self, name: str, prompt: str, gen_kwargs: dict[str, Any]) -> tuple[int, list[str]]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        ids, params, until = self.prepared(prompt, gen_kwargs)
        tokens = TokensPrompt(prompt_token_ids=ids.tolist())
        self.model.llm_engine.add_request(
            name, tokens, SamplingParams(**params), lora_request=self.lora_request
        )
        return len(ids), until

    def _runs_on(self) -> str:
        """`2 x NVIDIA H100 80GB HBM3`: what the engine runs on, asked without touching CUDA here."""
        from vllm.platforms import current_platform

        return identity.devices(str(current_platform.get_device_name(0)), self.model_args)

    def _finish(self, output: Any, until: list[str], seconds: float) -> tuple[str, dict[str, Any]]:
        text, stopped = thoughts.whole(output.outputs[0].text, until, self.mark)
        stats = output.metrics
        timing = {"engine": round(seconds, 4)}
        if stats is not None and stats.first_token_ts:
            timing["prefill"] = round(stats.first_token_ts - stats.scheduled_ts, 4)
            timing["decode"] = round(stats.last_token_ts - stats.first_token_ts, 4)
        tokens = {
            "prompt": len(output.prompt_token_ids),
            "cached": output.num_cached_tokens or 0,
            "output": len(output.outputs[0].token_ids),
        }
        found: dict[str, Any] = {"timing": timing, "engine_tokens": tokens}
        found["finish_reason"] = "stop" if stopped else output.outputs[0].finish_reason
        found["device"] = self._runs_on()
        kv = self.kv.measured(output.request_id, tokens["prompt"], tokens["output"])
        if kv is None and self.cache_dtype != "auto":
            kv = {"setting": f"kv:{self.cache_dtype}"}
        if self.native and self.held:
            plain: KvCounts = {"setting": "full", "method": "full", "tokens": tokens["prompt"]}
            kv = kv or plain
            kv["native"] = {"layers": self.native, "bytes": own.held(self.held, tokens["prompt"])}
        if kv is not None:
            found["kv"] = kv
        return text, found

    def _fail(self, request: Any, reason: str) -> dict[str, Any]:
        log.warning("%s doc %s: %s", request.task_name, request.doc_id, reason)
        return {"error": f"engine refused: {reason}"}


def told(engine: Mapping[str, Any], given: Mapping[str, Any], kv: str | None) -> dict[str, Any]:
    """What a store of answers knows an engine by: vLLM's own arguments (`engine`), and those of lm-eval's class (`given`)
    that make other tokens of a prompt or another text of an answer."""
    found = {**engine, "lora": given.get("lora_local_path")}
    found.pop("additional_config", None)
    if found.get("worker_extension_cls") == own.EXTENSION:
        del found["worker_extension_cls"]
    if rest := {k: v for k, v in (given.get("additional_config") or {}).items() if k != counters.CONFIG}:
        found["additional_config"] = rest
    found |= {"kv": kv} if kv not in (None, choose.TASK) else {}
    return found | {name: given[name] for name in _TEXT if given.get(name) is not None}


# ---- dual chunk ----------------------------------------------------------------------------------
# Models trained with dual-chunk attention (Qwen2.5-1M): vLLM has no such backend any more, so it is switched
# off, openly.

log = logging.getLogger("icr_tasks")
KEY = "dual_chunk_attention_config"
_TRAINED = 262144  # Qwen2.5-1M, when its config does not say


def switch_off(args: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Change engine arguments in place for such a model; returns what was changed, for the record, or None.

    `config` is the model's config.json. Raises IcrError when `max_model_len` asks for more than plain
    positions give.
    """
    found = config.get(KEY)
    if not found:
        return None
    limit = int(found.get("original_max_position_embeddings") or _TRAINED)
    asked = args.get("max_model_len") or args.get("max_length")
    if asked and int(asked) > limit:
        raise IcrError(
            f"this model needs dual-chunk attention beyond {limit} tokens, which vLLM does not have; set "
            f"max_model_len={limit}"
        )
    args["hf_overrides"] = {**(args.get("hf_overrides") or {}), KEY: None}
    if not asked:
        args["max_model_len"] = limit
    log.warning("dual-chunk attention is switched off: plain positions, usable up to %d tokens", limit)
    return {"dual_chunk_attention": "off", "usable_tokens": limit}


def config_of(pretrained: str, revision: str | None = None) -> dict[str, Any]:
    """config.json of a folder or hub id; empty when it cannot be read (the engine will say why)."""
    from transformers import PretrainedConfig

    try:
        return PretrainedConfig.get_config_dict(pretrained, revision=revision)[0]
    except OSError as error:
        log.debug("no config of %s: %s", pretrained, error)
        return {}
