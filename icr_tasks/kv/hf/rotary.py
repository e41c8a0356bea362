"""A model's rotary positions outside of its forward pass: which layers turn, by how much, and kept as they were."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError

_MOVED = ("inv_freq", "attention_scaling", "max_seq_len_cached")  # what a pass of another length changes


class Rotary:
    """A model's rotary positions through its own functions, so that every layout of dimensions is right.

    Raises IcrError for a model without one rotation for all layers that have any.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.get_decoder()
        self._model = model
        self._angles = getattr(decoder, "rotary_emb", None)
        self._apply = getattr(sys.modules[type(decoder).__module__], "apply_rotary_pos_emb", None)
        try:
            with kept(model):
                self.turn(
                    torch.zeros(1, 1, 1, self._dim(model), device=model.device),
                    torch.zeros(1, 1, dtype=torch.long),
                )
                self.layers = _turned(model)
            if not self.layers:
                raise ValueError("no layer calls it")
        except Exception as error:  # whatever a model's own code says to arguments of another kind
            raise IcrError(
                f"kv:expected cannot run on {model.config.get_text_config().model_type}: its rotary positions are not one "
                "rotation for all layers; use kv:snapkv or kv:keydiff"
            ) from error

    @staticmethod
    def _dim(model: Any) -> int:
        config = model.config.get_text_config()
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def turn(self, x: Tensor, positions: Tensor, back: bool = False) -> Tensor:
        """x (batch, heads, n, dim) at positions (batch, n), rotated forth or back."""
        assert self._angles is not None and self._apply is not None
        cos, sin = self._angles(x, positions.to(x.device))
        if not back:
            return self._apply(x, x, cos, sin)[0]
        size = cos * cos + sin * sin  # 1, or what long-context scaling made of it
        return self._apply(x, x, cos / size, -sin / size)[0]

    def average(self, start: int, future: int, like: Tensor) -> Tensor:
        """(dim, dim): x @ it is x rotated to each of `future` positions from `start` on, averaged. `like`: (heads, dim)."""
        unit = torch.eye(like.shape[-1], device=like.device)
        rows = unit.view(1, 1, len(unit), -1)
        total = torch.zeros_like(unit)
        with kept(self._model):
            for at in range(start, start + future):
                positions = torch.full((1, len(unit)), at, device=like.device)
                total += self.turn(rows, positions)[0, 0]
        return total / future


@contextmanager
def kept(model: Any) -> Iterator[None]:
    """The rotation afterwards as before: rope types that depend on the length (`dynamic`, `longrope`) take that of the last
    or longest pass, also of one that only measures, and would turn the next queries otherwise than the keys that are
    stored."""
    before = [
        (module, name, getattr(module, name))
        for module in model.modules()
        if hasattr(module, "inv_freq") or hasattr(module, "max_seq_len_cached")
        for name in [*vars(module), *module._buffers]
        if name.endswith(_MOVED)
    ]
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _turned(model: Any) -> frozenset[int]:
    """The layers that rotate their queries, seen in a pass of one token: some models leave layers without positions (SmolLM3,
    Cohere 2, EXAONE 4), each by a rule of its own."""
    home: Any = sys.modules[type(model.get_decoder()).__module__]
    found: set[int] = set()
    at: list[int] = []
    original = home.apply_rotary_pos_emb

    def told(*args: Any, **kwargs: Any) -> Any:
        found.update(at[-1:])
        return original(*args, **kwargs)

    def enter(module: Any, args: Any) -> None:
        at.append(module.layer_idx)

    inside = [m for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int)]
    hooks = [m.register_forward_pre_hook(enter) for m in inside]
    home.apply_rotary_pos_emb = told
    try:
        with torch.inference_mode():
            model.get_decoder()(
                input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False
            )
    finally:
        home.apply_rotary_pos_emb = original
        for hook in hooks:
            hook.remove()
    return frozenset(found)
