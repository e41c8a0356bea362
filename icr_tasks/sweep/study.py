"""A study file: which models, settings, prompts and tasks, checked before anything is loaded.

    out: study-out
    models:
      - name: qwen3-8b
        model: icr-vllm                     # any lm-eval model name
        model_args: {pretrained: Qwen/Qwen3-8B, max_model_len: 131072}
      - {name: gpt, endpoint: https://HOST/v1, model: M, price: {input: 0.1, output: 0.4}, budget_usd: 20}
    settings: [full, rag@32k, none]
    prompts: [ao]
    tasks: [icr_helmet_rag_nq, {task: icr_infbench_qa, limit: 50}]

Keys that mirror `lm_eval` options have their names and meaning: docs/sweep.md lists all.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field

from .. import plugins
from ..checked import Record, check, read_yaml
from ..engines.served.address import root_of
from ..engines.served.price import Price, budget
from ..errors import IcrError
from ..settings import KINDS

SERVED = "icr-api"  # the lm-eval model that an entry with an address becomes


def _names(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("is empty; leave it out for the default")
    if bad := [v for v in values if not isinstance(v, str)]:
        raise ValueError(f"holds {bad[0]!r}, which is no name; quote it")
    return values


def _some(values: Any) -> Any:
    if isinstance(values, list) and not values:
        raise ValueError("is empty; leave it out for the default")
    return values


Names = Annotated[list[Any], AfterValidator(_names)]
Entries = Annotated[list[Any], AfterValidator(_some)]
Count = Annotated[int, Field(ge=1)]


def listed(given: Sequence[str]) -> list[str]:
    """Settings of comma-separated texts: `full,rag@4k,dense,kv:topk@0.05` -> three. What starts with no kind is
    an option of the one before."""
    found: list[str] = []
    for part in (p.strip() for text in given for p in text.split(",")):
        starts = part.partition("@")[0].partition(":")[0] in KINDS
        if found and not starts:
            found[-1] += f",{part}"
        elif part:
            found.append(part)
    return found


class RunKeys(Record):
    """Keys that a study, a model and a task may have; the narrower place wins."""

    settings: Names = Field(default_factory=list)
    prompts: Names = Field(default_factory=list)
    limit: Count = 1
    metadata: dict[str, Any] = Field(default_factory=dict)
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)


class ModelEntry(RunKeys):
    """One entry of `models`."""

    name: str = ""
    model: str = ""
    model_args: dict[str, Any] | str = ""
    apply_chat_template: bool = True
    tasks: Entries = Field(default_factory=list)
    system_instruction: str = ""
    batch_size: int | str = ""
    device: str = ""
    in_flight: Count = 1
    endpoint: str | list[str] = ""  # a served model: `model` is then the name that the server knows
    tokenizer: str = ""
    price: Any = None
    budget_usd: Any = None


class TaskEntry(RunKeys):
    """One entry of `tasks`."""

    task: str


class StudyFile(RunKeys):
    """The file as a whole."""

    models: Entries = Field(default_factory=list)
    tasks: Entries = Field(default_factory=list)
    out: str = ""
    imports: Entries = Field(default_factory=list)
    apply_chat_template: bool = True
    system_instruction: str = ""
    in_flight: Count = 1
    slurm: dict[str, Any] = Field(default_factory=dict)
    ray: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A checked study file. `models` and `tasks` are normalised to mappings; `own` holds the study-wide run
    keys."""

    path: Path
    out: Path
    models: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    own: dict[str, Any]
    imports: list[str] = field(default_factory=list)
    slurm: dict[str, Any] = field(default_factory=dict)
    ray: dict[str, Any] = field(default_factory=dict)
    given: Path | None = None  # the folder that -o named
    typed: tuple[str, ...] = ()

    @property
    def spelled(self) -> str:
        """The study as a command takes it, with its folder where -o named that."""
        return shlex.join([str(self.path), *(["-o", str(self.given)] if self.given else [])])

    def again(self, *options: str) -> str:
        """The command that goes on with it: as it was `typed`, with --only and all, else with these options."""
        return (
            shlex.join(["icr", "sweep", *self.typed])
            if self.typed
            else " ".join(["icr sweep", self.spelled, *options])
        )


