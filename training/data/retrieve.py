"""Stage 3: the top-k passages of each question. `bm25`, or an embedder by name with exact search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.context.retrieval.embedder import Embedder
from icr_tasks.errors import IcrError

from . import dense, read
from .config import Config
from .corpus import Texts
from .store import Manifest, Record, key_of, write
from .store import read as rows_of

OUTPUT = "hits.parquet"
COLUMNS = {"id": "str", "pids": "ints", "scores": "floats"}
_BATCH = 256


def bm25(questions: Sequence[str], texts: Texts, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(scores, passage numbers) a question, best first. The index holds the whole corpus in memory (docs: up to 5 M)."""
    try:
        import bm25s
    except ImportError as error:
        raise IcrError("bm25 retrieval needs bm25s: pip install icr-tasks[rag]") from error
    index = bm25s.BM25()
    tokens = bm25s.tokenize(texts.block(0, len(texts)), stopwords="en", show_progress=False)
    index.index(tokens, show_progress=False)
    for start in range(0, len(questions), _BATCH):
        asked = bm25s.tokenize(
            list(questions[start : start + _BATCH]), stopwords="en", show_progress=False, return_ids=False
        )
        ids, scores = index.retrieve(asked, k=k, show_progress=False)
        yield from zip(scores, ids, strict=True)


def by_vectors(cfg: Config, folder: Path, questions: Sequence[str], texts: Texts, k: int) -> Iterator[Any]:
    """As `bm25`, with an embedder; vectors stay in `vectors/` for the next run."""
    embedder = Embedder(cfg.embedder)
    asked = {"auto": embedder.prompt("query"), "none": ""}.get(cfg.query_prompt, cfg.query_prompt)
    home = folder / "vectors" / f"{embedder.slug}-{key_of(Manifest.load(folder).stages['corpus']['files'])}"
    paths = dense.shards(home, len(texts), texts.block, embedder)
    scores, ids = dense.search(embedder.encode([asked + q for q in questions]), paths, k)
    yield from zip(scores, ids, strict=True)


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write hits.parquet."""
    asked = list(rows_of(folder / read.OUTPUT, ["id", "question"]))
    texts = Texts(folder)
    k = min(cfg.top_k, len(texts))
    questions = [row["question"] for row in asked]
    found = bm25(questions, texts, k) if cfg.embedder == "bm25" else by_vectors(cfg, folder, questions, texts, k)

    def rows() -> Iterator[Record]:
        for row, (scores, ids) in zip(asked, found, strict=True):
            yield {"id": row["id"], "pids": [int(i) for i in ids], "scores": [round(float(s), 6) for s in scores]}

    return {"rows": write(folder / OUTPUT, rows(), COLUMNS), "hits a row": k, "passages": len(texts)}
