"""What of this installation works, and why what does not: the facts that `icr doctor` shows."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from .. import __version__, benchmarks, plugins
from ..benchmarks import catalog
from ..credentials import redact_text, redact_url
from ..engines.served.address import key_of, server_of
from ..engines.served.client import Unreachable
from ..engines.served.listing import listing
from ..errors import IcrError, install_hint, unknown
from ..storage import cache_root, data_root

_TRIED = 300.0  # seconds an engine may take to import


@dataclass(frozen=True)
class Finding:
    """One thing: whether it can be used, what was seen, and what mends it. `usable` None: nobody asked for
    it, and it is not complete."""

    name: str
    usable: bool | None
    detail: str
    fix: str = ""

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Engine:
    """An engine: its lm-eval model names, the extras that bring it (any one is enough), what is imported to
    try it."""

    models: tuple[str, ...]
    extras: tuple[str, ...]
    statement: str


ENGINES = {
    "vllm": Engine(("icr-vllm", "vllm"), ("vllm", "cpu"), "from vllm import LLM, SamplingParams"),
    "hf": Engine(
        ("icr-hf", "hf"), ("hf",), "import torch, accelerate; from transformers import AutoModelForCausalLM"
    ),
    "api": Engine(("icr-api",), ("api",), "import aiohttp, tenacity"),
    "replay": Engine(("icr-replay",), (), "import orjson"),
}


def machine() -> list[Finding]:
    """Python, this package, whether lm_eval finds the tasks, and where files go."""
    from ..harness import autoload, pin

    hooked = autoload._Imports in sys.meta_path or any(
        getattr(found, "__name__", "") == "_Imports" for found in sys.meta_path
    )
    place = cache_root()
    parent = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(parent).free / 1e9
    off = os.environ.get("ICR_LMEVAL_AUTOLOAD") == "0"
    return [
        Finding("icr-tasks", True, __version__),
        Finding("Python", True, f"{platform.python_version()}, {platform.platform()}"),
        Finding("lm-eval", (said := pin.outside()) is None, metadata.version("lm-eval"), said or ""),
        Finding(
            "start-up hook",
            hooked,
            "lm_eval finds the tasks by itself" if hooked else "lm_eval does not find the tasks by itself",
            ""
            if hooked
            else "unset ICR_LMEVAL_AUTOLOAD"
            if off
            else "run `icr lm-eval` in place of `lm_eval`",
        ),
        Finding("cache", os.access(parent, os.W_OK), f"{place}, {free:.0f} GB free", "set XDG_CACHE_HOME"),
    ]


def gpus() -> list[str]:
    """Names of the GPUs that the driver shows, each with its memory; empty without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def requirements() -> dict[str, list[Any]]:
    """Extra -> its requirements, as this package's own metadata declares them."""
    from packaging.requirements import Requirement

    names = metadata.metadata("icr-tasks").get_all("Provides-Extra") or ()
    found: dict[str, list[Any]] = {name: [] for name in names}
    for text in metadata.requires("icr-tasks") or ():
        need = Requirement(text)
        for name, needs in found.items():
            marker = need.marker
            if marker and marker.evaluate({"extra": name}) and not marker.evaluate({"extra": ""}):
                needs.append(need)
    return found


def extra(name: str, needs: list[Any]) -> Finding:
    """Whether the packages of an extra are there in versions it declares."""
    wrong, have = [], []
    for need in needs:
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is not installed")
            continue
        if need.specifier.contains(version.partition("+")[0], prereleases=True):
            have.append(f"{need.name} {version}")
        else:
            wrong.append(f"{need.name} {version} is not {need.specifier}")
    fix = install_hint(name) if wrong else ""
    return Finding(name, not wrong, "; ".join(wrong or have), fix)


def extras() -> list[Finding]:
    """Every extra."""
    return [extra(name, needs) for name, needs in requirements().items()]


def engine(name: str, cards: list[str], *, tried: bool) -> Finding:
    """An engine by name (vllm, hf, api, replay, or an lm-eval model of theirs). `tried`: import it in a
    process of its own."""
    key = next((k for k, e in ENGINES.items() if name == k or name in e.models), None)
    if key is None:
        raise unknown("engine", name, [*ENGINES, *(m for e in ENGINES.values() for m in e.models)])
    kind, needs = ENGINES[key], requirements()
    shown = f"{key} (--model {', '.join(kind.models)})"
    ways = [extra(one, needs.get(one, [])) for one in kind.extras]
    good = next((way for way in ways if way.usable), None)
    if ways and good is None:
        best = min(ways, key=lambda way: way.detail.count("is not installed"))
        return Finding(shown, False, best.detail, ways[0].fix)
    detail = good.detail if good else "nothing more is needed"
    if key == "vllm" and not cards and not metadata.version("vllm").endswith("cpu"):
        why = f"{detail}; a build for GPUs, and no GPU is seen"
        return Finding(shown, False, why, "make setup (docs/install.md)")
    if not tried:
        return Finding(shown, True, detail)
    command = [sys.executable, "-P", "-c", kind.statement]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TRIED, env=quiet, check=False)
    except subprocess.TimeoutExpired:
        return Finding(shown, False, f"{detail}; it did not import within {_TRIED:g} s")
    if done.returncode:
        why = redact_text((done.stderr.strip().splitlines() or ["no reason given"])[-1])
        return Finding(
            shown, False, f"{detail}; it does not import: {why[:300]}", ways[0].fix if ways else ""
        )
    return Finding(shown, True, f"{detail}; imports")


