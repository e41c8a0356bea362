"""Sequences that were prefilled and compressed alone, put together for decoding: a batch that is padded on the left."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cache import RaggedLayer
from .coded import CodedLayer
from .prefills import OnePrefill
from .session import Session


@dataclass
class Ready:
    """A batch before its first generated token. `stored`: bytes a row after compression; seconds of the prefill and of
    reading the question; `reused`: of which rows the prefill came from an earlier run."""

    batch: Any
    session: Session
    logits: Tensor  # (rows, vocabulary)
    stored: list[int]
    prefill: float
    question: float
    reused: list[bool]


@dataclass
class Compressed:
    """One document after its compression, before any question."""

    session: Session
    logits: Tensor
    stored: list[int]
    prefill: float
    reused: list[bool]

    def fork(self) -> Session:
        """A copy of the state, with its cache, that a question may write to."""
        return copy.deepcopy(self.session, {id(self.session.method): self.session.method})


class Documents:
    """The last document under each setting: one compression for all its questions. Nothing of an earlier one is kept."""

    def __init__(self) -> None:
        self.prefill = OnePrefill()
        self.compressions = 0
        self._ids: tuple[int, ...] = ()
        self._name = ""
        self._found: Compressed | None = None

    def get(self, ids: Sequence[int], name: str) -> Compressed | None:
        """The compressed document of these tokens under the setting `name`, or None."""
        return self._found if (tuple(ids), name) == (self._ids, self._name) else None

    def put(self, ids: Sequence[int], name: str, found: Compressed) -> None:
        """Keep this one and forget the last."""
        self._ids, self._name, self._found = tuple(ids), name, found
        self.compressions += 1


def join(parts: list[Ready], batch: Any) -> Ready:
    """One batch of several, in order; `batch` has its prompts and an empty cache."""
    first = parts[0].session
    session = Session(first.method, [0] * len(parts), first.where, first.tail)
    session.decoding, session.room = True, max(part.session.room for part in parts)
    session.tallies = [tally for part in parts for tally in part.session.tallies]
    session.ragged = any(part.session.ragged for part in parts)
    session.untimed = sum(part.session.untimed for part in parts)
    session.cache = batch.cache
    lengths = [part.batch.cache.get_seq_length() for part in parts]
    width = max(lengths)
    for i in first.where:
        layers = [part.batch.cache.layers[i] for part in parts]
        if session.ragged:
            batch.cache.layers[i] = RaggedLayer([row for layer in layers for row in layer.heads], layers[0])
        elif isinstance(layers[0], CodedLayer):
            batch.cache.layers[i] = layers[0]
            layers[0].rows = [row for layer in layers for row in layer.rows]
        else:
            batch.cache.layers[i].update(
                *(left_padded([getattr(x, n) for x in layers], width) for n in ("keys", "values"))
            )
    session.pads = [0 if session.ragged else width - n for n in lengths]
    if first.every and first.tail:
        tails = [part.session.observed()[0] for part in parts]
        longest = max((t.shape[2] for tail in tails for t in tail), default=0)
        queries = [left_padded([tail[i] for tail in tails], longest) for i in range(len(tails[0]))]
        session.recall(queries, first.observed()[1])
    batch.repad(session.pads, session.room)
    return Ready(
        batch,
        session,
        torch.cat([part.logits for part in parts]),
        [size for part in parts for size in part.stored],
        sum(part.prefill for part in parts),
        sum(part.question for part in parts),
        [one for part in parts for one in part.reused],
    )


def left_padded(parts: list[Tensor], width: int) -> Tensor:
    """Tensors (1, heads, n, dim) of several n as one (rows, heads, width, dim)."""
    if len(parts) == 1 and parts[0].shape[2] == width:
        return parts[0]
    out = parts[0].new_zeros(len(parts), parts[0].shape[1], width, parts[0].shape[3])
    for row, part in zip(out, parts, strict=True):
        row[:, width - part.shape[2] :] = part[0]
    return out
