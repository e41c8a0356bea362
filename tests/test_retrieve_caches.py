"""A shared cache gives what a cold one gives: tokenizers, chunk sizes, document names and retrievers may meet
in it."""

from __future__ import annotations

import itertools
import json
import logging
import random
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_retrieve_prepare import TASK, build, words

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.cli import main
from icr_tasks.context import pool, prepared
from icr_tasks.context.retrieval import bm25, dense, embedder, make, vectors
from icr_tasks.context.retrieve import retrieve
from icr_tasks.context.tokens import counter
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

RETRIEVERS = ("bm25", "dense", "hybrid", "random", "head")


def bag(texts: list[str]) -> np.ndarray:
    """Words hashed into 512 buckets."""
    out = np.full((len(texts), 512), 1e-6, dtype=np.float32)
    for row, text in zip(out, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.strip("?.,").encode()) % 512] += 1
    return out


def novel(seed: int, size: int = 2500) -> str:
    draw = random.Random(seed)
    names = [f"Name{seed}x{i}" for i in range(40)]
    common = ["rain", "ward", "ill", "ökonomie", "sang", "the", "counting-house", "a", "Μήνιν", "x" * 30]
    out = ""
    while len(out) < size:
        out += " ".join([*draw.choices(common, k=draw.randint(4, 12)), draw.choice(names)]) + ". "
    return out


def folder(tmp_path: Path, weights: bytes = b"weights", limit: int = 60) -> Path:
    """An embedder's files; the engine of this module is `bag`."""
    path = tmp_path / "embedder"
    path.mkdir(exist_ok=True)
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    (path / "model.safetensors").write_bytes(weights)
    return path


def cases(place: Path) -> list[tuple[str, ...]]:
    """(tokenizer, setting, benchmark, document name) that meet in one cache."""
    tokenizers = (str(place / "tiny"), words(place / "words"))
    rooms = (("infbench", "A"), ("loong_fin", "A"), ("loong_fin", "A LONGER NAME INC"))
    grid = itertools.product(tokenizers, (150, 400), RETRIEVERS, rooms)
    embed = f",embedder={place / 'embedder'}"
    return [
        (t, f"rag@1000,chunk={size},{r}" + (embed if r in ("dense", "hybrid") else ""), benchmark, title)
        for t, size, r, (benchmark, title) in grid
    ]


def shown(case: tuple[str, ...]) -> list[list[Any]]:
    """Spans and tokens of two questions on two documents, in rank order."""
    tokenizer, text, benchmark, title = case
    tokens = counter({"tokenizer": tokenizer})
    assert tokens is not None
    units = [Unit("a", novel(1), title), Unit("b", novel(2), "B"), Unit("c", novel(1), title)]
    prompt = base.get(benchmark, None, "qa" if benchmark == "infbench" else None)
    out = []
    for n in range(2):
        item = Item(f"q{n}", f"Where did Name1x{n} meet Name2x{n + 3}?", ("?",), "b", lambda: units)
        chosen = retrieve(
            item, units, Setting.parse(text), tokens, prompt, mode="documents", engine={"engine": "fake"}
        )
        out.append([chosen.spans, chosen.digest["n_tokens"]])
    return json.loads(json.dumps(out))


def forget() -> None:
    """As in a new process."""
    from icr_tasks.context.retrieval import _make

    for cache in (pool._CACHE, bm25._TERMS, bm25._INDEXES, dense._PLANS):
        cache.clear()
    _make.cache_clear()
    embedder._load.cache_clear()


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(embedder.ENGINES, "fake", lambda place, revision, options: bag)
    tiny.tokenizer().save_pretrained(tmp_path / "tiny")
    forget()
    yield
    forget()


def cold(case: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[Any]]:
    forget()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    out = shown(case)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cold", ignore_errors=True)
    forget()
    return out


