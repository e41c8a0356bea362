"""No benchmark shows its gold at one place: a model, or a control that reads the head of the context, could
learn it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from icr_tasks import benchmarks


@pytest.fixture(autouse=True)
def _data(replica: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def spread(places: list[float], most: float) -> None:
    """No place holds more than the share `most`, and the mean lies well inside."""
    assert len(places) >= 12
    assert max(Counter(places).values()) <= most * len(places), Counter(places)
    assert 0.2 < sum(places) / len(places) < 0.8


@pytest.mark.parametrize(
    ("dataset", "length"), [("nq", "4k"), ("nq", "8k"), ("hotpotqa", "4k"), ("popqa", "4k")]
)
def test_helmet(dataset: str, length: str) -> None:
    items = benchmarks.load("helmet_rag", dataset, length, allow_partial=True).items
    places = []
    for item in items[:120]:
        flags = [unit.gold for unit in item.units()]
        places.append(flags.index(True) / (len(flags) - 1))
        assert round(places[-1], 3) == item.keys["gold_position"]
    spread(places, 0.4)


@pytest.mark.parametrize(("dataset", "length"), [("rag", "2k"), ("rag", "8k"), ("short", "512")])
def test_synth(dataset: str, length: str) -> None:
    places = []
    for item in benchmarks.load("synth", dataset, length).items[:60]:
        flags = [unit.gold for unit in item.units()]
        places += [at / (len(flags) - 1) for at, gold in enumerate(flags) if gold]
    spread(places, 0.4)


def test_letters_of_multiple_choice() -> None:
    """One document per item: what could have a fixed place is the right option."""
    infbench = benchmarks.load("infbench", "mc", allow_partial=True).items
    spread([i.options.index(i.answers[0]) / 3 for i in infbench], 0.4)
    longbench = benchmarks.load("longbench_v2", "all", allow_partial=True).items
    spread(["ABCD".index(i.answers[0]) / 3 for i in longbench], 0.4)


def test_loong_in_the_plain_layout() -> None:
    """Level 1 asks for one filing (the record's first); the official files have their own test."""
    items = benchmarks.load(
        "loong_fin", "all", allow_partial=True, questions_file="loong_replica.jsonl"
    ).items
    orders = [[d["name"] for d in item.fields["documents"]] for item in items]
    places = []
    for item, shown in zip(items, orders, strict=True):
        if item.keys["level"] == 4:
            continue
        asked = [n for n in shown if n in item.question]
        places += [shown.index(n) / (len(shown) - 1) for n in asked[:1]]
    assert len(set(places)) > 1
