"""Late chunking: a chunk's vector is the mean of its tokens' vectors, made while the embedder reads the text around it
(Günther et al., arXiv 2409.04701).

The document is read in windows as long as the embedder reads; a quarter of each repeats what stands before it and
only gives context, so that each token counts once (the paper's algorithm 2). Question and instruction are those of
`dense`. Only for embedders that average their tokens: others were not trained to be read so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...errors import IcrError
from ...registry import retriever
from ...settings import EMBEDDING
from ..pool import Group, Pool
from .dense import Dense, Now
from .reading import Reading
from .vectors import get, has, name_of

_BEFORE = 4  # one part in so many of a window repeats what stands before it
_BATCH = 16  # windows read at once


@retriever("late_chunking", params=EMBEDDING)
class LateChunking(Dense):
    """`params`: embedder, revision, instruction. Needs documents cut into chunks, and sentence-transformers."""

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """Read and store the documents and the questions that are not stored yet."""
        super().prepare([], queries)
        for pool in pools:
            for group in pool.groups:
                self._stored(self._now(), pool, group)

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """What a window reads, and how many of its tokens repeat what stands before."""
        now = self._now()
        reads = now.reading.tokens
        return {
            **now.reading.describe(),
            "context_before": None if reads is None else reads - _room(reads),
            "n_truncated": int(now.reading.head(query, self.instruction) != query),
        }

    def _stored(self, now: Now, pool: Pool, group: Group) -> tuple[Now, np.ndarray, np.ndarray]:
        if pool.size is None:
            raise IcrError(
                "late_chunking needs documents cut into chunks; the passages of this benchmark have nothing around them"
            )
        rows = np.arange(len(group.members))
        path = self._path(now, group)
        if not has(path, len(rows)):
            self.embedder.load()  # says what it really reads
            now = self._now()
            path = self._path(now, group)
        return now, rows, get(path, len(rows), partial(self._read, now, pool, group))

    def _path(self, now: Now, group: Group) -> Any:
        name = name_of([group.key, now.prefix, str(now.reading.tokens)])
        return now.where / "late-chunking" / name[:2] / f"{name}.npy"

    def _read(self, now: Now, pool: Pool, group: Group) -> np.ndarray:
        """float32 [chunks, dimensions], of length 1; zeros for a chunk without a token (blanks)."""
        model = self.embedder.load().model
        if model is None:
            raise IcrError(
                "late_chunking reads token by token, which sentence-transformers can: leave embed_engine and embed_url out"
            )
        if not model.tokenizer.is_fast:
            raise IcrError(
                f"embedder {self.embedder.name!r} has no fast tokenizer, which tells where its tokens stand"
            )
        after = _after_pooling(model, self.embedder.name)
        unit = pool.units[pool.owner[group.members[0]]]
        ahead = now.prefix + (f"{unit.title}\n" if unit.title else "")
        starts, stops = pool.start[group.members], pool.stop[group.members]
        sums, counts = np.zeros((0, 0)), np.zeros(len(starts))
        for at, places, vectors in _tokens(model, now.reading, ahead, unit.text):
            if not len(sums):
                sums = np.zeros((len(starts), vectors.shape[1]))
            mine = places >= at  # what stands before only gave context
            places, running = places[mine], np.cumsum(vectors[mine], axis=0, dtype=np.float64)
            running = np.concatenate([np.zeros((1, running.shape[1])), running])
            first, last = np.searchsorted(places, starts), np.searchsorted(places, stops)
            sums += running[last] - running[first]
            counts += last - first
        rows = after(sums / np.maximum(counts, 1)[:, None])
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(rows).all():
            raise IcrError(f"embedder {self.embedder.name!r} returned vectors that are not finite")
        return np.where(counts[:, None] > 0, rows / np.where(norm > 0, norm, 1), 0)


def _room(reads: int) -> int:
    """Tokens of a window that are its own."""
    return max(reads - reads // _BEFORE, 1)


def _tokens(model: Any, read: Reading, ahead: str, text: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each window: where its own part begins in `text`, the last character of each token there, and its vector.
    Tokens of `ahead` and special ones are left out."""
    room = None if read.tokens is None else _room(read.tokens)
    pieces = Reading(room, read.source, read.count, read.exact).split([text], ahead)[0]
    windows: list[tuple[int, int, str]] = []  # (own part begins, text begins, what is read)
    at, wanted = 0, max(map(len, pieces)) // (_BEFORE - 1)  # characters
    for piece in pieces:
        before = _words(text, at, min(wanted, at))
        while before and read.overlong([ahead + text[at - before : at] + piece]):
            before = _words(text, at, before // 2)
        windows.append((at, at - before, ahead + text[at - before : at] + piece))
        at += len(piece)
    for batch in (windows[n : n + _BATCH] for n in range(0, len(windows), _BATCH)):
        strings = [string for _, _, string in batch]
        spans = model.tokenizer(strings, return_offsets_mapping=True, truncation=True, max_length=read.tokens)
        out = model.encode(strings, prompt="", output_value=None, batch_size=_BATCH, show_progress_bar=False)
        for (own, begin, _), offsets, one in zip(batch, spans["offset_mapping"], out, strict=True):
            places = np.array([stop - 1 if stop > start else -1 for start, stop in offsets])
            vectors = one["token_embeddings"][one["attention_mask"].bool()].float().cpu().numpy()
            if len(vectors) != len(places):
                raise IcrError(f"an embedder gave {len(vectors)} token vectors for {len(places)} tokens")
            real = places >= len(ahead)
            yield own, places[real] - len(ahead) + begin, vectors[real]


def _words(text: str, at: int, n: int) -> int:
    """At most `n` characters before `at`, from the beginning of a word."""
    return n if n == at else len(text[at - n : at].partition(" ")[2])


def _after_pooling(model: Any, name: str) -> Any:
    """What the embedder does with a mean of token vectors: its modules behind the pooling. IcrError where it pools
    otherwise."""
    import torch

    modules = list(model)
    at = next(
        (
            n
            for n, m in enumerate(modules)
            if hasattr(m, "pooling_mode") or hasattr(m, "get_pooling_mode_str")
        ),
        None,
    )
    if at is None:
        raise IcrError(
            f"embedder {name!r} has no pooling of tokens; late_chunking needs one that averages them"
        )
    pooling = modules[at]
    mode = (
        pooling.get_pooling_mode_str() if hasattr(pooling, "get_pooling_mode_str") else pooling.pooling_mode
    )
    if mode not in ("mean", ("mean",), ["mean"]):
        raise IcrError(f"embedder {name!r} pools by {mode}; late_chunking needs one that averages its tokens")

    @torch.inference_mode()
    def after(means: np.ndarray) -> np.ndarray:
        features = {"sentence_embedding": torch.tensor(means, dtype=torch.float32, device=model.device)}
        for module in modules[at + 1 :]:
            features = module(features)
        return np.asarray(features["sentence_embedding"].float().cpu().numpy())

    return after
