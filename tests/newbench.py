"""Small files in the official shape of benchmarks whose data are not at hand, and what drives a task on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from icr_tasks.harness.run import manager

WORDS = [
    f"{a}{b}" for a in ("lo", "mi", "ka", "tre", "su", "ven") for b in ("ra", "dol", "ne", "fi", "stu", "mar")
]


def prose(r: random.Random, n: int) -> str:
    """`n` invented words."""
    return " ".join(r.choice(WORDS) for _ in range(n))


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A parquet file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=2)
    return path


def mrcr_row(needles: int, wanted: int, words: int, seed: int = 0) -> dict[str, Any]:
    """A conversation of `words` words in which a note about kites is asked for `needles` times."""
    r = random.Random(seed)
    messages = [{"role": "user", "content": "Here is an example of a conversation and its last question."}]
    notes, places = [], set(r.sample(range(needles * 3), needles))
    for n in range(needles * 3):
        kind = "write a note about kites" if n in places else f"write a poem about {r.choice(WORDS)}"
        text = prose(r, words // (needles * 3))
        notes += [text] if n in places else []
        messages += [{"role": "user", "content": kind}, {"role": "assistant", "content": text}]
    prefix = f"Qw{seed}Zt0Lm2A"
    messages.append(
        {"role": "user", "content": f"Prepend {prefix} to the {wanted}. (1 indexed) note about kites."}
    )
    return {
        "prompt": json.dumps(messages),
        "answer": prefix + notes[wanted - 1],
        "random_string_to_prepend": prefix,
        "n_needles": needles,
        "desired_msg_index": 2,
        "total_messages": len(messages),
        "n_chars": sum(len(m["content"]) for m in messages),
    }


def task(name: str, **metadata: Any) -> Any:
    """The leaf task under these options."""
    return manager({"tokenizer": "none", **metadata}).load([name])["tasks"][name]


def scores(found: Any, say: Callable[[dict[str, Any]], str], template: Any = None) -> dict[str, float]:
    """Mean metrics of a task whose items are answered by `say(doc)`."""
    found.build_all_requests(chat_template=template, apply_chat_template=template is not None)
    rows = []
    for instance in found.instances:
        instance.resps = [say(instance.doc)]
    found.apply_filters()
    for instance in found.instances:
        rows.append(found.process_results(instance.doc, [instance.filtered_resps["none"]]))
    return {name: sum(r[name] for r in rows) / len(rows) for name in rows[0]}
