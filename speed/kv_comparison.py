"""Task scores under compressed KV caches: full against five methods at three budgets each, in both engines.

    python speed/kv_comparison.py --data DATA --out cmp                  # icr-hf; again with more --items to go on
    python speed/kv_comparison.py --data DATA --out cmp --engine icr-vllm
    python speed/kv_comparison.py --out cmp --table                     # the tables of docs/kv_tables.md

DATA has HELMET's 4k files (`helmet/data/kilt`, as ICR_DATA_DIR). One item a question is taken, so that items
are independent; the gold's place varies from question to question. HELMET runs with its official prompt
(completion, two demonstrations, 20 new tokens: the answer is a name) and with `ao` in the chat template (a
small model answers with a sentence), icr_synth_rag_4k with `ao`. Everything runs through `icr sweep`; tables
come from its ledgers with the leaderboard's own statistics: `*` marks differences to full with a
Holm-adjusted p below 0.05, one family a column. Default model: SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

METHODS = {
    "topk": ("@0.018", "@0.05", "@0.25"),
    "cluster": ("@0.018", "@0.05", "@0.25"),
    "page": ("@0.018", "@0.05", "@0.25"),
    "steady": ("", "@0.05", "@0.25"),
    "snapkv": ("@0.05", "@0.25", "@0.5"),
}
IN_VLLM = ("topk", "page", "steady")
HELMET = ("nq", "hotpotqa", "popqa")
SCORED = {  # column: task prefix, prompt, metric
    "synth SubEM": ("icr_synth", "ao", "subem"),
    "HELMET `ao` SubEM": ("icr_helmet", "ao", "subem"),
    "HELMET `ao` F1": ("icr_helmet", "ao", "f1"),
    "HELMET official SubEM": ("icr_helmet", "official", "subem"),
    "HELMET official F1": ("icr_helmet", "official", "f1"),
}
Key = tuple[str, str, str]  # task, prompt, item
Rows = dict[Key, dict[str, Any]]
AO = {
    "prompts": ["ao"],
    "gen_kwargs": {"max_gen_toks": 32},
}  # of its 2048: a small model's answers are short or endless


def settings(methods: tuple[str, ...]) -> list[str]:
    """The settings of these methods, full first."""
    return ["full", *(f"kv:{name}{budget}" for name in methods for budget in METHODS[name])]


def one_a_question(data: Path, out: Path) -> None:
    """Copy HELMET's 4k files with one row a question, a different variant (gold place) from question to
    question."""
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


def study(out: Path, engine: str, model: str, items: int, ao: int, synth: int) -> Path:
    """Write the study file of one engine."""
    tasks: list[dict[str, Any]] = []
    for limit, asked in ((items, {"prompts": ["official"]}), (ao, AO)):
        tasks += [{"task": f"icr_helmet_rag_{name}_4k", "limit": limit, **asked} for name in HELMET if limit]
    if synth:
        tasks.append({"task": "icr_synth_rag_4k", "limit": synth, **AO})
    args: dict[str, Any] = {"pretrained": model, "dtype": "float32"}
    if engine == "icr-hf":
        args |= {"prefill_store": str((out / "prefills").resolve()), "prefill_store_gb": 30, "device": "cpu"}
        batch: int | str = 8
    else:
        batch = "auto"
        # kv=task: one engine for all settings, which then share the prefills through the prefix cache
        args |= {
            "kv": "task",
            "max_model_len": 6144,
            "enforce_eager": True,
            "distributed_executor_backend": "uni",
        }
    made = {
        "out": str((out / f"study-{engine}").resolve()),
        "models": [{"name": "model", "model": engine, "model_args": args, "batch_size": batch}],
        "settings": settings(tuple(METHODS) if engine == "icr-hf" else IN_VLLM),
        "tasks": tasks,
        "in_flight": 8,
        "metadata": {"allow_partial": True},
    }
    path = out / f"{engine}.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def run(out: Path, engine: str, model: str, items: int, ao: int, synth: int) -> int:
    """`icr sweep` of one engine's study."""
    env = {**os.environ, "ICR_DATA_DIR": str((out / "data").resolve()), "TOKENIZERS_PARALLELISM": "false"}
    env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "4"}
    path = study(out, engine, model, items, ao, synth)
    return subprocess.run(
        [str(Path(sys.executable).with_name("icr")), "sweep", str(path)], env=env
    ).returncode


# -- tables, from the ledgers ------------------------------------------------------------------------------


def tables(out: Path) -> str:
    """Markdown: for each engine that has ledgers a table of scores, paired with full, and one of bytes and
    texts."""
    found = {engine: _items(out / f"study-{engine}" / "results") for engine in ("icr-hf", "icr-vllm")}
    made = [
        f"`--model {engine}`: {what}\n\n{_markdown(lines)}"
        for engine, rows in found.items()
        if "full" in rows
        for what, lines in (
            ("scores", _scores(rows)),
            ("cost", _cost(rows, found["icr-hf"] if engine != "icr-hf" else {})),
        )
    ]
    return "\n\n".join(made)


