"""The verdict store, the judge's options, and secrets that must not show."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_judge import KEY, cases, config

from icr_tasks.errors import IcrError
from icr_tasks.metrics.judge import Case, Judge, JudgeConfig
from icr_tasks.metrics.judge.secrets import Redactor, redact_url, split_url
from icr_tasks.metrics.judge.store import VerdictStore, key_of


def test_a_stored_verdict_belongs_to_exactly_one_question_and_judge() -> None:
    def key(url: str = "http://a/v1", case: Case | None = None, **more: Any) -> str:
        return Judge(config(url, **more)).key(case or cases(1)[0])

    q, g, r = "q", "g", "r"
    different = [
        key(),
        key(revision="2"),
        key(rubric="paper"),
        key(extra={"top_p": 1}),
        key(api="completions"),
        key(case=Case(q, g, r, "1")),
        key(case=Case(q + g, "", r, "1")),
        key(case=Case(q, g + r, "", "1")),
        key(rubric="paper", case=Case(q, g, r, "1")),
        key(rubric="paper", case=Case(q, g, r, "1", documents="d")),
        key(rubric="equiv", case=Case(q, g, r, "1")),
        key(rubric="equiv", case=Case(q, g, r, "1", rule="off by one is right")),
        key(rubric="equiv", case=Case(q, g, r, "1", rule="the newest counts")),
    ]
    assert len(set(different)) == len(different)
    assert Judge(JudgeConfig("http://a/v1", "other", store=None)).key(cases(1)[0]) != key()
    assert (
        key()
        == key(url="http://elsewhere/v1")
        == key(max_tokens=9, concurrency=1, case=Case("Question 0?", "gold 0", "answer 0", "other id"))
    )
    assert key_of("a", "b") != key_of("ab", "") and key_of("a,b") != key_of("a", "b")


def test_a_sheet_tells_apart_what_keys_tell_apart_and_holds_no_key() -> None:
    plain = JudgeConfig("http://a/v1", "m", store=None)
    odd = [
        replace(plain, api="completions"),
        replace(plain, extra={"top_p": 0.5, "headers": {"key": "sk-secret-1"}}),
    ]
    odd += [replace(plain, revision="r2"), replace(plain, model="n"), replace(plain, rubric="equiv")]
    assert len({json.dumps(one.sheet()) for one in [plain, *odd]}) == 6
    assert "secret" not in str([one.sheet() for one in odd]) and "request" not in plain.sheet()


def test_stores_that_cannot_be_used_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "text").write_text("not a database, long enough to be looked at " * 40)
    with pytest.raises(IcrError, match="choose another judge_store"):
        VerdictStore(tmp_path / "text")
    with pytest.raises(IcrError, match="choose another judge_store"):
        VerdictStore(tmp_path / "text" / "below")
    old = sqlite3.connect(tmp_path / "old")
    old.execute("PRAGMA user_version = 9")
    with pytest.raises(IcrError, match="another version"):
        VerdictStore(tmp_path / "old")
    full = VerdictStore(tmp_path / "full")
    full._db.execute("PRAGMA max_page_count = 4")
    for n in range(50):
        full.put(str(n), ("judge", "m", "", "v"), "1", ["x" * 4000], {"score": 1}, None)
        full.flush()
    assert caplog.text.count("cannot be kept") == 1


def test_two_processes_may_share_a_store(tmp_path: Path) -> None:
    who = ("judge", "m", "", "v")

    def write(name: str) -> None:
        store = VerdictStore(tmp_path / "v")
        for n in range(40):
            store.put(f"{name}{n}", who, "1", ["reply"], {"n": n}, None)
            if n % 10 == 0:
                store.flush()
        store.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(VerdictStore(tmp_path / "v").get([f"{a}{n}" for a in "abcd" for n in range(40)])) == 160


def test_options_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"judge_base_url": "http://localhost:8001/v1", "judge_model": "m"}
    assert JudgeConfig.parse({"setting": "full"}) is None
    monkeypatch.setenv("ICR_JUDGE_API_KEY", KEY)
    found = JudgeConfig.parse({**base, "judge_concurrency": "8", "judge_store": "off"})
    assert (
        found
        and found.concurrency == 8
        and found.store is None
        and found.api_key == KEY
        and KEY not in repr(found)
    )
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"judge_url": "x"}, "Did you mean 'judge_"),
        ({"judge_model": "m"}, "judge_base_url is missing"),
        ({"judge_base_url": "http://x"}, "judge_model is missing"),
        ({**base, "judge_base_url": "localhost:8001"}, "not http"),
        ({**base, "judge_base_url": "http://x:y/v1"}, "cannot be read"),
        ({**base, "judge_rubric": "lo"}, "Did you mean 'loong'"),
        ({**base, "judge_api": "responses"}, "judge_api"),
        ({**base, "judge_timeout": "soon"}, "must be a number"),
        ({**base, "judge_timeout": float("nan")}, "must be a number"),
        ({**base, "judge_concurrency": 0}, "from 1 to"),
        ({**base, "judge_extra": [1]}, "JSON object"),
        ({**base, "judge_api_key_env": "NOT_SET_ANYWHERE"}, "not set"),
        ({**base, "judge_api_key_env": KEY}, "must be the name"),
    ]
    for metadata, says in wrong:
        with pytest.raises(IcrError, match=says):
            JudgeConfig.parse(metadata)


@settings(max_examples=200, deadline=None)
@given(
    st.text(min_size=4),
    st.text(
        min_size=4, alphabet=st.characters(exclude_characters="@/?#", min_codepoint=33, max_codepoint=126)
    ),
)
def test_secrets_never_show(secret: str, password: str) -> None:
    assert secret not in Redactor(secret)(f"x {secret} y {secret}") or secret in "x *** y ***"
    url = f"http://user:{password}@host.example/v1?key={password}x"
    shown = redact_url(url)
    assert f":{password}@" not in shown and f"{password}x" not in shown and "host.example" in shown
    try:
        bare, basic = split_url(url)
    except IcrError as error:
        assert f":{password}@" not in str(error)
    else:
        assert f":{password}@" not in bare and basic


def test_the_newest_rows_in_their_order(tmp_path: Path) -> None:
    """`last` gives the n newest, oldest of them first, each once."""
    store = VerdictStore(tmp_path / "v")
    for n in range(5):
        store.put(str(n), ("judge", "m", "", "v"), f"item {n}", ["reply"], {"score": 1}, None)
    store.flush()
    rows = store.last(3)
    assert [next(v for v in row.values() if str(v).startswith("item ")) for row in rows] == [
        "item 2",
        "item 3",
        "item 4",
    ]
    assert len(store.last(9)) == 5


@pytest.mark.parametrize("reason", [None, "no verdict"])
@pytest.mark.parametrize("replies", [[], ["a"], ["a", "b", "c"]])
def test_the_last_reply_is_the_verdict_unless_none_could_be_read(
    replies: list[str], reason: str | None
) -> None:
    store = VerdictStore(None)
    store.put("k", ("judge", "m", "1", "2"), "item", replies, {"x": 1}, reason)
    store.flush()
    rows = list(store._db.execute("SELECT key, status, value, reason, reply FROM replies ORDER BY rowid"))
    wanted = [("k", "failed", None, reason, text) for text in replies or [None]]  # type: ignore[list-item]
    if reason is None:
        wanted[-1] = ("k", "ok", '{"x": 1}', None, replies[-1] if replies else None)  # type: ignore[call-overload]
    assert rows == wanted
    assert store.get(["k", "other"]) == (
        {} if reason else {"k": {"value": {"x": 1}, "reply": replies[-1] if replies else None}}
    )
