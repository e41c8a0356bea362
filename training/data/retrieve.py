"""Stage 3: the top-k passages of each question. `bm25`, or an embedder by name with exact search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.context.retrieval import dense
from icr_tasks.context.retrieval.embedder import Embedder
from icr_tasks.errors import IcrError, install_hint
from icr_tasks.metrics.unspaced import spaced

from . import read
from .config import Config
from .corpus import Texts
from .store import Manifest, Record, key_of, write
from .store import read as rows_of

# ---- dense ---------------------------------------------------------------------------------------
# Exact dense retrieval without an index: vectors in memory-mapped shards, block-wise top-k.

SHARD = 100_000  # passages a file: the unit that is not encoded twice
_QUERIES, _PASSAGES = 1024, 16_384  # block of the score matrix: 64 MB in float32


def shards(
    folder: Path,
    total: int,
    texts: Callable[[int, int], Sequence[str]],
    embedder: Embedder,
    size: int = SHARD,
) -> list[Path]:
    """Encode what is not there yet; `folder/00000.npy` holds passages 0..size-1 as float16. Returns all
    shards in order.

    A damaged shard is found by its checksum and encoded again.
    """
    prefix = embedder.prompt("document")
    out: list[Path] = []

    def encode(first: int, after: int) -> Any:
        return embedder.encode([prefix + text for text in texts(first, after)])

    for number, start in enumerate(range(0, total, size)):
        path, stop = folder / f"{number:05}.npy", min(start + size, total)
        dense.get(path, stop - start, partial(encode, start, stop))
        out.append(path)
    return out


def blocks(paths: Sequence[Path], rows: int = _PASSAGES) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first passage, float32 vectors) a block; shards are memory-mapped."""
    first = 0
    for path in paths:
        shard = np.load(path, mmap_mode="r")
        for start in range(0, len(shard), rows):
            yield first + start, np.asarray(shard[start : start + rows], dtype=np.float32)
        first += len(shard)


def _best(scores: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best a row, highest first, ties to the lower id: exact whatever the block size."""
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def search(queries: np.ndarray, paths: Sequence[Path], k: int, **size: Any) -> tuple[np.ndarray, np.ndarray]:
    """(scores, passage numbers), both (n, k): the exact top k by inner product, highest first, ties to the
    lower number."""
    queries = np.asarray(queries, dtype=np.float32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), k), np.iinfo(np.int64).max, dtype=np.int64)
    for first, part in blocks(paths, **size):
        for start in range(0, len(queries), _QUERIES):
            some = slice(start, start + _QUERIES)
            fresh = queries[some] @ part.T
            # Most blocks hold few passages that beat the current k-th best: only those are sorted.
            floor = scores[some, -1:]
            width = int((fresh >= floor).sum(axis=1).max(initial=0))
            if width == 0:
                continue
            width = min(width, k, fresh.shape[1])
            top = _ties(fresh, width)
            values = np.take_along_axis(fresh, top, 1)
            both = np.concatenate([scores[some], values], axis=1)
            scores[some], ids[some] = _best(both, np.concatenate([ids[some], first + top], axis=1), k)
    return scores, ids


def _ties(fresh: np.ndarray, width: int) -> np.ndarray:
    """Columns of the `width` largest values a row, ties to the lower column."""
    if width == fresh.shape[1]:
        return np.broadcast_to(np.arange(width), fresh.shape)
    top = np.argpartition(-fresh, width - 1, axis=1)[:, :width]
    edge = np.take_along_axis(fresh, top, 1).min(axis=1, keepdims=True)
    crowded = (fresh >= edge).sum(axis=1) > width  # equal values at the border: partition chose any of them
    for row in np.flatnonzero(crowded):
        top[row] = np.lexsort((np.arange(fresh.shape[1]), -fresh[row]))[:width]
    return top


OUTPUT = "hits.parquet"
COLUMNS = {"id": "str", "pids": "ints", "scores": "floats"}
_BATCH = 256


def bm25(questions: Sequence[str], texts: Texts, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(scores, passage numbers) a question, best first. The index holds the whole corpus in memory (docs: up
    to 5 M)."""
    try:
        import bm25s
    except ImportError as error:
        raise IcrError(f"bm25 retrieval needs bm25s: {install_hint('rag')}") from error
    index = bm25s.BM25()
    tokens = bm25s.tokenize(
        [spaced(t) for t in texts.block(0, len(texts))], stopwords="en", show_progress=False
    )
    index.index(tokens, show_progress=False)
    for start in range(0, len(questions), _BATCH):
        asked = bm25s.tokenize(
            [spaced(q) for q in questions[start : start + _BATCH]],
            stopwords="en",
            show_progress=False,
            return_ids=False,
        )
        ids, scores = index.retrieve(asked, k=k, show_progress=False)
        yield from zip(scores, ids, strict=True)


def by_vectors(cfg: Config, folder: Path, questions: Sequence[str], texts: Texts, k: int) -> Iterator[Any]:
    """As `bm25`, with an embedder; vectors stay in `vectors/` for the next run."""
    embedder = Embedder(cfg.embedder)
    asked = {"auto": embedder.prompt("query"), "none": ""}.get(cfg.query_prompt, cfg.query_prompt)
    home = folder / "vectors" / f"{embedder.slug}-{key_of(Manifest.load(folder).stages['corpus']['files'])}"
    paths = shards(home, len(texts), texts.block, embedder)
    scores, ids = search(embedder.encode([asked + q for q in questions]), paths, k)
    yield from zip(scores, ids, strict=True)


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write hits.parquet."""
    asked = list(rows_of(folder / read.OUTPUT, ["id", "question"]))
    texts = Texts(folder)
    k = min(cfg.top_k, len(texts))
    questions = [row["question"] for row in asked]
    found = (
        bm25(questions, texts, k) if cfg.embedder == "bm25" else by_vectors(cfg, folder, questions, texts, k)
    )

    def rows() -> Iterator[Record]:
        for row, (scores, ids) in zip(asked, found, strict=True):
            yield {
                "id": row["id"],
                "pids": [int(i) for i in ids],
                "scores": [round(float(s), 6) for s in scores],
            }

    return {
        "rows": write(folder / OUTPUT, rows(), COLUMNS, about="retrieve", total=len(asked)),
        "hits a row": k,
        "passages": len(texts),
    }
