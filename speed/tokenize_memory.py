"""Peak memory and time of tokenizing long prompts: lm-eval's call on all prompts at once against int32
pieces.

    python speed/tokenize_memory.py --docs 24 --chars 500000 [--tokenizer MODEL]

Each way runs in a fresh process, so that peaks do not mix; the text is real where ICR_DATA_DIR has some. The
first number counts every prompt held at once, the worst case; `--model icr-vllm` holds only those in flight.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def prompts(docs: int, chars: int) -> list[str]:
    """Texts of `chars` characters each, from real documents where there are some, else generated words."""
    root = Path(os.environ.get("ICR_DATA_DIR", "."))
    found = "\n".join(p.read_text(errors="replace") for p in sorted(root.rglob("*.txt"))[:60])
    if len(found) < 200_000:
        from icr_tasks import benchmarks

        found = "\n".join(u.text for i in benchmarks.load("synth", "rag", "16k").items for u in i.units())
    long = found * (1 + (docs * 1000 + chars) // len(found))
    return [long[i * 1000 : i * 1000 + chars] for i in range(docs)]


def one(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure in this process: {"tokens", "seconds", "peak", "kept"}, bytes beyond texts and tokenizer."""
    from transformers import AutoTokenizer

    from icr_tasks.engines.encode import encode

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    texts = prompts(args.docs, args.chars)
    encode(tokenizer, texts[0][:2000]), tokenizer(texts[0][:2000])
    before, started = _now(), time.perf_counter()
    if way == "lm-eval":
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as lm_eval run does
        ids: list[Any] = tokenizer(texts, return_attention_mask=False)["input_ids"]
    else:
        ids = [encode(tokenizer, text) for text in texts]
    seconds, tokens = time.perf_counter() - started, sum(len(x) for x in ids)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens": tokens, "seconds": seconds, "peak": peak - before, "kept": _now() - before}


def _now() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=24)
    parser.add_argument("--chars", type=int, default=500_000)
    parser.add_argument("--tokenizer", help="default: SmolLM2-135M-Instruct")
    parser.add_argument("--way", choices=("lm-eval", "icr-vllm"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.tokenizer:
        from icr_tasks.engines.smollm2 import export

        args.tokenizer = str(export())
    if args.way:
        print(json.dumps(one(args.way, args)))
        return 0
    print(f"{args.docs} prompts of {args.chars:,} characters, {os.cpu_count()} cores\n")
    print("| way | tokens | seconds | peak bytes/token | kept bytes/token |\n|---|---:|---:|---:|---:|")
    for way in ("lm-eval", "icr-vllm"):
        command = [sys.executable, __file__, *sys.argv[1:], "--tokenizer", args.tokenizer, "--way", way]
        found = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        )
        n = found["tokens"]
        print(
            f"| {way} | {n:,} | {found['seconds']:.1f} | {found['peak'] / n:.1f} | {found['kept'] / n:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
