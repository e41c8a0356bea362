"""Where cells run: this process, several local processes, Slurm jobs or the replicas of Ray Data LLM. All share
one study folder.

A part is a list of cells of one engine. Parts are independent; locks in the folder keep two from the same
cell, so starting too many, or the same study twice, costs an engine load and nothing else.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import IcrError
from .cells import Cell, units
from .shards import Shard
from .study import Study
from .worker import on_terminate, run_cells


def parts(cells: list[Cell], jobs: int) -> list[list[Cell]]:
    """At least one part an engine (one model load each); engines are split by units while there are more
    jobs."""
    engines: dict[str, list[list[Cell]]] = {}
    for unit in units(cells):
        engines.setdefault(unit[0].load_key, []).append(unit)
    share = max(1, jobs // max(len(engines), 1))
    found = []
    for of_engine in engines.values():
        pieces = of_engine if len(of_engine) >= share else [[cell] for unit in of_engine for cell in unit]
        n = min(share, len(pieces))
        found += [[cell for unit in pieces[i::n] for cell in unit] for i in range(n)]
    return found


def command(study: Study, part: list[Cell], shard: Shard | None = None) -> list[str]:
    """The worker process for a part, or for one shard of it."""
    names = ",".join(cell.fingerprint for cell in part)
    return [
        sys.executable,
        "-P",
        "-m",
        "icr_tasks.sweep.worker",
        str(study.path.resolve()),
        str(study.out.resolve()),
        names,
        *([str(shard)] if shard else []),
    ]


def local(
    study: Study, todo: list[list[Cell]], jobs: int, shards: Sequence[Shard | None] | None = None
) -> int:
    """Worker processes, `jobs` at a time, each with its own GPUs where there are several; returns failed
    workers. `shards`: of each part, the shard of its items that is run."""
    which = list(shards or [None] * len(todo))
    queue, failed = list(enumerate(todo)), 0
    running: dict[Any, Any] = {}
    slots = _devices(todo, jobs)
    free = list(range(jobs))
    try:
        with on_terminate():
            while queue or running:
                while queue and free:
                    (number, part), slot = queue.pop(0), free.pop(0)
                    env = {**os.environ, **({"CUDA_VISIBLE_DEVICES": slots[slot]} if slots else {})}
                    running[subprocess.Popen(command(study, part, which[number]), env=env)] = slot
                pid, status = os.wait()
                for process, slot in list(running.items()):
                    if process.pid == pid:
                        process.returncode = os.waitstatus_to_exitcode(status)
                        failed += process.returncode != 0
                        del running[process]
                        free.append(slot)
    finally:
        for process in running:  # interrupted: the workers finish cleanly too
            process.terminate()  # not SIGINT, which is ignored below a background command of a script
        for process in running:
            process.wait()
    return failed


def _devices(todo: list[list[Cell]], jobs: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES for each slot; empty when there is nothing to divide."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None and shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
        visible = ",".join(str(i) for i, line in enumerate(listed) if line.startswith("GPU"))
    ids = [d for d in (visible or "").split(",") if d]
    each = max(gpus(cell) for part in todo for cell in part)
    if jobs == 1 or not ids:
        return []
    if len(ids) < jobs * each:
        raise IcrError(f"--jobs {jobs} needs {jobs * each} GPUs ({each} an engine), {len(ids)} are visible")
    return [",".join(ids[i * each : (i + 1) * each]) for i in range(jobs)]


def gpus(cell: Cell) -> int:
    """GPUs one engine takes: tensor x pipeline parallel size, times data parallel size where it does that
    itself."""
    names = ("tensor_parallel_size", "pipeline_parallel_size")
    if cell.replicas == 1:
        names += ("data_parallel_size",)  # type: ignore[assignment]
    return math.prod(int(cell.args.get(name) or 1) for name in names)


def slurm(study: Study, todo: list[list[Cell]], jobs: int) -> int:
    """One Slurm job a part, through submitit; the study's `slurm:` keys are submitit's parameters."""
    try:
        import submitit
    except ImportError as error:
        raise IcrError("--executor slurm needs submitit: pip install submitit") from error
    given = {"timeout_min": 24 * 60, **study.slurm}
    cluster = given.pop("cluster", None)  # "local" runs the jobs here, to try a study
    if cluster != "local":
        given.setdefault("gpus_per_node", max(gpus(cell) for part in todo for cell in part))
    if cluster is None and not shutil.which("sbatch"):
        raise IcrError(
            "--executor slurm: there is no sbatch here; run it on a login node, or set `slurm: {cluster: "
            "local}`"
        )
    executor = submitit.AutoExecutor(folder=str(study.out / "slurm"), cluster=cluster)
    try:
        executor.update_parameters(**given)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise IcrError(f"`slurm:` of the study: {error}") from error
    # The standard library's call is what a job unpickles: it must not import this package from a checkout it starts in.
    submitted = [executor.submit(subprocess.call, command(study, p), cwd=str(Path.cwd())) for p in todo]
    print("submitted: " + ", ".join(job.job_id for job in submitted), file=sys.stderr)
    failed = 0
    for job in submitted:
        broke = job.exception()
        if broke is not None:
            print(f"job {job.job_id} failed: {broke}", file=sys.stderr)
        failed += broke is not None or job.result() != 0
    return failed


def ray(study: Study, cells: list[Cell], jobs: int) -> int:
    """The cells in this process, their prompts on `jobs` vLLM replicas of Ray Data LLM; the study's `ray:` keys are
    fields of its vLLMEngineProcessorConfig, and `address`. Returns a worker's exit code."""
    if other := next((cell for cell in cells if cell.engine != "icr-vllm"), None):
        raise IcrError(
            f"--executor ray runs `model: icr-vllm`; {other.name} is {other.engine}: `--shard i/n` divides any "
            "model's items on any scheduler"
        )
    options = dict(study.ray)
    address = options.pop("address", None)
    from ..engines import ray_data

    def load(cell: Cell, args: dict[str, Any], loading: dict[str, Any]) -> Any:
        given = {k: v for k, v in {**args, **loading}.items() if v is not None}
        return ray_data.RayVLLM(replicas=max(jobs, cell.replicas), options=options, **given)

    with ray_data.cluster(address):
        return run_cells(study, cells, load=load)


EXECUTORS: dict[str, Callable[[Study, list[list[Cell]], int], Any]] = {"local": local, "slurm": slurm}
