"""Items while their run is in memory: a bounded sample of each cell to board.html, and all of them to a file
where one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from icr_tasks.schema import run_fingerprint

from ..ledgers import lm_eval_files
from ..ledgers.load import Run, TaskItems
from ..pairs.axes import identity
from .item_files import FORMS

Texts = dict[tuple[str, str, str, int], tuple[str, str, str]]
Key = tuple[str, str, int]  # task, item, occurrence
_TEXT = 400  # characters of question and answer in the page
_MISSING = float("nan")


class Items:
    """Collects items of the runs given to `add`, in a `with` block where `form` asks for a file of all of them. `limit`
    bounds the sample over all cells together."""

    def __init__(
        self, out: Path | None, limit: int, samples: Sequence[Path] | None = None, form: str | None = None
    ) -> None:
        self.cells: dict[str, dict[str, Any]] = {}
        self.limit = limit
        self.texts = texts_of(samples) if samples else {}
        self._sink = FORMS[form](out) if out and form else None
        self.file = self._sink.path.name if self._sink else ""
        self._room = 400  # items of a cell; halved while there are too many in all
        self._kept = 0

    def __enter__(self) -> Self:
        if self._sink:
            self._sink.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._sink:
            self._sink.__exit__(*error)

    def add(self, run: Run) -> None:
        """Write and sample the items of one run."""
        for task in run.tasks.values():
            values = task.score.get(task.sheet.get("metric") or next(iter(task.score), ""))
            score = [_MISSING] * len(task) if values is None else values.tolist()
            if self._sink:
                self._sink.write(run, task, score)
            if len(task) and self.limit:
                made = self.cells[f"{run.fingerprint} {task.name}"] = self._sample(run, task, score)
                self._kept += len(made["rows"])
        while self._kept > 2 * self.limit and self._room > 3:
            self._room //= 2
            for made in self.cells.values():
                made["rows"] = _thin(made["rows"], self._room)
            self._kept = sum(len(made["rows"]) for made in self.cells.values())

    def close(self) -> list[Path]:
        """Put the file of all items in place, where one was asked for, and return its path."""
        return [self._sink.close()] if self._sink else []

    def _sample(self, run: Run, task: TaskItems, score: list[float]) -> dict[str, Any]:
        """Every item of a small cell; of a large one the failed items and then evenly spaced ones."""
        n = len(task)
        room = min(n, self._room)
        picked = sorted({*list(task.errors)[: room // 2], *(i * n // room for i in range(room))})[:room]
        at = np.array(picked, int)
        depth = task.keys.get("depth")
        columns = zip(
            task.item[at].tolist(),
            task.occ[at].tolist(),
            [None] * len(at) if depth is None else depth[at].tolist(),
            task.n_prompt_tokens[at].tolist(),
            task.truncated[at].tolist(),
            picked,
            strict=True,
        )
        today = run_fingerprint(run.head.get("fingerprint_inputs") or {})  # of a ledger of an older version

        def texts(made: str, item: str, occ: int) -> tuple[str, str, str] | None:
            return self.texts.get((made, task.name, item, occ))

        rows = [
            [
                item,
                occ,
                where,
                _json(score[i]),
                _json(tokens),
                cut,
                task.errors.get(i, ""),
                *((texts(run.fingerprint, item, occ) or texts(today, item, occ) or ()) if self.texts else ()),
            ]
            for item, occ, where, tokens, cut, i in columns
        ]
        return {
            "model": run.model,
            "setting": run.setting,
            "prompt": run.prompt,
            "task": task.name,
            "length": task.length,
            "run": run.fingerprint,
            "n": n,
            # prompts may differ: to see what another one changes is what two runs are put side by side for
            "kind": repr(replace(identity(task, run.head), prompt="").kind),
            "rows": rows,
        }

    def sample(self) -> dict[str, dict[str, Any]]:
        """Cells thinned evenly until all their rows fit the limit."""
        total = sum(len(c["rows"]) for c in self.cells.values())
        share = min(1.0, self.limit / total) if total else 1.0
        found = {}
        for key, c in sorted(self.cells.items()):
            found[key] = c | {"rows": _thin(c["rows"], max(1, int(len(c["rows"]) * share)))}
        return found


def _thin(rows: list[Any], keep: int) -> list[Any]:
    """Evenly spaced ones of them."""
    return rows if len(rows) <= keep else [rows[i * len(rows) // keep] for i in range(keep)]


def _json(value: float) -> float | None:
    return value if value == value else None


def texts_of(outs: Sequence[Path], limit: int | None = _TEXT) -> Texts:
    """(run, task, item, occurrence) -> question, gold, answer, each cut to `limit` characters, in one pass over
    the files."""
    found: Texts = {}
    for evaluation in lm_eval_files.evaluations(list(outs)):
        for task, path in evaluation.samples.items():
            run = run_fingerprint(lm_eval_files.identity(evaluation.results, task))
            for item, occ, (question, gold, answer) in lm_eval_files.told(path):
                found[run, task, item, occ] = _cut(question, limit), _cut(gold, limit), _cut(answer, limit)
    return found


def _cut(text: str, limit: int | None) -> str:
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
