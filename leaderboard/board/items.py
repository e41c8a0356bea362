"""Items while their run is in memory: all of them to items.csv, a bounded sample of each cell to
board.html."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from icr_tasks.errors import IcrError
from icr_tasks.schema import run_fingerprint

from ..ledgers import lm_eval_files
from ..ledgers.load import Run, TaskItems
from ..text import escape

HEAD = (
    "run,model,setting,prompt,task,benchmark,dataset,length,metric,item,occ,cluster,depth,score,prompt_tokens,"
    "answer_tokens,truncated,error\n"
)
Key = tuple[str, str, int]  # task, item, occurrence
_TEXT = 400  # characters of question and answer in the page
_MISSING = float("nan")


class Items:
    """Collects items of the runs given to `add`. `limit` bounds the sample over all cells together."""

    def __init__(self, out: Path | None, limit: int, samples: Sequence[Path] | None = None) -> None:
        self.cells: dict[str, dict[str, Any]] = {}
        self.limit = limit
        self.texts = _texts(samples) if samples else {}
        self._path = out / "items.csv" if out else None
        self._file: TextIO | None = None
        self._last: dict[str, tuple[list[Any], list[str]]] = {}
        self._scores, self._counts = _Words("g"), _Words(".0f")
        self._room = 400  # items of a cell; halved while there are too many in all
        self._kept = 0

    def add(self, run: Run) -> None:
        """Write and sample the items of one run."""
        file = self._open()
        for task in run.tasks.values():
            values = task.score.get(task.sheet.get("metric") or next(iter(task.score), ""))
            score = [_MISSING] * len(task) if values is None else values.tolist()
            if file:
                self._write(file, run, task, score)
            if len(task) and self.limit:
                made = self.cells[f"{run.fingerprint} {task.name}"] = self._sample(run, task, score)
                self._kept += len(made["rows"])
        while self._kept > 2 * self.limit and self._room > 3:
            self._room //= 2
            for made in self.cells.values():
                made["rows"] = _thin(made["rows"], self._room)
            self._kept = sum(len(made["rows"]) for made in self.cells.values())

    def _open(self) -> TextIO | None:
        if self._path and self._file is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._temporary().open("w", encoding="utf-8", newline="\n", buffering=1 << 20)
            except OSError as error:
                raise IcrError(f"cannot write {self._path}: {error.strerror or error}") from error
            self._file.write(HEAD)
        return self._file

    def _temporary(self) -> Path:
        assert self._path
        return self._path.with_name(f".items.csv.{os.getpid()}")

    def close(self) -> Path:
        """Put items.csv in place and return its path."""
        assert self._path and self._file
        self._file.close()
        self._temporary().replace(self._path)
        return self._path

    def _write(self, file: TextIO, run: Run, task: TaskItems, score: list[float]) -> None:
        sheet = task.sheet
        fixed = (
            run.fingerprint,
            run.model,
            run.setting,
            run.prompt,
            task.name,
            task.benchmark,
            sheet.get("dataset") or "",
            task.length,
            sheet.get("metric") or "",
        )
        head = ",".join(map(escape.csv, map(str, fixed)))
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
            file.write("\n".join(lines) + "\n")

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
                *(texts(run.fingerprint, item, occ) or texts(today, item, occ) or ()),
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
            "metric": task.sheet.get("metric") or "",
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


def _json(value: float) -> float | None:
    return value if value == value else None


def _texts(outs: Sequence[Path]) -> dict[tuple[str, str, str, int], tuple[str, str, str]]:
    """(run, task, item, occurrence) -> question, gold, answer, cut to a readable length, in one pass over the
    files."""
    found: dict[tuple[str, str, str, int], tuple[str, str, str]] = {}
    for evaluation in lm_eval_files.evaluations(list(outs)):
        for task, path in evaluation.samples.items():
            run = run_fingerprint(lm_eval_files.identity(evaluation.results, task))
            seen: dict[str, int] = {}
            for sample in lm_eval_files.samples(path):
                doc = sample["doc"] if isinstance(sample.get("doc"), dict) else {}
                item = str(doc.get("id") or str(sample.get("doc_hash"))[:16])
                seen[item] = occ = seen.get(item, -1) + 1
                gold = "; ".join(map(str, doc.get("answers") or [sample.get("target", "")]))
                answer = str((sample.get("filtered_resps") or [""])[0])
                found[run, task, item, occ] = tuple(
                    _cut(t) for t in (str(doc.get("question", "")), gold, answer)
                )  # type: ignore[assignment]
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
