"""How alike two passages are: the definitions, one pair at a time. `fuzzy` computes the same numbers for
whole rows.

All work on lower-cased text, a character of a script without blanks as a word, all return 0-1, and 0 where a side has nothing to compare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numba import njit

from icr_tasks.metrics.unspaced import spaced

# ---- fuzzy ---------------------------------------------------------------------------------------
# The signals of `similarity` for all gold x negative pairs of a row in one compiled pass.

_SPACE, _FUZZY_WORD, _POINTS, _MOST = 1, 2, 0x110000, 63


@lru_cache(maxsize=1)
def _classes() -> np.ndarray:
    """1 for white space, 2 for word characters, 0 for the rest, by code point, as str and re see them."""
    space = [
        _SPACE if chr(i).isspace() else _FUZZY_WORD if chr(i).isalnum() or i == 95 else 0
        for i in range(_POINTS)
    ]
    return np.array(space, dtype=np.uint8)


def signals(golds: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """float64 (len(SIGNALS), golds, others), in the order of `similarity.SIGNALS`."""
    out = np.zeros((len(SIGNALS), len(golds), len(others)))
    if not len(others):
        return out
    for start in range(0, len(golds), _MOST):
        part = golds[start : start + _MOST]
        lowered = [spaced(text).lower() for text in (*part, *others)]
        ends = np.cumsum([0, *map(len, lowered)])
        codes = np.frombuffer("".join(lowered).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        out[:, start : start + len(part)] = compiled_signals(codes, ends, len(part), _classes())
    return out


def signal(name: str, golds: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """One signal, (golds, others)."""
    return signals(golds, others)[list(SIGNALS).index(name)]


_WORD = re.compile(r"\w+")


def squeeze(text: str) -> str:
    """Lower case, runs of white space as one space."""
    return " ".join(spaced(text).lower().split())


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, lower-cased."""
    return _WORD.findall(spaced(text).lower())


def word_jaccard(a: str, b: str) -> float:
    """Shared words over all words (sets)."""
    one, two = set(words(a)), set(words(b))
    return len(one & two) / len(one | two) if one and two else 0.0


def char_f1(a: str, b: str) -> float:
    """F1 of the two multisets of characters. Any two English passages share most of theirs."""
    a, b = squeeze(a), squeeze(b)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if a and b else 0.0


def _characters(text: str) -> set[str]:
    text = squeeze(text)
    return {text[i : i + 3] for i in range(len(text) - 2)}


def trigram_jaccard(a: str, b: str) -> float:
    """Shared character trigrams over all of them (sets)."""
    one, two = _characters(a), _characters(b)
    return len(one & two) / len(one | two) if one and two else 0.0


def _triples(text: str) -> set[tuple[str, ...]]:
    run = words(text)
    return set(zip(run, run[1:], run[2:], strict=False))


def containment(a: str, b: str) -> float:
    """Shared word trigrams over the smaller side's: high when one passage holds the other, or a good part of
    it."""
    one, two = _triples(a), _triples(b)
    return len(one & two) / min(len(one), len(two)) if one and two else 0.0


SIGNALS: dict[str, Callable[[str, str], float]] = {
    "word_jaccard": word_jaccard,
    "char_f1": char_f1,
    "trigram_jaccard": trigram_jaccard,
    "containment": containment,
}
PAPER = (
    "word_jaccard",
    "char_f1",
    "trigram_jaccard",
)  # appendix A: Jaccard, character F1, n-gram; any of them


def released_mix(a: str, b: str) -> float:
    """The released code's score: 0.4 token_sort + 0.3 partial + 0.3 token_set ratio of rapidfuzz,
    lower-cased."""
    from rapidfuzz import fuzz

    a, b = a.lower(), b.lower()
    return (
        0.4 * fuzz.token_sort_ratio(a, b) + 0.3 * fuzz.partial_ratio(a, b) + 0.3 * fuzz.token_set_ratio(a, b)
    ) / 100


# ---- kernel --------------------------------------------------------------------------------------
# Compiled part of `fuzzy`. Importing this needs numba.

_ONE = np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@njit(cache=True, inline="always")
def _mix(key):  # type: ignore[no-untyped-def]
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


@njit(cache=True)
def _features(codes, classes, chars, features, sizes):  # type: ignore[no-untyped-def]
    """Fill squeezed characters, features[0] words, [1] character trigrams, [2] word trigrams (with repeats),
    and the number of each in sizes. Returns the number of characters."""
    n, n_words = 0, 0
    pending, inside, word = False, False, _BASIS
    for code in codes:
        kind = classes[code]
        if kind == 1:
            pending = n > 0
        else:
            if pending:
                chars[n] = 32
                n, pending = n + 1, False
            chars[n] = code
            n += 1
        if kind == 2:
            word = ((word if inside else _BASIS) ^ np.uint64(code)) * _PRIME
            inside = True
        elif inside:
            features[0, n_words] = _mix(word)
            n_words, inside = n_words + 1, False
    if inside:
        features[0, n_words] = _mix(word)
        n_words += 1
    for i in range(n - 2):
        features[1, i] = (
            (np.uint64(chars[i]) << np.uint64(42))
            | (np.uint64(chars[i + 1]) << np.uint64(21))
            | np.uint64(chars[i + 2])
        )
    for i in range(n_words - 2):
        features[2, i] = _mix(_mix(features[0, i] * _MIX + features[0, i + 1]) * _MIX + features[0, i + 2])
    sizes[0], sizes[1], sizes[2] = n_words, max(n - 2, 0), max(n_words - 2, 0)
    return n


