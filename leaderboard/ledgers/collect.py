"""`icr collect OUT... [-o results]`: lm-eval output folders -> one compact ledger a run, and a table.

    icr collect out/ -o results/

A run is one model x setting x prompt; its tasks may come from several lm_eval calls and from what is
already in the results folder. Of several results of a task a complete one beats a partial one, more items
beat fewer, newer beats older; what was left aside is said. `--replace` lets the newest win whatever it holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError
from icr_tasks.schema import run_fingerprint

from ..text.names import plain
from . import ledger, lm_eval_files, usages
from .dtypes import dtype_name
from .means import Means
from .merge import Result, Rules, Source, best, pinned, taken, there
from .routed import route_note
from .summary import Tally, table
from .unfinished import LOUD, cut_note

_NONE: dict[str, Any] = {}
_TASK_KV = ("bytes_read_per_step", "bytes_stored_per_token", "read_fraction", "stored_fraction")


def main(argv: list[str]) -> int:
    """Returns 0, or 2 when something could not be read; what could be read is written and shown all the
    same."""
    parser = argparse.ArgumentParser(
        prog="icr collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="+", type=Path, help="lm_eval --output_path folders")
    parser.add_argument(
        "-o", "--results", type=Path, default=Path("results"), help="where ledgers go (default: results)"
    )
    parser.add_argument(
        "--replace", action="store_true", help="the newest result of a task wins, also over a complete one"
    )
    parser.add_argument("--filter", metavar="NAME", help="take this filter of tasks that log several")
    parser.add_argument(
        "--baselines",
        type=Path,
        default=Path("baselines"),
        help="a run pinned in one of these files is never changed in place (default: baselines)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the written runs as JSON instead of a table"
    )
    args = parser.parse_args(argv)
    bad: list[str] = []
    tallies: dict[str, Tally] = {}
    said: list[str] = []
    rules = Rules(args.replace, args.filter, pinned(args.baselines), said)
    written = collect(args.out, args.results, bad, tallies, rules)
    if args.json:
        sys.stdout.buffer.write(orjson.dumps([run for _, run in written], option=orjson.OPT_INDENT_2) + b"\n")
    elif written:
        print(table(written, tallies))
        for folder, _ in written:
            print(f"ledger: {folder}", file=sys.stderr)
    for _, run in written:
        for task, sheet in run["tasks"].items():
            for note in filter(None, (cut_note(sheet, LOUD), route_note(sheet))):
                print(plain(f"icr: WARNING: {run['model']['id']} {task}: {note}"), file=sys.stderr)
    for message in said:
        print(f"icr: note: {plain(message)}", file=sys.stderr)
    for message in bad:
        print(f"icr: error: {plain(message)}", file=sys.stderr)
    return 2 if bad else 0


def collect(
    outs: list[Path],
    results: Path,
    bad: list[str] | None = None,
    tallies: dict[str, Tally] | None = None,
    rules: Rules | None = None,
) -> list[tuple[Path, dict[str, Any]]]:
    """Group the tasks of all evaluations into runs, merge each with what `results` holds of it, and write it;
    returns (folder, run).

    `tallies` receives the scores of each run by fingerprint, for `summary.table`. Raises IcrError for
    unreadable input; with a list `bad` the message is added to it, the task falls back to its next best
    result, and the others are written.
    """
    rules = rules or Rules()
    grouped: dict[str, dict[str, list[Source]]] = {}
    for evaluation in lm_eval_files.evaluations(outs, bad):
        for task in evaluation.results["configs"]:
            inputs = lm_eval_files.identity(evaluation.results, task)
            found = grouped.setdefault(run_fingerprint(inputs), {})
            found.setdefault(task, []).append((evaluation, inputs))
    written = []
    with ledger.no_cycles():
        for fingerprint, tasks in grouped.items():
            before = len(rules.said)
            try:
                if made := _write(results, fingerprint, tasks, tallies, bad, rules):
                    written.append(made)
            except IcrError as error:
                if bad is None:
                    raise
                bad.append(str(error))
                del rules.said[before:]  # of what was not written
    return written


def _write(
    root: Path,
    fingerprint: str,
    tasks: dict[str, list[Source]],
    tallies: dict[str, Tally] | None,
    bad: list[str] | None,
    rules: Rules,
) -> tuple[Path, dict[str, Any]] | None:
    latest, inputs = max(
        (source for listed in tasks.values() for source in listed), key=lambda source: source[0].stamp
    )
    run = _head(latest.results, inputs, fingerprint)
    kept = there(ledger.place(root, run))
    tally = None if tallies is None else tallies.setdefault(fingerprint, Tally())
    stream = _stream(run, tasks, kept, tally, bad, rules)
    first = next(stream, None)
    if first is None and not run["tasks"]:
        return None  # every file of it was broken: what is there stays
    rows = chain(() if first is None else (first,), stream)
    folder = ledger.write(root, run, rows, guard=rules.guard(ledger.place(root, run)))
    return folder, run


def _stream(
    run: dict[str, Any],
    tasks: dict[str, list[Source]],
    kept: dict[str, Result],
    tally: Tally | None,
    bad: list[str] | None,
    rules: Rules,
) -> Iterator[dict[str, Any]]:
    """Rows of all tasks, each from its best result; fills in the run's counts while they pass."""
    kv, totals = Means(), dict[str, tuple[str, float]]()
    usage: dict[str, float] = {}
    counted: set[str] = set()
    for task in sorted({*tasks, *kept}):
        read = [
            partial(_read, run["fingerprint"], task, *source, rules, bad) for source in tasks.get(task, ())
        ]
        stamps = [source[0].stamp for source in tasks.get(task, ())]
        chosen = best(task, list(zip(stamps, read, strict=True)), kept.get(task), rules, bad)
        if chosen is None:
            continue
        chosen = taken(chosen)
        run["tasks"][task] = chosen.sheet
        own = Means()
        for part in ledger.batched(chosen.rows, 200):
            if tally:
                tally.add(task, chosen.sheet, part)
            for row in part:
                if "kv" in row:
                    own.add(row["kv"])
            usages.add(usage, part)
            yield from part
        if own.n:
            kv.merge(own)
            means = own.means()
            chosen.sheet["kv"] = {name: means[name] for name in _TASK_KV if name in means}
        for name, value in (chosen.sheet.get("seconds") or {}).items():
            run["seconds"][name] = run["seconds"].get(name, 0.0) + value
        for name, value in chosen.tokens.items():
            run["tokens"][name] = run["tokens"].get(name, 0) + value
        # the ledger's seconds hold those of an evaluation that is collected again
        if chosen.kept:
            counted = {one.stamp for one in kept.values() if one.stamp}
        totals[chosen.source] = ("" if chosen.kept else chosen.stamp), chosen.total
    run["seconds"]["total"] = sum(total for stamp, total in totals.values() if stamp not in counted)
    if usage:
        run["usage"] = usage
    if kv.n:
        run["kv"] = {**_shares(run["tasks"]), **kv.means()}
        run["peak_memory_bytes"] = kv.largest.get("peak_memory_bytes")
    statuses = {counts["status"] for counts in run["tasks"].values()}
    run["status"] = (
        "complete" if statuses == {"complete"} else "error" if statuses == {"error"} else "partial"
    )


