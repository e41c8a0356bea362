"""Many questions of one document: `compress_once` against asking one at a time, in one run.

    python speed/compress_once.py --tokens 4k --questions 8

Each way runs in a process of its own, one after the other on the same processor threads, and must give the same answers.
Seconds are of generate_until alone, with one thread those of the processor; memory is the peak of the resident set above that of the loaded model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

SETTINGS = ("full", "kv:snapkv@0.25,query-agnostic", "kv:kvzip@0.25,query-agnostic")
ASKED = "What is the {n}th thing that the text above tells of?"


def requests(text: str, setting: Any, n: int) -> list[Any]:
    """One request a question, as a task sends them."""
    from icr_tasks.harness.instance import PromptInstance

    return [
        PromptInstance(
            doc={},
            prompt=f"{text}\n\n{ASKED.format(n=k + 1)}\nAnswer:",
            gen_kwargs={"until": [], "do_sample": False, "max_gen_toks": 16},
            digest="{}",
            task="documents",
            doc_id=k,
            repeats=1,
            setting=setting,
            boundary=len(text),
        )
        for k in range(n)
    ]


def document(tokenizer: Any, tokens: int) -> str:
    """Numbered sentences of about that many tokens."""
    text = "".join(
        f"In room {k} a clerk counts {k * 37 % 1000} coins and writes {k * 91 % 997} in a book. "
        for k in range(tokens // 8)
    )
    spans = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    return text[: spans[tokens - 1][1]]


def one(setting: str, together: bool, args: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    import torch

    from icr_tasks.engines.hf import IcrHF
    from icr_tasks.engines.smollm2 import export
    from icr_tasks.settings import Setting, parse_tokens

    torch.set_num_threads(args.threads)
    # a busy machine does not change the processor time of one thread much
    clock = time.process_time if args.threads == 1 else time.perf_counter
    engine = IcrHF(str(export()), dtype="float32", compress_once=together, device="cpu")
    text = document(engine.tokenizer, parse_tokens(args.tokens))
    before, start = getrusage(RUSAGE_SELF).ru_maxrss, clock()
    answers = engine.generate_until(requests(text, Setting.parse(setting), args.questions), disable_tqdm=True)
    return {
        "seconds": clock() - start,
        "mb": (getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6,
        "answers": answers,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", default="4k")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--arm", nargs=2, metavar=("SETTING", "TOGETHER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        print(json.dumps(one(args.arm[0], args.arm[1] == "1", args)))
        return
    print(f"{args.tokens} tokens, {args.questions} questions")
    print("| setting | one at a time s | once s | ratio | one at a time MB | once MB | same answers |")
    print("|---|---:|---:|---:|---:|---:|---|")
    shared = ["--tokens", args.tokens, "--questions", str(args.questions), "--threads", str(args.threads)]
    for setting in args.settings:
        each, once = (
            json.loads(
                subprocess.run(
                    [sys.executable, str(Path(__file__)), *shared, "--arm", setting, together],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.splitlines()[-1]
            )
            for together in ("0", "1")
        )
        print(
            f"| `{setting}` | {each['seconds']:.1f} | {once['seconds']:.1f} | "
            f"{each['seconds'] / once['seconds']:.1f} | {each['mb']:.0f} | {once['mb']:.0f} | "
            f"{'yes' if each['answers'] == once['answers'] else 'NO'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
