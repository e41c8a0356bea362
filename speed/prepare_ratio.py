"""`icr prepare` now against an earlier commit, and against bm25s alone: MB of documents a second, in one run.

    python speed/prepare_ratio.py                                  # 24 books of 1 MB, 10 questions each
    python speed/prepare_ratio.py --against 62d0c5f --alternations 5

Both trees run the whole command on the same InfiniteBench-shaped file, in turn, each with an empty cache, and
must write the same file: the same passages of every question and, of all else that both write, the same values.
What only one of them writes is said. Seconds are those that the command prints for its task: reading, chunking, indexing,
ranking and writing, without the start of Python. CPU seconds are those of the books after the first: they hold
whatever else the machine does. `bm25s` is the package alone on pieces of 2,000 characters: its own tokenizer and
index, ranking the same questions, counting no tokens of any model. Run it in a git checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -P` leaves a script's folder out

from prepare_scale import book

ROOT = Path(__file__).resolve().parent.parent


def data(folder: Path, books: int, questions: int, size: int, text: Path | None) -> float:
    """An InfiniteBench-shaped file of questions on books; returns megabytes of distinct books."""
    (folder / "infinitebench").mkdir(parents=True)
    real = text.read_text(errors="replace") if text else ""
    total = 0
    with (folder / "infinitebench" / "longbook_qa_eng.jsonl").open("w") as file:
        for number in range(books):
            at = number * 9973 % max(len(real), 1)
            shown = ((real[at:] + real) * (1 + size // len(real)))[:size] if real else book(number, size)
            total += len(shown.encode())
            for question in range(questions):
                asked = f"What did Name{number}x{question} say to Name{number}x{question + 20}?"
                record = {"id": number * questions + question, "context": shown, "input": asked}
                file.write(
                    json.dumps({**record, "answer": [f"Name{number}x{question}"], "options": []}) + "\n"
                )
    return total / 1e6


def tree(commit: str, target: Path) -> Path:
    """The packages of a commit as one importable folder."""
    source = target / "source"
    source.mkdir(parents=True)
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit], check=True, stdout=subprocess.PIPE
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=packed, check=True)
    return joined(source, target / "packages")


def joined(source: Path, target: Path) -> Path:
    """A checkout laid out as it is installed: leaderboard and training below icr_tasks."""
    (target / "icr_tasks").mkdir(parents=True)
    for path in (source / "icr_tasks").iterdir():
        (target / "icr_tasks" / path.name).symlink_to(path)
    for name in ("leaderboard", "training"):
        (target / "icr_tasks" / name).symlink_to(source / name)
    return target


def prepare(packages: Path, folder: Path, args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """One `icr prepare`: its own seconds, CPU seconds and peak MB of the command, and what it wrote."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    env = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "ICR_DATA_DIR": str(folder),
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
    }
    env.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # packages are compiled once, as they are where they were installed
    command = [
        sys.executable,
        "-c",
        _CALL,
        "prepare",
        "--tasks",
        "icr_infbench_qa",
        "--setting",
        args.setting,
    ]
    command += ["--tokenizer", args.tokenizer, "--allow-partial", *more]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    row = next(
        line
        for line in done.stdout.splitlines()
        if line.startswith("| icr_infbench_qa") and line.count("|") == 10
    )
    (written,) = (cache / "icr-tasks" / "prepared").rglob("*.json")
    return {
        "seconds": float(row.split("|")[-2]),
        "made": json.loads(written.read_bytes()),
        **json.loads(done.stderr.strip().splitlines()[-1]),
    }


_CALL = """
import json, resource, sys
from icr_tasks.cli import main
code = main(sys.argv[1:])
use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu, peak = sum(u.ru_utime + u.ru_stime for u in use), max(u.ru_maxrss for u in use) / 1024
print(json.dumps({"cpu": cpu, "peak": peak}), file=sys.stderr)
sys.exit(code)
"""


