"""`icr train demo -o train-demo`: a tiny model learns in-context retrieval on this machine, in minutes, evaluated by lm_eval.

1. A random-init model of 0.17 million parameters learns to answer questions about a few one-sentence passages (SFT).
2. Warm start: SFT on careless demonstrations, which take any passage whose name ends like the one asked for (1 of 3 right).
3. GRPO from there with the AO and the ID reward, several seeds: now only the right answer (and the right passage) counts.
4. Every checkpoint answers `icr_synth_short` tasks (names it has never seen) through lm_eval under full, rag and kv
   settings; ledgers, leaderboard, gate, and one pooled test over all seeds.

Interrupted? Run it again: finished stages are kept, training continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from icr_tasks.errors import IcrError


@dataclass(frozen=True)
class Size:
    """How much the demonstration does. `passages` of a training prompt; `items` of each task."""

    seeds: int
    rewards: tuple[str, ...]
    base_steps: int
    steps: int
    items: int
    settings: tuple[str, ...] = ("full", "rag@96,bm25", "kv:topk@0.25")
    passages: int = 12
    warm: int = 1440
    prompts: int = 16


FULL = Size(seeds=3, rewards=("ao", "id"), base_steps=320, steps=80, items=100)
QUICK = Size(seeds=1, rewards=("ao",), base_steps=220, steps=40, items=60)


def main(argv: list[str]) -> int:
    """Returns 0 when both rewards rose significantly, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="icr train demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("train-demo"))
    parser.add_argument("--quick", action="store_true", help="one seed, the AO reward, half the steps (for CI)")
    parser.add_argument("--workers", type=int, default=2, help="training processes at once (default 2)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise IcrError("--workers must be at least 1")
    started = time.time()
    size = QUICK if args.quick else FULL
    from . import report, stages

    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    say = _Say(5)
    say("base model: random weights, taught on short conversations")
    with stages.Workers(args.workers) as workers:
        stages.base(out, size, workers)
        say(f"warm start on careless demonstrations: {', '.join(size.rewards)}")
        stages.warm(out, size, workers)
        say(f"GRPO: {', '.join(size.rewards)} x {size.seeds} seed(s), {size.steps} steps each")
        stages.reinforce(out, size, workers)
    say(f"evaluation through lm_eval: {', '.join(size.settings)}")
    trained = stages.evaluate(out, size)
    say("leaderboard, curves, test over seeds")
    good = report.write(out, size, trained, time.time() - started)
    return 0 if good else 1


class _Say:
    """Numbered stage titles."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __call__(self, text: str) -> None:
        self.done += 1
        print(f"[{self.done}/{self.total}] {text}", file=sys.stderr, flush=True)
