"""`--model icr-vllm`: lm-eval's vLLM engine, made for long prompts.

    lm_eval --model icr-vllm --model_args pretrained=...,max_model_len=131072,store=answers/ --tasks icr_helmet_rag_64k ...

Differences from `--model vllm`: requests stream through the engine, so only those in flight are tokenized; each
answer is stored as it finishes (`store=`), and never generated twice; a prompt the engine refuses fails its own
item; items that share a document run next to each other (prefix cache); greedy unless told otherwise; seconds and
cached tokens are recorded per item.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from lm_eval.models.utils import postprocess_generated_text
from lm_eval.models.vllm_causallms import VLLM
from tqdm import tqdm

from ..errors import IcrError
from . import measure
from .store import AnswerStore

log = logging.getLogger("icr_tasks")
# Not part of an answer's identity.
_SPEED_ONLY = ("max_num_seqs", "gpu_memory_utilization", "max_num_batched_tokens", "enable_prefix_caching", "disable_log_stats",
               "distributed_executor_backend", "enforce_eager")  # fmt: skip


class IcrVLLM(VLLM):
    """lm-eval's VLLM with streaming requests. `store` is a folder for answers, `in_flight` the requests queued at once."""

    def __init__(self, pretrained: str, store: str | None = None, in_flight: int = 64, **kwargs: Any) -> None:
        kwargs.setdefault("enable_prefix_caching", True)
        kwargs.setdefault("disable_log_stats", False)  # per-request timing
        super().__init__(pretrained, **kwargs)
        if self.data_parallel_size > 1:
            raise IcrError(
                "icr-vllm streams through one engine: use data_parallel_size=1, or several runs with one store="
            )
        import vllm

        self.in_flight = int(in_flight)
        args = {k: v for k, v in self.model_args.items() if k not in _SPEED_ONLY}
        identity = {**args, "engine": vllm.__version__, "lora": kwargs.get("lora_local_path")}
        self.store = AnswerStore(store, identity) if store else None
        if self.store is not None and self.store.damaged:
            log.warning("%s: %d damaged lines skipped; those items run again", self.store.path, self.store.damaged)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers in request order; a refused prompt gives "" and its reason in `measure`."""
        answers: dict[int, str] = {}
        waiting: list[int] = []
        keys = [self._key(request) for request in requests] if self.store is not None else []
        for i, request in enumerate(requests):
            stored = self.store.get(keys[i]) if self.store is not None else None
            if stored is None:
                waiting.append(i)
            else:
                answers[i] = self._recall(request, stored)
        if answers:
            log.info(
                "%d of %d answers taken from %s",
                len(answers),
                len(requests),
                self.store.path if self.store is not None else "",
            )
        bar = tqdm(total=len(requests), initial=len(answers), desc="icr-vllm", disable=disable_tqdm or not waiting)
        for i, text, found in self._run(requests, self._ordered(requests, waiting)):
            answers[i] = text
            if self.store is not None and "error" not in found:
                self.store.put(keys[i], {"text": text, **found})
            bar.update()
        bar.close()
        return [answers[i] for i in range(len(requests))]

    def _key(self, request: Any) -> str:
        prompt, kwargs = request.args
        return AnswerStore.key(prompt, kwargs)

    def _recall(self, request: Any, stored: dict[str, Any]) -> str:
        found = {k: stored[k] for k in ("timing", "cached_tokens") if stored.get(k)}
        measure.record(request.args[0], found)
        return stored["text"]

    @staticmethod
    def _ordered(requests: list[Any], waiting: list[int]) -> list[int]:
        """Prompts in text order: those that share a document share a prefix and run together."""
        return sorted(waiting, key=lambda i: requests[i].args[0])

    def _run(self, requests: list[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        engine, queue = self.model.llm_engine, deque(order)
        running: dict[str, tuple[int, str, list[str], float]] = {}
        while queue or running:
            while queue and len(running) < self.in_flight:
                i = queue.popleft()
                prompt, gen_kwargs = requests[i].args
                name = f"icr-{time.monotonic_ns()}-{i}"
                try:
                    until = self._submit(name, prompt, gen_kwargs)
                except (ValueError, TypeError) as error:
                    yield i, "", self._fail(requests[i], str(error))
                    continue
                running[name] = (i, prompt, until, time.perf_counter())
            for output in engine.step():
                if output.finished:
                    i, prompt, until, since = running.pop(output.request_id)
                    yield i, *self._finish(requests[i], output, until, time.perf_counter() - since)

    def _submit(self, name: str, prompt: str, gen_kwargs: dict[str, Any]) -> list[str]:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        # lm-eval's helpers change the dict they get
        kwargs = deepcopy(gen_kwargs) if gen_kwargs.get("do_sample") else {"temperature": 0.0, **deepcopy(gen_kwargs)}
        kwargs, until, max_gen_toks = self.modify_gen_kwargs(kwargs, eos=eos, default_max_gen_toks=self.max_gen_toks)
        ids = self.tok_encode(prompt)
        if len(ids) + max_gen_toks > self.max_length:
            raise ValueError(
                f"prompt of {len(ids)} tokens + {max_gen_toks} to generate exceeds max_model_len {self.max_length}"
            )
        stop = [s for s in until if s == eos] if self.think_end_token else until
        params = SamplingParams(max_tokens=max_gen_toks, stop=stop, **kwargs)
        self.model.llm_engine.add_request(
            name, TokensPrompt(prompt_token_ids=ids), params, lora_request=self.lora_request
        )
        return until

    def _finish(self, request: Any, output: Any, until: list[str], seconds: float) -> tuple[str, dict[str, Any]]:
        text = postprocess_generated_text(output.outputs[0].text, until, self.think_end_token)
        stats = output.metrics
        timing = {"engine": round(seconds, 4)}
        if stats is not None and stats.first_token_ts:
            timing["prefill"] = round(stats.first_token_ts - stats.scheduled_ts, 4)
            timing["decode"] = round(stats.last_token_ts - stats.first_token_ts, 4)
        found = {"timing": timing, "cached_tokens": output.num_cached_tokens or 0}
        measure.record(request.args[0], found)
        return text, found

    def _fail(self, request: Any, reason: str) -> dict[str, Any]:
        log.warning("%s doc %s: %s", request.task_name, request.doc_id, reason)
        found = {"error": f"engine refused: {reason}"}
        measure.record(request.args[0], found)
        return found
