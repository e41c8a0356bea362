"""A session says which modules it left out, and fails where something installed should have run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import pytest


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("could not import 'json': No module named 'x'", "json"),
        ("could not import 'json.no_such_part': broken", "json"),
        ("orjson is not installed", "orjson"),
        ("could not import 'no_such_package': No module named 'no_such_package'", None),
        ("no-such-package is not installed", None),
        ("no replica data: set ICR_DATA_DIR", None),
    ],
)
def test_what_a_reason_says(reason: str, name: str | None) -> None:
    assert conftest.should_have_run(reason) == name


@pytest.mark.parametrize(("wanted", "code"), [("json.no_such_part", 1), ("no_such_package", 0)])
def test_the_session_fails_for_what_should_have_run(wanted: str, code: int, tmp_path: Path) -> None:
    shutil.copy(Path(conftest.__file__), tmp_path / "conftest.py")
    (tmp_path / "test_left_out.py").write_text(f"import pytest\npytest.importorskip({wanted!r})\n")
    (tmp_path / "test_there.py").write_text("def test_passes():\n    pass\n")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == code, done.stdout
    assert "1 whole test modules were skipped" in done.stdout and "1 passed" in done.stdout
    assert ("should have run, json is installed" in done.stdout) == bool(code)
