"""What a reward needs to know about a training row, and the options of the `paper` preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from icr_tasks.errors import IcrError, unknown

Scores = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One training example. `gold_docs` are the texts of `gold_ids`, in the same order.

    `gold_ids` are the refined gold passages (paper: about 4); `original_ids` those of the dataset (2), which the
    released code uses in its ID reward.
    """

    answers: tuple[str, ...]
    gold_ids: tuple[int, ...] = ()
    gold_docs: tuple[str, ...] = ()
    question: str = ""
    original_ids: tuple[int, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        if not self.answers or not any(a.strip() for a in self.answers):
            raise IcrError(f"row {self.id!r} has no answer; rewards need one")
        if self.gold_docs and len(self.gold_docs) != len(self.gold_ids):
            raise IcrError(f"row {self.id!r}: {len(self.gold_ids)} gold ids but {len(self.gold_docs)} gold texts")

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Row:
        """From a record with the columns of our training files; arrays of any kind are accepted."""
        answers = record["answers"]
        return cls(
            answers=(answers,) if isinstance(answers, str) else tuple(str(a) for a in answers),
            gold_ids=tuple(int(i) for i in _given(record, "gold_ids")),
            gold_docs=tuple(str(d) for d in _given(record, "gold_docs")),
            question=str(record.get("question") or ""),
            original_ids=tuple(int(i) for i in _given(record, "original_ids")),
            id=str(record.get("id") or ""),
        )


def _given(record: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = record.get(name)
    return () if value is None else value


def rows(columns: Mapping[str, Sequence[Any]], n: int) -> list[Row]:
    """Rows from a trainer's columns (name -> one value per completion)."""
    known = [f.name for f in fields(Row) if f.name in columns and columns[f.name] is not None]
    if "answers" not in known:
        raise IcrError("the training data have no column 'answers'; make them with `icr train data`")
    return [Row.of({name: columns[name][i] for name in known}) for i in range(n)]


@dataclass(frozen=True)
class Options:
    """Knobs of the `paper` preset. The defaults are equations 6-10 with the guards of docs/rewards.md.

    `guard=False` is the literal reading (SubEM of whatever stands after the marker). `ids="f1"` replaces set equality.
    `hybrid` lets a judge's third criterion (answer correct) count where the rule says no. `rule=False` takes the rule out
    of reward `hybrid`: the judge alone decides.
    """

    guard: bool = True
    extra_words: int = 10
    ids: str = "equal"
    content_threshold: float = 0.8
    quote_threshold: float = 90.0
    quote_min_words: int = 5
    quote_max_words: int = 50
    hybrid: bool = False
    rule: bool = True
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ids not in ("equal", "f1"):
            raise unknown("ids option", self.ids, ("equal", "f1"))
        for term in self.weights:
            if term not in TERMS:
                raise unknown("reward term", term, TERMS)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Options:
        """From a config's mapping; IcrError with the nearest match for a key that does not exist."""
        known = [f.name for f in fields(cls)]
        for name in given or {}:
            if name not in known:
                raise unknown("reward option", name, known)
        return cls(**(given or {}))


TERMS = ("answer", "ids", "content", "quotes", "judge")
