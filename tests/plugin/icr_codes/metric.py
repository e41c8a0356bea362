"""A metric: the last number of the answer equals the gold number."""

import re

import icr_tasks as icr


@icr.metric("numeric", higher_is_better=True)
def numeric(answer: str, item: icr.Item) -> float:
    """1 if the last number of the answer is one of the gold numbers, else 0."""
    numbers = re.findall(r"\d+", answer.replace(",", ""))
    return float(bool(numbers) and numbers[-1] in item.answers)
