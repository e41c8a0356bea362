"""Every item of a board in one file, written run by run: items.csv or items.parquet, only where asked for."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np

from icr_tasks.errors import IcrError, install_hint
from icr_tasks.storage import replacing, writing

from ..ledgers.load import Run, TaskItems
from ..text import escape

NAMES = (
    "run", "model", "setting", "prompt", "task", "benchmark", "dataset", "length", "metric", "item", "occ", "cluster",
    "depth", "score", "prompt_tokens", "answer_tokens", "truncated", "error",
)  # fmt: skip


def _fixed(run: Run, task: TaskItems) -> tuple[str, ...]:
    """What all items of a task share, in the order of NAMES."""
    sheet = task.sheet
    dataset, metric = str(sheet.get("dataset") or ""), str(sheet.get("metric") or "")
    return (
        run.fingerprint,
        run.model,
        run.setting,
        run.prompt,
        task.name,
        task.benchmark,
        dataset,
        task.length,
        metric,
    )


class ItemFile(ABC):
    """A file of items under construction, written beside its place in a `with` block: `close` puts it there whole,
    an error leaves nothing."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self._place = ExitStack()

    def __enter__(self) -> Self:
        try:
            with writing(self.path, "choose another folder with -o"):
                self.begin(self._place.enter_context(replacing(self.path)))
        except BaseException:
            self._place.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            with suppress(OSError):  # what is buffered meets the same full disk once more
                self.end()
            self._place.__exit__(*error)

    def close(self) -> Path:
        """Put the file in place and return its path."""
        self.end()
        self._place.close()
        return self.path

    @abstractmethod
    def begin(self, place: Path) -> None:
        """Open the file at `place`."""

    @abstractmethod
    def write(self, run: Run, task: TaskItems, score: list[float]) -> None:
        """Append the items of one task of one run; `score` is NaN where an item has none."""

    @abstractmethod
    def end(self) -> None:
        """Write what is left and close the file."""


class CsvFile(ItemFile):
    """items.csv; texts that a spreadsheet would read as a formula are quoted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "items.csv")
        self._last: dict[str, tuple[list[Any], list[str]]] = {}
        self._scores, self._counts = _Words("g"), _Words(".0f")

    def begin(self, place: Path) -> None:
        """Open the file, its first line the names."""
        self._file: TextIO = place.open("w", encoding="utf-8", newline="\n", buffering=1 << 20)
        self._file.write(",".join(NAMES) + "\n")

    def end(self) -> None:
        """Close it."""
        self._file.close()

    def write(self, run: Run, task: TaskItems, score: list[float]) -> None:
        """Append a task's items."""
        head = ",".join(map(escape.csv, _fixed(run, task)))
        columns = zip(
            self._who(task),
            map(self._scores.__getitem__, score),
            map(self._counts.__getitem__, task.n_prompt_tokens.tolist()),
            map(self._counts.__getitem__, task.n_out_tokens.tolist()),
            task.truncated.astype(int).tolist(),
            strict=True,
        )
        lines = [f"{head},{who},{s},{p},{o},{cut}," for who, s, p, o, cut in columns]
        for i, error in task.errors.items():
            lines[i] += escape.csv(error)
        if lines:
            self._file.write("\n".join(lines) + "\n")

    def _who(self, task: TaskItems) -> list[str]:
        """item,occ,cluster,depth of each row; runs of the same items share the text."""
        depth = task.keys.get("depth")
        key = [
            task.item.tolist(),
            task.occ.tolist(),
            task.cluster.tolist(),
            [None] * len(task) if depth is None else depth.tolist(),
        ]
        last = self._last.get(task.name)
        if last is None or last[0] != key:
            rows = zip(*key, strict=True)
            made = [f"{escape.csv(i)},{occ},{escape.csv(c)},{_depth(d)}" for i, occ, c, d in rows]
            last = self._last[task.name] = (key, made)
        return last[1]


class ParquetFile(ItemFile):
    """items.parquet, a row group a task of a run: texts as they are, null where there is no value."""

    def __init__(self, folder: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise IcrError(f"parquet needs the extra [board]: {install_hint('board')}") from None
        super().__init__(folder, "items.parquet")
        self._arrow = pyarrow
        kinds = {"occ": pyarrow.int32(), "depth": pyarrow.float64(), "score": pyarrow.float64(),
                 "prompt_tokens": pyarrow.int64(), "answer_tokens": pyarrow.int64(), "truncated": pyarrow.bool_()}  # fmt: skip
        self._schema = pyarrow.schema([(n, kinds.get(n, pyarrow.string())) for n in NAMES])

    def begin(self, place: Path) -> None:
        """Open the file."""
        self._writer = self._arrow.parquet.ParquetWriter(place, self._schema, compression="zstd")

    def end(self) -> None:
        """Write the footer."""
        self._writer.close()

    def write(self, run: Run, task: TaskItems, score: list[float]) -> None:
        """Append a task's items."""
        n = len(task)
        if not n:
            return
        depth = task.keys.get("depth")
        depths = (
            [None] * n
            if depth is None
            else [d if isinstance(d, int | float) else None for d in depth.tolist()]
        )
        values: list[Any] = [[_text(v)] * n for v in _fixed(run, task)]
        values += [
            list(map(_text, task.item.tolist())),
            task.occ.tolist(),
            list(map(_text, task.cluster.tolist())),
            depths,
        ]
        values += [
            _known(score),
            _known(task.n_prompt_tokens),
            _known(task.n_out_tokens),
            task.truncated.astype(bool).tolist(),
        ]
        values.append([_text(task.errors[i]) if i in task.errors else None for i in range(n)])
        arrays = [self._arrow.array(v, f.type) for v, f in zip(values, self._schema, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))


FORMS: dict[str, type[CsvFile] | type[ParquetFile]] = {"csv": CsvFile, "parquet": ParquetFile}


def _text(value: Any) -> str | None:
    """A lone surrogate has no UTF-8."""
    return None if value is None else str(value).encode("utf-8", "replace").decode()


def _known(values: Any) -> list[Any]:
    """Numbers, None for NaN; whole ones as integers where all are counts."""
    array = np.asarray(values, float)
    whole = np.array_equal(array[~np.isnan(array)] % 1, np.zeros((~np.isnan(array)).sum()))
    return [None if v != v else int(v) if whole else v for v in array.tolist()]


class _Words(dict[float, str]):
    """Numbers as text, NaN as nothing; values repeat, so each is written once."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __missing__(self, value: float) -> str:
        if value != value:
            return ""
        if len(self) > 1 << 16:
            self.clear()
        found = self[value] = format(value, self.form)
        return found


def _depth(value: Any) -> str:
    return (
        f"{value:g}" if isinstance(value, int | float) else escape.csv(value if value is None else str(value))
    )
