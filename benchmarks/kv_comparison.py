"""Task scores under compressed KV caches: full against five methods at three budgets each, in both engines.

    python benchmarks/kv_comparison.py --data DATA --out cmp                  # icr-hf; again with more --items to go on
    python benchmarks/kv_comparison.py --data DATA --out cmp --engine icr-vllm
    python benchmarks/kv_comparison.py --out cmp --table                     # the tables of docs/kv.md

DATA has HELMET's 4k files (`helmet/data/kilt`, as ICR_DATA_DIR). One item a question is taken, so that items are
independent; the gold's place varies from question to question. HELMET runs with its official prompt (completion,
two demonstrations, 20 new tokens), icr_synth_rag_4k with `ao` in the chat template. Everything runs through `icr sweep`;
tables come from its ledgers with the leaderboard's own statistics. Default model: SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

METHODS = {
    "topk": ("@0.018", "@0.05", "@0.25"), "cluster": ("@0.018", "@0.05", "@0.25"), "page": ("@0.018", "@0.05", "@0.25"),
    "steady": ("", "@0.05", "@0.25"), "snapkv": ("@0.05", "@0.25", "@0.5"),
}  # fmt: skip
IN_VLLM = ("topk", "page", "steady")
HELMET = ("nq", "hotpotqa", "popqa")
SYNTH_TOKENS = 32  # of the `ao` prompt's 2048: the answers of a small model are short or endless


def settings(methods: tuple[str, ...]) -> list[str]:
    """The settings of these methods, full first."""
    return ["full", *(f"kv:{name}{budget}" for name in methods for budget in METHODS[name])]


def one_a_question(data: Path, out: Path) -> None:
    """Copy HELMET's 4k files with one row a question, a different variant (gold place) from question to question."""
    target = out / "data" / "helmet" / "data" / "kilt"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "helmet" / "data" / "kilt").glob("*_k20_*.jsonl")):
        rows: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            rows.setdefault(json.loads(line)["question"], []).append(line)
        kept = [found[i % len(found)] for i, found in enumerate(rows.values())]
        (target / path.name).write_text("\n".join(kept) + "\n", encoding="utf-8")
    for path in (data / "helmet" / "data" / "kilt").glob("*_k3_*.jsonl"):
        (target / path.name).write_bytes(path.read_bytes())


def study(out: Path, engine: str, model: str, items: int, synth: int) -> Path:
    """Write the study file of one engine."""
    tasks: list[dict[str, Any]] = [
        {"task": f"icr_helmet_rag_{name}_4k", "limit": items, "prompts": ["official"]} for name in HELMET
    ]
    if synth:
        asked = {"prompts": ["ao"], "gen_kwargs": {"max_gen_toks": SYNTH_TOKENS}}
        tasks.append({"task": "icr_synth_rag_4k", "limit": synth, **asked})
    args: dict[str, Any] = {"pretrained": model, "dtype": "float32"}
    if engine == "icr-hf":
        args |= {"prefill_store": str((out / "prefills").resolve()), "prefill_store_gb": 30, "device": "cpu"}
        batch: int | str = 8
    else:
        batch = "auto"
        # kv=task: one engine for all settings, which then share the prefills through the prefix cache
        args |= {"kv": "task", "max_model_len": 6144, "enforce_eager": True, "distributed_executor_backend": "uni"}
    made = {
        "out": str((out / f"study-{engine}").resolve()),
        "models": [{"name": "model", "model": engine, "model_args": args, "batch_size": batch}],
        "settings": settings(tuple(METHODS) if engine == "icr-hf" else IN_VLLM),
        "tasks": tasks, "in_flight": 8, "metadata": {"allow_partial": True},
    }  # fmt: skip
    path = out / f"{engine}.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def run(out: Path, engine: str, model: str, items: int, synth: int) -> int:
    """`icr sweep` of one engine's study."""
    env = {**os.environ, "ICR_DATA_DIR": str((out / "data").resolve()), "TOKENIZERS_PARALLELISM": "false"}
    env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "4"}
    path = study(out, engine, model, items, synth)
    return subprocess.run([str(Path(sys.executable).with_name("icr")), "sweep", str(path)], env=env).returncode


# -- tables, from the ledgers -----------------------------------------------------------------------------------------


