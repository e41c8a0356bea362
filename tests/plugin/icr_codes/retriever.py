"""A retriever with a parameter: passages that share most words of at least `letters` letters with the
question."""

import re
from typing import Any

import numpy as np

import icr_tasks as icr


@icr.retriever("shared", params={"letters": icr.Whole(4, low=1)})
class Shared(icr.Retriever):
    """Score of a chunk: how many different words of the question it has."""

    def scores(self, pool: Any, query: str) -> np.ndarray:
        """One number a chunk, higher is better."""
        words = self.words(query)
        return np.array([float(len(words & self.words(text))) for text in map(pool.text, range(len(pool)))])

    def words(self, text: str) -> set[str]:
        """Words in lower case that are long enough."""
        return {w for w in re.findall(r"\w+", text.lower()) if len(w) >= self.params["letters"]}