def _shares(sheets: dict[str, dict[str, Any]]) -> dict[str, float]:
    """What stock vLLM read under ICR_KV: it counts a run and not its items, so the sheets of the tasks hold
    it."""
    means = Means()
    for sheet in sheets.values():
        means.add(sheet.get("kv_shares") or {})
    return {name: value for name, value in means.means().items() if name != "n_items"}


def _read(
    fingerprint: str,
    task: str,
    evaluation: lm_eval_files.Evaluation,
    inputs: dict[str, Any],
    rules: Rules,
    bad: list[str] | None,
) -> Result:
    """One task of one evaluation. Raises IcrError naming file and line for what is broken."""
    counts = _sheet(evaluation.results, task)
    path = evaluation.samples.get(task)
    found = Result(counts, [], evaluation.stamp, str(evaluation.path))
    found.total = float(evaluation.results.get("total_evaluation_time_seconds") or 0)
    found.tokens = {"prompt": 0, "output": 0}
    counts["evaluated"], counts["seconds"] = evaluation.stamp, {}
    told = evaluation.results["configs"][task].get("metadata", {}).get("icr", {}).get("kv") or {}
    if shares := {k: v for k, v in told.items() if k.endswith("_fraction")}:
        counts["kv_shares"] = shares
    lines = lm_eval_files.rows(path, task, rules.filter) if path else ()
    for part in ledger.batched(lines, 200):
        rows = [row for row, _, _ in part]
        _count(found, counts, rows, [sent for _, sent, _ in part])
        counts["filter"] = part[-1][2]
        found.rows += rows
    sums, counts["tokens"] = counts.pop("sums"), found.tokens
    counts["means"] = {metric: total / n for metric, (total, n) in sums.items()}
    ways = (evaluation.results.get("higher_is_better") or {}).get(task) or _NONE
    # of several filters a score is named `metric,filter`
    if lower := [m for m in sums if ways.get(m.partition(",")[0]) is False]:
        counts["lower_is_better"] = lower
    whole = counts["n_expected"] is not None and counts["n_scored"] >= counts["n_expected"]
    counts["status"] = "complete" if whole else "partial" if path else "error"
    if not path:
        counts["reason"] = "no samples file: run lm_eval with --log_samples"
    elif found.rows and not sums and (logged := lm_eval_files.no_scores(path)):
        counts["status"], counts["reason"] = "error", logged
    elif counts["n_scored"] and counts["metric"] and counts["metric"] not in sums:
        counts["status"] = "error"
        # the task's own: no judge, judge not reachable
        why = (counts["reasons"] or {}).get(counts["metric"])
        counts["reason"] = (
            why or f"{path.name}:1: no row has the metric {counts['metric']!r}, only {', '.join(sums)}"
        )
        if not why and bad is not None:
            bad.append(f"{path.parent}/{counts['reason']}; score again with icr-replay")
    return found


