"""`icr train demo -o train-demo`: a tiny model learns in-context retrieval on this machine, in minutes, evaluated by lm_eval.

1. A random-init model of 0.7 million parameters learns to answer questions about 2 to 24 one-sentence passages. Its heads
   start as ones that look back and match: from plain noise they do not form in minutes.
2. Warm start: SFT on careless demonstrations, which take any passage whose name ends like the one asked for (1 of 3 right).
   They teach a bad habit on purpose, for GRPO to correct.
3. GRPO from there with the AO and the ID reward, several seeds: now only the right answer (and the right passage) counts.
4. Every checkpoint answers `icr_synth_short` tasks (names it has never seen) through lm_eval under full, rag and kv
   settings; ledgers, leaderboard, gate, and one pooled test over all seeds.

Interrupted? Run it again: finished stages are kept, training continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from icr_tasks.data.roots import write_atomic
from icr_tasks.errors import IcrError


@dataclass(frozen=True)
class Size:
    """How much the demonstration does. `passages`: of a training prompt, in turn; `items`: of each task; `warm`: demonstrations."""

    seeds: int
    rewards: tuple[str, ...]
    base_steps: int
    base_passages: int
    warm: int
    steps: int
    prompts: int
    passages: tuple[int, ...]
    tasks: tuple[str, ...]
    items: int = 100
    settings: tuple[str, ...] = ("full", "rag@48,bm25", "kv:snapkv@0.3,window=8")


FULL = Size(
    seeds=3, rewards=("ao", "id"), base_steps=300, base_passages=24, warm=1440, steps=44, prompts=12,
    passages=(6, 8, 10, 12, 14, 16, 18, 20, 22, 24),  # with 12 alone, ID answers 12 passages perfectly and forgets 8 and 24
    tasks=("icr_synth_short_256", "icr_synth_short_512"),
)  # fmt: skip
QUICK = Size(
    seeds=1, rewards=("ao",), base_steps=220, base_passages=12, warm=720, steps=56, prompts=10, passages=(6, 8, 10, 12),
    tasks=("icr_synth_short_256",),
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Returns 0 when SubEM rose significantly for every reward under every setting, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="icr train demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("train-demo"))
    parser.add_argument("--quick", action="store_true", help="one seed, the AO reward, shorter contexts (for CI)")
    parser.add_argument("--workers", type=int, default=2, help="training processes at once (default 2)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise IcrError("--workers must be at least 1")
    started = time.time()
    size = QUICK if args.quick else FULL
    from . import report, stages

    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _settle(out, size)
    say = _Say(5)
    say("base model: random weights, taught on short conversations")
    with stages.Workers(args.workers) as workers:
        stages.base(out, size, workers)
        say(f"warm start on careless demonstrations: {', '.join(size.rewards)}")
        stages.warm(out, size, workers)
        say(f"GRPO: {', '.join(size.rewards)} x {size.seeds} seed(s), {size.steps} steps each")
        stages.reinforce(out, size, workers)
    say(f"evaluation through lm_eval: {', '.join(size.settings)}")
    trained = stages.evaluate(out, size, args.workers)
    say("leaderboard, curves, test over seeds")
    good = report.write(out, size, trained, time.time() - started)
    return 0 if good else 1


def _settle(out: Path, size: Size) -> None:
    """Keep the size beside the runs, so that a folder is continued only with the size it was begun with."""
    path, text = out / "size.json", json.dumps(asdict(size), indent=1)
    if path.is_file() and path.read_text() != text:
        raise IcrError(f"{out} holds a demonstration of another size ({path.name}); use another -o")
    if not path.is_file() and any(out.iterdir()):
        raise IcrError(f"{out} is not empty and holds no demonstration; use another -o")
    write_atomic(path, text.encode())


class _Say:
    """Numbered stage titles."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def __call__(self, text: str) -> None:
        self.done += 1
        print(f"[{self.done}/{self.total}] {text}", file=sys.stderr, flush=True)
