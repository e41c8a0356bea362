"""KV methods: one file each, which registers its name, default budget and knobs (`@kv_method`).

Nothing here imports torch, so that settings parse anywhere; a method's own code loads it when it runs.
Methods are torch functions on (kv_heads, tokens, dim) tensors and know nothing of the engine that calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..params import Param, check_params
from ..registry import KV_METHODS
from ..settings import SPLITS

if TYPE_CHECKING:
    from .base import Method

__all__ = ["SPLITS", "Method", "Spec", "check", "make", "spec"]


@dataclass(frozen=True)
class Spec:
    """A method as registered. `frees`: it drops keys and values after prefill; else it stores all and reads a
    part. `budget` is the default share; None means none is needed. `knobs` are its parameters, `params` their
    defaults."""

    name: str
    target: Any
    frees: bool
    budget: float | None
    knobs: Mapping[str, Param]

    @property
    def params(self) -> dict[str, Any]:
        """Every knob with its default."""
        return {name: param.default for name, param in self.knobs.items()}


def spec(name: str) -> Spec:
    """A method, or a kvpress press (`press.SnapKV`). Raises IcrError with the nearest name."""
    if name.startswith("press."):
        from . import press

        entry = KV_METHODS.get("press")
        return Spec(
            name, entry.target, press.frees(name.removeprefix("press.")), entry.facts["budget"], entry.params
        )
    entry = KV_METHODS.get(name)
    return Spec(name, entry.target, entry.facts["frees"], entry.facts["budget"], entry.params)


def check(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that differ from the method's defaults, in the method's order; IcrError names a bad one."""
    found = spec(name)
    values = check_params(f"kv:{name}", found.knobs, given)
    differ = {knob: value for knob, value in values.items() if value != found.params[knob]}
    if (refuse := getattr(found.target, "check_together", None)) is not None:
        refuse(differ)
    return differ


def make(name: str, budget: int | float | None, params: Mapping[str, Any] | None = None) -> Method:
    """The method with its defaults filled in. `budget`: a share (float) or tokens (int); None: the method's
    own."""
    found = spec(name)
    knobs = {**found.params, **check(name, params or {})}
    return found.target(
        name=name, budget=found.budget if budget is None else budget, frees=found.frees, **knobs
    )


def __getattr__(name: str) -> Any:
    if name == "METHODS":  # every method but kvpress's, by name
        return {entry.name: spec(entry.name) for entry in KV_METHODS.entries() if entry.name != "press"}
    if name == "Method":
        from .base import Method

        return Method
    raise AttributeError(f"module 'icr_tasks.kv' has no attribute {name!r}")
