"""Data that are not what a benchmark expects: another revision, missing columns, and an empty list that is right."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import newbench
import pytest

from icr_tasks.benchmarks import browsecomp_plus, graphwalks, load
from icr_tasks.benchmarks.declare import all_benchmarks
from icr_tasks.errors import IcrError
from icr_tasks.metrics import final_list

GRAPH = {
    "prompt": "The graph has the following edges:\naa -> bb\nbb -> cc\n\nOperation:\nFind the parents of node aa.\n",
    "answer_nodes": [],
    "prompt_chars": 60,
    "problem_type": "parents",
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(browsecomp_plus.KEY, "A sentence that is no canary.")
    return tmp_path


def test_every_source_names_a_commit_and_a_hash() -> None:
    """A moving branch is another data set tomorrow: each file has a commit in its address, and a sha256 of the file,
    of a member of its archive, of what is unpacked, or the hub's own (InfiniteBench)."""
    for found in all_benchmarks():
        if found.files is None or found.origin != "icr_tasks":
            continue
        for task in found.tasks:
            for remote in found.files(task.dataset, task.length):
                address = remote.archive[0] if remote.archive else remote.url
                assert re.search(r"/[0-9a-f]{40}(/|$)", address), (found.name, address)
                if remote.archive is None and remote.unpack is None and found.name != "infbench":
                    assert re.fullmatch("[0-9a-f]{64}", remote.sha256 or ""), (found.name, remote.target)
        assert not re.fullmatch("main|master", str(found.facts.get("revision")))


def _parquet(path: str) -> Callable[[Path, list[str]], None]:
    return lambda root, columns: _written(newbench.parquet(root / path, [dict.fromkeys(columns, "x")]))


def _json(path: str) -> Callable[[Path, list[str]], None]:
    def make(root: Path, columns: list[str]) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps([dict.fromkeys(columns, "x")]))

    return make


def _csv(path: str) -> Callable[[Path, list[str]], None]:
    def make(root: Path, columns: list[str]) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("w", newline="") as file:
            csv.writer(file).writerows([columns, ["x"] * len(columns)])

    return make


def _written(path: Path) -> None:
    assert path.is_file()


@pytest.mark.parametrize(
    ("make", "columns", "asked", "missing"),
    [
        (
            _parquet("mrcr/2needle_0.parquet"),
            ["prompt", "answer"],
            ("mrcr", "2needle", "8k"),
            "random_string",
        ),
        (
            _parquet("graphwalks/graphwalks_128k_and_shorter.parquet"),
            ["prompt", "problem_type"],
            ("graphwalks", "bfs", "128k"),
            "answer_nodes",
        ),
        (
            _parquet("browsecomp_plus/test-00000-of-00006.parquet"),
            ["query_id", "query", "answer"],
            ("browsecomp_plus", "all", "32k"),
            "gold_docs",
        ),
        (
            _csv("aa_lcr/AA-LCR_Dataset.csv"),
            ["document_category", "document_set_id", "question_id", "question"],
            ("aa_lcr", "all", None),
            "answer",
        ),
        (
            _json("longbench_pro/longbench_pro.json"),
            ["id", "context", "language"],
            ("longbench_pro", "en", "8k"),
            "token_length",
        ),
        (
            _json("longmemeval/longmemeval_s_cleaned.json"),
            ["question_id", "question_type", "question"],
            ("longmemeval", "s", None),
            "answer",
        ),
    ],
    ids=["mrcr", "graphwalks", "browsecomp_plus", "aa_lcr", "longbench_pro", "longmemeval"],
)
def test_a_missing_column_is_named(
    make: Callable[[Path, list[str]], None],
    columns: list[str],
    asked: tuple[str, str, str | None],
    missing: str,
    data: Path,
) -> None:
    make(data, columns)
    with pytest.raises(IcrError, match=rf"(?s){asked[0].split('_')[0]}.*{missing}"):
        load(*asked, allow_partial=True)


def test_another_revision_is_read_and_said(data: Path) -> None:
    newbench.parquet(data / "graphwalks" / "graphwalks_128k_and_shorter.parquet", [GRAPH])
    found = load("graphwalks", "parents", "128k", allow_partial=True)
    assert not found.official
    assert f"is not that of revision {graphwalks.DATA.revision[:8]}" in found.notes[0]


def test_an_empty_gold_list_is_an_answer_where_empty_is_right(data: Path) -> None:
    """A node without parents: the empty list scores 1, any node 0."""
    newbench.parquet(
        data / "graphwalks" / "graphwalks_128k_and_shorter.parquet",
        [GRAPH, {**GRAPH, "answer_nodes": ["aa"]}],
    )
    items = load("graphwalks", "parents", "128k", allow_partial=True).items
    assert [i.answers for i in items] and final_list.last_line("Final Answer: []", items[0]) == 1.0
    assert final_list.last_line("Final Answer: [aa]", items[0]) == 0.0
    assert final_list.last_line("Final Answer: []", items[1]) == 0.0
