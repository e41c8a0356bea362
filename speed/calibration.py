"""Coverage, type I error and width of the intervals on every shape of the tests, with many more draws.

python speed/calibration.py [DRAWS]        # 20 000 draws a line: about an hour on one core
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import test_stats_calibration as shapes


def main(draws: int) -> None:
    """One line a shape, share of common variance and kind of score."""
    shapes.DRAWN = draws
    print("| shape | common | scores | effective | 95 % covers | type I | width / oracle |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name, sizes in (shapes.OFFICIAL | shapes.HARD).items():
        for rho in shapes.SHARES:
            for steps in (False, True):
                effective, covered, less, wide = shapes._outcomes(sizes, rho, steps)
                kind = "-1, 0, 1" if steps else "normal"
                print(
                    f"| {name} | {100 * rho:.0f} % | {kind} | {effective:.1f} | {100 * covered:.1f} "
                    f"| {100 * less:.1f} | {wide:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
