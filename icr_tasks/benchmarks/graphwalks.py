"""GraphWalks (openai/graphwalks): walk a graph given as a list of edges; the answer is a set of nodes.

The case where retrieval must lose: an edge can be looked up, but which edges matter is known only after the
others were read. The prompt is the record's own, sent as it is and never cut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..metrics import answer_lines, scorers
from . import flat
from .base import Item, ItemSet, Prompt, Unit
from .declare import Group, benchmark, grid
from .fetch import Remote
from .pinned import Pinned

DATA = Pinned(
    "openai/graphwalks",
    "f338bb265735a56a79f4b0f5def722c9c3268ead",
    "MIT",
    {
        "graphwalks_128k_and_shorter.parquet": "54036036c91d8e04bb2a5fcd9e36f8e2a852cacece5dfc2b1ee40e3a6182b516",
        "graphwalks_256k_to_1mil.parquet": "537879431c72a42e3b500f80efc3047e7facb90390b6063d33679b4320985911",
    },
    "graphwalks",
    about=322_600_000,
)
FILES = {
    "128k": ("graphwalks_128k_and_shorter.parquet", 750),
    "1M": ("graphwalks_256k_to_1mil.parquet", 400),
}
KINDS = ("bfs", "parents")
_FIELDS = {"prompt": str, "answer_nodes": list, "problem_type": str, "prompt_chars": int}
_EDGES, _OPERATION = "The graph has the following edges:\n", "\n\nOperation:\n"
_EDGE = re.compile(r"(\S+) -> (\S+)")
_ASKED = re.compile(r"(?:from|of) node (\S+?)(?: |\.|$)")
_DEPTH = re.compile(r"depth (\d+)")


def load(
    dataset: str = "bfs", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Walks of one kind in one of the two files. Raises IcrError for a short file or another shape."""
    name, expected = FILES[str(length)]
    found = DATA.records(name, _FIELDS, _keep)
    items = [_item(found, row) for row in found.rows if row.kept["kind"] == dataset]
    return DATA.items(items, [found], expected, allow_partial, count=len(found.rows), what="records")


def _parts(prompt: str) -> tuple[str, str, str]:
    """(everything before the edges, the edges, the operation and what follows). ValueError for another text."""
    start = prompt.rfind(_EDGES) + len(_EDGES)
    stop = prompt.find(_OPERATION, start)
    if start < len(_EDGES) or stop < 0:
        raise ValueError("field 'prompt' has no list of edges followed by an operation")
    edges = prompt[start:stop].rstrip("\n")
    return prompt[:start], edges, prompt[start + len(edges) :]


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    if record["problem_type"] not in KINDS:
        raise ValueError(f"problem_type {record['problem_type']!r} is neither bfs nor parents")
    before, edges, after = _parts(record["prompt"])
    if not _ASKED.search(after):
        raise ValueError("the operation names no node")
    graph = hashlib.sha256(edges.encode()).hexdigest()[:16]
    return {
        "kind": record["problem_type"],
        "nodes": [str(n) for n in record["answer_nodes"]],
        "before": before,
        "after": after,
        "graph": graph,
        "chars": record["prompt_chars"],
    }


def _item(found: flat.Records, row: Any) -> Item:
    kept = row.kept
    depth = _DEPTH.search(kept["after"])
    size = 1 << max(kept["chars"] - 1, 1).bit_length()
    keys = {
        "kind": kept["kind"],
        "bfs_depth": int(depth[1]) if depth and kept["kind"] == "bfs" else None,
        "size": f"{size >> 10}k characters" if size >> 10 else f"{size} characters",
        "empty": not kept["nodes"],
    }
    question = kept["after"].split("\n\n")[1].removeprefix("Operation:\n")
    fields = {"before": kept["before"], "after": kept["after"]}
    units = partial(_units, found, row)
    answer = f"Final Answer: [{', '.join(kept['nodes'])}]"
    return Item(
        f"{kept['kind']}-{row.line}", question, (answer,), kept["graph"], units, keys=keys, fields=fields
    )


