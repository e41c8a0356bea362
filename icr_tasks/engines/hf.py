"""`--model icr-hf`: lm-eval's transformers engine with a compressed KV cache, measured.

    lm_eval --model icr-hf --model_args pretrained=...,kv=cluster,kv_budget=0.018 --tasks icr_infbench_qa
    lm_eval --model icr-hf --model_args pretrained=... --tasks icr_helmet_rag_8k --metadata
    '{"setting":"kv:topk@0.05"}'

Setting `full` goes through the same code and gives stock sdpa's numbers. Decoding is greedy. Likelihoods
under a compressed setting are refused: lm-eval scores them in one dense pass, so they would be the
uncompressed ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from tqdm import tqdm

from .. import hub
from ..errors import IcrError
from ..kv import choose, make
from ..kv.hf import attention, decode, models, repeat, same_logits
from ..kv.hf.joined import Documents
from ..kv.hf.prefills import OnePrefill, PrefillStore
from ..settings import Setting
from . import early, identity, session, thoughts
from .answers import AnswerStore, through

log = logging.getLogger("icr_tasks")
_TAIL = 64  # generated tokens searched for a stop sequence


class IcrHF(HFLM):
    """HFLM whose generate_until follows the run's setting, and whose answers keep their thoughts.

    `kv=METHOD` and `kv_<knob>=` choose a setting here, else the task's setting counts. `prefill_chunk`:
    tokens per dense prefill pass. `store`: folder for finished answers, which are never generated twice.
    `prefill_store`: folder for dense prefills (up to `prefill_store_gb`), which all settings share.
    `compress_once`: every question comes after the compression of its document, which is done once for all of them.
    """

    keeps_thoughts = True

    def __init__(
        self,
        pretrained: Any,
        prefill_chunk: int = 4096,
        store: str | None = None,
        prefill_store: str | None = None,
        prefill_store_gb: float = 20,
        compress_once: bool = False,
        **kwargs: Any,
    ) -> None:
        ours = {k: kwargs.pop(k) for k in list(kwargs) if choose.is_ours(k) or k == "kv_cache_dtype"}
        self.asked = choose.from_args(ours)
        self.documents = Documents() if compress_once else None
        self.prefill_chunk, backend = int(prefill_chunk), kwargs.pop("attn_implementation", None)
        if backend not in (None, "sdpa"):
            raise IcrError(
                f"icr-hf computes attention itself (dense steps by sdpa); attn_implementation={backend} "
                "hides the keys "
                "the methods must see: leave it out"
            )
        if (where := kwargs.get("device")) != "cuda:0":  # which its command names where nobody does
            hub.device(where)
        early.no_cache_type("icr-hf", ours)
        if self.asked is not None:
            self._combined(self.asked)
            if (config := early.configuration({**kwargs, "pretrained": pretrained})) is not None:
                models.refuse(self.asked, config)
        # lm_eval's default device is "cuda", also where there is none
        given = kwargs if torch.cuda.is_available() else {"device": "cpu", **kwargs}
        try:
            super().__init__(
                pretrained,
                **({"attn_implementation": "sdpa"} if isinstance(pretrained, str) else {}),
                **given,
            )
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            super().__init__(pretrained, attn_implementation="eager", **given)  # attention sinks: gpt-oss
        if self.backend != "causal":
            raise IcrError(f"icr-hf needs a decoder-only model, not backend {self.backend!r}")
        capped = models.capped(self.model.config)  # what sdpa leaves out is no reference
        self.own_attention = "eager" if capped else str(self.model.config._attn_implementation)
        self.model.set_attn_implementation(attention.register())
        self._identity: str | None = None  # what the start-up check found wrong; "" when it passed
        if (store or prefill_store) and not isinstance(pretrained, str):
            raise IcrError(
                "store= and prefill_store= need pretrained= as a name or folder, which tells weights apart"
            )
        args = {**kwargs, "pretrained": pretrained, "dtype": str(self.model.dtype)}
        args |= {"compress_once": True} if compress_once else {}
        args |= {"softcap": "applied"} if capped else {}  # answers were stored without it
        args["transformers"] = transformers.__version__
        same = identity.stored(args) if store or prefill_store else {}
        self.store = AnswerStore(store, {**same, "engine": "icr-hf"}) if store else None
        self.prefills: PrefillStore | None = None
        self.last: OnePrefill | None = None  # within a call whose settings share prefills
        if prefill_store:
            here = {"on": self.model.device.type, "chunk": self.prefill_chunk, **identity.versions()}
            self.prefills = PrefillStore(prefill_store, {**same, **here}, prefill_store_gb)

    # -- which setting -------------------------------------------------------------------------------------

    def setting_of(self, request: Any) -> Setting:
        """The setting a request runs under: its own, else that of the model arguments.

        Raises IcrError when the two disagree or the model cannot do it.
        """
        return self._possible(session.setting_of(request))

    def _possible(self, asked: Setting | None) -> Setting:
        found = choose.agree_request(asked, self.asked)
        models.refuse(found, self.model.config)
        self._combined(found)
        return found

    def _combined(self, setting: Setting) -> None:
        early.rules_of_hf(setting, self.documents is not None, self.prefill_chunk)

    def _check_identity(self) -> None:
        """Once an engine, before its first compressed setting. Raises IcrError with what was wrong."""
        if self._identity is None:
            self._identity = ""
            try:
                same_logits.identity(self.model, self.own_attention)
            except IcrError as error:
                self._identity = str(error)
        if self._identity:
            raise IcrError(self._identity)

    def _refusal(self, asked: Setting | None) -> str | None:
        try:
            self._possible(asked)
        except IcrError as error:
            return str(error)
        return None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Stock scoring under `full`; refused under a compressed setting."""
        choose.refuse_scoring(self._possible(None))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Stock scoring under `full`; refused under a compressed setting."""
        choose.refuse_scoring(self._possible(None))
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)

    # -- generation ----------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers in request order; what was measured goes to each request (`engines.session`).

        Requests of one call may have several settings. Raises IcrError when this engine can run none of them,
        and for requests of other tasks of which none took a compressed step.
        """
        asked = [session.setting_of(request) for request in requests]
        refused = session.refuse(asked, self._refusal)
        session.begin(requests)
        done: dict[int, tuple[str, dict[str, Any]]] = {}
        with tqdm(total=len(requests), desc="icr-hf", disable=disable_tqdm) as bar:
            for setting, part in self._order(requests, asked):
                if setting in refused:
                    log.error("%s: %s", setting, refused[setting])
                    answers: Any = ((i, "", {"error": refused[setting]}) for i in part)
                else:
                    bar.set_description(f"icr-hf {self._possible(setting)}")
                    answers = self._generate(requests, part, self._possible(setting))
                for i, text, found in answers:
                    done[i] = text, found
                    session.record(requests[i], found)
                    bar.update()
        self._refuse_inert(requests, [done[i][1] for i in range(len(requests))])
        return [done[i][0] for i in range(len(requests))]

    def _order(
        self, requests: Sequence[Any], asked: Sequence[Setting | None]
    ) -> Iterator[tuple[Setting | None, list[int]]]:
        """Requests that are answered together. Where settings or questions share a prefill (and batches would not be larger
        otherwise), all of one document come before the next, so that memory holds one document's cache whatever the
        number of settings; else all of one setting."""
        everything = range(len(requests))
        alone = self.batch_size in (1, "1") and self.prefills is None and len(set(asked)) > 1
        if self.documents is None and not alone:
            yield from session.by_setting(asked, everything).items()
            return
        self.last = OnePrefill()
        groups: dict[str, list[int]] = {}
        for i in everything:
            text = requests[i].args[0]
            groups.setdefault(
                text[: session.boundary_of(requests[i])] if self.documents else text, []
            ).append(i)
        for group in groups.values():
            yield from session.by_setting(asked, group).items()
        self.last = None

    def _generate(
        self, requests: Sequence[Any], which: list[int], setting: Setting
    ) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(index, text, measured) of requests under one setting; what is stored comes first."""

        def generate(todo: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
            for batch in self._batches(requests, todo, setting):
                answers = self._answer([requests[i] for i in batch], setting)
                for i, (text, found) in zip(batch, answers, strict=True):
                    yield i, text, found

        keys = {i: self._key(requests[i], setting) for i in which}
        for i, text, found, _ in through(self.store, keys, generate):
            yield i, text, found

    @staticmethod
    def _key(request: Any, setting: Setting) -> str:
        more = {"setting": str(setting), **choose.behind(setting)}
        return AnswerStore.key(request.args[0], {**request.args[1], **more})

    def _batches(self, requests: Sequence[Any], todo: list[int], setting: Setting) -> Iterator[list[int]]:
        """Longest prompts first (memory runs out at once or never); one generation config a batch."""
        size = self.batch_size if isinstance(self.batch_size, int) else 1
        kv = setting.kv
        alone = kv is not None and str(kv.method).startswith("press.")
        size = 1 if alone else max(size, 1)
        order = sorted(todo, key=lambda i: (str(requests[i].args[1]), -len(requests[i].args[0])))
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) == size or requests[i].args[1] != requests[batch[0]].args[1]):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _answer(self, requests: list[Any], setting: Setting) -> list[tuple[str, dict[str, Any]]]:
        """One batch. A request that cannot run fails alone: a batch with such a request is done one by
        one."""
        kwargs, kv = self._kwargs(requests[0].args[1], setting), setting.kv
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(kwargs["until"], eos=eos)
        mark = thoughts.mark_of(self)
        ends = [eos] if mark else until  # no other may end the answer inside a thought
        try:
            prompts = [self._encode(r.args[0], kwargs["max_gen_toks"]) for r in requests]
            method = None if kv is None else make(str(kv.method), _budget(kv), _knobs(kv))
            if method is not None:
                self._check_identity()
            job = decode.Job(
                prompts,
                kwargs["max_gen_toks"],
                self._eos(),
                stop=lambda tokens: self._stopped(tokens, ends),
                after=[self._after(r, ids, setting) for r, ids in zip(requests, prompts, strict=True)],
                chunk=self.prefill_chunk,
                prefills=self.prefills or self.last,
                documents=self.documents,
                prefill="dense" if kv is None else kv.params.get("prefill", "dense"),
                name=str(kv or "full"),
                repeat=(self._ids(repeat.WHOLE), self._ids(repeat.FROM)),
            )
            done = decode.generate(self.model, job, method)
        except (IcrError, ValueError) as error:
            if isinstance(error, ValueError) and not (kv and str(kv.method).startswith("press.")):
                raise  # kvpress alone refuses inputs this way
            if len(requests) > 1:
                return [self._answer([r], setting)[0] for r in requests]
            log.warning("%s doc %s: %s", requests[0].task_name, requests[0].doc_id, error)
            return [("", {"error": str(error)})]
        out = []
        for answer in done:
            text, ended = thoughts.whole(self._text(answer.tokens, mark), until, mark)
            ended |= len(answer.tokens) < kwargs["max_gen_toks"] or self._stopped(answer.tokens, ends)
            found: dict[str, Any] = {"kv": {"setting": str(kv or "full"), **answer.kv}}
            found["timing"] = answer.timing
            found["device"] = self._runs_on()
            out.append((text, {**found, "finish_reason": "stop" if ended else "length"}))
        return out

    def _runs_on(self) -> str:
        """`1 x NVIDIA H100 80GB HBM3`, or the processor."""
        import torch

        where = self.model.device
        name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
        spread = {str(d) for d in (getattr(self.model, "hf_device_map", None) or {}).values()}
        return identity.devices(name, count=max(len(spread - {"cpu", "disk"}), 1))

    def _kwargs(self, given: dict[str, Any], setting: Setting) -> dict[str, Any]:
        kwargs = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        early.greedy("icr-hf", kwargs)
        return kwargs

    def _encode(self, prompt: str, max_new: int) -> list[int]:
        ids = self.tok_batch_encode([prompt])[0][0].tolist()
        if len(ids) + max_new > self.max_length:
            raise IcrError(
                f"prompt of {len(ids)} tokens + {max_new} to generate exceeds the model's {self.max_length}; "
                "use a shorter length, or max_length= if the model can do more"
            )
        return ids

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _after(self, request: Any, ids: list[int], setting: Setting) -> int:
        """Tokens of the question part, read after compression; 0 in a query-aware run."""
        if self.documents is None and (setting.kv is None or not early.agnostic(setting.kv)):
            return 0
        if not self.tokenizer.is_fast:
            raise IcrError(
                f"{setting}: this model's tokenizer does not tell where in a text its tokens stand, so the question cannot come "
                "after the context; leave query-agnostic (or compress_once) out"
            )
        offset = session.boundary_of(request)
        if offset is None:
            raise IcrError(
                f"{setting}: this prompt does not say where its context ends; use a task with a context"
            )
        spans = self.tokenizer(request.args[0], return_offsets_mapping=True, add_special_tokens=False)[
            "offset_mapping"
        ]
        after = sum(1 for start, _ in spans if start >= offset)
        if not 0 < after < len(ids):
            raise IcrError(f"{setting}: no tokens follow the context, so the question cannot come after it")
        return after

    def _eos(self) -> frozenset[int]:
        known = self.model.generation_config.eos_token_id
        return frozenset([known] if isinstance(known, int) else known or []) | {self.eot_token_id}

    def _text(self, tokens: Sequence[int], mark: str | None) -> str:
        """The tokens as text; the mark that ends a thought stays, also where it is a special token."""
        parts: list[list[int]] = [[]]
        special = thoughts.hidden(self)
        for token in tokens:
            if token == special:
                parts.append([])
            else:
                parts[-1].append(token)
        return (mark or "").join(self.tok_decode(part) for part in parts)

    def _stopped(self, tokens: Sequence[int], until: list[str]) -> bool:
        tail = self.tokenizer.decode(tokens[-_TAIL:], skip_special_tokens=False)
        return any(s in tail for s in until if s)

    # -- honesty -------------------------------------------------------------------------------------------

    def _refuse_inert(self, requests: Sequence[Any], found: list[dict[str, Any]]) -> None:
        """Requests of other tasks carry no measurements away, so what our own tasks check item by item is
        checked here: a task must have taken a compressed step, and each item what was asked for."""
        theirs = [i for i, request in enumerate(requests) if not session.ours(request)]
        for task in dict.fromkeys(requests[i].task_name for i in theirs):
            part = [found[i] for i in theirs if requests[i].task_name == task]
            checked = choose.verify_all(self._possible(None), part)
            bad = [
                new["error"]
                for old, new in zip(part, checked, strict=True)
                if "error" in new and "error" not in old
            ]
            if bad:
                raise IcrError(f"{task}: {bad[0]}")

    def get_model_info(self) -> dict[str, Any]:
        """HFLM's, the setting of the model arguments where they name one, and the kinds of layers of a model that
        compresses by design, for the results file."""
        own: dict[str, Any] = {} if self.asked is None else {"kv": {"setting": str(self.asked)}}
        own |= {"native": kinds} if (kinds := models.by_design(self.model.config)) else {}
        return {**super().get_model_info(), **own}


def _knobs(setting: Setting) -> dict[str, Any]:
    return {k: v for k, v in setting.extra if k not in ("split", "prefill")}


def _budget(kv: Setting) -> int | float | None:
    return kv.amount if isinstance(kv.amount, int | float) else None
