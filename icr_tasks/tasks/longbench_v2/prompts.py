"""LongBench-v2: the paper's Table 7 (its user text is the official 0shot.txt) and the benchmark's own."""

from __future__ import annotations

from ...context.prompts import Prompt

PAPER, OFFICIAL = "arXiv 2601.18527, Table 7", "THUDM/LongBench prompts/0shot.txt"
_SYSTEM = "You are an expert in multiple-choice question answering."
_TEXT = "Please read the following text and answer the {q} below.\n\n<text>\n{context}\n</text>\n\n"
_QUESTION = (
    "What is the correct answer to this question: {question}\nChoices:\n"
    "(A) {choice_a}\n(B) {choice_b}\n(C) {choice_c}\n(D) {choice_d}\n\n"
)
_ANSWER = 'Format your response as follows: "The correct answer is (insert answer here)".'
_NONE = (
    _QUESTION + "What is the single, most likely answer choice? Format your response as follows: "
    "'The correct answer is (insert answer here)'."
)
_ZERO = _TEXT.replace("{q}", "question") + _QUESTION + _ANSWER
# The official chain-of-thought run is two calls; one generation does both here, with the official answer format.
_COT = _TEXT.replace("{q}", "questions") + _QUESTION + _ANSWER + "\n\nLet’s think step by step:"


def _prompt(name: str, user: str, system: str | None, tokens: int, source: str) -> Prompt:
    return Prompt(
        name,
        user,
        system,
        no_context=_NONE,
        unit="{text}",
        joiner="\n",
        cut="middle",
        max_gen_toks=tokens,
        source=source,
    )


PROMPTS: dict[str, Prompt] = {
    "paper": _prompt("paper", _ZERO, _SYSTEM, 2048, PAPER),
    "official": _prompt("official", _ZERO, None, 128, OFFICIAL),
    "cot": _prompt("cot", _COT, None, 1024, "THUDM/LongBench prompts/0shot_cot.txt, one call"),
}