def _count(found: Result, counts: dict[str, Any], rows: list[Any], sent: list[Any]) -> None:
    """Add some rows, and the digests of their prompts, to the task's counts: column by column, which is three
    times faster."""
    scores = [row["score"] for row in rows]
    failed = sum(1 for row in rows if row["error"] or not row["score"])
    counts["n_failed"] += failed
    counts["n_scored"] += len(rows) - failed
    counts["n_truncated"] += sum(1 for row in rows if row["truncated"])
    counts["n_unfinished"] += sum(1 for row in rows if row["unfinished"])
    counts["n_thoughts"] += sum(1 for row in rows if row.get("thoughts"))
    if routes := [row["route"] for row in rows if "route" in row]:
        told = counts.setdefault("route", {"items": 0, "went_on": 0})
        told["items"] += len(routes)
        told["went_on"] += sum(1 for route in routes if route["went_on"])
    for metric in dict.fromkeys(chain.from_iterable(scores)):
        values = [score[metric] for score in scores if metric in score]
        total = counts["sums"].setdefault(metric, [0.0, 0])
        total[0] += sum(values)
        total[1] += len(values)
    tokens, seconds = found.tokens, counts["seconds"]
    tokens["prompt"] += sum(n for row in rows if (n := row["n_prompt_tokens"]))
    tokens["output"] += sum(n for row in rows if (n := row["n_out_tokens"]))
    cached = [n for one in sent if (n := (one.get("engine_tokens") or _NONE).get("cached")) is not None]
    if cached:  # prefix-cache hits
        usages.add_told(tokens, counts, "cached", cached)
    usages.count(tokens, counts, rows)
    for one in sent:
        if device := one.get("device"):
            counts["devices"][device] = counts["devices"].get(device, 0) + 1
    timings = [timing for one in sent if (timing := one.get("timing"))]
    counts["n_timed"] += sum(1 for timing in timings if "wall" in timing)
    for stage in dict.fromkeys(chain.from_iterable(timings)):
        seconds[stage] = seconds.get(stage, 0.0) + sum(timing.get(stage, 0.0) for timing in timings)


