"""Setting rag@k: rank chunks or passages by the question and keep whole ones up to k context tokens.

The tokens are those of the evaluated model's tokenizer over the rendered context (document names and
separators included), so tokens <= k holds exactly. Chunks are taken in rank order until one does not fit,
therefore k - tokens is less than one chunk. A context that fits k as a whole is left as it is: rag@1M of a
short document is `full`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..benchmarks.base import Item, Prompt, Unit
from ..errors import IcrError
from ..metrics.unspaced import CHARACTER
from ..settings import Setting
from . import pool as pools
from .fit import DoesNotFit
from .pool import Pool
from .retrieval import Retriever, make
from .tokens import TokenCounter

SUMMARY_QUERY = "What happens, who is involved and how does it end?"  # for items without a question (En.Sum)
_BATCH = 32


@dataclass(frozen=True)
class Selection:
    """What is shown: `units` in prompt order; `spans` = (document, start, stop) of each, to make them
    again."""

    units: Sequence[Unit]
    spans: list[tuple[int, int, int]]
    digest: dict[str, Any]


def query(item: Item) -> str:
    """The retriever's question: the item's own (no options, no instruction), else its instruction, else a
    fixed one."""
    return item.question.strip() or str(item.fields.get("instruction") or "").strip() or SUMMARY_QUERY


def candidates(
    units: Sequence[Unit], setting: Setting, tokens: TokenCounter, prompt: Prompt, mode: str
) -> Pool:
    """The pool of an item in mode "passages" or "documents". DoesNotFit when there is no text at all."""
    if not any(u.text.strip() for u in units):
        raise DoesNotFit("the documents of this item are empty")
    if mode == "passages":
        return pools.passages(units)
    params = setting.params
    return pools.documents(
        units, tokens, prompt, params["chunk"], params["overlap"], exact=bool(params["paper_compat"])
    )


def retrieve(
    item: Item,
    units: Sequence[Unit],
    setting: Setting,
    tokens: TokenCounter,
    prompt: Prompt,
    *,
    mode: str,
    engine: Mapping[str, Any] | None = None,
) -> Selection:
    """Choose what rag@k shows of `units`. Raises DoesNotFit when no chunk or passage fits k, IcrError
    otherwise."""
    params, k = setting.params, setting.budget
    retriever = make(params["retriever"], params, engine)
    pool = candidates(units, setting, tokens, prompt, mode)
    order = retriever.rank(pool, query(item))
    arrange = "document" if prompt.turns or prompt.ordered else str(params["order"])
    if around := int(params.get("neighbours") or 0):
        if mode == "passages":
            raise IcrError(
                "neighbours= needs documents cut into chunks; the passages of this benchmark have none"
            )
        order = with_neighbours(pool, order, around)
    if params["paper_compat"]:
        shown, spans, n_tokens = _compat(pool, order, k, tokens, prompt)
        whole, ranks = False, None
    else:
        picked, n_tokens, whole = _choose(pool, order, k, tokens, prompt, arrange)
        shown = list(units) if whole else [pool.unit(i) for i in picked]
        spans = [] if whole else [_span(pool, i) for i in picked]
        ranks = _ranks(item, pool, order, picked, marked=mode == "passages")
    share, by = recall(item, units, shown, marked=mode == "passages")
    digest = {
        "k": setting.amount,
        "n_chunks": len(pool),
        "n_kept": len(pool) if whole else len(shown),
        "n_tokens": n_tokens,
        "whole": whole,
        "recall": share,
        "recall_by": by,
        "ranks": ranks,
        "n_gold": sum(u.gold for u in units) if mode == "passages" else None,
        "n_empty": sum(not u.text.strip() for u in units),
        **retriever.describe(),
        **retriever.notes(pool, query(item)),
    }
    return Selection(shown, spans, digest)


def _ranks(
    item: Item, pool: Pool, order: np.ndarray, picked: Sequence[int], *, marked: bool
) -> list[int] | None:
    """Places from 1, in the retriever's order, of the evidence among the chunks shown: gold passages, or the
    first chunk with the answer. None where no answer could stand in a text."""
    needles = [] if marked else answers(item)
    if not marked and not needles:
        return None
    place = {int(chunk): rank for rank, chunk in enumerate(order, 1)}
    shown = sorted(picked, key=lambda chunk: place[chunk])
    if marked:
        return [place[i] for i in shown if pool.units[pool.owner[i]].gold]
    return next(([place[i]] for i in shown if contains(pool.unit(i).text, needles)), [])


def with_neighbours(pool: Pool, order: np.ndarray, around: int) -> np.ndarray:
    """Each chunk followed by those up to `around` places from it in its document, nearest first, without
    repeats.

    A chunk found by its words often breaks off where the answer begins (parent window; LangChain,
    LlamaIndex)."""
    shifts = [0] + [side * step for step in range(1, around + 1) for side in (1, -1)]
    window = np.stack([order + shift for shift in shifts], axis=1)
    inside = (window >= 0) & (window < len(pool))
    same = pool.owner[np.where(inside, window, 0)] == pool.owner[order][:, None]
    flat = window[inside & same]
    _, first = np.unique(flat, return_index=True)
    return flat[np.sort(first)]


def _span(pool: Pool, i: int) -> tuple[int, int, int]:
    return int(pool.owner[i]), int(pool.start[i]), int(pool.stop[i])


def _choose(
    pool: Pool, order: np.ndarray, k: int, tokens: TokenCounter, prompt: Prompt, arrange: str
) -> tuple[list[int], int, bool]:
    """(chunks in prompt order, rendered tokens, whether that is the whole context unchanged)."""
    sizes = _Sizes(pool, order, tokens, prompt)
    if sizes.about(k) and (n := tokens.count(prompt.context(pool.units))) <= k:
        return list(range(len(pool))), n, True
    taken, used = 0, 0
    skipped = 0  # passages at the top that alone exceed k
    while taken < len(order) and used + sizes[taken] <= k:
        used += sizes[taken]
        taken += 1
    while not taken and skipped < len(order) - 1:
        skipped += 1
        taken = int(sizes[skipped] <= k)

    def arranged(count: int) -> tuple[list[int], int]:
        chosen = [int(i) for i in order[skipped : skipped + count]]
        chosen = {"score": chosen, "document": sorted(chosen), "reverse": chosen[::-1]}[arrange]
        return chosen, tokens.count(prompt.context([pool.unit(i) for i in chosen])) if chosen else 0

    chosen, n = arranged(taken)
    while n > k and taken:
        taken -= 1
        chosen, n = arranged(taken)
    # Sizes are of chunks on their own; joined they can be smaller, so that one more fits.
    grown = taken < len(order) - skipped
    while taken and grown and n + sizes[skipped + taken] - _JOIN <= k:
        more, m = arranged(taken + 1)
        grown = m <= k and taken + 1 < len(order) - skipped
        if m <= k:
            taken, chosen, n = taken + 1, more, m
    if not taken:
        what = "passage" if pool.size is None else "chunk"
        raise DoesNotFit(f"not one {what} fits {k} context tokens; the smallest has {min(sizes.all())}")
    return chosen, n, False


_JOIN = 4  # tokens by which a rendered chunk's own size can overstate what it adds


class _Sizes:
    """Rendered tokens of the chunks in rank order, counted in batches as far as they are asked for."""

    def __init__(self, pool: Pool, order: np.ndarray, tokens: TokenCounter, prompt: Prompt) -> None:
        self.pool, self.order, self.tokens, self.prompt = pool, order, tokens, prompt
        self._known: list[int] = [] if pool.size is None else [int(pool.size[i]) for i in order]

    def __getitem__(self, rank: int) -> int:
        while rank >= len(self._known):
            at = len(self._known)
            units = [self.pool.unit(int(i)) for i in self.order[at : at + _BATCH]]
            parts = [part + self.prompt.joiner for part in self.prompt.parts(units)]
            self._known += self.tokens.counts(parts)
        return self._known[rank]

    def about(self, k: int) -> bool:
        """Whether the whole context may fit k: sizes of pieces overstate it by a few tokens each."""
        limit = k + _JOIN * (len(self.order) + 16)
        if self.pool.total is not None:
            return self.pool.total <= limit
        used, rank = 0, 0
        while rank < len(self.order) and used <= limit:
            used += self[rank]
            rank += 1
        return used <= limit

    def all(self) -> list[int]:
        """Sizes of all chunks."""
        return [self[i] for i in range(len(self.order))]


def _compat(
    pool: Pool, order: np.ndarray, k: int, tokens: TokenCounter, prompt: Prompt
) -> tuple[list[Unit], list[tuple[int, int, int]], int]:
    """The released code as it was meant: all chunks in score order, the end cut off at k tokens, inside a
    chunk."""
    chosen: list[int] = []
    total = 0
    for i in map(int, order):
        chosen.append(i)
        total += int(pool.size[i]) if pool.size is not None else tokens.count(pool.unit(i).text)
        if total >= k:
            break
    units = [pool.unit(i) for i in chosen]
    spans = [_span(pool, i) for i in chosen]
    while units and (over := tokens.count(prompt.context(units)) - k) > 0:
        last, (owner, start, _) = units[-1], spans[-1]
        bounds = tokens.offsets(last.text)
        if over >= len(bounds):
            units.pop()
            spans.pop()
            continue
        stop = bounds[len(bounds) - over][0]
        units[-1] = replace(last, text=last.text[:stop])
        spans[-1] = (owner, start, start + stop)
    if not units:
        raise DoesNotFit(f"not one token of context fits {k}")
    return units, spans, tokens.count(prompt.context(units))


__all__ = ["DoesNotFit", "Retriever", "Selection", "candidates", "query", "retrieve"]


# ---- recall --------------------------------------------------------------------------------------
# How much of the evidence a selection kept: by gold passages where they are marked, else by the answer's
# text.


def answers(item: Item) -> list[str]:
    """Answers as they could stand in the text: option texts for letters; [] when no short text would
    (summaries)."""
    found = list(item.answers)
    if item.options and all(a in "ABCD" and len(a) == 1 for a in found):
        found = [item.options["ABCD".index(a)] for a in found]
    return [a for a in found if 1 < len(a) <= 200]


def contains(text: str, needles: Sequence[str]) -> bool:
    """Whether an answer occurs as whole words, whatever its case and spacing."""
    if not needles:
        return False
    flat = _flat(text)
    for needle in map(_flat, needles):
        at = flat.find(needle)
        while at >= 0:
            before, after = flat[at - 1 : at], flat[at + len(needle) : at + len(needle) + 1]
            if not _one_word(before, needle[0]) and not _one_word(needle[-1], after):
                return True
            at = flat.find(needle, at + 1)
    return False


def _one_word(left: str, right: str) -> bool:
    """Whether two characters side by side belong to one word; those of scripts without blanks are words each."""
    return left.isalnum() and right.isalnum() and not (CHARACTER.match(left) or CHARACTER.match(right))


def _flat(text: str) -> str:
    return _flat_long(text) if len(text) > 100_000 else " ".join(text.split()).lower()


@lru_cache(maxsize=2)
def _flat_long(text: str) -> str:
    """Remembered for the next question about the same document."""
    return " ".join(text.split()).lower()


def recall(
    item: Item, units: Sequence[Unit], kept: Sequence[Unit], marked: bool
) -> tuple[float | None, str | None]:
    """(share of the evidence kept, "ids" or "answer"); (None, None) where the evidence is not known.

    By ids with `marked` passages; else 1 or 0 for an answer that occurs in the context at all.
    """
    gold = {id(u): u.id for u in units if u.gold}
    if marked:
        left = sum(u.gold for u in kept)
        return (left / len(gold), "ids") if gold else (None, None)
    needles = answers(item)
    if any(contains(u.text, needles) for u in kept):
        return 1.0, "answer"
    return (0.0, "answer") if any(contains(u.text, needles) for u in units) else (None, None)
