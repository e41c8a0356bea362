"""Table 4 of the paper: how well attention ranks the documents, from the rank_*.json that `icr rank -o`
wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson

from icr_tasks.registry import view
from icr_tasks.storage import files_below

from ...stats import Design
from ..cells import Cell, Codes, Places, Scores
from ..rows import Row, columns_of, lengths_of
from ..tables import Options, Table, grid

if TYPE_CHECKING:
    from ..build import Board

METRIC = "ndcg@10"


def rows(root: Path, bad: list[str]) -> list[Row]:
    """One row a model x prompt x ranking method; messages of unreadable files go to `bad`."""
    codes = Codes()
    found: dict[tuple[str, str, str, str], Row] = {}
    for path in sorted(p for p in files_below(root) if p.match("rank_*.json")):
        try:
            report = orjson.loads(path.read_bytes())
            _add(found, report, path, codes)
        except orjson.JSONDecodeError as error:
            bad.append(f"{path}: not valid JSON ({error}); run icr rank again")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            bad.append(f"{path}: not a report of icr rank ({type(error).__name__}: {error})")
    return list(found.values())


def _add(found: dict[tuple[str, str, str, str], Row], report: dict, path: Path, codes: Codes) -> None:  # type: ignore[type-arg]
    data, name = (
        report["data"],
        Path(report["model"]).name if report["model"][:1] in "/.~" else report["model"],
    )
    column = (data["benchmark"], data["dataset"], data["length"] or "")
    version = (report["task"], METRIC, data["data_revision"])
    for method in dict.fromkeys(m for item in report["items"] for m in item[METRIC]):
        have = [i for i in report["items"] if i[METRIC].get(method) is not None]
        identity = (name, report.get("revision") or "", str(report["prompt"]), method)
        setting = {"text": method, "kind": "ranking"}
        row = found.setdefault(
            identity, Row(name, identity[1], setting, identity[2], [{"fingerprint": path.stem}])
        )
        items = codes(i["item"] for i in have)
        order = np.argsort(items, kind="stable")
        cluster = codes((data["benchmark"], i["cluster"]) for i in have)[order]
        score = np.array([i[METRIC][method] for i in have], float)[order]
        scores = Scores(Places(items[order], cluster, np.full(len(have), np.nan)), score, 0)
        row.cells[column] = Cell(
            "complete",
            "",
            Design(cluster).score(score),
            scores,
            len(have),
            report["task"],
            path.stem,
            version,
        )


def tables(options: Options) -> list[Table]:
    """NDCG@10 by dataset, one table a length."""
    found = []
    columns = columns_of(options.rankings)
    for length in [*([""] if any(not c[2] for c in columns) else []), *lengths_of(columns)]:
        groups = [(c[1], [c]) for c in columns if c[2] == length]
        heading = f"Documents ranked by attention, NDCG@10{f' at {length}' if length else ''}"
        table = grid(f"ranking-{length}" if length else "ranking", heading, options.rankings, groups, options)
        if table:
            table.heads = ("model", "ranked by", "prompt")
            found.append(table)
    return found


@view("ranking", order=70, absent="no rank_*.json of icr rank below the results")
def ranking(board: Board) -> list[Table]:
    """Table 4: how well attention ranks the documents."""
    return tables(board.options)
