"""BrowseComp-Plus: decrypted in memory, nothing of it in a log; LongBench Pro and NoLiMa on files in their
shape."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import newbench
import pytest

from icr_tasks.benchmarks import browsecomp_plus, load, longbench_pro
from icr_tasks.benchmarks.base import Item
from icr_tasks.cli import main
from icr_tasks.errors import IcrError

KEY = "A sentence that is no canary."


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(browsecomp_plus.KEY, KEY)
    return tmp_path


def sealed(text: str) -> str:
    pad = hashlib.sha256(KEY.encode()).digest()
    return base64.b64encode(bytes(b ^ pad[n % 32] for n, b in enumerate(text.encode()))).decode()


def doc(number: int, text: str) -> dict[str, str]:
    return {"docid": sealed(str(number)), "text": sealed(text)}


def row(**changes: Any) -> dict[str, Any]:
    gold = doc(11, "The mill was built by Petra Secretname in a wet year.")
    return {
        "query_id": "7",
        "query": sealed("Who built the mill?"),
        "answer": sealed("Petra Secretname"),
        "gold_docs": [gold],
        "evidence_docs": [gold, doc(12, "The mill stands by the river.")],
        "negative_docs": [doc(n, f"A page about barn {n}. " * 400) for n in range(100, 130)],
        **changes,
    }


def write(data: Path, rows: list[dict[str, Any]]) -> None:
    newbench.parquet(data / "browsecomp_plus" / "test-00000-of-00006.parquet", rows)


def test_lengths_nest_and_hold_the_evidence(data: Path) -> None:
    write(data, [row()])
    seen = {}
    for length in ("32k", "64k"):
        [item] = load("browsecomp_plus", "all", length, allow_partial=True).items
        units = item.units()
        assert item.sealed and sum(u.gold for u in units) == 2
        assert sum(len(u.text) for u in units) <= browsecomp_plus.LENGTHS[length] * 4
        seen[length] = [u.id for u in units]
    assert set(seen["32k"]) < set(seen["64k"])
    assert [u for u in seen["64k"] if u in seen["32k"]] == seen["32k"]


def test_no_text_of_it_reaches_a_log_and_the_scorers_read_it(data: Path) -> None:
    write(data, [row()])
    found = newbench.task("icr_browsecomp_plus_32k", allow_partial=True)
    got = newbench.scores(found, lambda d: "The answer is: Petra Secretname")
    assert got["subem"] == 1.0
    logged = json.dumps([[i.doc, i.args] for i in found.instances])
    assert "Secretname" not in logged and "mill" not in logged
    assert found.instances[0].doc["answers"] == ["sha256:" + hashlib.sha256(b"Petra Secretname").hexdigest()]
    junk = newbench.scores(
        newbench.task("icr_browsecomp_plus_32k", allow_partial=True), lambda d: d["answers"][0]
    )
    assert junk["subem"] == 0.0


def test_the_key_is_asked_for_and_checked(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(data, [row()])
    monkeypatch.delenv(browsecomp_plus.KEY)
    with pytest.raises(IcrError, match=f"set {browsecomp_plus.KEY} to the canary sentence"):
        load("browsecomp_plus", "all", "32k", allow_partial=True)
    monkeypatch.setenv(browsecomp_plus.KEY, "another sentence")
    with pytest.raises(IcrError, match="does not decrypt"):
        load("browsecomp_plus", "all", "32k", allow_partial=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"evidence_docs": []}, "without evidence documents"),
        ({"negative_docs": [{"docid": "1", "text": None}]}, "without docid and text"),
    ],
)
def test_a_broken_row_is_named(data: Path, change: dict[str, Any], words: str) -> None:
    write(data, [row(**change)])
    with pytest.raises(IcrError, match=words):
        load("browsecomp_plus", "all", "32k", allow_partial=True)


# ---- LongBench Pro ---------------------------------------------------------------------------------


def pro(task: str, answer: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "id": task,
        "context": f"A long text about {task}.",
        "language": "English",
        "token_length": "8k",
        "primary_task": task.split(".")[0],
        "secondary_task": task,
        "contextual_requirement": "Partial",
        "question_nonthinking": f"What of {task}? Output [Answer] and then the answer.",
        "question_thinking": f"What of {task}? Think, then output [Answer].",
        "answer": answer,
        "difficulty": "Easy",
        **changes,
    }


ROWS = [
    pro("T1.1 Ranking", ["a", "b", "c"]),
    pro("T2.1 Sequencing", ["a", "b", "c"]),
    pro("T3.2 Fact", ["B"]),
    pro("T4.1 Summary", ["a text that sums it up"]),
    pro("T5.1 Sets", ["x", "y"]),
    pro("T6.1 Share", ["x", "y"]),
    pro("T6.2 Sets", ["x", "y"]),
    pro("T6.3 Order", ["x", "y"]),
    pro("T11.2 First", ["C"]),
]


def test_prompts_languages_and_summaries_apart(data: Path) -> None:
    (data / "longbench_pro").mkdir()
    chinese = pro("T3.1 事实", ["甲"], language="Chinese")
    (data / "longbench_pro" / "longbench_pro.json").write_text(json.dumps([*ROWS, chinese]))
    sizes = {
        d: len(load("longbench_pro", d, "8k", allow_partial=True).items)
        for d in ("en", "zh", "en_sum", "zh_sum")
    }
    assert sizes == {"en": 8, "zh": 1, "en_sum": 1, "zh_sum": 0}
    found = newbench.task("icr_longbench_pro_8k", allow_partial=True, prompt="thinking")
    found.build_all_requests(limit=1)
    assert found.instances[0].args[0] == ROWS[0]["context"] + "\n\n\n\n" + ROWS[0]["question_thinking"]
    right = newbench.scores(
        newbench.task("icr_longbench_pro_8k", allow_partial=True),
        lambda d: "So:\n[Answer]\n" + "\n".join(d["answers"]),
    )
    assert right["lbpro"] == right["lbpro_answered"] == 1.0
    assert (
        newbench.scores(newbench.task("icr_longbench_pro_8k", allow_partial=True), lambda d: "xq")["lbpro"]
        == 0.0
    )
    with pytest.raises(IcrError, match="10 questions, the official data has 1500"):
        load("longbench_pro", "en", "8k")


@pytest.mark.parametrize(
    ("task", "gold", "said", "score"),
    [
        ("T3.2 x", ["B"], "[Answer]\n b \nbecause", 1.0),
        ("T3.2 x", ["B"], "[Answer] first\n[Answer]\nC", 0.0),
        ("T5.1 x", ["x", "y"], "[Answer]\nx\nz\nz", 0.5),
        ("T6.1 x", ["x", "y"], "[Answer]\nx\nz", 0.5),
        ("T2.1 x", ["a", "b", "c"], "[Answer]\na\nc\nb", 2 / 3),
        ("T2.1 x", ["a", "b", "c"], "[Answer]\na", 0.0),
        ("T1.1 x", ["a", "b"], "[Answer]\nb\na", (1 + 2 / 1.5849625) / (2 + 1 / 1.5849625)),
        ("T1.1 x", ["a", "b"], "[Answer]\na\na\na", 2 / (2 + 1 / 1.5849625)),
        ("T8.1 x", ["Two  words"], "[答案]\ntwo words", 1.0),
        ("T7.1 x", ["x"], "[Answer]", 0.0),
        # A blank line is a line, a repeated one has its last place, marks are written as asked for, and 答案 counts only
        # where [Answer] is nowhere.
        ("T5.1 x", ["d"], "[Answer]\nd\n\nc", 0.5),
        ("T2.1 x", ["c", "b", "a"], "[Answer]\nc\nb\n\nb", 1 / 6),
        ("T2.1 x", ["a"], "[Answer]\na\nb", 0.0),
        ("T1.1 x", ["c", "g", "b"], "[Answer] q\n[Answer]\na\ne\nc\na\nz\na", 0.39748952229168844),
        ("T6.1 x", ["a", "b"], "[Answer]\na\n[答案]\nz", 0.5),
        ("T3.2 x", ["a"], "[answer]\na", 0.0),
        ("T3.2 x", ["a"], "", 0.0),
    ],
)
def test_each_task_has_its_metric(task: str, gold: list[str], said: str, score: float) -> None:
    """Also where the official functions are odd: the values are theirs."""
    item = Item("1", "q", tuple(gold), "c", lambda: [], fields={"answer_type": longbench_pro.kind(task)})
    assert longbench_pro.lbpro(said, item) == pytest.approx(score, abs=1e-6)


def test_summaries_are_read_behind_their_mark_and_in_both_languages(data: Path) -> None:
    (data / "longbench_pro").mkdir()
    rows = [
        pro("T4.1 Summary", ["The mill burned down. Nobody was hurt."]),
        pro("T4.2 摘要", ["磨坊被烧毁了。没有人受伤。"], language="Chinese"),
    ]
    (data / "longbench_pro" / "longbench_pro.json").write_text(json.dumps(rows))
    for name, half in (("sum", "The mill burned down."), ("zh_sum", "磨坊被烧毁了。")):

        def rouge(say: Any, name: str = f"icr_longbench_pro_{name}_8k") -> float:
            return newbench.scores(newbench.task(name, allow_partial=True), say)["rougeLsum"]

        assert rouge(lambda d: f"I think of [Answer] first.\n[Answer]\n{d['answers'][0]}") == 1.0
        assert rouge(lambda d: d["answers"][0]) == 1.0 and rouge(lambda d: "xq 桥") == 0.0
        assert 0.5 < rouge(lambda d, half=half: f"[Answer] {half}") < 0.8


@pytest.mark.parametrize(
    "change",
    [{"secondary_task": "Other"}, {"secondary_task": "T6.9 x"}, {"token_length": "9k"}, {"answer": []}],
)
def test_an_unknown_task_length_or_answer_is_named(data: Path, change: dict[str, Any]) -> None:
    (data / "longbench_pro").mkdir()
    (data / "longbench_pro" / "longbench_pro.json").write_text(json.dumps([{**ROWS[2], **change}]))
    with pytest.raises(IcrError, match=r"longbench_pro\.json: record 1: "):
        load("longbench_pro", "en", "8k", allow_partial=True)


# ---- NoLiMa ----------------------------------------------------------------------------------------


def nolima(data: Path, **changes: Any) -> None:
    needle = {
        "id": "0401",
        "needle": "Actually, {CHAR} lives next to {1}.",
        "questions": {
            "onehop": "Which character has been to {2}?",
            "twohop": "Which character has been to {3}?",
        },
        "character_set": ["Uma", "Ivo"],
        "tests": {"T01": {"input_args": ["the old opera", "Elmford", "the Low Country"]}},
        **changes,
    }
    folder = data / "nolima"
    folder.mkdir(exist_ok=True)
    (folder / "needle_set.json").write_text(json.dumps([needle]))
    (folder / "rand_book_1.txt").write_text("A sentence of a book about nothing. " * 900)


def test_the_needle_stands_at_its_depth(data: Path) -> None:
    nolima(data)
    items = load("nolima", "all", "1k", allow_partial=True).items
    assert [i.keys["hop"] for i in items] == ["onehop", "twohop"]
    assert items[1].question == "Which character has been to the Low Country?"
    for item in items:
        units = item.units()
        text = " ".join(u.text for u in units)
        assert f"Actually, {item.answers[0]} lives next to the old opera." in text
        assert sum(u.gold for u in units) == 1 and 3000 < len(text) < 5000
        at = text.index("Actually") / len(text)
        assert abs(at - item.keys["depth"]) < 0.05
    name = "icr_nolima_1k"
    assert (
        newbench.scores(newbench.task(name, allow_partial=True), lambda d: d["answers"][0])["nolima"] == 1.0
    )
    assert newbench.scores(newbench.task(name, allow_partial=True), lambda d: "xq")["nolima"] == 0.0


def test_its_licence_must_be_accepted(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    assert main(["data", "fetch", "nolima"]) == 2
    assert "non-commercial research only. Accept it with --accept-license" in capsys.readouterr().err
    with pytest.raises(IcrError, match="icr data fetch nolima --accept-license"):
        load("nolima", "all", "1k")


def test_a_template_that_asks_for_more_is_named(data: Path) -> None:
    nolima(data, needle="{CHAR} knows {9}.")
    with pytest.raises(IcrError, match="record 1: test 'T01': a template asks for more than its 3 arguments"):
        load("nolima", "all", "1k", allow_partial=True)
