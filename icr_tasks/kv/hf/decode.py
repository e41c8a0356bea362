"""Greedy generation with a compressed cache: dense prefill (in pieces for long prompts), compress, decode.

The first token of a query-aware run comes from the dense prefill, as in RetroInfer. In a query-agnostic run
only the context is prefilled; question tokens meet the compressed cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError
from ..base import Method
from . import session as attention
from .cache import new_cache, stored_bytes
from .prefills import TAIL, Prefill, PrefillStore
from .session import Session, peak_bytes, report, reset_peak

# ---- models --------------------------------------------------------------------------------------
# Which transformers models a compressed setting may run on, and why not the others.

# Architectures with plain grouped-query attention through AttentionInterface, each tested with random
# weights.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "glm", "phi3")


def check(config: Any, what: str) -> None:
    """Raises IcrError when the model's attention is not one the methods are defined for. `what` names the
    setting."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kind = getattr(config, "model_type", "?")
    if getattr(config, "kv_lora_rank", None):
        raise IcrError(
            f"{what} cannot run on {kind}: its latent attention (MLA) caches no keys to choose from; use "
            "setting full"
        )
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or [])
    if layers - {"full_attention"} or (window and not layers and getattr(config, "use_sliding_window", True)):
        shape = (
            f"sliding_window={window}"
            if window
            else f"layers of type {', '.join(sorted(layers - {'full_attention'}))}"
        )
        raise IcrError(
            f"{what} cannot run on {kind} with {shape}: budgets and bytes are defined for full attention in "
            "every layer; "
            "use setting full or a model without a sliding window"
        )
    if kind not in ARCHITECTURES:
        raise IcrError(f"{what} is not tested on model type {kind!r}; tested: {', '.join(ARCHITECTURES)}")


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

    `after` tokens at the end of each prompt (the question) are read after compression; 0 = query-aware.
    `forced` replaces greedy tokens by given ones (teacher forcing, one sequence): for measuring fidelity.
    `prefills` keeps and reuses the dense prefill of each prompt (not with a press, which changes the
    prefill).
    """

    prompts: list[list[int]]
    max_new: int
    eos: frozenset[int]
    stop: Callable[[Sequence[int]], bool] = lambda tokens: False
    after: int = 0
    chunk: int = 4096
    forced: list[int] | None = None
    keep_logits: bool = False
    prefills: PrefillStore | None = None


class _Batch:
    """Left-padded tokens, mask and positions of one batch, and the cache they fill."""

    def __init__(self, model: Any, job: Job, n_layers: int, stock: bool) -> None:
        self.model, device = model, model.device
        width = max(map(len, job.prompts))
        self.pads = [width - len(p) for p in job.prompts]
        self.ids = torch.tensor(
            [[0] * pad + p for pad, p in zip(self.pads, job.prompts, strict=True)], device=device
        )
        self.mask = torch.ones_like(self.ids)
        for row, pad in enumerate(self.pads):
            self.mask[row, :pad] = 0
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        if stock:  # kvpress replaces the layers' tensors itself
            from transformers import DynamicCache

            self.cache: Any = DynamicCache()
        else:
            self.cache = new_cache(n_layers, width + job.max_new)

    def run(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Feed tokens (batch, q); returns the logits after the last, (batch, vocabulary)."""
        seen = self.cache.get_seq_length()
        return self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : seen + ids.shape[1]],
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
    n_layers = model.config.get_text_config().num_hidden_layers
    press = getattr(method, "press", None)
    batch = _Batch(model, job, n_layers, stock=press is not None)
    width = batch.ids.shape[1]
    shared = job.prefills if press is None else None
    session = Session(method, batch.pads, n_layers, TAIL if shared else 0)
    reset_peak(model.device)
    _forget_masks(model)
    with attention.active(session):
        if shared is not None:
            logits, seconds, reused = _shared(batch, session, job, shared)
        else:
            start = _now(model)
            with press(model) if press is not None else nullcontext():
                logits = _prefill(batch, width - job.after, width if press is not None else job.chunk)
            seconds, reused = _now(model) - start, []
        session.prefilled = width - job.after
        pads = session.finish_prefill(batch.cache, job.max_new + job.after)
        batch.repad(pads, job.after + job.max_new)
        stored = [stored_bytes(batch.cache, b, pad) for b, pad in enumerate(pads)]
        decoding = _now(model)
        if job.after:
            logits = _question(batch, session, width - job.after)
        answers = _decode(batch, session, job, logits)
        done = _now(model)
    peak, rows = peak_bytes(model.device), len(answers)
    timing = {"prefill": seconds, "decode": max(done - decoding - session.untimed, 0.0)}
    for b, answer in enumerate(answers):
        answer.timing = {k: round(v / rows, 4) for k, v in timing.items()}
        answer.kv = report(session, b, stored[b], batch.cache, timing, peak)
        answer.kv |= {"prefill_reused": reused[b]} if reused else {}
    return answers


