"""LongMemEval (cleaned): 500 questions about a user's chat history; the evidence sessions are marked.

`s` is the history of about 115k tokens, `oracle` the same questions with their evidence sessions alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..metrics import scorers
from . import conversation, flat, lines
from .base import Item, ItemSet, Prompt, Unit
from .declare import benchmark, grid
from .pinned import Pinned

EXPECTED = 500
DATA = Pinned(
    "xiaowu0162/longmemeval-cleaned",
    "98d7416c24c778c2fee6e6f3006e7a073259d48f",
    "MIT",
    {
        "longmemeval_s_cleaned.json": "d6f21ea9d60a0d56f34a05b609c79c88a451d2ae03597821ea3d5a9678c3a442",
        "longmemeval_oracle.json": "821a2034d219ab45846873dd14c14f12cfe7776e73527a483f9dac095d38620c",
    },
    "longmemeval",
    sizes={"longmemeval_s_cleaned.json": 277_383_467, "longmemeval_oracle.json": 15_388_478},
)
FILES = {"s": "longmemeval_s_cleaned.json", "oracle": "longmemeval_oracle.json"}
_LISTS = ("haystack_session_ids", "haystack_dates", "haystack_sessions", "answer_session_ids")
_FIELDS: lines.Fields = {
    **dict.fromkeys(("question_id", "question_type", "question"), str),
    "answer": (str, int, float),
    "question_date": str,
    **dict.fromkeys(_LISTS, list),
}
# What the judge has to know besides question and reference, by type of question.
RULES = {
    "abstention": "The question cannot be answered from the history; the reference says why. CORRECT is an answer that "
    "says that it cannot be answered or that the information is missing; any other answer is INCORRECT.",
    "temporal-reasoning": "A number of days, weeks or months that is off by one is CORRECT.",
    "knowledge-update": "The reference is the newest state. An answer that gives it as the present one is CORRECT, also "
    "if it tells the earlier one too.",
    "single-session-preference": "The reference describes what this user would like. CORRECT is an answer that recalls "
    "and uses the user's information rightly; it need not fulfil every point.",
    "single-session-user": "",
    "single-session-assistant": "",
    "multi-session": "",
}


def load(dataset: str = "s", length: str | None = None, *, allow_partial: object = None, **_: Any) -> ItemSet:
    """All questions with one history. Raises IcrError naming file and record for another shape."""
    found = DATA.records(FILES[dataset], _FIELDS, _keep)
    return DATA.items([_item(found, row) for row in found.rows], [found], EXPECTED, allow_partial)


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    lines.one_of(record, "question_type", [kind for kind in RULES if kind != "abstention"])
    sessions = record["haystack_sessions"]
    if not len(sessions) == len(record["haystack_dates"]) == len(record["haystack_session_ids"]):
        raise ValueError("haystack_sessions, haystack_dates and haystack_session_ids differ in length")
    for number, session in enumerate(sessions):
        if not conversation.is_talk(session):
            raise ValueError(f"session {number} is not a list of turns with role and content")
    absent = set(record["answer_session_ids"]) - set(record["haystack_session_ids"])
    if absent:
        raise ValueError(
            f"answer_session_ids name sessions that are not in the history: {', '.join(sorted(absent))}"
        )
    kept = {k: record[k] for k in ("question_id", "question_type", "question", "question_date")}
    return {**kept, "answer": str(record["answer"]), "n_sessions": len(sessions)}


def _item(found: flat.Records, row: Any) -> Item:
    kept = row.kept
    abstains = kept["question_id"].endswith("_abs")
    rule = RULES["abstention" if abstains else kept["question_type"]]
    return Item(
        kept["question_id"],
        kept["question"],
        (kept["answer"],),
        kept["question_id"],
        partial(_units, found, row),
        keys={"type": kept["question_type"], "abstention": abstains},
        fields={"date": kept["question_date"], **({"rule": rule} if rule else {})},
    )


def _units(found: flat.Records, row: Any) -> list[Unit]:
    """Sessions by date, numbered here: their ids tell which hold the evidence, as `has_answer` does."""
    record = found.read(row)
    gold = [name in record["answer_session_ids"] for name in record["haystack_session_ids"]]
    return conversation.sessions(record["haystack_sessions"], record["haystack_dates"], gold)


_HISTORY = (
    "I will give you several history chats between you and a user. Please answer the question based on the relevant "
    "chat history.{how}\n\n\nHistory Chats:\n\n\n{context}\n\n\nCurrent Date: {date}\nQuestion: {question}\nAnswer:"
)
_CON = (
    " Answer the question step by step: first extract all the relevant information, and then reason over the "
)
_CON += "information to get the answer."


def _prompt(name: str, how: str, tokens: int) -> Prompt:
    return Prompt(
        name,
        user=_HISTORY.replace("{how}", how),
        no_context="Current Date: {date}\nQuestion: {question}\nAnswer:",
        unit="### Session {n}:\nSession Date: {title}\nSession Content:\n\n{text}",
        ordered=True,
        max_gen_toks=tokens,
        source="xiaowu0162/LongMemEval",
    )


@benchmark(
    "longmemeval",
    title="LongMemEval",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=scorers.BUNDLES["qa_judged"],
    prompts={"direct": _prompt("direct", "", 500), "con": _prompt("con", _CON, 800)},
    **DATA.facts,
    n=EXPECTED,
    overflow="skip",
    metric_definition="share of answers that a judge finds right, with the rule of the question's type",
    cluster="question",
    scorer="qa_judged",
    typical_tokens=115_000,
    breakdown=["type", "abstention"],
)
class LongMemEval:
    """Two histories of the same questions. `gold@only` on `s` shows what `oracle` holds."""

    tasks = grid(dataset=FILES)
    load = staticmethod(load)
    files = staticmethod(lambda dataset, length: DATA.remotes(FILES[dataset]))  # one a history
