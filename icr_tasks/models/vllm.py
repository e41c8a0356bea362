"""`--model icr-vllm`: lm-eval's vLLM engine, made for long prompts.

    lm_eval --model icr-vllm --model_args pretrained=...,max_model_len=131072,store=answers/ --tasks icr_helmet_rag_64k ...

Differences from `--model vllm`: requests stream through the engine, so only those in flight are tokenized (in
pieces, on all cores); each answer is stored as it finishes (`store=`), and never generated twice; a prompt the
engine refuses fails its own item; items that share a document run next to each other (prefix cache); greedy unless
told otherwise; seconds, tokens and prefix-cache hits are recorded per item.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from lm_eval.models.utils import has_bos_prefix, postprocess_generated_text
from lm_eval.models.vllm_causallms import VLLM
from tqdm import tqdm

from ..context import active
from ..errors import IcrError
from . import dual_chunk, identity, kv_vllm, resume
from .encode import encode
from .kv import native
from .store import AnswerStore

log = logging.getLogger("icr_tasks")
_KV = ("setting", "scope", "read_fraction", "attended_fraction", "stored_fraction")
_TOKENS_IN_FLIGHT = 1 << 22  # more than any KV cache holds: enough to keep an engine busy


class IcrVLLM(VLLM):
    """lm-eval's VLLM with streaming requests. `store` is a folder for answers, `in_flight` the requests queued at once."""

    def __init__(self, pretrained: str, store: str | None = None, in_flight: int = 64, **kwargs: Any) -> None:
        kv_vllm.prepare(kwargs)
        if (dtype := str(kwargs.get("kv_cache_dtype", "auto"))) != "auto":
            native.check(dtype)
        self.changed = dual_chunk.switch_off(kwargs, dual_chunk.config_of(pretrained, kwargs.get("revision")))
        kwargs.setdefault("enable_prefix_caching", True)
        kwargs.setdefault("disable_log_stats", False)  # per-request timing
        super().__init__(pretrained, **kwargs)
        if self.data_parallel_size > 1:
            raise IcrError(
                "icr-vllm streams through one engine: use data_parallel_size=1 and `icr sweep --jobs N` (one engine a "
                "job), or several runs with one store="
            )
        import vllm

        self.in_flight = int(in_flight)
        args = {**self.model_args, "engine": vllm.__version__, "lora": kwargs.get("lora_local_path")}
        args |= {"kv": kv_vllm.asked()} if kv_vllm.asked() else {}
        self.store = AnswerStore(store, identity.engine(args)) if store else None
        if self.store is not None and self.store.damaged:
            log.warning("%s: %d damaged lines skipped; those items run again", self.store.path, self.store.damaged)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers in request order; a refused prompt gives "" and its reason in `measure`."""
        with tqdm(total=len(requests), desc="icr-vllm", disable=disable_tqdm) as bar:
            return resume.answer(requests, self.store, self.stream, lambda index, stored: bar.update())

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Stock scoring; refused under a compressed setting."""
        kv_vllm.refuse_scoring(active.setting())
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Stock scoring; refused under a compressed setting."""
        kv_vllm.refuse_scoring(active.setting())
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    def stream(self, requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(index, text, measured) of each request as it finishes; at most `in_flight` are queued in the engine."""
        if kv_vllm.follows_task():
            kv_vllm.switch(active.setting())
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
        """What was changed of the model's own configuration, for the results file."""
        return self.changed or {}

    def tokens_of(self, prompt: str) -> Any:
        """Ids of a prompt as lm-eval's `tok_encode` gives them, as an int32 array at 4 bytes a token."""
        bos = None if self.prefix_token_id is None else self.tokenizer.decode(self.prefix_token_id)
        special = self.add_bos_token is not False and not has_bos_prefix(prompt, bos)
        return encode(self.tokenizer, prompt, special=special)

    def _submit(self, name: str, prompt: str, gen_kwargs: dict[str, Any]) -> tuple[int, list[str]]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        # lm-eval's helpers change the dict they get
        kwargs = deepcopy(gen_kwargs) if gen_kwargs.get("do_sample") else {"temperature": 0.0, **deepcopy(gen_kwargs)}
        kwargs, until, max_gen_toks = self.modify_gen_kwargs(kwargs, eos=eos, default_max_gen_toks=self.max_gen_toks)
        ids = self.tokens_of(prompt)
        if len(ids) + max_gen_toks > self.max_length:
            raise ValueError(
                f"prompt of {len(ids)} tokens + {max_gen_toks} to generate exceeds max_model_len {self.max_length}"
            )
        stop = [s for s in until if s == eos] if self.think_end_token else until
        params = SamplingParams(max_tokens=max_gen_toks, stop=stop, **kwargs)
        tokens = TokensPrompt(prompt_token_ids=ids.tolist())
        self.model.llm_engine.add_request(name, tokens, params, lora_request=self.lora_request)
        return len(ids), until

    def _finish(self, output: Any, until: list[str], seconds: float) -> tuple[str, dict[str, Any]]:
        text = postprocess_generated_text(output.outputs[0].text, until, self.think_end_token)
        stats = output.metrics
        timing = {"engine": round(seconds, 4)}
        if stats is not None and stats.first_token_ts:
            timing["prefill"] = round(stats.first_token_ts - stats.scheduled_ts, 4)
            timing["decode"] = round(stats.last_token_ts - stats.first_token_ts, 4)
        tokens = {"prompt": len(output.prompt_token_ids), "cached": output.num_cached_tokens or 0,
                  "output": len(output.outputs[0].token_ids)}  # fmt: skip
        found: dict[str, Any] = {"timing": timing, "engine_tokens": tokens}
        if kv_vllm.running() and (kv := kv_vllm.measured())["sparse_steps"]:
            found["kv"] = {k: v for k, v in kv.items() if k in _KV}  # shares of the run so far
        return text, found

    def _fail(self, request: Any, reason: str) -> dict[str, Any]:
        log.warning("%s doc %s: %s", request.task_name, request.doc_id, reason)
        return {"error": f"engine refused: {reason}"}
