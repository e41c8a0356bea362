"""A cache layer that stores coded keys and values and decodes them when it is read (`kv:kivi`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from ..kivi import Coded, Kivi, decode_keys, decode_values, encode_keys, encode_values


class _Row:
    """One sequence's keys and values, (heads, tokens, dim): coded ones first, then those that are still as they were."""

    def __init__(self, keys: Tensor, values: Tensor, method: Kivi) -> None:
        self.method, self.n = method, 0
        self.keys, self.values = keys[:, :0], values[:, :0]
        self.coded_keys: Coded | None = None
        self.coded_values: Coded | None = None
        self.add(keys, values)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Append, and code what has left the residual."""
        m, had_keys, had_values = self.method, self.method.n_keys(self.n), self.method.n_values(self.n)
        self.n += keys.shape[1]
        self.keys, self.values = torch.cat([self.keys, keys], 1), torch.cat([self.values, values], 1)
        if more := m.n_keys(self.n) - had_keys:
            new = encode_keys(self.keys[:, :more].contiguous(), m.width, m.group)
            self.coded_keys = new if self.coded_keys is None else self.coded_keys.then(new)
            self.keys = self.keys[:, more:].clone()
        if more := m.n_values(self.n) - had_values:
            new = encode_values(self.values[:, :more], m.width, m.group)
            self.coded_values = new if self.coded_values is None else self.coded_values.then(new)
            self.values = self.values[:, more:].clone()

    def dense(self) -> tuple[Tensor, Tensor]:
        """All keys and values as attention reads them."""
        keys, values, bits = self.keys, self.values, self.method.width
        if self.coded_keys is not None:
            keys = torch.cat([decode_keys(self.coded_keys, bits, keys.dtype), keys], 1)
        if self.coded_values is not None:
            values = torch.cat([decode_values(self.coded_values, bits, values.dtype), values], 1)
        return keys, values

    def size(self) -> int:
        """Bytes of all of it."""
        parts = [self.keys, self.values]
        for coded in (self.coded_keys, self.coded_values):
            parts += coded.tensors() if coded is not None else []
        return sum(t.numel() * t.element_size() for t in parts)


class CodedLayer(DynamicLayer):
    """Rows of several lengths; `update` returns them decoded, padded on the left."""

    def __init__(self, layer: Any, pads: list[int], method: Kivi) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys[:, :, :0].clone(), layer.values[:, :, :0].clone()
        self.rows = [
            _Row(layer.keys[b, :, pad:], layer.values[b, :, pad:], method) for b, pad in enumerate(pads)
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append; returns all keys and values (rows, heads, tokens, dim)."""
        for b, row in enumerate(self.rows):
            row.add(key_states[b], value_states[b])
        width = self.get_seq_length()
        keys, values = (
            like.new_zeros(len(self.rows), like.shape[1], width, like.shape[3])
            for like in (key_states, value_states)
        )
        for b, row in enumerate(self.rows):
            keys[b, :, width - row.n :], values[b, :, width - row.n :] = row.dense()
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens of the longest row."""
        return max(row.n for row in self.rows)
