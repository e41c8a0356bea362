"""The product against its peers: one table, each line measured in one run, medians over alternations.

    python speed/bench.py                                   # all lines, five alternations (hours)
    python speed/bench.py --only prepare,startup --alternations 1
    python speed/bench.py --log speed/bench.jsonl -o docs/performance.md
                                       # in pieces: adds to what other calls measured, writes the page of all

Every line runs a script of this folder, which starts product and peer one after the other in fresh processes
on the same data. On a machine that does other work the numbers are ratios within one run, not speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # `python -P` leaves a script's folder out

from bench_page import DASH, Line, machine, medians, page, rendered, table  # noqa: E402


def script(name: str, *args: str) -> str:
    """What a script of this folder prints; whether an aim was met, its exit code, is not asked here."""
    done = subprocess.run(
        [sys.executable, str(HERE / name), *args], capture_output=True, text=True, check=False, env=os.environ
    )
    if not done.stdout.strip():
        raise SystemExit(f"{name} {' '.join(args)}: {done.stderr[-2000:]}")
    return done.stdout


def harness(small: bool) -> list[Line]:
    """Memory and sample log of long prompts, lm-eval's own task beside ours."""
    rows = table(script("harness_overhead.py", "--docs", "40" if small else "400", "--chars", "500000"))
    stock, ours = rows["plain lm-eval YAML"], rows["icr_infbench_qa"]
    peer = "a plain lm-eval task"
    size = "20 MB" if small else "200 MB"
    return [
        Line(
            f"memory growth on {size} of prompts / text",
            "x",
            ours[1],
            stock[1],
            peer,
            ours[0],
            stock[0],
            aim="product <= 0.3",
        ),
        Line(f"sample log of {size} of prompts", "MB", ours[2], stock[2], peer),
    ]


def stock_vllm(small: bool) -> list[Line]:
    """The same with lm-eval's own vllm model, whose engine alone is left out; the plain task would hold 130 times its
    tokens, so it is measured on 20 MB only."""
    docs = "40" if small else "400"
    more = [] if small else ["--ours"]
    rows = table(
        script("harness_overhead.py", "--engine", "vllm", "--docs", docs, "--chars", "500000", *more)
    )
    ours, stock = rows["icr_infbench_qa"], rows.get("plain lm-eval YAML")
    return [
        Line(
            f"memory growth on {'20 MB' if small else '200 MB'} of prompts / text, `--model vllm` of lm-eval",
            "x",
            ours[1],
            stock[1] if stock else None,
            "a plain lm-eval task" if stock else DASH,
            ours[0],
            stock[0] if stock else None,
            aim="product <= 0.3",
        )
    ]


def tokenizing(small: bool) -> list[Line]:
    """Memory of tokenizing long prompts."""
    rows = table(script("tokenize_memory.py", "--docs", "4" if small else "24"))
    ours, stock = rows["icr-vllm"], rows["lm-eval"]
    name = f"tokenization, peak, {ours[0] / 1e6:.1f}M tokens"
    return [Line(name, "B/token", ours[2], stock[2], "lm-eval's call", aim="product <= 8")]


