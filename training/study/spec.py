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
judge: 8756                     # optional: port of a constructed judge that runs while the study does
tables: {rank: [icr_synth_short_256], limit: 40}          # optional: the paper's Tables 1 to 4 at the end
seed_spread: {points: 5.2, df: 6, from: study losses}     # optional: how far seeds spread in an earlier study
"""

from __future__ import annotations

import codecs
import difflib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from icr_tasks import hub
from icr_tasks.errors import IcrError, unknown

from .. import config as configs
from ..checks import hash_of
from ..data.store import ROW, Manifest, Record, key_of, read, write
from ..demo.forms import FIVE
from .units import Cut, joined, same
from .units import budget as _budget
from .units import every as _every

SHIPPED = configs.SHIPPED / "studies"
# The demonstration's tiny models, made on first use (`demo.base.train`). demo-careless knows all five formats,
# and has a bad habit in each: it answers with any of three passages that look right.
DEMOS: dict[str, dict[str, Any]] = {
    "demo": {"steps": 420, "most": 24},  # about four CPU minutes
    "demo-careless": {"steps": 240, "most": 8, "formats": FIVE, "careless": 40},
}
START = "start"
_EVALUATE = ("tasks", "settings", "engine", "args", "gen", "limit", "batch_size")
_ARM = ("data", "trained_on")
# Keys of a training config that a study decides, and by what.
_DECIDED = {"model": "`base`", "seed": "`seeds`", "output": "the study's folder (-o)"}
_TABLES = ("rank", "limit")
_SPREAD = ("points", "df", "from")
# With fewer degrees of freedom one seed and a given spread called 6 to 13 % of equal recipes different.
_LEAST_GIVEN = 4


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
    first: int = (
        0  # of the start that all arms share: the file's first seed, whatever --seeds says (`_begun`)
    )
    domains: dict[str, list[str]] = field(default_factory=dict)
    launch: str = ""
    judge: int = 0
    tables: dict[str, Any] = field(default_factory=dict)
    seed_spread: dict[str, Any] = field(default_factory=dict)

    def runs(self) -> list[tuple[str, int]]:
        """(arm, seed), seed by seed, so that an interrupted study has whole seeds."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def trained_on(self, arm: str) -> tuple[str, ...]:
        """Domains of `domains` that the arm's training data come from."""
        return tuple(self.arms[arm].get("trained_on", ()))

    def data_of(self, arm: str, seed: int) -> tuple[Any, Path]:
        """An arm's data options under a seed, and the folder they are (to be) in."""
        given = self.arms[arm].get("data") if arm in self.arms else self.start.get("data")
        return place(given if given is not None else self.data, seed, self.prompt(arm), self.out / "data")

    def prompt(self, arm: str) -> str:
        """The prompt an arm is trained and evaluated with."""
        return str(self._tree(arm).get("prompt", "ao"))

    def config(self, arm: str, seed: int, model: str) -> configs.Config:
        """The training config of one run; `arm` START is the common start."""
        name = START if arm == START else f"{arm}-s{seed}"
        given = {
            "model": model,
            "data": str(self.data_of(arm, seed)[1]),
            "seed": seed,
            "output": str(self.out / "runs" / name),
        }
        return configs.of(self._tree(arm) | given)

    def _tree(self, arm: str) -> dict[str, Any]:
        own = self.start if arm == START else self.arms[arm]
        over = {k: v for k, v in own.items() if k not in _ARM}
        return (
            _extended(over, self.out)
            if arm == START
            else configs.merge(_extended(self.common, self.out), over)
        )


def load(path: Path, out: Path) -> Study:
    """Read and check a study file (or the name of a shipped one). IcrError for anything that would fail
    later."""
    found = path if path.is_file() else SHIPPED / path.name
    if not found.is_file():
        raise IcrError(
            f"no study {path}; shipped: {', '.join(sorted(p.name for p in SHIPPED.glob('*.yaml')))}"
        )
    tree = configs.read(found)
    names = [f.name for f in fields(Study) if f.name not in ("out", "first")]
    configs.known("study key", tree, names)
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
    study = Study(**{**tree, "out": out, "seeds": tuple(seeds), "first": _begun(tree, out, seeds)})
    check(study)
    return study


def _begun(tree: Mapping[str, Any], out: Path, seeds: list[int]) -> int:
    """The seed of the start: the file's first, or the one among them that a start in `out` was trained under."""
    path = out / "runs" / START / "config.yaml"
    seed = configs.read(path).get("seed") if tree.get("start") and path.is_file() else None
    return seed if type(seed) is int and seed in seeds else seeds[0]


