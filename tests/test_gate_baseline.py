"""Pinned baselines: moved only on purpose, never by slides; and A/A runs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gatekit
import pytest

from icr_tasks.cli import main

WIDE = ("--margin", "20", "--benchmark-margin", "30")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def _write(model: str, seed: int = 0, right: float = 0.7, root: str = "results", worse: int = 0) -> str:
    rows = gatekit.rows(seed, right)
    for items in rows.values():
        for row in [r for r in items if next(iter(r["score"].values())) == 1.0][: worse * len(items) // 100]:
            row["score"] = {m: 0.0 for m in row["score"]}
    return str(gatekit.write(Path(root), rows, model=model))


def test_set_show_and_gate_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    base = _write("org/base")
    assert main(["baseline", "show"]) == 0 and "no baselines" in capsys.readouterr().out
    assert main(["baseline", "set", "main", base]) == 0
    stored = json.loads(Path("baselines/main.json").read_text())
    [pin] = stored["pins"]
    assert pin["fingerprint"] == Path(base).name and pin["first"]["fingerprint"] == pin["fingerprint"]
    assert len(pin["items_sha256"]) == 64 and pin["history"][0]["verdict"] == "PASS"
    capsys.readouterr()
    assert main(["baseline", "show", "main"]) == 0 and pin["fingerprint"] in capsys.readouterr().out
    assert main(["baseline", "show", "--json"]) == 0 and json.loads(capsys.readouterr().out)["main"][0] == pin
    assert main(["gate", _write("org/new"), "--baseline", "main"]) == 0
    assert main(["gate", _write("org/bad", 1, 0.4), "--baseline", "main"]) == 1
    assert main(["baseline", "show", "mian"]) == 2 and "Did you mean 'main'" in capsys.readouterr().err


def test_set_refuses_what_does_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    main(["baseline", "set", "main", _write("org/base")])
    bad = _write("org/bad", 1, 0.4)
    before = Path("baselines/main.json").read_text()
    assert main(["baseline", "set", "main", bad]) == 1
    assert "stays as it is: REGRESSED against the current baseline" in capsys.readouterr().err
    assert main(["baseline", "set", "main", _write("org/noisy", 1, 0.68)]) == 3
    assert Path("baselines/main.json").read_text() == before
    with pytest.raises(SystemExit) as stop:
        main(["baseline", "set", "main", bad, "--force"])
    assert stop.value.code == 2
    assert main(["baseline", "set", "main", bad, "--force", "--why", "new tokenizer"]) == 0
    [pin] = json.loads(Path("baselines/main.json").read_text())["pins"]
    assert pin["model"] == "org/bad" and pin["history"][-1]["why"] == "new tokenizer"
    assert [h["verdict"] for h in pin["history"]] == ["PASS", "REGRESSED"]


def test_a_slow_slide_is_stopped_by_the_first_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "set", "main", _write("org/m0")]) == 0
    assert main(["baseline", "set", "main", _write("org/m1", worse=14), *WIDE]) == 0
    third = _write("org/m2", worse=28)
    assert main(["gate", third, "--baseline", "main", *WIDE]) == 0  # passes against the current one
    assert "vs the first baseline" in capsys.readouterr().out
    assert json.loads(Path("gate/gate.json").read_text())["first_baseline"]["verdict"] == "REGRESSED"
    assert main(["baseline", "set", "main", third, *WIDE]) == 1
    assert "against the first baseline" in capsys.readouterr().err


def test_a_replaced_or_missing_ledger_is_not_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    base = _write("org/base")
    main(["baseline", "set", "main", base])
    new = _write("org/new", root="new")
    _write("org/base", seed=5)  # the same run made again, other answers
    assert main(["gate", new, "--baseline", "main"]) == 4
    assert "is no longer the run" in json.loads(Path("gate/gate.json").read_text())["reason"]
    assert main(["gate", new, "--baseline", "main", "--results", "new"]) == 4
    assert "not below new" in capsys.readouterr().out


def test_settings_have_their_own_pins() -> None:
    main(["baseline", "set", "main", _write("org/base")])
    other = str(gatekit.write(Path("results"), gatekit.rows(), setting="none"))
    assert main(["gate", other, "--baseline", "main"]) == 4
    assert "no run for none" in json.loads(Path("gate/gate.json").read_text())["reason"]
    assert main(["baseline", "set", "main", other]) == 0
    assert len(json.loads(Path("baselines/main.json").read_text())["pins"]) == 2


def test_partial_runs_cannot_be_pinned(capsys: pytest.CaptureFixture[str]) -> None:
    rows = gatekit.rows()
    rows["icr_loong_fin"].pop()
    assert main(["baseline", "set", "main", str(gatekit.write(Path("results"), rows))]) == 4
    assert "partial: icr_loong_fin" in capsys.readouterr().err and not Path("baselines").exists()


def test_broken_baseline_files_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    base = _write("org/base")
    Path("baselines").mkdir()
    Path("baselines/main.json").write_text('{"schema": 1')
    assert main(["baseline", "set", "main", base]) == 2
    assert main(["gate", _write("org/new"), "--baseline", "main"]) == 2
    assert "main.json: not a baseline file" in capsys.readouterr().err
    Path("baselines/main.json").write_text('{"schema": 7, "pins": []}')
    assert main(["baseline", "show", "main"]) == 2 and "schema 7" in capsys.readouterr().err
    assert main(["baseline", "set", "../main", base]) == 2


def test_aa_measures_noise(capsys: pytest.CaptureFixture[str]) -> None:
    base, again = _write("org/base"), _write("org/base", root="again", worse=1)
    third = _write("org/base", root="third")
    assert main(["gate", again, third, "--baseline", base, "--aa"]) == 0
    out = capsys.readouterr().out
    assert "repetition 1: suite −" in out and "first other answer" not in out.splitlines()[2]
    assert "keep --margin above" in out
    assert main(["gate", again, "--baseline", base, "--aa", "--json"]) == 0
    [one] = json.loads(capsys.readouterr().out)["repetitions"]
    assert one["n"] == 660 and 0 < one["flipped"] < 0.02 and one["delta"]["suite"] < 0
    assert main(["gate", base, "--baseline", base, "--aa"]) == 4 and "given twice" in capsys.readouterr().err
    assert main(["gate", _write("org/new"), "--baseline", base, "--aa"]) == 4
    assert "these differ: model, model_args" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda pins: pins[0].update(looks=None), "a look of full (ao) has no items_sha256"),
        (lambda pins: pins[0].update(looks=[{"verdict": "PASS"}]), "a look of full (ao) has no items_sha256"),
        (lambda pins: pins[0].update(first=None), "the first baseline of full (ao) has no fingerprint"),
        (lambda pins: pins[0]["first"].pop("items_sha256"), "the first baseline of full (ao) has no"),
        (lambda pins: pins[0].update(history=[]), "full (ao) has no history"),
        (lambda pins: pins[0].update(history=[1]), "full (ao) has no history"),
        (lambda pins: pins[0].update(fingerprint=None), "a pin without setting, prompt, fingerprint or"),
        (lambda pins: pins.append(dict(pins[0])), "full (ao) is pinned twice"),
    ],
)
def test_an_edited_baseline_file_is_named(capsys: pytest.CaptureFixture[str], edit: Any, words: str) -> None:
    """Each was a traceback, and of two pins for one setting the gate took the first."""
    body = baseline_file()
    edit(body["pins"])
    Path("baselines").mkdir()
    Path("baselines/main.json").write_text(json.dumps(body))
    said = f"baselines/main.json: not a baseline file ({words}"
    assert main(["baseline", "show", "main"]) == 2 and said in capsys.readouterr().err
    assert (
        main(["gate", "results", "--baseline", "main", "--record"]) == 2 and said in capsys.readouterr().err
    )


@cache
def _pinned() -> str:
    assert main(["baseline", "set", "main", str(_write("org/base"))]) == 0
    text = Path("baselines/main.json").read_text()
    Path("baselines/main.json").unlink()
    Path("baselines").rmdir()
    return text


def baseline_file() -> Any:
    """A file with one pin of a run that stands in `results`."""
    _write("org/base")
    return json.loads(_pinned())
