"""Greedy generation with a compressed cache: dense prefill (in pieces for long prompts), compress, decode.

The first token of a query-aware run comes from the dense prefill, as in RetroInfer. In a query-agnostic run
only the context is prefilled; question tokens meet the compressed cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..base import Method
from ..prefill import SparsePrefill
from . import attention, joined, models, repeat, rotary
from .cache import full_layers, new_cache, stored_bytes
from .moments import Moments
from .prefills import TAIL, OnePrefill, Prefill, PrefillStore
from .report import peak_bytes, report, reset_peak
from .session import Session


@dataclass
class Answer:
    """Generated token ids (without the end token), per-item measurements, seconds, and the logits when asked
    for."""

    tokens: list[int]
    kv: dict[str, Any]
    timing: dict[str, float]
    logits: list[Tensor] = field(default_factory=list)


@dataclass
class Job:
    """What a batch is to do. `stop` tells from the tokens so far whether a sequence is finished.

    `after` tokens at the end of each prompt (the question; a number a prompt, or one for all) are read after
    compression; 0 = query-aware.
    `forced` replaces greedy tokens by given ones (teacher forcing, one sequence): for measuring fidelity.
    `prefills` keeps and reuses the dense prefill of each prompt (not with a press, which changes the
    prefill).
    """

    prompts: list[list[int]]
    max_new: int
    eos: frozenset[int]
    stop: Callable[[Sequence[int]], bool] = lambda tokens: False
    after: int | Sequence[int] = 0
    chunk: int = 4096
    forced: list[int] | None = None
    keep_logits: bool = False
    prefills: PrefillStore | OnePrefill | None = None
    documents: joined.Documents | None = (
        None  # compress a document once for all questions that follow each other
    )
    prefill: str = "dense"  # or "xattention" (`kv.prefill`)
    name: str = ""  # of the setting, as `documents` knows it
    repeat: tuple[list[int], list[int]] = (
        [],
        [],
    )  # tokens that ask for a repetition: from the start, from a place

    @property
    def afters(self) -> list[int]:
        """Question tokens of each prompt."""
        return [self.after] * len(self.prompts) if isinstance(self.after, int) else list(self.after)

    def alone(self, row: int) -> Job:
        """The same for one of the prompts."""
        return replace(self, prompts=[self.prompts[row]], after=self.afters[row])


class _Batch:
    """Left-padded tokens, mask and positions of one batch, and the cache they fill."""

    def __init__(self, model: Any, job: Job, stock: bool = False) -> None:
        self.model, device = model, model.device
        config = model.config.get_text_config()
        width = max(map(len, job.prompts))
        self.pads = [width - len(p) for p in job.prompts]
        self.ids = torch.tensor(
            [[0] * pad + p for pad, p in zip(self.pads, job.prompts, strict=True)], device=device
        )
        self.mask = torch.ones_like(self.ids)
        for row, pad in enumerate(self.pads):
            self.mask[row, :pad] = 0
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        # layers of several kinds see different lengths, which one mask does not fit: such a model runs unpadded
        self.masked = not models.hybrid(config)
        if stock:  # kvpress replaces the layers' tensors itself
            from transformers import DynamicCache

            self.cache: Any = DynamicCache(config=config)
        else:
            self.cache = new_cache(config, width + job.max_new)

    def run(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Feed tokens (batch, q); returns the logits after the last, (batch, vocabulary)."""
        seen = self.cache.get_seq_length()
        return self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : seen + ids.shape[1]] if self.masked else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def repad(self, pads: list[int], more: int) -> None:
        """The cache changed its length: new mask for what is kept plus `more` tokens to come."""
        kept = self.cache.get_seq_length()
        self.mask = torch.ones((len(pads), kept + more), dtype=self.mask.dtype, device=self.mask.device)
        for row, pad in enumerate(pads):
            self.mask[row, :pad] = 0


