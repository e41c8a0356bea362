"""GraphWalks: the record's own prompt, edges as units, F1 of node sets with the empty set as an answer."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import newbench
import pytest

from icr_tasks.benchmarks import graphwalks, load
from icr_tasks.benchmarks.base import Item
from icr_tasks.errors import IcrError
from icr_tasks.metrics import final_list

HEAD = "Walk.\n<begin example>\nThe graph has the following edges:\nuvwx -> alke\n\nOperation:\nFind the parents of "
HEAD += "node alke.\n<end example>\nHere is the graph:\nThe graph has the following edges:\n"
TAIL = "\n\nReturn the list in the very last line:\nFinal Answer: [node1, node2]\n"


def row(kind: str, edges: list[str], operation: str, nodes: list[str]) -> dict[str, Any]:
    prompt = HEAD + "\n".join(edges) + f"\n\n\nOperation:\n{operation}{TAIL}"
    return {"prompt": prompt, "answer_nodes": nodes, "problem_type": kind, "prompt_chars": len(prompt)}


ROWS = [
    row("parents", ["aa -> bb", "cc -> bb", "bb -> dd"], "Find the parents of node bb.", ["aa", "cc"]),
    row("parents", ["aa -> bb", "cc -> bb"], "Find the parents of node aa.", []),
    row(
        "bfs",
        ["aa -> bb", "bb -> cc", "cc -> dd", "xx -> yy"],
        "Perform a BFS from node aa with depth 2.",
        ["cc"],
    ),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    newbench.parquet(tmp_path / "graphwalks" / "graphwalks_128k_and_shorter.parquet", ROWS)
    return tmp_path


def test_the_prompt_is_the_record_and_edges_can_be_dropped(files: Path) -> None:
    for kind, rows in (("parents", ROWS[:2]), ("bfs", ROWS[2:])):
        found = newbench.task(f"icr_graphwalks_{kind}_128k", allow_partial=True)
        found.build_all_requests()
        assert [i.args[0] for i in found.instances] == [r["prompt"] for r in rows]
    [item] = load("graphwalks", "bfs", "128k", allow_partial=True).items
    assert [u.text for u in item.units() if u.gold] == ["aa -> bb", "bb -> cc"]
    [first, empty] = load("graphwalks", "parents", "128k", allow_partial=True).items
    assert [u.text for u in first.units() if u.gold] == ["aa -> bb", "cc -> bb"]
    assert empty.keys["empty"] is True and not any(u.gold for u in empty.units())
    found = newbench.task("icr_graphwalks_parents_128k", allow_partial=True, setting="none")
    found.build_all_requests(limit=1)
    assert "cc -> bb" not in found.instances[0].args[0] and "parents of node bb" in found.instances[0].args[0]
    with pytest.raises(IcrError, match="3 records, the official data has 750"):
        load("graphwalks", "bfs", "128k")


def item(*nodes: str) -> Item:
    return Item("x", "q", (f"Final Answer: [{', '.join(nodes)}]",), "c", lambda: [])


@pytest.mark.parametrize(
    ("text", "gold", "last", "anywhere"),
    [
        ("Steps ...\nFinal Answer: [aa, cc]", ("aa", "cc"), 1.0, 1.0),
        ("**Final Answer: [cc, aa]**", ("aa", "cc"), 1.0, 1.0),
        ("Final Answer: ['aa']", ("aa", "cc"), 2 / 3, 2 / 3),
        ("Final Answer: [aa]\nI hope this helps.", ("aa",), 0.0, 1.0),
        ("Final Answer: []", (), 1.0, 1.0),
        ("Final Answer: [aa]", (), 0.0, 0.0),
        ("Final Answer: []", ("aa",), 0.0, 0.0),
        ("There are no parents.", (), 0.0, 0.0),
        ("aa, cc", ("aa", "cc"), 0.0, 0.0),
        ("", ("aa",), 0.0, 0.0),
        ("Final Answer: [aa, aa, zz]", ("aa", "cc"), 0.5, 0.5),
    ],
)
def test_f1_of_the_sets(text: str, gold: tuple[str, ...], last: float, anywhere: float) -> None:
    assert final_list.last_line(text, item(*gold)) == pytest.approx(last)
    assert final_list.any_line(text, item(*gold)) == pytest.approx(anywhere)


def test_oracle_and_junk(files: Path) -> None:
    for kind in graphwalks.KINDS:
        name = f"icr_graphwalks_{kind}_128k"
        right = newbench.scores(newbench.task(name, allow_partial=True), lambda doc: doc["answers"][0])
        assert right["graph_f1"] == right["graph_f1_any"] == right["graph_answered"] == 1.0
        junk = newbench.scores(newbench.task(name, allow_partial=True), lambda doc: "xq zv")
        assert junk["graph_f1"] == junk["graph_f1_any"] == 0.0


def test_real_rows(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with gzip.open(shared_data / "graphwalks" / "graphwalks_4.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    newbench.parquet(tmp_path / "graphwalks" / "graphwalks_128k_and_shorter.parquet", rows)
    for kind in graphwalks.KINDS:
        mine = [r for r in rows if r["problem_type"] == kind]
        found = newbench.task(f"icr_graphwalks_{kind}_128k", allow_partial=True)
        found.build_all_requests()
        assert [i.args[0] for i in found.instances] == [r["prompt"] for r in mine]
        for one, record in zip(found.items, mine, strict=True):
            gold = [u.text.split(" -> ") for u in one.units() if u.gold]
            if kind == "parents":
                assert {a for a, _ in gold} == set(record["answer_nodes"])
            else:
                assert {b for _, b in gold} >= set(record["answer_nodes"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem_type": "dfs"}, "problem_type 'dfs' is none of bfs, parents"),
        ({"prompt": "What is a graph?"}, "no list of edges"),
        ({"answer_nodes": None}, "'answer_nodes' is null"),
    ],
)
def test_a_broken_row_is_named(
    change: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    newbench.parquet(tmp_path / "graphwalks" / "graphwalks_128k_and_shorter.parquet", [{**ROWS[0], **change}])
    with pytest.raises(IcrError, match=words):
        load("graphwalks", "bfs", "128k")
