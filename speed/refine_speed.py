"""Speed of refinement: all gold x negative pairs of many rows, compiled against the plain definition, same
numbers.

    python speed/refine_speed.py corpus.jsonl [--items 1000] [--plain 100] [--negatives 480]

The corpus (title, text) is cut into 100-word passages; each item draws 2 to 4 gold passages and the
negatives. The plain definition (`icr_tasks.training.data.similarity`, one pair at a time) runs on `--plain`
of the items, spread evenly, and must give exactly the same numbers. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np

from icr_tasks.training.data import similarity
from icr_tasks.training.data.corpus import passages
from icr_tasks.training.data.read import records
from icr_tasks.training.data.similarity import SIGNALS, released_mix


def main() -> None:
    """Print the timings; fails when a number differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=100, help="items that the plain definition repeats")
    parser.add_argument(
        "--released", type=int, default=2, help="items for the released rapidfuzz mix, 0 for none"
    )
    parser.add_argument("--negatives", type=int, default=480)
    args = parser.parse_args()
    words = " ".join(r["text"] for r in records(args.corpus))
    pool = list(passages(words, 100, 100))
    r = random.Random(0)
    items = [(r.sample(pool, 2 + n % 3), r.sample(pool, args.negatives)) for n in range(args.items)]
    pairs = sum(len(g) * len(n) for g, n in items)
    print(
        f"{len(items)} items, {len(pool)} passages to draw from, {pairs:,} pairs, {len(SIGNALS)} signals each"
    )
    similarity.signals(["compile this once"], ["compile this once"])

    begun = time.process_time()
    ours = [similarity.signals(g, n) for g, n in items]
    per_item = (time.process_time() - begun) / len(items)
    print(f"compiled   {1000 * per_item:9.2f} ms an item   30,000 items: {per_item * 30000 / 60:7.1f} min")

    some = list(range(0, len(items), max(1, len(items) // args.plain)))[: args.plain]
    begun = time.process_time()
    plain = [
        np.array([[[f(a, b) for b in items[i][1]] for a in items[i][0]] for f in SIGNALS.values()])
        for i in some
    ]
    slow = (time.process_time() - begun) / len(some)
    same = all((ours[i] == table).all() for i, table in zip(some, plain, strict=True))
    print(
        f"plain      {1000 * slow:9.2f} ms an item   30,000 items: {slow * 30000 / 3600:7.1f} h   on "
        f"{len(some)} items"
    )
    print(f"ratio {slow / per_item:.0f}, numbers identical: {same}")
    if args.released:
        begun = time.process_time()
        for golds, negatives in items[: args.released]:
            for negative in negatives:
                max(released_mix(gold, negative) for gold in golds)
        mix = (time.process_time() - begun) / args.released
        print(
            f"rapidfuzz  {1000 * mix:9.2f} ms an item   30,000 items: {mix * 30000 / 3600:7.1f} h   "
            "(released mix)"
        )
    if not same:
        raise SystemExit("the compiled numbers differ from the definition")


if __name__ == "__main__":
    main()
