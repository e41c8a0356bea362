"""Training rows from the synthetic benchmark's training split, whose names never occur in its test split."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from icr_tasks import benchmarks
from icr_tasks.benchmarks.base import Item
from icr_tasks.errors import IcrError, unknown

from . import pack
from .pack import split
from .store import ROW, Manifest, Record, key_of, write


def rows(
    n: int,
    lengths: Sequence[str],
    *,
    seed: int = 0,
    domains: Sequence[str | None] = (None,),
    families: Sequence[str] = ("rag",),
    **options: object,
) -> Iterator[Record]:
    """`n` rows, an equal share of each family, length and domain; passages in a seeded shuffle, so gold
    positions are uniform (but those of `order`, whose order is what is asked).

    `options` go to the generator (`kinds`, `passages`). Raises IcrError for unknown families, lengths, domains
    and kinds.
    """
    if n < 1:
        raise IcrError(f"--synth {n}: at least one row is needed")
    mixes = [(family, length, domain) for family in families for domain in domains for length in lengths]
    parts = {mix: _items(mix, seed=seed, n=n, **options) for mix in mixes}
    # Question kinds cycle with the number; dealing the mixes out in that order would tie each length to some
    # kinds.
    deal = [mixes[number % len(mixes)] for number in range(n)]
    random.Random(f"{seed}/mix").shuffle(deal)
    for number, (family, length, domain) in enumerate(deal):
        item = parts[family, length, domain][number]
        units = list(item.units())
        if family != "order":
            random.Random(f"{seed}/{item.id}/{length}").shuffle(units)
        gold = [i for i, u in enumerate(units) if u.gold]
        yield {
            "id": f"{item.id}-{length}",
            "dataset": "synth" if family == "rag" else f"synth_{family}",
            "domain": domain or "synth",
            "question": item.question,
            "answers": list(item.answers),
            "passages": [u.text for u in units],
            "gold_ids": gold,
            "gold_docs": [units[i].text for i in gold],
            "original_ids": gold,
            "n_dropped": 0,
        }


FAMILIES = ("rag", "latent", "order")


def _items(mix: tuple[str, str, str | None], **options: Any) -> Sequence[Item]:
    """Training items of (family, length, domain). Sets of names are left out: a reward reads one answer."""
    family, length, domain = mix
    if family not in FAMILIES:
        raise unknown("synth family", family, FAMILIES)
    if family == "rag":
        return benchmarks.load("synth", "rag", length, split="train", domain=domain, **options).items
    if domain is not None:
        raise IcrError(f"--domain {domain}: only the family rag has domains")
    if family == "order":
        options["kinds"] = options.get("kinds") or ("ith", "latest", "count")
    return benchmarks.load(f"synth_{family}", "all", length, split="train", **options).items


def run(folder: Path, *, n: int, dev: float, seed: int, **options: Any) -> dict[str, Any]:
    """Write packed.parquet, train.parquet, dev.parquet and the manifest; returns its entry. A second call
    does nothing."""
    given = {"n": n, "dev": dev, "seed": seed, **options}
    manifest, key = Manifest.load(folder), key_of(given)
    if manifest.fresh("synth", key):
        return manifest.stages["synth"]
    begun = time.perf_counter()
    counts = {"rows": write(folder / pack.OUTPUT, rows(n, seed=seed, **options), ROW)}
    counts |= split(folder / pack.OUTPUT, folder, seed=seed, dev=dev)
    files = {pack.OUTPUT: counts["rows"], "train.parquet": counts["train"], "dev.parquet": counts["dev"]}
    manifest.stages.clear()  # a folder holds one data set
    return manifest.record(
        "synth", key, files, options=given, counts=counts, seconds=round(time.perf_counter() - begun, 2)
    )
