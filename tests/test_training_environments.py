"""The environments of docs/training.md resolve, and those that cannot share one are declared as conflicts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES = re.findall(
    r"`pip install \"\.\[([\w,-]+)\]\"`[^|]*\| ([^|]+) \|", (ROOT / "docs" / "training.md").read_text()
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_documented_sets_name_extras_that_exist() -> None:
    assert len(LINES) >= 6
    assert {name for extras, _ in LINES for name in extras.split(",")} <= EXTRAS.keys()


def test_conflicts_are_declared_and_no_documented_set_is_one() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["conflicts"]
    groups = [{entry["extra"] for entry in group} for group in declared]
    for one, other in (("kv", "cpu"), ("kv", "vllm"), ("kv", "train-vllm"), ("cpu", "vllm")):
        assert any({one, other} <= group for group in groups), (one, other)
    for extras, _ in LINES:
        assert all(len(group & set(extras.split(","))) <= 1 for group in groups), extras


def _resolve(*extras: str) -> subprocess.CompletedProcess[str]:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None or not os.environ.get("ICR_TEST_RESOLVE"):
        pytest.skip("asks the package index: set ICR_TEST_RESOLVE=1 and install uv")
    command = [
        uv,
        "pip",
        "compile",
        "pyproject.toml",
        "--python-version",
        "3.11",
        "--no-header",
        "--no-annotate",
        "-q",
    ]
    command += ["--python-platform", "x86_64-unknown-linux-gnu", *(a for e in extras for a in ("--extra", e))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("extras", "resolved"), LINES)
def test_each_documented_set_resolves(extras: str, resolved: str) -> None:
    run = _resolve(*extras.split(","))
    assert run.returncode == 0, run.stderr
    found = dict(line.split("==") for line in run.stdout.splitlines() if "==" in line)
    for name in re.findall(r"([a-z-]+) \d", resolved):
        assert name in found, f"{name} is documented for [{extras}] but not installed by it"
    if "train-vllm" in extras:  # the range trl 1.16 declares
        assert (0, 22) <= tuple(map(int, found["vllm"].split(".")[:2])) <= (0, 31)


def test_kv_and_cpu_cannot_be_resolved() -> None:
    run = _resolve("kv", "cpu")
    assert run.returncode != 0 and "transformers" in run.stderr
