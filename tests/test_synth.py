"""The synthetic benchmark: gold passages suffice, nothing else does, and every machine makes the same
text."""

from __future__ import annotations

import subprocess
import sys

import pytest

from icr_tasks import benchmarks
from icr_tasks.benchmarks.synth import PASSAGES
from icr_tasks.benchmarks.synth.world import contains, guess, solve
from icr_tasks.metrics.answers import subem, subem_word


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("length", ["512", "4k"])
def test_gold_passages_give_every_answer(length: str, seed: int) -> None:
    for item in benchmarks.load("synth", "rag", length, seed=seed).items:
        gold = [u.text for u in item.units() if u.gold]
        assert subem(solve(item.question, gold) or "", item.answers) == 1.0, item.question


def test_without_context_only_chance_is_left() -> None:
    items = benchmarks.load("synth", "rag", "512", n=500).items
    by_kind: dict[str, list[float]] = {}
    for item in items:
        by_kind.setdefault(item.keys["kind"], []).append(subem_word(guess(item.question), item.answers))
    assert sum(by_kind["single"] + by_kind["hop"]) == 0
    for kind in ("comparison", "yesno"):
        assert 0.35 <= sum(by_kind[kind]) / len(by_kind[kind]) <= 0.65
    assert len(by_kind["comparison"] + by_kind["yesno"]) <= 0.2 * len(items)


def test_no_distractor_holds_an_open_answer_or_names_the_gold() -> None:
    for item in benchmarks.load("synth", "rag", "8k", n=40).items:
        units = item.units()
        for unit in units:
            if not unit.gold and item.keys["kind"] in ("single", "hop"):
                assert not contains(unit.text, item.answers)
            if not unit.gold:
                assert not any(g.title in unit.text for g in units if g.gold)


def test_depth_count_and_shared_surface_forms() -> None:
    for length in ("2k", "16k"):
        for item in benchmarks.load("synth", "rag", length, n=20).items:
            units = item.units()
            assert len(units) == PASSAGES[length] and len({u.id for u in units}) == len(units)
            assert units[round(item.keys["depth"] * (len(units) - 1))].gold
            gold_words = {w for u in units if u.gold for w in u.title.split()}
            if item.keys["kind"] != "single":
                assert any(gold_words & set(u.title.split()) for u in units if not u.gold)


def test_lengths_ask_the_same_questions() -> None:
    short, long = (benchmarks.load("synth", "rag", length).items for length in ("512", "64k"))
    assert [(i.id, i.question, i.answers) for i in short] == [(i.id, i.question, i.answers) for i in long]


def test_train_and_test_share_no_names() -> None:
    names = [
        {
            w
            for i in benchmarks.load("synth", "rag", "4k", n=30, split=s).items
            for u in i.units()
            for w in u.title.split()
        }
        for s in ("train", "test")
    ]
    from icr_tasks.benchmarks.synth import names as pools

    common = names[0] & names[1]
    generic = (
        set(pools._TRADE) | set(pools._SUFFIX) | set(pools._TITLE_A) | set(pools._TITLE_B) | {"The", "of"}
    )
    assert common <= generic


def test_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from icr_tasks import benchmarks as data; "
        "print(hashlib.sha256(''.join(u.text for i in data.load('synth','rag','2k',n=8).items for u in "
        "i.units()).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("0", "7")
    }
    assert len(seen) == 1


@pytest.mark.parametrize("domain", [None, "arts", "biography", "business", "geography"])
@pytest.mark.parametrize("split", ["test", "train"])
def test_every_domain_has_names_with_enough_relatives(domain: str | None, split: str) -> None:
    from icr_tasks.benchmarks.synth import short

    for item in short.load(domain, "256", n=300, split=split).items:
        assert len(item.fields["candidates"]) == 3 and sum(u.gold for u in item.units()) == 1


def test_the_official_prompt_of_another_benchmark_is_refused() -> None:
    from icr_tasks.benchmarks import base
    from icr_tasks.errors import IcrError

    assert list(base.table("synth"))[0] == "ao"
    with pytest.raises(IcrError, match="official"):
        base.get("synth", "official", "rag")
