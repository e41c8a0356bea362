"""icr_synth_rag: retrieval questions over a fictional world, generated from a seed, in HELMET's record shape.

No model has seen it, gold passages alone give the answer, and nothing has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...errors import IcrError, unknown
from ...metrics import scorers
from .. import helmet_rag as helmet
from ..base import Item, ItemSet, Unit
from ..declare import Group, benchmark, grid
from ..paper_prompts import PROMPTS
from . import names, parts, short
from .world import DOMAINS, KINDS, TYPES, Question, World, contains, make, passage

VERSION = "1"
DEPTHS = (0.0, 0.33, 0.67, 1.0)
# Passages at each nominal length: a ~100-word passage of invented names is about 150 tokens.
_PER_4K = 24
PASSAGES = (
    {"512": 2, "1k": 5, "2k": 11}
    | {f"{n}k": _PER_4K * n // 4 for n in (4, 8, 16, 32, 64, 128, 256, 512)}
    | {"1M": _PER_4K * 256}
)
_HARD_SHARE, _HARD_MAX = 0.4, 40  # distractors that share the gold's surface form


def load(
    dataset: str = "rag",
    length: str | None = None,
    *,
    seed: int = 0,
    n: int = 100,
    split: str = "test",
    kinds: Sequence[str] = (),
    domain: str | None = None,
    passages: int | None = None,
    depths: Sequence[float] = DEPTHS,
    **_: Any,
) -> ItemSet:
    """`n` questions at a nominal length, the same at every length; gold positions cycle through `depths`.

    `passages` overrides the number of passages. Dataset `short` (or `short_<domain>`) has passages of one
    sentence (`synth/short.py`). Deterministic in all arguments. Raises IcrError for unknown names.
    """
    if dataset != "rag":
        head, _sep, name = dataset.partition("_")
        if head != "short":
            raise unknown(
                "synth dataset", dataset, ("rag", "short", *(f"short_{d}" for d in short.RELATIONS))
            )
        return short.load(
            name or domain, length, seed=seed, n=n, split=split, passages=passages, depths=depths
        )
    k = parts.count(length, passages, PASSAGES, split, kinds, set(TYPES))
    if domain is not None and domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    world = World(seed, split)
    if k < 2:
        raise IcrError(f"{k} passage cannot hold two gold passages; use at least 2")
    items = []
    for number in range(n):
        question = make(world, number, kinds, domain)
        cluster = f"synth-{VERSION}-{split}-{seed}-{domain or 'all'}-{number}"
        depth = depths[number % len(depths)]
        keys = {
            "length": length or f"{k} passages",
            "depth": depth,
            "kind": question.kind,
            "domain": domain or "all",
        }
        units = partial(_units, world, question, number, depth, k)
        items.append(Item(cluster, question.text, question.answers, cluster, units, keys=keys))
    revision = f"{VERSION}-{split}-seed{seed}"
    return ItemSet(items, n, "generated", revision, True)


def _units(world: World, question: Question, number: int, depth: float, k: int) -> list[Unit]:
    """Passages in prompt order: the first gold at `depth`, the others and the distractors in seeded order."""
    r = names.rng(world.seed, world.split, "order", number, depth)
    golds = [Unit(_id(g.name), passage(g, number), g.name, gold=True) for g in question.golds]
    units = _distractors(world, question, number, k - len(golds))
    names.rng(world.seed, "shuffle", number).shuffle(units)
    first = min(round(depth * (k - 1)), k - 1)
    for extra in golds[1:]:
        units.insert(r.randint(0, len(units)), extra)
    units.insert(first, golds[0])
    return units


def _distractors(world: World, question: Question, number: int, count: int) -> list[Unit]:
    """Passages of other entities; a shared set at the start, so a longer context contains the shorter
    one's."""
    taken = {g.name for g in question.golds}
    open_answer = question.kind in ("single", "hop")
    found: list[Unit] = []
    hard = min(round(count * _HARD_SHARE), _HARD_MAX)
    attempt = 0
    while len(found) < count:
        attempt += 1
        near = len(found) < hard
        gold = question.golds[attempt % len(question.golds)]
        other = (
            world.kin(gold, f"{number}/{attempt}")
            if near and gold.kind != "city"
            else world.entity(KINDS[attempt % 4], f"d{number}/{attempt}")
        )
        text = passage(other, number)
        if other.name in taken or (open_answer and contains(text, question.answers)):
            continue
        if any(g.name in text for g in question.golds):
            continue  # a distractor must not state facts about a gold entity
        taken.add(other.name)
        found.append(Unit(_id(other.name), text, other.name))
    return found


def _id(name: str) -> str:
    return "s-" + name.lower().replace(" ", "-")


_SHORT = {  # one-sentence passages, for models too small to read prose; one data set a domain for studies across them
    "short": ("128", "256", "512", "1k", "2k", "4k"),
    **{f"short_{domain}": ("256",) for domain in ("arts", "biography", "business", "geography")},
}


@benchmark(
    "synth",
    title="Synth",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=scorers.BUNDLES["qa"],
    prompts=PROMPTS,
    source="generated by icr_tasks.benchmarks.synth",
    revision=VERSION,
    license="Apache-2.0",
    **helmet.SUBEM,
    cluster="question",
    scorer="qa",
)
class Synth:
    """Generated from a seed: nothing to fetch, contamination-free, checked by a solver."""

    tasks = [
        *grid(dataset=["rag"], length=PASSAGES, version="2-A"),
        *(t for name, sizes in _SHORT.items() for t in grid(dataset=[name], length=sizes, version="2-A")),
    ]
    groups = [
        Group(
            "icr_synth_short",
            "synth, one-sentence passages",
            [f"icr_synth_short_{n}" for n in _SHORT["short"]],
            "subem",
        ),
        Group("icr_synth_rag", "synth RAG", [f"icr_synth_rag_{n}" for n in PASSAGES], "subem"),
    ]
    load = staticmethod(load)
    files = None
