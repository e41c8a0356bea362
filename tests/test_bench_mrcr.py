"""MRCR: conversations as chat turns, never cut, scored as the card scores them."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import newbench
import pytest
import tiny

from icr_tasks.benchmarks import load, mrcr, official_tokens
from icr_tasks.errors import IcrError

TASK = "icr_mrcr_2needle_8k"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files: five conversations of the 8k bin, one of the 16k bin; tokens are words."""
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(official_tokens, "encoder", lambda name: lambda text: len(text.split()))
    rows = [newbench.mrcr_row(2, 1 + n % 2, 5000, n) for n in range(5)]
    newbench.parquet(tmp_path / "mrcr" / "2needle_0.parquet", rows[:3])
    newbench.parquet(tmp_path / "mrcr" / "2needle_1.parquet", [*rows[3:], newbench.mrcr_row(2, 1, 9000, 9)])
    return tmp_path


def test_bins_hold_the_rows_of_their_official_tokens(files: Path) -> None:
    short = load("mrcr", "2needle", "8k", allow_partial=True)
    assert (len(short.items), len(load("mrcr", "2needle", "16k", allow_partial=True).items)) == (5, 1)
    assert not short.official and short.n_expected == 100
    assert all(4096 <= item.keys["official_tokens"] < 8192 for item in short.items)
    edges = mrcr.EDGES
    assert official_tokens.inside(8192, 8192, 16384, edges) and not official_tokens.inside(
        8192, 4096, 8192, edges
    )
    assert official_tokens.inside(edges[-1], edges[-2], edges[-1], edges)
    with pytest.raises(IcrError, match="5 2needle rows of 8k"):
        load("mrcr", "2needle", "8k")


def test_the_conversation_is_sent_as_turns(files: Path) -> None:
    sent: list[list[dict[str, str]]] = []

    def template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        sent.append(messages)
        return json.dumps(messages)

    found = newbench.task(TASK, allow_partial=True)
    found.build_all_requests(chat_template=template, apply_chat_template=True)
    rows = [newbench.mrcr_row(2, 1 + n % 2, 5000, n) for n in range(5)]
    assert [m for m in sent if len(m) > 2][: len(rows)] == [json.loads(r["prompt"]) for r in rows]
    instance = found.instances[0]
    prompt = instance.args[0]
    assert prompt[: instance.boundary].endswith(json.loads(rows[0]["prompt"])[-2]["content"])


def test_gold_only_and_retrieval_keep_the_order_and_the_needles(files: Path) -> None:
    [item, *_] = load("mrcr", "2needle", "8k", allow_partial=True).items
    units = item.units()
    assert sum(u.gold for u in units) == 2 and all(len(u.turns) == 2 for u in units)
    tokenizer = str(tiny.tokenizer().save_pretrained(files / "tok") and files / "tok")
    sent: list[list[dict[str, str]]] = []

    def template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        sent.append(messages)
        return "\n".join(m["content"] for m in messages)

    found = newbench.task(TASK, allow_partial=True, setting="gold@only")
    found.build_all_requests(chat_template=template, apply_chat_template=True, limit=1)
    [talked, *_] = [messages for messages in sent if len(messages) > 3]  # others ask what the template can do
    assert [m["content"] for m in talked[1:-1]] == [c for u in units if u.gold for _, c in u.turns]
    sent.clear()
    found = newbench.task(TASK, allow_partial=True, setting="rag@16k", tokenizer=tokenizer, max_length=10**6)
    found.build_all_requests(chat_template=template, apply_chat_template=True, limit=1)
    talk = [c for u in units for _, c in u.turns]
    shown = [m["content"] for m in max(sent, key=len)[1:-1]]
    assert 0 < len(shown) < len(talk) and [c for c in talk if c in shown] == shown


def test_what_exceeds_the_window_is_not_sent_and_never_cut(files: Path) -> None:
    tokenizer = str(tiny.tokenizer().save_pretrained(files / "tok") and files / "tok")
    found = newbench.task(TASK, allow_partial=True, tokenizer=tokenizer, max_length=9000)
    with pytest.raises(IcrError, match="no item can be sent: needs .* the model has 9000"):
        found.build_all_requests()
    for option in ({"overflow": "truncate"}, {"truncation": "middle"}):
        found = newbench.task(TASK, allow_partial=True, tokenizer=tokenizer, max_length=9000, **option)
        with pytest.raises(IcrError, match="is never cut"):
            found.build_all_requests()


def test_oracle_junk_and_the_cards_function(files: Path) -> None:
    right = newbench.scores(newbench.task(TASK, allow_partial=True), lambda doc: "\n" + doc["answers"][0])
    assert right["mrcr"] == right["mrcr_prefix"] == 1.0
    junk = newbench.scores(newbench.task(TASK, allow_partial=True), lambda doc: doc["answers"][0][3:])
    assert junk["mrcr"] == junk["mrcr_prefix"] == 0.0
    half = {i.id: i for i in load("mrcr", "2needle", "8k", allow_partial=True).items}

    def say(doc: dict[str, Any]) -> str:
        return doc["answers"][0][:2000] + " and so on"

    got = newbench.scores(newbench.task(TASK, allow_partial=True), say)
    wanted = []
    for item in half.values():
        prefix, answer = item.fields["prefix"], item.answers[0]
        said = say({"answers": [answer]})[len(prefix) :]
        wanted.append(difflib.SequenceMatcher(None, said, answer[len(prefix) :]).ratio())
    assert got["mrcr"] == sum(wanted) / len(wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"prompt": json.dumps([{"role": "assistant", "content": "x"}])},
            "does not end with the user's question",
        ),
        ({"prompt": "{"}, "not a JSON list of messages"),
        ({"prompt": json.dumps([{"role": "user"}])}, "not a list of messages with role and content"),
        ({"answer": "another text"}, "does not start with random_string_to_prepend"),
        ({"n_chars": None}, "field 'n_chars' is null"),
    ],
)
def test_a_broken_row_is_named(
    change: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    newbench.parquet(tmp_path / "mrcr" / "2needle_0.parquet", [{**newbench.mrcr_row(2, 1, 90), **change}])
    with pytest.raises(IcrError, match=words):
        load("mrcr", "2needle", "8k")
    (tmp_path / "mrcr" / "2needle_0.parquet").write_bytes(b"<html>not found</html>")
    with pytest.raises(IcrError, match="not a parquet file"):
        load("mrcr", "2needle", "8k")
