"""How `icr board` and `icr collect` scale: 200 runs x 5,000 items, and 200 MB of samples, on one core.

    python speed/board_scale.py [--runs 200] [--items 5000] [--megabytes 200]

Prints one JSON line: seconds (wall clock and CPU; those of Python's imports apart) and peak memory of the
board and of collect, on our own (slim) and on stock lm-eval samples (prompt and document on every row);
megabytes and items a CPU second, and megabytes of plain `json.loads` over the same lines in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CALL = (
    "import json, resource, sys, time; import icr_tasks.leaderboard.board.write, "
    "icr_tasks.leaderboard.ledgers.collect; "
    "from icr_tasks.cli import main; t, begun = time.perf_counter(), time.process_time(); code = "
    "main(sys.argv[1:]); "
    "print(json.dumps({'code': code, 'seconds': time.perf_counter() - t, 'cpu_seconds': "
    "time.process_time() - begun, "
    "'start_up_cpu_seconds': begun, 'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / "
    "1024}), file=sys.stderr)"
)
DATASETS = [
    (d, n) for d in ("nq", "hotpotqa", "triviaqa", "popqa") for n in ("4k", "8k", "16k", "32k", "64k")
]


def measured(bytecode: Path, *args: str) -> dict[str, Any]:
    """One `icr` command in a process of its own, with its time and peak memory. Its modules are compiled once, into
    `bytecode`, as an installer does, also where the environment forbids writing beside them."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    done = subprocess.run(
        [sys.executable, "-c", CALL, *args], capture_output=True, text=True, check=False, env=env
    )
    last = done.stderr.strip().splitlines()[-1]
    try:
        found = json.loads(last)
    except ValueError:
        sys.exit(f"icr {' '.join(args)}: {done.stderr[-2000:]}")
    if found.pop("code"):
        sys.exit(f"icr {' '.join(args)} failed: {done.stderr[-2000:]}")
    return found


