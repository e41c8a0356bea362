"""AA-LCR and LongMemEval: documents and sessions as official prompts show them, graded by a judge with rules."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import newbench
import pytest

from icr_tasks.benchmarks import aa_lcr, load, longmemeval
from icr_tasks.errors import IcrError
from icr_tasks.metrics.judge.equivalence import render
from icr_tasks.metrics.judge.rubrics import Case

COLUMNS = [
    "",
    "document_category",
    "document_set_id",
    "question_id",
    "question",
    "answer",
    "data_source_filenames",
    "data_source_urls",
    "input_tokens",
]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def table(folder: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    (folder / "aa_lcr").mkdir(exist_ok=True)
    (folder / "aa_lcr" / "AA-LCR_Dataset.csv").write_text(text.getvalue(), encoding="utf-8")


ROW = {
    "document_category": "Legal",
    "document_set_id": "set_1",
    "question_id": "7",
    "question": "Which, of the\ntwo, is older?",
    "answer": "1. The first\\n2. The second",
    "data_source_filenames": "b\u2019s file.txt;a.txt",
    "input_tokens": "120",
}


def archive(path: Path, names: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in names.items():
            zipped.writestr(name, text)
    return path


def test_documents_stand_in_the_order_of_the_table_under_repaired_names(data: Path) -> None:
    table(data, [ROW])
    garbled = "b\u2019s file.txt".encode().decode("cp437")
    assert garbled == "b\u0393\u00c7\u00d6s file.txt"
    names = {
        f"lcr/Legal/set_1/{garbled}": "Text of b",
        "lcr/Legal/set_1/a.txt": "Text of a",
        "__MACOSX/lcr/x.txt": "no",
    }
    made = archive(data / "aa_lcr" / "texts.zip", names)
    assert aa_lcr.unpack(made, data / "aa_lcr") == 2
    found = newbench.task("icr_aa_lcr", allow_partial=True)
    found.build_all_requests()
    prompt = found.instances[0].args[0]
    assert prompt == (
        "BEGIN INPUT DOCUMENTS\n\nBEGIN DOCUMENT 1:\nText of b\nEND DOCUMENT 1\n\nBEGIN DOCUMENT 2:\nText of a\n"
        "END DOCUMENT 2\n\nEND INPUT DOCUMENTS\n\nAnswer the following question using the input documents provided "
        "above.\n\nSTART QUESTION\n\nWhich, of the\ntwo, is older?\n\nEND QUESTION\n"
    )
    assert found.items[0].answers == ("1. The first\n2. The second",)
    (data / "aa_lcr" / "lcr" / "Legal" / "set_1" / "a.txt").unlink()
    with pytest.raises(IcrError, match=r"has no a.txt; fetch it:  icr data fetch aa_lcr"):
        found.items[0].units()


@pytest.mark.parametrize("content", [b"<html>404</html>", b"PK\x03\x04 cut off"])
def test_an_unreadable_archive_is_removed(data: Path, content: bytes) -> None:
    path = data / "texts.zip"
    path.write_bytes(content)
    with pytest.raises(IcrError, match="cannot be read .*it was removed, fetch it again"):
        aa_lcr.unpack(path, data)
    assert not path.exists()


def test_an_entry_outside_is_refused(data: Path) -> None:
    with pytest.raises(IcrError, match="would be written outside .*refused"):
        aa_lcr.unpack(archive(data / "texts.zip", {"lcr/../../evil.txt": "x"}), data)


def test_the_real_table(shared_data: Path, data: Path) -> None:
    (data / "aa_lcr").mkdir()
    source = shared_data / "aa_lcr" / "AA-LCR_Dataset.csv"
    (data / "aa_lcr" / "AA-LCR_Dataset.csv").write_bytes(source.read_bytes())
    loaded = load("aa_lcr", "all")
    items = loaded.items
    # the table at hand is version 1.0: readable, counted, and said not to be the pinned one
    assert not loaded.official and "is not that of revision 9a77ef56" in loaded.notes[0]
    assert len(items) == 100 and len({i.cluster for i in items}) == 30
    assert all(i.answers[0].strip() and "\\n" not in i.answers[0] for i in items)
    assert {i.keys["category"] for i in items} >= {"Legal", "Academia", "Company_Documents"}
    assert all(i.keys["official_tokens"] > 50_000 for i in items)


# ---- LongMemEval -----------------------------------------------------------------------------------


def memory(kind: str = "multi-session", name: str = "x1", **changes: Any) -> dict[str, Any]:
    turn = {"role": "user", "content": "I moved my bike to the cellar.", "has_answer": True}
    return {
        "question_id": name,
        "question_type": kind,
        "question": "Where do I keep my bike now?",
        "answer": "in the cellar",
        "question_date": "2023/06/02 (Fri) 10:00",
        "haystack_session_ids": ["answer_x1_1", "s_1", "s_2"],
        "haystack_dates": ["2023/05/20 (Sat) 18:00", "2023/05/01 (Mon) 09:00", "2023/05/30 (Tue) 08:00"],
        "haystack_sessions": [
            [turn],
            [{"role": "user", "content": "Hi"}],
            [{"role": "user", "content": "Bye"}],
        ],
        "answer_session_ids": ["answer_x1_1"],
        **changes,
    }


def history(data: Path, rows: list[dict[str, Any]], name: str = "s") -> None:
    (data / "longmemeval").mkdir(exist_ok=True)
    (data / "longmemeval" / longmemeval.FILES[name]).write_text(json.dumps(rows))


def test_sessions_by_date_and_nothing_that_tells_the_evidence(data: Path) -> None:
    history(data, [memory(), memory("knowledge-update", "x2", answer=3)])
    found = newbench.task("icr_longmemeval_s", allow_partial=True)
    found.build_all_requests()
    prompt = found.instances[0].args[0]
    assert re.findall(r"### Session (\d): *\n?Session Date: (\S+)", prompt) == [
        ("1", "2023/05/01"),
        ("2", "2023/05/20"),
        ("3", "2023/05/30"),
    ]
    assert "answer_x1" not in prompt and "has_answer" not in prompt
    [one, two] = found.items
    assert [u.gold for u in one.units()] == [False, True, False] and two.answers == ("3",)
    assert "newest" in two.fields["rule"] and "rule" not in one.fields
    gold = newbench.task("icr_longmemeval_s", allow_partial=True, setting="gold@only")
    gold.build_all_requests(limit=1)
    assert "### Session 1:\nSession Date: 2023/05/20" in gold.instances[0].args[0]
    assert "Session 2" not in gold.instances[0].args[0]


def test_the_judge_gets_the_rule_of_the_question(data: Path) -> None:
    history(data, [memory("temporal-reasoning", "x1_abs"), memory("temporal-reasoning", "x2")])
    [abstains, counts] = load("longmemeval", "s", allow_partial=True).items
    assert abstains.keys["abstention"] is True and "cannot be answered" in abstains.fields["rule"]
    assert "off by one" in counts.fields["rule"]
    asked, _ = render(Case("When?", "- 3 days", "4 days", "x", rule=counts.fields["rule"]))
    assert "[Rule for this question]: A number of days" in asked
    plain, _ = render(Case("When?", "- 3 days", "4 days", "x"))
    assert "[Rule" not in plain
    found = newbench.scores(newbench.task("icr_longmemeval_s", allow_partial=True), lambda d: d["answers"][0])
    assert (
        found["subem"] == 1.0 and "judge_equiv" not in found
    )  # no judge: no headline, and the sheet says why


def test_real_rendered_rows(shared_data: Path, data: Path) -> None:
    """The official prompt, taken apart and put together again, is the same text."""
    made, prompts = [], []
    path = shared_data / "longmemeval" / "longmemeval_oracle_rendered_5.jsonl.gz"
    with gzip.open(path) as file:
        read = file.readlines()
    for line in read:
        record = json.loads(line)
        prompt = record["responses_create_params"]["input"][0]["content"]
        facts = record["verifier_metadata"]
        pieces = re.findall(
            r"### Session \d+:\nSession Date: (.+)\nSession Content:\n\n(.+?)(?=\n\n### Session|\n\n\nCurrent Date)",
            prompt,
            re.S,
        )
        ids = [f"answer_{n}" for n in range(len(pieces))]
        made.append(
            {
                **{
                    k: facts[k]
                    for k in ("question_id", "question_type", "question", "answer", "question_date")
                },
                "haystack_session_ids": ids,
                "haystack_dates": [date for date, _ in pieces],
                "haystack_sessions": [json.loads(text) for _, text in pieces],
                "answer_session_ids": ids,
            }
        )
        prompts.append(prompt)
    history(data, made, "oracle")
    found = newbench.task("icr_longmemeval_oracle", allow_partial=True)
    found.build_all_requests()
    assert [i.args[0] for i in found.instances] == prompts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question_type": "riddle"}, "question_type 'riddle' is none of"),
        ({"haystack_dates": []}, "differ in length"),
        ({"haystack_sessions": [[{"role": "user"}], [], []]}, "session 0 is not a list of turns"),
        ({"answer_session_ids": ["answer_9"]}, "not in the history: answer_9"),
        ({"answer": None}, "field 'answer' is null"),
    ],
)
def test_a_broken_record_is_named(data: Path, change: dict[str, Any], words: str) -> None:
    history(data, [memory(**change)])
    with pytest.raises(IcrError, match=words):
        load("longmemeval", "s")