def _items(results: Path) -> dict[str, Rows]:
    """Setting -> (task, prompt, item) -> ledger row, over all runs below `results`."""
    from icr_tasks.leaderboard.ledgers import ledger

    found: dict[str, Rows] = {}
    for folder, run in ledger.runs(results) if results.is_dir() else ():
        rows = {(r["task"], run["prompt"], r["item"]): r for r in ledger.items(folder) if not r["error"]}
        found.setdefault(run["setting"]["text"], {}).update(rows)
    return found


def _ordered(found: dict[str, Rows]) -> list[str]:
    return [text for text in settings(tuple(METHODS)) if text in found]


def _markdown(lines: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def _scores(found: dict[str, Rows]) -> list[list[str]]:
    """Each score x 100 and its paired difference to full with 95 % intervals, over the items that all
    settings have."""
    texts = _ordered(found)
    lines = [["setting"], *([f"`{text}`"] for text in texts)]
    for name, (prefix, prompt, metric) in SCORED.items():
        asked = {
            text: {k for k in found[text] if k[0].startswith(prefix) and k[1] == prompt} for text in texts
        }
        done = [text for text in texts if asked[text]]
        keys = sorted(set.intersection(*(asked[text] for text in done))) if asked["full"] else []
        if not keys:
            continue
        cells = dict(zip(done, _column(keys, metric, [found[text] for text in done]), strict=True))
        lines[0] += [f"{name} (N = {len(keys)})", "minus full"]
        for line, text in zip(lines[1:], texts, strict=True):
            line += cells.get(text, ["", ""])
    return lines


def _column(keys: list[Key], metric: str, sides: list[Rows]) -> list[list[str]]:
    """Mean and difference to the first of `sides` (data sets weigh equally); `*`: Holm-adjusted p < 0.05."""
    from icr_tasks.leaderboard.stats import Design, holm
    from icr_tasks.leaderboard.text.printed import settled

    design = Design([sides[0][k]["cluster"] for k in keys], None, [k[0] for k in keys])
    values = [np.array([side[k]["score"][metric] for k in keys]) for side in sides]
    effects = [design.effect(new - values[0]) for new in values[1:]]
    adjusted = holm([e.p for e in effects])
    deltas = [_shown(e, "+") + "*" * bool(settled(p) < 0.05) for e, p in zip(effects, adjusted, strict=True)]
    return [[_shown(design.score(new), ""), delta] for new, delta in zip(values, ["", *deltas], strict=True)]


def _shown(effect: Any, sign: str) -> str:
    mean, low, high = effect.in_points()
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _cost(found: dict[str, Rows], hf: dict[str, Rows]) -> list[list[str]]:
    """Bytes as the engine counted them, and answers with the same text."""
    heads = ["setting", "kept", "kept kB/token", "read", "read MB/step", "same text as full"]
    lines = [heads + ["same text as icr-hf"] * bool(hf)]
    for text in _ordered(found):
        same = ["" if text == "full" else _same(found[text], found["full"])]
        same += [_same(found[text], hf.get(text, {}))] * bool(hf)
        lines.append([f"`{text}`", *_bytes(found[text], text), *same])
    filled = [
        any(line[i] for line in lines[1:]) for i in range(len(lines[0]))
    ]  # vLLM reports shares, no bytes
    return [[cell for cell, keep in zip(line, filled, strict=True) if keep] for line in lines]


def _bytes(rows: Rows, text: str) -> list[str]:
    """Shares and bytes that the engine measured, means over items."""
    kv = [r["kv"] for r in rows.values() if "kv" in r]
    if not kv and text == "full":
        return ["100.0%", "", "100.0%", ""]

    def mean(name: str, form: str, unit: float = 1) -> str:
        values = [k[name] for k in kv if k.get(name) is not None]
        return format(sum(values) / len(values) / unit, form) if values else ""

    return [
        mean("stored_fraction", ".1%"),
        mean("bytes_stored_per_token", ".1f", 1e3),
        mean("read_fraction", ".1%"),
        mean("bytes_read_per_step", ".1f", 1e6),
    ]


def _same(a: Rows, b: Rows) -> str:
    both = a.keys() & b.keys()
    return f"{sum(a[k]['resp_hash'] == b[k]['resp_hash'] for k in both)}/{len(both)}" if both else ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="data root with HELMET's k20 and k3 files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=("icr-hf", "icr-vllm"), default="icr-hf")
    parser.add_argument(
        "--items", type=int, default=8, help="of each HELMET data set, official prompt; 0: none"
    )
    parser.add_argument("--ao", type=int, default=8, help="of each HELMET data set, prompt ao; 0: none")
    parser.add_argument("--synth", type=int, default=24, help="of icr_synth_rag_4k; 0: none")
    parser.add_argument("--model")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables(args.out))
        return 0
    if args.data is None:
        parser.error("--data is needed to run")
    from icr_tasks.engines.smollm2 import export

    one_a_question(args.data, args.out)
    return run(args.out, args.engine, args.model or str(export()), args.items, args.ao, args.synth)


if __name__ == "__main__":
    raise SystemExit(main())