def test_a_shared_cache_equals_a_cold_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path)
    every = cases(tmp_path)
    expected = [cold(case, monkeypatch, tmp_path) for case in every]
    assert len({json.dumps(e) for e in expected}) > len(every) // 2  # the cases do differ
    with caplog.at_level(logging.WARNING):
        for seed in range(2):  # in one process, in any order, then once more from what was left on disk
            order = random.Random(seed).sample(range(len(every)), len(every))
            assert [shown(every[i]) for i in order] == [expected[i] for i in order]
            forget()
    assert not caplog.text, caplog.text
    script = (
        "import json, sys, test_retrieve_caches as t\n"
        "t.embedder.ENGINES['fake'] = lambda place, revision, options: t.bag\n"
        "print('FOUND' + json.dumps([t.shown(tuple(case)) for case in json.loads(sys.argv[1])]))\n"
    )
    again = random.Random(9).sample(range(len(every)), 12)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, json.dumps([every[i] for i in order])],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for order in (again, again[::-1])
    ]
    for process, order in zip(running, (again, again[::-1]), strict=True):
        out, _ = process.communicate(timeout=300)
        found = next(line for line in out.splitlines() if line.startswith("FOUND"))
        assert json.loads(found.removeprefix("FOUND")) == [expected[i] for i in order]


def test_tokens_added_to_a_tokenizer_or_its_copy_change_its_name() -> None:
    import copy

    one = tiny.tokenizer()
    before = pool.tokenizer_key(one)
    other = copy.deepcopy(one)
    other.add_tokens(["bird"])
    assert pool.tokenizer_key(other) != before == pool.tokenizer_key(one)


def test_passages_in_another_order_share_an_index_and_differ_with_their_text() -> None:
    units = [Unit(str(i), f"item {i} of blue{i}") for i in range(6)] + [
        Unit("6", "item 2 of blue2")
    ]  # a duplicate
    one, two = pool.passages(units), pool.passages(units[::-1])
    assert one.key == two.key
    scores = [make("bm25", {}).scores(p, "which item is blue2?") for p in (one, two)]
    assert np.allclose(scores[0], scores[1][::-1]) and scores[0][2] == scores[0][6] == scores[0].max()
    assert pool.passages([*units[:-1], Unit("6", "item 2 of blue3")]).key != one.key


def test_new_weights_in_the_same_folder_are_another_embedder(tmp_path: Path) -> None:
    path = folder(tmp_path)
    params = Setting.parse(f"rag@4k,dense,embedder={path}").params
    one = make("dense", params, {"engine": "fake"})
    before, where = one.describe()["revision"], one.embedder.vectors
    (path / "model.safetensors").write_bytes(b"other weights")
    assert one.describe()["revision"] != before and one.embedder.vectors != where
    changed = one.describe()["revision"]
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert make("dense", params, {"engine": "fake"}).describe()["revision"] not in (before, changed)


def test_a_relative_folder_is_another_embedder_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Setting.parse("rag@4k,dense,embedder=embedder").params
    seen = []
    for place, weights in (("one", b"1"), ("two", b"2")):
        (tmp_path / place).mkdir()
        folder(tmp_path / place, weights)
        monkeypatch.chdir(tmp_path / place)
        seen.append(make("dense", params, {"engine": "fake"}).describe()["revision"])
    assert seen[0] != seen[1]


def test_stored_vectors_of_another_dimension_are_named(tmp_path: Path) -> None:
    path = folder(tmp_path)
    found = make("dense", Setting.parse(f"rag@4k,dense,embedder={path}").params, {"engine": "fake"})
    passages = pool.passages([Unit("a", "red bird"), Unit("b", "blue bird")])
    found.scores(passages, "red?")
    stored = next(p for p in (tmp_path / "cache").rglob("*.npy") if "questions" not in p.parts)
    vectors.write(stored, np.ones((2, 7), dtype=np.float16))
    with pytest.raises(IcrError, match="gives 512 dimensions, its stored vectors have 7"):
        found.scores(passages, "red?")


