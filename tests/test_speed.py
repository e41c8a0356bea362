"""The soak in small, and the table that the performance page is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEED = Path(__file__).resolve().parent.parent / "speed"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SPEED))
    return __import__("bench")


def test_a_study_survives_faults_kills_a_full_disk_and_clock_jumps(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    told = tmp_path / "told.json"
    size = ["--items", "60", "--kills", "2", "--disks", "1", "--latency", "0.002"]
    command = [sys.executable, str(SPEED / "soak.py"), *size, "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = {what: measured for what, measured, _ in json.loads(told.read_text())}
    assert lines["requests of the study"] == lines["items in the ledgers, scored"] == "120"
    assert lines["processes killed"] == "2" and lines["answers stored twice"] == "0"
    assert sum(int(part.split()[0]) for part in lines["faults of the server"].split(", ")) > 0


def test_numbers_are_read_from_the_tables_of_the_scripts(bench: Any) -> None:
    text = "said\n| | MB/s | s |\n|---|---:|---:|\n| now | 1,234.5 | 2 |\n| then | – | 3 |\n"
    assert bench.table(text) == {"now": [1234.5, 2.0]}


def test_the_page_has_medians_ratios_and_dashes_where_nothing_was_measured(bench: Any) -> None:
    runs = [[bench.Line("x", "s", ours, 10.0, "peer", 5.0)] for ours in (1.0, 2.0, 9.0)]
    (line,) = bench.medians(runs)
    assert (line.ours, line.peer, line.ours_mb, line.peer_mb) == (2.0, 10.0, 5.0, None)
    assert bench.rendered([line]).splitlines()[-1] == "| x | 2 s | 10 s | 0.2 | 5 | – | peer |"
    alone = bench.Line("y", "ms", 1500.0)
    assert bench.rendered([alone]).splitlines()[-1] == "| y | 1,500 ms | – | – | – | – | – |"
