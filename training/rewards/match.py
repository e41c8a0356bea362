"""The comparisons rewards are made of: answer, ids, quotes, reproduced content. Pure, no I/O, no
randomness."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from icr_tasks.errors import IcrError, unknown
from icr_tasks.metrics.answers import normalize, subem, subem_word
from icr_tasks.metrics.citations import cited_ids, contents, prf, quotes
from icr_tasks.metrics.extract import extract_answer

# ---- row -----------------------------------------------------------------------------------------
# What a reward needs to know about a training row, and the options of the `paper` preset.

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
            raise IcrError(
                f"row {self.id!r}: {len(self.gold_ids)} gold ids but {len(self.gold_docs)} gold texts"
            )

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


_YES_NO = ("yes", "no")


def answer(text: str, row: Row, options: Options) -> float:
    """1[ans(y) ~ a*]: the metric's extraction and SubEM.

    With the guard a formal marker ("Answer:", "The answer is:") must be there, the gold must stand at word
    bounds, yes/no must come first and alone, and the answer may not list alternatives or have more than
    `extra_words` words beyond the longest gold: a list of guesses is no answer.
    """
    found = extract_answer(text)
    if not options.guard:
        return subem(found.text, row.answers)
    words = normalize(found.text).split()
    golds = [normalize(a) for a in row.answers]
    if not found.found or not words or len(words) > max(len(g.split()) for g in golds) + options.extra_words:
        return 0.0
    if any(g in _YES_NO for g in golds):
        said = {w for w in words if w in _YES_NO}
        return float(len(said) == 1 and words[0] in golds)
    if _alternatives(found.text) > max(_alternatives(a) for a in row.answers) or _lists_choices(
        found.text, row
    ):
        return 0.0
    return subem_word(found.text, row.answers)


_EITHER = re.compile(r"\s(?:or|and|versus|vs\.?)\s|[;|\n]|\s/\s|\w/\w", re.I)


def _alternatives(text: str) -> int:
    """Marks that join alternatives; at most two commas are free ("Paris, Texas, United States")."""
    return len(_EITHER.findall(text)) + max(0, len(re.findall(r",(?!\d)", text)) - 2)


def _lists_choices(text: str, row: Row) -> bool:
    """Whether several parts of the answer are choices the question itself offers ("A, B" for "A or B?")."""
    asked = f" {normalize(row.question)} "
    parts = [normalize(part) for part in text.split(",")]
    named = {part for part in parts if part and f" {part} " in asked}
    return len(named) > 1 and not any(all(p in normalize(a) for p in named) for a in row.answers)


def ids(text: str, row: Row, options: Options) -> float:
    """1[ids(y) = D*], or the F1 of the two sets."""
    cited = set(cited_ids(text))
    if options.ids == "f1":
        return prf(cited, row.gold_ids)[2]
    return float(cited == set(row.gold_ids))


def content_similarity(produced: str, document: str) -> float:
    """Share of words kept in order, 0-1 (normalised Indel similarity on words): a bag of words does not
    pass."""
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(normalize(produced).split(), normalize(document).split()))


def content(text: str, row: Row, options: Options) -> float:
    """1[cont(y) ~ {d_i : i in D*}]: as many documents as gold ones, each gold one reproduced once."""
    return float(content_mean(text, row) >= options.content_threshold and _same_count(text, row))


def _same_count(text: str, row: Row) -> bool:
    return len(contents(text)) == len(row.gold_docs) and bool(row.gold_docs)


def content_mean(text: str, row: Row) -> float:
    """The least similarity over gold documents, under the greedy one-to-one matching of what was
    reproduced."""
    produced = list(contents(text).values())
    if not produced or not row.gold_docs:
        return 0.0
    pairs = sorted(
        (
            (content_similarity(p, d), i, j)
            for i, p in enumerate(produced)
            for j, d in enumerate(row.gold_docs)
        ),
        reverse=True,
    )
    used_p: set[int] = set()
    best: dict[int, float] = {}
    for value, i, j in pairs:
        if i not in used_p and j not in best:
            used_p.add(i)
            best[j] = value
    return min(best.get(j, 0.0) for j in range(len(row.gold_docs)))


def contained(quote: str, document: str, options: Options) -> bool:
    """Whether the quote stands in the document: its words in a row, or nearly so (a slip in copying).

    A whole-string similarity cannot tell: a verbatim 23-word quote of a 100-word passage scores 0.41 of 1.
    """
    if not options.quote_min_words <= len(quote.split()) <= options.quote_max_words:
        return False
    needle, hay = normalize(quote), normalize(document)
    if f" {needle} " in f" {hay} ":
        return True
    if len(needle) > len(hay):  # partial_ratio would look for the document in the quote
        return False
    from rapidfuzz import fuzz

    return fuzz.partial_ratio(needle, hay, score_cutoff=options.quote_threshold) >= options.quote_threshold


def quoted(text: str, row: Row, options: Options) -> float:
    """1[quotes(y) in {d_i : i in D*}]: there are quotes, and each one stands in a gold document."""
    found = quotes(text)
    return float(bool(found) and all(any(contained(q, d, options) for d in row.gold_docs) for q in found))
