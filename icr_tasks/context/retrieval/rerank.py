"""`rerank=MODEL,depth=50`: the best `depth` chunks of any retriever, ordered anew by a model that reads
question and chunk.

Cross-encoders (Nogueira and Cho, arXiv 1901.04085) run by sentence-transformers; models that answer yes or
no, such as Qwen3-Reranker (arXiv 2506.05176), run by transformers; any server with /v1/rerank ("rerank_url";
vLLM, TEI, Jina, Cohere).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ... import hub
from ...benchmarks.base import fill
from ...errors import IcrError
from ..pool import Pool
from .asker import post
from .base import Reordering, Retriever
from .embedder import Model
from .engines import knows_words, sentence_transformers
from .reading import Reading, by_bytes, of_folder

Score = Callable[[str, list[str]], Sequence[float]]
_YES_NO = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    "Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web '
    "search query, "
    "retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: {text}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


class Rerank(Reordering):
    """`inner` ranks; `params["rerank"]` names the model, `params["depth"]` how many chunks it reads."""

    def __init__(
        self, inner: Retriever, params: dict[str, Any], engine: dict[str, Any] | None = None
    ) -> None:
        super().__init__(params, engine)
        self.inner, self.depth, self.url = (
            inner,
            int(params["depth"]),
            str(self.engine.get("rerank_url") or ""),
        )
        self.model = Model(str(params["rerank"]), "", {"url": self.url} if self.url else {})

    def rank(self, pool: Pool, query: str) -> np.ndarray:
        """The first `depth` by the model, equal scores as the retriever had them, then the rest as it was."""
        order = self.inner.rank(pool, query)
        head = order[: self.depth]
        if not len(head) or not query.strip():
            return order
        asked, owners, pieces = self._pieces(pool, head, query)
        found = np.asarray(self._score()(asked, pieces), dtype=np.float64)
        if found.shape != (len(pieces),) or not np.isfinite(found).all():
            raise IcrError(
                f"reranker {self.model.name!r} returned {found.shape} scores for {len(pieces)} texts, or NaN"
            )
        best = np.full(len(head), -np.inf)
        np.maximum.at(best, owners, found)
        return np.concatenate([head[np.argsort(-best, kind="stable")], order[self.depth :]])

    def _pieces(self, pool: Pool, head: np.ndarray, query: str) -> tuple[str, np.ndarray, list[str]]:
        """(the question as it is read, piece -> number in `head`, pieces that are read whole beside it)."""
        texts = list(pool.texts(head))
        folder = self.model.folder
        read = of_folder(folder) if folder else Reading(None, "no files", by_bytes, False)
        if read.tokens is None:
            return query, np.arange(len(texts)), texts
        room = read.tokens - 4  # a pair has up to four special tokens, of which a text on its own counts two
        asked = Reading(max(room // 2, 3), read.source, read.count, read.exact).head(query)
        split = Reading(room, read.source, read.count, read.exact).split(texts, asked + " ")
        owners = np.repeat(np.arange(len(split)), [len(pieces) for pieces in split])
        return asked, owners, [piece for pieces in split for piece in pieces]

    def _score(self) -> Score:
        if self.url:
            return self._served
        return _load(self.model.place, self.model.commit, self.model.revision, self.engine.get("device"))

    def _served(self, query: str, texts: list[str]) -> list[float]:
        body = {"model": self.model.name, "query": query, "documents": texts}
        answer = post(f"{self.url.rstrip('/')}/rerank", body)
        rows = answer.get("results") if isinstance(answer, dict) else None
        found = {row.get("index"): row.get("relevance_score") for row in rows or []}
        if set(found) != set(range(len(texts))) or None in found.values():
            raise IcrError(f"{self.url}/rerank gave {len(found)} scores for {len(texts)} texts")
        return [float(found[i]) for i in range(len(texts))]

    def prepare(self, pools: Sequence[Pool], queries: Sequence[str]) -> None:
        """As the inner one."""
        self.inner.prepare(pools, queries)

    def notes(self, pool: Pool, query: str) -> dict[str, Any]:
        """As the inner one, and how many chunks were read again."""
        return {**self.inner.notes(pool, query), "n_reranked": min(self.depth, len(pool))}

    def describe(self) -> dict[str, Any]:
        """As the inner one, and the reranker with its revision."""
        return {
            **self.inner.describe(),
            "reranker": self.model.name,
            "reranker_revision": self.model.revision,
        }


@lru_cache(maxsize=1)
def _load(place: str, commit: str | None, revision: str, device: str | None) -> Score:
    here, device = hub.local(place, "reranker", commit), hub.checked(device)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place, revision=commit, local_files_only=here)
        if any("CausalLM" in name for name in config.architectures or ()):
            return _yes_no(place, commit, device, here)
        model = sentence_transformers().CrossEncoder(
            place, revision=commit, device=device, local_files_only=here
        )
    except IcrError:
        raise
    except Exception as error:  # hub, torch and transformers raise many types; all mean that it does not load
        raise IcrError(f"reranker {place!r} cannot be loaded: {type(error).__name__}: {error}") from error
    knows_words(model.tokenizer, place)
    column = _relevant(place, getattr(model.config, "id2label", None) or {}, int(model.num_labels))

    def score(query: str, texts: list[str]) -> Any:
        found = np.asarray(model.predict([(query, text) for text in texts], show_progress_bar=False))
        return found if found.ndim == 1 else found[:, column]

    return score


def _relevant(place: str, labels: dict[int, str], n: int) -> int:
    """Which output says that a chunk is relevant. IcrError where there are several and none is called so."""
    if n == 1:
        return 0
    said = [
        int(i)
        for i, label in labels.items()
        if str(label).lower().replace("_", " ").split()[0]
        in ("relevant", "yes", "true", "positive", "entailment")
    ]
    if len(said) != 1:
        raise IcrError(
            f"reranker {place!r} has {n} labels ({', '.join(map(str, labels.values()))}) and one of them "
            "must be called "
            "relevant, yes, true, positive or entailment; name them in id2label of its config.json"
        )
    return said[0]


def _yes_no(place: str, commit: str | None, device: str | None, here: bool) -> Score:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, revision=commit, local_files_only=here)
    model = AutoModelForCausalLM.from_pretrained(place, revision=commit, local_files_only=here).eval()
    model = model.to(hub.device(device))
    words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("yes", "no")]
    if any(len(ids) != 1 for ids in words):
        raise IcrError(
            f"reranker {place!r} generates text, but 'yes' and 'no' are not words of its vocabulary"
        )
    yes, no = (ids[0] for ids in words)

    @torch.inference_mode()
    def score(query: str, texts: list[str]) -> list[float]:
        out = []
        for text in texts:  # one by one: no padding, the same numbers whatever stands beside it
            prompt = fill(_YES_NO, {"text": text, "query": query})
            ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"].to(
                model.device
            )
            logits = model(input_ids=ids).logits[0, -1].float()
            out.append(float(logits[yes] - logits[no]))
        return out

    return score
