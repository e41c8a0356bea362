"""Parquet for pandas, polars and DuckDB: every item, and one row a task of a run with its clustered error.

pandas.read_parquet("out/items.parquet");  pandas.read_parquet("out/results.parquet")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icr_tasks.registry import EXPORTS
from icr_tasks.storage import replacing

from ..board.item_files import ParquetFile
from ..ledgers.load import Run, TaskItems
from ._source import Source, finite


@EXPORTS.register("parquet")
def parquet(source: Source, out: Path) -> list[Path]:
    """Write items.parquet and results.parquet. Raises IcrError without pyarrow."""
    results, path = [], out / "results.parquet"
    with ParquetFile(out) as file:
        for run in source.runs():
            for task in run.tasks.values():
                named = task.sheet.get("metric") or next(iter(task.score), "")
                values = task.score.get(named)
                file.write(run, task, [float("nan")] * len(task) if values is None else values.tolist())
                results.append(_result(source, run, task))
        import pyarrow
        import pyarrow.parquet as written

        with replacing(path) as temporary:
            written.write_table(pyarrow.Table.from_pylist(results), temporary, compression="zstd")
        return [file.close(), path]


def _result(source: Source, run: Run, task: TaskItems) -> dict[str, Any]:
    effect, reason = source.effect(run, task)
    low, high = effect.ci() if effect else (float("nan"), float("nan"))
    sheet = task.sheet
    return {
        "run": run.fingerprint,
        "model": run.model,
        "setting": run.setting,
        "prompt": run.prompt,
        "task": task.name,
        "benchmark": task.benchmark,
        "dataset": str(sheet.get("dataset") or ""),
        "length": task.length,
        "metric": str(sheet.get("metric") or ""),
        "score": finite(effect.mean) if effect else None,
        "se": finite(effect.se) if effect else None,
        "low": finite(low),
        "high": finite(high),
        "n": effect.n if effect else 0,
        "clusters": effect.clusters if effect else 0,
        "n_expected": sheet.get("n_expected"),
        "status": str(sheet.get("status") or ""),
        "reason": reason,
    }
