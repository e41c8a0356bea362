"""A transformers cache whose layers own room for the whole answer, so a step writes one token instead of
copying all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
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
            self._k, self._v = key_states[:, :, :0], value_states[:, :, :0]
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

    def cut(self, tokens: int) -> None:
        """Forget what came after the first `tokens`."""
        self.used = tokens
        self.keys, self.values = self._k[:, :, :tokens], self._v[:, :, :tokens]

    def replace(self, keys: Tensor, values: Tensor, room: int) -> None:
        """Keep only these keys and values; the old buffer is freed."""
        self.used, self.room = keys.shape[2], keys.shape[2] + room
        self._k, self._v = self._larger(keys, keys, self.room), self._larger(values, values, self.room)
        self.keys, self.values = self._k[:, :, : self.used], self._v[:, :, : self.used]


class RaggedLayer(DynamicLayer):
    """Keys and values of each row and KV head at a length of their own, for heads that divide a budget.

    `heads[b][h]`: keys and values, (tokens, dim). `update` returns the new tokens alone: attention reads `heads` itself.
    """

    def __init__(self, heads: list[list[tuple[Tensor, Tensor]]], like: Any) -> None:
        super().__init__()
        self.lazy_initialization(like.keys, like.values)
        self.heads = heads
        self.keys, self.values = like.keys[:, :, :0], like.values[:, :, :0]
        self.item = like.keys.element_size()
        self.longest = max(keys.shape[0] for row in heads for keys, _ in row)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to every head; returns what was appended."""
        for b, row in enumerate(self.heads):
            for h, (keys, values) in enumerate(row):
                row[h] = torch.cat([keys, key_states[b, h]]), torch.cat([values, value_states[b, h]])
        self.longest += key_states.shape[2]
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens of the longest head."""
        return self.longest

    def tokens(self, row: int) -> float:
        """Mean length of the heads of a row."""
        return sum(keys.shape[0] for keys, _ in self.heads[row]) / len(self.heads[row])


def full_layers(config: Any) -> tuple[int, ...]:
    """Layers whose attention reads every earlier token; the others (windows, chunks, linear states) keep what they
    are made for."""
    layers = DynamicCache(config=config).layers
    return tuple(i for i, layer in enumerate(layers) if type(layer) is DynamicLayer)


def new_cache(config: Any, room: int) -> DynamicCache:
    """An empty cache for `room` tokens in each full-attention layer; other layers have the model's own."""
    cache = DynamicCache(config=config)
    for i in full_layers(config):
        layer = RoomyLayer()
        layer.room = room
        cache.layers[i] = layer
    return cache


def stored_bytes(cache: Any, row: int, pad: int, where: Sequence[int]) -> int:
    """Bytes of one sequence's keys and values in the layers `where` (neither padding nor the room for what is still to
    come)."""
    total = 0
    for layer in (cache.layers[i] for i in where):
        parts: list[Tensor]
        if (rows := getattr(layer, "rows", None)) is not None:
            total += rows[row].size()
            continue
        if isinstance(layer, RaggedLayer):
            parts = [t for pair in layer.heads[row] for t in pair]
        else:
            parts = [layer.keys[row, :, pad:], layer.values[row, :, pad:]]
        total += sum(t.numel() * t.element_size() for t in parts)
    return total


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
