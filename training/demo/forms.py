"""Completions of the tiny models in the five formats of the paper, and which parts of them are one token."""

from __future__ import annotations

PLAIN = ("ao", "id")  # what the demonstration's base knows
FIVE = ("ao", "id", "idc", "idq", "judge")

# Parts of the longer answers that a tokenizer of a thousand entries keeps whole.
FIXED: dict[str, tuple[str, ...]] = {
    "idc": ("Relevant documents:\n", "\n\nThe answer is: ", ".\n\nThe answer is: "),
    "idq": ('Quote 1: "', '."\n\nRelevant Document IDs: ', "\n\nThe answer is: ", "\nThe answer is: "),
    "judge": ("**Step 3: Reasoning**\nAccording to ", ".\n\n**Step 4: Answer**\nThe answer is: "),
}


def answer(prompt: str, number: int, text: str, value: str) -> str:
    """A completion in the prompt's format that cites passage `number`, whose text is `text`."""
    said = f"The answer is: {value}."
    match prompt:
        case "id":
            return f"[DOC {number}]\n{said}"
        case "idc":
            return f"Relevant documents:\n[DOC {number}]\n{text}\n\n{said}"
        case "idq":
            return f'Quote 1: "{text}"\n\nRelevant Document IDs: [DOC {number}]\n\n{said}'
        case "judge":
            return f"**Step 3: Reasoning**\nAccording to [DOC {number}]\n{text}\n\n**Step 4: Answer**\n{said}"
        case _:
            return f"Answer: {value}."
