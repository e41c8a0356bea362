"""What an engine measured for each item, attached to the digest of its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..context.build import Built
from ..engines import session
from ..kv import choose
from ..metrics.visible import opens_thought
from ..settings import Setting
from .instance import PromptInstance


def attach(
    sent: Sequence[PromptInstance],
    built: Mapping[str, Built],
    setting: Setting,
    before: Any,
    sheet: dict[str, Any],
    tallied: bool,
) -> dict[str, str]:
    """Reasons of the items that failed, by id. What did not run as it was asked for is an error, not a score;
    so is a whole task of which no item took a compressed step (IcrError).

    `tallied`: counts of a compressed setting go into the sheet. `before`: what a vLLM engine that tells nothing per request had counted (`choose.counted`).
    """
    failed = {}
    found = choose.verify_all(setting, [session.found_of(i) for i in sent], before)
    for instance, measured in zip(sent, found, strict=True):
        item_id = instance.doc["id"]
        prompt, gen_kwargs = instance.arguments[:2]
        digest = built[item_id].digest
        if opens_thought(getattr(prompt, "prompt", prompt)):  # a chat API gets JsonChatStr
            digest["thought_opened"] = True
        digest["max_gen_toks"] = gen_kwargs.get("max_gen_toks")
        digest.update(measured)
        if measured.get("error"):
            failed[item_id] = str(measured["error"])
    if tallied:
        shares = {} if any("steps" in f.get("kv", {}) for f in found) else choose.run_shares(before)
        sheet["kv"] = {**choose.tally(found), **shares}
    return failed
