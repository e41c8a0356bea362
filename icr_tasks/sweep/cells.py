"""The matrix of a study: one cell is one model x setting x prompt x task, identified by all that changes its
answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from .. import benchmarks
from ..benchmarks import base, catalog
from ..engines import identity
from ..errors import IcrError
from ..harness.options import Options
from ..kv import choose
from ..schema import answering, fingerprint
from ..settings import KV_NATIVE, Setting
from .study import Study

log = logging.getLogger("icr_tasks")

REPLICAS = "data_parallel_size"
_MERGED = ("metadata", "gen_kwargs")


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell. `args` are the engine's model_args with what the setting adds to them."""

    model: str
    engine: str
    args: dict[str, Any]
    setting: str
    prompt: str
    task: str
    limit: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    gen_kwargs: dict[str, Any] = field(default_factory=dict)
    chat: bool = True
    system: str | None = None
    loading: dict[str, Any] = field(default_factory=dict)  # batch_size, device
    in_flight: int | None = None

    @property
    def where(self) -> tuple[str, str, str, str]:
        """Model, setting, prompt, task: the cell's place in the matrix."""
        return self.model, self.setting, self.prompt, self.task

    @property
    def name(self) -> str:
        """The place as one readable string."""
        return " / ".join(self.where)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Everything that changes answers or scores, without credentials."""
        metadata = answering(self.metadata)
        args = deepcopy(_identity(json.dumps([self.engine, self.args], sort_keys=True, default=str)))
        return {
            "engine": self.engine,
            "model_args": args,
            "setting": self.setting,
            **({"setting_behind": more} if (more := choose.behind(Setting.parse(self.setting))) else {}),
            "prompt": self.prompt,
            "task": self.task,
            "task_version": catalog.version(self.task),
            "limit": self.limit,
            "metadata": metadata,
            "gen_kwargs": self.gen_kwargs,
            "apply_chat_template": self.chat,
            "system_instruction": self.system,
        }

    @cached_property
    def fingerprint(self) -> str:
        """First 12 hex digits of the sha256 over `inputs`."""
        return fingerprint(self.inputs)

    @property
    def data_revision(self) -> str | None:
        """The revision of its benchmark's data as they are on this machine; None where they are not."""
        sheet = catalog.sheet_of(self.task)
        data = json.dumps(Options.parse(self.task_metadata).data, sort_keys=True, default=str)
        return _revision(sheet["benchmark"], sheet["dataset"], sheet.get("length"), data)

    @cached_property
    def load_key(self) -> str:
        """Cells with the same key run on one loaded engine."""
        return json.dumps([self.engine, self.args, self.loading], sort_keys=True, default=str)

    @property
    def replicas(self) -> int:
        """Engines side by side that share the items: `data_parallel_size` of every engine that does not do that
        itself (lm-eval's vllm does, through Ray)."""
        return 1 if self.engine == "vllm" else int(self.args.get(REPLICAS) or 1)

    @property
    def unit_key(self) -> tuple[str, ...]:
        """Cells with the same key are generated together: they may share documents, and one cache
        behaviour."""
        sheet, setting = catalog.sheet_of(self.task), Setting.parse(self.setting)
        family = (sheet["dataset"], sheet["length"]) if sheet.get("length") else ("", "")
        return (
            self.load_key,
            sheet["benchmark"],
            *map(str, family),
            str(setting.kv or ""),
        )

    @property
    def task_metadata(self) -> dict[str, Any]:
        """What the task gets as `--metadata`: model_args, the user's metadata, setting and prompt."""
        return {**self.args, **self.metadata, "setting": self.setting, "prompt": self.prompt}


@lru_cache(maxsize=256)
def _identity(packed: str) -> dict[str, Any]:
    return identity.engine(json.loads(packed)[1])


@lru_cache(maxsize=1024)
def _revision(benchmark: str, dataset: str, length: str | None, data: str) -> str | None:
    found = benchmarks.get(benchmark)
    if found.files is None:
        return None  # generated: as the version of the task says, and making it anew takes seconds
    try:
        return found.load(dataset, length, **json.loads(data)).revision
    except Exception as error:  # where only the ledger is, or half of the data, or a plugin's reader fails
        log.debug("%s %s %s: which data are here is not known: %s", benchmark, dataset, length, error)
        return None


def matrix(study: Study) -> list[Cell]:
    """All cells of a study, grouped by engine and unit. Raises IcrError for combinations that cannot work."""
    _identity.cache_clear()  # folders and data may have changed since the last look
    _revision.cache_clear()
    cells = [cell for model in study.models for cell in _of_model(study, model)]
    seen: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if cell.where in seen:
            raise IcrError(f"{study.path}: {cell.name} stands twice in the study (a group and its task?)")
        seen[cell.where] = cell
    return [cell for unit in units(cells) for cell in unit]


def units(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that run together, in order of first appearance, those of one engine next to each other."""
    found: dict[str, dict[tuple[str, ...], list[Cell]]] = {}
    for cell in cells:
        found.setdefault(cell.load_key, {}).setdefault(cell.unit_key, []).append(cell)
    return [unit for of_engine in found.values() for unit in of_engine.values()]


def _of_model(study: Study, model: dict[str, Any]) -> list[Cell]:
    cells = []
    for entry in model["tasks"] or study.tasks:
        levels = (study.own, model, entry)
        one: dict[str, Any] = {k: v for level in levels for k, v in level.items() if k not in _MERGED}
        merged = {k: {name: v for level in levels for name, v in level.get(k, {}).items()} for k in _MERGED}
        if axis := next((k for k in ("setting", "prompt") if k in merged["metadata"]), None):
            raise IcrError(
                f"{study.path}: metadata has {axis!r}; in a study it is an axis: write `{axis}s: [...]`"
            )
        for task in catalog.expand(entry["task"]):
            for text in dict.fromkeys(one.get("settings", ["full"])):
                for prompt in dict.fromkeys(one.get("prompts", [None])):
                    cells.append(_cell(study, one, merged, task, text, prompt))
    return cells


def _cell(
    study: Study, one: dict[str, Any], merged: dict[str, Any], task: str, text: str, prompt: str | None
) -> Cell:
    sheet = catalog.sheet_of(task)
    args = dict(one["model_args"])
    try:
        setting = Setting.parse(text)
        if setting.kv is not None and setting.kv.method in KV_NATIVE and "vllm" in one["model"]:
            args.setdefault("kv_cache_dtype", setting.kv.method)
        form = base.get(sheet["benchmark"], prompt or sheet.get("prompt"), sheet["dataset"])
        if setting.kind == "none" and form.no_context is None:
            raise IcrError(f"prompt {form.name!r} has no form without context")
        if setting.kind == "gold" and not catalog.find(task)[0].marks_gold:
            raise IcrError(f"{sheet['benchmark']} does not mark gold passages")
        Options.parse({**args, **merged["metadata"], "setting": str(setting), "prompt": form.name})
    except IcrError as error:
        fix = f"give the task its own lists: {{task: {task}, settings: [...], prompts: [...]}}"
        raise IcrError(f"{study.path}: {task}, setting {text}: {error}\n  ({fix})") from error
    return Cell(
        model=one["name"],
        engine=one["model"],
        args=args,
        setting=str(setting),
        prompt=form.name,
        task=task,
        limit=one.get("limit"),
        metadata=merged["metadata"],
        gen_kwargs=merged["gen_kwargs"],
        chat=one.get("apply_chat_template", True),
        system=one.get("system_instruction"),
        loading={k: one[k] for k in ("batch_size", "device") if k in one},
        in_flight=one.get("in_flight"),
    )
