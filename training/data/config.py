"""Options of `icr train data`: one flat record, three modes, and which stage each option belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from icr_tasks.errors import IcrError, unknown


def _o(default: Any, text: str) -> Any:
    """A field of the record: its default, and what `icr train data --help` says of it."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Config:
    """Everything that changes the data. Defaults are mode `default`; MODES holds what `paper` and
    `paper_code` change."""

    mode: str = _o("default", "whose rules: ours, the paper's as printed, or those of its released code")
    seed: int = _o(0, "of every draw")
    # read
    hotpotqa: str = _o("", "HotpotQA's training file")
    twowiki: str = _o("", "2WikiMultihopQA's training file")
    musique: str = _o("", "MuSiQue's training file")
    records: str = _o("", "any QA set, comma-separated files: question, answers, evidence, domain, documents")
    exclude: str = _o("", "file with questions that must not be trained on")
    per_dataset: int = _o(0, "rows drawn of each data set, 0 = all (the paper: 15,000)")
    gold: str = _o(
        "passage", "passage: at most `words` words around the evidence; paragraph: all of it; sentence"
    )
    sentences: bool = _o(False, "gold passages begin and end with whole sentences")
    titles: bool = _o(False, "every passage begins with its article's title")
    mix: bool = _o(True, "data sets mixed, or one after the other")
    # corpus
    corpus: str = _o("", "comma-separated files or folders, parquet or jsonl(.gz), columns title and text")
    words: int = _o(100, "words of a passage")
    min_words: int = _o(10, "shorter passages of the corpus are left out")
    # retrieve
    embedder: str = _o("bm25", "bm25, or an embedding model: folder or hub id")
    query_prompt: str = _o(
        "auto", "auto: the embedder's own query instruction, none, or the instruction itself"
    )
    top_k: int = _o(500, "passages retrieved for a question")
    # dedupe
    duplicate: float = _o(
        0.9, "word trigram containment from which a hit repeats a gold passage, 0 = keep repeats"
    )
    # refine
    fuzzy: str = _o("containment", "paper: any of the paper's three; paper_code: the released mix")
    threshold: float = _o(0.2, "similarity from which a hit is a candidate for gold")
    promote: int = _o(10, "candidates a row at most, 0 = no limit")
    # judge
    judge_base_url: str = _o("", "address of the judge, ending in /v1; without one candidates stay unjudged")
    judge_model: str = _o("", "its served name")
    judge_api_key_env: str = _o("", "environment variable with its key")
    judge_max_tokens: int = _o(8192, "tokens of a reply at most")
    unjudged: str = _o(
        "negative",
        "candidates without a verdict: negative (near duplicates of the gold are left out), drop, gold",
    )
    # pack
    tokenizer: str = _o("Qwen/Qwen2.5-7B-Instruct-1M", "counts the tokens of a row: folder or hub id")
    tokens: int = _o(32000, "of a row at most")
    min_tokens: int = _o(0, "shorter rows are dropped")
    keep: str = _o(
        "pack", "pack: ranked passages up to the budget; filter: all passages, rows over it dropped"
    )
    keychain: int = _o(
        0, "links of a chain of keys that hides the question (LoongRL), 0 = the question itself"
    )
    # split
    dev: float = _o(0.05, "share of the questions held out")

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), known)
        for name in ("words", "top_k", "tokens", "judge_max_tokens"):
            if getattr(self, name) < 1:
                raise IcrError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("per_dataset", "min_words", "promote", "min_tokens", "keychain"):
            if getattr(self, name) < 0:
                raise IcrError(f"{name}={getattr(self, name)} must be at least 0")
        if not 0 < self.threshold <= 1 or not 0 <= self.duplicate <= 1 or not 0 <= self.dev < 1:
            raise IcrError("threshold lies in (0, 1], duplicate in [0, 1], dev in [0, 1)")
        if self.min_tokens > self.tokens:
            raise IcrError(
                f"min_tokens={self.min_tokens} is above tokens={self.tokens}: no row would be left"
            )


_CHOICES = {
    "mode": ("default", "paper", "paper_code"),
    "gold": ("passage", "paragraph", "sentence"),
    "fuzzy": ("containment", "paper", "paper_code"),
    "unjudged": ("", "negative", "drop", "gold"),
    "keep": ("pack", "filter"),
}
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    # Section 3, appendix A: three heuristics at 0.6, every promotion judged, rows over 32k dropped.
    "paper": {
        "gold": "paragraph",
        "fuzzy": "paper",
        "threshold": 0.6,
        "promote": 0,
        "keep": "filter",
        "unjudged": "",
    },
    # The released scripts: sentences as gold, 480 hits, no query instruction, 16k to 32k, HotpotQA before
    # 2Wiki.
    "paper_code": {
        "gold": "sentence",
        "mix": False,
        "top_k": 480,
        "query_prompt": "none",
        "duplicate": 0.0,
        "fuzzy": "paper_code",
        "threshold": 0.6,
        "promote": 10,
        "keep": "filter",
        "min_tokens": 16000,
        "unjudged": "gold",
    },
}
# The options whose change makes a stage run again (and every stage after it).
STAGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "read": (
        "hotpotqa",
        "twowiki",
        "musique",
        "records",
        "exclude",
        "per_dataset",
        "gold",
        "words",
        "sentences",
        "titles",
        "mix",
        "seed",
    ),
    "corpus": ("corpus", "musique", "records", "words", "min_words", "titles"),
    "retrieve": ("embedder", "query_prompt", "top_k"),
    "dedupe": ("duplicate",),
    "refine": ("fuzzy", "threshold", "promote"),
    "judge": ("judge_base_url", "judge_model", "judge_max_tokens", "unjudged"),
    "pack": ("tokenizer", "tokens", "min_tokens", "keep", "keychain", "seed"),
    "split": ("dev", "seed"),
}


def config(given: Mapping[str, Any]) -> Config:
    """A checked Config: the mode's values, then the given ones. IcrError with the nearest match for unknown
    keys."""
    known = {f.name: f for f in fields(Config)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        key = name.replace("-", "_").replace("2wiki", "twowiki")
        if key not in known:
            raise unknown("data option", name, known)
        values[key] = _typed(name, value, type(known[key].default))
    mode = values.get("mode", "default")
    if mode not in MODES:
        raise unknown("mode", str(mode), MODES)
    return replace(Config(**MODES[mode]), **values)


def _typed(name: str, value: Any, kind: type) -> Any:
    """The value in the option's type; a list of paths becomes one comma-separated string."""
    if kind is str and isinstance(value, list | tuple):
        return ",".join(str(v) for v in value)
    if kind is bool and not isinstance(value, bool):
        raise IcrError(f"data option {name}={value!r} must be true or false")
    if kind is int and (isinstance(value, bool) or (isinstance(value, float) and value % 1)):
        raise IcrError(f"data option {name}={value!r} must be a whole number")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise IcrError(f"data option {name}={value!r} must be {kind.__name__}") from error
