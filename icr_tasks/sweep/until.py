"""`icr sweep study.yaml --until-gate main`: stop as soon as the gate against a baseline is decided.

Questions come in fifths, the same ones for every task and length; after each fifth the gate looks at what is
there, at levels that keep its alpha (`leaderboard.pairs.stages`). What is decided is not run further; answers
of earlier stages are taken from the study's store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import IcrError
from ..leaderboard.ledgers.load import Run, load
from ..leaderboard.pairs import baseline
from ..leaderboard.pairs.gate import ALPHA, BENCHMARK_MARGIN, REGRESSED, SUITE_MARGIN, Verdict
from ..leaderboard.pairs.joined import pair
from ..leaderboard.pairs.stages import SHARES, decided, judge, levels
from . import finish
from .cells import Cell
from .records import Folder
from .study import Study


@dataclass(frozen=True)
class Gate:
    """The gate to decide: name of the baseline, where its file and its runs are, margins in score units."""

    name: str
    baselines: Path = Path("baselines")
    results: Path = Path("results")
    margin: float = SUITE_MARGIN
    benchmark_margin: float = BENCHMARK_MARGIN
    margins: Mapping[str, float] = field(default_factory=dict)
    alpha: float = ALPHA
    allow: tuple[str, ...] = ()  # checks of comparability that are waived


Key = tuple[str, str]  # setting and prompt


def run(found: Study, chosen: Sequence[Cell], gate: Gate) -> int:
    """0 when every setting passed, 1 when one regressed (or a cell failed), 3 when one stays undecided.

    Raises IcrError for several models, cells with a limit, and settings that the baseline has no run for.
    """
    left = {(c.setting, c.prompt) for c in chosen}
    base = _baselines(gate, chosen, left)
    at = levels(gate.alpha / len(left))
    verdicts: dict[Key, Verdict] = {}
    for share, level in zip(SHARES, at, strict=True):
        cells = [_part(c, share) for c in chosen if (c.setting, c.prompt) in left]
        if code := finish.run(found, cells):
            return code
        runs = {(r.setting, r.prompt): r for r in load(Folder(found.out).results)}
        for key in sorted(left):
            verdicts[key] = _judge(base[key], runs, key, share, level, gate)
            print(_said(key, share, level, verdicts[key]))
        left = {key for key in left if not decided(verdicts[key])}
        if not left:
            break
    if left:
        return 3
    return int(any(v.verdict == REGRESSED for v in verdicts.values()))


def _part(cell: Cell, share: float) -> Cell:
    return cell if share == 1.0 else replace(cell, metadata={**cell.metadata, "part": share})


def _baselines(gate: Gate, chosen: Sequence[Cell], keys: set[Key]) -> dict[Key, Run]:
    models = sorted({c.model for c in chosen})
    if len(models) > 1:
        raise IcrError(
            f"--until-gate judges one model, the study has {', '.join(models)}; choose with --only"
        )
    if any(c.limit for c in chosen):
        raise IcrError("--until-gate chooses the questions itself; leave `limit` out of the study")
    pins = {(p.setting, p.prompt): p for p in baseline.read(gate.baselines, gate.name)}
    if gone := sorted(keys - pins.keys()):
        raise IcrError(
            f"baseline {gate.name} has no run for {gone[0][0]} ({gone[0][1]}); `icr baseline set {gate.name} RUN`",
            exit_code=4,
        )
    return {key: baseline.resolve(gate.results, asdict(pins[key]), gate.name) for key in keys}


def _judge(base: Run, runs: dict[Key, Run], key: Key, share: float, level: float, gate: Gate) -> Verdict:
    if key not in runs:
        raise IcrError(f"the study's results hold no run for {key[0]} ({key[1]}); `icr status` shows why")
    joined = pair(
        base,
        runs[key],
        common=share < 1.0,
        whole=share == 1.0,
        axis="checkpoint",
        allow=gate.allow,
    )
    if joined.refusals:
        raise IcrError(f"not comparable with baseline {gate.name}: {joined.refusals[0]}", exit_code=4)
    return judge(
        joined, level, margin=gate.margin, benchmark_margin=gate.benchmark_margin, margins=gate.margins
    )


def _said(key: Key, share: float, level: float, found: Verdict) -> str:
    more = "" if decided(found) else "; goes on" if share < 1.0 else ""
    text = f"{key[0]} ({key[1]}): {found.verdict} at {100 * share:.0f} % of the questions (level {level:.2g})"
    return f"{text}: {found.reason}{more}"
