"""The comparisons rewards are made of: answer, ids, quotes, reproduced content. Pure, no I/O, no
randomness."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from icr_tasks.errors import IcrError, unknown
from icr_tasks.metrics.answers import normalize, subem
from icr_tasks.metrics.citations import cited_ids, contents, prf, quotes
from icr_tasks.metrics.extract import extract_answer, strip_thoughts

from ..data.keychain import question_of
from . import guard
from .words import FUNCTION

# ---- row -----------------------------------------------------------------------------------------
# What a reward needs to know about a training row, and the options of the `paper` preset.

Scores = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One training example. `gold_docs` are the texts of `gold_ids`, in the same order.

    `gold_ids` are the refined gold passages (paper: about 4); `original_ids` those of the dataset (2), which
    the released code uses in its ID reward. `passages`, where the record has them, is the whole context: what
    stands in it beside the gold answer may stand beside it in a completion.
    """

    answers: tuple[str, ...]
    gold_ids: tuple[int, ...] = ()
    gold_docs: tuple[str, ...] = ()
    question: str = ""
    original_ids: tuple[int, ...] = ()
    id: str = ""
    passages: tuple[str, ...] = ()

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
            answers=(str(answers),)
            if isinstance(answers, str | int | float)
            else tuple(str(a) for a in answers),
            gold_ids=tuple(int(i) for i in _given(record, "gold_ids")),
            gold_docs=tuple(str(d) for d in _given(record, "gold_docs")),
            question=str(record.get("question") or ""),
            original_ids=tuple(int(i) for i in _given(record, "original_ids")),
            id=str(record.get("id") or ""),
            passages=tuple(str(p) for p in _given(record, "passages")),
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

    `guard=False` is the literal reading (SubEM of whatever stands after the marker). `ids="f1"` replaces set
    equality. `hybrid` lets a judge's third criterion (answer correct) count where the rule says no.
    `rule=False` takes the rule out of reward `hybrid`: the judge alone decides.
    """

    guard: bool = True
    extra_words: int = 3
    ids: str = "equal"
    content_threshold: float = 0.8
    quote_threshold: float = 90.0
    quote_min_words: int = 5
    quote_max_words: int = 50
    quote_content: int = 3
    hybrid: bool = False
    rule: bool = True
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ids not in ("equal", "f1"):
            raise unknown("ids option", self.ids, ("equal", "f1"))
        for name in ("guard", "hybrid", "rule"):
            if not isinstance(getattr(self, name), bool):  # the text "false" would count as true
                raise IcrError(f"reward option {name} is {getattr(self, name)!r}; it must be true or false")
        numbers = ("extra_words", "content_threshold", *(n for n in vars(self) if n.startswith("quote_")))
        for name in numbers:
            if not _number(getattr(self, name)) or getattr(self, name) < 0:
                raise IcrError(f"reward option {name} is {getattr(self, name)!r}; it must be a number from 0")
        if not isinstance(self.weights, Mapping):
            raise IcrError(f"reward option weights is {self.weights!r}; it maps terms to factors")
        for term, factor in self.weights.items():
            if term not in TERMS:
                raise unknown("reward term", term, TERMS)
            if not _number(factor):
                raise IcrError(f"the weight of {term} is {factor!r}; it must be a number")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Options:
        """From a config's mapping; IcrError with the nearest match for a key that does not exist."""
        known = [f.name for f in fields(cls)]
        for name in given or {}:
            if name not in known:
                raise unknown("reward option", name, known)
        return cls(**(given or {}))


TERMS = ("answer", "ids", "content", "quotes", "judge")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def answer(text: str, row: Row, options: Options) -> float:
    """1[ans(y) ~ a*]: the metric's extraction and SubEM.

    With the guard a formal marker ("Answer:", "The answer is:", <answer>) must be there, and what follows it
    must name the gold and no other candidate (guard.py). `extra_words` is how many small words more it may
    have. The guard only takes away: what the metric's extraction does not find earns nothing.
    """
    literal = subem(extract_answer(text).text, row.answers)
    said = marked(text) if options.guard and literal else None
    if not options.guard or said is None:
        return 0.0 if options.guard else literal
    # Behind a chain of keys the question that is answered stands in a passage, not in the prompt.
    question = question_of({"question": row.question, "gold_docs": row.gold_docs})
    return float(
        guard.names_only(*said, row.answers, question, row.gold_docs + row.passages, options.extra_words)
    )


_TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.I | re.S)


def marked(text: str) -> tuple[str, str] | None:
    """The answer after the last formal marker and the text that follows it; None without a marker."""
    text = strip_thoughts(text)
    tagged = _TAGGED.findall(text)
    shown = guard.plain(_TAGGED.sub(r"\nAnswer: \1\n", text) if tagged else text)
    found = extract_answer(shown)
    if not found.found:
        return None
    return found.text, _after(shown, found.text)


_MARK = re.compile(r"answer\W*(?:\b(?:is|was|are|would be)\b\W*)?$", re.I)


def _after(text: str, said: str) -> str:
    """What follows the answer: after its last occurrence that stands behind a marker."""
    spots = [m.start() for m in re.finditer(re.escape(said), text)]
    behind = [i for i in spots if _MARK.search(text[max(0, i - 40) : i])]
    at = (behind or spots or [len(text)])[-1]
    return text[at + len(said) :]


def ids(text: str, row: Row, options: Options) -> float:
    """1[ids(y) = D*], or the F1 of the two sets. With the guard a document that is named as irrelevant is not
    cited."""
    cited = set(cited_ids(_DISMISSED.sub("", text) if options.guard else text))
    if options.ids == "f1":
        return prf(cited, row.gold_ids)[2]
    return float(cited == set(row.gold_ids))


_DISMISSED = re.compile(
    r"[^.;,\n]*\b(?:not\s+(?:relevant|related|helpful|useful)|irrelevant|unrelated)\b[^.;,\n]*", re.I
)


def content_similarity(produced: str, document: str) -> float:
    """Share of words kept in order, 0-1 (normalised Indel similarity on words): a bag of words does not
    pass."""
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(normalize(produced).split(), normalize(document).split()))


def content(text: str, row: Row, options: Options) -> float:
    """1[cont(y) ~ {d_i : i in D*}]: as many documents as gold ones, each gold one reproduced once.

    With the guard each under its own tag: `[DOC 3]` before document 3.
    """
    if not options.guard:
        return float(content_mean(text, row) >= options.content_threshold and _same_count(text, row))
    said = contents(text)
    gold = dict(zip(row.gold_ids, row.gold_docs, strict=False))
    return float(
        bool(gold)
        and said.keys() == gold.keys()
        and all(content_similarity(said[i], gold[i]) >= options.content_threshold for i in gold)
    )


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
    if _verbatim(quote, document):
        return True
    needle, hay = normalize(quote), normalize(document)
    if len(needle) > len(hay):  # partial_ratio would look for the document in the quote
        return False
    from rapidfuzz import fuzz

    return fuzz.partial_ratio(needle, hay, score_cutoff=options.quote_threshold) >= options.quote_threshold


def _verbatim(quote: str, document: str) -> bool:
    return f" {normalize(quote)} " in f" {normalize(document)} "


def quoted(text: str, row: Row, options: Options) -> float:
    """1[quotes(y) in {d_i : i in D*}]: there are quotes, and each one stands in a gold document.

    With the guard they also cover the evidence, a quote for every gold document, and each says something:
    `quote_content` words or more that are no function words. A phrase that stands in several of them ("is an
    American film directed by") speaks for none, unless they overlap there, as windows of one article do.
    """
    found = quotes(text)
    where = [{i for i, d in enumerate(row.gold_docs) if contained(q, d, options)} for q in found]
    if not found or not all(where):
        return 0.0
    if not options.guard:
        return 1.0
    empty = any(sum(w.norm not in FUNCTION for w in guard.words(q)) < options.quote_content for q in found)
    exact = [
        {i for i in at if _verbatim(q, row.gold_docs[i])} or at for q, at in zip(found, where, strict=True)
    ]
    spoken_for = set().union(*(at for at in exact if _one_text([row.gold_docs[i] for i in sorted(at)])))
    return float(not empty and spoken_for == set(range(len(row.gold_docs))))


_OVERLAP = 20  # words in a row that two passages share only where they come from one text


def _one_text(docs: Sequence[str]) -> bool:
    """Whether every passage overlaps the first one."""
    return all(_runs(docs[0]) & _runs(other) for other in docs[1:])


@lru_cache(maxsize=4096)
def _runs(document: str) -> frozenset[tuple[str, ...]]:
    said = normalize(document).split()
    return frozenset(tuple(said[i : i + _OVERLAP]) for i in range(max(1, len(said) - _OVERLAP + 1)))
