"""What the start-up hook and the `icr lm-eval` wrapper change in lm_eval, and only where lm_eval lacks it.

Research on lm-eval 0.4.13: no entry points for tasks or models; a model registered before `lm_eval.models` is
imported hides the built-in ones, so registration waits for that module.
"""

from __future__ import annotations

import logging
from functools import wraps
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..schema import redact_text

_TALKATIVE = ("lm_eval.evaluator", "lm_eval.models.api_models", "lm_eval._cli.run")

MODELS = {
    "icr-replay": "icr_tasks.engines.replay:ReplayLM",
    "icr-vllm": "icr_tasks.engines.vllm:IcrVLLM",
    "icr-hf": "icr_tasks.engines.hf:IcrHF",
}


def _task_dirs() -> list[Any]:
    from ..benchmarks.sheets import task_dirs

    return task_dirs()


def patch_manager(module: ModuleType) -> None:
    """Add our task folder to every TaskManager; nothing where lm_eval finds plugin tasks itself."""
    if hasattr(module, "discover_plugin_task_paths") or getattr(module.TaskManager, "_icr_patched", False):
        return
    original = module.TaskManager.__init__

    @wraps(original)
    def __init__(
        self: Any,
        verbosity: str | None = None,
        include_path: Any = None,
        include_defaults: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        given = (
            []
            if include_path is None
            else include_path
            if isinstance(include_path, (list, tuple))
            else [include_path]
        )
        ours = [str(f) for f in _task_dirs() if include_defaults and str(f) not in map(str, given)]
        original(self, verbosity, [*ours, *given] or None, include_defaults, metadata)
        self.include_path = include_path

    module.TaskManager.__init__ = __init__
    module.TaskManager._icr_patched = True


def patch_models(module: ModuleType) -> None:
    """Register our models by name; each loads only when it is asked for. Nothing where lm_eval scans entry
    points."""
    from lm_eval.api import registry

    if hasattr(registry, "load_plugins"):
        return
    known = getattr(module, "MODEL_MAPPING", {})
    for name, target in MODELS.items():
        if name not in registry.model_registry and find_spec(target.split(":")[0]):
            known[name] = target
            registry.model_registry.register(name, target=target)


def patch_tracker(module: ModuleType) -> None:
    """Make failed saves of icr_ results raise, and keep credentials out of results and log lines."""
    from .saving import install

    install(module)
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if not any(isinstance(found, _Discreet) for found in logger.filters):
            logger.addFilter(_Discreet())


class _Discreet(logging.Filter):
    """lm_eval logs a model's arguments as they were given, and what a server said about them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """The record, its message without credentials."""
        message = record.getMessage()
        if (shown := redact_text(message)) != message:
            record.msg, record.args = shown, None
        return True
