"""Neighbours of a hit, and more than one search a question."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from fake_endpoint import FakeEndpoint
from retrievekit import Server, cache, passages, stage, url  # noqa: F401  (cache and url are fixtures)

from icr_tasks import benchmarks
from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context import pool, retrieval
from icr_tasks.context.retrieval import asker
from icr_tasks.context.retrieve import retrieve, with_neighbours
from icr_tasks.context.tokens import TokenCounter, counter
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

# ---- neighbours ------------------------------------------------------------------------------------------------------


def test_neighbours_stay_in_their_document() -> None:
    owner = np.array([0, 0, 0, 1, 1])
    made = pool.Pool([], owner, owner, owner, owner, [], "test")
    assert with_neighbours(made, np.array([2, 3, 0, 1, 4]), 1).tolist() == [2, 1, 3, 4, 0]
    assert with_neighbours(made, np.array([1, 4]), 2).tolist() == [1, 2, 0, 4, 3]


def test_neighbours_in_a_prompt_and_refused_for_passages() -> None:
    tokens = TokenCounter(tiny.tokenizer())
    text = " ".join(f"part {i} says {'nothing' if i != 7 else 'zebra'} " + "x" * 80 for i in range(20))
    item = Item("1", "zebra?", ("x",), "b", lambda: [Unit("b", text)])
    prompt = base.get("infbench", None, "qa")
    shown = [
        retrieve(item, item.units(), Setting.parse(s), tokens, prompt, mode="documents").spans
        for s in ("rag@400,chunk=110,document", "rag@400,chunk=110,document,neighbours=1")
    ]
    hit = text.index("zebra")
    own = next(span for span in shown[1] if span[1] <= hit < span[2])
    assert shown[1][shown[1].index(own) + 1][1] == own[2] and shown[0] != shown[1]
    with pytest.raises(IcrError, match="the passages of this benchmark have none"):
        retrieve(item, item.units(), Setting.parse("rag@400,neighbours=1"), tokens, prompt, mode="passages")


# ---- several searches ------------------------------------------------------------------------------------------------


def test_names() -> None:
    text = "Most of it burned. The Winter Tale was written by Kalrus Dalanby of Orar. He met Anna Smith in March 1841."
    assert asker.names(text) == ["Winter Tale", "Kalrus Dalanby of Orar", "Anna Smith"]


def test_the_second_hop_is_found_by_the_name_in_the_first() -> None:
    texts = (
        "The Tin Drum Song was written by Kal Dalan.",
        "Kal Dalan was born in Orarford.",
        "Tin songs were born in many places, where drums and books were written.",
        "A drum was made of tin.",
    )
    query = "Where was the author of The Tin Drum Song born?"
    assert stage("rag@4k").rank(passages(texts), query)[:2].tolist() != [0, 1]
    found = stage("rag@4k,iterate=1")
    assert found.rank(passages(texts), query)[:2].tolist() == [0, 1]
    assert found.notes(passages(texts), query)["queries"][0].startswith("Kal Dalan")
    assert found.describe()["asker"] == "rules"
    parts = asker.Rules().parts("Which was founded earlier, Acme Mills Ltd or Zeta Works Inc?")
    assert parts == ["Acme Mills Ltd founded earlier", "Zeta Works Inc founded earlier"]


def test_a_served_asker_is_asked_once(url: str) -> None:  # noqa: F811
    found = stage("rag@4k,decompose,asker=m", {"ask_url": url})
    assert found.queries(passages(), "rain in the harbour?") == [
        "rain in the harbour?",
        "Where was Ada born?",
        "Who is Ada?",
    ]
    again = stage("rag@4k,decompose,asker=m,document", {"ask_url": url})
    again.rank(passages(), "rain in the harbour?")
    assert len(Server.asked) == 1 and Server.asked[0]["temperature"] == 0
    with pytest.raises(IcrError, match="give its address"):
        stage("rag@4k,iterate=1,asker=m")


def test_nothing_in_retrieval_knows_the_generator() -> None:
    for path in Path(retrieval.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [a.name for a in getattr(node, "names", [])] + [str(getattr(node, "module", ""))]
            assert not any("synth" in str(module) for module in modules), path


def recall(items: Sequence[Item], setting: str, benchmark: str, dataset: str) -> float:
    from icr_tasks.engines.smollm2 import export

    tokens = counter({"tokenizer": str(export())})
    assert tokens is not None
    prompt = base.get(benchmark, None, dataset)
    found = [
        retrieve(i, i.units(), Setting.parse(setting), tokens, prompt, mode="passages").digest["recall"]
        for i in items
    ]
    return 100 * sum(found) / len(found)


def test_second_hops_are_found_on_synth() -> None:
    items = list(benchmarks.load("synth", "rag", "4k", n=40).items)
    assert recall(items, "rag@512", "synth", "rag") < 90
    assert recall(items, "rag@512,iterate=1", "synth", "rag") >= 95


def test_second_hops_are_found_on_wikipedia(replica: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    loaded = benchmarks.load("helmet_rag", "hotpotqa", "8k", allow_partial=True).items
    items = list({i.cluster: i for i in loaded}.values())[:40]
    before = recall(items, "rag@512", "helmet_rag", "hotpotqa")
    assert recall(items, "rag@512,iterate=2", "helmet_rag", "hotpotqa") >= max(before + 8, 83)
    assert recall(items, "rag@512,titles,iterate=2", "helmet_rag", "hotpotqa") >= 85


def test_thoughts_of_a_served_asker_are_no_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: dict[str, object] = {
        "a": "<think>\nThe user asks for Rome.\nPerhaps Paris.\n</think>\n\n1. Anna Smith birthplace",
        "b": {"content": "Anna Smith birthplace", "reasoning_content": "Perhaps Paris."},
        "c": "NONE",
    }
    with FakeEndpoint(lambda prompt: said[prompt.rpartition("Question: ")[2][0]]) as server:
        served = asker.Served("m", server.url)
        assert served.parts("a") == served.parts("b") == ["Anna Smith birthplace"]
        assert served.parts("c") == []
        for broken in (
            "<think>\nThe user asks for Rome.",
            {"content": None, "reasoning": "Perhaps Paris.", "finish_reason": "length"},
        ):
            said["d"] = broken
            with pytest.raises(IcrError, match="asker=m: nothing but thoughts"):
                served.parts("d")
        calls = server.calls
        with pytest.raises(IcrError, match="nothing but thoughts"):
            served.parts("d")
        assert server.calls == calls + 1  # a failure is not kept
    with (
        FakeEndpoint(lambda prompt: "x", fault=lambda p, n: (200, '{"choices":[]}', {})) as server,
        pytest.raises(IcrError, match="sent no answer"),
    ):
        asker.Served("m", server.url).parts("e")