def test_vectors_of_the_earlier_layout_are_void_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "cache" / "icr-tasks" / "vectors" / "embedder-sha-1" / "ab"
    old.mkdir(parents=True)
    (old / "ab12-34.npy").write_bytes(b"old")
    found = make(
        "dense", Setting.parse(f"rag@4k,dense,embedder={folder(tmp_path)}").params, {"engine": "fake"}
    )
    vectors._void.cache_clear()
    with caplog.at_level(logging.WARNING):
        for question in ("red?", "blue?"):
            found.scores(pool.passages([Unit("a", "red bird"), Unit("b", "blue bird")]), question)
    assert caplog.text.count("of an earlier version") == 1


def prepare(tokenizer: str, path: Path, *more: str) -> int:
    given = [
        "--tokenizer",
        tokenizer,
        "--limit",
        "2",
        "--embedder",
        str(path),
        "--embed-engine",
        "fake",
        *more,
    ]
    return main(["prepare", "--tasks", TASK, "--setting", "rag@1k", *given])


def test_prepared_contexts_are_refused_when_the_embedder_changed(tmp_path: Path) -> None:
    tokenizer, path = str(tmp_path / "tiny"), folder(tmp_path)
    assert prepare(tokenizer, path) == 0
    more = {"embedder": str(path), "embed_engine": "fake", "n": 2}
    before = build(tokenizer, **more)
    assert [d["sha256"] for d in build(tokenizer, **more)] == [d["sha256"] for d in before]
    (path / "model.safetensors").write_bytes(b"trained further")
    with pytest.raises(IcrError, match="was prepared for embedder .* at sha-.*, this run has .* at sha-"):
        build(tokenizer, **more)
    assert build(tokenizer, prepared=False, **more)
    assert prepare(tokenizer, path) == 0 and build(tokenizer, **more)
    (path / "model.safetensors").write_bytes(b"weights")  # back to the first: both preparations are kept
    assert [d["retrieval"] for d in build(tokenizer, **more)] == [d["retrieval"] for d in before]


def test_documents_of_the_same_length_but_other_words_are_refused(tmp_path: Path) -> None:
    made = prepared.Prepared({"task": "t", "setting": "rag@1k", "tokenizer": "x", "default_prompt": True})
    units = [Unit("a", "red bird")]
    made.add("1", units, [(0, 0, 3)], {"whole": False})
    assert made.get("1", units)[0][0].text == "red"  # type: ignore[index]
    with pytest.raises(IcrError, match="changed since they were prepared"):
        made.get("1", [Unit("a", "old bird")])


def test_preparations_of_an_earlier_version_are_void_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = str(tmp_path / "tiny")
    main(["prepare", "--tasks", TASK, "--setting", "rag@1k", "--tokenizer", tokenizer, "--limit", "2"])
    path = next((tmp_path / "cache").rglob("prepared/**/*.json"))
    raw = json.loads(path.read_text())
    raw["head"] = {k: v for k, v in raw["head"].items() if k != "retriever"} | {"version": 1}
    path.write_text(json.dumps(raw))
    with caplog.at_level(logging.WARNING):
        assert build(tokenizer, n=2)[0]["retrieval"]["n_kept"]
    assert "an earlier version prepared" in caplog.text and "icr prepare --tasks" in caplog.text


def test_passages_of_many_items_are_embedded_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setitem(
        embedder.ENGINES, "fake", lambda *_: lambda texts: calls.append(len(texts)) or bag(texts)
    )
    tokenizer = str(tmp_path / "tiny")
    given = [
        "--tokenizer",
        tokenizer,
        "--limit",
        "6",
        "--embedder",
        str(folder(tmp_path)),
        "--embed-engine",
        "fake",
    ]
    assert main(["prepare", "--tasks", TASK, "--setting", "rag@1k", *given]) == 0
    assert len(calls) == 2 and calls[0] == 6 < calls[1]  # the questions, then all passages
