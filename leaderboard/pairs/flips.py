"""What flipped between two runs: counts by dataset, length and depth, then the items, worst first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError
from icr_tasks.schema import same_run

from ..ledgers import lm_eval_files
from ..ledgers.load import Run
from ..ledgers.summary import tokens
from ..text.escape import code
from ..text.escape import markdown as escaped
from ..text.names import DASH, count, points
from ..text.printed import printed
from .joined import Pairs

Key = tuple[str, str, int]  # task, item, occurrence
_WIDTH = 160


def table(pairs: Pairs) -> list[dict[str, Any]]:
    """One row a (dataset, length, depth): n, worse, better, delta (score units), sorted for reading."""
    depths = [keys.get("depth") for keys in pairs.keys]
    groups: dict[tuple[str, str, Any], list[int]] = {}
    for i, where in enumerate(zip(pairs.dataset.tolist(), pairs.length.tolist(), depths, strict=True)):
        groups.setdefault(where, []).append(i)
    d = pairs.change
    rows = []
    for (dataset, length, depth), at in sorted(groups.items(), key=lambda g: _order(g[0])):
        part = d[at]
        worse, better = int((part < 0).sum()), int((part > 0).sum())
        rows.append(
            {
                "dataset": dataset,
                "length": length,
                "depth": depth,
                "n": len(at),
                "worse": worse,
                "better": better,
                "delta": float(part.mean()),
            }
        )
    return rows


def _order(where: tuple[str, str, Any]) -> tuple[str, int, float, str]:
    depth = where[2]
    number = depth if isinstance(depth, int | float) else -1.0
    return where[0], tokens(where[1]), number, str(depth)


def texts_of(outs: Iterable[Path], run: Run, wanted: set[Key]) -> dict[Key, tuple[str, str, str]]:
    """Question, gold answers and answer of the wanted items, read from lm_eval's sample files of this run."""
    found: dict[Key, tuple[str, str, str]] = {}
    evaluations = list(lm_eval_files.evaluations(list(outs)))
    for evaluation in evaluations:
        for task, path in evaluation.samples.items():
            if task not in run.tasks or not same_run(
                run.head, lm_eval_files.identity(evaluation.results, task)
            ):
                continue
            for item, occ, texts in lm_eval_files.told(path):
                if (task, item, occ) in wanted:
                    found[task, item, occ] = texts
    if not found and wanted:
        raise IcrError(f"no samples of run {run.fingerprint} there; give the folder that `icr collect` read")
    return found


def markdown(
    pairs: Pairs, base: Run, new: Run, *, samples: list[Path] | None = None, limit: int = 500
) -> str:
    """The flip report. With `samples` the questions, gold and both answers are shown; else only items and
    hashes."""
    d = pairs.change
    flipped = np.flatnonzero(d != 0)
    # worst first as printed; items that changed alike stay by task, in the order of the ledger
    flipped = np.array(sorted(flipped.tolist(), key=lambda i: printed(100 * float(d[i]))), int)
    lines = [
        f"# What flipped: {escaped(base.label)} → {escaped(new.label)}",
        "",
        f"{count((d < 0).sum())} worse, {count((d > 0).sum())} better, {count((d == 0).sum())} same "
        f"({count(pairs.same.sum())} byte-identical answers), of {count(len(pairs))} items.",
        "",
        "| dataset | length | depth | items | worse | better | Δ |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table(pairs):
        depth = DASH if row["depth"] is None else escaped(row["depth"])
        lines.append(
            f"| {escaped(row['dataset'])} | {escaped(row['length']) or DASH} | {depth} | {row['n']} | "
            f"{row['worse']} "
            f"| {row['better']} | {points(row['delta'], sign=True)} |"
        )
    shown = flipped[:limit]
    keys = [(pairs.task[i], pairs.item[i], int(pairs.occ[i])) for i in shown]
    both = [texts_of(samples, run, set(keys)) for run in (base, new)] if samples else [{}, {}]
    extra = " question | gold | baseline's answer | candidate's answer |" if samples else ""
    lines += ["", f"| task | item | depth | baseline | candidate |{extra}"]
    lines.append("|---|---|---:|---:|---:|" + "---|" * (4 if samples else 0))
    for i, key in zip(shown, keys, strict=True):
        depth = pairs.keys[i].get("depth")
        cells = [code(key[0]), code(key[1]), DASH if depth is None else escaped(depth)]
        cells += [points(pairs.base[i]), points(pairs.new[i])]
        if samples:
            one, two = (side.get(key, ("", "", "")) for side in both)
            cells += [_cut(one[0] or two[0]), _cut(one[1] or two[1]), _cut(one[2]), _cut(two[2])]
        lines.append(f"| {' | '.join(cells)} |")
    if len(flipped) > limit:
        lines += ["", f"{count(len(flipped) - limit)} more; `--limit` shows them."]
    return "\n".join(lines) + "\n"


def _cut(text: str) -> str:
    return escaped(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")
