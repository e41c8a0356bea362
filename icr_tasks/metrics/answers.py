"""SubEM and its word-safe variant, exact match and token F1. Each takes text and the accepted answers,
returns 0-1."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from .citations import cited_ids, prf
from .extract import extract_answer
from .normalised import subem_norm

# ---- normalize -----------------------------------------------------------------------------------
# Text normalisation before answers are compared.

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_official(text: str) -> str:
    """HELMET utils.py (SQuAD's rule): lower, drop ASCII punctuation, drop a/an/the, squeeze white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalize(text: str) -> str:
    """The official rule on text whose accents, width variants, dashes and typographic quotes are folded
    first.

    "Röntgen" = "Rontgen", "São Tomé" = "Sao Tome", "don’t" = "dont". A text of punctuation or articles alone
    keeps its lower-cased words ("The The", "!!!" -> "the the", "!!!") instead of becoming the empty string
    that every answer contains.
    """
    folded = unicodedata.normalize("NFKD", text)
    folded = "".join(c for c in folded if not unicodedata.combining(c)).translate(_FOLD)
    return normalize_official(folded) or _whole(folded)


def _whole(folded: str) -> str:
    """Lower case without punctuation, articles kept; a text of punctuation alone as it stands."""
    words = folded.lower().split()
    return " ".join(" ".join(words).translate(_PUNCTUATION).split()) or " ".join(words)


_FOLD = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "–": "-",
        "—": "-",
        "−": "-",
        "‐": "-",
        "‑": "-",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "ß": "ss",
        "æ": "ae",
        "Æ": "Ae",
        "œ": "oe",
        "Œ": "Oe",
    }
)


_YES_NO = ("yes", "no", "noanswer")


def subem(pred: str, golds: Sequence[str]) -> float:
    """1 if a normalised gold is a substring of the normalised prediction; an empty gold never matches."""
    text = normalize(pred)
    return float(any((g := normalize(gold)) != "" and g in text for gold in golds))


def subem_official(pred: str, golds: Sequence[str]) -> float:
    """HELMET's own: ASCII normalisation, and a gold that normalises to nothing matches everything."""
    text = normalize_official(pred)
    return float(any(normalize_official(gold) in text for gold in golds))


def subem_word(pred: str, golds: Sequence[str]) -> float:
    """As `subem`, but the gold must start and end at word bounds: "no" is not in "unknown", "1" not in
    "1991"."""
    text = normalize(pred)
    return float(any((g := normalize(gold)) != "" and _word(g).search(text) is not None for gold in golds))


def _word(gold: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(gold)}(?!\w)")


def em(pred: str, golds: Sequence[str], norm: Callable[[str], str] = normalize) -> float:
    """1 if the normalised prediction equals a normalised gold."""
    text = norm(pred)
    return float(any(norm(gold) == text and text != "" for gold in golds))


def f1(pred: str, golds: Sequence[str], norm: Callable[[str], str] = normalize) -> float:
    """Best token F1 over golds; a yes/no on either side must match exactly (HELMET utils.py f1_score)."""
    return max((_f1(norm(pred), norm(gold)) for gold in golds), default=0.0)


def _f1(pred: str, gold: str) -> float:
    if (pred in _YES_NO or gold in _YES_NO) and pred != gold:
        return 0.0
    return token_f1(pred.split(), gold.split())


def token_f1(pred: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two token multisets; 0 when nothing is shared."""
    common = sum((Counter(pred) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(pred), common / len(gold)
    return 2 * precision * recall / (precision + recall)


# ---- qa ------------------------------------------------------------------------------------------
# All metrics of one short-answer item.

_HELMET_ANSWER = re.compile(r"(?:Answer:)(.*)(?:\n|$)", re.I)


def score(generation: str, golds: Sequence[str], gold_ids: Sequence[int] | None = None) -> dict[str, float]:
    """subem and subem_norm (extracted answer; without a marker the whole text), subem_raw (paper: raw or
    extracted), subem_word, em, f1 (without a marker: the first sentence), parsed.

    With `gold_ids` also cite_p, cite_r, cite_f1 of the `[DOC i]` ids named.
    """
    answer = extract_answer(generation)
    out = {
        "subem": subem(answer.reads, golds),
        "subem_norm": subem_norm(answer.reads, golds),
        "subem_raw": max(subem_official(generation, golds), subem_official(answer.text, golds)),
        "subem_word": subem_word(answer.reads, golds),
        "em": em(answer.text, golds),
        "f1": f1(answer.text, golds),
        "parsed": float(answer.found),
    }
    if gold_ids is not None:
        out["cite_p"], out["cite_r"], out["cite_f1"] = prf(cited_ids(generation), gold_ids)
    return out


def helmet_official(generation: str, golds: Sequence[str], *, completion: bool = True) -> dict[str, float]:
    """HELMET's subem, em and f1: the maximum over raw and parsed text (utils.py parse_output, data.py).

    `completion`: the prompt ended in "Answer:", which is put back before scoring (eval.py).
    """
    raw = f"Answer:{generation}" if completion else generation
    match = _HELMET_ANSWER.search(raw)
    parsed = (match[1] if match else raw.split("\n")[0]).strip()
    parsed = re.sub(r"^answer:", "", parsed, flags=re.I).strip()
    texts = (raw, parsed)
    return {
        "subem": max(subem_official(t, golds) for t in texts),
        "em": max(em(t, golds, normalize_official) for t in texts),
        "f1": max(f1(t, golds, normalize_official) for t in texts),
    }


def infbench_f1(generation: str, golds: Sequence[str]) -> float:
    """InfiniteBench En.QA: token F1 of the whole generation, best over answers (compute_scores.py at
    88b3daa)."""
    pred = normalize_official(generation).split()
    return max((token_f1(pred, normalize_official(gold).split()) for gold in golds), default=0.0)
