"""From ranked items to rank.json and its table: means with clustered intervals, heads chosen on one half and
reported on the other, correlation with the task score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IcrError
from .rank import Ranked

SCHEMA = 1


def summary(items: Sequence[Ranked]) -> dict[str, dict[str, dict[str, float]]]:
    """method -> metric -> {mean, low, high, n}; 95 % intervals over clusters (items of one question are not
    independent)."""
    from ..leaderboard.stats import Design

    out: dict[str, dict[str, dict[str, float]]] = {}
    for method in dict.fromkeys(m for item in items for m in item.rows):
        for metric in dict.fromkeys(k for item in items for k in item.rows.get(method, {})):
            have = [i for i in items if np.isfinite(i.rows.get(method, {}).get(metric, np.nan))]
            if not have:
                continue
            effect = Design([i.cluster for i in have]).score(np.array([i.rows[method][metric] for i in have]))
            low, high = effect.ci()
            cell = {"mean": effect.mean, "low": low, "high": high, "n": effect.n, "clusters": effect.clusters}
            out.setdefault(method, {})[metric] = cell
    return out


def best_head(items: Sequence[Ranked]) -> dict[str, Any] | None:
    """NDCG@10 of the best single head, chosen on one half of the clusters and measured on the other, both
    ways.

    A head chosen and measured on the same items would look good by chance: there are hundreds of them.
    """
    grids = [i for i in items if i.by_head.size]
    clusters = sorted({i.cluster for i in grids})
    if len(clusters) < 4:
        return None
    halves = [set(clusters[::2]), set(clusters[1::2])]
    scores, chosen = [], []
    for choose, report in (halves, halves[::-1]):
        mean = np.mean([i.by_head for i in grids if i.cluster in choose], axis=0)
        layer, head = np.unravel_index(int(mean.round(9).argmax()), mean.shape)  # of equal ones the first
        chosen.append([int(layer), int(head)])
        scores += [float(i.by_head[layer, head]) for i in grids if i.cluster in report]
    mean = np.mean([i.by_head for i in grids], axis=0)
    return {
        "ndcg@10": float(np.mean(scores)),
        "n": len(scores),
        "chosen": chosen,
        "by_layer": mean.mean(1).round(4).tolist(),
    }


def correlation(
    items: Sequence[Ranked], method: str, scores: dict[str, float], seed: int = 0
) -> dict[str, float]:
    """Spearman of NDCG@10 and the task's score per item, with a 95 % bootstrap interval over clusters.

    NaN when either side does not vary. Raises IcrError when fewer than three items are in both.
    """
    from scipy.stats import spearmanr

    both = [i for i in items if i.id in scores and method in i.rows]
    if len(both) < 3:
        raise IcrError(
            f"only {len(both)} ranked items have a score in --results; evaluate the same task and items"
        )
    # ranks compare: without rounding noise equal values stay equal
    x = np.array([i.rows[method]["ndcg@10"] for i in both]).round(9)
    y = np.array([scores[i.id] for i in both]).round(9)
    groups = [
        np.flatnonzero(np.array([i.cluster for i in both]) == c)
        for c in dict.fromkeys(i.cluster for i in both)
    ]

    def rho(at: np.ndarray) -> float:
        varied = np.ptp(x[at]) > 0 and np.ptp(y[at]) > 0
        return float(spearmanr(x[at], y[at]).statistic) if varied else float("nan")

    rng = np.random.default_rng(seed)
    draws = [
        rho(np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))]))
        for _ in range(1000)
    ]
    known = [d for d in draws if np.isfinite(d)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) > 100 else (float("nan"), float("nan"))
    return {"spearman": rho(np.arange(len(both))), "low": float(low), "high": float(high), "n": len(both)}


def task_scores(results: Path, task: str) -> dict[str, float]:
    """item id -> headline score of that task, from a ledger folder. Raises IcrError when there is none or
    several."""
    from ..leaderboard.ledgers import ledger

    found = [(folder, run) for folder, run in ledger.runs(results) if task in run["tasks"]]
    if len(found) != 1:
        raise IcrError(
            f"{results} has {len(found)} runs of {task}; name the folder of one run (it holds run.json)"
        )
    folder, run = found[0]
    metric = run["tasks"][task]["metric"]
    rows = [r for r in ledger.items(folder) if r["task"] == task and metric in r["score"]]
    return {str(r["item"]): float(r["score"][metric]) for r in rows}


def table(report: dict[str, Any]) -> str:
    """Markdown: a row a method, best printed NDCG first and then by name, `random` as the line to beat."""
    from ..leaderboard.text.printed import printed

    methods, related = report["methods"], report.get("correlation") or {}
    metrics = list(dict.fromkeys(k for row in methods.values() for k in row))
    lines = [
        f"**{Path(report['model']).name}**, {report['task']}, prompt {report['prompt']}: "
        f"{report['n_items']} items, "
        f"{report['n_left_out']} left out, {report['documents']:.0f} documents, {report['tokens']:.0f} "
        "tokens on average",
        "",
        "| ranked by | " + " | ".join([*metrics, *["rho, task score"] * bool(related)]) + " |",
        "|---|" + "---:|" * (len(metrics) + bool(related)),
    ]
    for name in sorted(methods, key=lambda m: (-printed(100 * methods[m][metrics[0]]["mean"]), m)):
        cells = [_cell(methods[name].get(metric)) for metric in metrics]
        cells += [_rho(related[name]) if name in related else "–"] * bool(related)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if report.get("best_head"):
        best = report["best_head"]
        lines.append(
            "\nBest single head, chosen on one half and measured on the other: NDCG@10 "
            f"{100 * best['ndcg@10']:.1f}"
        )
    if related:
        n = max(v["n"] for v in related.values())
        lines.append(
            f"\nrho: Spearman of NDCG@10 and the task score per item, 95 % interval over questions, N {n}"
        )
    memory = ", ".join(f"{k} {v / 2**20:.0f} MiB" for k, v in report["peak_memory"].items())
    return "\n".join(
        [
            *lines,
            f"x 100, ± half of the 95 % interval over questions; peak memory {memory}, "
            f"{report['seconds']:.0f} s",
        ]
    )


def _cell(value: dict[str, float] | None) -> str:
    return "–" if value is None else f"{100 * value['mean']:.1f} ± {50 * (value['high'] - value['low']):.1f}"


def _rho(value: dict[str, float]) -> str:
    if value["spearman"] != value["spearman"]:  # NaN: the order or the score is the same for every item
        return "–"
    return f"{value['spearman']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}]"
