"""What the demonstration shows at the end: one test over all seeds, the gate's table, the leaderboard,
curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic

from ...leaderboard.pairs.seeds import Pooled, pooled
from ..curves import HEIGHT, chart, history, page
from ..evaluate import Trained, table, verdicts
from .size import Size
from .usage import USAGE, peak

_SMOOTH = 5
_HEAD = (
    "| reward | setting | items | base | warm start | after GRPO | Δ over all seeds | 95 % CI | p | each "
    "seed |\n"
    "|---|---|---:|---:|---:|---:|---:|---|---:|---|"
)
_CITED = "\n| citations | setting | warm start | after GRPO |\n|---|---|---:|---:|"


@dataclass(frozen=True)
class Rise:
    """GRPO's effect under one reward and setting: `base` is the base model's score, `pool` warm start against
    end over all seeds, `cited` the F1 of cited passages before and after.
    """

    reward: str
    setting: str
    items: int
    base: Any
    pool: Pooled
    cited: tuple[float, float] | None

    @property
    def delta(self) -> Any:
        """The difference; its error covers the choice of questions and of seeds."""
        return self.pool.total

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval of the difference lies above zero."""
        from icr_tasks.leaderboard.text.printed import settled

        return settled(self.delta.ci(0.95)[0]) > 0


def rises(results: Path, trained: Sequence[Trained], size: Size) -> Iterator[Rise]:
    """Every reward under every setting, pooled over the seeds (leaderboard/pairs/seeds.py)."""
    from icr_tasks.leaderboard.ledgers import load
    from icr_tasks.leaderboard.pairs import joined
    from icr_tasks.settings import Setting

    runs = {
        (str(r.head["fingerprint_inputs"]["model_args"]["pretrained"]), r.prompt, r.setting): r
        for r in load.load(results)
    }
    bases = {t.prompt: t.base for t in trained if t.folder.parent.name.startswith("sft-")}
    for reward in size.rewards:
        ended = [t for t in trained if t.prompt == reward and not t.folder.parent.name.startswith("sft-")]
        for setting in (str(Setting.parse(text)) for text in size.settings):
            wanted = [
                (source, reward, setting) for t in ended for source in (t.base, str(t.folder), bases[reward])
            ]
            if missing := [w for w in wanted if w not in runs]:
                raise IcrError(
                    f"{len(missing)} evaluations did not finish, such as {missing[0]}; the same command "
                    "goes on"
                )
            starts = [runs[t.base, reward, setting] for t in ended]
            ends = [runs[str(t.folder), reward, setting] for t in ended]
            pool = pooled([joined.pair(a, b) for a, b in zip(starts, ends, strict=True)])
            cited = (_mean(starts, "cite_f1"), _mean(ends, "cite_f1")) if reward != "ao" else None
            base = pooled([joined.pair(runs[bases[reward], reward, setting], starts[0])])
            yield Rise(reward, setting, base.base.n, base.base, pool, cited)


def _mean(runs: Sequence[Any], metric: str) -> float:
    return float(
        np.mean([np.nanmean(np.concatenate([t.score[metric] for t in r.tasks.values()])) for r in runs])
    )


def rows(found: Sequence[Rise]) -> str:
    """Markdown of `rises`."""
    from icr_tasks.leaderboard.text.names import interval, points

    out = [_HEAD]
    for r in found:
        each = ", ".join(points(x, sign=True) for x in r.pool.each)
        out.append(
            f"| {r.reward.upper()} | {r.setting} | {r.items} | {points(r.base.mean)} | "
            f"{points(r.pool.base.mean)} | {points(r.pool.new.mean)} | "
            f"{points(r.delta.mean, sign=True)} | {interval(r.delta.ci(0.95))} | {r.delta.p:.1g} | {each} |"
        )
    cited = [r for r in found if r.cited]
    if cited:
        out.append(_CITED)
        out += [
            f"| {r.reward.upper()} | {r.setting} | {points(low)} | {points(high)} |"
            for r in cited
            for low, high in [r.cited or (math.nan, math.nan)]
        ]
    return "\n".join(out)


def usage(out: Path) -> str:
    """CPU seconds by stage and the peak memory of a process, summed over interruptions."""
    cpu: dict[str, list[float]] = {}
    most = peak()
    for line in (out / USAGE).read_text().splitlines():
        row = json.loads(line)
        cpu.setdefault(row["stage"], []).append(row["cpu"])
        most = max(most, row["peak"])
    parts = [f"{stage} {sum(found):.0f} ({len(found)} run(s))" for stage, found in cpu.items()]
    return f"CPU seconds: {', '.join(parts)}. A process held at most {most / 2**30:.1f} GiB."


def curves(out: Path, size: Size) -> str:
    """Training reward, KL and length by step: mean over seeds, band from lowest to highest."""
    charts: list[str] = []
    panels = [
        (f"training reward, mean of {_SMOOTH} steps (AO: at most 1, ID: at most 2)", "reward"),
        ("KL to the warm start", "kl"),
        ("groups without a gradient (all answers equally good)", "frac_reward_zero_std"),
    ]
    for title, column in panels:
        lines: dict[str, list[tuple[float, float]]] = {}
        bands: dict[str, list[tuple[float, float, float]]] = {}
        for reward in size.rewards:
            seeds = [history(out / f"{reward}-s{seed}") for seed in range(size.seeds)]
            columns = [[float(r[column]) for r in rows if column in r] for rows in seeds]
            length = min(map(len, columns))
            smooth = np.array(
                [[np.mean(c[max(0, i - _SMOOTH + 1) : i + 1]) for i in range(length)] for c in columns]
            )
            name = f"{reward.upper()}, {size.seeds} seed{'s' * (size.seeds > 1)}"
            lines[name] = [(i + 1, float(v)) for i, v in enumerate(smooth.mean(0))]
            bands[name] = [
                (i + 1, float(a), float(b))
                for i, (a, b) in enumerate(zip(smooth.min(0), smooth.max(0), strict=True))
            ]
        top = max(high for band in bands.values() for _, _, high in band)
        charts.append(chart(title, lines, bands=bands, y_range=(0.0, top or 1.0), top=HEIGHT * len(charts)))
    return page(charts)


def write(out: Path, size: Size, trained: Sequence[Trained], seconds: float) -> bool:
    """Write report.md, curves.svg and the board; print the summary. True when every difference is
    significantly positive."""
    from icr_tasks.leaderboard.board import build

    results = out / "eval" / "results"
    found = list(rises(results, trained, size))
    gated = table(verdicts(results, trained, 0.02))
    write_atomic(out / "curves.svg", curves(out, size).encode())
    build.main([str(results), "-o", str(out / "board")])
    text = (
        f"Held-out SubEM x 100 on {', '.join(size.tasks)} (training had {_span(size.passages)} passages; no "
        "name occurs in both). "
        f"{size.seeds} seed(s); item scores averaged over seeds, paired and clustered by question; the "
        "interval covers questions and seeds.\n\n"
        f"{rows(found)}\n\n{usage(out)} This command: {seconds:.0f} s."
    )
    body = f"# Training demonstration\n\n{text}\n\n## Every checkpoint against its start\n\n{gated}\n"
    write_atomic(out / "report.md", body.encode())
    print(f"\n{text}\n\n{out / 'report.md'}, {out / 'curves.svg'}, {out / 'board'}")
    return all(r.significant for r in found)


def _span(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(counts[0])
