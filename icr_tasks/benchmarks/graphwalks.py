"""GraphWalks (openai/graphwalks): walk a graph given as a list of edges; the answer is a set of nodes.

The case where retrieval must lose: an edge can be looked up, but which edges matter is known only after the
others were read. The prompt is the record's own, sent as it is and never cut.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ..metrics import scorers
from . import flat, graph, lines
from .base import Item, ItemSet, Prompt, Unit, digest
from .declare import benchmark, grid, whole
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
_MARKS = "The graph has the following edges:\n", "\n\nOperation:\n"
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


def _walk(operation: str) -> tuple[str, int | None]:
    """(the node that an operation names, how far it walks from there). ValueError where it names none."""
    asked, depth = _ASKED.search(operation), _DEPTH.search(operation)
    if asked is None:
        raise ValueError("the operation names no node")
    return asked[1], int(depth[1]) if depth else None


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    before, edges, after = graph.parts(record["prompt"], *_MARKS)
    _walk(after)  # it names a node
    return {
        "kind": lines.one_of(record, "problem_type", KINDS),
        "nodes": [str(n) for n in record["answer_nodes"]],
        "before": before,
        "after": after,
        "graph": digest(edges),
        "chars": record["prompt_chars"],
    }


def _item(found: flat.Records, row: Any) -> Item:
    kept = row.kept
    _, depth = _walk(kept["after"])
    size = 1 << max(kept["chars"] - 1, 1).bit_length()
    keys = {
        "kind": kept["kind"],
        "bfs_depth": depth if kept["kind"] == "bfs" else None,
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
    _, edges, after = graph.parts(found.read(row)["prompt"], *_MARKS)
    rows = edges.split("\n")
    needed = graph.needed(rows, *_walk(after))
    return [Unit(f"edge-{n}", edge, gold=n in needed) for n, edge in enumerate(rows)]


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
    counted = "750/400 in both kinds"
    groups = [whole("icr_graphwalks", "GraphWalks", tasks, "graph_f1")]
    load = staticmethod(load)
    files = staticmethod(lambda dataset, length: DATA.remotes(FILES[str(length)][0]))  # both kinds in one
