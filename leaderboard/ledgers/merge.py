"""Several results of one task become one: what beats what, and what a collect must never overwrite.

A complete result beats a partial one, more scored items beat fewer, newer beats older. What the results
folder already holds is one of the candidates, so nothing is lost by collecting in pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError

from . import ledger
from .lm_eval_files import Evaluation

Source = tuple[Evaluation, dict[str, Any]]  # an evaluation and the fingerprint inputs of one of its tasks


@dataclass
class Result:
    """One task of one evaluation, or of the ledger that is there (`kept`): its sheet and ledger rows.

    `stamp` orders results in time, `source` names where it came from, `total` are the seconds of that whole
    evaluation, `tokens` those of this task.
    """

    sheet: dict[str, Any]
    rows: list[dict[str, Any]]
    stamp: str
    source: str
    kept: bool = False
    total: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    fetch: Callable[[], list[dict[str, Any]]] | None = (
        None  # of a kept one: its rows are read when they are needed
    )

    @property
    def words(self) -> str:
        """`48/100 items of 2026-01-02T03-04-05` for people."""
        return f"{self.sheet.get('n_scored', 0)}/{self.sheet.get('n_expected') or '?'} items of {self.stamp or 'an older run'}"


@dataclass
class Rules:
    """What a collect may do. `pins`: hash of a pinned run's items -> baseline; `said` receives notes."""

    replace: bool = False
    filter: str | None = None
    pins: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def guard(self, folder: Path) -> Callable[[Path], None] | None:
        """Raises IcrError, before anything is replaced, where `folder` holds a pinned run and the new items
        are others."""
        if not self.pins or not (folder / ledger.ITEMS).is_file():
            return None
        name = self.pins.get(ledger.content(folder))
        if name is None:
            return None

        def check(building: Path) -> None:
            if ledger.content(building) not in self.pins:
                raise IcrError(
                    f"{folder} is pinned by baseline {name} and stays as it is; "
                    "collect into another folder (icr collect ... -o results-new)"
                )

        return check


def best(
    task: str,
    fresh: list[tuple[str, Callable[[], Result]]],
    kept: Result | None,
    rules: Rules,
    bad: list[str] | None,
) -> Result | None:
    """The result of a task to keep; None when none could be read. `fresh` are (stamp, reader) of new ones.

    A reader that raises IcrError costs its own result only, when there is a list `bad` for the message.
    """
    found: list[Result] = []
    for stamp, read in sorted(fresh, key=lambda pair: pair[0], reverse=True):
        if found and (rules.replace or found[-1].sheet["status"] == "complete"):
            rules.said.append(f"{task}: an older result of {stamp} was not needed")
            continue
        try:
            found.append(read())
        except IcrError as error:
            if bad is None:
                raise
            bad.append(f"{error}; the task is taken from its next best result, if there is one")
    if kept is not None and not (rules.replace and found):
        found.append(kept)
    if not found:
        return None
    chosen = found[0] if rules.replace else max(found, key=_rank)
    for other in found:
        if other is chosen or (other.kept and other.stamp == chosen.stamp):
            continue
        newer = other.stamp > chosen.stamp
        why = "kept although older" if newer else "replaces" if other.kept else "taken, not the older"
        rules.said.append(f"{task}: {chosen.words} {why}{': not' if newer else ''} {other.words}")
    return chosen


def _rank(result: Result) -> tuple[int, int, str, bool]:
    order = {"complete": 2, "partial": 1}
    scored = result.sheet.get("n_scored") or 0
    return order.get(str(result.sheet.get("status")), 0), scored, result.stamp, not result.kept


def there(folder: Path) -> dict[str, Result]:
    """Tasks of the run that `folder` holds, by name; nothing where it holds none.

    Rows are read when a task is kept; a ledger that cannot be read then raises IcrError, and stays as it is.
    """
    from .load import read_head, rows_by_task

    path = folder / "run.json"
    if not path.is_file():
        return {}
    known: dict[str, list[dict[str, Any]]] = {}

    def rows_of(name: str) -> list[dict[str, Any]]:
        try:
            if not known:
                known.update(rows_by_task(folder, head))
        except IcrError as error:
            raise _stays(folder, error) from error
        return known[name]

    try:
        head = read_head(path)
    except IcrError as error:
        raise _stays(folder, error) from error
    total = float((head.get("seconds") or {}).get("total") or 0.0)
    return {
        name: Result(
            sheet,
            [],
            str(sheet.get("evaluated") or ""),
            str(path),
            kept=True,
            total=total,
            fetch=partial(rows_of, name),
        )
        for name, sheet in head["tasks"].items()
    }


def _stays(folder: Path, error: IcrError) -> IcrError:
    return IcrError(f"{error}; nothing was written there: move {folder} away, then collect again")


def taken(result: Result) -> Result:
    """The result with its rows, read now where it is a kept one."""
    if result.fetch is not None:
        result.rows, result.fetch = result.fetch(), None
        result.tokens = result.sheet.get("tokens") or {
            "prompt": sum(row.get("n_prompt_tokens") or 0 for row in result.rows),
            "output": sum(row.get("n_out_tokens") or 0 for row in result.rows),
        }
    return result


def pinned(folder: Path) -> dict[str, str]:
    """Hash of a pinned run's items -> name of the baseline, for all baseline files of a folder. Raises
    IcrError for a file that is none."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            for pin in orjson.loads(path.read_bytes())["pins"]:
                for entry in (pin, pin["first"]):
                    found[entry["items_sha256"]] = path.stem
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IcrError(
                f"{path}: not a baseline file ({error}); restore it from version control"
            ) from error
    return found
