"""ROUGE F, every variant by its full name. The definition is rouge-score; rouge-score-rs serves it when
installed.

InfiniteBench's official score, which the paper prints as "R-L", is `rougeLsum` without stemmer: summary-level
LCS over lines. `rougeL` is one LCS over all tokens. `_stem` uses the Porter stemmer.

rouge-score drops whatever is no ASCII letter or digit, so that a Chinese summary would score 0 against itself:
characters of scripts written without blanks are words here, one each. Texts without such characters score as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from .unspaced import spaced

VARIANTS = {
    "rougeLsum": ("rougeLsum", False),
    "rougeL": ("rougeL", False),
    "rougeL_stem": ("rougeL", True),
    "rougeLsum_stem": ("rougeLsum", True),
}


@cache
def engine(name: str | None = None) -> Any:
    """The module that computes: "rs" or "py"; None takes the fast one when it is installed (results are
    identical)."""
    if name != "py":
        try:
            import rouge_score_rs

            return rouge_score_rs
        except ImportError:
            if name == "rs":
                raise
    from rouge_score import rouge_scorer

    return rouge_scorer


@cache
def _scorer(stem: bool, name: str | None) -> Any:
    return engine(name).RougeScorer(["rougeL", "rougeLsum"], use_stemmer=stem)


def score(generation: str, references: Sequence[str], name: str | None = None) -> dict[str, float]:
    """All variants, best reference per variant, as rouge-score's score_multi. Empty text scores 0."""
    said, golds = spaced(generation), [spaced(text) for text in references]
    plain = {stem: _scorer(stem, name).score_multi(golds, said) for stem in (False, True)}
    return {label: float(plain[stem][kind].fmeasure) for label, (kind, stem) in VARIANTS.items()}
