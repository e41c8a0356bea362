"""The order in which rows are trained on, over all epochs, decided once and written down.

TRL's sampler restarts its shuffle when a run is resumed: in epoch 2 it replays epoch 1's order. So the order
of all epochs is laid out in advance, the trainer sees one long epoch without shuffling, and a resumed run
only has to skip. A curriculum is an order too: `growing` puts short prompts first. `bucketed` lets prompts of
like length share a step, which saves padding, in random order of the steps. `file` keeps the file's order, such as
the one of `icr train difficulty`: easiest first.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.visible import opens_thought, visible
from icr_tasks.storage import write_atomic

from .checks import NO_TEMPLATE

ORDERS = ("shuffled", "growing", "bucketed", "file")


@dataclass(frozen=True)
class Order:
    """Row numbers in training order. `digest` names the order together with the rows it is about."""

    indices: tuple[int, ...]
    digest: str

    @classmethod
    def make(
        cls,
        ids: Sequence[str],
        epochs: int,
        seed: int,
        block: int = 1,
        kind: str = "shuffled",
        sizes: Sequence[int] = (),
    ) -> Order:
        """Each epoch a new shuffle, cut to whole blocks (rollouts), as verl drops the rest of an epoch.

        `sizes`, the length of each row's prompt, is what the kinds `growing` and `bucketed` go by; equal ones
        stay shuffled. Kind `file` does not shuffle; the rows at its end that fill no block are left out.

        Raises IcrError for duplicate ids and when an epoch has not one whole block.
        """
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise IcrError(f"row id {twice!r} occurs twice in the training data")
        size = len(ids) // block * block
        if not size:
            raise IcrError(
                f"{len(ids)} rows do not fill one rollout of {block} prompts; use more rows or a smaller "
                "batch"
            )
        out: list[int] = []
        for epoch in range(epochs):
            rows, r = list(range(len(ids))), random.Random(f"{seed}/{epoch}")
            if kind != "file":
                r.shuffle(rows)
            rows = rows[:size] if kind in ("shuffled", "file") else sorted(rows[:size], key=sizes.__getitem__)
            if kind == "bucketed":
                blocks = [rows[i : i + block] for i in range(0, size, block)]
                r.shuffle(blocks)
                rows = [row for one in blocks for row in one]
            out += rows
        body = json.dumps([list(ids), out]).encode()
        return cls(tuple(out), hashlib.sha256(body).hexdigest()[:16])

    def settle(self, folder: Path) -> None:
        """Write `order.json`, or check that a continued run has the order it began with (IcrError
        otherwise)."""
        path = folder / "order.json"
        if path.is_file():
            before = json.loads(path.read_text())["digest"]
            if before != self.digest:
                raise IcrError(
                    f"{folder}: the data or their order changed since the run began ({before}, now "
                    f"{self.digest}); "
                    "restore them, or train into a new output folder"
                )
            return
        write_atomic(path, json.dumps({"digest": self.digest, "indices": self.indices}).encode())


# ---- truncate ------------------------------------------------------------------------------------
# Prompts that are too long lose whole passages from the middle of the context; instruction and question
# never.

Record = dict[str, Any]
RULES = {
    "keep_gold": "drop passages that are not gold, from the middle outwards; a row whose gold alone is too "
    "long is left out",
    "middle": "drop passages from the middle outwards, gold or not; a row that loses all its gold is "
    "left out",
    "skip": "leave out rows that are too long",
    "error": "a row that is too long is an error",
}


@dataclass
class Report:
    """What truncation did: rows seen, rows cut, passages dropped, gold passages among them, rows left out."""

    rows: int = 0
    cut: int = 0
    dropped: int = 0
    gold_dropped: int = 0
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rows} rows; {self.cut} cut by {self.dropped} passages ({self.gold_dropped} of them "
            "gold); "
            f"{len(self.left_out)} left out"
        )


def middle_out(n: int) -> list[int]:
    """Indices 0..n-1 from the middle outwards: the order in which passages are dropped. middle_out(5) = [2,
    1, 3, 0, 4]."""
    return sorted(range(n), key=lambda i: (abs(2 * i - (n - 1)), i))


def without(row: Mapping[str, Any], gone: set[int]) -> Record:
    """The row without those passages: the others numbered anew, gold ids and gold texts following."""
    kept = [i for i in range(len(row["passages"])) if i not in gone]
    number = {old: new for new, old in enumerate(kept)}
    docs = dict(zip(row["gold_ids"], row["gold_docs"], strict=True)) if row.get("gold_docs") else {}
    gold = [i for i in row["gold_ids"] if i in number]
    out = {**row, "passages": [row["passages"][i] for i in kept], "gold_ids": [number[i] for i in gold]}
    if docs:
        out["gold_docs"] = [docs[i] for i in gold]
    if row.get("original_ids") is not None:
        out["original_ids"] = [number[i] for i in row["original_ids"] if i in number]
    out["n_tokens"] = 0  # no longer known
    out["n_dropped"] = int(row.get("n_dropped") or 0) + len(gone)
    return out


def fit(
    row: Mapping[str, Any],
    limit: int,
    count: Callable[[Mapping[str, Any]], int],
    sizes: Callable[[list[str]], list[int]],
    rule: str,
    report: Report,
) -> Record | None:
    """The row, cut to at most `limit` prompt tokens, or None when it is left out; `report` is updated.

    `count(row)` is the exact length of the rendered prompt, `sizes(passages)` an estimate for each passage.
    The result is counted again before it is returned. Raises IcrError under rule `error`.
    """
    report.rows += 1
    length = count(row)
    if length <= limit:
        return dict(row)
    name = str(row.get("id") or f"number {report.rows - 1}")
    if rule == "error":
        raise IcrError(
            f"row {name}: the prompt has {length} tokens, the limit is {limit}; choose another truncation"
        )
    gold = set(row["gold_ids"])
    order = [i for i in middle_out(len(row["passages"])) if rule == "middle" or i not in gold]
    costs, gone = sizes(list(row["passages"])), set()
    over = length - limit
    if rule == "skip":
        order = []
    for i in order:
        gone.add(i)
        over -= costs[i]
        if over <= 0:
            shorter = without(row, gone)
            over = count(shorter) - limit  # estimates err: tags and separators go as well, joins may cost
            if over <= 0 and (shorter["gold_ids"] or not gold):
                report.cut += 1
                report.dropped += len(gone)
                report.gold_dropped += len(gone & gold)
                return shorter
    report.left_out.append(name)
    return None


def counter(
    tokenizer: Any, prompt: str, template: Mapping[str, Any] | None = None
) -> tuple[Callable[[Mapping[str, Any]], int], Callable[[list[str]], list[int]]]:
    """`count` and `sizes` of `fit` for a tokenizer with a chat template and a prompt format.

    `template` are keyword arguments of the chat template, such as enable_thinking: they change the length.
    """
    from .data.formats import messages

    def count(row: Mapping[str, Any]) -> int:
        text = rendered(tokenizer, messages(row, prompt), template)
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def sizes(passages: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(passages, add_special_tokens=False, verbose=False)["input_ids"]]

    return count, sizes


def rendered(
    tokenizer: Any, messages: list[dict[str, str]], template: Mapping[str, Any] | None = None
) -> str:
    """The prompt as the model sees it, up to where its answer begins. IcrError without a chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise IcrError(f"the tokenizer {NO_TEMPLATE}")
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **(template or {})
    )
    return text


def opened(tokenizer: Any, prompt: str, template: Mapping[str, Any] | None = None) -> bool:
    """Whether the chat template begins the thought itself (DeepSeek R1, Qwen3 Thinking), so that completions
    begin inside one: without that a completion cut off in its thought would be read as an answer.

    False where a special token closes a thought: completions are decoded without it, and none would be an answer."""
    from .data.formats import messages

    row = {"passages": ["A passage."], "question": "Which one?"}
    if not opens_thought(rendered(tokenizer, messages(row, prompt), template)):
        return False
    return all(visible(f"a{t}b").text != "b" for t in tokenizer.all_special_tokens)
