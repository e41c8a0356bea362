"""A long study against a server that fails, in processes that are killed, on a disk that fills, under a clock
that jumps: nothing lost, nothing stored twice, memory flat.

    python speed/soak.py                                  # 50,000 requests, 40 kills, 10 full disks
    python speed/soak.py --items 100 --kills 3 --disks 1                 # seconds

The server answers after 10 ms, and refuses, breaks off or garbles the first try of one prompt in twenty. A
sweep runs in a fork that is killed (SIGKILL) or meets a full disk (RLIMIT_FSIZE) after a random number of
answers, until all are used up; the last one runs to the end. In every fork `time.time` jumps by up to a day every second.
Exits with 1 where a line of the table says no.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

TASK, PROMPTS = "icr_infbench_qa", ("paper", "official")
IN_FLIGHT = 16


def said(prompt: str) -> str:
    """The server's answer, which names its prompt."""
    return f"The answer is: {hashlib.sha256(prompt.encode()).hexdigest()[:16]}"


def serve(pipe: Connection, latency: float) -> None:
    """An OpenAI-compatible server in a process of its own; sends its address, then its counts when asked."""
    from aiohttp import web

    seen: Counter[str] = Counter()
    good: Counter[str] = Counter()
    faults: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.StreamResponse:
        import asyncio

        body = await request.json()
        prompt = "\n".join(m["content"] for m in body["messages"]) if "messages" in body else body["prompt"]
        key = hashlib.sha256(prompt.encode()).hexdigest()[:16]
        nth, seen[key] = seen[key], seen[key] + 1
        await asyncio.sleep(latency)
        if not nth and int(key[:4], 16) % 20 == 0:
            kind = ("429", "503", "500", "garbage", "cut off")[int(key[4:8], 16) % 5]
            faults[kind] += 1
            if kind == "cut off":
                request.transport and request.transport.abort()
                return web.Response()
            if kind == "garbage":
                return web.Response(text="<html>garbage</html>", content_type="text/html")
            return web.json_response(
                {"error": {"message": "later"}}, status=int(kind), headers={"Retry-After": "0"}
            )
        good[key] += 1
        message = {"role": "assistant", "content": said(prompt)}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "text": said(prompt)}
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 10}
        return web.json_response(
            {"id": "x", "object": "x", "model": "M", "choices": [choice], "usage": usage}
        )

    async def models(request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": "M", "object": "model", "max_model_len": 200_000}]}
        )

    async def counts(request: web.Request) -> web.Response:
        return web.json_response({"good": sum(good.values()), "prompts": dict(good), "faults": dict(faults)})

    async def total(request: web.Request) -> web.Response:
        return web.json_response(sum(good.values()))

    import asyncio

    async def run() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", answer)
        app.router.add_post("/v1/completions", answer)
        app.router.add_get("/v1/models", models)
        app.router.add_get("/counts", counts)
        app.router.add_get("/total", total)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def asked(port: int, what: str) -> Any:
    """What the server counted."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=60) as reply:
        return orjson.loads(reply.read())


def jumping(seed: int) -> None:
    """Make this process's wall clock jump every second, by up to a day in either direction."""
    real = time.time

    def now() -> float:
        at = real()
        return at + random.Random(f"{seed}-{int(at)}").uniform(-86_400, 86_400)

    time.time = now


def sweep(study: Path, log: Path, seed: int, limit: int | None) -> int:
    """Process id of a sweep in a fork with a jumping clock; `limit`: bytes at which a file is full."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with log.open("a", buffering=1) as words:
            sys.stdout = sys.stderr = words
            jumping(seed)
            sys.dont_write_bytecode = (
                True  # Python 3.11 leaves half a .pyc on a full disk, which is no fault of ours
            )
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                from icr_tasks.cli import main

                code = main(["sweep", str(study)])
            except Exception:
                traceback.print_exc()  # to `words`: nothing of a fork is lost without a trace
    finally:
        os._exit(code)


def ended(code: int, said: str) -> str:
    """What ended a process, by its exit code and its words: nothing else counts as a kill or a full disk."""
    if code == -signal.SIGKILL:
        return "killed"
    if code == 2 and os.strerror(errno.EFBIG) in said:  # of an answer, a record or a ledger
        return "full disk"
    return "to the end" if code == 0 else f"exit {code}: {(said.strip().splitlines() or ['no words'])[-1]}"


def memory(pid: int) -> float:
    """Megabytes that a process holds now."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(seen: list[tuple[int, float]]) -> float:
    """Megabytes that a process gained from the first quarter of its replies to the last one. `seen`: (replies so far,
    megabytes). What it reads before, and lm-eval's records of all items after, is no matter of time."""
    first, last = seen[0][0], seen[-1][0]
    asking = [held for replies, held in seen if first + (last - first) / 4 < replies < last]
    return max(asking) - asking[0] if asking else 0.0


def stored(out: Path) -> tuple[Counter[str], int, int]:
    """(texts in the answer stores, keys that stand there twice, lines that a kill broke)."""
    texts: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    broken = 0
    for path in out.rglob("*.jsonl"):
        if "answers" in path.parts:
            for line in path.read_bytes().splitlines():
                try:
                    record = orjson.loads(line)
                except ValueError:
                    broken += bool(line)
                    continue
                keys[record["key"]] += 1
                if keys[record["key"]] == 1:
                    texts[str(record.get("text") or record.get("answer"))] += 1
    return texts, sum(n > 1 for n in keys.values()), broken


