"""Every leaf task as a task of Inspect (https://inspect.aisi.org.uk), found by its entry point.

    inspect eval icr_tasks/helmet_rag_nq_4k --model openai/gpt-5 -T setting=rag@1k -T tokenizer=MODEL

Prompts and scores are those of the lm-eval task: the same builder, the same messages, the same scorers. The
score of a sample is the task's headline; its other metrics and the digest of its prompt lie in the score's
metadata. `stderr` counts what items share, as `icr board` does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from inspect_ai import Task
from inspect_ai import task as register
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ..benchmarks import catalog
from ..errors import IcrError
from ..harness.run import manager
from ..harness.score import Scored, clustered_error
from ..harness.task import ICRTask

_CUT = {"max_tokens": "length", "model_length": "length"}  # Inspect's words for a generation that was cut
_PREFILL = (
    "the prompt ends in words of the assistant, which Inspect's models do not continue; use another prompt or "
    "setting, e.g. gold@only for gold"
)


class Messages(str):
    """Chat messages as JSON: counted and hashed as those that lm-eval's `local-chat-completions` sends."""

    @property
    def prompt(self) -> str:
        """The JSON text."""
        return str(self)


def chat(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> Messages:
    """Stands where lm-eval has an engine's chat template."""
    if not add_generation_prompt:
        raise IcrError(_PREFILL)
    return Messages(json.dumps(messages, ensure_ascii=False))


@lru_cache(maxsize=8)
def leaf(name: str, options: str) -> ICRTask:
    """The lm-eval task behind an Inspect task; `options` as JSON. Raises IcrError for options that cannot
    work."""
    made = manager(json.loads(options)).load([name])["tasks"][name]
    if not made.prompt_format.chat:
        raise IcrError(
            f"{name}: prompt {made.prompt_format.name!r} is completed as text, and Inspect sends messages; "
            "run it by lm_eval, or choose another prompt"
        )
    if str(made.options.setting.context) == "gold" or made.prompt_format.prefill:
        raise IcrError(_PREFILL)
    made.plain.builder(chat)
    return made


@solver
def prompt(name: str, options: str) -> Solver:
    """Build the sample's prompt when its turn comes (contexts never lie in the data set), and ask."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        task = leaf(name, options)
        text = await asyncio.to_thread(task.plain.context, task.doc(str(state.sample_id)), 0, chat)
        state.messages = [_message(m) for m in json.loads(text)]
        return await generate(state)

    return solve


def _message(message: dict[str, str]) -> ChatMessage:
    kind = ChatMessageSystem if message["role"] == "system" else ChatMessageUser
    return kind(content=message["content"])


@scorer(metrics=[])
def headline(name: str, options: str) -> Scorer:
    """The task's headline metric, its other metrics beside it."""

    async def score(state: TaskState, target: Target) -> Score:
        task = leaf(name, options)
        doc, output = task.doc(str(state.sample_id)), state.output
        reason = _CUT.get(output.stop_reason, output.stop_reason)
        scores = await asyncio.to_thread(
            task.plain.grade, doc, output.completion or None, finish_reason=reason
        )
        digest = task.plain.digest(doc)
        others = {k: float(v) for k, v in scores.items() if k != "score_se"}
        return Score(
            value=scores["score"],
            answer=task.plain.visible(doc),
            metadata={"metric": task.sheet["metric"], "scores": others, "prompt": digest},
        )

    return score


@metric
def stderr() -> Metric:
    """Standard error of the mean with what items share counted: lm-eval's `score_se`."""

    def error(scores: list[SampleScore]) -> float:
        values = []
        for found in scores:
            about = found.sample_metadata or {}
            values.append(Scored(found.score.as_float(), about.get("cluster"), about.get("documents")))
        return clustered_error(values)

    return error


def offer(name: str) -> Callable[..., Task]:
    """Register one leaf task under its name without `icr_`."""

    def made(
        setting: str | None = None,
        prompt_name: str | None = None,
        tokenizer: str | None = None,
        max_model_len: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> Task:
        given = {
            "setting": setting,
            "prompt": prompt_name,
            "tokenizer": tokenizer,
            "max_model_len": max_model_len,
        }
        chosen = {**(options or {}), **{k: v for k, v in given.items() if v is not None}}
        text = json.dumps(chosen, sort_keys=True)
        task = leaf(name, text)
        config = task.config.generation_kwargs
        return Task(
            dataset=MemoryDataset([_sample(doc) for doc in task.dataset["test"]], name=name),
            solver=prompt(name, text),
            scorer=headline(name, text),
            metrics=[mean(), stderr()],
            config=GenerateConfig(
                temperature=0.0, max_tokens=config["max_gen_toks"], stop_seqs=config["until"] or None
            ),
            version=catalog.version(name),
            metadata={"icr": {k: v for k, v in task.sheet.items() if k != "plugins"}},
        )

    made.__name__ = made.__qualname__ = name.removeprefix("icr_")
    made.__doc__ = f"{name} under a setting; `options` takes what lm_eval's --metadata takes."
    return register(made)


def _sample(doc: dict[str, Any]) -> Sample:
    about = {"cluster": doc["cluster"], "documents": doc.get("documents"), **doc["keys"]}
    return Sample(id=doc["id"], input=doc["question"], target=list(doc["answers"]), metadata=about)


TASKS = {name.removeprefix("icr_"): offer(name) for name in catalog.leaves()}
