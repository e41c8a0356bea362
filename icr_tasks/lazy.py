"""Heavy third parties that load at first use: a KV method's file registers its name and knobs without
importing torch.

from ..lazy import torch      # for types and for use alike
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import IcrError, install_hint

if TYPE_CHECKING:
    import torch
else:

    class _Lazy:
        """Stands for a module until an attribute of it is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(import_module(self._name), attribute)

    torch = _Lazy("torch")


def needs(module: str, extra: str, what: str) -> Any:
    """An optional package. Raises IcrError with the way to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise IcrError(f"{what} need the package {module} ({error}); {install_hint(extra)}") from error


__all__ = ["needs", "torch"]
