"""Training rows from the synthetic benchmark's training split, whose names never occur in its test split."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from icr_tasks import data
from icr_tasks.errors import IcrError

from .store import Record


def rows(
    n: int, lengths: Sequence[str], *, seed: int = 0, domains: Sequence[str | None] = (None,), **options: object
) -> Iterator[Record]:
    """`n` rows, an equal share of each length and domain; passages in a seeded shuffle, so gold positions are uniform.

    `options` go to the generator (`kinds`, `passages`). Raises IcrError for unknown lengths, domains and kinds.
    """
    if n < 1:
        raise IcrError(f"--synth {n}: at least one row is needed")
    mixes = [(length, domain) for domain in domains for length in lengths]
    parts = {
        mix: data.load("synth", "rag", mix[0], seed=seed, n=n, split="train", domain=mix[1], **options).items
        for mix in mixes
    }
    # Question kinds cycle with the number; dealing the mixes out in that order would tie each length to some kinds.
    deal = [mixes[number % len(mixes)] for number in range(n)]
    random.Random(f"{seed}/mix").shuffle(deal)
    for number, (length, domain) in enumerate(deal):
        item = parts[length, domain][number]
        units = list(item.units())
        random.Random(f"{seed}/{item.id}/{length}").shuffle(units)
        gold = [i for i, u in enumerate(units) if u.gold]
        yield {
            "id": f"{item.id}-{length}", "dataset": "synth", "domain": domain or "synth", "question": item.question,
            "answers": list(item.answers), "passages": [u.text for u in units], "gold_ids": gold,
            "gold_docs": [units[i].text for i in gold], "original_ids": gold, "n_dropped": 0,
        }  # fmt: skip