def differences(before: Any, now: Any, place: str = "") -> tuple[set[str], set[str]]:
    """(places whose values differ, places that only one of two prepared files has); of items and lists as `*`."""
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [(k, before.get(k), now.get(k), k in before and k in now) for k in {**before, **now}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        parts = [("*", a, b, True) for a, b in zip(before, now, strict=True)]
    else:
        return ({place} if before != now else set()), set()
    other, single = set[str](), set[str]()
    for key, a, b, both in parts:
        at = f"{place}.*" if place == "items" else f"{place}.{key}".lstrip(".")
        if not both:
            single.add(at)
        else:
            found = differences(a, b, at)
            other, single = other | found[0], single | found[1]
    return other, single


def alone(folder: Path) -> dict[str, Any]:
    """bm25s by itself: split each book at every 2,000 characters, tokenize, index, rank its questions."""
    import bm25s

    lines = [json.loads(line) for line in (folder / "infinitebench" / "longbook_qa_eng.jsonl").open()]
    asked: dict[str, list[str]] = {}
    for line in lines:
        asked.setdefault(line["context"], []).append(line["input"])
    started, cpu = time.perf_counter(), time.process_time()
    for text, questions in asked.items():
        pieces = [text[i : i + 2000] for i in range(0, len(text), 2000)]
        index = bm25s.BM25()
        index.index(bm25s.tokenize(pieces, stopwords="en", show_progress=False), show_progress=False)
        tokens = bm25s.tokenize(questions, stopwords="en", show_progress=False)
        index.retrieve(tokens, k=min(32, len(pieces)), show_progress=False)
    used = time.process_time() - cpu
    spent = {"seconds": time.perf_counter() - started, "cpu": used, "rest": used}
    return {**spent, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> int:
    """Print the table; 1 where the two trees choose other passages or the ratio is under --aim."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", default="62d0c5f", help="the earlier commit")
    parser.add_argument("--tokenizer", help="default: SmolLM2's")
    parser.add_argument("--setting", default="rag@4k")
    parser.add_argument("--books", type=int, default=24)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--text", type=Path, help="a real book to repeat, instead of generated prose")
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--aim", type=float, default=3.0)
    args = parser.parse_args()
    if not args.tokenizer:
        from icr_tasks.engines.smollm2 import export

        args.tokenizer = str(export())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        megabytes = data(folder, args.books, args.questions, args.size, args.text)
        trees = {args.against: tree(args.against, folder / "before"), "now": joined(ROOT, folder / "now")}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*trees, "bm25s")}
        for packages in trees.values():
            prepare(packages, folder, args, "--limit", "1")
        for _ in range(args.alternations):
            for name, packages in trees.items():
                start = prepare(packages, folder, args, "--limit", "1")["cpu"]  # the start, and one book
                one = prepare(packages, folder, args)
                found[name].append({**one, "rest": one["cpu"] - start})
            found["bm25s"].append(alone(folder))
    before, now = (found[name][0]["made"] for name in (args.against, "now"))
    other, single = differences(before, now)
    for name, first in ((args.against, before), ("now", now)):  # one tree writes the same each time
        for run in found[name][1:]:
            other |= set().union(*differences(first, run["made"]))
    same = not other - {"head.version"}  # the number of the format
    middle = {
        name: {key: statistics.median(r[key] for r in runs) for key in ("seconds", "cpu", "peak", "rest")}
        for name, runs in found.items()
    }
    print(
        f"{args.books} books x {args.questions} questions, {megabytes:.1f} MB of books, {args.setting}, ",
        end="",
    )
    print(
        f"medians of {args.alternations} alternations; same passages and values written: {'yes' if same else 'NO'}\n"
    )
    for what, places in (("other values", other), ("written by one of the two", single)):
        if places:
            print(f"{what}: {', '.join(sorted(places))}\n")
    print("| | MB/s | MB/s against before | MB a CPU s | a CPU s against before | peak MB |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, one in middle.items():
        rate, ratio = megabytes / one["seconds"], middle[args.against]["seconds"] / one["seconds"]
        rest = megabytes * (1 if name == "bm25s" else 1 - 1 / args.books)
        cpu, less = rest / one["rest"], middle[args.against]["rest"] / one["rest"]
        print(f"| {name} | {rate:.2f} | {ratio:.2f} | {cpu:.2f} | {less:.2f} | {one['peak']:.0f} |")
    return int(not same or middle[args.against]["seconds"] / middle["now"]["seconds"] < args.aim)


if __name__ == "__main__":
    sys.exit(main())
