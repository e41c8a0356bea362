"""The product against its peers: one table, each line measured in one run, medians over alternations.

    python speed/bench.py                                   # all lines, five alternations (hours)
    python speed/bench.py --only prepare,startup --alternations 1
    python speed/bench.py --log bench.jsonl -o docs/performance.md
                                       # in pieces: adds to what other calls measured, writes the page of all

Every line runs a script of this folder, which starts product and peer one after the other in fresh processes
on the same data. On a machine that does other work the numbers are ratios within one run, not speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DASH = "–"


@dataclass(frozen=True)
class Line:
    """One measurement. `ours` and `peer` in `unit`; memory in MB where it was measured."""

    what: str
    unit: str
    ours: float
    peer: float | None = None
    against: str = DASH
    ours_mb: float | None = None
    peer_mb: float | None = None
    runs: int = 1


def script(name: str, *args: str) -> str:
    """What a script of this folder prints; whether an aim was met, its exit code, is not asked here."""
    done = subprocess.run(
        [sys.executable, str(HERE / name), *args], capture_output=True, text=True, check=False, env=os.environ
    )
    if not done.stdout.strip():
        raise SystemExit(f"{name} {' '.join(args)}: {done.stderr[-2000:]}")
    return done.stdout


def table(text: str) -> dict[str, list[float]]:
    """First cell -> the numbers of the other cells, of every row of a Markdown table that holds numbers."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip().replace(",", "") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and all(re.fullmatch(r"-?[\d.]+", cell) for cell in cells[1:]):
            found[cells[0]] = [float(cell) for cell in cells[1:]]
    return found


def harness(small: bool) -> list[Line]:
    """Memory and sample log of long prompts, lm-eval's own task beside ours."""
    rows = table(script("harness_overhead.py", "--docs", "40" if small else "400", "--chars", "500000"))
    stock, ours = rows["plain lm-eval YAML"], rows["icr_infbench_qa"]
    peer = "a plain lm-eval task"
    size = "20 MB" if small else "200 MB"
    return [
        Line(f"memory growth on {size} of prompts / text", "x", ours[1], stock[1], peer, ours[0], stock[0]),
        Line(f"sample log of {size} of prompts", "MB", ours[2], stock[2], peer),
    ]


def tokenizing(small: bool) -> list[Line]:
    """Memory of tokenizing long prompts."""
    rows = table(script("tokenize_memory.py", "--docs", "4" if small else "24"))
    ours, stock = rows["icr-vllm"], rows["lm-eval"]
    name = f"tokenization, peak, {ours[0] / 1e6:.1f}M tokens"
    return [Line(name, "B/token", ours[2], stock[2], "lm-eval's call")]


def prefixes(small: bool) -> list[Line]:
    """Prefill of questions on one document."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        more = ["--tokens", "1024", "--questions", "4"] if small else []
        script("prefix_sharing.py", "--json", file.name, *more)
        found = json.loads(Path(file.name).read_text())
    ours, naive = (found[way]["computed"] / found[way]["prompt"] for way in ("ours", "naive"))
    size = "4 questions on 1,024 tokens" if small else "8 questions on 4,096 tokens"
    return [
        Line(f"same-book prefill, computed / asked, {size}", "", ours, naive, "given order, no prefix cache"),
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
    return [
        Line(f"`icr prepare`, {books}", "MB/s", now[0], before[0], f"commit {commit}", now[4], before[4]),
        Line(f"`icr prepare`, {books}", "MB a CPU s", now[2], before[2], f"commit {commit}"),
        Line(
            f"`icr prepare`, {books}, which counts the model's tokens",
            "MB/s",
            now[0],
            alone[0],
            "bm25s, which counts none",
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
        )
    ]


def startup(small: bool) -> list[Line]:
    """What the hook adds to a start."""
    starts, commands = (40, 3) if small else (200, 30)
    size = ["--starts", str(starts), "--commands", str(commands)]
    found = json.loads(script("startup.py", "--json", *size))
    lines = []
    for name, n in (("interpreter", starts), ("lm_eval --help", commands)):
        two = {k: 1000 * v[1] for k, v in found[name].items()}
        lines.append(
            Line(f"start: {name}, {n} in turn", "CPU ms", two["with"], two["without"], "without the hook")
        )
    return [*lines, Line(f"start: icr --help, {commands}", "CPU ms", 1000 * found["icr --help"]["with"][1])]


MEASURES: dict[str, Callable[[bool], list[Line]]] = {
    "harness": harness,
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


def medians(runs: list[list[Line]]) -> list[Line]:
    """Line by line, the median of each number over the alternations."""

    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    out = []
    for lines in zip(*runs, strict=True):
        ours = statistics.median(line.ours for line in lines)
        first = lines[0]
        rest = [middle([getattr(line, name) for line in lines]) for name in ("peer", "ours_mb", "peer_mb")]
        out.append(Line(first.what, first.unit, ours, rest[0], first.against, rest[1], rest[2], len(runs)))
    return out


def rendered(lines: list[Line]) -> str:
    """The Markdown table."""

    def number(value: float | None) -> str:
        return DASH if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"

    rows = [
        "| | product | peer | product / peer | peak MB, product | peak MB, peer | peer | runs |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for one in lines:
        ratio = DASH if not one.peer else number(one.ours / one.peer)
        unit = f" {one.unit}" if one.unit else ""
        peer = DASH if one.peer is None else number(one.peer) + unit
        cells = [
            one.what,
            number(one.ours) + unit,
            peer,
            ratio,
            number(one.ours_mb),
            number(one.peer_mb),
            one.against,
            str(one.runs),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


PAGE = """# Performance

What this package costs beside what one would use without it. Each line was measured in one run, product and
peer in turn on the same data in fresh processes; the numbers are medians of that many such runs. They
were taken on a machine that did other work: read the ratios, not the speeds.

    make bench          # {command}

{table}
"""


def measured(names: list[str], small: bool, alternations: int, log: Path | None) -> list[Line]:
    """Run what is asked, one line of JSON a run into `log` as it ends; medians over all that the log holds, full and
    reduced sizes apart (a line's name says its size)."""
    found: dict[tuple[str, bool], list[list[Line]]] = {}
    for raw in log.read_text().splitlines() if log and log.exists() else []:
        kept = json.loads(raw)
        key = kept["measure"], kept["small"]
        found.setdefault(key, []).append([Line(**line) for line in kept["lines"]])
    for name in names:
        for _ in range(alternations):
            lines = MEASURES[name](small)
            found.setdefault((name, small), []).append(lines)
            if log:
                told = {"measure": name, "small": small, "lines": [asdict(line) for line in lines]}
                with log.open("a") as file:
                    file.write(json.dumps(told) + "\n")
        for row in rendered(medians(found[name, small])).splitlines()[2:]:
            print(row, file=sys.stderr, flush=True)
    order = [key for name in MEASURES for key in ((name, False), (name, True)) if key in found]
    return [line for key in order for line in medians(found[key])]


def main() -> int:
    """Print the table as it grows; write the page with -o."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"comma-separated: {', '.join(MEASURES)}")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="reduced sizes")
    parser.add_argument("--log", type=Path, help="add to the runs kept here, and print all of them")
    parser.add_argument("-o", "--output", type=Path, help="also write the page (docs/performance.md)")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(MEASURES)
    if unknown := [name for name in names if name not in MEASURES]:
        parser.error(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    lines = measured(names, args.small, args.alternations, args.log)
    print(rendered(lines))
    if args.output:
        given = " ".join(["python speed/bench.py", *sys.argv[1:]])
        args.output.write_text(PAGE.format(command=given, table=rendered(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
