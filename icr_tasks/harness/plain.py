"""A task for hosts that know lm-eval's task interface and nothing else (NeMo Evaluator's `lm-eval://`).

They ask for `fewshot_context`, send what `construct_requests` holds, and hand one answer back to
`process_results`; nobody filters, judges in batches or passes options. What such a host cannot do is refused
in a sentence: it takes a KeyError, TypeError or ValueError for "no score" and counts 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from ..context.build import Builder, Built, DoesNotFit, dumps
from ..errors import IcrError
from ..metrics.visible import opens_thought
from . import grading
from .instance import PromptInstance, unsealed
from .options import ENVIRONMENT

if TYPE_CHECKING:
    from .task import ICRTask

# Hosts look for these before `score` and would take another metric than the headline for the item's score.
TAKEN_FIRST = ("exact_match", "acc", "em")
_NAMES_TOKENIZER = ("tokenizer", "pretrained", "model")
_SWALLOWED = (TypeError, ValueError, KeyError, IndexError, AttributeError)


class Plain:
    """The plain interface of one task. Keeps the digests of the prompts it made, and needs none of them."""

    def __init__(self, task: ICRTask) -> None:
        self.task = task
        self._built: dict[str, Built] = {}
        self._seen: dict[str, str] = {}
        self._builders: dict[Any, Builder] = {}

    def context(
        self,
        doc: Mapping[str, Any],
        num_fewshot: int | None = 0,
        template: Callable[..., Any] | None = None,
        system: str | None = None,
    ) -> Any:
        """The whole prompt of a document: text, or what `template` makes of the messages.

        Raises IcrError for an item that does not fit, and for what this host cannot run.
        """
        if num_fewshot:
            raise IcrError(
                f"{self.name} shows no examples of other items: leave num_fewshot out, or set it to 0"
            )
        with self._named(doc):
            built = self._build(doc, template, system)
        prompt, built.prompt = built.prompt, None  # the host keeps it, the task only its digest
        return prompt

    def request(
        self, doc: Mapping[str, Any], ctx: Any, place: tuple[Any, ...], template: Callable[..., Any] | None
    ) -> PromptInstance:
        """The request for `ctx`; for an empty one the real prompt is made here."""
        with self._named(doc):
            prompt = ctx or self.context(doc, 0, template)
            built = self._built.get(doc["id"]) or Built("", {"icr": 1, "error": None})
            task, doc_id, repeats = (*place, None, None, None)[:3]
            return PromptInstance(
                doc=dict(doc),
                prompt=prompt,
                gen_kwargs=deepcopy(self.task.config.generation_kwargs),
                digest=dumps(built.digest),
                task=str(task or self.name),
                doc_id=doc_id or 0,
                repeats=repeats or 1,
                setting=self.task.options.setting,
                boundary=built.boundary,
            )

    def results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """Metrics of one answer, without those that hosts would take for the headline. Raises IcrError where
        there is no score."""
        found = self.grade(doc, results[0] if results else None, answered=bool(results))
        return {name: value for name, value in found.items() if name not in TAKEN_FIRST}

    def grade(
        self,
        doc: Mapping[str, Any],
        raw: Any,
        *,
        answered: bool = True,
        finish_reason: str | None = None,
    ) -> dict[str, float]:
        """All metrics of one answer, judged by itself where the task has a judge."""
        with self._named(doc):
            self._check()
            if not answered:
                raise IcrError(f"{self.name}: the host handed no answer to item {doc['id']}")
            task, built = self.task, self._state(doc)
            if finish_reason is not None:
                built.digest["finish_reason"] = finish_reason
            seen = task.read(raw, built)
            self._seen[doc["id"]] = seen.text
            item = task.item(doc)
            answer = grading.Answer(unsealed(dict(doc), item), item.fields, seen.text)
            grades = grading.grade(task.sheet["scorer"], task.options.graders, [answer], progress=False)
            if grades.error is not None:
                raise grades.error
            found = task.scored(doc, seen, built, grades.metrics.get(doc["id"], {}))
            if "score" not in found:
                why = next(iter((grades.sheet.get("judged") or {}).get("failed", ())), "no verdict")
                raise IcrError(f"{self.name}: item {doc['id']} has no {task.sheet['metric']} ({why})")
            return found

    def digest(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of a document's prompt and answer: hash, lengths, cuts (schema.Digest)."""
        return dict(self._state(doc).digest)

    def visible(self, doc: Mapping[str, Any]) -> str:
        """The text that was scored, of the answer graded last; empty before."""
        return self._seen.get(doc["id"], "")

    # -- what a prompt needs -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The task as it was asked for."""
        return str(self.task.config.task)

    def _check(self) -> None:
        """Raises IcrError for what no plain host can run."""
        task = self.task
        if task.options.setting.kind == "route":
            raise IcrError(
                f"{self.name}: setting {task.options.setting} asks twice, which this host does not; run it by "
                "lm_eval"
            )
        if task.options.setting.compressed:
            raise IcrError(
                f"{self.name}: setting {task.options.setting} needs an engine that compresses; run it by "
                "lm_eval --model icr-hf or icr-vllm"
            )
        graded = grading.METRICS.get(task.sheet["scorer"], ())
        if task.sheet["metric"] in graded and task.options.graders == grading.Graders():
            raise IcrError(
                f"{self.name} is scored by a judge: set {ENVIRONMENT}="
                '\'{"judge_base_url":"http://.../v1","judge_model":"NAME"}\''
            )

    def builder(self, template: Callable[..., Any] | None = None, system: str | None = None) -> Builder:
        """One builder a template and system text. Without a tokenizer's name nothing is counted or cut."""
        self._check()
        key = (template, system)
        if key not in self._builders:
            task = self.task
            lm = getattr(template, "__self__", None)
            counted = callable(getattr(lm, "tokenizer", None)) or any(
                task.config.metadata.get(name) for name in _NAMES_TOKENIZER
            )
            if not counted and task.options.setting.kind == "rag":
                raise IcrError(
                    f"{self.name}: setting {task.options.setting} counts tokens: set {ENVIRONMENT}="
                    '\'{"tokenizer":"MODEL_OR_FOLDER"}\''
                )
            self._builders[key] = task.builder(template, system, counted=counted)
            task.tokens = self._builders[key].tokens
        return self._builders[key]

    def _build(
        self, doc: Mapping[str, Any], template: Callable[..., Any] | None = None, system: str | None = None
    ) -> Built:
        builder = self.builder(template, system)
        try:
            built = builder.build(self.task.item(doc))
        except DoesNotFit as reason:
            raise IcrError(f"{self.name}: item {doc['id']} cannot be sent: {reason}") from reason
        if opens_thought(getattr(built.prompt, "prompt", built.prompt)):
            built.digest["thought_opened"] = True
        built.digest["max_gen_toks"] = builder.max_gen_toks
        self._built[doc["id"]] = built
        return built

    def _state(self, doc: Mapping[str, Any]) -> Built:
        """What is known of the prompt. Where another process made it, it is made again if the score asks."""
        known = self._built.get(doc["id"])
        if known is None:
            needed = self.task.prompt_format.cites or self.builder().window is not None
            known = self._build(doc) if needed else Built("", {"icr": 1, "error": None})
            known.prompt = None
        return known

    @contextmanager
    def _named(self, doc: Mapping[str, Any]) -> Iterator[None]:
        """Errors that hosts count as 0 become an IcrError."""
        try:
            yield
        except _SWALLOWED as error:
            item = doc.get("id", "?") if isinstance(doc, Mapping) else "?"
            raise IcrError(
                f"{self.name}: item {item} cannot be scored ({type(error).__name__}: {error}); pass the "
                "document as the task gave it"
            ) from error
