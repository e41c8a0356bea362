"""In-context-retrieval benchmarks for lm-evaluation-harness: full context, RAG@k or a compressed KV cache?"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"
__all__ = ["__version__", "tasks_dir"]


def tasks_dir() -> Path:
    """Folder of the task YAMLs, for `lm_eval --include_path`."""
    return Path(__file__).parent / "tasks"
