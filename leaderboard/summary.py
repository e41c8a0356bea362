"""The table `icr collect` prints: dataset x length, with N and what was cut; averages only over complete rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError

DASH = "–"


def tokens(length: str | None) -> int:
    """Sort key of a nominal length: "4k" -> 4096; tasks without one come first."""
    if not length:
        return 0
    unit = {"k": 1024, "m": 1024**2}.get(length[-1].lower(), 1)
    try:
        return int(length.rstrip("kKmM")) * unit
    except ValueError as error:
        raise IcrError(f"length {length!r} is not a token count such as 4k") from error


def table(runs: list[tuple[Path, dict[str, Any]]]) -> str:
    """Markdown, one block a model and prompt; a cell is `score (scored/expected, cut %)`, an average with a gap a dash."""
    blocks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _, run in runs:
        blocks.setdefault((str(run["model"]["id"]), str(run["prompt"])), []).append(run)
    return "\n\n".join(_block(*key, found) for key, found in sorted(blocks.items()))


def _block(model: str, prompt: str, runs: list[dict[str, Any]]) -> str:
    columns = sorted(
        {
            (t["benchmark"] or "", t["dataset"] or name, t["length"] or "")
            for run in runs
            for name, t in run["tasks"].items()
        },
        key=lambda c: (c[0], c[1], tokens(c[2])),
    )
    heads = [" ".join(p for p in (c[0] if c[1] in ("all", "rag") else c[1], c[2]) if p) for c in columns]
    lines = [f"**{Path(model).name}**, prompt {prompt}", "", f"| setting | {' | '.join(heads)} | macro avg |"]
    lines.append("|---|" + "---:|" * (len(columns) + 1))
    notes: list[str] = []
    for run in sorted(runs, key=lambda r: r["setting"]["text"]):
        found = {(t["benchmark"] or "", t["dataset"] or n, t["length"] or ""): (n, t) for n, t in run["tasks"].items()}
        cells = [_cell(*found[c]) if c in found else DASH for c in columns]
        scores = [_score(found[c][1]) if c in found and found[c][1]["status"] == "complete" else None for c in columns]
        mean = DASH if None in scores else f"{100 * sum(s for s in scores if s is not None) / len(scores):.1f}"
        lines.append(f"| {run['setting']['text']} | {' | '.join(cells)} | {mean} |")
        notes += [f"{run['setting']['text']}, {n}: {t['reason']}" for n, t in run["tasks"].items() if t.get("reason")]
    lines += ["", "score x 100 (scored/expected; % of prompts cut)"]
    return "\n".join(lines + [f"- {note}" for note in notes])


def _score(task: dict[str, Any]) -> float | None:
    return task["means"].get(task["metric"]) if task["metric"] else next(iter(task["means"].values()), None)


def _cell(name: str, task: dict[str, Any]) -> str:
    score, expected = _score(task), task["n_expected"] or "?"
    if score is None or not task["n_scored"]:
        return f"{DASH} (0/{expected})"
    cut = f"; {100 * task['n_truncated'] / task['n_scored']:.0f}% cut" if task["n_truncated"] else ""
    return f"{100 * score:.1f} ({task['n_scored']}/{expected}{cut})"
