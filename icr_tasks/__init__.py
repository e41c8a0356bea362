"""In-context-retrieval benchmarks for lm-evaluation-harness: full context, RAG@k or a compressed KV cache?

    import icr_tasks as icr

    tasks, settings = ["icr_synth_rag_512"], ["full", "rag@256"]
    runs = icr.evaluate("icr-hf", {"pretrained": folder}, tasks=tasks, settings=settings)
    print(icr.board(runs))

Everything in `__all__` is public; the rest may change. Names load when they are used, so that importing this
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import kv, metrics, prompts
    from .api import EvaluationError, Results, board, compare, evaluate, gate, load, score
    from .benchmarks.base import Item, ItemSet, Prompt, Unit
    from .benchmarks.declare import Group, Task, benchmark, grid
    from .benchmarks.fetch import Remote
    from .context.retrieval.base import Retriever
    from .errors import IcrError
    from .leaderboard.board.build import Board
    from .leaderboard.board.tables import Line, Shown, Table
    from .leaderboard.ledgers.load import Run
    from .metrics.scorers import metric
    from .params import Flag, Name, Number, Tokens, Whole, Word
    from .registry import kv_method, retriever, view
    from .settings import Setting
    from .sweep.planning import plan

    __version__: str

# name -> "module" (the module itself) or "module:attribute", relative to this package
_HOMES = {
    **{
        name: f".api:{name}"
        for name in ("EvaluationError", "Results", "board", "compare", "evaluate", "gate")
    },
    **{name: f".api:{name}" for name in ("load", "score")},
    "plan": ".sweep.planning:plan",
    **{name: f".benchmarks.base:{name}" for name in ("Item", "ItemSet", "Prompt", "Unit")},
    **{name: f".benchmarks.declare:{name}" for name in ("Group", "Task", "benchmark", "grid")},
    "Remote": ".benchmarks.fetch:Remote",
    "Retriever": ".context.retrieval.base:Retriever",
    "IcrError": ".errors:IcrError",
    "Board": ".leaderboard.board.build:Board",
    **{name: f".leaderboard.board.tables:{name}" for name in ("Line", "Shown", "Table")},
    "Run": ".leaderboard.ledgers.load:Run",
    "metric": ".metrics.scorers:metric",
    **{name: f".params:{name}" for name in ("Flag", "Name", "Number", "Tokens", "Whole", "Word")},
    **{name: f".registry:{name}" for name in ("kv_method", "retriever", "view")},
    "Setting": ".settings:Setting",
    "kv": ".kv",
    "metrics": ".metrics",
    "prompts": ".prompts",
}
__all__ = [
    "Board",
    "EvaluationError",
    "Flag",
    "Group",
    "IcrError",
    "Item",
    "ItemSet",
    "Line",
    "Name",
    "Number",
    "Prompt",
    "Remote",
    "Results",
    "Retriever",
    "Run",
    "Setting",
    "Shown",
    "Table",
    "Task",
    "Tokens",
    "Unit",
    "Whole",
    "Word",
    "__version__",
    "benchmark",
    "board",
    "compare",
    "evaluate",
    "gate",
    "grid",
    "kv",
    "kv_method",
    "load",
    "metric",
    "metrics",
    "plan",
    "prompts",
    "retriever",
    "score",
    "tasks_dir",
    "view",
]


def tasks_dir() -> Path:
    """Folder of our task YAMLs, for `lm_eval --include_path` (those of plugins: `icr tasks-path`)."""
    return Path(__file__).parent / "tasks"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("icr-tasks")
    if name not in _HOMES:
        raise AttributeError(f"module 'icr_tasks' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    found = import_module(module, __name__)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
