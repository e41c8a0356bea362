"""Whatever happens to a sweep, going on gives the ledger of an undisturbed one, and no stored answer is made
again."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml

from icr_tasks.cli import main
from icr_tasks.harness import run

KILLS = 20


def study(folder: Path, **more: Any) -> Path:
    """A study of four cells and twenty items, ten of them shared prompts of nobody."""
    model = {
        "name": "toy",
        "model": "counting",
        "model_args": {"pretrained": "counting", "tokenizer": "none"},
    }
    body = {
        "imports": ["sweep_models"],
        "models": [{**model, "in_flight": 1, **more.pop("model", {})}],
        "prompts": ["ao"],
        "settings": ["full", "gold"],
        "tasks": ["icr_synth_rag_512", "icr_synth_rag_1k"],
        "limit": 5,
        **more,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An undisturbed sweep: its study, ledgers, events and seconds."""
    import sweep_models  # noqa: F401  (before the forks)

    run.environment()
    folder = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTING_LOG", str(folder / "calls"))
        path, started = study(folder), time.monotonic()
        events = faults.count_events(path, folder / "out")
        seconds = time.monotonic() - started
    assert len(calls(folder)) == 20
    yield {"study": path, "ledgers": faults.ledgers(folder / "out"), "events": events, "seconds": seconds}


@pytest.fixture(autouse=True)
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTING_LOG", str(tmp_path / "calls"))


def calls(folder: Path) -> list[str]:
    """One entry a generated answer: the prompt's hash."""
    path = folder / "calls"
    return [line.split()[-1] for line in path.read_text().splitlines()] if path.exists() else []


def test_twenty_kills_change_nothing(calm: dict[str, Any], tmp_path: Path) -> None:
    found = faults.kill_often(calm["study"], tmp_path, KILLS, 1, calm["events"], calm["seconds"])
    assert found["killed"] == KILLS
    for number in range(found["rounds"]):
        assert faults.ledgers(tmp_path / f"round-{number}") == calm["ledgers"]
    # A kill loses at most the one request in flight (in_flight: 1).
    assert len(calls(tmp_path)) <= 20 * found["rounds"] + KILLS


@pytest.mark.parametrize(
    "limit", [900, 6000]
)  # bytes a file: the answers do not fit, lm_eval's output does not fit
def test_a_full_disk_keeps_what_is_stored(calm: dict[str, Any], tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out"

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # The log of the child must not be what hits the limit.
    pid = faults.child(calm["study"], out, before=full, log=Path("/dev/null"))
    assert faults.finish(pid) in (1, 2)
    [store] = (out / "answers").glob("*.jsonl")
    lines = store.read_bytes()
    assert lines.endswith(b"\n") and all(json.loads(line)["text"] for line in lines.splitlines())
    kept = lines.count(b"\n")
    assert kept > 0 and not list((out / "cells").glob(".*"))
    assert faults.finish(faults.child(calm["study"], out)) == 0
    assert faults.ledgers(out) == calm["ledgers"]
    assert len(calls(tmp_path)) <= 20 + (kept < 20)


def test_damaged_files_are_found_said_and_made_again(
    calm: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "out", ["sweep", str(calm["study"]), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert len(calls(tmp_path)) == 20
    samples = sorted((out / "lm_eval").rglob("samples_*"))
    samples[0].write_bytes(samples[0].read_bytes()[:-30])  # last line cut
    sorted((out / "cells").glob("*.json"))[-1].write_text('{"schema": 1, "stat')
    ledger = next((out / "results").rglob("items.jsonl.gz"))
    ledger.write_bytes(ledger.read_bytes()[:-20])
    capsys.readouterr()
    assert main(["status", str(calm["study"]), "-o", str(out), "--check"]) == 1
    assert "2 partial" in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "is damaged or gone; the cell is scored again" in said and "the record of" in said
    assert len(calls(tmp_path)) == 20 and faults.ledgers(out) == calm["ledgers"]


def test_a_cut_off_answer_is_generated_again(
    calm: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "out", ["sweep", str(calm["study"]), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    [store] = (out / "answers").glob("*.jsonl")
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join([*lines[:7], b"\x00" * 40 + b"\n", *lines[8:-1], lines[-1][:-9]]))
    for path in (out / "cells").glob("*.json"):
        path.unlink()
    assert main(command) == 0
    assert "2 damaged lines in the answer store skipped" in capsys.readouterr().err
    assert len(calls(tmp_path)) == 22 and faults.ledgers(out) == calm["ledgers"]


def test_two_sweeps_on_one_folder(calm: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    pids = [faults.child(calm["study"], out, log=tmp_path / f"log{i}") for i in range(2)]
    assert [faults.finish(pid) for pid in pids] == [0, 0]
    assert faults.ledgers(out) == calm["ledgers"]
    assert len(calls(tmp_path)) == 20 == len(set(calls(tmp_path)))  # nothing was generated twice


def test_interrupt_ends_cleanly_and_says_how_to_go_on(calm: dict[str, Any], tmp_path: Path) -> None:
    path = study(
        tmp_path, model={"model_args": {"pretrained": "counting", "tokenizer": "none", "delay": 0.3}}
    )
    out = tmp_path / "out"
    for number, sign in enumerate((signal.SIGINT, signal.SIGTERM)):
        before = len(calls(tmp_path))
        pid = faults.child(path, out)
        wait_for(lambda before=before: len(calls(tmp_path)) >= before + 3)
        os.kill(pid, sign)
        if (
            sign == signal.SIGTERM
        ):  # a scheduler's reaches a worker twice: with its group, and from its parent
            time.sleep(0.02)
            os.kill(pid, sign)
        assert faults.finish(pid) == 130
        assert "Traceback" not in (tmp_path / "out.log").read_text()
        assert (tmp_path / "out.log").read_text().count(f"go on with: icr sweep {path} -o") == number + 1
    assert main(["status", str(path), "-o", str(out), "--check"]) == 1
    assert faults.finish(faults.child(path, out)) == 0
    assert len(calls(tmp_path)) <= 20 + 2 and len(set(calls(tmp_path))) == 20


def wait_for(condition: Any, seconds: float = 100.0) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
