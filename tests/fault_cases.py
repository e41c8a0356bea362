"""The combinations of the fault campaign, as data: tasks, engines, flags, templates, and what goes wrong."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

from hostkit import JUNK

ITEMS = 2
TASKS = (
    "icr_synth_rag_512",
    "icr_synth_short_128",
    "icr_synth_rag_1k",
    "icr_synth_short_256",
    "icr_synth_latent_1k",
    "icr_synth_order_4k",
)
SETTINGS = ("full", "none", "gold@only", "rag@2k", "rag@2k,iterate=2", "route:self@2k")
PROMPTS = (None, "ao", "id", "idq")
ENGINES = ("scripted", "local-chat-completions", "local-completions", "icr-api", "hf")
FLAGS = (
    "",
    "system",
    "max_gen_toks",
    "until",
    "num_fewshot",
    "samples",
    "predict_only",
    "write_out",
    "named",
    "use_cache",
    "seed",
    "batch_size",
    "template_date",
    "system_role",
)
TEMPLATES = ("", "tags", "no-system", "raises", "thinks")
CHANNELS = (
    "<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}<|return|>"
)
# What the model says: (text of the gold answer -> reply, whether it scores, whether it must be marked unfinished).
# A dict is merged into a server's message.
ANSWERS: dict[str, tuple[Any, bool, bool]] = {
    "none": (lambda gold: gold, True, False),
    "empty": (lambda gold: "", False, False),
    "null": (lambda gold: None, False, True),
    "junk": (lambda gold: JUNK, False, False),
    "cut": (lambda gold: gold[:5], False, False),
    "thoughts": (lambda gold: f"<think>\n{JUNK}\n</think>\n\n{gold}", True, False),
    "hidden": (lambda gold: f"<think>{gold}</think>{JUNK}", False, False),
    "open": (lambda gold: f"<think>{gold}", False, True),
    "channels": (lambda gold: CHANNELS.format(t=JUNK, a=gold), True, False),
    "wrong channel": (lambda gold: CHANNELS.format(t=gold, a=JUNK), False, False),
    "blank": (lambda gold: " \n\n ", False, False),
    "padded": (lambda gold: f"\n\n  {gold} \u200b\n", True, False),
    "parsed": (lambda gold: {"reasoning_content": JUNK, "content": gold}, True, False),
    "parsed wrong": (lambda gold: {"reasoning_content": gold, "content": JUNK}, False, False),
    "parsed open": (
        lambda gold: {"reasoning": gold, "content": None, "finish_reason": "length"},
        False,
        True,
    ),
}
PARSED = ("parsed", "parsed wrong", "parsed open")  # only chat servers say these
# What a server does: (status, body) instead of an answer, on the first call only or always; (score expected)
SERVERS: dict[str, tuple[int, str, bool]] = {
    "429 once": (429, '{"error":{"message":"slow down"}}', True),
    "500 once": (500, "upstream connect error", True),
    "429": (429, '{"error":{"message":"slow down"}}', False),
    "500": (500, "upstream connect error", False),
    "400": (400, '{"error":{"message":"maximum context length is 9 tokens"}}', False),
    "error 200": (200, '{"error":{"message":"overloaded","code":500}}', False),
    "html": (200, "<html>garbage</html>", False),
    "cut json": (200, '{"choices":[{"message":{"content":"The ans', False),
    "wrong json": (200, '{"choices":"The answer"}', False),
    "list": (200, '["The answer"]', False),
    "no choices": (200, '{"choices":[]}', False),
    "no content": (
        200,
        '{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant"}}]}',
        False,
    ),
}
FAULTS = (*ANSWERS, *SERVERS, "slow")
_REFUSED = 0.15  # of the combinations that are refused whatever happens, so many are tried
_WHOLE = ("id", "idq")  # prompts that have no form without context


@dataclass(frozen=True)
class Case:
    """One combination."""

    task: str
    setting: str
    prompt: str | None
    engine: str
    flag: str
    template: str
    fault: str

    @property
    def served(self) -> bool:
        """Whether a server answers."""
        return self.engine not in ("scripted", "hf")

    @property
    def counts(self) -> bool:
        """Whether its setting counts tokens."""
        return "@2k" in self.setting

    @property
    def name(self) -> str:
        """The task as it is asked for."""
        return f"{self.task}::{self.setting.replace(',', ';')}" if self.flag == "named" else self.task

    @property
    def metadata(self) -> dict[str, Any]:
        """`--metadata`."""
        given: dict[str, Any] = {} if self.engine == "hf" or self.counts else {"tokenizer": "none"}
        given |= {} if self.flag == "named" else {"setting": self.setting}
        given |= {"template_date": "2031-01-02"} if self.flag == "template_date" else {}
        given |= {"system_role": "user"} if self.flag == "system_role" else {}
        return given | ({"prompt": self.prompt} if self.prompt else {})


def refused(case: Case) -> str | None:
    """What the one line says of a combination that cannot be, whatever a server does; None for one that can."""
    if case.flag == "num_fewshot":
        return "--num_fewshot"
    if case.flag == "use_cache" and case.engine == "icr-api":
        return "--use_cache"
    if case.setting == "none" and case.prompt in _WHOLE:
        return "no form without context"
    return None


def engines() -> tuple[str, ...]:
    """Those that are there."""
    from icr_tasks.harness.hooks import MODELS

    return tuple(e for e in ENGINES if not e.startswith("icr-") or e in MODELS)


def sensible(case: Case) -> bool:
    """Whether the parts of a combination meet at all."""
    if case.fault in SERVERS or case.fault == "slow":
        if not case.served:
            return False
    elif case.fault in PARSED and case.engine not in ("local-chat-completions", "icr-api"):
        return False
    elif case.fault == "null" and case.flag == "use_cache" and not case.served:
        return False  # lm_eval's cache asserts that an engine in this process gives no None
    elif case.engine == "hf" and case.fault != "none":
        return False  # a random model says what it says
    return True


def cases(n: int, seed: int) -> list[Case]:
    """`n` different combinations, the same for the same seed; every engine and fault in turn, the rest drawn."""
    rng, found = random.Random(seed), dict[Case, None]()
    turns = itertools.cycle(itertools.product(engines(), FAULTS))
    while len(found) < n:
        engine, fault = next(turns)
        for _ in range(20):
            task, setting = rng.choice(TASKS), rng.choice(SETTINGS)
            prompt, flag, template = rng.choice(PROMPTS), rng.choice(FLAGS), rng.choice(TEMPLATES)
            if engine not in ("scripted", "hf"):
                template = "" if engine == "local-completions" else "tags"
            case = Case(task, setting, prompt, engine, flag, template, fault)
            if not sensible(case):
                break
            if case not in found and (refused(case) is None or rng.random() < _REFUSED):
                found[case] = None
                break
    return list(found)
