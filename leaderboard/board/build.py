"""`icr board RESULTS [-o board]`: ledgers -> board.md, board.html, board.json and pictures (SVG, light and dark).

    icr board results/ -o board/                       # everything, into one folder
    icr board results/ --view drop --format tsv        # one view, to standard output

A dash is a cell without a value and its note says why; an average with a dash in it is a dash. Exit code 0,
or 2 when a run could not be read (the board of the others is written all the same).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icr_tasks.errors import IcrError, unknown
from icr_tasks.registry import VIEWS, Entry

from ..ledgers import ledger
from ..ledgers.load import Kept, Run, load_run, read_head
from ..text.names import plain
from . import render
from .advice import Advice
from .cells import Codes, cell
from .join import join_prompts, mark_limited, mark_stale, name_variants
from .rows import Row
from .tables import Options, Table
from .views import in_order
from .views.ranking import rows as ranked

if TYPE_CHECKING:
    from .items import Items

PATTERNS = ("model", "setting", "prompt", "benchmark", "dataset", "length")  # filters of runs, then of tasks


@dataclass
class Board:
    """Rows, the tables made of them, and what could not be read."""

    rows: list[Row]
    tables: list[Table]
    bad: list[str] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    n_runs: int = 0
    n_items: int = 0
    left_out: dict[str, str] = field(default_factory=dict)  # view -> why it has no table
    advice: list[Advice] = field(default_factory=list)  # what to use, one a model and benchmark

    def __str__(self) -> str:
        """The tables as Markdown."""
        return render.markdown(self.tables)

    def _repr_markdown_(self) -> str:
        return str(self)


def main(argv: list[str]) -> int:
    """Returns the documented exit code; raises IcrError where there is nothing to show."""
    parser = argparse.ArgumentParser(
        prog="icr board", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), help="ledgers written by icr collect"
    )
    parser.add_argument("-o", "--out", type=Path, help="write the whole board into this folder")
    parser.add_argument(
        "--format", choices=[*render.FORMATS, "html"], default="md", help="for standard output"
    )
    parser.add_argument(
        "--view", action="append", help=f"only these, of {', '.join(e.name for e in in_order())} (repeatable)"
    )
    for name in PATTERNS:
        parser.add_argument(
            f"--{name}", action="append", metavar="PATTERN", help=f"only this {name} (*, ?; repeatable)"
        )
    parser.add_argument(
        "--metric",
        help="another logged metric in place of the headline, as acc_norm; tasks without it are left out",
    )
    parser.add_argument("--sort", help="column to sort by (default: the last, which ranks)")
    parser.add_argument("--base", help="model whose drop others are compared with")
    parser.add_argument(
        "--partial", action="store_true", help="rank partial cells like complete ones; they stay marked"
    )
    parser.add_argument(
        "--published", action="store_true", help="the paper's tables beside ours, and their contradictions"
    )
    parser.add_argument(
        "--samples", type=Path, nargs="+", metavar="OUT", help="lm_eval output: texts for board.html"
    )
    parser.add_argument(
        "--html-items", type=int, default=20000, metavar="N", help="items in board.html, all cells together"
    )
    parser.add_argument(
        "--items", choices=["csv", "parquet"], help="with -o: also every item, as items.csv or items.parquet"
    )
    args = parser.parse_args(argv)
    if args.html_items < 0:
        parser.error("--html-items is a number of items, 0 or more")
    for view in args.view or ():
        VIEWS.get(view)  # raises for an unknown name
    from .write import Items, write

    with ExitStack() as held:
        items = None
        if args.out or args.format == "html":
            items = held.enter_context(Items(args.out, args.html_items, args.samples, args.items))
        board = build(
            args.results,
            Options(args.base, args.sort),
            views=args.view,
            patterns={n: getattr(args, n) for n in PATTERNS if getattr(args, n)},
            partial=args.partial,
            metric=args.metric,
            seen=items.add if items else None,
        )
        for message in board.bad:
            print(f"icr board: {plain(message)}", file=sys.stderr)
        if args.out and items:
            for path in write(board, args.out, items, published=args.published):
                print(path, file=sys.stderr)
        else:
            print(_printed(board, args.format, items, args.published), end="")
    return 2 if board.bad else 0


def _printed(board: Board, form: str, items: Items | None, published: bool) -> str:
    from .views.published import tables
    from .write import page

    shown = [*board.tables, *(tables() if published else [])]
    return page(board, items, shown) if form == "html" else render.FORMATS[form](shown)


def build(
    root: Path,
    options: Options,
    *,
    views: list[str] | None = None,
    patterns: dict[str, list[str]] | None = None,
    partial: bool = False,
    metric: str | None = None,
    seen: Callable[[Run], None] | None = None,
    runs: Iterable[Run] | None = None,
) -> Board:
    """Read the runs one at a time and make the views. `seen` gets each run while its items are in memory.
    `metric` takes the headline's place where a task has it; tasks without it are left out.

    With `runs` these are shown and `root` is not searched.
    """
    patterns = patterns or {}
    board = Board([], [], options=options)
    codes, single = Codes(), []
    with ledger.no_cycles():
        for run in _runs(root, patterns, board.bad, metric) if runs is None else runs:
            if seen:
                seen(run)
            single.append(_row(run, codes, patterns, partial, root))
            board.n_runs += 1
            board.n_items += sum(map(len, run.tasks.values()))
    if not single:
        why = f"; {len(board.bad)} could not be read: {board.bad[0]}" if board.bad else ""
        raise IcrError(f"no run below {root} to show{why}" + ("; widen the filters" if patterns else ""))
    mark_stale(single)
    mark_limited(single)
    options.rankings = ranked(root, board.bad) if runs is None else []
    board.rows = name_variants(join_prompts(single))
    chosen = [VIEWS.get(name) for name in views] if views else in_order()
    board.tables = [table for entry in chosen for table in made(entry, board)]
    if options.sort and not any(options.sort in t.columns for t in board.tables):
        raise unknown(
            "column to sort by", options.sort, list(dict.fromkeys(c for t in board.tables for c in t.columns))
        )
    return board


def made(entry: Entry[Callable[[Board], list[Table]]], board: Board) -> list[Table]:
    """The tables of one view. A plugin's view that fails is named among what could not be read; the rest
    stays."""
    if entry.origin == "icr_tasks":
        tables = entry.target(board)
        if not tables and entry.facts.get("absent"):
            board.left_out.setdefault(entry.name, entry.facts["absent"])
        return tables
    try:
        tables = list(entry.target(board))
        if not all(isinstance(table, Table) for table in tables):
            raise TypeError("a view returns a list of icr.Table")
        return tables
    except Exception as error:  # somebody else's function: its error is named with the view
        board.bad.append(f"view {entry.name!r} ({entry.origin}) failed: {type(error).__name__}: {error}")
        return []


def _runs(
    root: Path, patterns: dict[str, list[str]], bad: list[str], metric: str | None = None
) -> Iterator[Run]:
    paths, logged = ledger.run_files(root), dict[str, None]()
    found, kept = False, Kept()
    if not paths:
        what = "holds no run.json" if root.is_dir() else "is not a folder"
        raise IcrError(f"{root} {what}; write ledgers there with `icr collect OUT -o {root}`")
    for path in paths:
        try:
            head = read_head(path)
            if not _wanted(head, patterns):
                continue
            if metric is not None:
                logged |= dict.fromkeys(m for t in head["tasks"].values() for m in t.get("means") or {})
                has = {
                    n: {**t, "metric": metric}
                    for n, t in head["tasks"].items()
                    if metric in (t.get("means") or {})
                }
                if not has:
                    continue
                run = load_run(
                    path.parent, {**head, "tasks": {**head["tasks"], **has}}, shown=True, kept=kept
                )
                found = True
                yield replace(run, tasks={name: task for name, task in run.tasks.items() if name in has})
                continue
            yield load_run(path.parent, head, shown=True, kept=kept)
        except IcrError as error:
            bad.append(str(error))
    if metric is not None and not found:
        raise unknown("metric", metric, logged)


def _wanted(head: dict[str, Any], patterns: dict[str, list[str]]) -> bool:
    """Whether a run passes the filters of runs and has a task that passes those of tasks."""
    own = {
        "model": head["model"]["id"],
        "setting": head["setting"]["text"],
        "prompt": head.get("prompt") or "",
    }
    return _passes(own, patterns) and any(
        _passes(_place(name, t), patterns) for name, t in head["tasks"].items()
    )


def _place(name: str, sheet: dict[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": sheet.get("benchmark") or name,
        "dataset": sheet.get("dataset") or name,
        "length": sheet.get("length") or "",
    }


def _passes(values: dict[str, Any], patterns: dict[str, list[str]]) -> bool:
    return all(any(fnmatchcase(str(v), p) for p in patterns[k]) for k, v in values.items() if k in patterns)


def _row(run: Run, codes: Codes, patterns: dict[str, list[str]], partial: bool, root: Path) -> Row:
    model = run.head["model"]
    named = [str(model[part]) for part in ("revision", "adapter") if model.get(part)]
    checkpoint = "+".join(named) or (model.get("weights_hash") or "")[:8]
    row = Row(run.model, checkpoint, run.head["setting"], run.prompt, [run.head])
    if run.folder.is_relative_to(root):
        row.folder = str(run.folder.relative_to(root))
    for task in run.tasks.values():
        if _passes(_place(task.name, task.sheet), patterns):
            made = cell(task, run.fingerprint, codes, run.head)
            made.counts_as_complete = partial and made.status == "partial"
            row.cells[task.column] = made
    return row
