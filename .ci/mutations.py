"""Small changes to a module's code, and a module loaded from a changed tree: what mutants.py runs tests on.

What is written for people is left alone: docstrings, messages, logs, annotations. So is what decides no result: assertions,
`zip(strict=True)` among them, how much a cache may hold, and how often a text is split of which the first piece is taken.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from math import comb
from pathlib import Path
from typing import Any

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def changes(tree: ast.AST) -> list[tuple[int, str, Callable[[], None]]]:
    """(line, what, how) of every change that can be made to a tree; each `how` changes the tree in place."""
    found: list[tuple[int, str, Callable[[], None]]] = []
    for node in _code(tree):
        line = getattr(node, "lineno", 0)
        for what, how in _of(node):
            found.append((line, what, how))
    return found


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes whose value decides something: no docstring, message, log line, annotation or import for types."""
    if isinstance(node, ast.Raise | ast.AnnAssign) and not isinstance(getattr(node, "value", None), ast.expr):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
        ("log.", "warnings.", "IcrError", "unknown")
    ):
        return
    if isinstance(node, ast.Assert):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Lru":
        return
    if isinstance(node, ast.keyword) and ast.unparse(node) == "strict=True":
        return
    yield node
    idle = _idle(node)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Call) and child is idle:
                for part in (child.func, *child.args):
                    if not isinstance(getattr(part, "value", None), int):
                        yield from _code(part)
            elif isinstance(child, ast.AST):
                yield from _code(child)


def _idle(node: ast.AST) -> ast.Call | None:
    """The split of `text.split(mark, 1)[0]`: further splits do not change the first piece."""
    if (
        isinstance(node, ast.Subscript)
        and ast.unparse(node.slice) == "0"
        and isinstance(node.value, ast.Call)
    ):
        call = node.value
        if isinstance(call.func, ast.Attribute) and call.func.attr == "split":
            return call
    return None


def _of(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield (
                    f"{type(op).__name__} -> {SWAPS[type(op)].__name__}",
                    _item(node.ops, i, SWAPS[type(op)]()),
                )
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPS and not _text(node):
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} -> {new.__name__}", _attribute(node, "op", new())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", _double(node)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield f"{node.value} -> {not node.value}", _attribute(node, "value", not node.value)
        elif isinstance(node.value, int):
            yield f"{node.value} -> {node.value + 1}", _attribute(node, "value", node.value + 1)
        elif isinstance(node.value, float):
            yield f"{node.value} -> {node.value * 2 + 1}", _attribute(node, "value", node.value * 2 + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        yield f"{node.func.id} -> {CALLS[node.func.id]}", _attribute(node.func, "id", CALLS[node.func.id])
    elif isinstance(node, ast.IfExp):
        yield "branches exchanged", _exchange(node)


def _text(node: ast.AST) -> bool:
    """Whether a sum is one of texts, whose change is an error at once."""
    return isinstance(node, ast.BinOp) and any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _item(values: list[Any], at: int, new: Any) -> Callable[[], None]:
    return lambda: values.__setitem__(at, new)


def _attribute(node: ast.AST, name: str, new: Any) -> Callable[[], None]:
    return lambda: setattr(node, name, new)


def _double(node: ast.UnaryOp) -> Callable[[], None]:
    return lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))


def _exchange(node: ast.IfExp) -> Callable[[], None]:
    def how() -> None:
        node.body, node.orelse = node.orelse, node.body

    return how


class Changed(SourceFileLoader):
    """Loads one module from a changed tree."""

    def __init__(self, name: str, path: str, tree: ast.AST) -> None:
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> Any:
        """The code of the changed tree; nothing is cached on disk."""
        return compile(ast.fix_missing_locations(self.tree), self.path, "exec")  # type: ignore[call-overload]


@dataclass
class Finder:
    """Finds the changed module before anything else does."""

    name: str
    path: Path
    tree: ast.AST = field(repr=False)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of that one module."""
        if name != self.name:
            return None
        loader = Changed(name, str(self.path), self.tree)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def passes(noticed: int, of: int, floor: float, by_chance: float | None) -> bool:
    """Whether enough are noticed: the floor itself or, with `by_chance`, any count that code at the floor would have
    with at least that probability (one-sided, binomial)."""
    if by_chance is None:
        return noticed >= floor * of
    return sum(comb(of, i) * floor**i * (1 - floor) ** (of - i) for i in range(noticed + 1)) >= by_chance