def check(study: Study) -> None:
    """Arms, control, evaluation, data and every resulting training config."""
    if study.control not in study.arms:
        raise unknown("control arm", study.control, study.arms)
    configs.known("evaluate key", _mapping("evaluate", study.evaluate), _EVALUATE)
    tasks = study.evaluate.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise IcrError("evaluate.tasks must be a list of task names")
    for domain, of in _mapping("domains", study.domains).items():
        if lost := [t for t in of if t not in tasks]:
            raise IcrError(f"domain {domain!r} names {lost[0]!r}, which evaluate.tasks does not hold")
    configs.known("tables key", _mapping("tables", study.tables), _TABLES)
    if study.tables and not isinstance(study.tables.get("rank"), list):
        raise IcrError("tables.rank must be a list of task names, whose documents attention ranks")
    _spread(study.seed_spread)
    if type(study.judge) is not int or not 0 <= study.judge < 65536:
        raise IcrError(f"judge is {study.judge!r}; it is the port of the study's constructed judge")
    if START in study.arms or any("/" in arm or "@" in arm for arm in study.arms):
        raise IcrError(f"an arm may not be called {START!r} nor contain / or @")
    for where, given in (("common", study.common), (START, study.start), *study.arms.items()):
        for name in (n for n in _DECIDED if n in (given or {})):
            raise IcrError(
                f"{where} sets {name!r}, which {_DECIDED[name]} decides for the whole study; drop it there"
            )
    if "data" in (study.common or {}):
        raise IcrError("common sets 'data', which stands at the top of a study file, or in an arm")
    for arm in study.arms:
        for domain in study.trained_on(arm):
            if domain not in study.domains:
                raise unknown("domain", domain, study.domains)
    for arm in (*([START] if study.start else []), *study.arms):
        if study.data_of(arm, study.first)[0] is None:
            raise IcrError(f"arm {arm!r} has no data; give `data` for it or for the study")
        study.config(arm, study.first, "model")
    different(study, lambda arm: key_of([str(x) for x in study.data_of(arm, study.first)]))


def different(study: Study, data: Callable[[str], str]) -> None:
    """IcrError when two arms train on the same rows (`data`: what names an arm's rows) by the same config."""
    seen: dict[str, str] = {}
    for arm in study.arms:
        learned = configs.essence(study.config(arm, study.first, "model"))
        key = key_of([{k: v for k, v in learned.items() if k != "data"}, data(arm)])
        if key in seen:
            raise IcrError(
                f"arms {seen[key]!r} and {arm!r} train on the same rows by the same config; their "
                "difference could only be "
                "noise: change one of them, or drop it"
            )
        seen[key] = arm


def _spread(given: Any) -> None:
    """`seed_spread`: the standard deviation over seeds of a difference, from an earlier study that says so."""
    if not _mapping("seed_spread", given):
        return
    configs.known("seed_spread key", given, _SPREAD)
    points, free, source = (given.get(k) for k in _SPREAD)
    if isinstance(points, bool) or not isinstance(points, int | float) or not 0 < points < 100:
        raise IcrError(f"seed_spread.points is {points!r}; it is a standard deviation in points, 0 to 100")
    if type(free) is not int or free < _LEAST_GIVEN:
        raise IcrError(
            f"seed_spread.df is {free!r}; a spread estimated with fewer than {_LEAST_GIVEN} degrees of freedom "
            "(two arms of three seeds each) is no prior"
        )
    if not isinstance(source, str) or not source.strip():
        raise IcrError("seed_spread needs `from`: the study that it was measured in")


