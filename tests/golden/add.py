"""Take real runs into a golden tree: python tests/golden/add.py NAME RESULTS...

    make train-demo
    python tests/golden/add.py tiny train-demo/eval/results
    ICR_UPDATE_GOLDEN=1 python -m pytest tests/test_board_command.py -k real_runs

RESULTS are folders written by `icr collect` (or results/ of a sweep). Folders of this machine in the model
arguments are replaced by the model's name, which gives the runs a new fingerprint; everything else is kept as
it is.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import orjson

from icr_tasks.leaderboard.ledgers import ledger
from icr_tasks.leaderboard.ledgers.lm_eval_files import run_fingerprint

LIMIT = 150_000  # bytes of one tree


def add(tree: Path, results: Path) -> None:
    """Copy every run below `results` into `tree`."""
    for folder, run in ledger.runs(results):
        inputs = run["fingerprint_inputs"]
        for key, value in inputs["model_args"].items():
            if isinstance(value, str) and value.startswith(("/", "~", ".")):
                inputs["model_args"][key] = str(run["model"]["id"])
        run["fingerprint"] = run_fingerprint(inputs)
        target = (
            tree / ledger.slug(run["model"]["id"]) / ledger.slug(run["setting"]["text"]) / run["fingerprint"]
        )
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / ledger.ITEMS, target)
        (target / "run.json").write_bytes(
            orjson.dumps(run, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        )


if __name__ == "__main__":
    tree = Path(__file__).with_name(sys.argv[1])
    for results in sys.argv[2:]:
        add(tree, Path(results))
    size = sum(p.stat().st_size for p in tree.rglob("*") if p.is_file())
    print(f"{tree}: {len(list(tree.rglob('run.json')))} runs, {size} bytes")
    sys.exit(f"more than {LIMIT} bytes; take fewer items or runs" if size > LIMIT else 0)
