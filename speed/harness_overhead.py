"""What the harness itself costs on long contexts: ours against the same data as a plain lm-eval task, in one
run.

    python speed/harness_overhead.py --docs 100 --chars 500000

Each task runs in its own process with lm-eval's dummy model, so nothing but the harness is measured: peak
memory above a run on one tiny document, size of the sample log, and seconds. Growth with input size: --docs
400. With --engine vllm it is lm-eval's own vllm model, tokenizing with SmolLM2's tokenizer, whose engine alone is left
out; --ours skips the plain task, which then holds 130 times its tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

STOCK = """task: stock_plain
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: generate_until
doc_to_text: "Read the book below and answer the question.\\n\\n{{{{context}}}}\\n\\nQuestion: {{{{input}}}}"
doc_to_target: "{{{{answer[0]}}}}"
generation_kwargs:
  until: []
  max_gen_toks: 40
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


# lm-eval's vllm model and command line; the engine answers without looking.
VLLM = """
import sys
from types import SimpleNamespace as N
import lm_eval.models.vllm_causallms as module
class LLM:
    def __init__(self, **args):
        from vllm.engine.arg_utils import EngineArgs
        self.llm_engine = N(model_config=EngineArgs(**args).create_model_config())
    def generate(self, prompts, **_):
        return [N(outputs=[N(text="lol", token_ids=[1])]) for _ in prompts]
module.LLM = LLM
from lm_eval.__main__ import cli_evaluate
sys.argv = ["lm_eval", *sys.argv[1:]]
cli_evaluate()
"""


def write(folder: Path, docs: int, chars: int) -> Path:
    """A file in InfiniteBench's format with `docs` different books of `chars` ASCII characters."""
    draw = random.Random(
        0
    )  # words of three syllables, two to three letters a token: digits would be a token each
    words = [
        "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(3)) for _ in range(2000)
    ]
    path = folder / "infinitebench" / "longbook_qa_eng.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for i in range(docs):
            r = random.Random(i)
            text = " ".join(r.choices(words, k=chars // 6))[:chars]
            file.write(
                json.dumps({"id": i, "context": text, "input": "what?", "answer": ["x"], "options": []})
                + "\n"
            )
    return path


def asked(engine: str) -> list[str]:
    """The beginning of an lm_eval command with that engine."""
    if engine == "dummy":
        return [sys.executable, "-P", "-m", "lm_eval", "--model", "dummy"]
    from icr_tasks.engines.smollm2 import export

    args = f"pretrained={export()},max_model_len=2000000,dtype=float32"
    return [sys.executable, "-P", "-c", VLLM, "run", "--model", "vllm", "--model_args", args]


def run(engine: str, task: str, folder: Path, include: Path, out: Path) -> tuple[float, float, int]:
    """(seconds, peak MB, bytes of the sample log) of one lm_eval process."""
    command = [
        *asked(engine),
        "--tasks",
        task,
        "--include_path",
        str(include),
    ]
    command += [
        "--log_samples",
        "--output_path",
        str(out),
        "--metadata",
        '{"tokenizer":"none","allow_partial":true}',
    ]
    env = {
        **os.environ,
        "ICR_DATA_DIR": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HOME": str(folder / "hf"),
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    }
    started = time.perf_counter()
    with open(os.devnull, "w") as null:
        pid = os.posix_spawn(
            command[0],
            command,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, null.fileno(), 1), (os.POSIX_SPAWN_DUP2, null.fileno(), 2)],
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{task} failed: {' '.join(command)}")
    log = sum(p.stat().st_size for p in out.rglob("samples_*.jsonl"))
    return time.perf_counter() - started, usage.ru_maxrss / 1024, log


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=100)
    parser.add_argument("--chars", type=int, default=500_000)
    parser.add_argument("--engine", choices=("dummy", "vllm"), default="dummy")
    parser.add_argument("--ours", action="store_true", help="only our task")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        small, large = root / "small", root / "large"
        files = {small: write(small, 1, 100), large: write(large, args.docs, args.chars)}
        text = args.docs * args.chars / 1e6
        print(f"{args.docs} documents x {args.chars:,} characters = {text:.0f} MB of text\n")
        print("| task | peak memory growth, MB | growth / text | sample log, MB | seconds |")
        print("|---|---:|---:|---:|---:|")
        for label, task in (("plain lm-eval YAML", "stock_plain"), ("icr_infbench_qa", "icr_infbench_qa"))[
            args.ours :
        ]:
            found = []
            for folder in (small, large):
                include = folder / "yaml"
                include.mkdir(exist_ok=True)
                (include / "stock.yaml").write_text(STOCK.format(file=files[folder]))
                found.append(run(args.engine, task, folder, include, folder / f"out-{task}"))
            (_, base, _), (seconds, peak, log) = found
            print(
                f"| {label} | {peak - base:.0f} | {(peak - base) / text:.2f} | {log / 1e6:.2f} | "
                f"{seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
