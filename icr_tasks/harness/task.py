"""The one task class behind every icr_* YAML: builds prompts, scores answers, keeps logs small.

    lm_eval --tasks icr_helmet_rag_nq_4k --model vllm --model_args pretrained=... \
        --metadata '{"setting":"gold","prompt":"id"}' --log_samples --output_path out

Contexts never enter `doc`: they are read when a prompt is built, the prompt is kept compressed until the
engine wants it, and only a digest of it (hash, token count, what was cut) reaches the sample log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from lm_eval.api import model
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask
from tqdm import tqdm

from .. import __version__, benchmarks, plugins
from ..benchmarks import base
from ..benchmarks.base import Item
from ..context import prepared, tokens
from ..context.build import Builder, Built, DoesNotFit, dumps, skipped
from ..credentials import redacted
from ..engines import identity
from ..errors import IcrError
from ..kv import choose
from ..metrics import scorers
from ..metrics.given import Given, given
from ..registry import METRICS
from ..settings import Setting
from . import flags, grading, hooks, measured, replayed, thinks
from .asking import Asking, overflow
from .instance import Docs, PromptInstance, light, part_of, unsealed
from .options import host_options
from .plain import Plain
from .routing import Routing, spent
from .saving import begin, check_output_path, nothing
from .score import SCORE, SCORE_SE, clustered_error, headline

log = logging.getLogger("icr_tasks")


class ICRTask(ConfigurableTask):
    """A leaf task: the YAML's `metadata.icr` is its data sheet, `--metadata` carries the user's options."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = dict(config or {})
        config.pop("class", None)
        config["metadata"] = {**host_options(config["task"], config["metadata"]), **config["metadata"]}
        sheet = config["metadata"]["icr"]
        self.sheet = deepcopy(sheet)
        self.benchmark = benchmarks.get(sheet["benchmark"])
        self._more = [m["metric"] for m in config["metric_list"] if m["metric"] in METRICS]
        self.options = replayed.options(config["task"], config["metadata"])
        self.prompt_format = base.get(
            sheet["benchmark"], self.options.prompt or sheet.get("prompt"), sheet["dataset"]
        )
        # lm_eval logs every model argument with the task: without credentials; the options hold the originals
        config["metadata"] = redacted({k: v for k, v in config["metadata"].items() if k != "icr"})
        config["metadata"]["icr"] = self.sheet
        check_output_path()
        # The prompt decides how much is generated; --gen_kwargs still overrides this later.
        config["generation_kwargs"] = {
            "until": list(self.prompt_format.until),
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": self.prompt_format.max_gen_toks,
        }
        config["process_results"] = self.process_results
        config["fewshot_config"] = {"sampler": "first_n", "samples": []}  # spares a copy of all documents
        self._built: dict[str, Built] = {}
        self._failed: dict[str, str] = {}
        self._verdicts: dict[str, dict[str, float]] = {}
        self._given: dict[str, Given] = {}
        self.tokens: tokens.TokenCounter | None = None  # counts answers
        self.plain = Plain(self)
        self.n_whole: int | None = None  # items of the run where this process asks only some of them
        self._asked = False  # by lm_eval itself, which builds all requests at once
        hooks.patch_cache(model)
        super().__init__(config=config)
        self._config.process_results = None  # the log would otherwise carry this class's source text

    def set_config(self, key: str, value: Any, update: bool = False) -> None:
        """lm-eval's; --gen_kwargs under one name for each thing."""
        if key == "generation_kwargs":
            value = flags.generation(value)
        super().set_config(key, value, update)

    # -- lm-eval's data interface --------------------------------------------------------------------------

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the items (not their contexts) and note where they come from."""
        sheet = self.sheet
        items = self.benchmark.load(sheet["dataset"], sheet.get("length"), **self.options.data)
        self.items: list[Item] = part_of(items.items, self.options.part)
        if not self.items:
            raise IcrError(f"{self.config.task}: {items.source} has no item of this task; see icr data ls")
        self.dataset = {"test": Docs(light(item) for item in self.items)}
        self._by_id = {item.id: item for item in self.items}
        self._docs = {doc["id"]: doc for doc in self.dataset["test"]}
        if len(self._by_id) != len(self.items):
            raise IcrError(f"{self.config.task}: item ids repeat in {items.source}")
        sheet.update(
            data_source=items.source,
            data_revision=items.revision,
            official=items.official,
            n_expected=items.n_expected,
            n_items=len(self.items),
            notes=list(items.notes),
            setting=self.options.setting.describe(),
            plugins=plugins.load(),
            **self.benchmark.about(sheet["dataset"]),
            prompt=self.prompt_format.name,
            instruction_sha=self.prompt_format.sha,
        )
        if self.prompt_format.name == "official" and "metric_official" in sheet:
            sheet["metric"] = sheet["metric_official"]  # the benchmark's own scorer, under its own wording

    def doc_to_text(self, doc: Mapping[str, Any], doc_to_text: Any = None) -> str:
        """The bare question; the real prompt is made in build_all_requests or fewshot_context."""
        return doc["question"]

    def doc_to_target(self, doc: Mapping[str, Any], doc_to_target: Any = None) -> list[str]:
        """All accepted answers."""
        return list(doc["answers"])

    # -- prompts -------------------------------------------------------------------------------------------

    def build_all_requests(
        self,
        *,
        limit: int | None = None,
        samples: list[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        cache_requests: bool = False,
        rewrite_requests_cache: bool = False,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Callable[..., Any] | None = None,
        tokenizer_name: str = "",
    ) -> None:
        """Build one request per item; an item that cannot be sent keeps its place with the reason."""
        flags.requests_cache(cache_requests)
        flags.examples(self.config.num_fewshot)
        flags.items(limit, samples, len(self.items), str(self.config.task))
        self.limit = limit
        self._asked = True
        begin(str(self.config.task))
        self._before = choose.counted()  # of a vLLM engine that tells nothing per request
        builder = self.builder(chat_template if apply_chat_template else None, system_instruction)
        self._routing = None if self._replaying else Routing.of(self, builder)
        builder = self._routing.first if self._routing else builder
        if self._replaying:
            replayed.check(self.config, self._by_id)
        docs = list(self.doc_iterator(rank=rank, limit=limit, samples=samples, world_size=world_size))
        self.asking.n = self.n_whole or len(docs)
        self._instances = [
            self.request(builder, doc_id, doc)
            for doc_id, doc in tqdm(docs, desc=f"{self.config.task} {self.options.setting}", disable=None)
        ]
        if docs and len(self._failed) >= (self.n_whole or len(docs)):
            raise IcrError(f"{self.config.task}: no item can be sent: {next(iter(self._failed.values()))}")
        if self._failed:
            log.warning("%s: %d of %d items not sent", self.config.task, len(self._failed), len(docs))
        self._note_run(builder)

    def fewshot_context(  # type: ignore[override]
        self,
        doc: Mapping[str, Any],
        num_fewshot: int | None = 0,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Callable[..., Any] | None = None,
        gen_prefix: str | None = None,
    ) -> Any:
        """The whole prompt of one document, for hosts that ask for one at a time."""
        template = chat_template if apply_chat_template else None
        return self.plain.context(doc, num_fewshot, template, system_instruction)

    def construct_requests(  # type: ignore[override]
        self,
        doc: Mapping[str, Any],
        ctx: Any,
        *,
        metadata: tuple[Any, ...] = (),
        apply_chat_template: bool = False,
        chat_template: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> PromptInstance:
        """The request for a prompt of `fewshot_context`."""
        return self.plain.request(doc, ctx, metadata, chat_template if apply_chat_template else None)

    def item(self, doc: Mapping[str, Any]) -> Item:
        """The item of a document as lm-eval knows it. Raises KeyError for one that is not of this task."""
        return self._by_id[doc["id"]]

    def doc(self, item_id: str) -> dict[str, Any]:
        """The document of an item. Raises KeyError for an id that is not of this task."""
        return self._docs[item_id]

    def builder(
        self, template: Callable[..., Any] | None, system: str | None, *, counted: bool = True
    ) -> Builder:
        """What makes the prompts. `counted=False`: no tokenizer is known, nothing is counted or cut."""
        system = system if self._replaying else thinks.system(self, template, system)
        metadata, lm = self.config.metadata, getattr(template, "__self__", None)
        counter = tokens.counter(metadata, lm) if counted and not self._replaying else None
        self.asking = Asking.idle(self) if self._replaying else Asking.of(self, template, counter)
        return Builder(
            benchmark=self.sheet["benchmark"],
            setting=self.options.setting,
            prompt=self.prompt_format,
            tokens=counter,
            window=self.asking.window.size,
            max_gen_toks=int(
                self.config.generation_kwargs.get("max_gen_toks", self.prompt_format.max_gen_toks)
            ),
            template=self.asking.template,
            system=system,
            demos=self._demos if "{demos}" in self.prompt_format.user else lambda item: "",
            overflow=overflow(self),
            truncation=self.options.truncation,
            prepared=prepared.lookup(self, counter),
            embed=self.options.embed,
        )

    def request(self, builder: Builder, doc_id: int, doc: dict[str, Any]) -> PromptInstance:
        item, repeats = self._by_id[doc["id"]], self.config.repeats or 1
        try:
            built = Built("", skipped("replayed")) if self._replaying else builder.build(item)
        except DoesNotFit as reason:
            self._failed[item.id] = str(reason)
            built, repeats = Built("", skipped(str(reason))), 0  # zero copies: lm-eval never sends it
        self.asking.built(bool(built.digest["truncated"]))
        self._built[item.id] = built
        instance = PromptInstance(
            doc=doc,
            prompt=built.prompt,
            gen_kwargs={**deepcopy(self.config.generation_kwargs), **self.asking.extra},
            digest=dumps(built.digest),
            task=self.config.task,
            doc_id=doc_id,
            repeats=repeats,
            setting=builder.setting,
            boundary=built.boundary,
            salt=self.asking.salt,
            counted_by=builder.tokens.name if builder.tokens else None,
        )
        built.prompt = None
        return instance

    def _demos(self, item: Item) -> str:
        made = self.benchmark.demos
        if made is None:
            raise IcrError(
                f"prompt {self.prompt_format.name!r} shows demonstrations, which {self.benchmark.name} has not"
            )
        return made(item)

    @property
    def _replaying(self) -> bool:
        return "samples" in self.config.metadata

    def _note_run(self, builder: Builder) -> None:
        self.sheet.update(
            tokenizer=builder.tokens.name if builder.tokens else None,
            truncation=self.options.truncation or self.prompt_format.cut,
            overflow=builder.overflow,
            chat=builder.template is not None and self.prompt_format.chat,
            **self.asking.about(),
            n_not_sent=len(self._failed),
            git=identity.working_tree(),
            versions={"icr_tasks": __version__, **identity.versions()},
        )

    # -- answers -------------------------------------------------------------------------------------------

    def apply_filters(self) -> None:
        """Take the answers, check that the setting really ran, judge in one batch, drop the prompts.

        What lm-eval logs as the filtered response, and all that scores, is the visible answer.
        """
        self.go_on()
        for instance in self._instances:
            item_id = instance.doc["id"]
            built = self._built[item_id]
            if self._replaying:
                self._replayed(item_id, instance.doc, built)
            raw = instance.resps[0] if instance.resps else ""
            served = instance.served or bool(self.config.metadata.get("base_url"))
            seen = self._given[item_id] = self.read(raw, built, served=served)
            instance.filtered_resps["none"] = seen.text
            instance.release(dumps(built.digest))
        for item_id, scores in grading.run(self).items():
            self._verdicts.setdefault(item_id, {}).update(scores)

    def go_on(self) -> None:
        """Note what was measured of the answers and, under a route, ask what the first answers leave to ask."""
        self.tokens = None if self._replaying else tokens.counter(self.config.metadata)
        if not self._replaying:
            self.measured(self._instances, self._routing.first.setting if self._routing else None)
        if self._routing:
            self._routing.go_on(self, self._instances, self._built, self._failed)
        nothing(str(self.config.task), self._failed, len(self._instances) if self.asking.command else 0)

    def read(self, raw: Any, built: Built, *, served: bool = False) -> Given:
        """The generation as scoring sees it; what was hidden and whether it was cut go into the digest.

        `served`: a server answered, for whose null content or text lm-eval writes an empty one.
        """
        digest = built.digest
        n_tokens = self.tokens.count(raw) if self.tokens is not None and isinstance(raw, str) else None
        seen = given(
            None if served and raw == "" else raw,
            opened=bool(digest.get("thought_opened")),
            finish_reason=digest.get("finish_reason"),
            n_tokens=n_tokens,
            budget=digest.get("max_gen_toks"),
        )
        if seen.unfinished:
            digest["unfinished"] = True
        if seen.thoughts:
            digest["thoughts"] = len(seen.thoughts)
        return seen

    def _replayed(self, item_id: str, doc: dict[str, Any], built: Built) -> None:
        scores, error = replayed.recall(self.config, doc, built)
        self._verdicts.setdefault(item_id, {}).update(scores)
        if error:
            self._failed[item_id] = error

    def measured(self, instances: list[PromptInstance], setting: Setting | None = None) -> None:
        """Attach what the engine measured for each item of these requests, under the task's or this setting."""
        sent, own = [i for i in instances if i.resps], self.options.setting
        self._failed |= measured.attach(
            sent, self._built, setting or own, self._before, self.sheet, own.compressed
        )

    def answered(self) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
        """(doc, fields of the item, visible text) of what a judge or extractor grades: one generation an item,
        the first, as everybody sees it; nothing in a run that only predicts."""
        if "bypass" in self._metric_fn_list:
            return
        for instance in self._instances:
            item_id = instance.doc["id"]
            if instance.resps and item_id not in self._failed:
                item = self._by_id[item_id]
                yield unsealed(instance.doc, item), item.fields, self._given[item_id].text

    def process_results(self, doc: Mapping[str, Any], results: list[str]) -> dict[str, float]:
        """Metrics of one item; empty for an item that was not sent."""
        if "bypass" in self._metric_fn_list:
            return {"bypass": 999}
        if not self._asked:
            return self.plain.results(doc, results)
        if doc["id"] in self._failed:
            return {}
        built = self._built[doc["id"]]
        seen = self._given.get(doc["id"])
        if seen is None or results[0] != seen.text:  # a host that calls nothing before this
            seen = self.read(results[0], built)
        return self.scored(doc, seen, built, self._verdicts.get(doc["id"], {}))

    def scored(
        self, doc: Mapping[str, Any], seen: Given, built: Built, verdicts: Mapping[str, float]
    ) -> dict[str, float]:
        """All metrics of one answer, with those that judge or extractor gave."""
        cites = built.digest.get("gold_ids") if self.prompt_format.cites else None
        official = self.prompt_format.name == "official" and self.sheet["scorer"] == "qa"
        scorer = "helmet_official" if official else self.sheet["scorer"]
        marker = scorers.asks_marker(self.prompt_format.user)
        item = self.item(doc)
        doc = unsealed(dict(doc), item)
        scores = scorers.score(scorer, seen, doc, cites, marker=marker, more=self._more, item=item)
        if self.tokens is not None:
            scores["thought_tokens"] = float(seen.thought_tokens(self.tokens.count))
            scores["out_tokens"] = float((seen.n_tokens or 0) + spent(built.digest))
        scores = {**scores, **verdicts}
        return {
            **headline(scores, self.sheet["metric"], doc),
            **scores,
            "unfinished": float(seen.unfinished),
            "truncated": float(built.digest.get("truncated", False)),
        }

    def aggregation(self) -> dict[str, Callable[[list[float]], float]]:
        """lm-eval's own mean, for which it knows `_stderr`; `score_se` respects clusters."""
        return {**dict.fromkeys(self.higher_is_better(), mean), SCORE_SE: clustered_error}

    def higher_is_better(self) -> dict[str, bool]:
        """Direction of each metric."""
        named = {m["metric"]: m.get("higher_is_better", True) for m in self.config.metric_list}
        return {SCORE: named.get(self.sheet["metric"], True), SCORE_SE: False, **named, "bypass": True}