def prefixes(small: bool) -> list[Line]:
    """Prefill of questions on one document."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        more = ["--tokens", "1024", "--questions", "4"] if small else []
        script("prefix_sharing.py", "--json", file.name, *more)
        found = json.loads(Path(file.name).read_text())
    ours, naive = (found[way]["computed"] / found[way]["prompt"] for way in ("ours", "naive"))
    size = "4 questions on 1,024 tokens" if small else "8 questions on 4,096 tokens"
    return [
        Line(
            f"same-book prefill, computed / asked, {size}",
            "",
            ours,
            naive,
            "given order, no prefix cache",
            aim="product <= 0.2" if not small else "",
        ),
        Line(
            f"same-book prefill, {size}", "s", found["ours"]["seconds"], found["naive"]["seconds"], "the same"
        ),
    ]


def prepare(small: bool) -> list[Line]:
    """Retrieval ahead."""
    size = ["--books", "8", "--questions", "4"] if small else []
    rows = table(script("prepare_ratio.py", "--alternations", "1", *size))
    now, alone = rows.pop("now"), rows.pop("bm25s")
    books = "8 books of 1 MB" if small else "24 books of 1 MB"
    ((commit, before),) = rows.items()
    name = f"`icr prepare`, {books}"
    return [
        Line(name, "MB/s", now[0], before[0], f"commit {commit}", now[-1], before[-1], aim="ratio >= 3"),
        Line(
            f"{name}, which counts the model's tokens", "MB/s", now[0], alone[0], "bm25s, which counts none"
        ),
    ]


def judge(small: bool) -> list[Line]:
    """A judge that takes 100 ms."""
    items = "40" if small else "100"
    found = json.loads(script("judge_throughput.py", "--json", "--items", items))
    return [
        Line(
            f"judging {items} answers",
            "s",
            found["concurrent"]["seconds"],
            found["serial"]["seconds"],
            "one call at a time",
        )
    ]


def rouge(small: bool) -> list[Line]:
    """ROUGE-Lsum of long summaries."""
    pairs = "20" if small else "200"
    code = (
        "import random, sys, time; from icr_tasks.metrics import rouge\n"
        "r = random.Random(0); w = [f'word{i}' for i in range(2000)]\n"
        "t = lambda: '\\n'.join(' '.join(r.choices(w, k=20)) for _ in range(40))\n"
        f"pairs = [(t(), t()) for _ in range({pairs})]\n"
        "for name in ('rs', 'py'):\n"
        "    scorer = rouge.engine(name).RougeScorer(['rougeLsum'])\n"
        "    begun = time.process_time()\n"
        "    for a, b in pairs: scorer.score(a, b)\n"
        "    print(f'| {name} | {time.process_time() - begun:.4f} |')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"rouge: {done.stderr[-2000:]}")
    rows = table(done.stdout)
    return [Line(f"ROUGE-Lsum of {pairs} summaries", "CPU s", rows["rs"][0], rows["py"][0], "rouge-score")]


def refinement(small: bool) -> list[Line]:
    """Scores of all gold x negative pairs."""
    import random

    draw = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for number in range(300):
            file.write(
                json.dumps({"title": f"t{number}", "text": " ".join(draw.choices(words, k=400))}) + "\n"
            )
        file.flush()
        size = ["--items", "30", "--plain", "3"] if small else ["--items", "300", "--plain", "20"]
        text = script("refine_speed.py", file.name, *size, "--released", "0")
    ms = {name: float(value) for name, value in re.findall(r"^(compiled|plain)\s+([\d.]+) ms", text, re.M)}
    return [
        Line("refinement", "CPU ms an item", ms["compiled"], ms["plain"], "the definition, a pair at a time")
    ]


def board(small: bool) -> list[Line]:
    """Many runs to a board, samples to ledgers."""
    size = ["--runs", "20", "--megabytes", "20"] if small else []
    found = json.loads(script("board_scale.py", *size).splitlines()[-1])
    ours, made = found["collect_ours"], found["board"]
    return [
        Line(
            f"board of {found['runs']} runs, {found['items']:,} items",
            "CPU s",
            made["cpu_seconds"],
            ours_mb=made["peak_mb"],
        ),
        Line(
            "collect",
            "MB a CPU s",
            ours["mb_per_cpu_s"],
            ours["json_loads_mb_per_cpu_s"],
            "json.loads alone",
            ours["peak_mb"],
        ),
    ]


def opening(small: bool) -> list[Line]:
    """A HELMET-RAG file of the 128k length, for the first time and again."""
    size = "48" if small else "476"
    rows = table(script("open_file.py", "--alternations", "1", "--mib", size))
    first, after = rows["first"], rows["after"]
    return [
        Line(
            f"opening a new file of {size} MiB",
            "CPU s",
            first[1],
            after[1],
            "opened before",
            first[2],
            after[2],
            aim="product <= 5",
        )
    ]


def startup(small: bool) -> list[Line]:
    """What the hook adds to a start."""
    starts, commands = (40, 3) if small else (200, 200)
    size = ["--starts", str(starts), "--commands", str(commands)]
    found = json.loads(script("startup.py", "--json", *size))
    lines = []
    for name, n in (("interpreter", starts), ("lm_eval --help", commands)):
        two = {k: 1000 * v[1] for k, v in found[name].items()}
        aim = "more <= 1" if name == "interpreter" else "ratio <= 1.03"
        lines.append(
            Line(
                f"start: {name}, {n} in turn",
                "CPU ms",
                two["with"],
                two["without"],
                "without the hook",
                aim=aim,
            )
        )
    return [*lines, Line(f"start: icr --help, {commands}", "CPU ms", 1000 * found["icr --help"]["with"][1])]


MEASURES: dict[str, Callable[[bool], list[Line]]] = {
    "harness": harness,
    "stock_vllm": stock_vllm,
    "tokenizing": tokenizing,
    "prefixes": prefixes,
    "prepare": prepare,
    "judge": judge,
    "rouge": rouge,
    "refinement": refinement,
    "board": board,
    "opening": opening,
    "startup": startup,
}


Runs = dict[tuple[str, bool], list[list[Line]]]


def logged(log: Path | None) -> tuple[Runs, list[dict[str, Any]]]:
    """(runs by measure and size, the machine of each) that a log holds."""
    found: Runs = {}
    machines = []
    for raw in log.read_text().splitlines() if log and log.exists() else []:
        kept = json.loads(raw)
        found.setdefault((kept["measure"], kept["small"]), []).append(
            [Line(**line) for line in kept["lines"]]
        )
        machines.append({name: kept[name] for name in ("machine", "load")})
    return found, machines


def summary(found: Runs) -> list[Line]:
    """Medians over all runs, full and reduced sizes apart (a line's name says its size)."""
    order = [key for name in MEASURES for key in ((name, False), (name, True)) if key in found]
    return [line for key in order for line in medians(found[key])]


def measured(names: list[str], small: bool, alternations: int, log: Path | None) -> list[Line]:
    """Run what is asked, one line of JSON a run into `log` as it ends; the lines of all that the log holds then."""
    found, _ = logged(log)
    for name in names:
        for _ in range(alternations):
            on = machine()
            lines = MEASURES[name](small)
            found.setdefault((name, small), []).append(lines)
            if log:
                told = {"measure": name, "small": small, **on, "lines": [asdict(line) for line in lines]}
                with log.open("a") as file:
                    file.write(json.dumps(told) + "\n")
        for row in rendered(medians(found.get((name, small), []))).splitlines()[2:]:
            print(row, file=sys.stderr, flush=True)
    return summary(found)


def written(log: Path) -> str:
    """The page of what a log holds."""
    found, machines = logged(log)
    missing = [name for name in MEASURES if (name, False) not in found]
    root, full = HERE.parent, log.resolve()
    return page(
        summary(found), machines, missing, str(full.relative_to(root) if root in full.parents else log)
    )


def main() -> int:
    """Print the table as it grows; write the page with -o."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"comma-separated: {', '.join(MEASURES)}")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="reduced sizes")
    parser.add_argument("--log", type=Path, help="add to the runs kept here, and print all of them")
    parser.add_argument(
        "-o", "--output", type=Path, help="also write the page of the log (docs/performance.md)"
    )
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(MEASURES)
    if unknown := [name for name in names if name not in MEASURES]:
        parser.error(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    if args.output and not args.log:
        parser.error("-o writes the page of a log: give --log FILE")
    print(rendered(measured(names, args.small, args.alternations, args.log)))
    if args.output:
        args.output.write_text(written(args.log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
