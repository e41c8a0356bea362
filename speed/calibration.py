"""Coverage, type I error and width of the intervals on every shape of the tests, with many more draws.

python speed/calibration.py [DRAWS]        # 4 000 draws a line: about a quarter of an hour on one core

After the groups come unequal ones whose variance grows with their size, which the working model does not know, and
items that share filings as Loong's do (the real ones where ICR_DATA_DIR names the data).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import test_stats_calibration as shapes


def main(draws: int) -> None:
    """One line a shape, share of common variance and kind of score."""
    shapes.DRAWN = draws
    print("| shape | common | scores | effective | 95 % covers | type I | width / oracle |")
    print("|---|---:|---|---:|---:|---:|---:|")
    lines = [(name, sizes, 0.0) for name, sizes in (shapes.OFFICIAL | shapes.HARD).items()]
    grown = ("60 lognormal 1.0", "200 lognormal 1.5")
    lines += [(f"{name}, variance grows", shapes.HARD[name], 1.0) for name in grown]
    for name, sizes, power in lines:
        for rho in shapes.SHARES:
            for steps in (False, True):
                effective, covered, less, wide = shapes._outcomes(sizes, rho, steps, power)
                kind = "-1, 0, 1" if steps else "normal"
                print(
                    f"| {name} | {100 * rho:.0f} % | {kind} | {effective:.1f} | {100 * covered:.1f} "
                    f"| {100 * less:.1f} | {wide:.2f} |",
                    flush=True,
                )
    data = os.environ.get("ICR_DATA_DIR")
    for folder in (None, *([Path(data)] if data else [])):
        effective = shapes._shared_filings(folder)[0].effective
        for how in ("mean", "root"):
            for spread in (0, 10, 20, 40):
                found = np.array(shapes._judged(folder, spread, how, 0.0, draws))
                covered, less = np.mean(np.abs(found[:, 0]) <= found[:, 3]), np.mean(found[:, 4] < 0.05)
                wide = np.median(found[:, 3]) / (1.96 * found[:, 0].std())
                name = "Loong's filings" if folder else "items of Loong's make-up"
                print(
                    f"| {name}, effects of {spread} points, {how} | | normal | {effective:.1f} | {100 * covered:.1f} "
                    f"| {100 * less:.1f} | {wide:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
