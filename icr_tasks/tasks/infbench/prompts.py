"""InfiniteBench En.MC, En.QA and En.Sum: the paper's Table 7 and the benchmark's own (its GPT-4 set)."""

from __future__ import annotations

from ...context.prompts import Prompt

PAPER, OFFICIAL = "arXiv 2601.18527, Table 7", "OpenBMB/InfiniteBench src/prompt.py (GPT-4 set)"
_ANSWER = 'Format your response as follows: "The answer is (insert answer here)".'
_CHOICES = "A. {choice_a}\nB. {choice_b}\nC. {choice_c}\nD. {choice_d}"
_HELPFUL = "You are a helpful assistant"
_QUESTION = "Question: {question}\n\n"
_MC = _QUESTION + "Only one of the following options is correct:\n\n" + _CHOICES + "\n\n" + _ANSWER
_MC_OFFICIAL = (
    _QUESTION + "Only one of the following options is correct, tell me the answer using one single letter (A, B, C, or "
    "D). Don't say anything else.\n" + _CHOICES
)
_READ = "Read the book below and answer the question.\n\n{context}\n\n"


def _both(paper: Prompt, official: Prompt) -> dict[str, Prompt]:
    return {"paper": paper, "official": official}


def _book(name: str, user: str, system: str, **more: object) -> Prompt:
    defaults = {"unit": "{text}", "joiner": "\n", "cut": "middle", "source": OFFICIAL if name == "official" else PAPER}
    return Prompt(name, user, system, **{**defaults, **more})  # type: ignore[arg-type]


PROMPTS: dict[str, dict[str, Prompt]] = {
    "qa": _both(
        _book("paper", _READ + _QUESTION + _ANSWER, "You are an expert in answering questions about books.",
              no_context=_QUESTION + _ANSWER),
        _book("official", "Read the book below and answer a question.\n\n{context}\n\n" + _QUESTION + "Be very concise.",
              _HELPFUL, no_context=_QUESTION + "Be very concise.", max_gen_toks=40),
    ),
    "mc": _both(
        _book("paper", _READ + _MC, "You are an expert in multiple-choice question answering about books.",
              no_context=_MC),
        _book("official", "Read the book and answer the question.\n\n{context}\n\n" + _MC_OFFICIAL, _HELPFUL,
              no_context=_MC_OFFICIAL, max_gen_toks=40),
    ),
    "sum": _both(
        _book("paper", "Summarize the book below.\n\n{context}.", "You are an expert in summarizing books."),
        _book("official", "Summarize the following book.\n\n{context}", _HELPFUL, max_gen_toks=1200),
    ),
}  # fmt: skip
