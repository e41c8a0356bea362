"""The model of the fault campaign, in this process and behind a server: it says what a case makes of the gold
answer, and refuses to answer a prompt that asks nothing."""

from __future__ import annotations

from typing import Any

from fake_endpoint import FakeEndpoint
from fault_cases import ANSWERS, SERVERS, Case
from hostkit import right


class Wrong(Exception):
    """A case that ended neither in the right score nor in an error that says why."""


def template(kind: str, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """Chat templates as families have them."""
    if messages[0]["role"] == "system" and kind == "raises":
        raise ValueError("System role not supported")
    shown = messages[1:] if messages[0]["role"] == "system" and kind == "no-system" else messages
    text = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in shown)
    begun = "<|assistant|>" + ("<think>\n" if kind == "thinks" else "")
    return text + begun if add_generation_prompt else text


def reply(case: Case, question_to_doc: dict[str, dict[str, Any]], prompt: str) -> Any:
    """What the model says to a prompt; Wrong for a prompt that asks nothing."""
    doc = next((doc for question, doc in question_to_doc.items() if question in prompt), None)
    if doc is None:
        raise Wrong(f"the prompt holds no question of the task: {prompt[:80]!r}")
    if case.flag == "system" and "as a librarian would" not in prompt:
        raise Wrong("the prompt holds no system text")
    text = ANSWERS.get(case.fault, ANSWERS["none"])[0](right(doc, case.task))
    inside = prompt.rstrip().endswith("<think>")
    return f"hm</think>{text}" if inside and isinstance(text, str) else text


def scripted(case: Case, docs: dict[str, dict[str, Any]]) -> Any:
    """A model in this process."""
    from lm_eval.api.model import LM

    class Scripted(LM):
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
            return [reply(case, docs, r.args[0]) for r in requests]

        def apply_chat_template(self, messages: list[Any], add_generation_prompt: bool = True) -> str:
            return template(case.template, messages, add_generation_prompt)

        def chat_template(self, chat_template: Any = False) -> str:
            return case.template

        @property
        def tokenizer_name(self) -> str:
            return "scripted"

        def loglikelihood(self, *args: Any, **kwargs: Any) -> Any:
            raise Wrong("icr_ tasks never ask for likelihoods")

        loglikelihood_rolling = loglikelihood

    return Scripted()


def endpoint(case: Case, docs: dict[str, dict[str, Any]]) -> FakeEndpoint:
    """The same model behind a server, with the server's own faults."""

    def fault(prompt: Any, nth: int) -> Any:
        found = SERVERS.get(case.fault)
        if found is None or (case.fault.endswith(" once") and nth):
            return None
        return found[0], found[1], {}

    latency = 0.05 if case.fault == "slow" else 0.0
    return FakeEndpoint(
        lambda prompt: reply(case, docs, str(prompt)), latency=latency, fault=fault, whole=True
    )
