"""Readers of the official files, on files of the same format filled with real text."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from icr_tasks import benchmarks, storage
from icr_tasks.benchmarks import base, helmet_rag, lines, loong_fin
from icr_tasks.context.build import Builder
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def on_replica(replica: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    return replica


@pytest.mark.parametrize(
    ("dataset", "length", "rows"), [("nq", "4k", 600), ("nq", "8k", 600), ("hotpotqa", "4k", 300)]
)
def test_helmet_subset_rule(on_replica: Path, dataset: str, length: str, rows: int) -> None:
    items = benchmarks.load("helmet_rag", dataset, length)
    assert len(items.items) == items.n_expected == rows
    assert len({i.cluster for i in items.items}) == 100
    first = items.items[:100]  # what --limit 100 asks: as many questions, their depths in turn
    assert len({i.cluster for i in first}) == 100
    at = Counter(i.id.rsplit("-", 1)[1] for i in first)
    assert len(at) == rows // 100 and max(at.values()) - min(at.values()) <= 1
    path = (
        on_replica
        / "helmet"
        / "data"
        / "kilt"
        / helmet_rag.SOURCES[dataset].test.format(k=helmet_rag.PASSAGES[length])
    )
    questions = sorted({json.loads(line)["question"] for line in path.open()})
    assert {i.question for i in items.items} == set(random.Random(42).sample(questions, 100))
    units = items.items[0].units()
    assert (
        len(units) == helmet_rag.PASSAGES[length]
        and sum(u.gold for u in units) == items.items[0].keys["n_gold"] > 0
    )
    again = benchmarks.load("helmet_rag", dataset, length)  # second time from the index
    assert [i.id for i in again.items] == [i.id for i in items.items]


def test_helmet_lengths_ask_the_same_questions(on_replica: Path) -> None:
    short, long = (benchmarks.load("helmet_rag", "nq", length) for length in ("4k", "8k"))
    assert {i.id for i in short.items} == {i.id for i in long.items}


def test_popqa_filter_and_partial(on_replica: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        IcrError, match="240 rows of 40 sampled questions, the official data has 600.*allow_partial"
    ):
        benchmarks.load("helmet_rag", "popqa", "4k")
    items = benchmarks.load("helmet_rag", "popqa", "4k", allow_partial=True)
    assert len(items.items) == 240 and not items.official
    monkeypatch.setenv("ICR_ALLOW_PARTIAL", "1")
    assert len(benchmarks.load("helmet_rag", "popqa", "4k").items) == 240


def test_demos_are_shared_by_all_depths_and_never_the_question_itself(on_replica: Path) -> None:
    key = benchmarks.load("helmet_rag", "nq", "4k").items[0].fields["key"]
    first, second = helmet_rag.demos("nq", key), helmet_rag.demos("nq", key)
    assert first == second and len(first) == 2 and first[0]["question"] != first[1]["question"]
    popqa = benchmarks.load("helmet_rag", "popqa", "4k", allow_partial=True)
    for item in popqa.items[:12]:
        assert item.question not in [d["question"] for d in helmet_rag.demos("popqa", item.fields["key"])]


def test_missing_data_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    with pytest.raises(IcrError, match="icr data fetch helmet --datasets triviaqa --lengths 32k"):
        benchmarks.load("helmet_rag", "triviaqa", "32k")
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(IcrError, match="is not a folder"):
        benchmarks.load("helmet_rag", "nq", "4k")


@pytest.mark.parametrize(
    ("args", "near"),
    [
        (("helmet_rag", "hotpot", "4k"), "hotpotqa"),
        (("helmet_rag", "nq", "4kk"), "4k"),
        (("synth", "rag", "3k"), "32k|2k"),
        (("infbench", "qq"), "qa"),
    ],
)
def test_nearest_match(args: tuple[str, ...], near: str) -> None:
    with pytest.raises(IcrError, match=f"Did you mean '({near})'"):
        benchmarks.load(*args)


def _kilt(
    folder: Path, rows: list[dict[str, object]], name: str = "nq-dev-multikilt_1000_k20_dep6.jsonl"
) -> Path:
    path = folder / "helmet" / "data" / "kilt" / name
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def _row(question: str, k: int = 20) -> dict[str, object]:
    ctxs = [{"psg_id": str(i), "title": "t", "text": f"passage {i}"} for i in range(k)]
    return {
        "question": question,
        "answers": ["a"],
        "ctxs": ctxs,
        "positive_ctxs": ctxs[:1],
        "hard_negative_ctxs": [],
    }


def test_corrupt_line_and_wrong_k_name_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "a"))
    path = _kilt(tmp_path / "a", [_row("q1"), _row("q2")])
    with path.open("a") as file:
        file.write('{"question": "cut off')
    with pytest.raises(IcrError, match=r"dep6.jsonl:3: not valid JSON"):
        benchmarks.load("helmet_rag", "nq", "4k", allow_partial=True)
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "b"))
    _kilt(tmp_path / "b", [_row("q1"), _row("q2", k=19)])
    with pytest.raises(IcrError, match=r"dep6.jsonl:2: 19 passages, a 4k file has 20"):
        benchmarks.load("helmet_rag", "nq", "4k", allow_partial=True)


def test_infinitebench(on_replica: Path) -> None:
    with pytest.raises(IcrError, match="226 records, the official data has 229"):
        benchmarks.load("infbench", "mc")
    items = benchmarks.load("infbench", "mc", allow_partial=True).items
    assert len(items) == 226 and items[0].answers[0] in items[0].options
    by_book: dict[str, set[str]] = {}
    for item in items[:30]:
        by_book.setdefault(item.cluster, set()).add(item.units()[0].text)
    assert all(len(texts) == 1 for texts in by_book.values())
    assert len(benchmarks.load("infbench", "qa", allow_partial=True).items) == 58
    assert len(benchmarks.load("infbench", "sum", allow_partial=True).items) == 13


def test_longbench_and_loong(on_replica: Path) -> None:
    lb = benchmarks.load("longbench_v2", "all", allow_partial=True)
    assert len(lb.items) == 132 and lb.n_expected == 503 and lb.items[0].answers[0] in "ABCD"
    fin = benchmarks.load("loong_fin", "all", allow_partial=True, questions_file="loong_replica.jsonl")
    assert len(fin.items) == 24 and {i.keys["level"] for i in fin.items} == {1, 2, 3, 4}
    assert isinstance(next(i for i in fin.items if i.keys["level"] == 3).fields["gold"], dict)
    assert all(len(i.units()) == i.keys["n_docs"] for i in fin.items)
    assert all(d["matches"] == 1 and d["by"] != "part" for i in fin.items for d in i.fields["documents"])
    with pytest.raises(
        IcrError, match=r"loong.jsonl:\d+: .* no document '2024-General Enterprise Ventures, Inc..txt'"
    ):
        benchmarks.load("loong_fin", "all")


def test_official_loong_counts(shared_data: Path) -> None:
    import gzip

    with gzip.open(shared_data / "loong" / "loong_1600_questions.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    fin = [r for r in rows if r["type"] == "financial" and r["language"] == "en"]
    assert len(fin) == loong_fin.EXPECTED
    labels = loong_fin.components([r["doc"] for r in fin])
    for a, la in zip(fin, labels, strict=True):
        for b, lb in zip(fin, labels, strict=True):
            if set(a["doc"]) & set(b["doc"]):
                assert la == lb


def test_components_join_through_others() -> None:
    assert len(set(loong_fin.components([["a", "b"], ["c"], ["b", "d"], ["d"]]))) == 2


def test_an_index_takes_the_checksum_in_the_same_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "x.jsonl"
    raw = b'{"a": "1"}\n\n{"a": "\\ud83d\\ude00"}\n{"a": "\\uD800"}\n  \n{"a": "last"}'
    path.write_bytes(raw)
    rows = lines.index(path, lambda record: {}, version="v")
    assert [lines.read(path, row)["a"] for row in rows] == ["1", "😀", "?", "last"]
    monkeypatch.setattr(storage, "sha256", lambda file: pytest.fail("the file was read again"))
    assert storage.fingerprint(path) == hashlib.sha256(raw).hexdigest()
    stat = path.stat()
    path.write_bytes(raw + b"\n")  # while it was read
    storage.remember(path, stat, "0" * 64)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert storage.fingerprint(path) == hashlib.sha256(raw + b"\n").hexdigest()


def test_half_of_a_surrogate_pair_in_the_data_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No encoder takes it: the prompt's hash, the index and the engine would each end the run."""
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = {"id": 0, "context": "Oslo \ud83d is here.", "input": "Where \ud800?", "answer": ["Oslo \udc00"]}
    (tmp_path / "infinitebench").mkdir()
    (tmp_path / "infinitebench" / "longbook_qa_eng.jsonl").write_text(json.dumps(record) + "\n")
    [item] = benchmarks.load("infbench", "qa", allow_partial=True).items
    assert (item.question, item.answers) == ("Where ??", ("Oslo ?",))
    prompt = base.get("infbench", "paper", "qa")
    built = Builder("infbench", Setting.parse("full"), prompt, None, None, 16, None).build(item)
    assert "Oslo ? is here." in built.prompt and built.digest["sha256"]
