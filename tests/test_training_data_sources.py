"""Readers beside HotpotQA's, hops that keep their gold, near duplicates, key chains, warnings."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
pytest.importorskip("bm25s", reason="retrieval here is bm25 (extra [rag])")
from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.training import checks
from icr_tasks.training.data import corpus, keychain, nearness, read, report, sources, store
from icr_tasks.training.data.config import Config, config


def run(*args: object) -> int:
    return main(["train", "data", *map(str, args)])


MEDICAL = [
    {
        "id": f"m{i}",
        "question": f"Which drug treats condition number {i}?",
        "answers": [f"Drugomycin {i}"],
        "evidence": [
            {
                "title": f"Condition {i}",
                "text": f"Condition number {i} is treated with Drugomycin {i} by most doctors.",
            }
        ],
        "domain": "medical",
        "documents": [
            f"Condition number {j} was first seen in the year {1900 + j} and has no known cause."
            for j in range(i, i + 8)
        ],
    }
    for i in range(30)
]


@pytest.fixture(scope="module")
def medical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "medical.jsonl"
    path.write_text("\n".join(map(json.dumps, MEDICAL)))
    return path


def test_any_question_answering_set_makes_training_rows(
    medical: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run("--records", medical, "--tokenizer", "words", "--top-k", 20, "--tokens", 2000, "-o", tmp_path)
        == 0
    )
    rows = list(store.read(tmp_path / "train.parquet"))
    assert len(rows) > 25 and {r["domain"] for r in rows} == {"medical"}
    assert all(len(r["passages"]) > 5 and r["gold_docs"][0].startswith("Condition number") for r in rows)


def test_every_stage_shows_its_progress_with_the_time_left(
    medical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}

    def bar(records: object, desc: str = "", total: int | None = None, **_: object) -> object:
        seen[desc] = total
        return records

    monkeypatch.setattr(store, "tqdm", bar)
    monkeypatch.setattr(read, "tqdm", bar)
    assert (
        run("--records", medical, "--tokenizer", "words", "--top-k", 20, "--tokens", 2000, "-o", tmp_path)
        == 0
    )
    assert {"read records", "corpus"} <= seen.keys()
    assert all(seen[stage] == 30 for stage in ("retrieve", "dedupe", "refine", "judge", "pack"))


def test_records_without_evidence_or_twice_are_counted(medical: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    odd = [
        MEDICAL[0],
        MEDICAL[1] | {"id": "x", "evidence": []},
        MEDICAL[2] | {"id": "y", "evidence": ["Nothing is said here."]},
    ]
    bad.write_text("\n".join(map(json.dumps, odd)))
    counts = read.run(Config(records=f"{medical},{bad}"), tmp_path)
    assert counts["records dropped: duplicate id"] == 1
    assert counts["records dropped: no evidence"] == 1
    assert counts["records rows whose evidence does not hold the answer"] == 1
    bad.write_text(json.dumps({"question": "?", "answers": ["x"]}))
    with pytest.raises(
        IcrError, match="record 1: .*no evidence.*records need question, answers and evidence"
    ):
        read.run(Config(records=str(bad)), tmp_path)
    bad.write_text(json.dumps(odd[1]))
    with pytest.raises(IcrError, match=r"no usable record \(1 records dropped: no evidence\)"):
        read.run(Config(records=str(bad)), tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"evidence": [3]}, "record 2: 3 is no text"),
        ({"evidence": 3}, "record 2: 3 is no text"),
        ({"documents": [7]}, "record 2: 7 is no text"),
        ({"answers": {"a": 1}}, "record 2: answer {'a': 1} is neither text nor number"),
        ({"answers": [True]}, "answer True is neither"),
    ],
)
def test_values_of_another_kind_are_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    good = {
        "question": "What is it called?",
        "answers": ["Foo"],
        "evidence": ["It is called Foo by all of them."],
    }
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"question": "And now?"} | change))
    cfg = config({"records": str(path), "min_words": 3})
    with pytest.raises(IcrError, match=re.escape(says)):
        read.run(cfg, tmp_path)
        corpus.run(cfg, tmp_path)


def test_what_is_null_is_nothing_and_a_number_is_an_answer(tmp_path: Path) -> None:
    good = {"question": "How many?", "answers": 7, "evidence": ["There are 7 of them.", None]}
    lines = [good, good | {"question": None}, good | {"question": "Which?", "answers": [None]}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    counts = read.run(config({"records": str(tmp_path / "r.jsonl")}), tmp_path)
    assert counts["records dropped: no question"] == counts["records dropped: no answer"] == 1
    (row,) = store.read(tmp_path / read.OUTPUT)
    assert (row["answers"], row["question"]) == (["7"], "How many?")


def test_files_that_number_their_rows_alike_lose_none(medical: Path, tmp_path: Path) -> None:
    """Medical and legal records are both numbered from 1: other questions, so other rows; repeated ones go once."""
    legal = tmp_path / "legal.jsonl"
    rows = [
        r | {"question": f"Which court heard case {i}?", "domain": "legal"} for i, r in enumerate(MEDICAL[:9])
    ]
    legal.write_text("\n".join(map(json.dumps, [*rows, rows[0], MEDICAL[3]])))
    counts = read.run(Config(records=f"{medical},{legal}"), tmp_path)
    found = list(store.read(tmp_path / read.OUTPUT))
    assert len(found) == counts["rows"] == 39 == len({r["id"] for r in found})
    assert sum(r["domain"] == "legal" for r in found) == 9
    assert counts["records dropped: duplicate id"] == 2
    assert counts["records given another id: theirs is that of another question"] == 10


def test_musique_reads_its_official_file(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "musique" / "musique_train_100.jsonl.gz"
    counts = read.run(Config(musique=str(path)), tmp_path)
    rows = list(store.read(tmp_path / read.OUTPUT))
    assert counts["musique kept"] == len(rows) == 100
    with gzip.open(path, "rt") as file:
        official = {f"musique-{r['id']}": r for r in map(json.loads, file)}
    for row in rows:
        record = official[row["id"]]
        assert len(row["gold_texts"]) == sum(p["is_supporting"] for p in record["paragraphs"])
        assert row["answers"][0] == record["answer"]
    assert sum(1 for _ in sources.documents(next(iter(official.values())))) == 20


def test_no_hop_loses_its_gold(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "2wikimultihopqa" / "2wiki_train_500.jsonl.gz"
    counts = read.run(Config(twowiki=str(path)), tmp_path)
    lost = counts["2wiki rows with a fact past its paragraph: the paragraph's beginning is gold"]
    facts = {f"2wiki-{r['_id']}": {t for t, _ in r["supporting_facts"]} for r in read.records(path)}
    rows = list(store.read(tmp_path / read.OUTPUT))
    assert lost == 6 and len(rows) == 500
    assert all(set(r["gold_titles"]) == facts[r["id"]] for r in rows)


def test_windows_of_whole_sentences_and_titles(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "hotpotqa" / "hotpotqa_dev_distractor_500.jsonl.gz"
    read.run(Config(hotpotqa=str(path), sentences=True, titles=True), tmp_path)
    said = {}
    for r in read.records(path):
        said |= {t: [" ".join(s.split()) for s in sentences] for t, sentences in r["context"]}
    for row in store.read(tmp_path / read.OUTPUT):
        for title, text in zip(row["gold_titles"], row["gold_texts"], strict=True):
            head, _, body = text.partition("\n")
            assert head == title
            assert any(body.startswith(s) for s in said[title] if s) and any(
                body.endswith(s) for s in said[title] if s
            )


def test_boilerplate_stays_a_distractor_and_a_near_copy_does_not() -> None:
    gold = "Mark King is an English musician and the singer of the band Level 42, born on the Isle of Wight in 1958."
    boiler = "Rich Brightman is an American singer-songwriter."
    copy = "Mark King, born on the Isle of Wight in 1958, is an English musician and singer of Level 42."
    others = [
        f"Person {i} is an American singer-songwriter and musician born in {1900 + i}." for i in range(40)
    ]
    row = {
        "question": "Which singer is American, Mark King or Nick Hexum?",
        "answers": ["Nick Hexum"],
        "gold_texts": [gold],
        "gold_titles": ["Mark King (musician)"],
        "negatives": [boiler, copy, *others],
        "titles": ["Rich Brightman", "Mark King", *([""] * 40)],
    }
    assert nearness.repeats(row, range(42)) == [1]


def test_a_judge_that_answers_garbage_is_refused(
    medical: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="the judge client needs openai (extra [judge])")
    from fake_endpoint import FakeEndpoint

    with FakeEndpoint(lambda prompt: "I like documents.") as server:
        code = run(
            "--records",
            medical,
            "--tokenizer",
            "words",
            "--top-k",
            20,
            "--tokens",
            2000,
            "--threshold",
            0.05,
            "--judge-base-url",
            server.url,
            "--judge-model",
            "m",
            "-o",
            tmp_path,
        )
    assert code != 0 and "no readable verdict for" in capsys.readouterr().err
    assert not (tmp_path / "judged.parquet").exists()


def test_mode_paper_without_a_judge_is_refused(
    medical: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--records", medical, "--tokenizer", "words", "-o", tmp_path, "--mode", "paper")
    assert run(*given) == 2
    assert "--unjudged negative, drop or gold" in capsys.readouterr().err
    assert run(*given, "--unjudged", "negative", "--until", "judge") == 0


def test_a_tokenizer_that_cannot_be_loaded_has_a_hint_that_fits(
    medical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("--records", medical, "--tokenizer", str(tmp_path / "nowhere"), "-o", tmp_path) == 2
    err = capsys.readouterr().err
    assert "--tokenizer" in err and "--metadata" not in err.split("); give")[1]


def test_a_chain_of_keys_leads_to_the_question(medical: Path, tmp_path: Path) -> None:
    assert (
        run(
            "--records",
            medical,
            "--tokenizer",
            "words",
            "--top-k",
            20,
            "--tokens",
            2000,
            "--keychain",
            4,
            "-o",
            tmp_path,
        )
        == 0
    )
    asked = {r["question"]: r for r in MEDICAL}
    for row in store.read(tmp_path / "train.parquet"):
        assert row["question"] not in asked
        key, leads = row["question"].split("key ")[1].split(" ")[0], {}
        for text in row["passages"]:
            if text.startswith("Key "):
                first, _, rest = text[4:].partition(" leads to ")
                leads[first] = rest
        for _ in range(3):
            key = leads[key].removeprefix("key ").rstrip(".")
        found = leads[key].removeprefix("this question: ")
        assert asked[found]["answers"] == row["answers"]
        assert len(leads) == 16 and len(row["gold_ids"]) == 5
    assert keychain.chain("q", 1, random.Random(0))[1][0].endswith("this question: q")


def test_a_hidden_question_stands_on_one_side_and_its_copy_under_another_id_is_found(tmp_path: Path) -> None:
    twice = [*MEDICAL, *({**row, "id": f"again-{row['id']}"} for row in MEDICAL)]
    (tmp_path / "twice.jsonl").write_text("\n".join(map(json.dumps, twice)))
    given = ("--tokenizer", "words", "--top-k", 20, "--tokens", 2000, "--dev", 0.4, "--keychain", 2)
    assert run("--records", tmp_path / "twice.jsonl", *given, "-o", tmp_path) == 0
    train, dev = (list(store.read(tmp_path / f"{name}.parquet")) for name in ("train", "dev"))
    asked = [{keychain.question_of(row) for row in side} for side in (train, dev)]
    assert asked[0] and asked[1] and not asked[0] & asked[1]
    assert asked[0] | asked[1] <= {r["question"] for r in MEDICAL}
    assert len(train) > len(asked[0])  # both copies are there
    checks.apart(tmp_path / "train.parquet", evaluated=True)
    moved = {**train[0], "id": "other", "question": keychain.ASK.format(key="0" * 36)}
    store.write(tmp_path / "dev.parquet", iter([*dev, moved]), store.ROW)
    with pytest.raises(IcrError, match="are in dev.parquet too"):
        checks.apart(tmp_path / "train.parquet", evaluated=True)


def test_warnings_name_what_to_look_at() -> None:
    found = {
        "rows": 10,
        "rows without a distractor": 2,
        "P(gold longer than another passage)": 0.911,
        "rows whose gold does not hold the answer": 0.3,
        "rows with a distractor that holds the answer": 0.6,
        "tokens of the longest prompt": {"median": 848.0},
        "gold positions": {"p_uniform": 0.5},
    }
    stages = {
        "judge": {"counts": {"removed": 15_523}},
        "dedupe": {"counts": {"hits": 18_272}},
        "pack": {"options": {"tokens": 4000}, "counts": {"dropped: gold does not fit": 3}},
    }
    text = "\n".join(report.warnings(found, stages))
    assert "85%" in text and "0.911" in text and "848" in text and Counter(text)["\n"] == 6
    assert "2 of 10 rows hold gold passages alone" in text and "pack: 3 dropped: gold does not fit" in text
    alone = found | {"P(gold longer than another passage)": report.cue(np.array([5]), np.array([]))}
    assert "gives the gold away" not in "\n".join(report.warnings(alone, stages))
