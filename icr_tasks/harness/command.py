"""lm_eval's `run` command ends with one line where something is wrong. Imported by every `lm_eval --help`, so what
a run takes is imported when one runs."""

from __future__ import annotations

from functools import wraps
from types import ModuleType
from typing import Any


def patch_run(module: ModuleType) -> None:
    """One-line errors, and refusals before a model is loaded, for `lm_eval run`."""
    original = module.Run._execute
    if getattr(module.Run, "_icr_patched", False):
        return

    @wraps(original)
    def _execute(args: Any) -> Any:
        from .ending import guarded
        from .hooks import patch_config

        return guarded(original, patch_config)(args)

    module.Run._execute = staticmethod(_execute)
    module.Run._icr_patched = True
