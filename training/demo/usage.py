"""What the demonstration's processes used: CPU seconds and peak memory, noted beside the runs."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

USAGE = "usage.jsonl"
_before = 0.0  # CPU seconds of this process that are noted already


def used(stage: str, output: str) -> None:
    """Note what this worker process has used: CPU seconds since its last note, peak memory of its life so
    far."""
    global _before
    now = time.process_time()
    row = {"stage": stage, "run": Path(output).name, "cpu": now - _before, "peak": peak()}
    _before = now
    with (Path(output).parent / USAGE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def peak() -> int:
    """Bytes this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
