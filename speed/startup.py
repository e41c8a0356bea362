"""What the start-up hook adds to Python's start and to `lm_eval --help`, and how long `icr` takes: medians of
starts in turn.

    python speed/startup.py                       # 200 starts of Python and of each command

Two empty environments that see this one's packages, one with the hook's files and one without, are started in
turn; CPU seconds of the process (user + system) beside wall time, which other work on the machine changes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import py_compile
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

# As the installed command does; `python -m lm_eval` imports the same.
HELP = (
    "import sys; sys.argv = ['lm_eval', '--help']; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
)
HOOK = ("icr_tasks_autoload.py", "icr_tasks_autoload.pth", "icr_tasks_autoload.start")


def environments(folder: Path) -> dict[str, Path]:
    """{"without": python, "with": python}; both import this environment's packages without its hooks."""
    here = Path(sysconfig.get_paths()["purelib"])
    if not (here / HOOK[1]).exists():
        raise SystemExit(f"no start-up hook in {here}; install icr-tasks first")
    package = importlib.util.find_spec("icr_tasks")
    if package is None or package.origin is None:
        raise SystemExit("icr-tasks is not installed")
    ours = str(Path(package.origin).parent.parent)  # a checkout, where the install is editable
    found = {}
    for name in ("without", "with"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / name)], check=True)
        (site,) = (folder / name / "lib").glob("python*/site-packages")
        seen = [path for path in sys.path if path.endswith("site-packages") and Path(path).is_dir()]
        (site / "a_base.pth").write_text(
            "".join(f"{path}\n" for path in dict.fromkeys([str(here), *seen, ours]))
        )
        for file in HOOK if name == "with" else ():
            if (here / file).exists():
                shutil.copy(here / file, site / file)
        for module in site.glob("*.py"):  # as an installer does
            py_compile.compile(str(module), doraise=True)
        found[name] = folder / name / "bin" / "python"
    return found


def started(command: list[str]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one process. SystemExit where it fails."""
    begun = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    pid = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, n) for n in (1, 2)]
    )
    _, status, used = os.wait4(pid, 0)
    os.close(null)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


def in_turn(commands: dict[str, list[str]], times: int) -> dict[str, tuple[float, float]]:
    """Median (wall, CPU) seconds of each command, started in turn; the first start does not count."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(times + 1):
        for name, command in commands.items():
            one = started(command)
            if number:
                seen[name].append(one)
    return {
        name: (statistics.median(w for w, _ in all_), statistics.median(c for _, c in all_))
        for name, all_ in seen.items()
    }


def measure(starts: int, commands: int) -> dict[str, dict[str, tuple[float, float]]]:
    """{"interpreter" | "lm_eval --help" | "icr --help": {"without", "with"}: (wall, CPU) seconds}."""
    with tempfile.TemporaryDirectory() as folder:
        python = environments(Path(folder))
        plain = {name: [str(path), "-c", "pass"] for name, path in python.items()}
        helped = {name: [str(path), "-P", "-c", HELP] for name, path in python.items()}
        own = {"with": [sys.executable, "-m", "icr_tasks.cli", "--help"]}
        return {
            "interpreter": in_turn(plain, starts),
            "lm_eval --help": in_turn(helped, commands),
            "icr --help": in_turn(own, commands),
        }


def main() -> int:
    """Print the table; 1 where the hook costs more than 1 ms or 3 %, in CPU time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.starts, args.commands)
    if args.json:
        print(json.dumps(found))
        return 0
    print(
        "| start of | CPU ms without the hook | CPU ms with | wall ms without | wall ms with |\n"
        "|---|---:|---:|---:|---:|"
    )
    for name, two in found.items():
        cells = [
            f"{1000 * two[k][part]:.1f}" if k in two else "–" for part in (1, 0) for k in ("without", "with")
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    hook = found["interpreter"]["with"][1] - found["interpreter"]["without"][1]
    helped = found["lm_eval --help"]["with"][1] / found["lm_eval --help"]["without"][1] - 1
    print(f"\nthe hook: {1000 * hook:.2f} ms of a start of Python, {100 * helped:.1f} % of `lm_eval --help`")
    return int(hook > 0.001 or helped > 0.03)


if __name__ == "__main__":
    sys.exit(main())