def _units(found: flat.Records, row: Any) -> list[Unit]:
    _, edges, after = _parts(found.read(row)["prompt"])
    lines = edges.split("\n")
    walked = needed(lines, after)
    return [Unit(f"edge-{n}", line, gold=n in walked) for n, line in enumerate(lines)]


def needed(lines: Sequence[str], operation: str) -> set[int]:
    """Which edges decide the answer: those into the asked node, or all that a breadth-first search takes."""
    asked = _ASKED.search(operation)
    node = asked[1] if asked else ""
    pairs = [found.groups() if (found := _EDGE.fullmatch(line.strip())) else ("", "") for line in lines]
    depth = _DEPTH.search(operation)
    if depth is None:
        return {n for n, (_, to) in enumerate(pairs) if to == node}
    leaving: dict[str, list[int]] = {}
    for n, (start, _) in enumerate(pairs):
        leaving.setdefault(start, []).append(n)
    taken: set[int] = set()
    front, seen = {node}, {node}
    for _ in range(int(depth[1])):
        walked = {n for start in front for n in leaving.get(start, ())}
        taken |= walked
        front = {pairs[n][1] for n in walked} - seen
        seen |= front
    return taken


# ---- metric --------------------------------------------------------------------------------------

_LINE = re.compile(r"[\s*_`]*Final Answer:?[\s*_`]*\[([^\[\]]*)\][\s*_`.]*", re.I)


def _f1(found: str | None, gold: str) -> float:
    """F1 of two sets of nodes. Two empty sets agree: 1 (lm-eval's graphwalks gives 0 there)."""
    return 0.0 if found is None else answer_lines.f1(_nodes(found), _nodes(gold))


def _nodes(text: str) -> set[str]:
    return {word for part in text.split(",") if (word := part.strip().strip("'\"`*"))}


def _gold(item: Item) -> str:
    found = _LINE.fullmatch(item.answers[0])
    return found[1] if found else ""


@scorers.metric("graph_f1", reads="text")
def last_line(text: str, item: Item) -> float:
    """F1 of the nodes on the very last line, which must have the form that the prompt asks for."""
    rows = text.strip().splitlines()
    found = _LINE.fullmatch(rows[-1]) if rows else None
    return _f1(found[1] if found else None, _gold(item))


@scorers.metric("graph_f1_any", reads="text")
def any_line(text: str, item: Item) -> float:
    """F1 of the nodes on the last line that has the form."""
    found = [m for row in text.splitlines() if (m := _LINE.fullmatch(row))]
    return _f1(found[-1][1] if found else None, _gold(item))


@scorers.metric("graph_answered", reads="text")
def answered(text: str, item: Item) -> float:
    """Whether a line has the form at all."""
    return float(any(_LINE.fullmatch(row) for row in text.splitlines()))


@benchmark(
    "graphwalks",
    title="GraphWalks",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=("graph_f1", "graph_f1_any", "graph_answered", *scorers.COST),
    prompts={
        "official": Prompt(
            "official",
            user="{before}{context}{after}",
            no_context="{before}{after}",
            unit="{text}",
            joiner="\n",
            ordered=True,
            max_gen_toks=16384,
            source="openai/graphwalks, field prompt",
        )
    },
    **DATA.facts,
    overflow="skip",
    metric_definition="F1 of the node sets on the last line `Final Answer: [...]`; both empty is 1",
    cluster="graph",
    breakdown=["bfs_depth", "size", "empty"],
)
class Graphwalks:
    """Two kinds of walks in two files: up to 128k tokens, and 256k to 1M."""

    tasks = grid(dataset=KINDS, length=FILES)
    groups = [
        Group(
            "icr_graphwalks",
            "GraphWalks",
            [f"icr_graphwalks_{k}_{n}" for k in KINDS for n in FILES],
            "graph_f1",
        )
    ]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """One file holds both kinds."""
        return DATA.remotes(FILES[str(length)][0])
