"""What a user gets from the wheel: nothing stray, no heavy import, every module importable without torch or
vllm."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a clean export of the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "-q",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(folder),
            str(source),
        ],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_wheel_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as zipped:
        names = zipped.namelist()
        entry = zipped.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    top = {n.split("/")[0] for n in names}
    assert top == {
        "icr_tasks",
        "icr_tasks-0.1.0.dist-info",
        "icr_tasks_autoload.py",
        "icr_tasks_autoload.pth",
        "icr_tasks_autoload.start",
    }
    assert "icr_tasks/leaderboard/ledgers/collect.py" in names and "icr_tasks/training/__init__.py" in names
    assert (
        "icr_tasks/tasks/helmet_rag/nq_4k.yaml" in names
        and "icr_tasks/tasks/helmet_rag/_common_yaml" in names
    )
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert (
        "icr = icr_tasks.cli:main" in entry
        and "[lm_eval.tasks]" in entry
        and "icr_tasks = icr_tasks.tasks" in entry
    )


def test_installed_from_the_wheel_nothing_heavy_is_imported(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(target)], check=True)
    code = (
        "import sys, pkgutil, importlib\n"
        f"sys.path.insert(0, {str(target)!r})\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'vllm', 'transformers', 'openai', 'bm25s', "
        "'sentence_transformers', 'trl'):\n"
        "            raise ImportError(name + ' is not part of the base install')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import icr_tasks\n"
        f"assert icr_tasks.__file__.startswith({str(target)!r}), icr_tasks.__file__\n"
        "light = ('icr_tasks.cli', 'icr_tasks.benchmarks', 'icr_tasks.metrics', 'icr_tasks.context', "
        "'icr_tasks.leaderboard', 'icr_tasks.harness.hooks', 'icr_tasks.harness.saving', "
        "'icr_tasks.harness.options')\n"
        "names = [m.name for m in pkgutil.walk_packages(icr_tasks.__path__, 'icr_tasks.') if "
        "m.name.startswith(light)]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 30


def test_fresh_environment_gets_the_commands_and_nothing_stray(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    assert {p.name for p in site.iterdir()} - {"__pycache__"} == {
        "icr_tasks",
        "icr_tasks-0.1.0.dist-info",
        "icr_tasks_autoload.py",
        "icr_tasks_autoload.pth",
        "icr_tasks_autoload.start",
    }
    (site / "zz_dependencies.pth").write_text(
        sysconfig.get_paths()["purelib"] + "\n"
    )  # spares downloading them again
    done = subprocess.run([str(venv / "bin" / "icr"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "collect" in done.stdout
    done = subprocess.run([str(venv / "bin" / "icr"), "colect"], capture_output=True, text=True)
    assert done.returncode == 2 and "Did you mean 'collect'" in done.stderr


def test_leaderboard_imports_no_heavy_library() -> None:
    code = (
        "import sys, pkgutil, importlib, icr_tasks.leaderboard as lb\n"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(lb.__path__, "
        "'icr_tasks.leaderboard.')]\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'lm_eval'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr[-500:]


def test_ci_tests_the_installed_package_not_the_checkout() -> None:
    if not os.environ.get("ICR_CI"):
        pytest.skip("only the gate installs a wheel")
    import icr_tasks

    assert "site-packages" in icr_tasks.__file__


def test_no_machine_paths_in_tracked_files() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    words = ("/" + "work/", "/" + "root/", "/" + "opt/" + "wheels", "pypi" + ".org")
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".in", ""):
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [w for w in words if w in text], name
