"""What an export reads: ledgers, one run at a time, and what their owner said about them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError
from icr_tasks.schema import run_fingerprint

from ..board.cells import Codes, cell
from ..board.items import Texts, texts_of
from ..ledgers import ledger
from ..ledgers.load import Run, TaskItems, load_run, read_head
from ..stats import Effect
from ..text.names import shortened

_HUB_ID = r"[A-Za-z0-9][\w.-]*/\w[\w.-]*"  # owner/name, neither of which is a way out of a folder


@dataclass
class Source:
    """A results folder. `models` and `datasets` map our names to those of the hub (org/name), `texts` holds
    questions, golds and answers of `--samples`; `skipped` gets what an export had to leave out, and why."""

    root: Path
    models: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    organization: str = ""
    relationship: str = "other"
    url: str = ""
    texts: Texts = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _codes: Codes = field(default_factory=Codes)

    def runs(self) -> Iterator[Run]:
        """Every run that can be read, in the order of their paths; the others are named in `skipped`. Raises
        IcrError where the folder holds none."""
        paths = ledger.run_files(self.root)
        if not paths:
            raise IcrError(
                f"{self.root} holds no run.json; write ledgers there with `icr collect OUT -o {self.root}`"
            )
        with ledger.no_cycles():
            for path in paths:
                try:
                    yield load_run(path.parent, read_head(path))
                except IcrError as error:
                    self.skipped.append(str(error))

    def named(self) -> Iterator[Run]:
        """The runs whose model has an id on the hub; the others are named in `skipped`."""
        for run in self.runs():
            try:
                self.model(run)
            except IcrError as error:
                self.skipped.append(str(error))
            else:
                yield run

    def model(self, run: Run) -> str:
        """The model's id on the hub. Raises IcrError where it has none (a local folder)."""
        found = self.models.get(run.model, run.model)
        if not re.fullmatch(_HUB_ID, found):
            raise IcrError(
                f"model {shortened(run.model)!r} is no owner/name of a hub; give --model "
                f"{quote(shortened(run.model))}=OWNER/NAME"
            )
        return found

    def dataset(self, task: TaskItems) -> str | None:
        """The data set's id on the hub, from `--dataset BENCHMARK=OWNER/NAME` or the ledger; None where
        neither names one."""
        said = self.datasets.get(task.benchmark) or str(task.sheet.get("data_source") or "")
        match = re.fullmatch(_HUB_ID, re.split(r"[ ,:]", said)[0])
        return match[0] if match else None

    def effect(self, run: Run, task: TaskItems) -> tuple[Effect | None, str]:
        """The headline score with its clustered error, as the board has it; or None and why."""
        made = cell(task, run.fingerprint, self._codes, run.head)
        return made.effect, made.reason

    def text(self, run: Run, task: TaskItems, n: int) -> tuple[str, ...]:
        """(question, gold, answer) of an item, empty where `--samples` did not hold it."""
        if not self.texts:
            return ()
        where = (task.name, str(task.item[n]), int(task.occ[n]))
        today = run_fingerprint(run.head.get("fingerprint_inputs") or {})  # of a ledger of an older version
        return self.texts.get((run.fingerprint, *where)) or self.texts.get((today, *where)) or ()


def load_texts(outs: list[Path]) -> Texts:
    """Questions, golds and answers of lm_eval output, whole."""
    return texts_of(outs, limit=None)


def words(values: dict[str, Any]) -> dict[str, str]:
    """As the formats of others want details: strings, without what is unknown."""
    return {k: v if isinstance(v, str) else f"{v}" for k, v in values.items() if v is not None and v != ""}


def finite(value: float | None) -> float | None:
    """A number for JSON; None for NaN and infinity."""
    return float(value) if value is not None and math.isfinite(value) else None


def deviation(task: TaskItems) -> float | None:
    """Standard deviation of the items' headline scores."""
    values = task.headline()
    values = values[~np.isnan(values)]
    return finite(float(values.std(ddof=1))) if len(values) > 1 else None
