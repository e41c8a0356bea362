"""Prompts as they are built, and their digests, against the same thing written again in a few lines."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import tiny

from icr_tasks.benchmarks.base import Item, Prompt, Unit
from icr_tasks.context.build import Builder, DoesNotFit
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.settings import Setting

TOKENS = TokenCounter(tiny.tokenizer())  # one token a byte


@pytest.mark.parametrize("window", [None, 400, 270, 200, 120])
@pytest.mark.parametrize("rule", ["passages", "documents", "end", "middle"])
@pytest.mark.parametrize("sealed", [False, True])
def test_the_digest_of_a_prompt(window: int | None, rule: str, sealed: bool) -> None:
    given = [Unit(f"u{i}", f"{i}" * 40, title="title" if i == 3 else "", gold=i in (1, 3)) for i in range(5)]
    asked = Item("q", "Who?", ("x",), "q", lambda: given, sealed=sealed)
    prompt = Prompt("plain", "Read.\n\n{context}\n\n{question}", unit="<{n}> {text}", joiner="\n", cut="end")
    gen, full = 20, "\n".join(f"<{i + 1}> {u.text}" for i, u in enumerate(given))
    text = f"Read.\n\n{full}\n\nWho?"
    frame = len("Read.\n\n\n\nWho?")
    build = Builder("helmet", Setting.parse("full"), prompt, TOKENS, window, gen, None, truncation=rule)
    built = build.build(asked)
    kept, context = list(range(5)), full
    cut = window is not None and len(text) + gen > window
    if cut:
        budget = window - gen - frame  # type: ignore[operator]
        each = len("<1> ") + 40
        if rule in ("passages", "documents"):
            kept = list(range((budget + 1) // (each + 1)))
            context = "\n".join(full.split("\n")[: len(kept)])
            if not kept and rule == "documents":
                context = full[:budget]
        else:
            head = budget if rule == "end" else budget // 2
            tail = budget - head
            context = full[:head] + full[len(full) - tail :]
            at = [(i * (each + 1), i * (each + 1) + each) for i in range(5)]
            kept = [i for i, (a, b) in enumerate(at) if b <= head or a >= len(full) - tail]
    text = f"Read.\n\n{context}\n\nWho?"
    assert built.prompt == text and built.boundary == text.index(context) + len(context)
    numbers = kept if rule in ("end", "middle") else range(len(kept))
    assert built.digest == {
        "icr": 1,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "n_chars": len(text),
        "n_prompt_tokens": len(text),
        "n_context_tokens": len(context),
        "truncated": cut,
        "n_units": 5,
        "n_units_kept": len(kept),
        "dropped": [u.id if sealed else u.title or u.id for i, u in enumerate(given) if i not in kept] if cut else [],
        "n_gold": 2,
        "gold_kept": sum(i in (1, 3) for i in kept),
        "gold_ids": [n for n, i in zip(numbers, kept, strict=True) if i in (1, 3)],
        "retrieval": None,
        "head": "" if sealed else text[:200],
        "tail": "" if sealed else text[-200:],
        "error": None,
    }  # fmt: skip


@pytest.mark.parametrize("over", [0, 1])
def test_a_window_that_is_just_enough(over: int) -> None:
    """The prompt and what may be generated fill it exactly; one token less and the item is cut or, where that was
    asked for, skipped. A window that holds no context at all sends nothing."""
    given = [Unit("a", "a" * 30), Unit("b", "b" * 30)]
    asked = Item("q", "Who?", ("x",), "q", lambda: given)
    prompt = Prompt("plain", "{context} {question}", unit="{text}", joiner=" ")
    n = 61 + len(" Who?")

    def build(window: int, **more: Any) -> Any:
        return Builder("helmet", Setting.parse("full"), prompt, TOKENS, window, 10, None, **more).build(asked)

    built = build(n + 10 - over)
    assert built.digest["truncated"] == bool(over)
    assert built.boundary == (30 if over else 61)  # the context is the first thing in this prompt
    if over:
        with pytest.raises(DoesNotFit, match=f"needs {n} \\+ 10 tokens, the model has {n + 9}"):
            build(n + 9, overflow="skip")
        assert build(30 + 1 + 5 + 10).digest["n_units_kept"] == 1  # a passage is counted with its separator
        with pytest.raises(DoesNotFit, match="not one passage of context fits"):
            build(30 + 5 + 10)
        with pytest.raises(DoesNotFit, match="the instruction and question alone need 5 tokens"):
            build(5 + 10)
    else:
        assert build(n + 10, overflow="skip").digest["error"] is None


@pytest.mark.parametrize("ask", ["", "Say so."])
@pytest.mark.parametrize(("system", "own"), [(None, None), ("S", None), (None, "own"), ("S", "own")])
def test_a_system_instruction_and_a_first_sentence(ask: str, system: str | None, own: str | None) -> None:
    """The sentence before everything of the prompt, the instruction before both."""
    asked = Item("q", "Who?", ("x",), "q", lambda: [Unit("a", "text")])
    prompt = Prompt("plain", "{context} {question}", system=own, unit="{text}")
    sent: list[Any] = []

    def template(messages: list[dict[str, str]], **more: Any) -> str:
        sent.append(([(m["role"], m["content"]) for m in messages], more))
        return "text"

    more = {"system": system, "ask": ask}
    built = Builder("helmet", Setting.parse("full"), prompt, None, None, 4, template, **more).build(asked)
    texts = {"system": own, "user": "text Who?"}
    first = "system" if own else "user"
    texts[first] = "\n\n".join(filter(None, (ask, texts[first])))
    texts["system"] = "\n\n".join(filter(None, (system, texts["system"])))
    wanted = [(role, text) for role, text in texts.items() if text]
    assert sent[0] == (wanted, {"add_generation_prompt": True}) and built.digest["n_prompt_tokens"] is None
