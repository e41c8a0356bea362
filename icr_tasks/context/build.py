"""One item + setting + prompt -> the text that is sent, and the digest that is kept of it.

Order of work: choose the units (setting), render, fit into the window, count. Only the context is ever cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import benchmarks
from ..benchmarks.base import Item, Prompt, Unit
from ..errors import IcrError
from ..settings import Setting
from .fit import RULES, DoesNotFit
from .prepared import Prepared
from .tokens import TokenCounter

GOLD_INTRO = "Relevant documents:\n"  # the paper's prefill of setting `gold`
_HEAD_TAIL = 200


@dataclass
class Built:
    """`prompt` is what the engine gets (str, or lm-eval's JsonChatStr); `digest` is what the log keeps."""

    prompt: Any
    digest: dict[str, Any]
    boundary: int | None = None  # character offset where the context ends


@dataclass
class Builder:
    """Everything that is the same for all items of a task."""

    benchmark: str
    setting: Setting
    prompt: Prompt
    tokens: TokenCounter | None
    window: int | None
    max_gen_toks: int
    template: Callable[..., Any] | None  # the engine's apply_chat_template, or None for plain text
    system: str | None = None  # lm-eval's --system_instruction, put before ours
    demos: Callable[[Item], str] = lambda item: ""
    overflow: str = "truncate"  # or "skip": an item that needs cutting is not sent
    truncation: str | None = None  # overrides the prompt's rule
    prepared: Prepared | None = None  # retrieval done ahead by `icr prepare`
    embed: dict[str, Any] = field(default_factory=dict)  # how a retriever's embedder is run
    ask: str = ""  # a sentence before the prompt: what a route asks for in its first step

    @property
    def marks_gold(self) -> bool:
        """Whether the benchmark says which units hold the answer."""
        return benchmarks.get(self.benchmark).marks_gold

    def build(self, item: Item) -> Built:
        """Raises DoesNotFit (per item) and IcrError (settings that cannot work for this benchmark)."""
        units, retrieval = self._units(item)
        full = None if units is None else self.prompt.context(units)
        frame = self._fields(item)
        rendered, boundary = self._render(full, units or [], frame, item)
        n_tokens = self._count(rendered)
        kept = list(range(len(units or [])))
        limit = None if self.window is None else self.window - self.max_gen_toks
        truncated = False
        if self.tokens and limit is not None and n_tokens is not None and n_tokens > limit:
            if self.overflow == "skip":
                raise DoesNotFit(
                    f"needs {n_tokens} + {self.max_gen_toks} tokens, the model has {self.window}"
                )
            rendered, boundary, kept, full = self._shrink(units or [], frame, item, limit)
            n_tokens, truncated = self._count(rendered), True
        n_gold = sum(u.gold for u in units or []) if retrieval is None else retrieval["n_gold"]
        shown = set(kept)
        survivors = [u for i, u in enumerate(units or []) if i in shown]
        numbering = kept if self._rule() in ("end", "middle") else range(len(kept))
        gold_ids = [n for n, u in zip(numbering, survivors, strict=True) if u.gold]
        text = _text(rendered)
        digest = {
            "icr": 1,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "n_chars": len(text),
            "n_prompt_tokens": n_tokens,
            "n_context_tokens": self._context_tokens(item, frame, n_tokens, retrieval),
            "truncated": truncated,
            "n_units": len(units or []),
            "n_units_kept": len(kept),
            "dropped": [
                u.id if item.sealed else u.title or u.id for i, u in enumerate(units or []) if i not in shown
            ][:50]
            if truncated
            else [],
            "n_gold": n_gold if self.marks_gold else None,
            "gold_kept": len(gold_ids) if self.marks_gold else None,
            "gold_ids": gold_ids,
            "retrieval": retrieval,
            "head": "" if item.sealed else text[:_HEAD_TAIL],
            "tail": "" if item.sealed else text[-_HEAD_TAIL:],
            "error": None,
        }
        return Built(rendered, digest, boundary)

    # -- which units ---------------------------------------------------------------------------------------

    def _units(self, item: Item) -> tuple[Sequence[Unit] | None, dict[str, Any] | None]:
        if self.setting.kind == "none":
            return None, None
        units = item.units()
        if self.setting.kind == "gold" and not any(u.gold for u in units):
            raise IcrError(f"setting 'gold' needs gold passages, which {self.benchmark} does not mark")
        if str(self.setting.context) == "gold@only":
            return [u for u in units if u.gold], None
        if self.setting.kind == "rag":
            from .retrieve import retrieve

            if self.tokens is None:
                raise IcrError('setting rag@k counts tokens: pass --metadata \'{"tokenizer":"MODEL"}\'')
            if self.prepared is not None and (found := self.prepared.get(item.id, units)) is not None:
                return found
            mode = benchmarks.get(self.benchmark).units
            chosen = retrieve(
                item, units, self.setting, self.tokens, self.prompt, mode=mode, engine=self.embed
            )
            return chosen.units, chosen.digest
        if self.setting.kind not in ("full", "gold", "kv"):
            raise IcrError(
                f"setting {self.setting} may send two prompts an item, which this host cannot; use lm_eval, "
                "icr sweep or icr.evaluate"
            )
        return units, None

    def _fields(self, item: Item) -> dict[str, Any]:
        letters = {f"choice_{c}": text for c, text in zip("abcd", item.options, strict=False)}
        return {
            "question": item.question,
            "demos": self.demos(item),
            "instruction": "",
            **letters,
            **_strings(item),
        }

    # -- text ----------------------------------------------------------------------------------------------

    def _render(
        self, context: str | None, units: Sequence[Unit], frame: dict[str, Any], item: Item
    ) -> tuple[Any, int | None]:
        prefill = ""
        if str(self.setting.context) == "gold":
            parts = self.prompt.parts(units)
            gold = [part for part, unit in zip(parts, units, strict=True) if unit.gold]
            prefill = GOLD_INTRO + "".join(part + "\n\n" for part in gold)
        turns = self._turns(units if context else (), item)
        messages = self.prompt.messages(context=context, prefill=prefill, turns=turns, **frame)
        if self.ask:
            messages[0] = {**messages[0], "content": f"{self.ask}\n\n{messages[0]['content']}"}
        if self.system:
            messages = _with_system(messages, self.system)
        if self.template is not None and self.prompt.chat:
            out = self.template(messages, add_generation_prompt=messages[-1]["role"] != "assistant")
        else:
            joiner = "\n\n" if self.prompt.chat else "\n"
            out = joiner.join(_labelled(m, bool(turns)) for m in messages)
        text = _text(out)
        last = turns[-1][1] if turns else context or ""  # a conversation's context ends with its last message
        at = text.rfind(last) if turns else text.find(last)
        return out, (at + len(last) if last and at >= 0 else None)

    def _turns(self, units: Sequence[Unit], item: Item) -> list[Sequence[str]]:
        """The messages before the question; none where the prompt has its context as text."""
        if not self.prompt.turns:
            return []
        return [*item.fields.get("opening", ()), *(turn for unit in units for turn in unit.turns)]

    def _shrink(
        self, units: Sequence[Unit], frame: dict[str, Any], item: Item, limit: int
    ) -> tuple[Any, int | None, list[int], str]:
        assert self.tokens is not None
        empty, _ = self._render("" if units else None, [], frame, item)
        budget = limit - (self._count(empty) or 0)
        least = (
            f"{self.window} tokens (max_model_len=, served: max_length=, in --model_args) - {self.max_gen_toks} to "
            f"generate (--gen_kwargs max_gen_toks=) leave {limit} for the prompt"
        )
        if not units or budget <= 0:
            raise DoesNotFit(f"the instruction and question alone need {self._count(empty)} tokens; {least}")
        fit = RULES[self._rule()]
        while budget > 0:
            text, kept = fit(units, self.prompt, budget, self.tokens)
            shown = [units[i] for i in kept]
            rendered, boundary = self._render(text, shown, frame, item)
            over = (self._count(rendered) or 0) - limit
            if over <= 0 and text:
                return rendered, boundary, kept, text
            budget -= max(over, 1)
            if not text:
                break
        raise DoesNotFit(
            f"not one {'passage' if self._rule() == 'passages' else 'piece'} of context fits: {least}"
        )

    def _context_tokens(
        self, item: Item, frame: dict[str, Any], n_tokens: int | None, retrieval: dict[str, Any] | None
    ) -> int | None:
        """Prompt minus frame; retrieval counts exactly. Spares tokenizing a long context twice."""
        if retrieval or n_tokens is None:
            return retrieval["n_tokens"] if retrieval else None
        has_context = self.setting.kind != "none"
        return n_tokens - (self._count(self._render("" if has_context else None, [], frame, item)[0]) or 0)

    def _rule(self) -> str:
        return self.truncation or self.prompt.cut

    def _count(self, rendered: Any) -> int | None:
        if self.tokens is None:
            return None
        return self.tokens.count(_text(rendered), special=self.template is None or not self.prompt.chat)


def skipped(reason: str) -> dict[str, Any]:
    """Digest of an item that is not sent."""
    return {"icr": 1, "sha256": None, "truncated": False, "n_prompt_tokens": None, "error": reason}


def dumps(digest: dict[str, Any]) -> str:
    """The digest as the JSON string that stands in the sample log in place of the prompt."""
    return json.dumps(digest, ensure_ascii=False, sort_keys=True)


def _text(rendered: Any) -> str:
    return rendered if isinstance(rendered, str) else getattr(rendered, "prompt", str(rendered))


def _strings(item: Item) -> dict[str, str]:
    return {k: v for k, v in item.fields.items() if isinstance(v, str)}


def _labelled(message: dict[str, str], conversation: bool) -> str:
    """A message as plain text; who says it is told where several people speak."""
    content = message["content"]
    return f"{message['role'].capitalize()}: {content}" if conversation else content


def _with_system(messages: list[dict[str, str]], system: str) -> list[dict[str, str]]:
    if messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{system}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]
