"""Scripts that write no blanks between words: retrieval and recall read their characters, not sentences as one word."""

from __future__ import annotations

import numpy as np
import pytest

from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context import pool
from icr_tasks.context.retrieval import make
from icr_tasks.context.retrieve import contains, recall

pytest.importorskip("bm25s")
CHINESE = (
    "今天天气很好，我们去公园散步。",
    "小说的作者鲁迅出生于绍兴。",
    "公司去年的收入是三千万元。",
    "东京是日本的首都。",
)
JAPANESE = ("昨日は雨が降っていました。", "作家の夏目漱石は東京で生まれた。", "会社の売上は三億円でした。")
THAI = ("วันนี้อากาศดีมาก", "ผู้เขียนเกิดที่เชียงใหม่", "บริษัทมีรายได้สามล้านบาท")


@pytest.mark.parametrize(
    ("texts", "question", "best"),
    [(CHINESE, "鲁迅出生在哪里？", 1), (CHINESE, "公司的收入是多少？", 2), (CHINESE, "日本的首都是哪里？", 3),
     (JAPANESE, "夏目漱石はどこで生まれましたか", 1), (THAI, "ผู้เขียนเกิดที่ไหน", 1)],
)  # fmt: skip
def test_words_are_found_where_no_blank_stands(texts: tuple[str, ...], question: str, best: int) -> None:
    units = [Unit(str(n), text) for n, text in enumerate(texts)]
    found = make("bm25", {"retriever": "bm25"}).scores(pool.passages(units), question)
    assert int(np.argmax(found)) == best and found[best] > 0


def test_other_texts_are_ranked_as_before() -> None:
    """Words of scripts with blanks stay whole, accents and all."""
    units = [
        Unit("a", "Κάθε μέρα πάμε στο πάρκο."),
        Unit("b", "Ο συγγραφέας γεννήθηκε στην Αθήνα."),
        Unit("c", "Πού;"),
    ]
    found = make("bm25", {"retriever": "bm25"}).scores(pool.passages(units), "γεννήθηκε ο συγγραφέας")
    assert list(found > 0) == [False, True, False]


@pytest.mark.parametrize(
    ("text", "needle", "there"),
    [("小说的作者鲁迅出生于绍兴。", "绍兴", True), ("他在绍兴长大", "绍兴", True), ("東京で生まれた", "東京", True),
     ("他在绍兴长大", "兴绍", False), ("un Parisien", "Paris", False), ("in Paris.", "paris", True), ("abcd", "bc", False),
     ("在Paris长大", "Paris", True)],
)  # fmt: skip
def test_an_answer_is_seen_between_characters(text: str, needle: str, there: bool) -> None:
    assert contains(text, [needle]) is there


def test_recall_is_known_for_an_answer_inside_a_sentence() -> None:
    units = [Unit("a", CHINESE[0]), Unit("b", CHINESE[1])]
    item = Item("1", "鲁迅出生在哪里？", ("绍兴",), "1", lambda: units)
    assert recall(item, units, units[1:], marked=False) == (1.0, "answer")
    assert recall(item, units, units[:1], marked=False) == (0.0, "answer")
