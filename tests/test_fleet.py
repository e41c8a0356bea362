"""A fleet of servers of one model: one document, one server; loads bounded; a server that fails is gone around."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fake_served import FakeServed

from icr_tasks.cli import main
from icr_tasks.credentials import redacted
from icr_tasks.engines.served.fleet import Fleet, addresses, document_of
from icr_tasks.errors import IcrError
from icr_tasks.sweep import cells
from icr_tasks.sweep import study as studies

pytest.importorskip("aiohttp")


class Request:
    task_name = "t"

    def __init__(self, document: int, question: int) -> None:
        self.doc, self.doc_id = {"cluster": f"book {document}"}, question
        self.args = (f"Common words. Book {document}. Question {question}?", {"max_gen_toks": 8})


def engine(servers: list[FakeServed], **more: Any) -> Any:
    from icr_tasks.engines.served.model import IcrAPI

    first, *others = [server.url for server in servers]
    return IcrAPI(model="M", base_url=first, fleet=";".join(others), **more)


def books(server: FakeServed) -> Counter[str]:
    return Counter(body["prompt"].split(". ")[1] for body in server.bodies)


def test_a_document_stays_with_one_server_and_all_work() -> None:
    asked = [Request(d, q) for d in range(24) for q in range(5)]
    with FakeServed() as one, FakeServed() as two, FakeServed() as three:
        model = engine([one, two, three], num_concurrent=2)
        assert model.generate_until(asked, disable_tqdm=True) == ["ok"] * len(asked)
        held = [books(s) for s in (one, two, three)]
        assert sum(map(len, held)) == 24 and all(held)  # every book was read by one server
        told = model.get_model_info()["served"]["fleet"]
        assert sum(told.values()) == len(asked) and len(told) == 3


def test_a_server_that_dies_is_gone_around() -> None:
    asked = [Request(d, q) for d in range(12) for q in range(2)]
    broken = (503, "overloaded", {})
    with FakeServed() as one, FakeServed(fault=lambda prompt, nth: broken) as two:
        model = engine([one, two], num_concurrent=1)
        model.server.pause = 0.01
        assert model.generate_until(asked, disable_tqdm=True) == ["ok"] * len(asked)
        assert len(two.bodies) <= 2 and len(one.bodies) == len(asked)
        assert model.fleet.answered == [len(asked), 0]


def test_a_server_that_is_not_there_is_left_out_and_another_model_is_refused() -> None:
    with FakeServed() as one:
        gone = SimpleNamespace(url="http://127.0.0.1:9/v1")
        model = engine([gone, one])  # type: ignore[list-item]
        assert model.generate_until([Request(1, 1)], disable_tqdm=True) == ["ok"] and len(one.bodies) == 1
        with FakeServed(window=4096) as small, pytest.raises(IcrError, match="must be started alike"):
            engine([one, small])


def lists(server: FakeServed, **entry: Any) -> FakeServed:
    """A server that tells this of its model."""
    body = json.dumps({"data": [{"id": "M", "owned_by": "vllm", "max_model_len": 4096, **entry}]})
    server.models = lambda headers: (200, body, {})  # type: ignore[method-assign]
    return server


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ({"id": "A"}, {"id": "B"}, "serves B with a window of 4096 tokens"),
        ({"root": "/ckpt/step-100"}, {"root": "/ckpt/step-200"}, "serves M from step-200 with"),
        ({"root": "/a/step-100"}, {"root": "/b/step-100/"}, None),  # the same folder on another machine
        ({"root": "C:\\a\\llama"}, {"root": "D:\\b\\llama"}, None),
        ({"id": "/data1/m.gguf"}, {"id": "/data2/m.gguf"}, None),
        ({"id": "gpu0", "root": "/a/step-100"}, {"id": "gpu1", "root": "/a/step-100"}, None),
        ({}, {"root": "/a/step-100"}, None),  # a router tells no weights
        ({"root": "org/a"}, {"root": "org/b"}, "serves org/b with"),
    ],
)
def test_servers_of_other_weights_are_no_fleet(
    one: dict[str, Any], two: dict[str, Any], words: str | None
) -> None:
    with FakeServed() as first, FakeServed() as second:
        lists(first, **one), lists(second, **two)
        if words is None:
            assert engine([first, second]).listing.window == 4096
        else:
            with pytest.raises(IcrError, match=f"{words}.*must be started alike"):
                engine([first, second])


def test_a_server_that_tells_no_model_yet_is_asked_once_it_does() -> None:
    asked = [Request(d, 0) for d in range(12)]
    with lists(FakeServed(), root="/a/m") as first, FakeServed() as loading:
        loading.models = lambda headers: (503, "", {})  # type: ignore[method-assign]
        model = engine([first, loading])
        assert model.listing.window == 4096
        lists(loading, root="/b/m")
        assert model.generate_until(asked, disable_tqdm=True) == ["ok"] * 12 and loading.bodies


@pytest.mark.parametrize("root", ["/ckpt/step-100", "/ckpt/step-200"])
def test_a_server_that_comes_later_is_compared_before_it_is_asked(root: str) -> None:
    asked = [Request(d, 0) for d in range(12)]
    late = lists(FakeServed(), root=root)
    listed, late.models = late.models, lambda headers: (401, "", {})  # type: ignore[method-assign]
    with lists(FakeServed(), root="/ckpt/step-100") as first, late:
        model = engine([first, late], num_concurrent=2)
        model.server.pause = 0.01
        model.fleet._clock = lambda: time.monotonic() + 60  # half a minute later
        late.models = listed  # type: ignore[method-assign]
        if root.endswith("100"):
            assert model.generate_until(asked, disable_tqdm=True) == ["ok"] * 12 and late.bodies
        else:
            with pytest.raises(IcrError, match="serves M from step-200 with.*must be started alike"):
                model.generate_until(asked, disable_tqdm=True)
            assert not late.bodies


def test_loads_are_bounded_and_only_the_failed_servers_documents_move() -> None:
    now = [0.0]
    fleet = Fleet([SimpleNamespace(root=f"r{i}", shown=f"r{i}") for i in range(4)], clock=lambda: now[0])  # type: ignore[misc]

    def homes() -> dict[str, int]:
        found = {}
        for d in range(200):
            found[str(d)] = i = fleet.take(str(d))
            fleet.give(i)
        return found

    before = homes()
    assert min(Counter(before.values()).values()) > 25
    fleet.failed(2, "gone")
    after = homes()
    assert all(after[d] == i for d, i in before.items() if i != 2) and 2 not in after.values()
    now[0] = 31.0
    assert homes() == before
    busy = [fleet.take("one document") for _ in range(40)]
    assert max(Counter(busy).values()) <= 2 * 40 / 4 + 1 and len(set(busy)) > 1


def test_what_names_a_document() -> None:
    plain = SimpleNamespace(args=("text", {}))
    assert document_of(plain, "x" * 9000) == "x" * 4096
    assert document_of(Request(3, 1), "text") == "book 3"
    assert (
        addresses("http://a/v1; http://b/v1")
        == ["http://a/v1", "http://b/v1"]
        == addresses(["http://a/v1", "http://b/v1"])
    )
    with pytest.raises(IcrError, match="is not http"):
        addresses("a:8000")


def test_a_study_names_several_endpoints_and_they_change_no_fingerprint(tmp_path: Path) -> None:
    def cell(endpoint: Any) -> cells.Cell:
        path = tmp_path / "study.yaml"
        entry = {"name": "m", "model": "M", "endpoint": endpoint, "tokenizer": "none"}
        path.write_text(
            yaml.safe_dump({"models": [entry], "tasks": ["icr_synth_rag_512"], "prompts": ["ao"]})
        )
        return cells.matrix(studies.load(path))[0]

    one, two = cell("http://a:1/v1"), cell(["http://a:1/v1", "http://b:1/v1"])
    assert two.args["fleet"] == ["http://b:1/v1"] and one.fingerprint == two.fingerprint
    assert cell("http://c:1/v1").fingerprint != one.fingerprint
    told = str(redacted({"fleet": "http://u:secret@a/v1;http://u:secret@b/v1"}))
    assert "secret" not in told, told


def _serve(pipe: Any, log: Path) -> None:
    """A server in a process of its own; a line a request: the book it is about."""

    def reply(prompt: str) -> str:
        with log.open("a") as file:
            file.write(f"{prompt.split('Chapter ')[1].split('.')[0]}\n")
        return "Guest 1"

    with FakeServed(reply, latency=0.02) as server:
        pipe.send(server.url)
        pipe.recv()  # until it is killed


def test_a_study_outlives_one_of_its_three_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed while it answers: every answer is there once, the others keep their books, and the dead one is named."""
    data = tmp_path / "data" / "infinitebench" / "longbook_qa_eng.jsonl"
    data.parent.mkdir(parents=True)
    rows = [
        {
            "id": n,
            "context": f"Chapter {n // 4}. Guest 1 left.",
            "input": f"Who {n}?",
            "answer": ["Guest 1"],
        }
        for n in range(120)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    logs, urls, servers, pipes = [tmp_path / f"served{i}" for i in range(3)], [], [], []
    for log in logs:
        log.touch()
        here, there = get_context("fork").Pipe()
        servers.append(get_context("fork").Process(target=_serve, args=(there, log), daemon=True))
        servers[-1].start()
        urls.append(here.recv())
        pipes.append(here)  # kept open: its end would end the server
    seen = [0]

    def killer() -> None:
        while len(logs[1].read_text().splitlines()) < 5:
            time.sleep(0.005)
        seen[0] = len(logs[1].read_text().splitlines())
        os.kill(servers[1].pid or 0, signal.SIGKILL)

    thread = Thread(target=killer, daemon=True)
    thread.start()
    path = tmp_path / "study.yaml"
    entry = {"name": "m", "model": "M", "endpoint": urls, "tokenizer": "none", "in_flight": 6}
    body = {
        "out": str(tmp_path / "out"),
        "models": [entry],
        "tasks": ["icr_infbench_qa"],
        "settings": ["full"],
    }
    path.write_text(yaml.safe_dump({**body, "prompts": ["paper"], "metadata": {"allow_partial": True}}))
    try:
        assert main(["sweep", str(path)]) == 0
    finally:
        for server in servers:
            server.kill()
    thread.join()
    [store] = (tmp_path / "out" / "answers").glob("*.jsonl")
    kept = [json.loads(line) for line in store.read_text().splitlines()]
    assert len(kept) == len({one["key"] for one in kept}) == 120 and {one["text"] for one in kept} == {
        "Guest 1"
    }
    read = [Counter(log.read_text().split()) for log in logs]
    assert not set(read[0]) & set(read[2]), "a living server keeps its books, also from the other living one"
    assert 5 <= seen[0] < 40 and sum(sum(books.values()) for books in read) < 120 + 6 + 2
    left = [r.getMessage() for r in caplog.records if "is left out" in r.getMessage()]
    assert left and all(urls[1].removesuffix("/v1") in said for said in left)
    [told] = [json.loads(p.read_text()) for p in (tmp_path / "out" / "lm_eval").rglob("results_*.json")]
    counts = told["config"]["served"]["fleet"]
    assert list(counts) == urls and sum(counts.values()) == 120 and 0 < counts[urls[1]] < 40
