"""All metrics of one short-answer item."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .citations import cited_ids, prf
from .extract import extract_answer
from .normalize import normalize_official
from .subem import em, f1, subem, subem_official, subem_word, token_f1

_HELMET_ANSWER = re.compile(r"(?:Answer:)(.*)(?:\n|$)", re.I)


def score(generation: str, golds: Sequence[str], gold_ids: Sequence[int] | None = None) -> dict[str, float]:
    """subem (extracted answer; the headline), subem_raw (paper: raw or extracted), subem_word, em, f1, parsed.

    With `gold_ids` also cite_p, cite_r, cite_f1 of the `[DOC i]` ids named.
    """
    answer = extract_answer(generation)
    out = {
        "subem": subem(answer.text, golds),
        "subem_raw": max(subem_official(generation, golds), subem_official(answer.text, golds)),
        "subem_word": subem_word(answer.text, golds),
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
    """InfiniteBench En.QA: token F1 of the whole generation, best over answers (compute_scores.py at 88b3daa)."""
    pred = normalize_official(generation).split()
    return max((token_f1(pred, normalize_official(gold).split()) for gold in golds), default=0.0)