def load(path: Path, out: Path | None = None) -> Study:
    """Read and check a study file. Raises IcrError naming the place, with the nearest match for a misspelt
    key."""
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"), path, _Strict)
    except OSError as error:
        fix = "" if path.exists() else "; docs/sweep.md shows how to write one, results/study.yaml is one"
        raise IcrError(f"cannot read {path}: {error.strerror}{fix}") from error
    except UnicodeDecodeError as error:
        raise IcrError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise IcrError(f"{path}: a study is a mapping with at least `models` and `tasks`; see docs/sweep.md")
    check(StudyFile, raw, f"{path}")
    for key in ("models", "tasks"):
        if not raw.get(key) and not (key == "tasks" and _models_have_tasks(raw)):
            raise IcrError(f"{path}: `{key}` is missing or empty")
    models = [_model(entry, f"{path}: models[{i}]") for i, entry in enumerate(raw["models"])]
    names = [m["name"] for m in models]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise IcrError(f"{path}: two models are called {twice[0]!r}; give each its own `name`")
    folder = out or Path(_expand(raw.get("out") or f"{path.stem}-out"))
    own = {
        k: raw[k]
        for k in (*RunKeys.model_fields, "apply_chat_template", "system_instruction", "in_flight")
        if k in raw
    }
    tasks = _tasks(raw.get("tasks") or [], f"{path}: tasks")
    import_own(raw.get("imports") or [], path.resolve().parent)
    return Study(
        path,
        folder,
        models,
        tasks,
        own,
        raw.get("imports") or [],
        raw.get("slurm") or {},
        raw.get("ray") or {},
        out,
    )


def import_own(names: list[str], folder: Path) -> None:
    """Import the study's own modules, which may register models and benchmarks. Raises IcrError naming the
    module."""
    if names and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for registry in plugins.watched if names else ():
        len(registry)  # loads what is ours first: it stays ours whatever a module imports
    for name in names:
        try:
            with plugins.registering(name):
                import_module(name)
        except ImportError as error:
            raise IcrError(
                f"imports: {name} cannot be imported ({error}); it is looked for beside the study file too"
            ) from error


def _models_have_tasks(raw: dict[str, Any]) -> bool:
    models = raw.get("models")
    return (
        isinstance(models, list)
        and bool(models)
        and all(isinstance(m, dict) and m.get("tasks") for m in models)
    )


def _model(entry: Any, where: str) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"model_args": {"pretrained": entry}}
    if not isinstance(entry, dict):
        raise IcrError(f"{where}: a model is a name or a mapping with `model` and `model_args`")
    check(ModelEntry, entry, where)
    args = entry.get("model_args", {})
    if isinstance(args, str):
        pairs = [part.partition("=") for part in args.split(",") if part]
        args = {
            name.strip(): read_yaml(value, f"{where}: {name.strip()}={value}") for name, _, value in pairs
        }
    args = {k: _expand(v) if isinstance(v, str) else v for k, v in args.items()}
    if entry.get("endpoint"):
        entry, args = _served(entry, args, where)
    elif named := [key for key in ("price", "budget_usd") if key in entry]:
        raise IcrError(f"{where}: `{named[0]}` is for a served model; write its address as `endpoint:`")
    elif "tokenizer" in entry:
        args["tokenizer"] = entry["tokenizer"]
    name = (
        entry.get("name")
        or Path(str(args.get("pretrained") or args.get("model") or entry.get("model", "model"))).name
    )
    tasks = _tasks(entry["tasks"], f"{where}.tasks") if "tasks" in entry else None
    return {
        **entry,
        "name": name,
        "model": entry.get("model", "icr-vllm"),
        "model_args": args,
        "tasks": tasks,
    }


def _served(entry: dict[str, Any], args: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An entry with an address as one of `icr-api`, its price and cap checked."""
    if not entry.get("model"):
        raise IcrError(f"{where}: an `endpoint` needs `model`, the name that its server knows")
    given = [entry["endpoint"]] if isinstance(entry["endpoint"], str) else entry["endpoint"]
    address, *fleet = (_expand(one) for one in given)
    for one in (address, *fleet):
        root_of(one)
    price = Price.parse(entry.get("price"), f"{where}: price")
    cap = budget(entry.get("budget_usd"), price, f"{where}: budget_usd")
    own = {"model": entry["model"], "base_url": address, "price": entry.get("price"), "budget_usd": cap}
    own |= {"tokenizer": entry.get("tokenizer"), "fleet": fleet or None}
    return {**entry, "model": SERVED}, {**args, **{k: v for k, v in own.items() if v is not None}}


def _tasks(entries: list[Any], where: str) -> list[dict[str, Any]]:
    found = []
    for i, entry in enumerate(entries):
        entry = {"task": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not entry.get("task"):
            raise IcrError(f"{where}[{i}]: a task is a name or a mapping with `task`")
        check(TaskEntry, entry, f"{where}[{i}]")
        found.append(entry)
    return found


def _expand(text: str) -> str:
    full = os.path.expanduser(os.path.expandvars(text))
    if missing := re.search(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", full):
        raise IcrError(f"{text!r}: the environment variable {missing[1]} is not set")
    return full


class _Strict(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice instead of keeping the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping without doubled keys."""
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        if twice := [str(k) for k in keys if keys.count(k) > 1]:
            raise yaml.YAMLError(
                f"key {twice[0]!r} stands twice in line {node.start_mark.line + 1} and below"
            )
        return super().construct_mapping(node, deep)