@njit(cache=True)
def compiled_signals(codes, ends, n_gold, classes):  # type: ignore[no-untyped-def]
    """float64 (4, gold, others): word Jaccard, character F1, character trigram Jaccard, word trigram
    containment.

    `codes` are the code points of all lower-cased texts, gold first; text i is codes[ends[i]:ends[i+1]].
    """
    total = len(ends) - 1
    longest, gold_size = 4, ends[n_gold] + 4
    for i in range(total):
        longest = max(longest, ends[i + 1] - ends[i] + 2)
    # Open addressing in powers of two, at most half full; a multiplication spreads the keys over the high
    # bits.
    room, room_shift = 8, np.uint64(61)
    while room < 2 * longest:
        room, room_shift = room * 2, room_shift - _ONE
    table, table_shift = 8, np.uint64(61)
    while table < 2 * gold_size:
        table, table_shift = table * 2, table_shift - _ONE
    room_wrap, table_wrap = np.uint64(room - 1), np.uint64(table - 1)
    chars = np.empty(longest, dtype=np.uint32)
    features = np.empty((3, longest), dtype=np.uint64)
    keys, marks = np.empty((3, room), dtype=np.uint64), np.full((3, room), -1, dtype=np.int32)
    gold_keys, gold_masks = np.empty((3, table), dtype=np.uint64), np.zeros((3, table), dtype=np.int64)
    gold_sizes, lengths = np.zeros((3, n_gold), dtype=np.int64), np.zeros(n_gold, dtype=np.int64)
    place, alphabet = np.full(len(classes), -1, dtype=np.int16), 0
    counts = np.zeros((n_gold, min(gold_size, 32000)), dtype=np.int64)
    mine = np.zeros(min(gold_size, 32000), dtype=np.int64)
    shared, distinct = np.zeros((3, n_gold), dtype=np.int64), np.zeros(3, dtype=np.int64)
    sizes = np.zeros(3, dtype=np.int64)
    out = np.zeros((4, n_gold, total - n_gold))
    for doc in range(total):
        n = _features(codes[ends[doc] : ends[doc + 1]], classes, chars, features, sizes)
        if doc < n_gold:
            lengths[doc] = n
            for i in range(n):
                if place[chars[i]] < 0 and alphabet < counts.shape[1]:
                    place[chars[i]] = alphabet
                    alphabet += 1
                counts[doc, place[chars[i]]] += 1
        else:
            mine[:alphabet] = 0
            for i in range(n):
                if place[chars[i]] >= 0:
                    mine[place[chars[i]]] += 1
            shared[:] = 0
        for kind in range(3):
            distinct[kind] = 0
            for i in range(sizes[kind]):
                key = features[kind, i]
                spread = key * _MIX
                at = spread >> room_shift
                while marks[kind, at] == doc and keys[kind, at] != key:
                    at = (at + _ONE) & room_wrap
                if marks[kind, at] == doc:
                    continue
                marks[kind, at], keys[kind, at] = doc, key
                distinct[kind] += 1
                at = spread >> table_shift
                while gold_masks[kind, at] != 0 and gold_keys[kind, at] != key:
                    at = (at + _ONE) & table_wrap
                if doc < n_gold:
                    gold_keys[kind, at] = key
                    gold_masks[kind, at] |= np.int64(1) << doc
                elif gold_masks[kind, at] != 0:
                    for g in range(n_gold):
                        shared[kind, g] += (gold_masks[kind, at] >> g) & 1
            if doc < n_gold:
                gold_sizes[kind, doc] = distinct[kind]
        if doc < n_gold:
            continue
        for g in range(n_gold):
            col = doc - n_gold
            for kind, row in ((0, 0), (1, 2)):
                if distinct[kind] and gold_sizes[kind, g]:
                    union = distinct[kind] + gold_sizes[kind, g] - shared[kind, g]
                    out[row, g, col] = shared[kind, g] / union
            both = 0
            for a in range(alphabet):
                both += min(mine[a], counts[g, a])
            if n and lengths[g]:
                out[1, g, col] = 2 * both / (n + lengths[g])
            if distinct[2] and gold_sizes[2, g]:
                out[3, g, col] = shared[2, g] / min(distinct[2], gold_sizes[2, g])
    return out
