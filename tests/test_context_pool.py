"""What is retrieved from: names in caches, sizes, memory, and BM25's scores, against the same thing written again."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from icr_tasks.benchmarks.base import Prompt, Unit
from icr_tasks.context import pool as pools
from icr_tasks.context.retrieval import bm25, controls, make
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.errors import IcrError
from icr_tasks.registry import RETRIEVERS
from icr_tasks.storage import Lru

TOKENS = TokenCounter(tiny.tokenizer())  # one token a byte
PLAIN = Prompt("plain", "{context}", unit="{text}", joiner="|")


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empty ones: what is put there is looked at."""
    monkeypatch.setattr(pools, "_CACHE", Lru(1 << 20))
    monkeypatch.setattr(bm25, "_TERMS", Lru(1 << 20))
    monkeypatch.setattr(bm25, "_INDEXES", Lru(1 << 20))
    yield


def blake(raw: bytes, size: int) -> str:
    return hashlib.blake2b(raw, digest_size=size).hexdigest()


def cuts(*spans: tuple[int, int]) -> bytes:
    starts, stops = zip(*spans, strict=True)
    return np.array(starts, dtype=np.int32).tobytes() + np.array(stops, dtype=np.int32).tobytes()


# ---- names -----------------------------------------------------------------------------------------------------------


def test_what_names_a_pool_is_its_content_alone() -> None:
    """Stored vectors go by these names: another name voids them all, and equal names of other texts mix them up."""
    given = [Unit("a", "one two", title="T"), Unit("b", " "), Unit("c", "three")]
    pool = pools.documents(given, TOKENS, PLAIN, 40, 0)
    first = f"d{blake(b'one two', 12)}{blake(b'T', 12)}{blake(cuts((0, 7)), 12)}"
    third = f"d{blake(b'three', 12)}{blake(b'', 12)}{blake(cuts((0, 5)), 12)}"
    assert [group.key for group in pool.groups] == [first, third]
    assert pool.key == blake(f"{first}|{third}".encode(), 16)
    title = hashlib.sha256(b"T").hexdigest()[:8]
    assert [group.recipe for group in pool.groups] == [
        f"{blake(b'one two', 12)}{title}-35", f"{blake(b'three', 12)}-35"
    ]  # fmt: skip
    assert [group.members.tolist() for group in pool.groups] == [[0], [1]]
    assert pool.owner.tolist() == [0, 2] and pool.total == 7 + 1 + 5 + 1
    names = sorted((pools.text_key(f"{u.title}\n{u.text}"), i) for i, u in enumerate(given))
    (group,) = pools.passages(given).groups
    digest = hashlib.sha256("".join(name for name, _ in names).encode()).hexdigest()[:24]
    assert (group.key, group.recipe, group.members.tolist()) == (f"p{digest}", digest, [i for _, i in names])
    assert blake("\ud800".encode("utf-8", "surrogatepass"), 12) == pools.text_key("\ud800")


@pytest.mark.parametrize("size", [98, 99, 100, 101])
def test_a_long_recipe_is_hashed(size: int) -> None:
    made = pools.passages([Unit("a", "x")])
    recipe = "r" * (size - len("passages|"))
    made.groups[0] = made.groups[0]._replace(recipe=recipe)
    joined = f"passages|{recipe}"
    assert len(joined) == size
    assert made.recipe == (joined if size < 100 else hashlib.sha256(joined.encode()).hexdigest())


class Named:
    """A tokenizer of this many tokens whose state is that JSON text, or that vocabulary."""

    def __init__(self, size: int, state: str = "", vocabulary: dict[str, int] | None = None) -> None:
        self.size, self.state, self.vocabulary = size, state, vocabulary
        if vocabulary is None:
            self.backend_tokenizer = SimpleNamespace(to_str=lambda: self.state)

    def __len__(self) -> int:
        return self.size

    def get_vocab(self) -> dict[str, int]:
        assert self.vocabulary is not None
        return self.vocabulary