def ledger(out: Path) -> tuple[int, int, int]:
    """(items scored, items failed, items that stand twice in a ledger)."""
    import gzip

    scored = failed = twice = 0
    for path in out.rglob("items.jsonl.gz"):
        rows = [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        places = Counter((row["task"], row["item"], row["occ"]) for row in rows)
        twice += sum(n > 1 for n in places.values())
        failed += sum(row["error"] is not None for row in rows)
        scored += sum(row["error"] is None for row in rows)
    return scored, failed, twice


def data(folder: Path, items: int) -> None:
    """A file of InfiniteBench's format with a small book for every five questions."""
    place = folder / "infinitebench" / "longbook_qa_eng.jsonl"
    place.parent.mkdir()
    with place.open("w") as file:
        for n in range(items):
            book = f"Chapter {n // 5}. " + " ".join(
                f"Guest {n // 5 + i} left the house at {i}." for i in range(30)
            )
            record = {"id": n, "context": book, "input": f"Who left in case {n}?", "answer": [f"Guest {n}"]}
            file.write(json.dumps(record) + "\n")


def soak(args: argparse.Namespace, folder: Path) -> list[tuple[str, str, bool]]:
    """Run it; the lines of the table: (what, measured, as it should be)."""
    import yaml

    from icr_tasks.harness import run

    here, there = get_context("fork").Pipe()
    server = get_context("fork").Process(target=serve, args=(there, args.latency), daemon=True)
    server.start()
    port = here.recv()
    import icr_tasks.sweep.runner  # noqa: F401  (before the forks)

    run.environment()
    out, study, started = folder / "out", folder / "study.yaml", time.monotonic()
    data(folder, args.items)
    os.environ |= {"ICR_DATA_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    model = {
        "name": "served",
        "endpoint": f"http://127.0.0.1:{port}/v1",
        "model": "M",
        "in_flight": IN_FLIGHT,
    }
    body = {
        "out": str(out),
        "models": [model],
        "tasks": [TASK],
        "settings": ["full"],
        "prompts": list(PROMPTS),
    }
    study.write_text(yaml.safe_dump({**body, "metadata": {"allow_partial": True}}))
    expected, draw = len(PROMPTS) * args.items, random.Random(args.seed)
    ends = ["kill"] * args.kills + ["disk"] * args.disks
    draw.shuffle(ends)
    log, kinds, peaks, last, idle = folder / "log", [], [], [], 0
    step = max(2, expected // (len(ends) + 1))
    while True:
        end, before = (ends[0] if ends else "none"), asked(port, "total")
        size = max((p.stat().st_size for p in out.rglob("*.jsonl")), default=0)
        limit = size + draw.randint(200, 300 * step) if end == "disk" else None
        told = log.stat().st_size if log.exists() else 0
        pid, after = sweep(study, log, draw.randrange(1 << 30), limit), draw.randint(1, step)
        peak = 0.0
        while not (done := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            peak = max(peak, now := memory(pid))
            if end == "none":
                last.append((asked(port, "total"), now))
            elif end == "kill" and asked(port, "total") - before >= after:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        del done
        kinds.append(ended(code, log.read_bytes()[told:].decode(errors="replace")))
        peaks.append(peak)
        idle = idle + 1 if asked(port, "total") == before else 0
        if ends and (end == "disk" or code < 0):
            ends.pop(0)
        elif code == 0 or idle > 3:
            break
    counts = asked(port, "counts")
    server.terminate()
    texts, twice, broken = stored(out)
    scored, failed, rows_twice = ledger(out)
    many = Counter(kinds)
    kills, disks = many.pop("killed", 0), many.pop("full disk", 0)
    many.pop("to the end", None)
    again = counts["good"] - len(counts["prompts"])
    answers = {f"The answer is: {key}" for key in counts["prompts"]}
    third = max(1, len(peaks) // 3)
    early, late = max(peaks[:third]), max(peaks[-third:])
    grown = growth(last)
    return [
        ("requests of the study", f"{expected:,}", True),
        ("answers stored, each the answer to its prompt", f"{len(texts):,}", set(texts) == answers),
        ("answers lost", f"{expected - len(texts):,}", len(texts) == expected),
        ("answers stored twice", f"{twice:,}", twice == 0),
        ("items in the ledgers, scored", f"{scored:,}", scored == expected),
        ("items failed, items twice", f"{failed}, {rows_twice}", failed == rows_twice == 0),
        ("processes killed", f"{kills}", True),
        ("full disks (exit code 2 and the sentence)", f"{disks}", True),
        ("processes that ended otherwise", "; ".join(many) or "0", not many),
        ("lines broken by kills, all asked again", f"{broken}", broken <= kills + disks),
        ("replies asked for again (in flight at an end)", f"{again}", again <= (kills + disks) * IN_FLIGHT),
        ("faults of the server", ", ".join(f"{n} x {k}" for k, n in sorted(counts["faults"].items())), True),
        ("how the last one ended", kinds[-1], kinds[-1] == "to the end"),
        (
            "peak memory of a process, first and last third",
            f"{early:.0f}, {late:.0f} MB",
            late < early * 1.2 + 100,
        ),
        (
            "growth inside the last process, while it asks",
            f"{grown:.0f} MB",
            grown < 150,
        ),
        ("seconds", f"{time.monotonic() - started:.0f}", True),
    ]


def main() -> int:
    """Print the table; 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=25_000, help="questions, each asked by two prompts")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.01, help="seconds of the server's answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the lines here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = soak(args, Path(folder))
        if not all(right for *_, right in lines):
            print((Path(folder) / "log").read_text()[-4000:], file=sys.stderr)
    print("| | | as it should be |\n|---|---:|---|")
    for what, measured, right in lines:
        print(f"| {what} | {measured} | {'yes' if right else 'NO'} |")
    if args.json:
        args.json.write_text(json.dumps(lines))
    return int(not all(right for *_, right in lines))


if __name__ == "__main__":
    sys.exit(main())
