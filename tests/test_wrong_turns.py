"""What a stranger's shell may be like: closed streams, a terminal without our signs, places that cannot be written, no
home folder. Each ends well or with one sentence that says what to do."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from icr_tasks import storage
from icr_tasks.cli import demo, main
from icr_tasks.errors import IcrError

RESULTS = Path(__file__).resolve().parent.parent / "results" / "SmolLM2-135M-Instruct"
ICR = f"{shlex.quote(sys.executable)} -P -m icr_tasks.cli"
COMPARE = f"{ICR} compare {RESULTS}/full/3cacc5e9b8a3 {RESULTS}/gold@only/c105b5cfa8f1"


def shell(line: str, **env: str) -> tuple[int, str]:
    """Exit code and stderr of a shell's line."""
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str, tmp_path: Path) -> None:
    """What is printed goes nowhere, and above all not into a file that the command writes."""
    code, said = shell(f"cd {tmp_path} && {COMPARE} --flips flips.md {closed}")
    assert code == 0 and "Traceback" not in said, said
    assert [p.name for p in tmp_path.iterdir()] == ["flips.md"]
    assert (tmp_path / "flips.md").read_text(encoding="utf-8").startswith("# ")


def test_a_terminal_without_our_signs_shows_the_rest() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    for more in ({}, {"LC_ALL": "", "PYTHONIOENCODING": "latin-1"}):
        code, said = shell(COMPARE, **{**plain, **more})
        assert code == 0 and "Traceback" not in said, said


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("icr_tasks.cli.check.main", interrupted)
    assert main(["check", "results"]) == 130  # none of a gate's verdicts
    assert capsys.readouterr().err.split("\n")[1:] == ["icr: `icr check` was interrupted: run it again", ""]


def test_a_place_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
    place = tmp_path / "afile"
    place.touch()
    for out in (place, place / "below"):
        assert main(["train", "data", "--synth", "4", "--length", "512", "-o", str(out)]) == 2
        said = capsys.readouterr().err
        assert f"cannot use {out}" in said and "another place" in said and "Traceback" not in said


def test_the_demo_asks_again_when_the_weights_of_a_folder_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icr_tasks.leaderboard.ledgers import collect, summary

    model, out, asked = tmp_path / "model", tmp_path / "out", []
    for folder in (model, out):
        folder.mkdir()
    monkeypatch.setattr(demo, "_evaluate", lambda *_: asked.append(1))
    monkeypatch.setattr(demo, "_board", lambda *_: None)
    monkeypatch.setattr(collect, "collect", lambda *_: [])
    monkeypatch.setattr(summary, "table", lambda *_: "")
    for weights, times in ((b"one", 1), (b"one", 1), (b"two", 2)):
        (model / "model.safetensors").write_bytes(weights * 9)
        assert demo._run(out, str(model), ["512"], 4) == 0 and len(asked) == times


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_the_demo_refuses_a_place_before_it_loads_a_model(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(demo, "_run", lambda *_: pytest.fail("the model would be loaded"))
    (tmp_path / "afile").touch()
    out = tmp_path / "afile" / ("" if what == "a file" else "out")
    with pytest.raises(IcrError, match="cannot write .*afile.*choose another folder with -o"):
        demo.main(["-o", str(out)])


def test_a_cache_that_cannot_be_made_says_how_to_move_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "afile").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "afile"))
    note = storage.cache_root() / "index" / "one.json"
    for write in (
        lambda: storage.write_atomic(note, b"{}"),
        lambda: storage.replacing_folder(note).__enter__(),
    ):
        with pytest.raises(IcrError, match="cache folder .*afile.*: set XDG_CACHE_HOME to one that can"):
            write()
    # nobody's cache: the command that names the place says so itself
    with pytest.raises(NotADirectoryError):
        storage.write_atomic(tmp_path / "afile" / "other" / "one.json", b"{}")


def test_a_cache_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(IcrError, match="cannot be written .no permission.: set XDG_CACHE_HOME"):
        storage.write_atomic(storage.cache_root() / "one.json", b"{}")


def test_no_home_folder_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(IcrError, match="no home folder for the cache: set XDG_CACHE_HOME"):
        storage.cache_root()
