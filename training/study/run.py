"""`icr train study FILE -o OUT`: train every arm under every seed, evaluate through lm_eval, compare, report.

    icr train study losses_cpu.yaml -o study-losses
    icr train study longrag.yaml --check            # the file and every config that follows from it; no torch
    icr train study losses_cpu.yaml -o study-losses --into docs/training_studies_tables.md

Each run is what `icr train sft|grpo OUT/configs/ARM-sSEED.yaml` does (in a process of its own, unless
trl.use_cpu), its folder OUT/runs/ARM-sSEED, what it printed in OUT/logs. Run the command again to go on after
anything: finished runs and evaluated cells are kept, an interrupted run continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import yaml
from tqdm import tqdm

from icr_tasks.errors import IcrError, unknown
from icr_tasks.storage import write_atomic
from icr_tasks.sweep import cells, finish, worker
from icr_tasks.sweep import study as sweeps
from icr_tasks.sweep.records import Folder

from ...leaderboard.pairs.seeds import LEAST
from .. import checkpoint
from .. import config as configs
from .. import evaluate as evaluation
from .. import prepare as preparing
from ..launch import resolved
from . import spec as study_data
from .judge import served
from .spec import DEMOS, START, Study, load

DONE = "study.json"


def main(argv: list[str]) -> int:
    """0 when the report is written, 1 when a cell of the evaluation failed."""
    parser = argparse.ArgumentParser(
        prog="icr train study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="a study file, or the name of one that ships")
    parser.add_argument("-o", "--out", type=Path, help="study folder (default: study-NAME beside you)")
    parser.add_argument("--seeds", help="only these of the file's seeds, 0,1")
    parser.add_argument(
        "--check", action="store_true", help="check everything that needs no torch, then stop"
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE.md",
        help="also put the result between the file's <!-- study: NAME --> marks",
    )
    args = parser.parse_args(argv)
    study = load(args.study, (args.out or Path(f"study-{args.study.stem}")).resolve())
    if args.seeds:
        study = replace(study, seeds=_chosen(args.seeds, study.seeds))
    if args.check:
        print(checked(study))
        return 0
    study.out.mkdir(parents=True, exist_ok=True)
    with served(study.judge):
        begin = start(study)
        for arm, seed in tqdm(study.runs(), desc="runs", unit=" run"):
            train(study, study.config(arm, seed, begin))
    if code := evaluate(study, begin):
        return code
    from . import report

    print(report.write(study, begin, args.into))
    return 0


def _chosen(text: str, seeds: tuple[int, ...]) -> tuple[int, ...]:
    for part in text.split(","):
        if part not in map(str, seeds):
            raise unknown("seed", part, [str(s) for s in seeds])
    return tuple(s for s in seeds if str(s) in text.split(","))


def checked(study: Study) -> str:
    """What the study would do. Folders that are named must be there; rows of the synthetic world are made on
    the spot."""
    if study.base.startswith((".", "/", "~")) and not Path(study.base).expanduser().is_dir():
        raise IcrError(f"no model folder {study.base}")
    lines, keys = [], {}
    for arm in (*([START] if study.start else []), *study.arms):
        seed = study.first if arm == START else study.seeds[0]
        options, folder = study.data_of(arm, seed)
        config = study.config(arm, seed, "model")
        if isinstance(options, str):
            preparing.check(config, launched=False)
        elif not options.get("short"):
            preparing.train_file(replace(config, data=options["folder"]))
        rows, keys[arm] = study_data.rows_of(options, folder)
        shown = ", ".join(f"{n:,} {name}" for name, n in sorted(rows.items()))
        units = (
            ""
            if isinstance(options, str) or not options.get("unit_tokens")
            else f", units of {options['unit_tokens']}"
        )
        lines.append(f"  {arm}: {config.kind}, prompt {config.prompt}, {shown}{units}")
    study_data.different(study, keys.__getitem__)
    if len(study.seeds) < 3 and not study.seed_spread:
        lines.append(f"  {_few(study)}")
    launch = resolved(shlex.split(study.launch))
    if launch:
        lines.append(f"  launch: {shlex.join(launch)}")
    many = f"{len(study.arms)} arms x {len(study.seeds)} seeds = {len(study.runs())} runs"
    return (
        f"{study.name}: {many}, control {study.control}; {len(study.evaluate['tasks'])} tasks\n"
        + "\n".join(lines)
    )


def _few(study: Study) -> str:
    """What fewer than three seeds cannot say: the rule of docs/training_studies.md."""
    if len(study.seeds) == 1:
        return "1 seed: the report gives no verdicts; run three, or give `seed_spread` of an earlier study"
    compared = len(study.arms) - 1
    said = "their spread is pooled over arms" if compared >= LEAST else "no verdict between the two arms"
    return f"{len(study.seeds)} seeds: {said}; three or more tell a lucky run from a better recipe"


def start(study: Study) -> str:
    """The model all arms start from: the base, or what `start` makes of it."""
    model = study.base
    if model in DEMOS:
        from ..demo import base

        model = str(base.train(study.out / "base", seed=0, **DEMOS[model]))
    elif Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())
    return str(train(study, study.config(START, study.first, model))) if study.start else model


def train(study: Study, config: configs.Config) -> Path:
    """The finished run's last checkpoint; trains where it is not finished."""
    run = Path(config.output)
    arm, _, seed = run.name.rpartition("-s")
    options, folder = study.data_of(arm or START, int(seed) if arm else study.first)
    study_data.make(options, folder)
    preparing.check(config, launched=not study.launch)  # also refuses a finished run of another config
    spent = (
        json.loads((run / DONE).read_text())
        if (run / DONE).is_file()
        else {"wall": 0.0, "cpu": 0.0, "done": False}
    )
    if not spent["done"]:
        spent = _process(study, config, run, spent)
    last = checkpoint.latest(run)
    assert last is not None
    return last


