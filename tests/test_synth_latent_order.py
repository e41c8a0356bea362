"""The two generated families that cheap tricks cannot pass: gold passages suffice, words and few passages do
not."""

from __future__ import annotations

import re
from dataclasses import replace

import newbench
import numpy as np
import pytest

from icr_tasks import benchmarks
from icr_tasks.benchmarks import synth_latent, synth_order
from icr_tasks.context import pool as pools
from icr_tasks.context.retrieval import make
from icr_tasks.errors import IcrError
from icr_tasks.metrics.named import order
from icr_tasks.settings import Setting

STOP = set(
    re.findall(
        r"\w+", "a an and as at be by for from in is it its of on or that the this to was when which who with"
    )
)


def content(text: str) -> set[str]:
    return {w[:5] for w in re.findall(r"[a-z]+", text.lower()) if w not in STOP}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("length", ["1k", "8k"])
def test_latent_gold_passages_give_every_answer_and_nothing_less_does(length: str, seed: int) -> None:
    for item in benchmarks.load("synth_latent", "all", length, seed=seed).items:
        units = item.units()
        gold = [u.text for u in units if u.gold]
        assert synth_latent.solve(item.question, gold) == item.answers[0]
        assert synth_latent.solve(item.question, [u.text for u in units]) == item.answers[0]
        assert len(gold) == {"class": 1, "link": 2, "chain": 3}[item.keys["kind"]]
        for missing in range(len(gold)):
            assert synth_latent.solve(item.question, gold[:missing] + gold[missing + 1 :]) is None
        assert synth_latent.solve(item.question, [u.text for u in units if not u.gold]) is None
        assert len(units) == synth_latent.PASSAGES[length] and len({u.id for u in units}) == len(units)


def test_latent_question_and_evidence_share_no_content_word() -> None:
    for item in benchmarks.load("synth_latent", "all", "4k", n=200).items:
        [evidence] = [u for u in item.units() if u.gold and u.title == item.answers[0]]
        assert not content(item.question) & content(evidence.text), (item.question, evidence.text)


def test_latent_bm25_finds_the_evidence_no_better_than_chance() -> None:
    places: dict[str, list[float]] = {}
    retriever = make("bm25", Setting.parse("rag@4k").params, {})
    for item in benchmarks.load("synth_latent", "all", "8k", n=200).items:
        units = item.units()
        ranked = list(retriever.rank(pools.passages(units), item.question))
        [evidence] = [n for n, u in enumerate(units) if u.gold and u.title == item.answers[0]]
        places.setdefault(item.keys["kind"], []).append(ranked.index(evidence) / (len(units) - 1))
    for kind, found in places.items():
        assert 0.38 < np.mean(found) < 0.62, (kind, np.mean(found))


def test_lengths_ask_the_same_latent_questions() -> None:
    short, long = (benchmarks.load("synth_latent", "all", length, n=20).items for length in ("1k", "64k"))
    assert [(i.id, i.question, i.answers) for i in short] == [(i.id, i.question, i.answers) for i in long]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("length", ["4k", "16k"])
def test_order_gold_passages_in_their_order_give_every_answer(length: str, seed: int) -> None:
    wrong = 0
    items = benchmarks.load("synth_order", "all", length, seed=seed).items
    for item in items:
        units = item.units()
        gold = [u.text for u in units if u.gold]
        assert synth_order.solve(item.question, gold) == item.answers[0]
        assert synth_order.solve(item.question, [u.text for u in units]) == item.answers[0]
        assert order(f"The answer is: {item.answers[0]}.", item) == 1.0
        turned = synth_order.solve(item.question, gold[::-1])
        wrong += turned != item.answers[0] and item.keys["kind"] in ("ith", "latest")
        half = synth_order.solve(item.question, gold[: len(gold) // 2])
        assert item.keys["kind"] == "ith" or half != item.answers[0]
    assert wrong > 0.4 * len(items) / 2  # the order decides


def test_order_needs_more_passages_than_a_small_budget_shows() -> None:
    mentions = [i.keys["mentions"] for i in benchmarks.load("synth_order", "all", "32k", n=200).items]
    assert min(mentions) >= 3 and max(mentions) == 24 and np.mean(mentions) > 10


@pytest.mark.parametrize(
    ("kind", "said", "score"),
    [
        ("ith", "{right}", 1.0),
        ("ith", "{right} and {other}", 0.0),
        ("ith", "{other}", 0.0),
        ("ith", "", 0.0),
        ("count", "{right}", 1.0),
        ("count", "{right} times", 1.0),
        ("count", "between {right} and 99", 0.0),
        ("count", "many", 0.0),
        ("set", "{right}", 1.0),
        ("set", "nobody", 0.0),
    ],
)
def test_order_counts_only_what_is_said_and_nothing_more(kind: str, said: str, score: float) -> None:
    [item] = benchmarks.load("synth_order", "all", "4k", n=1, kinds=[kind]).items
    other = next(w for w in item.fields["candidates"] if w not in item.fields["gold"] or kind == "set")
    text = said.format(right=item.answers[0], other=other)
    assert order(f"The answer is: {text}", item) == score


def test_a_set_that_is_half_named_earns_its_f1_and_strangers_cost() -> None:
    [item] = benchmarks.load("synth_order", "all", "4k", n=1, kinds=["set"]).items
    gold = item.fields["gold"]
    some = gold[: len(gold) // 2]
    assert order("The answer is: " + ", ".join(some), item) == pytest.approx(
        2 * len(some) / (len(some) + len(gold))
    )
    assert order("The answer is: " + ", ".join([*gold, "Somebody Else"]), item) < 1.0


def test_a_number_word_is_the_number() -> None:
    [item] = benchmarks.load("synth_order", "all", "4k", n=1, kinds=["count"]).items
    item = replace(item, fields={**item.fields, "gold": ["12"]})
    assert order("The answer is: twelve", item) == 1.0 and order("The answer is: Twenty-one", item) == 0.0


@pytest.mark.parametrize(
    ("name", "metric"), [("icr_synth_latent_1k", "subem"), ("icr_synth_order_4k", "order")]
)
def test_oracle_and_junk(name: str, metric: str) -> None:
    right = newbench.scores(newbench.task(name), lambda doc: f"The answer is: {doc['answers'][0]}")
    assert right[metric] == 1.0
    assert newbench.scores(newbench.task(name), lambda doc: "xq zv")[metric] == 0.0


def test_bad_input() -> None:
    for benchmark, options, words in (
        ("synth_latent", {"length": "1b"}, "Did you mean|unknown synth length"),
        ("synth_latent", {"length": "1k", "kinds": ["hop"]}, "question kind"),
        ("synth_latent", {"passages": 3}, "at least 5"),
        ("synth_order", {"length": "4k", "split": "dev"}, "split"),
        ("synth_order", {"passages": 6}, "use at least 24 passages"),
    ):
        with pytest.raises(IcrError, match=words):
            benchmarks.load(benchmark, "all", **options)