def test_a_tokenizer_is_named_by_what_it_does() -> None:
    """Not by truncation, padding or the order of keys; again when tokens were added."""

    def sha(state: Any) -> str:
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    one = Named(3, '{"b": 1, "a": {"y": 1, "x": 2}, "truncation": {"max": 4}, "padding": 1}')
    two = Named(3, '{"a": {"x": 2, "y": 1}, "padding": null, "b": 1}')
    wanted = sha({"a": {"x": 2, "y": 1}, "b": 1})
    assert pools.tokenizer_key(one) == pools.tokenizer_key(two) == wanted
    one.state = '{"b": 2}'
    assert pools.tokenizer_key(one) == wanted, "remembered as long as its size is the same"
    one.size = 4
    assert pools.tokenizer_key(one) == sha({"b": 2})
    slow = Named(2, vocabulary={"b": 1, "a": 0})
    assert pools.tokenizer_key(slow) == sha([["a", 0], ["b", 1]])


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("size", [4, 8, 12, 13, 20, 255, 256, 512])
@pytest.mark.parametrize("joiner", ["", "|", "-----"])
def test_the_room_of_a_chunk(size: int, joiner: str, exact: bool) -> None:
    """What stands around a chunk, and a few tokens for the cut, are taken off; eight must be left, or all of a
    smaller chunk. Raw pieces have it all."""
    prompt = Prompt("plain", "{context}", unit="{text}", joiner=joiner)
    unit = Unit("a", "abc " * 200)
    assert pools.frame(unit, TOKENS, prompt) == len(joiner)
    room = size if exact else size - len(joiner) - 4 - size // 256
    if room < min(8, size):
        with pytest.raises(
            IcrError, match=f"a chunk of {size} tokens has no room .*\\({len(joiner)} tokens\\)"
        ):
            pools.documents([unit], TOKENS, prompt, size, 0, exact=exact)
        return
    pool = pools.documents([unit], TOKENS, prompt, size, 0, exact=exact)
    assert pool.groups[0].recipe == f"{pools.text_key(unit.text)}-{room}"
    assert pool.size is not None and pool.size[0] - len(joiner) in range(room - room // 8, room + 1)
    assert pool.size.sum() == len(unit.text) + len(joiner) * len(pool) and pool.total == len(unit.text) + len(
        joiner
    )


@pytest.mark.parametrize("overlap", range(6, 14))
def test_an_overlap_of_nearly_a_chunk(overlap: int) -> None:
    """Chunks have room for 11 tokens: the next begins at least one further."""
    pool = pools.documents([Unit("a", "x" * 40)], TOKENS, PLAIN, 16, overlap)
    step = 11 - min(overlap, 10)
    wanted = [(at, min(at + 11, 40)) for at in range(0, 40, step)]
    last = next(n for n, (_, stop) in enumerate(wanted) if stop == 40)
    assert list(zip(pool.start.tolist(), pool.stop.tolist(), strict=True)) == wanted[: last + 1]


def test_a_text_of_nothing_has_no_chunk() -> None:
    found = pools.split("", TOKENS, 8)
    assert [len(column) for column in found[:3]] == [0, 0, 0] and found.total == 0
    assert len(pools.documents([], TOKENS, PLAIN, 20, 0)) == 0


def test_chunks_are_remembered_with_what_they_take() -> None:
    text = "word " * 500
    found = pools.chunks(text, "key", TOKENS, 8)
    again = pools.split(text, TOKENS, 8, 0, snap=True)
    assert all((a == b).all() for a, b in zip(found[:3], again[:3], strict=True))
    arrays = sum(column.nbytes for column in found[:3])
    assert arrays <= pools._CACHE.bytes <= arrays + 1000
    assert pools.chunks("other", "key", TOKENS, 8) is found, "one content has one name"
    assert pools.chunks(text, "key", TOKENS, 8, 1) is not found
    assert pools.chunks(text, "key", TOKENS, 8, snap=False) is not found


def test_which_chunks_and_texts_a_pool_has() -> None:
    given = [Unit("a", "one two three", gold=True), Unit("b", "four", title="T")]
    pool = pools.documents(given, TOKENS, PLAIN, 16, 0)
    assert pool.gold().tolist() == [given[o].gold for o in pool.owner] and set(pool.owner) == {0, 1}
    assert list(pool.texts()) == [pool.text(i) for i in range(len(pool))]
    assert list(pool.texts([len(pool) - 1])) == ["T\nfour"]
    assert "".join(pool.unit(i).text for i in range(len(pool) - 1)) == "one two three"


# ---- BM25 and the controls -------------------------------------------------------------------------------------------


def lucene(texts: list[str], query: str) -> list[float]:
    """Robertson's formula as Lucene has it: no (k1 + 1), idf of ln(1 + (N - n + .5) / (n + .5))."""
    terms = [[w for w in text.lower().split() if w not in bm25.package()[1]] for text in texts]
    mean = sum(map(len, terms)) / len(terms)
    out = [0.0] * len(texts)
    for word in query.lower().split():
        n = sum(word in those for those in terms)
        for i, those in enumerate(terms):
            tf = those.count(word)
            idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
            out[i] += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(those) / mean)) if tf else 0.0
    return out


