"""The soak in small, and the table that the performance page is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
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
    assert lines["full disks (exit code 2 and the sentence)"] == "1"
    assert lines["processes that ended otherwise"] == "0"
    assert sum(int(part.split()[0]) for part in lines["faults of the server"].split(", ")) > 0


def test_growth_is_what_a_process_gains_while_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    growth = __import__("soak").growth
    loading, asking, writing = (
        [(0, 100.0), (0, 300.0)],
        [(1, 310.0), (30, 320.0), (60, 327.0)],
        [(100, 900.0)],
    )
    assert growth(loading + asking + writing) == 7.0  # neither what was read nor what is written
    assert growth([(0, 1.0), (0, 500.0)]) == 0.0


@pytest.mark.parametrize("script", ["bench", "prepare_ratio"])
def test_scripts_that_read_others_start_as_make_starts_them(script: str) -> None:
    command = [sys.executable, "-P", str(SPEED / f"{script}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr[-2000:]


def test_numbers_are_read_from_the_tables_of_the_scripts(bench: Any) -> None:
    text = "said\n| | MB/s | s |\n|---|---:|---:|\n| now | 1,234.5 | 2 |\n| then | – | 3 |\n"
    assert bench.table(text) == {"now": [1234.5, 2.0]}


def test_the_page_has_medians_ratios_and_dashes_where_nothing_was_measured(bench: Any) -> None:
    runs = [[bench.Line("x", "s", ours, 10.0, "peer", 5.0)] for ours in (1.0, 2.0, 9.0)]
    (line,) = bench.medians(runs)
    assert (line.ours, line.peer, line.ours_mb, line.peer_mb) == (2.0, 10.0, 5.0, None)
    assert bench.rendered([line]).splitlines()[-1] == "| x | 2 s | 10 s | 0.2 | – | 5 | – | peer | 3 |"
    alone = bench.Line("y", "ms", 1500.0)
    assert bench.rendered([alone]).splitlines()[-1] == "| y | 1,500 ms | – | – | – | – | – | – | 1 |"


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        ("product <= 2", True),
        ("product <= 1.9", False),
        ("ratio >= 0.5", True),
        ("ratio >= 0.6", False),
        ("more <= 1", True),
        ("more <= -3", None),
        ("", None),
    ],
)
def test_an_aim_is_held_against_the_medians(bench: Any, aim: str, met: bool | None) -> None:
    line = bench.Line("x", "s", 2.0, 4.0, aim=aim)
    assert line.met is met
    shown = bench.rendered([line])
    assert ("not met" in shown) == (met is False) and (": met" in shown) == (met is True)


def test_a_ratio_is_that_of_each_runs_own_pair(bench: Any) -> None:
    """One run on a slow machine, two on a quick one: medians of the two columns are of different runs."""
    line = bench.Line("a", "MB/s", 0.4, 0.1, aim="ratio >= 3")
    runs = [[line], [replace(line, ours=3.0, peer=1.2)], [replace(line, ours=3.6, peer=1.1)]]
    (found,) = bench.medians(runs)
    assert found.ours / found.peer < 3 and found.ratio == pytest.approx(3.6 / 1.1) and found.met
    assert "| 3.27 |" in bench.rendered([found])
    assert found.more == pytest.approx(1.8)


def test_the_page_is_what_its_log_says(bench: Any) -> None:
    """No line of docs/performance.md is written by hand."""
    root = SPEED.parent
    log = root / "speed" / "bench.jsonl"
    assert (root / "docs" / "performance.md").read_text() == bench.written(log)


def test_pieces_of_the_table_add_up(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two calls with one log: the median is over the runs of both, and the second shows the first one's lines too."""
    values = iter([1.0, 2.0, 9.0, 5.0])
    monkeypatch.setattr(
        bench,
        "MEASURES",
        {
            "a": lambda small: [bench.Line("a", "s", next(values))],
            "b": lambda small: [bench.Line("b", "s", 4.0)],
        },
    )
    log = tmp_path / "log"
    bench.measured(["a"], False, 2, log)
    bench.measured(["b"], False, 1, log)
    lines = bench.measured(["a"], False, 1, log)
    assert [(line.what, line.ours, line.runs) for line in lines] == [("a", 2.0, 3), ("b", 4.0, 1)]
    lines = bench.measured(["a"], True, 1, log)  # reduced sizes are apart
    assert [(line.what, line.ours) for line in lines] == [("a", 2.0), ("a", 5.0), ("b", 4.0)]


def test_what_two_prepared_files_differ_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, and what only one of them has, by place; items are told apart only by their values."""
    monkeypatch.syspath_prepend(str(SPEED))
    differences = __import__("prepare_ratio").differences
    old = {
        "head": {"version": 1},
        "items": {"a": {"spans": [[0, 1, 2]], "chars": [3]}, "b": {"spans": [[0, 2, 4]]}},
    }
    new = {
        "head": {"version": 2},
        "items": {"a": {"spans": [[0, 1, 2]], "ranks": [1]}, "b": {"spans": [[0, 2, 4]]}},
    }
    assert differences(old, old) == (set(), set())
    assert differences(old, new) == ({"head.version"}, {"items.*.chars", "items.*.ranks"})
    new["items"]["b"]["spans"] = [[0, 2, 5]]  # type: ignore[index]
    assert differences(old, new)[0] == {"head.version", "items.*.spans.*.*"}
    new["items"]["b"]["spans"] = []
    assert differences(old, new)[0] == {"head.version", "items.*.spans"}
