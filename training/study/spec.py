"""A study file, read and checked without torch: base model, arms, seeds, data, evaluation.

name: losses
question: Does another loss learn more from the same rollouts?
base: demo                      # a model folder, a hub id, or the demonstration's tiny model
start: {kind: sft, ...}         # optional: trained once from the base; every arm begins there
data: {short: {n: 640, passages: [12]}}              # or a folder made by `icr train data`
common: {extends: grpo_ao.yaml, trl: {...}}          # keys of a training config
arms: {bnpo: {}, dr: {trl: {loss_type: dr_grpo}}}    # what each arm changes; also `data` and `trained_on`
control: bnpo
seeds: [0, 1, 2]
evaluate: {tasks: [icr_synth_short_256], settings: [full], engine: icr-hf, limit: 100}
domains: {biography: [icr_synth_short_biography_256]}     # optional: the train domain x eval domain matrix
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError, unknown

from .. import config as configs
from . import data as study_data

SHIPPED = configs.SHIPPED / "studies"
DEMO = "demo"
START = "start"
_EVALUATE = ("tasks", "settings", "engine", "args", "gen", "limit", "batch_size")
_ARM = ("data", "trained_on")


@dataclass(frozen=True)
class Study:
    """A checked study. `out` is where everything goes; configs come from `config_of`."""

    name: str
    base: str
    arms: dict[str, dict[str, Any]]
    control: str
    evaluate: dict[str, Any]
    out: Path
    question: str = ""
    notes: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    data: Any = None
    common: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    domains: dict[str, list[str]] = field(default_factory=dict)
    launch: str = ""

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed), seed by seed, so that an interrupted study has whole seeds."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def trained_on(self, arm: str) -> tuple[str, ...]:
        """Domains of `domains` that the arm's training data come from."""
        return tuple(self.arms[arm].get("trained_on", ()))

    def data_of(self, arm: str, seed: int) -> tuple[Any, Path]:
        """An arm's data options under a seed, and the folder they are (to be) in."""
        given = self.arms[arm].get("data") if arm in self.arms else self.start.get("data")
        return study_data.place(given if given is not None else self.data, seed, self.prompt(arm), self.out / "data")

    def prompt(self, arm: str) -> str:
        """The prompt an arm is trained and evaluated with."""
        return str(self._tree(arm).get("prompt", "ao"))

    def config(self, arm: str, seed: int, model: str) -> configs.Config:
        """The training config of one run; `arm` START is the common start."""
        name = START if arm == START else f"{arm}-s{seed}"
        given = {"model": model, "data": str(self.data_of(arm, seed)[1]), "seed": seed, "output": str(self.out / "runs" / name)}  # fmt: skip
        return configs.of(self._tree(arm) | given)

    def _tree(self, arm: str) -> dict[str, Any]:
        own = self.start if arm == START else self.arms[arm]
        over = {k: v for k, v in own.items() if k not in _ARM}
        return _extended(over, self.out) if arm == START else configs.merge(_extended(self.common, self.out), over)


def load(path: Path, out: Path) -> Study:
    """Read and check a study file (or the name of a shipped one). IcrError for anything that would fail later."""
    found = path if path.is_file() else SHIPPED / path.name
    if not found.is_file():
        raise IcrError(f"no study {path}; shipped: {', '.join(sorted(p.name for p in SHIPPED.glob('*.yaml')))}")
    tree = configs.read(found)
    names = [f.name for f in fields(Study) if f.name != "out"]
    configs.config_checks.known("study key", tree, names)
    missing = [n for n in ("name", "base", "arms", "control", "evaluate") if not tree.get(n)]
    if missing:
        raise IcrError(f"{found} has no {', '.join(missing)}")
    tree["arms"] = {str(k): dict(v or {}) for k, v in _mapping("arms", tree["arms"]).items()}
    seeds = tree.get("seeds", [0])
    if (
        not isinstance(seeds, list)
        or not seeds
        or len(set(seeds)) < len(seeds)
        or not all(type(s) is int for s in seeds)
    ):
        raise IcrError(f"seeds is {seeds!r}; it must be a list of different whole numbers")
    study = Study(**{**tree, "out": out, "seeds": tuple(seeds)})
    check(study)
    return study


def check(study: Study) -> None:
    """Arms, control, evaluation, data and every resulting training config."""
    if study.control not in study.arms:
        raise unknown("control arm", study.control, study.arms)
    configs.config_checks.known("evaluate key", _mapping("evaluate", study.evaluate), _EVALUATE)
    tasks = study.evaluate.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise IcrError("evaluate.tasks must be a list of task names")
    for domain, of in _mapping("domains", study.domains).items():
        if lost := [t for t in of if t not in tasks]:
            raise IcrError(f"domain {domain!r} names {lost[0]!r}, which evaluate.tasks does not hold")
    if START in study.arms or any("/" in arm or "@" in arm for arm in study.arms):
        raise IcrError(f"an arm may not be called {START!r} nor contain / or @")
    for arm in study.arms:
        for domain in study.trained_on(arm):
            if domain not in study.domains:
                raise unknown("domain", domain, study.domains)
    for arm in (*([START] if study.start else []), *study.arms):
        if study.data_of(arm, study.seeds[0])[0] is None:
            raise IcrError(f"arm {arm!r} has no data; give `data` for it or for the study")
        study.config(arm, study.seeds[0], "model")


def _extended(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a mapping extends (a config that ships), below its own keys."""
    own = dict(tree)
    base = own.pop("extends", None)
    return configs.merge(configs.read(Path(base)), own) if base else own


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise IcrError(f"{name} is {value!r}; it must be a mapping")
    return dict(value)