def _sheet(results: dict[str, Any], task: str) -> dict[str, Any]:
    sheet = results["configs"][task].get("metadata", {}).get("icr", {})
    samples = results.get("n-samples", {}).get(task, {})
    kept = (
        "benchmark",
        "dataset",
        "length",
        "metric",
        "metric_version",
        "data_revision",
        "data_source",
        "official",
        "judge",
        "extractor",
        "reasons",
    )
    about = (
        "title",
        "suite",
        "chance",
        "origin",
        "instruction_sha",
        "embedder",
        "judge_equiv",
    )  # what reports need to know of the benchmark; absent before them
    return {
        **{name: sheet.get(name) for name in kept},
        **{name: sheet[name] for name in about if name in sheet},
        "task_version": str(results.get("versions", {}).get(task)),
        "gen_kwargs": results["configs"][task].get("generation_kwargs"),
        "num_fewshot": (results.get("n-shot") or {}).get(task),
        "filter": None,
        "n_expected": sheet.get("n_expected", samples.get("original")),
        "n_scored": 0,
        "n_failed": 0,
        "n_truncated": 0,
        "n_unfinished": 0,
        "n_thoughts": 0,
        "n_timed": 0,
        "devices": {},
        "sums": {},
    }


def _head(results: dict[str, Any], inputs: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    args = inputs["model_args"]
    sheets = [config.get("metadata", {}).get("icr", {}) for config in results["configs"].values()]
    sheet: dict[str, Any] = next((s for s in sheets if s.get("versions")), {})
    versions = {
        "lm_eval": results.get("lm_eval_version"),
        "transformers": results.get("transformers_version"),
    }
    versions |= sheet.get("versions") or {}
    return {
        "schema": ledger.SCHEMA,
        "fingerprint": fingerprint,
        "fingerprint_inputs": inputs,
        "model": {
            "id": inputs["model"],
            "slug": ledger.slug(str(inputs["model"])),
            "revision": args.get("revision"),
            # what was loaded, where the engine told; what was asked for may have been "auto"
            "dtype": dtype_name((results.get("config") or {}).get("model_dtype"))
            or dtype_name(args.get("dtype")),
            "adapter": args.get("lora_local_path") or args.get("peft"),
        },
        "engine": {"name": inputs["engine"], "attention_backend": args.get("attention_backend")},
        "setting": {**(sheet.get("setting") or {}), **inputs["setting"]},
        "prompt": inputs["prompt"],
        "gen_kwargs": inputs["gen_kwargs"],
        "chat_template_sha": inputs["chat_template_sha"],
        "system_prompt_sha": inputs["system_prompt_sha"],
        "texts": lm_eval_files.texts_of(results, sheet),
        "truncation": {"side": inputs["truncation"], "max_model_len": inputs["max_model_len"]},
        "tasks": {},
        "versions": versions,
        "plugins": sheet.get("plugins") or {},
        "git": sheet.get("git") or results.get("git_hash"),  # ours tells a changed working tree
        "started": results.get("date"),
        "seconds": {"total": float(results.get("total_evaluation_time_seconds") or 0)},
        "tokens": {"prompt": 0, "output": 0},
    }
