"""Python packages read from a wheel or a folder, without importing or installing them: which names a module
gives, which methods and attributes a class has."""

from __future__ import annotations

import ast
import zipfile
from functools import cached_property, lru_cache
from pathlib import Path


class Sources:
    """The modules of a wheel (a zip) or of a site-packages folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._zip.namelist()) if self.place.is_file() else frozenset()

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.place)

    def path_of(self, module: str) -> str | None:
        """The file of a module, None where it has none."""
        base = module.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if path in self._names if self.place.is_file() else (self.place / path).is_file():
                return path
        return None

    @lru_cache(maxsize=4096)  # noqa: B019  (one reader a run)
    def tree(self, module: str) -> ast.Module | None:
        """The parsed module."""
        path = self.path_of(module)
        if path is None:
            return None
        data = self._zip.read(path) if self.place.is_file() else (self.place / path).read_bytes()
        return ast.parse(data)

    def find(
        self, module: str, name: str, seen: tuple[tuple[str, str], ...] = ()
    ) -> tuple[str, ast.AST] | None:
        """(module, definition) of a name that a module gives, through re-exports; a submodule counts. None
        where there is none."""
        tree = self.tree(module)
        if tree is None or (module, name) in seen:
            return None
        seen = (*seen, (module, name))
        stars = []
        for node in _outer(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(
                    isinstance(t, ast.Name) and t.id == name for target in targets for t in ast.walk(target)
                ):
                    return module, node
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if (alias.asname or alias.name.partition(".")[0]) == name:
                        return module, node
            if isinstance(node, ast.ImportFrom):
                origin = self._absolute(module, node)
                for alias in node.names:
                    if alias.name == "*":
                        stars.append(origin)
                    elif (alias.asname or alias.name) == name:
                        if origin.partition(".")[0] != module.partition(".")[0]:
                            return module, node  # from another package
                        if found := self.find(origin, alias.name, seen):
                            return found
        for origin in stars:
            if found := self.find(origin, name, seen):
                return found
        below = self.tree(f"{module}.{name}")
        return (f"{module}.{name}", below) if below is not None else None

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        if not (self.path_of(module) or "").endswith("/__init__.py"):
            parts = parts[:-1]
        parts = parts[: len(parts) - (node.level - 1)]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def bases(self, module: str, node: ast.ClassDef) -> list[tuple[str, ast.ClassDef]]:
        """A class and all its bases of the same package, nearest first."""
        found, left = [], [(module, node)]
        while left:
            where, kind = left.pop(0)
            if (where, kind) in found:
                continue
            found.append((where, kind))
            for base in kind.bases:
                base = base.value if isinstance(base, ast.Subscript) else base
                there = self.find(where, base.id) if isinstance(base, ast.Name) else None
                if there and isinstance(there[1], ast.ClassDef):
                    left.append((there[0], there[1]))
        return found

    def open_ended(self, module: str, node: ast.ClassDef) -> bool:
        """Whether a class has a base of another package, whose members are not known here."""
        for where, kind in self.bases(module, node):
            for base in kind.bases:
                base = base.value if isinstance(base, ast.Subscript) else base
                name = base.id if isinstance(base, ast.Name) else None
                there = self.find(where, name) if name else None
                if name not in ("object", "ABC", "Generic", "Protocol") and (
                    there is None or not isinstance(there[1], ast.ClassDef)
                ):
                    return True
        return False

    def members(self, module: str, node: ast.ClassDef) -> dict[str, ast.AST]:
        """Methods, fields, properties and what any method sets on self, of a class and its bases."""
        found: dict[str, ast.AST] = {}
        for _, kind in self.bases(module, node):
            for part in kind.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.setdefault(part.name, part)
                    for inner in ast.walk(part):
                        if not (isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)):
                            continue
                        if isinstance(inner.value, ast.Name) and inner.value.id == "self":
                            found.setdefault(inner.attr, inner)
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    found.setdefault(part.target.id, part)
                elif isinstance(part, ast.Assign):
                    for target in part.targets:
                        if isinstance(target, ast.Name):
                            found.setdefault(target.id, part)
        return found


def _outer(tree: ast.AST) -> list[ast.AST]:
    """Statements of a module outside functions and classes, those inside if, try and with included."""
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            found += _outer(node)
    return found


def parameters(node: ast.AST) -> set[str] | None:
    """Names a function takes; None where it takes any (**kwargs), or is no function."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.args.kwarg:
        return None
    args = node.args
    return {a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs]}