@pytest.mark.parametrize("seed", range(12))
def test_scores_of_bm25(seed: int) -> None:
    draw = random.Random(seed)
    words = ["rain", "harbour", "the", "Night", "log", "naïve", "of", "x1"]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(draw.randint(2, 9))]
    if not any(w.lower() not in bm25.package()[1] for text in texts for w in text.split()):
        texts[0] += " rain"
    units = [Unit(str(i), text) for i, text in enumerate(texts)]
    for pool in (pools.passages(units), pools.documents(units, TOKENS, PLAIN, 400, 0)):
        for query in [*words, "rain harbour unknown", "log Log rain", "unknown", "the", ""]:
            found = make("bm25", {}).scores(pool, query)
            assert found.tolist() == pytest.approx(lucene(texts, query), abs=1e-4), query


def test_no_passage_has_a_word_to_search_by() -> None:
    pool = pools.passages([Unit("a", "the of"), Unit("b", "!?"), Unit("c", "and")])
    assert make("bm25", {}).scores(pool, "the rain").tolist() == [0.0, 0.0, 0.0]


def test_indexes_are_remembered_with_what_they_take() -> None:
    pool = pools.documents([Unit("a", "rain harbour"), Unit("b", "log rain night")], TOKENS, PLAIN, 60, 0)
    make("bm25", {}).scores(pool, "rain")
    found = bm25._INDEXES.get(pool.key)
    assert found is not None
    arrays = [found.engine.scores[name] for name in ("data", "indices", "indptr")]
    assert bm25._INDEXES.bytes == sum(a.nbytes for a in arrays) + found.vocabulary.nbytes
    terms = [bm25._TERMS.get(group.key) for group in pool.groups]
    assert bm25._TERMS.bytes == sum(t.hashes.nbytes + t.bounds.nbytes for t in terms if t is not None)
    assert len(bm25._TERMS) == 2 and [t.bounds.tolist() for t in terms if t is not None] == [[0, 2], [0, 3]]
    alone = pools.documents([Unit("c", "a book of its own")], TOKENS, PLAIN, 60, 0)
    make("bm25", {}).scores(alone, "book")
    assert len(bm25._TERMS) == 2, "nothing else meets a document on its own"


def test_a_pool_in_another_order_shares_the_index() -> None:
    texts = ["rain harbour", "log rain night", "night"]
    one, two = (pools.passages([Unit(t, t) for t in those]) for those in (texts, texts[::-1]))
    first = make("bm25", {}).scores(one, "harbour rain").tolist()
    assert make("bm25", {}).scores(two, "harbour rain").tolist() == first[::-1]
    assert len(bm25._INDEXES) == 1


