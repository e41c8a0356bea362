"""A transformers cache whose layers own room for the whole answer, so a step writes one token instead of
copying all."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values (batch, kv_heads, tokens, dim) as views of a larger buffer; same numbers as
    DynamicLayer."""

    room = 256

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._k = self._v = key_states[:, :, :0]
            self.used = 0
        end = self.used + key_states.shape[2]
        if end > self._k.shape[2]:
            self._k = self._larger(self._k, key_states, end)
            self._v = self._larger(self._v, value_states, end)
        self._k[:, :, self.used : end] = key_states
        self._v[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self._k[:, :, :end], self._v[:, :, :end]
        return self.keys, self.values

    def _larger(self, old: Tensor, like: Tensor, need: int) -> Tensor:
        new = like.new_empty((*like.shape[:2], max(self.room, need), like.shape[3]))
        new[:, :, : self.used] = old[:, :, : self.used]
        self.room = max(self.room, need + 1024)  # the next growth, if the given room was too small
        return new

    def replace(self, keys: Tensor, values: Tensor, room: int) -> None:
        """Keep only these keys and values; the old buffer is freed."""
        self.used, self.room = keys.shape[2], keys.shape[2] + room
        self._k, self._v = self._larger(keys, keys, self.room), self._larger(values, values, self.room)
        self.keys, self.values = self._k[:, :, : self.used], self._v[:, :, : self.used]


def new_cache(layers: int, room: int) -> DynamicCache:
    """An empty cache for `room` tokens a layer."""
    cache = DynamicCache()
    cache.layers = []
    for _ in range(layers):
        layer = RoomyLayer()
        layer.room = room
        cache.layers.append(layer)
    cache.layer_class_to_replicate = None
    return cache


def stored_bytes(cache: Any, row: int, pad: int) -> int:
    """Bytes of one sequence's keys and values (neither padding nor the room for what is still to come)."""
    parts = (t[row, :, pad:] for layer in cache.layers for t in (layer.keys, layer.values))
    return sum(t.numel() * t.element_size() for t in parts)


def gather(layer: Any, rows: list[Tensor], room: int) -> None:
    """Keep `rows[b]` (kv_heads, kept_b) of sequence b; shorter sequences are padded on the left with
    zeros."""
    width = max(at.shape[1] for at in rows)
    shape = (layer.keys.shape[0], layer.keys.shape[1], width, layer.keys.shape[3])
    keys, values = layer.keys.new_zeros(shape), layer.values.new_zeros((*shape[:3], layer.values.shape[3]))
    for b, at in enumerate(rows):
        index = at.unsqueeze(-1)
        keys[b, :, width - at.shape[1] :] = layer.keys[b].gather(1, index.expand(-1, -1, keys.shape[3]))
        values[b, :, width - at.shape[1] :] = layer.values[b].gather(1, index.expand(-1, -1, values.shape[3]))
    if isinstance(layer, RoomyLayer):
        layer.replace(keys, values, room)
    else:
        layer.keys, layer.values = keys, values
