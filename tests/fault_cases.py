"""The combinations of the fault campaign, as data: tasks, engines, flags, templates, and what goes wrong."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

from hostkit import JUNK

ITEMS = 2
TASKS = ("icr_synth_rag_512", "icr_synth_short_128", "icr_synth_rag_1k", "icr_synth_short_256")
SETTINGS = ("full", "none", "gold@only")
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
)
TEMPLATES = ("", "tags", "no-system", "raises", "thinks")
# What the model says: (text of the gold answer -> reply, whether it scores, whether it must be marked unfinished)
ANSWERS: dict[str, tuple[Any, bool, bool]] = {
    "none": (lambda gold: gold, True, False),
    "empty": (lambda gold: "", False, False),
    "null": (lambda gold: None, False, True),
    "junk": (lambda gold: JUNK, False, False),
    "cut": (lambda gold: gold[:5], False, False),
    "thoughts": (lambda gold: f"<think>\n{JUNK}\n</think>\n\n{gold}", True, False),
    "hidden": (lambda gold: f"<think>{gold}</think>{JUNK}", False, False),
    "open": (lambda gold: f"<think>{gold}", False, True),
    "blank": (lambda gold: " \n\n ", False, False),
    "padded": (lambda gold: f"\n\n  {gold} \u200b\n", True, False),
}
# What a server does: (status, body) instead of an answer, on the first call only or always; (score expected)
SERVERS: dict[str, tuple[int, str, bool]] = {
    "429 once": (429, '{"error":{"message":"slow down"}}', True),
    "500 once": (500, "upstream connect error", True),
    "429": (429, '{"error":{"message":"slow down"}}', False),
    "500": (500, "upstream connect error", False),
    "400": (400, '{"error":{"message":"maximum context length is 9 tokens"}}', False),
    "html": (200, "<html>garbage</html>", False),
    "cut json": (200, '{"choices":[{"message":{"content":"The ans', False),
    "no choices": (200, '{"choices":[]}', False),
    "no content": (
        200,
        '{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant"}}]}',
        False,
    ),
}
FAULTS = (*ANSWERS, *SERVERS, "slow")


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
    def name(self) -> str:
        """The task as it is asked for."""
        return f"{self.task}::{self.setting}" if self.flag == "named" else self.task

    @property
    def metadata(self) -> dict[str, Any]:
        """`--metadata`."""
        given: dict[str, Any] = {} if self.engine == "hf" else {"tokenizer": "none"}
        given |= {} if self.flag == "named" else {"setting": self.setting}
        return given | ({"prompt": self.prompt} if self.prompt else {})


def engines() -> tuple[str, ...]:
    """Those that are there."""
    from icr_tasks.harness.hooks import MODELS

    return tuple(e for e in ENGINES if not e.startswith("icr-") or e in MODELS)


def sensible(case: Case) -> bool:
    """Whether the parts of a combination meet at all."""
    if case.fault in SERVERS or case.fault == "slow":
        if not case.served:
            return False
    elif case.engine == "hf" and case.fault != "none":
        return False  # a random model says what it says
    if case.served:
        return case.template == ("" if case.engine == "local-completions" else "tags")
    return True


def cases(n: int, seed: int) -> list[Case]:
    """`n` different combinations, the same for the same seed; every engine, flag, template and fault among
    them."""
    rng = random.Random(seed)
    every = [
        case
        for parts in itertools.product(TASKS, SETTINGS, PROMPTS, engines(), FLAGS, TEMPLATES, FAULTS)
        if sensible(case := Case(*parts))
    ]
    by_kind: dict[tuple[str, str], list[Case]] = {}
    for case in every:
        by_kind.setdefault((case.engine, case.fault), []).append(case)
    for found in by_kind.values():
        rng.shuffle(found)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_kind.values()))
    return list(itertools.islice((case for case in turns if case is not None), n))