def data() -> list[Finding]:
    """Every benchmark: how many of its tasks have their files."""
    return [_of_benchmark(found) for found in benchmarks.all_benchmarks()]


def named_data(name: str) -> Finding:
    """A benchmark, or a task or group, by name. Raises IcrError for one that does not exist."""
    if not name.startswith("icr_"):
        return _of_benchmark(benchmarks.get(name), asked=True)
    missing: list[str] = []
    leaves = catalog.expand(name)
    for leaf in leaves:
        found, task = catalog.find(leaf)
        if not _complete(found, task):
            missing.append(leaf)
    if not missing:
        return Finding(name, True, f"{len(leaves)} of {len(leaves)} tasks have their files")
    found, task = catalog.find(missing[0])
    return Finding(
        name,
        False,
        f"{len(leaves) - len(missing)} of {len(leaves)} tasks have their files",
        _fetch(found, task),
    )


def _of_benchmark(found: Any, *, asked: bool = False) -> Finding:
    if found.files is None:
        return Finding(found.name, True, f"{len(found.tasks)} tasks, generated")
    there = [task for task in found.tasks if _complete(found, task)]
    detail = f"{len(there)} of {len(found.tasks)} tasks have their files"
    usable = True if there else False if asked else None
    return Finding(found.name, usable, detail, "" if there else _fetch(found, found.tasks[0]))


def _complete(found: Any, task: Any) -> bool:
    if found.files is None:
        return True
    root = data_root()
    return all((root / remote.target).is_file() for remote in found.files(task.dataset, task.length))


def _fetch(found: Any, task: Any) -> str:
    words = [f"icr data fetch {found.name} --datasets {task.dataset}"]
    words += [f"--lengths {task.length}"] if task.length else []
    return " ".join([*words, *(["--accept-license"] if found.facts.get("accept") else [])])


def served(kind: str, address: str, model: str | None, key: str | None = None) -> Finding:
    """A server (`kind`: judge or endpoint): there, an OpenAI-compatible one, and with this model."""
    name = f"{kind} {redact_url(address)}"
    own = {"extra": None, "seed": None, "header": None}
    variable = "ICR_JUDGE_API_KEY" if kind == "judge" else "ICR_API_KEY"
    try:
        server = server_of(model or "", address, key or key_of(None, None, address), own)
        told = listing(server, key=f"set ${variable}")
    except Unreachable as error:
        return Finding(name, False, str(error))
    if not told.models:
        why = "something answers there, but it lists no models"
        return Finding(name, False, why, "give the address that ends in /v1")
    shown = ", ".join(told.models[:5]) + (" ..." if len(told.models) > 5 else "")
    if model and model not in told.models:
        return Finding(name, False, f"serves {shown}; not {model}", "name one of these models")
    window = f", window {told.window:,} tokens" if told.window else ""
    return Finding(name, True, f"serves {shown}{window}")


def plugged() -> list[Finding]:
    """Plugins in use, and those that could not be loaded."""
    return [
        *(Finding(name, True, origin) for name, origin in plugins.load().items()),
        *(
            Finding(name, False, why, "pip uninstall it, or ICR_PLUGINS=off")
            for name, why in plugins.failed().items()
        ),
    ]


def leaves(name: str) -> list[str]:
    """Leaf tasks of a task or group, or of a benchmark named as `icr_NAME`."""
    if name in catalog.groups() or name in catalog.leaves():
        return catalog.expand(name)
    found = benchmarks.get(name.removeprefix("icr_"))
    return [found.task_name(task) for task in found.tasks]


def ready_tasks() -> Iterator[str]:
    """Leaf tasks whose data are here, those of real data first."""
    generated = []
    names = {id(task): leaf for leaf, (_, task) in catalog.leaves().items()}
    for found in benchmarks.all_benchmarks():
        for task in found.tasks:
            try:
                complete = _complete(found, task)
            except IcrError:
                complete = False
            if complete:
                leaf = names.get(id(task))
                if leaf and found.files is None:
                    generated.append(leaf)
                elif leaf:
                    yield leaf
    yield from generated