def _process(study: Study, config: configs.Config, run: Path, spent: dict[str, float]) -> dict[str, float]:
    """Train; seconds add up over interruptions (a killed study loses those of the run in progress)."""
    for folder in (study.out / "configs", study.out / "logs", run):
        folder.mkdir(parents=True, exist_ok=True)
    file, log = study.out / "configs" / f"{run.name}.yaml", study.out / "logs" / f"{run.name}.log"
    write_atomic(file, config.dump().encode())
    began, before = time.monotonic(), _cpu()
    with log.open("a", encoding="utf-8") as out:
        # On a CPU starting a process takes as long as a tiny model's training.
        failed = (
            _inside(config, out)
            if config.trl.get("use_cpu") and not study.launch
            else _outside(study, file, out)
        )
    done = not failed
    spent = {
        "wall": spent["wall"] + time.monotonic() - began,
        "cpu": spent["cpu"] + _cpu() - before,
        "done": done,
    }
    write_atomic(run / DONE, json.dumps(spent).encode())
    if failed:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        raise IcrError(f"{run.name} {failed}; repair it and run the study again. {log}:\n" + "\n".join(tail))
    return spent


def _inside(config: configs.Config, out: TextIO) -> str:
    """Train in this process; what went wrong, or nothing."""
    from ..trainers import train_grpo as grpo
    from ..trainers import train_sft as sft

    try:
        with redirect_stdout(out), redirect_stderr(out):
            (sft if config.kind == "sft" else grpo)(config)
    except Exception as error:
        traceback.print_exc(file=out)
        return f"ended with {type(error).__name__}"
    return ""


def _outside(study: Study, file: Path, out: TextIO) -> str:
    """`icr train KIND FILE` behind the study's launcher; what went wrong, or nothing."""
    launch = resolved(shlex.split(study.launch)) or [sys.executable, "-m", "icr_tasks.cli"]
    kind = yaml.safe_load(file.read_text())["kind"]
    code = subprocess.run(
        [*launch, "train", kind, str(file)],
        stdout=out,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONSAFEPATH": "1",
        },
    ).returncode
    return f"ended with code {code}" if code else ""


def evaluate(study: Study, begin: str) -> int:
    """Sweep over the last checkpoint of every run and over what they started from."""
    trained = []
    for arm, seed in study.runs():
        last = checkpoint.latest(Path(study.config(arm, seed, begin).output))
        assert last is not None
        trained.append(evaluation.read(last))
    given = study.evaluate
    out = study.out / "eval"
    tree = evaluation.study(
        trained,
        engine=given.get("engine", "icr-vllm"),
        settings=given.get("settings", ["full"]),
        tasks=given["tasks"],
        limit=given.get("limit"),
        args=given.get("args"),
        gen=given.get("gen"),
        out=out,
    )
    if "batch_size" in given:
        tree["models"] = [model | {"batch_size": given["batch_size"]} for model in tree["models"]]
    write_atomic(out / "study.yaml", yaml.safe_dump(tree, sort_keys=False).encode())
    found = sweeps.load(out / "study.yaml")
    every = cells.matrix(found)
    if given.get("args", {}).get("device") == "cpu":
        # All cells in this process: on a CPU nothing has to be freed, and starting takes longer than a tiny
        # model's answers.
        folder = Folder(found.out)
        todo = [c for c in every if not folder.done(c)]
        if todo:
            worker.run_cells(found, todo)
    return finish.run(found, every)


def _cpu() -> float:
    """CPU seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