def _extended(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a mapping extends (a config that ships), below its own keys."""
    own = dict(tree)
    base = own.pop("extends", None)
    return configs.merge(configs.read(Path(base)), own) if base else own


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise IcrError(f"{name} is {value!r}; it must be a mapping")
    return dict(value)


# ---- data ----------------------------------------------------------------------------------------
# Training data of a study's arms: a folder made by `icr train data`, or rows of the short synthetic world.

_SHORT = ("n", "passages", "domains", "target", "seed", "unit_passages", "aliases")
_FOLDER = ("folder", "domains", "unit_tokens", "tokenizer")
TARGETS = ("gold", "careless")


def place(given: Any, seed: int, prompt: str, root: Path) -> tuple[Any, Path]:
    """Checked options with the run's seed in them, and their folder. A plain folder is used as it is, under
    every seed."""
    if given is None or isinstance(given, str):
        return given, Path(given or root)
    if not isinstance(given, Mapping) or ("short" in given) == ("folder" in given):
        raise IcrError(f"data is {given!r}; give a folder, {{folder: ...}} or {{short: ...}}")
    options = {**given["short"]} if "short" in given else {**given}
    known = _SHORT if "short" in given else _FOLDER
    for name in options:
        if name not in known:
            raise unknown("data option", name, known)
    if "short" in given:
        if options.setdefault("target", "gold") not in TARGETS:
            raise unknown("data target", str(options["target"]), TARGETS)
        if not isinstance(options.get("n"), int) or not options.get("passages"):
            raise IcrError("data.short needs n (rows) and passages (a list of passages a prompt)")
        share = options.get("aliases", 0)
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise IcrError(f"data.aliases is {share!r}; it is a share of the rows, from 0 to 1")
        options |= {"seed": options.get("seed", 0) + seed, "prompt": prompt, "short": True}
    return options, root / key_of(options)


def make(options: Any, folder: Path) -> Path:
    """Write train.parquet and its manifest, unless they are there. Returns the folder."""
    if isinstance(options, str):
        return folder
    made_of = None if options.get("short") else hash_of(Path(options["folder"]) / "train.parquet")
    key = key_of([options, made_of])  # rows of a folder that was made anew are chosen anew
    if Manifest.load(folder).fresh("study", key):
        return folder
    records = _short(options) if options.get("short") else _filtered(options)
    count = write(folder / "train.parquet", records, ROW | {"target": "str"})
    Manifest.load(folder).record("study", key, {"train.parquet": count}, options=options)
    return folder


def _short(options: Mapping[str, Any]) -> Iterator[Record]:
    """Rows of the training split, domains taking turns; no demonstration of their own with target `gold`."""
    from ..demo import base

    domains = options.get("domains") or [None]
    share = -(-options["n"] // len(domains))
    parts = [
        base.rows(share, list(options["passages"]), options["prompt"], options["seed"], d) for d in domains
    ]
    mixed = (row for row in chain.from_iterable(zip_longest(*parts)) if row)
    for row in _first(options["n"], mixed):
        if options["target"] == "gold":
            row.pop("target")
        if random.Random(f"{options['seed']}/alias/{row['id']}").random() < options.get("aliases", 0):
            row["answers"] = [alias(a) for a in row["answers"]]
        yield joined(row, _every(options["unit_passages"])) if options.get("unit_passages") else row


def alias(answer: str) -> str:
    """The answer in other letters, which no passage holds: "Brandell" -> "Oenaqryy". Its own inverse."""
    return codecs.encode(answer, "rot13")


def known_domains(folder: Path) -> dict[str, int]:
    """Rows of a data folder by what `domains` may name: its data sets, and its domains where they differ."""
    counts: Counter[str] = Counter()
    for row in read(folder / "train.parquet", ["dataset", "domain"]):
        counts.update({row["dataset"], row["domain"]})
    return dict(counts)


def rows_of(options: Any, folder: Path) -> tuple[dict[str, int], str]:
    """(rows by data set, a key that names the rows) of an arm, without writing anything. IcrError for unknown
    domains."""
    if not isinstance(options, str) and options.get("short"):
        domains = options.get("domains") or ["any domain"]
        share, more = divmod(options["n"], len(domains))  # domains take turns
        return {d: share + (i < more) for i, d in enumerate(domains)}, key_of(options)
    source = Path(options if isinstance(options, str) else options["folder"])
    keep = () if isinstance(options, str) else chosen(options, source)
    unit = None if isinstance(options, str) else options.get("unit_tokens")
    counts: Counter[str] = Counter()
    names = []
    path = source / "train.parquet" if source.is_dir() else source
    for row in read(path, ["id", "dataset", "domain"]):
        if not keep or row["domain"] in keep or row["dataset"] in keep:
            counts[row["dataset"]] += 1
            names.append(row["id"])
    return dict(counts), key_of([names, unit, hash_of(path)])


def chosen(options: Mapping[str, Any], source: Path) -> tuple[str, ...]:
    """The domains an arm keeps. IcrError for one that the folder does not have."""
    keep = tuple(options.get("domains") or ())
    if keep:
        there = known_domains(source)
        for name in keep:
            if name not in there:
                # 2wikimultihopqa is another name of 2wiki
                near = [k for k in there if name.startswith(k) or k.startswith(name)]
                near = near or difflib.get_close_matches(name, there, n=1)
                hint = f". Did you mean {near[0]!r}?" if near else "."
                raise IcrError(f"{source} has no rows of {name}{hint} It has {', '.join(sorted(there))}")
    return keep


def _filtered(options: Mapping[str, Any]) -> Iterator[Record]:
    keep = chosen(options, Path(options["folder"]))
    cut: Cut = same
    if options.get("unit_tokens"):
        if not options.get("tokenizer"):
            raise IcrError("data.unit_tokens needs data.tokenizer, the model whose tokens are counted")
        here = hub.local(str(options["tokenizer"]), "tokenizer")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options["tokenizer"], local_files_only=here)
        cut = _budget(
            options["unit_tokens"], lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
        )
    total = 0
    for row in read(Path(options["folder"]) / "train.parquet"):
        if not keep or row["domain"] in keep or row["dataset"] in keep:
            total += 1
            yield row if cut is same else joined(row, cut)
    if not total:
        raise IcrError(f"{options['folder']} has no rows of {', '.join(keep or ['any domain'])}")


def _first(count: int, records: Iterable[Record]) -> Iterator[Record]:
    return (row for row, _ in zip(records, range(count), strict=False))
