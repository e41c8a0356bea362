"""What a project says about itself agrees with itself: versions, licences, hooks, workflows, templates."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
import yaml

from icr_tasks.cli import main

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements/cpu.txt").read_text(), re.M))


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / ".ci" / "licences.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None
    assert cited["version"] == newest.group(1) == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors", "references"} <= cited.keys()


def test_the_metadata_are_complete() -> None:
    pythons = {c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["pythons"]["strategy"]
    assert pythons == set(matrix["matrix"]["python"])
    assert PROJECT["requires-python"] == ">=" + min(pythons, key=lambda v: int(v.split(".")[1]))
    assert "Typing :: Typed" in PROJECT["classifiers"] and (ROOT / "icr_tasks/py.typed").exists()
    assert PROJECT["authors"] and PROJECT["keywords"] and PROJECT["urls"]


def test_every_dependency_has_its_licence(licences: ModuleType) -> None:
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| `([^`]+)` \| (?:.*) \| (.+) \|$", page.partition("## Data")[0], re.M))
    assert lines.keys() == licences.asked().keys()
    for package, said in lines.items():
        extras = ", ".join(f"`{e}`" for e in licences.asked()[package])
        assert f"| `{package}` | {extras} | {said} |" in page
        try:
            same = version(package) == PINS.get(package)
        except PackageNotFoundError:
            same = False
        if same:  # another version may word it differently
            assert licences.licence(package) == said, package


def test_a_package_without_a_known_licence_is_an_error(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(licences, "asked", lambda: {"no-such-package-of-ours": ["base"]})
    with pytest.raises(ValueError, match="no-such-package-of-ours is not installed and has no line"):
        licences.table("")


def test_data_licences_name_every_benchmark_that_is_fetched() -> None:
    from icr_tasks.registry import BENCHMARKS

    data = (ROOT / "docs/licences.md").read_text(encoding="utf-8").partition("## Data")[2].lower()
    plain = re.sub(r"[^a-z0-9]", "", data)
    for name in BENCHMARKS:
        short = {"infbench": "infinitebench", "loong_fin": "loong"}.get(name, name)
        assert re.sub(r"[^a-z0-9]", "", short) in plain, name


def test_hooks_use_the_ruff_of_the_lock() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    ruff = [h for h in hooks if h["id"].startswith("ruff")]
    assert len(ruff) == 2 and all(h["additional_dependencies"] == [f"ruff=={PINS['ruff']}"] for h in ruff)


def test_hooks_run_files_that_exist() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    files = [word for hook in hooks for word in hook["entry"].split() if "/" in word or word.endswith(".py")]
    assert files and all((ROOT / name).is_file() for name in files), files


def test_an_action_has_one_version_in_the_workflows_and_on_the_pages() -> None:
    """Pages show workflows to copy: what they name and what runs here grow old together."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / ".github/workflows").glob("*.yml"), *(ROOT / "docs").glob("*.md")]:
        for name, at in re.findall(r"uses: (\S+)@(\S+)", path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(at)
    assert "actions/checkout" in found and all(len(versions) == 1 for versions in found.values()), found


def test_workflows_run_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    seen = set()
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        flow = yaml.safe_load(path.read_text())
        assert flow["permissions"] == {"contents": "read"}, path
        for job in flow["jobs"].values():
            for step in job["steps"]:
                for line in step.get("run", "").splitlines():
                    if line.startswith("make "):
                        seen.add(line.split()[1])
                    elif line.startswith(".ci/"):
                        assert (ROOT / line.split()[0]).exists(), line
    assert seen and seen <= targets


def test_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.M))
        assert named <= targets, (page.name, named - targets)


def test_issue_templates_are_forms() -> None:
    forms = [p for p in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) if p.name != "config.yml"]
    assert len(forms) >= 3
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"] and form["body"], path
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) and all(part["attributes"]["label"] for part in form["body"]), path


def test_files_that_the_habits_name_exist() -> None:
    for page in ("CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tests|docs|icr_tasks|requirements|\.ci)/[\w./-]+)`", text):
            assert (ROOT / name).exists(), (page, name)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_release_check_is_a_script_that_parses() -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / ".ci/release_check")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("version", "system"), [((3, 10), "linux"), ((3, 14), "linux"), ((3, 12), "darwin")])
def test_make_names_the_python_it_needs(version: tuple[int, int], system: str, tmp_path: Path) -> None:
    """Before anything is installed, in a sentence: a stranger's python3 is often an old one."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"sys.version_info, sys.platform = {(*version, 1, 'final', 0)}, {system!r}\nexec(sys.argv[2])\n"
    )
    python.chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and not (tmp_path / "venv").exists()
    said = f"this is Python {version[0]}.{version[1]} on {system}: name another by PYTHON=python3.12"
    assert said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_system_without_file_locks_is_told_what_to_do() -> None:
    code = "import sys; sys.modules['fcntl'] = None; from icr_tasks.cli import main; sys.exit(main(['collect', '--help']))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "on Windows run it inside WSL" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "no space left (out.parquet)"), (errno.EIO, "Traceback")]
)
def test_a_full_disk_is_one_sentence(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a library writes (parquet); what is no matter of space stays a traceback. Exit code 2, never a verdict's."""

    def fails(path: Path) -> NoReturn:
        raise OSError(number, os.strerror(number), "out.parquet")

    monkeypatch.setattr("icr_tasks.cli.check.main", lambda argv: fails(Path()))
    assert main(["check", "results"]) == 2
    err = capsys.readouterr().err
    assert said in err and ("Traceback" in err) == (said == "Traceback")


def test_a_closed_pipe_is_no_error_and_no_pass() -> None:
    """`icr --help | true`: nothing on stderr, and a status that no gate gives."""
    command = [
        sys.executable,
        "-P",
        "-c",
        "from icr_tasks.cli import main; import sys; sys.exit(main(['--help']))",
    ]
    for unbuffered in ("", "1"):  # the pipe is found closed at the last flush, or at the first line
        run = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        assert run.stdout is not None
        run.stdout.close()
        _, said = run.communicate(timeout=60)
        assert said == "" and run.returncode in (0, 141), (unbuffered, run.returncode, said)
        assert unbuffered == "" or run.returncode == 141


@pytest.mark.parametrize(
    ("module", "command", "said"),
    [
        ("numba", ["train", "data", "--help"], 'pip install ".[train]"'),
        ("nosuch_of_ours", ["check", "--help"], "Traceback"),
    ],
)
def test_a_missing_package_names_its_extra(module: str, command: list[str], said: str) -> None:
    """A package of an extra is one sentence; a module that no extra brings stays a traceback. Exit code 2 for both."""
    code = (
        "import sys, importlib.abc\n"
        "class Without(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r} or name == 'icr_tasks.cli.check':\n"
        f"            raise ModuleNotFoundError('No module named {module}', name={module!r})\n"
        "sys.meta_path.insert(0, Without())\n"
        "from icr_tasks.cli import main\n"
        f"sys.exit(main({command!r}))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert ("Traceback" in done.stderr) == (said == "Traceback")
