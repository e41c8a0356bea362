"""What is retrieved, against the same thing written again in a few lines, on many small inputs."""

from __future__ import annotations

import hashlib
import math
import random
import re
from typing import Any

import numpy as np
import pytest
import tiny

from icr_tasks.benchmarks.base import Item, Prompt, Unit
from icr_tasks.context import pool as pools
from icr_tasks.context import quality, retrieve
from icr_tasks.context.build import DoesNotFit
from icr_tasks.context.retrieval import bm25, iterate, make
from icr_tasks.context.retrieval.controls import Hybrid
from icr_tasks.context.tokens import TokenCounter

TOKENS = TokenCounter(tiny.tokenizer())  # one token a byte
PLAIN = Prompt("plain", "{context}", unit="{text}", joiner="|")


def units(*sizes: int, gold: tuple[int, ...] = ()) -> list[Unit]:
    return [Unit(str(i), "abcdefghij"[i] * size, gold=i in gold) for i, size in enumerate(sizes)]


def rendered(those: list[Unit]) -> int:
    return len("|".join(unit.text for unit in those))


@pytest.mark.parametrize("arrange", ["score", "document", "reverse"])
@pytest.mark.parametrize("seed", range(60))
def test_what_is_chosen_of_passages(seed: int, arrange: str) -> None:
    """In rank order until one does not fit; where the first is too long on its own, from the first that fits."""
    draw = random.Random(seed)
    given = units(*(draw.randint(1, 9) for _ in range(draw.randint(1, 8))))
    order = draw.sample(range(len(given)), len(given))
    k = draw.randint(2, rendered(given) + 2)
    pool = pools.passages(given)

    def chosen() -> tuple[list[int], int, bool]:
        return retrieve._choose(pool, np.array(order), k, TOKENS, PLAIN, arrange)

    if rendered(given) <= k:
        assert chosen() == (list(range(len(given))), rendered(given), True)
        return
    fitting = [rank for rank, i in enumerate(order) if len(given[i].text) + 1 <= k]
    if not fitting:
        least = min(len(u.text) + 1 for u in given)
        with pytest.raises(
            DoesNotFit, match=f"not one passage fits {k} context tokens; the smallest has {least}"
        ):
            chosen()
        return
    first = fitting[0]
    most = max(n for n in range(len(order)) if rendered([given[i] for i in order[first : first + n]]) <= k)
    taken = order[first : first + most]
    wanted = {"score": taken, "document": sorted(taken), "reverse": taken[::-1]}[arrange]
    assert chosen() == (wanted, rendered([given[i] for i in taken]), False)


