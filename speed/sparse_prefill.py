"""`prefill=xattention` against the dense prefill in icr-hf: seconds, tiles computed, attention kept, score, in one run.

    python speed/sparse_prefill.py --task icr_synth_rag_8k --items 4

SmolLM2-135M-Instruct in float32 on a CPU; the same items under both settings, the decode reads every key in both. Seconds of
the prefill are those of the processor with one thread (without what measuring the kept attention takes), else of the clock on
the wall.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

SPARSE = "kv:topk@1.0,prefill=xattention"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="icr_synth_rag_8k")
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=24, help="generated, of the prompt's 2048")
    args = parser.parse_args()
    import torch

    from icr_tasks.engines.hf import IcrHF
    from icr_tasks.engines.smollm2 import export
    from icr_tasks.harness.run import manager
    from icr_tasks.kv import prefill
    from icr_tasks.kv.hf import decode

    torch.set_num_threads(args.threads)
    folder = str(export())
    engine = IcrHF(folder, dtype="float32", device="cpu", max_length=8192)
    print("| setting | items | prompt tokens | score | prefill s | tiles | attention kept | same answers |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    clock = time.process_time if args.threads == 1 else time.perf_counter
    spent: Counter[str] = Counter()

    def timed(name: str, function: Any) -> Any:
        def run(*given: Any) -> Any:
            start = clock()
            try:
                return function(*given)
            finally:
                spent[name] += clock() - start

        return run

    decode._prefill, prefill.mass = timed("prefill", decode._prefill), timed("mass", prefill.mass)
    before: list[str] = []
    for setting in ("full", SPARSE):
        metadata = {"setting": setting, "tokenizer": folder, "max_length": 8192}
        task: Any = manager(metadata).load([args.task])["tasks"][args.task]
        task.set_config("generation_kwargs", {"max_gen_toks": args.tokens}, update=True)
        task.build_all_requests(
            limit=args.items, chat_template=engine.apply_chat_template, apply_chat_template=True
        )
        spent.clear()
        answers = engine.generate_until(task.instances, disable_tqdm=True)
        for request, answer in zip(task.instances, answers, strict=True):
            request.resps.append(answer)
        task.apply_filters()
        scores = [
            task.process_results(i.doc, [i.filtered_resps["none"]])[task.sheet["metric"]]
            for i in task.instances
        ]
        kv = [i.found["kv"] for i in task.instances]
        tokens = [k["tokens"] for k in kv]
        seconds = spent["prefill"] - spent["mass"]
        same = sum(a == b for a, b in zip(answers, before or answers, strict=True))
        before = before or answers
        print(
            f"| `{setting}` | {len(kv)} | {sum(tokens) / len(tokens):.0f} | {100 * sum(scores) / len(scores):.1f} | "
            f"{seconds:.1f} | {mean(kv, 'prefill_fraction')} | {mean(kv, 'prefill_mass_kept')} | {same} |",
            flush=True,
        )


def mean(rows: list[dict[str, Any]], name: str) -> str:
    """Mean of what was measured, in per cent; empty where it was not."""
    found = [row[name] for row in rows if name in row]
    return f"{sum(found) / len(found):.1%}" if found else ""


if __name__ == "__main__":
    main()