def ledgers(root: Path, runs: int, items: int) -> None:
    """A results tree: one model in four, every setting, 20 cells a run."""
    from icr_tasks.leaderboard.ledgers import ledger

    settings = [("full", None), ("none", None), ("rag", 4096), ("rag", 32768), ("kv", 0.05)]
    per_cell = max(1, items // len(DATASETS))
    for number in range(runs):
        kind, size = settings[number % 5]
        text = kind if size is None else f"rag@{size // 1024}k" if kind == "rag" else f"kv:topk@{size}"
        setting = {"text": text, "kind": kind, "method": None, "amount": size, "params": {}}
        inputs = {
            "model": f"org/model-{number // 5}",
            "setting": setting,
            "prompt": "ao",
            "model_args": {},
            "engine": "icr-vllm",
        }
        rng, tasks, rows = random.Random(number), {}, []
        for dataset, length in DATASETS:
            task = f"icr_helmet_rag_{dataset}_{length}"
            tasks[task] = {
                "benchmark": "helmet_rag",
                "dataset": dataset,
                "length": length,
                "metric": "subem",
                "metric_version": 1,
                "task_version": "1-A",
                "data_revision": "r",
                "official": True,
                "n_expected": per_cell,
                "n_scored": per_cell,
                "n_failed": 0,
                "n_truncated": 0,
                "status": "complete",
            }
            for i in range(per_cell):
                hit = float(rng.random() < 0.6)
                rows.append(
                    {
                        "task": task,
                        "item": f"{dataset}{i // 6:08x}-{i % 6}",
                        "occ": 0,
                        "cluster": f"{dataset}{i // 6:08x}",
                        "keys": {"length": length, "depth": (i % 6) / 5},
                        "score": {"subem": hit, "subem_raw": hit, "em": 0.0, "f1": hit, "parsed": 1.0},
                        "n_prompt_tokens": 4000 + i,
                        "n_out_tokens": 12,
                        "truncated": False,
                        "gold_kept": [1, 1],
                        "resp_hash": f"{rng.getrandbits(64):016x}",
                        "prompt_hash": _hash(f"p{kind}{size}", i)[:16],
                        "target_hash": _hash("t", i // 6)[:16],
                        "error": None,
                    }
                )
        run = {
            "schema": 1,
            "fingerprint": ledger.fingerprint(inputs),
            "fingerprint_inputs": inputs,
            "model": {"id": inputs["model"]},
            "engine": {"name": "icr-vllm"},
            "setting": setting,
            "prompt": "ao",
            "tasks": tasks,
            "started": 1.7e9 + number,
            "status": "complete",
            "seconds": {"total": 100.0},
            "tokens": {"prompt": 4000 * items, "output": 12 * items},
        }
        ledger.write(root, run, rows)


def samples(folder: Path, megabytes: int, *, stock: bool) -> Path:
    """An lm_eval output tree. Stock rows carry document and prompt (here 30 kB of text), ours a digest."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    text = " ".join(rng.choices(words, k=4500))
    digest = {
        "icr": 1,
        "sha256": "a" * 64,
        "n_chars": 123456,
        "n_prompt_tokens": 31000,
        "n_context_tokens": 30800,
        "truncated": False,
        "n_gold": 2,
        "gold_kept": 2,
        "n_units": 220,
        "n_units_kept": 220,
        "head": text[:200],
        "tail": text[-200:],
        "error": None,
        "timing": {"prefill": 1.25, "decode": 0.5, "engine": 1.75},
        "dropped": [],
        "retrieval": None,
        "cached_tokens": 0,
    }
    name, stamp, written, model = "icr_helmet_rag_nq_32k", "2026-01-01T00-00-00", 0.0, 0
    while written < megabytes * 1e6:
        out = folder / f"m{model}"
        out.mkdir(parents=True)
        path = out / f"samples_{name}_{stamp}.jsonl"
        with path.open("w") as file:
            for i in range(10_000):
                written += file.write(
                    json.dumps(_sample(i, text, rng.randrange(10000), digest, stock=stock)) + "\n"
                )
                if written >= megabytes * 1e6:
                    break
        sheet = {
            "benchmark": "helmet_rag",
            "dataset": "nq",
            "length": "32k",
            "metric": "subem",
            "n_expected": i + 1,
            "prompt": "ao",
        }
        config = {"model": "icr-vllm", "model_args": {"pretrained": f"org/m{model}"}}
        body = {
            "configs": {name: {"metadata": {"icr": sheet}}},
            "config": config,
            "versions": {name: "1-A"},
            "n-samples": {name: {"original": i + 1}},
        }
        (out / f"results_{stamp}.json").write_text(json.dumps(body))
        model += 1
    return folder


def _sample(i: int, text: str, cut: int, digest: dict[str, Any], *, stock: bool) -> dict[str, Any]:
    doc = {
        "id": f"q{i}",
        "question": text[cut : cut + 80],
        "answers": ["word1", "word2"],
        "cluster": f"q{i // 6}",
        "keys": {"length": "32k", "depth": 0.2},
    }
    arg = text[cut:] if stock else json.dumps({**digest, "sha256": _hash("s", i)}, sort_keys=True)
    answer = text[cut : cut + 60]
    return {
        "doc_id": i,
        "doc": doc | ({"context": text[cut:]} if stock else {}),
        "target": "word1",
        "arguments": {"gen_args_0": {"arg_0": arg, "arg_1": {"until": [], "max_gen_toks": 20}}},
        "resps": [[answer]],
        "filtered_resps": [answer],
        "filter": "none",
        "metrics": ["subem", "subem_raw", "f1", "parsed", "out_tokens", "truncated"],
        "doc_hash": _hash("d", i),
        "prompt_hash": _hash("p", i),
        "target_hash": _hash("t", i // 6),
        "subem": 1.0,
        "subem_raw": 1.0,
        "f1": 0.5,
        "parsed": 1,
        "out_tokens": 4,
        "truncated": 0,
    }


def _hash(kind: str, i: int) -> str:
    return hashlib.sha256(f"{kind}{i}".encode()).hexdigest()


def stock_json(folder: Path) -> float:
    """Megabytes a second of `json.loads` alone over the sample lines."""
    start, size = time.process_time(), 0
    for path in folder.rglob("samples_*"):
        size += path.stat().st_size
        with path.open() as file:
            for line in file:
                json.loads(line)
    return size / 1e6 / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--megabytes", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        bytecode = root / "bytecode"
        ledgers(root / "small", 5, 100)
        measured(bytecode, "board", str(root / "small"), "-o", str(root / "small-board"))  # compiles
        ledgers(root / "results", args.runs, args.items)
        found: dict[str, Any] = {"runs": args.runs, "items": args.runs * args.items}
        found["board"] = measured(bytecode, "board", str(root / "results"), "-o", str(root / "board"))
        found["files_mb"] = {
            p.name: round(p.stat().st_size / 1e6, 1)
            for p in sorted((root / "board").iterdir())
            if p.stat().st_size > 5e5
        }
        for name, stock in (("ours", False), ("stock", True)):
            folder = samples(root / name, args.megabytes, stock=stock)
            size = sum(p.stat().st_size for p in folder.rglob("samples_*")) / 1e6
            collect = measured(bytecode, "collect", str(folder), "-o", str(root / f"results-{name}"))
            items = sum(sum(1 for _ in p.open("rb")) for p in folder.rglob("samples_*"))
            collect |= {
                "items": items,
                "items_per_cpu_s": items / collect["cpu_seconds"],
                "mb_per_cpu_s": size / collect["cpu_seconds"],
            }
            found[f"collect_{name}"] = collect | {"json_loads_mb_per_cpu_s": stock_json(folder)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