@torch.inference_mode()
def generate(model: Any, job: Job, method: Method | None) -> list[Answer]:
    """Answers of one batch. `method=None` is full attention through the same code."""
    config = model.config.get_text_config()
    press, several = getattr(method, "press", None), len(job.prompts) > 1
    sparse = job.prefill != "dense"
    if several and (press is not None or sparse or models.hybrid(config) or models.one_piece(config)):
        return [generate(model, job.alone(i), method)[0] for i in range(len(job.prompts))]
    if models.one_piece(config):
        job = replace(job, chunk=max(map(len, job.prompts)))
    reset_peak(model.device)
    _forget(model)
    if several and (any(job.afters) or (method is not None and method.repeats)):
        parts = [_prepared(model, job.alone(i), method) for i in range(len(job.prompts))]
        ready = joined.join(parts, _Batch(model, job))
    else:
        ready = _prepared(model, job, method)
    batch, session = ready.batch, ready.session
    decoding = _now(model)
    with attention.active(session):
        answers = _decode(batch, session, job, ready.logits)
    done = _now(model)
    peak, rows = peak_bytes(model.device), len(answers)
    spent = done - decoding + ready.question - session.untimed
    timing = {"prefill": ready.prefill, "decode": max(spent, 0.0)}
    for b, answer in enumerate(answers):
        answer.timing = {k: round(v / rows, 4) for k, v in timing.items()}
        answer.kv = report(session, b, ready.stored[b], batch.cache, timing, peak)
        answer.kv |= {"prefill_reused": ready.reused[b]} if ready.reused else {}
        if kinds := models.by_design(config):
            rest = answer.kv.get("bytes_other_layers", 0)
            answer.kv["native"] = {"layers": kinds, "bytes": ready.stored[b] + rest}
    return answers


def _prepared(model: Any, job: Job, method: Method | None) -> joined.Ready:
    """Prompts prefilled, compressed, and their questions read: what is left is to decode."""
    (after,) = set(job.afters)
    batch = _Batch(model, job, stock=getattr(method, "press", None) is not None)
    width, documents = batch.ids.shape[1], job.documents if after else None
    if documents is None:
        done = _compressed(batch, job, method)
        session = done.session
    else:
        ids = job.prompts[0][: width - after]
        found = documents.get(ids, job.name)
        if found is None:
            found = _compressed(batch, replace(job, prefills=job.prefills or documents.prefill), method)
            documents.put(ids, job.name, found)
        done, session = found, found.fork()
        session.room = job.max_new + after
    batch.cache, logits = session.cache, done.logits
    batch.repad(session.pads, after + job.max_new)
    with attention.active(session):
        start = _now(model)
        if after:
            logits = _question(batch, session, width - after, models.linear(model.config))
        asked = _now(model) - start
    return joined.Ready(batch, session, logits, done.stored, done.prefill, asked, done.reused)


def _compressed(batch: _Batch, job: Job, method: Method | None) -> joined.Compressed:
    """Everything before the question, prefilled and compressed."""
    model, press, after = batch.model, getattr(method, "press", None), job.afters[0]
    width, where = batch.ids.shape[1], full_layers(model.config.get_text_config())
    if method is not None:
        method.ask(after)
        models.repeatable(method, model.config)
    moments, repeats = method is not None and method.moments, method is not None and method.repeats
    own = press is not None or moments or job.prefill != "dense" or models.hybrid(model.config)
    shared = None if own else job.prefills
    session = Session(method, batch.pads, where, TAIL if shared else 0)
    if job.prefill != "dense":
        session.prefill = SparsePrefill()
    if moments:
        session.moments = Moments(rotary.Rotary(model), method.sink if method else 0, where)
    with attention.active(session):
        if shared is not None:
            logits, seconds, reused = _shared(batch, session, job, shared)
        else:
            start = _now(model)
            with press(model) if press is not None else nullcontext():
                logits = _prefill(batch, width - after, width if press is not None else job.chunk)
            untimed = session.prefill.untimed if session.prefill else 0.0
            seconds, reused = _now(model) - start - untimed, []
        session.prefilled = width - after
        if method is not None and repeats and method.applies(width - after):
            ids, part = job.prompts[0][: width - after], getattr(method, "part", 2048)
            with rotary.kept(model):
                repeat.run(batch, session, ids, job.repeat, part)
        pads = session.finish_prefill(batch.cache, job.max_new + after)
        stored = [stored_bytes(batch.cache, b, pad, where) for b, pad in enumerate(pads)]
    return joined.Compressed(session, logits, stored, seconds, reused)


