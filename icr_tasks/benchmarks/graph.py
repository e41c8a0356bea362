"""Directed graphs as prompts have them, lists of edges `a -> b`, one a line: where they stand, which a question takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

_EDGE = re.compile(r"(\S+) -> (\S+)")


def parts(prompt: str, start: str, stop: str) -> tuple[str, str, str]:
    """(everything before the edges, the edges, what follows them): they stand between the last `start` and the next
    `stop`. ValueError for another text."""
    before, began, rest = prompt.rpartition(start)
    edges, ended, _ = rest.partition(stop)
    if not began or not ended:
        raise ValueError("field 'prompt' has no list of edges followed by an operation")
    edges = edges.rstrip("\n")
    return before + began, edges, rest[len(edges) :]


def needed(lines: Sequence[str], node: str, depth: int | None) -> set[int]:
    """Places of the edges into the node, or (with a depth) of all that a breadth-first search from it takes.

    >>> lines = ["a -> b", "c -> b", "b -> d", "d -> e"]
    >>> needed(lines, "b", None), needed(lines, "a", 2)
    ({0, 1}, {0, 2})
    """
    edges = [found.groups() if (found := _EDGE.fullmatch(line.strip())) else ("", "") for line in lines]
    if depth is None:
        return {n for n, (_, to) in enumerate(edges) if to == node}
    front, seen, taken = {node}, {node}, set[int]()
    for _ in range(depth):
        walked = {n for n, (start, _) in enumerate(edges) if start in front}
        taken |= walked
        front = {edges[n][1] for n in walked} - seen
        seen |= front
    return taken