def test_which_retrievers_are_references_and_may_fork() -> None:
    facts = {
        entry.name: entry.facts["reference"] for entry in RETRIEVERS.entries() if entry.origin == "icr_tasks"
    }
    assert {name for name, reference in facts.items() if reference} == {"oracle", "random", "head"}
    forks = {name for name in facts if getattr(RETRIEVERS[name], "forks", False)}
    assert forks == {"bm25", "oracle", "random", "head"}


def test_the_controls_score_as_they_say() -> None:
    given = [Unit("a", "one"), Unit("b", "two", gold=True), Unit("c", "three")]
    pool, empty = pools.passages(given), pools.documents([], TOKENS, PLAIN, 20, 0)
    assert make("oracle", {}).scores(pool, "q").tolist() == [0.0, 1.0, 0.0]
    assert make("oracle", {}).scores(empty, "q").tolist() == []
    with pytest.raises(IcrError, match="needs gold passages"):
        make("oracle", {}).scores(pools.passages(given[:1]), "q")
    assert make("head", {}).scores(pool, "q").tolist() == [0.0, -1.0, -2.0]
    assert make("head", {}).rank(pools.documents(given, TOKENS, PLAIN, 40, 0), "q").tolist() == [0, 1, 2]
    drawn = make("random", {}).scores(pool, "q").tolist()
    assert drawn == make("random", {"seed": 0}).scores(pool, "q").tolist()
    assert drawn != make("random", {"seed": 1}).scores(pool, "q").tolist()
    assert make("random", {}).scores(empty, "q").tolist() == []


class Part:
    """A retriever that keeps what it is told."""

    def __init__(self, name: str, params: Any, engine: Any) -> None:
        self.name, self.made, self.prepared = name, (params, engine), list[Any]()

    def rank(self, pool: Any, query: str) -> np.ndarray:
        return np.arange(len(pool))

    def prepare(self, pools: Any, queries: Any) -> None:
        self.prepared.append((pools, queries))

    def notes(self, pool: Any, query: str) -> dict[str, Any]:
        return {"notes of": self.name, "on": query}

    def describe(self) -> dict[str, Any]:
        return {"about": self.name}


def test_the_hybrid_prepares_both_parts_and_tells_of_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "bare", Part)
    pool = pools.passages([Unit("a", "one"), Unit("b", "two")])
    hybrid: Any = controls.Hybrid({"embedder": "m"}, {"device": "cpu"})
    assert [part.name for part in hybrid.parts] == ["bm25", "dense"]
    assert all(part.made == ({"embedder": "m"}, {"device": "cpu"}) for part in hybrid.parts)
    hybrid.prepare([pool], ["q"])
    assert all(part.prepared == [([pool], ["q"])] for part in hybrid.parts)
    assert hybrid.notes(pool, "q") == {"notes of": "dense", "on": "q"}
    assert hybrid.describe() == {"about": "dense"}
    assert hybrid.scores(pool, "q").tolist() == pytest.approx([2 / 61, 2 / 62])


@pytest.mark.parametrize("retriever", ["bm25", "head", "random", "oracle"])
def test_passages_and_documents_that_stand_there_twice_are_both_ranked(retriever: str) -> None:
    given = [Unit("a", "rain harbour"), Unit("b", "log", gold=True), Unit("c", "rain harbour")]
    for pool in (pools.passages(given), pools.documents(given, TOKENS, PLAIN, 60, 0)):
        found = make(retriever, {})
        scores = found.scores(pool, "harbour")
        assert sorted(found.rank(pool, "harbour").tolist()) == [0, 1, 2]
        if retriever in ("bm25", "oracle"):
            assert scores[0] == scores[2] != scores[1]
