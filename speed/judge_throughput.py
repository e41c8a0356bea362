"""100 answers to a judge that takes 100 ms and fails in bursts: serial, concurrent, and again from the store.

    python speed/judge_throughput.py [--items 100] [--concurrency 32] [--latency 0.1] [--json]

The server is local and its faults are planned by item (429 with and without Retry-After, 503, a body that is
no JSON, a reply without a verdict), so each run sees the same ones. Exits 1 unless concurrent is at least 10
times faster than serial, no verdict is missing or differs, and the second run makes no call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from icr_tasks.metrics.judge import Case, Judge, JudgeConfig

SERVER = Path(__file__).resolve().parent.parent / "tests" / "fake_endpoint.py"


def cases(n: int) -> list[Case]:
    """n different answers."""
    return [Case(f"Question {i}?", f"gold {i}", f"answer {i}", str(i)) for i in range(n)]


def measure(n: int, concurrency: int, latency: float) -> dict[str, Any]:
    """Seconds and calls of the three runs."""
    out: dict[str, Any] = {"items": n, "latency": latency, "concurrency": concurrency}
    with tempfile.TemporaryDirectory() as folder:
        for name, width, store in (
            ("serial", 1, "a"),
            ("concurrent", concurrency, "b"),
            ("again", concurrency, "b"),
        ):
            command = [sys.executable, str(SERVER), str(latency)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as fake:
                assert fake.stdin and fake.stdout
                url, file = fake.stdout.readline().strip(), Path(folder) / f"{store}.sqlite"
                judge = Judge(JudgeConfig(url, "fake", concurrency=width, store=file, pause=0.1))
                started = time.perf_counter()
                verdicts = judge.score(cases(n))
                seconds = time.perf_counter() - started
                fake.stdin.write("?\n")
                fake.stdin.flush()
                calls, peak = map(int, fake.stdout.readline().split())
                fake.stdin.close()
            right = sum(v.ok and v.rating == i % 100 + 1 for i, v in enumerate(verdicts))
            out[name] = {"seconds": round(seconds, 3), "calls": calls, "right": right, "peak": peak}
    out["speedup"] = round(out["serial"]["seconds"] / out["concurrent"]["seconds"], 1)
    return out


def main() -> int:
    """Returns 0 when all three claims hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.items, args.concurrency, args.latency)
    if args.json:
        print(json.dumps(found))
    else:
        for name in ("serial", "concurrent", "again"):
            row = found[name]
            print(
                f"{name:<11} {row['seconds']:7.2f} s  {row['calls']:4d} calls  {row['right']}/{args.items} "
                "verdicts right"
            )
        print(f"speed-up    {found['speedup']:7.1f} x")
    whole = all(found[name]["right"] == args.items for name in ("serial", "concurrent", "again"))
    return 0 if whole and found["speedup"] >= 10 and found["again"]["calls"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
