"""Prefill saved by asking questions of one document together: `--model icr-vllm` against naive order without
caching.

    python speed/prefix_sharing.py                          # SmolLM2-135M on this machine, about five minutes
    python speed/prefix_sharing.py --model MODEL --tokens 100000 --questions 20

Both ways run in one process, one after the other, on the same prompts: documents of `--tokens` tokens with
`--questions` questions each, questions of different documents interleaved as a shuffled data file has them.
Reported: prompt tokens the engine computed (from its own count of cached tokens), wall time without loading,
same answers.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

GEN = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 8, "until": []}


class Request:
    """What the engine needs of an lm-eval request."""

    task_name = "prefix_sharing"

    def __init__(self, doc_id: int, prompt: str) -> None:
        self.doc_id, self.args = doc_id, (prompt, dict(GEN))


def requests(tokenizer: Any, documents: int, questions: int, tokens: int) -> list[Request]:
    """Prompts whose documents have `tokens` tokens; document i's j-th question stands at place j * documents
    + i."""
    from icr_tasks import benchmarks

    items = list(benchmarks.load("synth", "rag", "4k").items)
    text = "\n\n".join(u.text for item in items[: 2 + documents * tokens // 2000] for u in item.units())
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) < documents * tokens:
        raise SystemExit(f"only {len(ids)} tokens of text for {documents} x {tokens}")
    found = []
    for j in range(questions):
        for i in range(documents):
            document = tokenizer.decode(ids[i * tokens : (i + 1) * tokens])
            message = f"{document}\n\nAnswer from the text above.\n\nQuestion: {items[j].question}"
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
            )
            found.append(Request(len(found), prompt))
    return found


def measure(model: str, way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Load an engine, run all requests, return counts; `naive` runs in the given order, one prefix cache
    off."""
    from icr_tasks.engines.vllm import IcrVLLM

    ours = way == "ours"
    engine: dict[str, Any] = {
        "max_model_len": args.max_model_len,
        "enforce_eager": True,
        "enable_prefix_caching": ours,
    }
    if args.cpu:
        engine |= {"dtype": "float32", "distributed_executor_backend": "uni"}
    lm = IcrVLLM(model, **engine)
    asked = requests(lm.tokenizer, args.documents, args.questions, args.tokens)
    list(lm.stream([Request(0, "warm up")], [0]))
    started = time.perf_counter()
    if ours:
        from icr_tasks.engines.answers import by_prefix

        order = by_prefix(asked, range(len(asked)))
    else:
        order = list(range(len(asked)))
    answers, prompt, cached = {}, 0, 0
    for i, text, found in lm.stream(asked, order):
        answers[i] = text
        prompt += found["engine_tokens"]["prompt"]
        cached += found["engine_tokens"]["cached"]
    seconds = time.perf_counter() - started
    del lm
    gc.collect()
    return {
        "prompt": prompt,
        "computed": prompt - cached,
        "seconds": seconds,
        "answers": [answers[i] for i in sorted(answers)],
    }


def main() -> int:
    """Print the table; 1 when ours computes more than --aim of the naive prefill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="default: SmolLM2-135M-Instruct")
    parser.add_argument("--documents", type=int, default=1)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a document")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--aim", type=float, default=0.25)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm.platforms import current_platform

    args.cpu = current_platform.is_cpu()
    if not args.model:
        from icr_tasks.engines.smollm2 import export

        args.model = str(export())
    found = {way: measure(args.model, way, args) for way in ("ours", "naive")}
    ours, naive = found["ours"], found["naive"]
    same = sum(a == b for a, b in zip(ours["answers"], naive["answers"], strict=True))
    print(
        f"\n{args.documents} document(s) of {args.tokens} tokens, {args.questions} questions each, "
        f"{Path(args.model).name}\n"
    )
    print("| way | prompt tokens | computed | computed / prompt | seconds |\n|---|---:|---:|---:|---:|")
    for way, r in found.items():
        print(
            f"| {way} | {r['prompt']:,} | {r['computed']:,} | {r['computed'] / r['prompt']:.3f} | "
            f"{r['seconds']:.1f} |"
        )
    ratio, wall = ours["computed"] / naive["computed"], ours["seconds"] / naive["seconds"]
    print(
        f"\nprefill {ratio:.3f} of naive, wall {wall:.3f} of naive, same answers "
        f"{same}/{len(ours['answers'])}"
    )
    if args.json:
        args.json.write_text(json.dumps({"prefill_ratio": ratio, "wall_ratio": wall, **found}))
    return int(ratio > args.aim)


if __name__ == "__main__":
    sys.exit(main())