def _forget_masks(model: Any) -> None:
    """A masking press (kvpress) leaves its list of keys on the layers; a prefill that comes from the store
    would not clear it, and the next setting would run with it."""
    for module in model.modules():
        if getattr(module, "masked_key_indices", None) is not None:
            module.masked_key_indices = None


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _shared(
    batch: _Batch, session: Session, job: Job, store: PrefillStore
) -> tuple[Tensor, float, list[bool]]:
    """Logits after the prefill, the seconds of the runs that computed it, and of which rows that was an
    earlier one.

    Each prompt is prefilled alone, or comes from the store; decoding takes them together, padded on the left.
    """
    model, end = batch.model, batch.ids.shape[1] - job.after
    rows = [_one(model, session, job, store, ids[: len(ids) - job.after]) for ids in job.prompts]
    found = [prefill for prefill, _ in rows]
    for i, layer in enumerate(batch.cache.layers):
        keys, values = (
            _left_padded([f.cache[i][part] for f in found], end).to(model.device) for part in (0, 1)
        )
        layer.update(keys, values)
    width = max(f.queries[0].shape[2] for f in found)
    queries = [
        _left_padded([f.queries[i] for f in found], width).to(model.device) for i in range(session.layers)
    ]
    session.recall(queries, found[0].scales)
    logits = torch.cat([f.logits.to(model.device) for f in found])
    return logits, sum(f.seconds for f in found), [reused for _, reused in rows]


def _one(model: Any, session: Session, job: Job, store: PrefillStore, ids: list[int]) -> tuple[Prefill, bool]:
    """The prefill of one prompt, and whether an earlier run computed it."""
    found = store.get(ids, session.tail)
    if found is not None:
        return found, True
    alone, seen = (
        _Batch(model, Job([ids], 0, job.eos), session.layers, stock=False),
        Session(None, [0], session.layers, session.tail),
    )
    start = _now(model)
    with attention.active(seen):
        logits = _prefill(alone, len(ids), job.chunk)
    seconds = _now(model) - start
    found = Prefill([(x.keys, x.values) for x in alone.cache.layers], *seen.observed(), logits, seconds)
    store.put(ids, found)
    return found, False


def _left_padded(parts: list[Tensor], width: int) -> Tensor:
    """Tensors (1, heads, n, dim) of several n as one (rows, heads, width, dim)."""
    if len(parts) == 1 and parts[0].shape[2] == width:
        return parts[0]
    out = parts[0].new_zeros(len(parts), parts[0].shape[1], width, parts[0].shape[3])
    for row, part in zip(out, parts, strict=True):
        row[:, width - part.shape[2] :] = part[0]
    return out


def _prefill(batch: _Batch, end: int, chunk: int) -> Tensor:
    logits = None
    for at in range(0, end, chunk):
        stop = min(at + chunk, end)
        logits = batch.run(batch.ids[:, at:stop], batch.positions[:, at:stop])
    assert logits is not None
    return logits


def _question(batch: _Batch, session: Session, start: int) -> Tensor:
    """Question tokens over the compressed cache: one by one for readers, at once for evictors (same result,
    faster)."""
    ids, positions = batch.ids[:, start:], batch.positions[:, start:]
    if not session.sparse:
        logits = batch.run(ids, positions)
        session.step_done(batch.cache, ids.shape[1])
        return logits
    for t in range(ids.shape[1]):
        logits = batch.run(ids[:, t : t + 1], positions[:, t : t + 1])
        session.step_done(batch.cache)
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
        session.step_done(batch.cache)
    return answers