def tables(out: Path) -> str:
    """Markdown: one table an engine that has ledgers, with its paired differences to full."""
    parts = []
    hf = _answers(out / "study-icr-hf" / "results")
    for engine in ("icr-hf", "icr-vllm"):
        results = out / f"study-{engine}" / "results"
        if results.is_dir():
            parts.append(_table(engine, results, {} if engine == "icr-hf" else hf))
    return "\n\n".join(parts)


def _table(engine: str, results: Path, other: dict[str, dict[tuple[str, str], str]]) -> str:
    from icr_tasks.leaderboard.board import build
    from icr_tasks.leaderboard.board_rows import columns_of, difference
    from icr_tasks.leaderboard.views_grid import Options, of_effect

    rows = {row.setting["text"]: row for row in build(results, Options(), views=["drop"], partial=True).rows}
    full, answers = rows["full"], _answers(results)
    groups = {"HELMET 4k": [c for c in columns_of([full]) if c[0] == "helmet_rag"],
              "synth 4k": [c for c in columns_of([full]) if c[0] == "synth"]}  # fmt: skip
    groups = {name: columns for name, columns in groups.items() if columns}
    counts = {name: sum(full.cells[c].effect.n for c in columns) for name, columns in groups.items()}
    heads = ["setting", "kept", "read", "attended"]
    for name, n in counts.items():
        heads += [f"{name} (N = {n})", "minus full"]
    heads += ["same answer as full"] + (["same as icr-hf"] if other else [])
    lines = [" | ".join(heads), " | ".join(["---"] + ["---:"] * (len(heads) - 1))]
    for text in [t for t in settings(tuple(METHODS)) if t in rows]:
        row = rows[text]
        kv = row.heads[0].get("kv") or {}
        shares = ("stored_fraction", "read_fraction", "attended_fraction")
        cells = [f"`{text}`", *(f"{kv[k]:.1%}" if k in kv else ("100.0%" if text == "full" else "") for k in shares)]
        for columns in groups.values():
            cell = row.average(columns)
            cells.append(_shown(of_effect(cell.effect, 0.95)) if cell.effect else cell.reason)
            paired = None if text == "full" else difference(row, full, columns)
            cells.append("" if paired is None else paired if isinstance(paired, str) else _shown(of_effect(paired[0].effect(paired[1] - paired[2]), 0.95), "+"))  # fmt: skip
        cells.append("" if text == "full" else _same(answers[text], answers["full"]))
        cells += [_same(answers[text], other.get(text, {}))] if other else []
        lines.append(" | ".join(cells))
    return f"`--model {engine}`\n\n" + "\n".join(f"| {line} |" for line in lines)


def _shown(found: Any, sign: str = "") -> str:
    if found.value is None or found.low is None:
        return found.reason
    return f"{found.value:{sign}.1f} [{found.low:{sign}.1f}, {found.high:{sign}.1f}]"


def _answers(results: Path) -> dict[str, dict[tuple[str, str], str]]:
    """Setting -> (task, item) -> digest of the answer."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for path in sorted(results.glob("*/*/*/run.json")):
        with gzip.open(path.with_name("items.jsonl.gz"), "rt", encoding="utf-8") as file:
            rows = {(r["task"], r["item"]): r["resp_hash"] for r in map(json.loads, file) if not r["error"]}
        found.setdefault(json.loads(path.read_text())["setting"]["text"], {}).update(rows)
    return found


def _same(a: dict[tuple[str, str], str], b: dict[tuple[str, str], str]) -> str:
    both = a.keys() & b.keys()
    return f"{sum(a[k] == b[k] for k in both)}/{len(both)}" if both else ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data root with HELMET's k20 and k3 files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=("icr-hf", "icr-vllm"), default="icr-hf")
    parser.add_argument("--items", type=int, default=8, help="of each HELMET data set")
    parser.add_argument("--synth", type=int, default=24, help="of icr_synth_rag_4k; 0: none")
    parser.add_argument("--model")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables(args.out))
        return 0
    if args.data is None:
        parser.error("--data is needed to run")
    from icr_tasks.models.smollm2 import export

    one_a_question(args.data, args.out)
    return run(args.out, args.engine, args.model or str(export()), args.items, args.synth)


if __name__ == "__main__":
    raise SystemExit(main())
