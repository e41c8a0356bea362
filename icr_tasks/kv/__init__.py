"""KV methods by name: what a setting `kv:NAME@budget,...` may say, and where the method lives.

A new method is one file here and one line in METHODS. Nothing in this module imports torch, so settings parse
anywhere; `make` imports the method itself. Methods are torch functions on (kv_heads, tokens, dim) tensors and
know nothing of the engine that calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import IcrError, unknown

if TYPE_CHECKING:
    from .base import Method

SPLITS = ("query-aware", "query-agnostic")


@dataclass(frozen=True)
class Spec:
    """`budget` is the default share; None means none is needed. `params` maps each knob to its default."""

    where: str  # module:class below this package
    frees: bool  # True: drops keys and values after prefill. False: stores everything, reads a part
    budget: float | None
    params: dict[str, Any] = field(default_factory=dict)


_ZONES = {"sink": 4, "window": 64}
METHODS: dict[str, Spec] = {
    "topk": Spec("topk:TopK", False, 0.05, {**_ZONES, "update": 1024}),
    "cluster": Spec(
        "cluster:Cluster",
        False,
        0.018,
        {
            **_ZONES,
            "update": 1024,
            "estimation": 0.232,
            "size": 16,
            "segment": 8192,
            "rounds": 10,
            "build": "fast",
        },
    ),
    "page": Spec("page:Page", False, 0.05, {**_ZONES, "update": 1024, "page": 16}),
    "steady": Spec("steady:Steady", False, None, dict(_ZONES)),
    "snapkv": Spec("snapkv:SnapKV", True, 0.5, {"window": 64, "kernel": 5}),
    "keydiff": Spec("keydiff:KeyDiff", True, 0.5, {"sink": 0, "window": 0}),
    "streaming": Spec("streaming:Streaming", True, 0.5, {"sink": 4, "window": 1}),
}
# kvpress classes (NAMEPress) seen working here; the second kind overwrites keys and frees nothing
PRESS_FREES = ("SnapKV", "TOVA", "Knorm", "KeyDiff", "StreamingLLM", "LagKV", "ExpectedAttention", "Random")
PRESS_MASKS = ("AdaKV",)
_LOWEST = {"sink": 0, "window": 0, "update": 1, "size": 1, "segment": 16, "rounds": 1, "page": 1, "kernel": 1}
_BUILDS = ("fast", "naive")


def spec(name: str) -> Spec:
    """The entry of a method or of a kvpress press (`press.SnapKV`). Raises IcrError with the nearest name."""
    if name.startswith("press."):
        short = name.removeprefix("press.")
        if short not in PRESS_FREES + PRESS_MASKS:
            raise unknown("kvpress press", short, PRESS_FREES + PRESS_MASKS)
        return Spec("press:Press", short in PRESS_FREES, 0.5)
    if name not in METHODS:
        raise unknown("kv method", name, [*METHODS, "press.NAME"])
    return METHODS[name]


def check(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that differ from the method's defaults, in the method's order; IcrError names a bad one."""
    known = spec(name).params
    for knob, value in given.items():
        if knob not in known:
            raise unknown(f"kv:{name} parameter", knob, known)
        if knob == "build":
            if value not in _BUILDS:
                raise unknown("index build", str(value), _BUILDS)
        elif knob == "estimation":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise IcrError(f"kv:{name} estimation={value} must be a share between 0 and 1")
        elif isinstance(value, bool) or not isinstance(value, int) or value < _LOWEST[knob]:
            raise IcrError(f"kv:{name} {knob}={value} must be a whole number >= {_LOWEST[knob]}")
        elif knob == "kernel" and value % 2 == 0:
            raise IcrError(f"kv:{name} kernel={value} must be odd, so that smoothing stays centred")
    return {
        k: float(given[k]) if k == "estimation" else given[k]
        for k in known
        if k in given and given[k] != known[k]
    }


def make(name: str, budget: float | None, params: Mapping[str, Any] | None = None) -> Method:
    """The method with its defaults filled in. Imports torch."""
    found = spec(name)
    knobs = {**found.params, **check(name, params or {})}
    module, _, cls = found.where.partition(":")
    method = getattr(import_module(f".{module}", __name__), cls)
    return method(name=name, budget=found.budget if budget is None else budget, frees=found.frees, **knobs)
