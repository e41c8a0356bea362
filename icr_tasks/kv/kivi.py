"""KIVI (arXiv 2402.02750): keys and values as whole numbers of `bits` bits, the most recent `residual` tokens as they are.

Keys are coded per channel, in groups of `group` tokens, once `residual` of them have come together; values per token, in groups of
`group` channels, as each leaves the last `residual`. A group stores its minimum and its step as 16-bit floats. Every token is
still read, in fewer bytes; the simulator decodes what it reads at every step, so its speed says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from ..lazy import torch
from ..params import Whole, Word
from ..registry import kv_method
from .base import Method

if TYPE_CHECKING:
    from torch import Tensor

_PARAMETERS = 4  # bytes a group: minimum and step


@kv_method(
    "kivi",
    budget=None,
    frees=True,
    knobs={
        "bits": Word("4", words=("2", "4")),
        "group": Whole(32, low=8),
        "residual": Whole(128, low=8),
    },
    inside=(),
)
class Kivi(Method):
    """Stores every token, most of them in `bits` bits a number."""

    bits: int | str = 4
    group, residual = 32, 128

    def __init__(self, *, budget: int | float | None = None, **knobs: Any) -> None:
        if budget is not None:
            raise IcrError(
                "kv:kivi takes no budget, because it keeps every token; write kv:kivi or kv:kivi,bits=2"
            )
        super().__init__(budget=None, **knobs)

    @property
    def width(self) -> int:
        """Bits a number."""
        return int(self.bits)

    def applies(self, n: int) -> bool:
        """A prompt within the residual stays as it is."""
        return n > self.residual

    def n_keys(self, n: int) -> int:
        """Keys of n tokens that are coded: whole residuals, cut into whole groups."""
        return n // self.residual * self.residual // self.group * self.group

    def n_values(self, n: int) -> int:
        """Values of n tokens that are coded."""
        return max(n - self.residual, 0)

    def size(self, n: int, heads: int, dim: int, item: int) -> float:
        """Bytes of n tokens in one layer."""
        k, v, group = self.n_keys(n), self.n_values(n), min(self.group, dim)
        coded = (k + v) * dim * self.width / 8 + (k / self.group + v / group) * dim * _PARAMETERS
        return heads * (coded + (2 * n - k - v) * dim * item)

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """Stored after the prefill, read at the first step."""
        return {
            "stored": self.size(n, heads, dim, item),
            "read": self.size(n + 1, heads, dim, item),
            "index": 0,
        }


@dataclass
class Coded:
    """Numbers in groups along the last dimension: codes packed into bytes, minimum and step of each group."""

    codes: Tensor  # (heads, tokens or groups, ..., bytes) uint8
    low: Tensor
    step: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Everything that takes memory."""
        return self.codes, self.low, self.step

    def then(self, more: Coded) -> Coded:
        """Both, one after the other along dimension 1."""
        return Coded(*(torch.cat(pair, 1) for pair in zip(self.tensors(), more.tensors(), strict=True)))


def encode(x: Tensor, bits: int) -> Coded:
    """Groups along the last dimension, whose size is a multiple of 8 / bits."""
    x = x.float()
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    low = low.half()
    step = ((high - low.float()) / (2**bits - 1)).clamp(min=1e-7).half().clamp(min=6e-8)
    whole = ((x - low.float()) / step.float()).round().clamp(0, 2**bits - 1).to(torch.uint8)
    each = 8 // bits
    parts = whole.view(*whole.shape[:-1], -1, each)
    packed = torch.zeros_like(parts[..., 0])
    for i in range(each):
        packed |= parts[..., i] << (bits * i)
    return Coded(packed, low, step)


def decode(coded: Coded, bits: int, dtype: torch.dtype) -> Tensor:
    """The numbers, as near as the codes have them."""
    each, mask = 8 // bits, 2**bits - 1
    parts = torch.stack([(coded.codes >> (bits * i)) & mask for i in range(each)], -1)
    whole = parts.flatten(-2).float()
    return (whole * coded.step.float() + coded.low.float()).to(dtype)


def encode_keys(keys: Tensor, bits: int, group: int) -> Coded:
    """Per channel: keys (heads, tokens, dim), tokens a multiple of `group`."""
    heads, n, dim = keys.shape
    return encode(keys.view(heads, n // group, group, dim).transpose(2, 3).contiguous(), bits)


def decode_keys(coded: Coded, bits: int, dtype: torch.dtype) -> Tensor:
    """(heads, tokens, dim)."""
    return decode(coded, bits, dtype).transpose(2, 3).flatten(1, 2)


def encode_values(values: Tensor, bits: int, group: int) -> Coded:
    """Per token: values (heads, tokens, dim) in groups of `group` channels (of all where a head has fewer)."""
    heads, n, dim = values.shape
    return encode(values.reshape(heads, n, -1, min(group, dim)).contiguous(), bits)


def decode_values(coded: Coded, bits: int, dtype: torch.dtype) -> Tensor:
    """(heads, tokens, dim)."""
    return decode(coded, bits, dtype).flatten(2)
