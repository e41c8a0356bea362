"""LongBench Pro's score of a summary: half the similarity of an embedding model, half ROUGE-L, each by the best
reference (caskcsg/longcontext @ 88fbeb85: `Summary` in LongBench-Pro/modules/utils.py).

The embedding model is Qwen/Qwen3-Embedding-8B. The score has that model's name only with that model: with another
one it is `summary_other`. ROUGE-L is that of the package `rouge` (sentences end at full stops, words are counted
once), restated here because the package recurses once a word and gives up on about a thousand without a full stop;
the official code then counts 0, this one does not. Chinese words are cut by jieba.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import IcrError, install_hint
from .answer_lines import plain
from .judge.config import common, prefixed

OFFICIAL = "Qwen/Qwen3-Embedding-8B"
KEYS = ("model", "revision", "base_url", "device", "batch_size")
NAMES = ("summary", "summary_other", "summary_cosine", "summary_rouge")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class SimilarityConfig:
    """`model`: a hub id, a folder, or a served name with `base_url`; `revision`: a commit of the hub."""

    model: str
    revision: str = ""
    base_url: str | None = None
    device: str | None = None
    batch_size: int = 4

    @classmethod
    def parse(cls, metadata: Mapping[str, Any]) -> SimilarityConfig | None:
        """From `similarity_*` keys; None when there are none. Raises IcrError for what cannot work."""
        given = prefixed(metadata, "similarity_", KEYS)
        if not given:
            return None
        if not given.get("model"):
            raise IcrError(
                f'an embedder needs similarity_model, a hub id or a folder (official: "{OFFICIAL}")'
            )
        texts: dict[str, Any] = {k: str(given[k]) for k in ("revision", "base_url", "device") if given.get(k)}
        numbers = {k: v for k, v in common(given, "similarity_").items() if k == "batch_size"}
        return cls(str(given["model"]), **texts, **numbers)

    @property
    def engine(self) -> dict[str, Any]:
        """How it is run."""
        served = {"url": self.base_url} if self.base_url else {}
        return {"batch": self.batch_size, **({"device": self.device} if self.device else {}), **served}


def official(model: str, revision: str) -> bool:
    """Whether that is the official embedder: its hub id at a known commit, not a folder or a served name."""
    return model == OFFICIAL and bool(_COMMIT.fullmatch(revision))


def scores(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    chinese: Sequence[bool],
    encode: Callable[[Sequence[str]], np.ndarray],
    name: str,
) -> list[dict[str, float]]:
    """The two halves of each answer and, under `name`, their mean. `encode` gives vectors of length 1.

    An empty answer scores 0. Raises IcrError where a Chinese text needs jieba.
    """
    said = [plain(answer) for answer in answers]
    gold = [[plain(r) for r in row] for row in references]
    texts = list(dict.fromkeys(t for a, row in zip(said, gold, strict=True) if a for t in (a, *row)))
    vectors = dict(zip(texts, encode(texts), strict=True)) if texts else {}
    found = []
    for answer, row, zh in zip(said, gold, chinese, strict=True):
        cosine = max(float(vectors[r] @ vectors[answer]) for r in row) if answer else 0.0
        rouge = max(rouge_l(words(answer, zh), words(r, zh)) for r in row) if answer else 0.0
        found.append({name: (cosine + rouge) / 2, "summary_cosine": cosine, "summary_rouge": rouge})
    return found


def words(text: str, chinese: bool = False) -> list[list[str]]:
    """Sentences of words: what stands between full stops; Chinese text cut by jieba."""
    if chinese:
        text = " ".join(_jieba()(text))
    return [" ".join(s.split()).split(" ") for s in text.split(".") if s]


def rouge_l(said: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> float:
    """F of the words in common subsequences of sentences, each word counted once. 0 where there is no sentence."""
    if not said or not gold:
        return 0.0
    union = {word for reference in gold for sentence in said for word in _common(reference, sentence)}
    ours, theirs = len({w for s in said for w in s}), len({w for s in gold for w in s})
    precision, recall = len(union) / ours, len(union) / theirs
    return 2 * precision * recall / (precision + recall + 1e-8)


def _common(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """The longest common subsequence that a walk from the end finds, going on in `b` first where both ways are as
    long."""
    table = [[0] * (len(b) + 1)]
    for x in a:
        above, row = table[-1], [0]
        for n, y in enumerate(b):
            row.append(above[n] + 1 if x == y else max(above[n + 1], row[n]))
        table.append(row)
    i, j, found = len(a), len(b), []
    while i and j:
        if a[i - 1] == b[j - 1]:
            found.append(a[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _jieba() -> Callable[[str], Any]:
    try:
        import jieba
    except ImportError as error:
        raise IcrError(
            f"Chinese summaries are cut into words by jieba: {install_hint('longbench-pro')}"
        ) from error
    jieba.setLogLevel("WARNING")
    return lambda text: jieba.cut(text, cut_all=False)
