"""Opening a HELMET-RAG file of the 128k length that was never opened before: a file of its size and shape is made,
then opened in fresh processes, each alternation with an empty cache first and with its index after.

    python speed/open_file.py                     # 476 MiB, 1,000 passages a row
    python speed/open_file.py --mib 48            # a tenth

The file itself may be in the page cache; what is measured is reading, checking and indexing it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PASSAGES = 1000
CODE = """
import json, resource, time
from icr_tasks.benchmarks import helmet_rag
helmet_rag.folder()
begun, cpu = time.perf_counter(), time.process_time()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = helmet_rag.load("nq", "128k", allow_partial=True).items
opened = time.perf_counter() - begun, time.process_time() - cpu
begun = time.perf_counter()
n = sum(1 for _ in items[0].units())
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
print(json.dumps([*opened, grown, time.perf_counter() - begun, n]))
"""


def write(folder: Path, mib: float) -> Path:
    """A file of that size: rows with 1,000 passages of about 640 characters, one of them gold."""
    draw = random.Random(0)
    words = [f"word{n}" for n in range(20_000)]
    texts = [" ".join(draw.choices(words, k=70)) for _ in range(3_000)]
    path = folder / "helmet" / "data" / "kilt" / "nq-dev-multikilt_1000_k1000_dep6.jsonl"
    path.parent.mkdir(parents=True)
    size = n = 0
    with path.open("w") as file:
        while size < mib * 2**20:
            passages: list[dict[str, Any]] = [
                {"id": str(i), "title": f"Title {i}", "text": text, "hasanswer": False, "isgold": False}
                for i, text in enumerate(draw.choices(texts, k=PASSAGES))
            ]
            passages[n % PASSAGES] |= {"hasanswer": True, "isgold": True}
            row = {
                "id": str(n // 6),
                "question": f"question {n // 6}?",
                "answers": ["word1"],
                "ctxs": passages,
            }
            size += file.write(json.dumps({**row, "depth": n % 6}) + "\n")
            n += 1
    return path


def opened(folder: Path) -> list[float]:
    """(wall seconds, CPU seconds, MB of growth, seconds of one item's passages, their number) of one process."""
    env = {**os.environ, "ICR_DATA_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return list(json.loads(done.stdout))


def main() -> int:
    """Print the table; 1 where the first opening takes more than 5 CPU seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=float, default=476)
    parser.add_argument("--alternations", type=int, default=5)
    args = parser.parse_args()
    found: dict[str, list[list[float]]] = {"first": [], "after": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write(folder, args.mib)
        print(f"{path.stat().st_size / 2**20:.0f} MiB, {args.alternations} alternations, medians\n")
        for _ in range(args.alternations):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for runs in found.values():
                runs.append(opened(folder))
    print("| opening | wall s | CPU s | growth MB | one item's passages, s |\n|---|---:|---:|---:|---:|")
    for kind, runs in found.items():
        wall, cpu, grown, item, _ = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"| {kind} | {wall:.2f} | {cpu:.2f} | {grown:.0f} | {item:.3f} |")
    return int(statistics.median(run[1] for run in found["first"]) > 5)


if __name__ == "__main__":
    sys.exit(main())
