"""Two runs: comparable or not, joined item by item, compared, gated."""

from .joined import pair

__all__ = ["pair"]
