"""What the demonstration shows at the end: one test over all seeds, the gate's table, the leaderboard, curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..curves import HEIGHT, chart, history, page
from ..evaluate import Trained, table, verdicts

if TYPE_CHECKING:
    from .run import Size

_SMOOTH = 5


def pooled(results: Path, trained: Sequence[Trained], reward: str) -> Any:
    """Effect of GRPO over its start under setting `full`: item scores averaged over seeds, then the clustered paired test."""
    from icr_tasks.leaderboard import load, pairs

    runs = {(str(r.head["fingerprint_inputs"]["model_args"]["pretrained"]), r.prompt): r for r in load.load(results) if r.setting == "full"}  # fmt: skip
    found = []
    for one in trained:
        if one.prompt == reward and not one.folder.parent.name.startswith("sft-"):
            found.append(pairs.pair(runs[one.base, reward], runs[str(one.folder), reward]))
    first = found[0]
    everything = np.ones(len(first), bool)
    new = np.mean([p.new for p in found], axis=0)
    design = first.design(everything)
    each = [float(design.mean(p.new - p.base)) for p in found]
    return design.score(first.base), design.score(new), design.effect(new - first.base), each


def curves(out: Path, size: Size) -> str:
    """Training reward and answer share by step: mean over seeds, band from lowest to highest."""
    charts: list[str] = []
    panels = [("training reward (AO: at most 1, ID: at most 2)", "reward"), ("KL to the warm start", "kl"), ("tokens of a completion", "completions/mean_length")]  # fmt: skip
    for title, column in panels:
        lines: dict[str, list[tuple[float, float]]] = {}
        bands: dict[str, list[tuple[float, float, float]]] = {}
        for reward in size.rewards:
            seeds = [history(out / f"{reward}-s{seed}") for seed in range(size.seeds)]
            columns = [[float(r[column]) for r in rows if column in r] for rows in seeds]
            length = min(map(len, columns))
            smooth = np.array([[np.mean(c[max(0, i - _SMOOTH + 1) : i + 1]) for i in range(length)] for c in columns])
            name = f"{reward.upper()}, {size.seeds} seed(s)"
            lines[name] = [(i + 1, float(v)) for i, v in enumerate(smooth.mean(0))]
            bands[name] = [(i + 1, float(a), float(b)) for i, (a, b) in enumerate(zip(smooth.min(0), smooth.max(0), strict=True))]  # fmt: skip
        charts.append(chart(title, lines, bands=bands, top=HEIGHT * len(charts)))
    return page(charts)


def write(out: Path, size: Size, trained: Sequence[Trained], seconds: float) -> bool:
    """Write report.md, curves.svg and the board; print the summary. True when every reward rose significantly."""
    from icr_tasks.leaderboard import board
    from icr_tasks.leaderboard.suite import interval, points

    results = out / "eval" / "results"
    lines, good = ["| reward | start | after GRPO | Δ over all seeds | 95 % CI | p | each seed |", "|---|---:|---:|---:|---|---:|---|"], True  # fmt: skip
    for reward in size.rewards:
        start, end, delta, each = pooled(results, trained, reward)
        shown = ", ".join(points(x, sign=True) for x in each)
        lines.append(
            f"| {reward.upper()} | {points(start.mean)} | {points(end.mean)} | {points(delta.mean, sign=True)} | "
            f"{interval(delta.ci(0.95))} | {delta.p:.2g} | {shown} |"
        )
        good &= delta.ci(0.95)[0] > 0
    gated = table(verdicts(results, trained, 0.02))
    (out / "curves.svg").write_text(curves(out, size), encoding="utf-8")
    board.main([str(results), "-o", str(out / "board")])
    text = (
        "Held-out SubEM x 100 under setting full (names and questions of the test split, 12 and 24 passages; training had "
        f"{size.passages}). Pooled over {size.seeds} seed(s), clustered by question:\n\n" + "\n".join(lines)
    )
    body = (
        f"# Training demonstration\n\n{text}\n\n## Every checkpoint against its start\n\n{gated}\n\n{seconds:.0f} s.\n"
    )
    (out / "report.md").write_text(body, encoding="utf-8")
    print(f"\n{text}\n\n{out / 'report.md'}, {out / 'curves.svg'}, {out / 'board'}; {seconds:.0f} s")
    return good
