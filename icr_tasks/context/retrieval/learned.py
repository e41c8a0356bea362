"""Late interaction and learned sparse retrieval, run by sentence-transformers; their vectors stay in memory.

`late`: every token of the question looks for its best token of the chunk, and these are summed (MaxSim;
Khattab and Zaharia, ColBERT, arXiv 2004.12832). `sparse`: question and chunk as weighted words of a
vocabulary, also words that do not stand in them (Formal et al., SPLADE v2, arXiv 2109.10086). A chunk longer
than the model reads has the score of its best piece.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ... import hub
from ...errors import IcrError
from ...params import Flag, Name, Param
from ...registry import retriever
from ...storage import Lru
from ..pool import Group, Pool
from .base import Retriever
from .embedder import Model
from .engines import knows_words, sentence_transformers
from .reading import Reading, by_bytes, of_folder
from .vectors import name_of

_KEPT: Lru[tuple[str, str], Any] = Lru(512 << 20)  # (model, texts) -> what they were encoded to


def _own(model: str) -> dict[str, Param]:
    """Parameters of a retriever with a model of its own kind."""
    return {"embedder": Name(model), "revision": Name(""), "instruction": Flag(True)}


class Learned(Retriever):
    """Base: `params["embedder"]` names the model. A subclass encodes texts and compares them with a
    question."""

    kind = "model"

    def __init__(self, params: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        super().__init__(params, engine)
        self.model = Model(str(params["embedder"]), str(params.get("revision") or ""), {})

    @abstractmethod
    def _encode(self, loaded: Any, texts: list[str]) -> tuple[Any, int]:
        """(encoded texts, bytes)."""

    @abstractmethod
    def _similar(self, loaded: Any, encoded: Any, query: str) -> np.ndarray:
        """One number an encoded text."""

    def scores(self, pool: Pool, query: str) -> np.ndarray:
        """Of a chunk's best piece."""
        out = np.full(len(pool), -np.inf, dtype=np.float32)
        for group in pool.groups:
            loaded = self._loaded()
            owners, strings = self._pieces(pool, group, loaded)
            key = (self.model.slug, name_of(strings))
            found = _KEPT.get(key)
            if found is None:
                found, nbytes = self._encode(loaded, strings)
                _KEPT.put(key, found, nbytes)
            np.maximum.at(out, group.members[owners], self._similar(loaded, found, query))
        return out

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """What was read of a chunk."""
        loaded = self._loaded()
        n = sum(len(self._pieces(pool, group, loaded)[0]) for group in pool.groups)
        return {**self._reading(loaded).describe(), "n_pieces": n}

    def describe(self) -> dict[str, Any]:
        """Name and pinned revision of the model, and whether its own prompt stands before a question."""
        on = bool(self.params.get("instruction", True))
        return {"embedder": self.model.name, "revision": self.model.revision, "instruction": on}

    @property
    def _prompt(self) -> dict[str, Any]:
        """The model's own prompt for questions unless it is switched off."""
        return {} if self.params.get("instruction", True) else {"prompt": ""}

    def _loaded(self) -> Any:
        return _load(
            self.kind, self.model.place, self.model.commit, self.model.revision, self.engine.get("device")
        )

    def _reading(self, loaded: Any) -> Reading:
        folder = self.model.folder
        found = of_folder(folder) if folder else Reading(None, "no files", by_bytes, False)
        transformer = next(iter(loaded), None) if hasattr(loaded, "__iter__") else None
        for said in (getattr(transformer, "document_length", None), getattr(loaded, "max_seq_length", None)):
            if isinstance(said, int | float) and said < (found.tokens or 10**6):
                found = Reading(int(said), "loaded model", found.count, found.exact)
        return found

    def _pieces(self, pool: Pool, group: Group, loaded: Any) -> tuple[np.ndarray, list[str]]:
        # Three tokens less: a late-interaction model puts a marker before every text.
        read = self._reading(loaded)
        room = None if read.tokens is None else max(read.tokens - 3, 1)
        split = Reading(room, read.source, read.count, read.exact).split(list(pool.texts(group.members)))
        owners = np.repeat(np.arange(len(split)), [len(pieces) for pieces in split])
        return owners, [piece for pieces in split for piece in pieces]


@retriever("late", params=_own("lightonai/GTE-ModernColBERT-v1"))
class Late(Learned):
    """A ColBERT-style model (PyLate, Stanford or sentence-transformers folders)."""

    kind = "MultiVectorEncoder"

    def _encode(self, loaded: Any, texts: list[str]) -> tuple[Any, int]:
        rows = [
            np.asarray(v, dtype=np.float32) for v in loaded.encode_document(texts, show_progress_bar=False)
        ]
        return rows, sum(row.nbytes for row in rows)

    def _similar(self, loaded: Any, encoded: Any, query: str) -> np.ndarray:
        asked = np.asarray(
            loaded.encode_query([query], show_progress_bar=False, **self._prompt)[0], dtype=np.float32
        )
        return maxsim(asked, encoded)


def maxsim(query: np.ndarray, documents: Sequence[np.ndarray]) -> np.ndarray:
    """Sum over the rows of `query` [n, d] of the largest dot product with a row of each document [m, d]."""
    stacked = np.concatenate(documents) @ query.T
    starts = np.cumsum([0, *(len(d) for d in documents)])[:-1]
    return np.maximum.reduceat(stacked, starts, axis=0).sum(axis=1)


@retriever("sparse", params=_own("naver/splade-v3"))
class Sparse(Learned):
    """A SPLADE-style model (sentence-transformers SparseEncoder)."""

    kind = "SparseEncoder"

    def _encode(self, loaded: Any, texts: list[str]) -> tuple[Any, int]:
        found = loaded.encode_document(texts, convert_to_tensor=True, show_progress_bar=False).coalesce()
        return found, found.values().numel() * 20

    def _similar(self, loaded: Any, encoded: Any, query: str) -> np.ndarray:
        import torch

        asked = loaded.encode_query([query], convert_to_tensor=True, show_progress_bar=False, **self._prompt)
        asked = asked.to_dense()
        return torch.sparse.mm(encoded, asked.T.to(encoded.dtype)).squeeze(1).float().cpu().numpy()


@lru_cache(maxsize=2)
def _load(kind: str, place: str, commit: str | None, revision: str, device: str | None) -> Any:
    here, device = hub.local(place, "embedder", commit), hub.checked(device)
    maker = getattr(sentence_transformers(), kind, None)
    if maker is None:
        raise IcrError(f"{kind} needs sentence-transformers >= 6: pip install -U sentence-transformers")
    try:
        model = maker(place, revision=commit, device=device, local_files_only=here)
    except Exception as error:  # hub and torch raise many types; all mean that it does not load
        raise IcrError(f"{place!r} cannot be loaded as {kind}: {type(error).__name__}: {error}") from error
    knows_words(model.tokenizer, place)
    return model
