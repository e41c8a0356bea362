"""Target `trl-env`: the model sees the question alone and searches the passages in turns (GRPOTrainer's
environments).

from icr_tasks.training.export.trl_env import rows, search_environment GRPOTrainer(model=...,
train_dataset=rows("data-search/train.parquet", "ao"), environment_factory=search_environment("ao"))
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icr_tasks.errors import unknown
from icr_tasks.metrics.answers import normalize
from icr_tasks.metrics.unspaced import spaced

from ..data import store
from ..rewards import Row, registry, score
from ..rewards.match import marked

ASK = (
    "Answer the question. The documents are not shown: find them with the tool `search`, as often as you "
    "need. "
    "Finish by calling `answer` with {form}.\n\nQuestion: {question}"
)
# What a reward reads in an answer, in the words of its prompt.
FORMS = {
    "ao": "your final answer",
    "id": "the ids of the documents that it rests on, as [DOC 3], [DOC 7], then a line `The answer is: ...`",
    "idc": "`Relevant documents:`, each document that the answer rests on as [DOC 3] with its whole text below it, "
    "then a line `The answer is: ...`",
    "idq": 'a quote of 10 to 50 words from each document that the answer rests on, as `Quote 1: "..."`, then a line '
    "`Relevant Document IDs: [DOC 3], [DOC 7]`, then a line `The answer is: ...`",
}
HITS = 3


class SearchEnvironment:
    """One rollout: passages to search in, an answer to give. TRL calls `reset` with the row's columns; its
    public methods are the model's tools."""

    reward: str = "ao"
    preset: str = "paper"

    def reset(self, **columns: Any) -> None:
        """Begin the rollout of one row."""
        self._row = Row.of(columns)
        self._passages = [spaced(normalize(p)).split() for p in columns["passages"]]
        self._texts = list(columns["passages"])
        seen = Counter(w for p in self._passages for w in set(p))
        self._weight = {w: math.log(1 + len(self._passages) / n) for w, n in seen.items()}
        self._said, self.searches = "", 0

    def search(self, query: str) -> str:
        """Find the documents that say most about a query.

        Args:
            query: What to look for, in a few words.

        Returns:
            The best documents, each with its number.
        """
        self.searches += 1
        wanted = set(spaced(normalize(query)).split())
        worth = [sum(self._weight[w] for w in wanted & set(p)) / (1 + len(p)) ** 0.25 for p in self._passages]
        best = sorted(range(len(worth)), key=lambda i: (-worth[i], i))[:HITS]
        return (
            "\n\n".join(f"[DOC {i}]\n{self._texts[i]}" for i in best if worth[i] > 0) or "Nothing was found."
        )

    def answer(self, text: str) -> str:
        """Give the final answer.

        Args:
            text: The answer, with the numbers of the documents it rests on where they are asked for.

        Returns:
            A note that the answer was taken.
        """
        self._said = text
        return "The answer was taken."

    def get_reward(self) -> float:
        """The reward of icr-tasks for the answer that was given; 0 without one."""
        text = self._said if marked(self._said) else f"The answer is: {self._said}"
        return score(self.reward, [text if self._said else ""], [self._row], preset=self.preset)[0]["reward"]


def search_environment(reward: str = "ao", preset: str = "paper") -> Callable[[], SearchEnvironment]:
    """A factory for GRPOTrainer's `environment_factory`."""
    return type("SearchEnvironment", (SearchEnvironment,), {"reward": reward, "preset": preset})


def rows(path: str | Path, reward: str = "ao") -> Any:
    """The exported rows, asked for what the reward reads, as a dataset with `prompt` (messages) and the columns that `reset` takes."""
    if reward not in FORMS:
        raise unknown("reward", reward, FORMS)
    from datasets import Dataset

    def every() -> Any:
        for row in store.read(Path(path)):
            yield {
                "prompt": [
                    {"role": "user", "content": ASK.format(question=row["question"], form=FORMS[reward])}
                ],
                **row,
            }

    return Dataset.from_list(list(every()))


def write(args: argparse.Namespace) -> str:
    """Write train.parquet and dev.parquet; returns how to train on them."""
    store.elsewhere(args.out, args.data)
    lines = []
    for part in ("train", "dev"):
        source = args.data / f"{part}.parquet"
        if part == "dev" and not source.is_file():
            continue
        registry.check(store.read(source), args.reward) if part == "train" else None
        found = (row for n, row in enumerate(store.read(source)) if args.limit is None or n < args.limit)
        lines.append(
            f"{args.out / source.name}: {store.write(args.out / source.name, found, store.ROW)} rows"
        )
    given = repr(args.reward) if args.preset == "paper" else f"{args.reward!r}, {args.preset!r}"
    use = f"GRPOTrainer(train_dataset=rows({str(args.out / 'train.parquet')!r}, {args.reward!r}), environment_factory=search_environment({given}))"
    return "\n".join([*lines, "from icr_tasks.training.export.trl_env import rows, search_environment", use])
