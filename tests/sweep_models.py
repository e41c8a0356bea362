"""Models for sweep tests, registered where lm_eval looks: a study names this module under `imports:`."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401  (first: it would hide the built-in models otherwise)
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model


@register_model("counting")
class Counting(LM):
    """Deterministic answers (half of them right) from the prompt alone; writes each call to `$COUNTING_LOG`.

    `delay` seconds an item; `poison`: a prompt that holds this text raises; `broken`: loading raises.
    """

    def __init__(
        self,
        pretrained: str = "counting",
        delay: float = 0.0,
        poison: str = "",
        broken: bool = False,
        **_: Any,
    ) -> None:
        super().__init__()
        if broken:
            raise RuntimeError("no such weights")
        self.log, self.delay, self.poison = os.environ.get("COUNTING_LOG"), float(delay), poison

    @property
    def tokenizer_name(self) -> str:
        return "counting"

    def chat_template(self, chat_template: Any = False) -> str:
        return "plain"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return "\n".join(m["content"] for m in chat_history)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return [self._one(r) for r in requests]

    def _one(self, request: Any) -> str:
        prompt = request.args[0]
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        if self.poison and self.poison in prompt:
            raise ValueError("this prompt is poison")
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()} {request.task_name} {request.doc_id} {digest[:16]}\n")
        time.sleep(self.delay)
        return f"The answer is: {request.doc['answers'][0] if int(digest, 16) % 2 else digest[:8]}"

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        raise AssertionError("icr_ tasks never ask for likelihoods")

    loglikelihood_rolling = loglikelihood
