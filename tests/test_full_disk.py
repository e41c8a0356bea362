"""A disk that fills at any write: what a command makes is there whole or not at all, nothing is left beside it, no
folder is left empty, and one sentence says why."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from icr_tasks.cli import main
from icr_tasks.storage import making, replacing, replacing_folder, write_atomic

ROOT = Path(__file__).resolve().parent.parent
MODEL = "SmolLM2-135M-Instruct"
RESULTS = ROOT / "results" / MODEL
PAIR = [str(next((RESULTS / setting).iterdir())) for setting in ("full", "gold@only")]
# What writes, with {out} where it writes to.
COMMANDS = {
    "flips": ["compare", *PAIR, "--flips", "{out}/flips.md"],
    "eee": ["export", "eee", str(RESULTS), "-o", "{out}/new", "--model", f"{MODEL}=org/model"],
    "parquet": ["export", "parquet", str(RESULTS), "-o", "{out}/new"],
    "items": ["board", str(RESULTS), "-o", "{out}/new", "--items", "csv"],
    "publish": ["publish", str(RESULTS), "--to", "{out}/new"],
    "gate": ["gate", PAIR[1], "--baseline", PAIR[0], "-o", "{out}/new"],
}


def limited(name: str, out: Path, limit: int) -> tuple[int, str]:
    """Exit code and stderr of a command while no file can grow beyond `limit` bytes (0: as it is)."""

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    line = [one.replace("{out}", str(out)) for one in COMMANDS[name]]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "icr_tasks.cli", *line],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=full if limit else None,
    )
    return done.returncode, done.stderr


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with what is in them, folders with None."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_leaves_whole_files_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    good = tmp_path / "good"
    good.mkdir()
    code, said = limited(name, good, 0)
    assert code in (0, 4) and "Traceback" not in said, said  # 4: the runs of the study are samples
    whole = tree(good)
    largest = max(len(data) for data in whole.values() if data is not None)
    for limit in (1, largest - 1):
        out = tmp_path / f"limit-{limit}"
        out.mkdir()
        code, said = limited(name, out, limit)
        assert code == 2 and "Traceback" not in said and "File too large" in said, (limit, said)
        left = tree(out)
        assert set(left) <= set(whole), (limit, set(left) - set(whole))
        filled = {str(p) for file, data in left.items() if data is not None for p in Path(file).parents}
        for path, data in left.items():
            assert path in filled if data is None else data, (limit, path)


def test_an_export_of_nothing_leaves_no_folder(tmp_path: Path) -> None:
    assert main(["export", "eee", str(RESULTS), "-o", str(tmp_path / "new" / "deep")]) == 2
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    """Files, folders and the folders made for them; what was there before stays."""
    for write in (replacing, replacing_folder, making):
        with pytest.raises(OSError, match="full"), write(tmp_path / "a" / "b" / "new") as place:
            if write is replacing_folder:
                (place / "half").write_text("h")
            elif write is replacing:
                place.write_text("h")
            raise OSError("full")
        assert not list(tmp_path.iterdir()), write
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("o")
    for write, path in ((replacing_folder, "old"), (replacing, "old/file"), (making, "old/more")):
        with pytest.raises(OSError, match="full"), write(tmp_path / path):
            raise OSError("full")
        assert tree(tmp_path) == {"old": None, "old/file": b"o"}, write


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    write_atomic(Path("/dev/null"), b"new")
    assert not Path("/dev/null").is_file()