@pytest.mark.parametrize("seed", range(40))
def test_what_the_released_code_would_show(seed: int) -> None:
    """All passages in rank order, and the text after k tokens cut away."""
    draw = random.Random(seed)
    given = units(*(draw.randint(1, 9) for _ in range(draw.randint(1, 6))))
    order = draw.sample(range(len(given)), len(given))
    k = draw.randint(1, rendered(given) + 3)
    shown, spans, n = retrieve._compat(pools.passages(given), np.array(order), k, TOKENS, PLAIN)
    text = "|".join(given[i].text for i in order)[:k]
    # a separator that nothing follows is none
    assert "|".join(unit.text for unit in shown) == text.removesuffix("|") and n == len(
        text.removesuffix("|")
    )
    assert [(o, a) for o, a, _ in spans] == [(i, 0) for i in order[: len(shown)]]
    assert [b for _, _, b in spans] == [len(unit.text) for unit in shown]
    with pytest.raises(DoesNotFit):
        retrieve._compat(pools.passages(given), np.array(order), 0, TOKENS, PLAIN)


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_is_found_as_whole_words(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(50):
        text = "".join(draw.choice("aB1. -_\n") for _ in range(draw.randint(0, 14)))
        needle = "".join(draw.choice("Ab1.-_") for _ in range(draw.randint(1, 3)))
        before = r"(?<![^\W_])" if needle[0].isalnum() else ""
        after = r"(?![^\W_])" if needle[-1].isalnum() else ""
        wanted = re.search(before + re.escape(needle) + after, " ".join(text.split()), re.IGNORECASE)
        assert retrieve.contains(text, ["zz", needle]) == bool(wanted), (text, needle)
    long = "x " * 60_000 + "Ab.\n c" + " y" * 10
    assert retrieve.contains(long, ["ab. C"]) and not retrieve.contains(long, ["ab.c"])


def item(*answers: str, **more: Any) -> Item:
    return Item("q", more.pop("question", "?"), answers, "q", lambda: [], **more)


def test_answers_that_could_stand_in_a_text() -> None:
    assert retrieve.answers(item("a", "ab", "x" * 200, "x" * 201)) == ["ab", "x" * 200]
    options = ("one", "two", "three", "four")
    assert retrieve.answers(item("B", "D", options=options)) == ["two", "four"]
    assert retrieve.answers(item("B", "Dad", options=options)) == ["Dad"]
    for text in ("Bo", "AB", "BCD"):
        assert retrieve.answers(item(text, options=options)) == [text]
    assert retrieve.answers(item("x", "red", options=options)) == ["red"]
    assert retrieve.query(item(question="  ", fields={"instruction": " Sum up. "})) == "Sum up."
    assert retrieve.query(item(question=" who? ", fields={"instruction": "no"})) == "who?"
    assert retrieve.query(item(question="")) == retrieve.SUMMARY_QUERY


@pytest.mark.parametrize("seed", range(30))
def test_the_share_of_the_evidence_that_is_kept(seed: int) -> None:
    draw = random.Random(seed)
    given = [
        Unit(str(i), draw.choice(["it is here", "not"]), gold=draw.random() < 0.4)
        for i in range(draw.randint(1, 5))
    ]
    kept = [unit for unit in given if draw.random() < 0.5]
    gold = [unit for unit in given if unit.gold]
    share = len([unit for unit in kept if unit.gold]) / len(gold) if gold else None
    assert retrieve.recall(item("is here"), given, kept, True) == (share, "ids" if gold else None)
    there, shown = ("here" in "".join(unit.text for unit in some) for some in (given, kept))
    wanted = (float(shown), "answer") if there else (None, None)
    assert retrieve.recall(item("is here"), given, kept, False) == wanted


@pytest.mark.parametrize("seed", range(30))
def test_ranks_of_the_evidence_that_is_shown(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.randint(1, 7)
    given = [
        Unit(str(i), draw.choice(["it is here", "not"]) + f" {i}", gold=draw.random() < 0.4) for i in range(n)
    ]
    order = draw.sample(range(n), n)
    picked = draw.sample(range(n), draw.randint(1, n))
    pool = pools.passages(given)
    found = retrieve._ranks(item("is here"), pool, np.array(order), picked, marked=True)
    assert found == sorted(order.index(i) + 1 for i in picked if given[i].gold)
    found = retrieve._ranks(item("is here"), pool, np.array(order), picked, marked=False)
    assert found == sorted(order.index(i) + 1 for i in picked if "here" in given[i].text)[:1]
    assert retrieve._ranks(item("x"), pool, np.array(order), picked, marked=False) is None


@pytest.mark.parametrize("seed", range(30))
def test_neighbours_nearest_first_in_their_own_document(seed: int) -> None:
    draw = random.Random(seed)
    text = "aa bb cc dd ee ff gg hh ii jj kk ll mm nn oo pp qq rr "
    pool = pools.documents([Unit("a", text), Unit("b", text[:40])], TOKENS, PLAIN, 17, 0)
    order = draw.sample(range(len(pool)), len(pool) // 2)
    around = draw.randint(1, 3)
    wanted: list[int] = []
    for i in order:
        for j in [i] + [i + side * step for step in range(1, around + 1) for side in (1, -1)]:
            if 0 <= j < len(pool) and pool.owner[j] == pool.owner[i] and j not in wanted:
                wanted.append(j)
    assert retrieve.with_neighbours(pool, np.array(order), around).tolist() == wanted


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("exact", [False, True])
def test_chunks_of_a_document(seed: int, exact: bool) -> None:
    """At most `size` tokens with what stands around them; they end before a word where one begins near by."""
    draw = random.Random(seed)
    size = draw.randint(16, 60)
    overlap = draw.randint(0, draw.choice([12, size]))
    text = "".join(draw.choice(["ab ", "c", "d ", "longer words\n", "x" * 9]) for _ in range(60))
    pool = pools.documents(
        [Unit("e", " \n"), Unit("b", text, title="T")], TOKENS, PLAIN, size, overlap, exact=exact
    )
    assert pool.size is not None and set(pool.owner) == {1}
    room = size if exact else size - 1 - 4  # the separator, and what a cut may add
    step = min(overlap, room - 1)
    at, wanted = 0, []
    while True:
        stop = min(at + room, len(text))
        if not exact and stop < len(text):
            lowest = max(stop - room // 8, at + step + 1)
            bounds = [i for i in range(lowest, stop + 1) if text[i].isspace() or text[i - 1].isspace()]
            stop = bounds[-1] if bounds else stop
        wanted.append((at, stop))
        if stop == len(text):
            break
        at = max(stop - step, at + 1)
    assert list(zip(pool.start.tolist(), pool.stop.tolist(), strict=True)) == wanted
    assert pool.size.tolist() == [b - a + 1 for a, b in wanted] and pool.total == len(text) + 1
    assert pool.text(0) == f"T\n{text[: wanted[0][1]]}" and pool.unit(0).text == text[: wanted[0][1]]


def test_what_names_and_seeds_a_document() -> None:
    """The name of a text is a hash of it; the recipe, which seeds what is drawn, knows text, title and room."""
    assert pools.text_key("x") == hashlib.blake2b(b"x", digest_size=12).hexdigest()
    recipes = [
        pools.documents([Unit("a", text, title=title)], TOKENS, PLAIN, size, 0).groups[0].recipe
        for text, title, size in (
            ("ab cd", "", 20),
            ("ab cd", "T", 20),
            ("ab cd", "U", 20),
            ("ab ce", "", 20),
            ("ab cd", "", 21),
        )
    ]
    assert len(set(recipes)) == 5
    pool = pools.documents([Unit("a", "ab cd")], TOKENS, PLAIN, 20, 3)
    exact = pools.documents([Unit("a", "ab cd")], TOKENS, PLAIN, 20, 3, exact=True)
    assert (pool.chunking, exact.chunking) == ("20+3", "20+3e")
    assert pool.recipe == f"20+3|{pool.groups[0].recipe}"
    assert recipes[0] == f"{pools.text_key('ab cd')}-{20 - 1 - 4}"


class Told:
    """A retriever that ranks as it is told, and keeps what it was asked."""

    forks = True

    def __init__(self, orders: dict[str, list[int]]) -> None:
        self.orders, self.asked = orders, list[str]()

    def rank(self, pool: Any, query: str) -> np.ndarray:
        self.asked.append(query)
        return np.array(self.orders[query])

    def notes(self, pool: Any, query: str) -> dict[str, Any]:
        return {"own": 1}

    def describe(self) -> dict[str, Any]:
        return {"embedder": "m"}


class Asker:
    """Asks for parts p1 and p2, then for what it was told after each reading."""

    def __init__(self, *further: list[str]) -> None:
        self.later, self.read = list(further), list[list[str]]()

    def parts(self, query: str) -> list[str]:
        return ["p1", " ", "p1", "p2"]

    def further(self, query: str, read: list[tuple[str, str]], titles: list[str]) -> list[str]:
        assert titles == ["T0"]
        self.read.append([text for _, text in read])
        return self.later.pop(0)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_searching_again_after_reading(parts: bool, rounds: int) -> None:
    draw = random.Random(3)
    given = [Unit(str(i), "abcdefghij"[i], title="T0" if i == 0 else "") for i in range(10)]
    orders = {name: draw.sample(range(10), 10) for name in ("q", "p1", "p2", "f1", "f2")}
    inner, asker = Told(orders), Asker(["f1", "q", ""], ["f2"], ["f1"])
    several = iterate.Several(inner, {"decompose": parts, "iterate": rounds})  # type: ignore[arg-type]
    several.asker = asker  # type: ignore[assignment]
    pool = pools.passages(given)

    def turns(names: list[str]) -> list[int]:
        return list(dict.fromkeys(orders[name][place] for place in range(10) for name in names))

    names, read = ["q", *(["p1", "p2"] if parts else [])], []
    for new in (["f1"], ["f2"], [])[:rounds]:
        read.append([given[i].text for i in turns(names)[: 3 * len(names)]])
        names += new
    assert several.rank(pool, "q").tolist() == turns(names) and asker.read == read
    assert several.notes(pool, "q") == {"own": 1, "queries": names[1:]}
    assert inner.asked == names, "the notes search again"
    assert several.describe() == {"embedder": "m", "asker": "rules"}


def test_no_stop_word_is_a_term() -> None:
    words = sorted(bm25.package()[1])
    assert not any(len(bm25._hash(word)) for word in words) and len(words) > 30
    empty = pools.documents([Unit("a", " ")], TOKENS, PLAIN, 20, 0)
    assert make("bm25", {}).scores(empty, "cats").tolist() == []
    assert bm25._hash("The Cats and THE cats, naïve").tolist() == [hash("cats"), hash("cats"), hash("naïve")]
    assert bm25._hash("“rain” — log_1, x-ray").tolist() == [hash(w) for w in ("rain", "log_1", "x", "ray")]
    assert bm25._hash("rain -- log_1, x-ray").tolist() == [hash(w) for w in ("rain", "log_1", "x", "ray")]


def test_two_lists_are_fused_by_reciprocal_rank() -> None:
    hybrid = Hybrid.__new__(Hybrid)
    one, two = [2, 0, 1, 3], [3, 2, 1, 0]
    hybrid.parts = [Told({"q": one}), Told({"q": two})]  # type: ignore[list-item]
    found = hybrid.scores(pools.passages(units(1, 1, 1, 1)), "q")
    assert found.tolist() == pytest.approx(
        [1 / (61 + one.index(i)) + 1 / (61 + two.index(i)) for i in range(4)]
    )


def test_measures_by_question_type() -> None:
    def digest(recall: float | None, ranks: list[int] | None, n_gold: int | None = None) -> dict[str, Any]:
        return {"recall": recall, "ranks": ranks, "n_gold": n_gold}

    two = quality.measured(digest(0.5, [2, 5], 3))
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert two == {
        "recall": 0.5,
        "mrr": 0.5,
        "ndcg": pytest.approx((1 / math.log2(3) + 1 / math.log2(6)) / best),
    }
    assert quality.measured(digest(0.0, [])) == {"recall": 0.0, "mrr": 0.0, "ndcg": 0.0}
    assert quality.measured(digest(None, [1])) is None and quality.measured(digest(1.0, None)) is None
    assert (
        quality.type_of({"level": 0, "difficulty": "x"}) == "level 0"
        and quality.type_of({"kind": None}) == "all"
    )
    hit, miss, unknown = digest(1.0, [1]), digest(0.0, []), digest(None, None)
    items = [({"kind": "a"}, "c1"), ({"kind": "b"}, "c2"), ({}, "c3"), ({"kind": "a"}, "c4")]
    found = quality.by_type(items, [hit, miss, hit, unknown])
    assert {name: [cluster for _, cluster in those] for name, those in found.items()} == {
        "all": ["c1", "c2", "c3"], "kind a": ["c1"], "kind b": ["c2"]
    }  # fmt: skip
    assert list(quality.by_type(items[2:], [hit, hit])) == ["all"], "one type is no division"
