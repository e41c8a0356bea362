"""What a study would cost: the matrix with prompt tokens, what prefix sharing saves of them, and the prefill
time.

Prompts are built with the model's tokenizer and chat template, as they would be sent; no engine is loaded.
With a sample, only the first items of a cell are built and the count is scaled (shown with `~`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ..context import tokens as counting
from ..engines import answers
from ..engines.served.dialect import length_of
from ..errors import IcrError
from ..harness import run
from . import shards
from .cells import Cell, units
from .costs import estimate
from .engine import quiet
from .progress import clock, guess
from .records import Folder, columns, states
from .study import Study


@dataclass
class Row:
    """One cell: items, prompt tokens, tokens left to compute after prefix sharing; `exact` when all were
    built."""

    cell: Cell
    state: str
    items: int
    tokens: int
    computed: int
    exact: bool
    note: str = ""
    seconds: float | None = None
    most: int = 256  # tokens an answer may have


def plan(
    study: Study, cells: list[Cell], sample: int, rate: float | None, results: Path | None = None
) -> list[Row]:
    """One row a cell, in matrix order. Times come from what the study's cells measured, else from ledgers of the
    same model in `results`; `rate` is prefill tokens a second for models nothing was measured of."""
    quiet()
    known = {s.fingerprint: s.state for s in states(study)}
    measured = {**_earlier(results, cells), **_measured(Folder(study.out, create=False))}
    rows: list[Any] = []
    for unit in units(cells):
        prompts: list[tuple[str, int, int]] = []  # text, tokens, row
        for cell in unit:
            row, built = _row(cell, known[cell.fingerprint], sample)
            prompts += [(text, size, len(rows)) for text, size in built]
            rows.append(row)
        if prompts:
            _share(
                rows, prompts, "vllm" in unit[0].engine and unit[0].args.get("enable_prefix_caching", True)
            )
    for row in rows:
        if row.state == "done":
            row.seconds = 0.0
        elif row.cell.model in measured:
            row.seconds = row.tokens / measured[row.cell.model]
        elif rate:
            row.seconds = row.computed / rate
    return rows


def _measured(folder: Folder) -> dict[str, float]:
    """Prompt tokens a second of each model, newest record with a measurement."""
    told = [*shards.Ledger(folder.out).notes(), *folder.records()]
    return {r["where"][0]: r["tokens_per_second"] for r in told if r.get("tokens_per_second")}


def _earlier(results: Path | None, cells: list[Cell]) -> dict[str, float]:
    """The same of models that have ledgers in a results folder: all they asked, over the time they were busy."""
    prompts: dict[str, float] = {}
    walls: dict[str, float] = {}
    for path in sorted(results.glob("*/*/*/run.json")) if results is not None else ():
        try:
            head = orjson.loads(path.read_bytes())
            name, wall, prompt = (
                head["model"]["id"],
                head["seconds"].get("wall"),
                head["tokens"].get("prompt"),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a ledger of ours; `icr check` says why
        if wall and prompt:
            prompts[name], walls[name] = prompts.get(name, 0.0) + prompt, walls.get(name, 0.0) + wall
    ids = {cell.model: str(cell.args.get("pretrained") or cell.args.get("model") or "") for cell in cells}
    return {model: prompts[name] / walls[name] for model, name in ids.items() if name in walls}


def _row(cell: Cell, state: str, sample: int) -> tuple[Row, list[tuple[str, int]]]:
    items, tokens = guess(cell)
    limit = min(sample or items, cell.limit or items) if sample else cell.limit
    try:
        counter = counting.counter(cell.task_metadata)
        chat = cell.chat and counter is not None and bool(getattr(counter.tokenizer, "chat_template", None))
        stub = counting.Chat(counter.tokenizer) if counter is not None else None
        some = run.Cell((cell.task,), cell.task_metadata, limit, chat, cell.system)
        [task] = run.build(stub, some, cell.args, cell.gen_kwargs)
    except (IcrError, OSError, ValueError) as error:
        return Row(cell, state, items, tokens, tokens, False, str(error)), []
    total = min(len(task.items), cell.limit or len(task.items))
    built = [(answers.text_of(r.args[0]), r.size) for r in task.instances if r.repeats]
    not_sent = len(task.instances) - len(built)
    scale = total / max(len(task.instances), 1)
    count = round(scale * sum(size for _, size in built))
    note = f"{not_sent} of {len(task.instances)} cannot be sent" if not_sent else ""
    most = max((length_of(r.args[1]) for r in task.instances), default=256)
    return Row(cell, state, total, count, count, scale == 1, note, most=most), built


def _share(rows: list[Row], prompts: list[tuple[str, int, int]], caches: bool) -> None:
    """Set `computed`: with a prefix cache only what differs from the prompt before it, in the order of the
    sweep."""
    if not caches:
        return
    texts = [text for text, _, _ in prompts]
    order = sorted(range(len(texts)), key=lambda i: answers.prefix_key(texts[i]))
    new = dict.fromkeys((row for _, _, row in prompts), 0.0)
    all_tokens = dict.fromkeys(new, 0)
    before = ""
    for i in order:
        text, size, row = prompts[i]
        new[row] += size * (1 - _common(before, text) / max(len(text), 1))
        all_tokens[row] += size
        before = text
    for row, left in new.items():
        rows[row].computed = round(rows[row].tokens * left / max(all_tokens[row], 1))


def _common(a: str, b: str) -> int:
    """Length of the common beginning, by bisection."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def table(rows: list[Row], rate: float | None, answers: Path | None = None) -> str:
    """The matrix, then totals by model; what served models would cost where the study's `answers` are named."""
    head = ("model", "setting", "prompt", "task", "state", "items", "tokens", "to prefill", "time")
    lines = columns([head, *(_cells(row) for row in rows)], right=(5, 6, 7, 8))
    loads = len({row.cell.load_key for row in rows if row.state != "done"})
    todo = [row for row in rows if row.state != "done"]
    tokens, computed = sum(r.tokens for r in todo), sum(r.computed for r in todo)
    seconds = None if any(r.seconds is None for r in todo) else sum(r.seconds or 0 for r in todo)
    share = f" ({100 * computed / tokens:.0f}%)" if tokens else ""
    lines.append(
        f"\nto do: {len(todo)} of {len(rows)} cells, {sum(r.items for r in todo):,} items, {tokens:,} "
        "prompt tokens, "
        f"{computed:,} to prefill after prefix sharing{share}, {loads} engine load{'s' * (loads != 1)}"
    )
    if seconds is None:
        lines.append("time: unknown; give --rate TOKENS_PER_SECOND, or run one cell and it is measured")
    else:
        lines.append(f"time: about {clock(seconds)}" + (" (at the given rate, prefill only)" if rate else ""))
    lines += estimate(rows, answers) if answers is not None else []
    lines += _notes(rows)
    if any(not row.exact for row in rows):
        lines.append(
            "~ scaled from the first items of the cell, or from the data sheet; --sample 0 counts all"
        )
    return "\n".join(lines)


def _notes(rows: list[Row]) -> list[str]:
    """What is said of cells: once for all of which the same is said, with the first of them by name."""
    said: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            said.setdefault(row.note, []).append(row.cell.name)
    return [
        f"- {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"
        for note, names in said.items()
    ]


def _cells(row: Row) -> tuple[str, ...]:
    about = "" if row.exact else "~"
    time = "–" if row.seconds is None else clock(row.seconds)
    return (
        *row.cell.where,
        row.state,
        f"{row.items:,}",
        f"{about}{row.tokens:,}",
        f"{about}{row.computed:,}",
        time,
    )
