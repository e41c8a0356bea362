"""KeyChain rows (LoongRL, arXiv 2510.19363): the real question hides behind a chain of keys in the context.

The prompt's question names only the first key. Passages say where each key leads; the last one holds the
question that the row's own passages answer. Other chains lead to other questions. The answer stays
verifiable, at any length.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

Record = dict[str, Any]
ASK = "Start at key {key} and follow the keys to the question at the end of the chain. Answer that question."
LINK = "Key {key} leads to key {next}."
LAST = "Key {key} leads to this question: {question}"
_LAST = re.compile(r"Key [0-9a-f-]{36} leads to this question: (.*)", re.DOTALL)


def chain(question: str, links: int, r: random.Random) -> tuple[str, list[str]]:
    """(first key, `links` passages that lead to the question)."""
    keys = [str(uuid.UUID(int=r.getrandbits(128), version=4)) for _ in range(links)]
    out = [LINK.format(key=a, next=b) for a, b in zip(keys, keys[1:], strict=False)]
    return keys[0], [*out, LAST.format(key=keys[-1], question=question)]


def question_of(row: Mapping[str, Any]) -> str:
    """What a finished row (`question`, `gold_docs`) asks in the end: two rows that hide one question name other keys."""
    if str(row["question"]).startswith(ASK.partition("{")[0]):
        for text in row["gold_docs"]:
            if found := _LAST.fullmatch(text):
                return found[1]
    return str(row["question"])


def hide(row: Record, others: Sequence[str], links: int, seed: int) -> Record:
    """The row with its question behind a chain; a chain for each question of `others` misleads.

    The links are gold: without them the question is not known. Negatives, answers and gold passages stay as
    they are.
    """
    r = random.Random(f"{seed}/keychain/{row['id']}")
    first, gold = chain(row["question"], links, r)
    noise = [link for other in others for link in chain(other, links, r)[1]]
    return row | {
        "question": ASK.format(key=first),
        "gold_texts": [*row["gold_texts"], *gold],
        "negatives": [*noise, *row["negatives"]],
    }


def hidden(
    row: Record, verdict: Record, asked: Sequence[str], links: int, seed: int, chains: int = 3
) -> tuple[Record, Record]:
    """`hide` with `chains` other questions of `asked`, and the verdict's positions moved with the
    negatives."""
    r = random.Random(f"{seed}/others/{row['id']}")
    pool = [q for q in asked if q != row["question"]]
    others = r.sample(pool, min(chains, len(pool)))
    shift = len(others) * links
    moved = {k: [i + shift for i in verdict[k]] for k in ("gold", "removed")}
    return hide(row, others, links, seed), verdict | moved