def _forget(model: Any) -> None:
    """What an earlier prompt left on the model. A masking press (kvpress) leaves its list of keys on the layers; a
    prefill that comes from the store would not clear it, and the next setting would run with it. A rotation of rope_type
    `dynamic` keeps the factors of the longest prompt so far."""
    moving = models.one_piece(model.config)
    for module in model.modules():
        if getattr(module, "masked_key_indices", None) is not None:
            module.masked_key_indices = None
        for name in [n for n in vars(module) if moving and n.endswith("max_seq_len_cached")]:
            setattr(module, name, 0)


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _shared(
    batch: _Batch, session: Session, job: Job, store: PrefillStore | OnePrefill
) -> tuple[Tensor, float, list[bool]]:
    """Logits after the prefill, the seconds of the runs that computed it, and of which rows that was an
    earlier one.

    Each prompt is prefilled alone, or comes from the store; decoding takes them together, padded on the left.
    """
    after = job.afters[0]
    model, end = batch.model, batch.ids.shape[1] - after
    rows = [_one(model, session, job, store, ids[: len(ids) - after]) for ids in job.prompts]
    found = [prefill for prefill, _ in rows]
    for i, layer in enumerate(batch.cache.layers):
        keys, values = (
            joined.left_padded([f.cache[i][part] for f in found], end).to(model.device) for part in (0, 1)
        )
        layer.update(keys, values)
    width = max(f.queries[0].shape[2] for f in found)
    queries = [
        joined.left_padded([f.queries[i] for f in found], width).to(model.device)
        for i in range(session.layers)
    ]
    session.recall(queries, found[0].scales)
    logits = torch.cat([f.logits.to(model.device) for f in found])
    return logits, sum(f.seconds for f in found), [reused for _, reused in rows]


def _one(
    model: Any, session: Session, job: Job, store: PrefillStore | OnePrefill, ids: list[int]
) -> tuple[Prefill, bool]:
    """The prefill of one prompt, and whether an earlier run computed it."""
    found = store.get(ids, session.tail)
    if found is not None:
        return found, True
    alone, seen = (
        _Batch(model, Job([ids], 0, job.eos)),
        Session(None, [0], session.where, session.tail),
    )
    start = _now(model)
    with attention.active(seen):
        logits = _prefill(alone, len(ids), job.chunk)
    seconds = _now(model) - start
    found = Prefill([(x.keys, x.values) for x in alone.cache.layers], *seen.observed(), logits, seconds)
    store.put(ids, found)
    return found, False


def _prefill(batch: _Batch, end: int, chunk: int) -> Tensor:
    logits = None
    for at in range(0, end, chunk):
        stop = min(at + chunk, end)
        logits = batch.run(batch.ids[:, at:stop], batch.positions[:, at:stop])
    assert logits is not None
    return logits


def _question(batch: _Batch, session: Session, start: int, singly: bool) -> Tensor:
    """Question tokens over the compressed cache: one by one for readers (and for models that carry a state), at once for
    evictors (same result, faster)."""
    ids, positions = batch.ids[:, start:], batch.positions[:, start:]
    step = 1 if session.sparse or singly or session.every else ids.shape[1]
    for t in range(0, ids.shape[1], step):
        logits = batch.run(ids[:, t : t + step], positions[:, t : t + step])
        if session.step_done(batch.cache, step):
            batch.repad(session.pads, ids.shape[1] + session.room)
    return logits


def _decode(batch: _Batch, session: Session, job: Job, logits: Tensor) -> list[Answer]:
    answers = [Answer([], {}, {}) for _ in job.prompts]
    positions = batch.positions[:, -1:]
    for t in range(job.max_new):
        chosen = (
            logits.argmax(-1) if job.forced is None else logits.new_tensor([job.forced[t]], dtype=torch.long)
        )
        for b, token in enumerate(chosen.tolist()):
            answer = answers[b]
            if not session.alive[b]:
                continue
            if job.keep_logits:
                answer.logits.append(logits[b].float().cpu())
            if token in job.eos:
                session.alive[b] = False
                continue
            answer.tokens.append(token)
            session.alive[b] = not job.stop(answer.tokens)
        if t + 1 == job.max_new or not any(session.alive):
            break
        positions = positions + 1
        logits = batch.run(chosen.unsqueeze(1), positions)
        if session.step_done(batch.cache):
            batch.repad(session.pads, job.max_new)
    return answers
