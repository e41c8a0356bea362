"""Generated faults: {task, setting, prompt, engine, flag, template, fault} through lm-eval's evaluation.

    python tests/fault_campaign.py [--cases 1900] [--command 100] [--seed 0] [--json out.json]      # make faults

Each case must end in the right score of every item, or in an error that says what is wrong: no zero for an answer
that held the gold, no score for an answer that never came, no prompt without its question. The first part runs in
this process, `--command` cases through the real command line in processes of their own, where a traceback is a
failure too. Prints counts by fault and outcome, and every case that went wrong; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fault_cases import ANSWERS, FAULTS, ITEMS, SERVERS, Case, cases, refused
from fault_commands import anew, forked
from fault_models import Wrong, endpoint, scripted

os.environ.setdefault("LOGLEVEL", "ERROR")

# ---- one case ----------------------------------------------------------------------------------------------

_STATE: dict[str, Any] = {}


def manager_for(metadata: dict[str, Any]) -> Any:
    """One index of tasks for all cases."""
    from icr_tasks import benchmarks
    from icr_tasks.harness.run import manager

    if "manager" not in _STATE:
        _STATE["manager"] = manager({})
        synth = benchmarks.get("synth")  # its data are made anew for every task: once is enough here
        object.__setattr__(synth, "load", cache(synth.load))
    found = _STATE["manager"]
    found.metadata = found._factory._meta = metadata
    return found


def documents(task: str) -> dict[str, dict[str, Any]]:
    """Question -> document of a task's first items."""
    if task not in _STATE:
        made = manager_for({"tokenizer": "none"}).load([task])["tasks"][task]
        _STATE[task] = {doc["question"]: doc for doc in made.dataset["test"][: ITEMS + 2]}
    return _STATE[task]


@contextmanager
def hurried() -> Iterator[None]:
    """Nobody waits before a second try: how long that takes is not what the campaign is about."""
    import tenacity.nap

    from icr_tasks.engines.served.client import Client

    kept, wait = tenacity.nap.time, Client.wait
    tenacity.nap.time = SimpleNamespace(sleep=lambda seconds: None)  # type: ignore[assignment]
    Client.wait = lambda self, state: 0.0  # type: ignore[method-assign]
    try:
        yield
    finally:
        tenacity.nap.time, Client.wait = kept, wait  # type: ignore[method-assign]


def arguments(case: Case) -> dict[str, Any]:
    """Arguments of lm-eval's evaluation; the same words as on the command line."""
    given: dict[str, Any] = {"limit": ITEMS, "apply_chat_template": bool(case.template)}
    if case.flag == "system":
        given["system_instruction"] = "Answer as a librarian would."
    if case.flag == "max_gen_toks":
        given["gen_kwargs"] = "max_gen_toks=64"
    if case.flag == "until":
        given["gen_kwargs"] = {"until": ["<|stop|>"]}
    if case.flag == "num_fewshot":
        given["num_fewshot"] = 2
    if case.flag == "samples":
        given |= {"limit": None, "samples": {case.name: [1, 0]}}
    if case.flag == "predict_only":
        given["predict_only"] = True
    if case.flag == "write_out":
        given["write_out"] = True
    if case.flag == "seed":
        given |= {"random_seed": 7, "numpy_random_seed": 7, "torch_random_seed": 7}
    if case.flag == "batch_size":
        given["batch_size"] = 2 if case.engine != "local-chat-completions" else 1  # it takes no other
    if case.flag == "use_cache":
        given["use_cache"] = str(Path(tempfile.mkdtemp(prefix="icr-cache-")) / "answers")
    return given


def model_args(case: Case, url: str) -> dict[str, Any]:
    """Arguments of a served model. A server that never answers is not asked twice."""
    path = "completions" if case.engine == "local-completions" else "chat/completions"
    once = case.fault.endswith(" once")
    base = url if case.engine == "icr-api" else f"{url}/{path}"
    found: dict[str, Any] = {"model": "fake", "base_url": base, "max_retries": 3 if once else 1}
    if case.engine != "icr-api":
        found |= {"tokenizer_backend": "none", "max_length": 8192, "tokenized_requests": False}
    return found


def evaluate(case: Case) -> dict[str, Any]:
    """lm-eval's results with samples."""
    import lm_eval

    from icr_tasks.harness.hooks import environment_once

    docs = documents(case.task)
    counted = {"tokenizer": str(tiny_model())} if case.counts else {}
    common = {"tasks": [case.name], "log_samples": True, **arguments(case)}

    def run(model: Any, args: dict[str, Any] | None, metadata: dict[str, Any]) -> dict[str, Any]:
        with environment_once(), hurried():
            for _ in range(2 if case.flag == "use_cache" else 1):  # the second time from the cache
                found = lm_eval.simple_evaluate(
                    model=model, model_args=args, task_manager=manager_for(metadata), **common
                )
        assert found is not None
        return found

    if case.engine == "hf":
        return run(
            "hf", {"pretrained": str(tiny_model()), "device": "cpu"}, {**case.metadata, **hf_metadata()}
        )
    if not case.served:
        return run(scripted(case, docs), None, {**case.metadata, **counted})
    with endpoint(case, docs) as server:
        args = model_args(case, server.url)
        return run(case.engine, args, {**args, **case.metadata, **counted})


def hf_metadata() -> dict[str, Any]:
    """As lm-eval merges model arguments into the metadata."""
    return {"pretrained": str(tiny_model())}


def tiny_model() -> Path:
    """A random-init Llama, made once."""
    if "tiny" not in _STATE:
        import tiny

        _STATE["tiny"] = tiny.llama(
            Path(tempfile.mkdtemp(prefix="icr-tiny-")), hidden=16, layers=1, window=65536
        )
    return _STATE["tiny"]


def judge(case: Case, rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """Raises Wrong unless every item has its right score."""
    if len(rows) != ITEMS:
        raise Wrong(f"{len(rows)} rows of {ITEMS}")
    if case.flag == "predict_only":
        if any("score" in row for row in rows):
            raise Wrong("--predict_only scored")
        return
    if case.engine == "hf":
        for row in rows:
            if not 0 <= row["score"] <= 1 or (row["filtered_resps"][0] == "" and row["score"]):
                raise Wrong(f"a random model scored {row['score']} with {row['filtered_resps']}")
        return
    if case.fault == "no content" and all(row.get("score") == 0 and row["unfinished"] for row in rows):
        return  # lm-eval takes it for a blocked answer; it is marked as one that never ended
    gone = case.fault in SERVERS and not SERVERS[case.fault][2]
    if gone and case.engine == "icr-api" and all(row.get("score") is None for row in rows):
        return  # each item failed for itself, with its reason in the log, and is in no mean
    if gone:
        raise Wrong(f"scored {[row.get('score') for row in rows]} although no answer came")
    _, scores, marked = ANSWERS.get(case.fault, ANSWERS["none"])
    for row in rows:
        if row.get("score") != float(scores):
            raise Wrong(f"score {row.get('score')} where {float(scores)} is right: {row['filtered_resps']}")
        said_stop = case.fault == "null" and case.engine == "icr-api"  # its finish reason is "stop"
        if marked and not row["unfinished"] and not said_stop:
            raise Wrong(f"a generation that never ended is not marked: {row['resps']}")
    mean = found["results"][case.name]["score,none"]
    if mean != float(scores):
        raise Wrong(f"the table says {mean}")


def outcome(case: Case) -> tuple[str, str]:
    """("right" | "error" | "wrong", what was said)."""
    from icr_tasks.errors import IcrError

    try:
        found = evaluate(case)
        judge(case, found["samples"][case.name], found)
        return ended(case, "right", "")
    except Wrong as error:
        return "wrong", str(error)
    except IcrError as error:
        return ended(case, "error", str(error))
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}"
        return ("error" if names(case, text) else "wrong"), text


def ended(case: Case, end: str, said: str) -> tuple[str, str]:
    """Wrong as well: an error where nothing is the matter, and none where something is."""
    if (why := refused(case)) is not None:
        return ("error", said) if end == "error" and why in said else ("wrong", f"not refused: {end} {said}")
    broken = case.fault in SERVERS and not SERVERS[case.fault][2]
    if end == "error" and not broken:
        return "wrong", f"refused without need: {said}"
    return end, said


def names(case: Case, text: str) -> bool:
    """Whether somebody else's error says what happened: the server's status or words."""
    return case.fault in SERVERS and any(word in text for word in SAID)


SAID = (
    "429",
    "500",
    "400",
    "Too Many Requests",
    "Server Error",
    "Bad Request",
    "JSON",
    "choices",
    "HTTPError",
    "Expecting",
)


# ---- through the real command ------------------------------------------------------------------------------


def command(case: Case, fork: bool = False) -> tuple[str, str]:
    """As `outcome`, by `lm_eval` in a process of its own: started anew, or forked from this one."""
    docs = documents(case.task)
    with tempfile.TemporaryDirectory() as folder, endpoint(case, docs) as server:
        hf = {"pretrained": str(tiny_model())}
        args = model_args(case, server.url) if case.served else hf
        line = ["--tasks", case.name, "--model", case.engine, "--log_samples"]
        line += [] if case.served else ["--device", "cpu"]
        line += ["--model_args", ",".join(f"{k}={v}" for k, v in args.items()), "--output_path", folder]
        counted = {"tokenizer": str(tiny_model())} if case.counts and case.served else {}
        line += ["--metadata", json.dumps({**case.metadata, **counted})]
        given = arguments(case)
        line += ["--samples", json.dumps(given["samples"])] if "samples" in given else []
        line += ["--limit", str(given["limit"])] if given["limit"] else []
        line += ["--apply_chat_template"] if given["apply_chat_template"] else []
        line += ["--system_instruction", given["system_instruction"]] if "system_instruction" in given else []
        line += ["--gen_kwargs", *spelt(given["gen_kwargs"])] if "gen_kwargs" in given else []
        line += ["--num_fewshot", "2"] if case.flag == "num_fewshot" else []
        line += ["--predict_only"] if case.flag == "predict_only" else []
        line += ["--write_out"] if case.flag == "write_out" else []
        line += ["--seed", "7"] if case.flag == "seed" else []
        line += ["--use_cache", f"{folder}/answers"] if case.flag == "use_cache" else []
        line += ["--batch_size", str(given["batch_size"])] if case.flag == "batch_size" else []
        code, err = forked(line) if fork else anew(line)
        said = (err.strip().splitlines() or [""])[-1]
        if code:
            if "Traceback" in err or not said.startswith("icr: error: ") or code not in (2, 3):
                return "wrong", f"exit code {code}, not in one line: {said}"
            return ended(case, "error", said)
        rows = [json.loads(row) for path in Path(folder).rglob("samples_*") for row in path.open()]
        found = json.loads(next(Path(folder).rglob("results_*")).read_text())
        try:
            judge(case, rows, found)
        except Wrong as error:
            return "wrong", str(error)
        return ended(case, "right", "")


def spelt(value: str | dict[str, Any]) -> list[str]:
    """`--gen_kwargs` as one word."""
    return [value if isinstance(value, str) else json.dumps(value)]


def by_command(n: int, seed: int) -> list[Case]:
    """Served and loaded models: the command needs one that another process can ask."""
    found = [case for case in cases(20 * n, seed + 1) if case.engine != "scripted"]
    return found[:n]


def campaign(
    n: int, commands: int, seed: int, part: str = "1/1", jobs: int = 1, fork: int = 0
) -> Iterator[tuple[str, Case, str, str]]:
    """(way, case, outcome, words) of every case of a part; `jobs` commands at a time, the last `fork` of all forked."""
    this, of = map(int, part.split("/"))
    for case in cases(n, seed)[this - 1 :: of]:
        yield "process", case, *outcome(case)
    every = by_command(commands, seed)
    chosen = every[: commands - fork][this - 1 :: of]
    for case in chosen:  # once, before several threads ask
        documents(case.task)
        tiny_model()
    with ThreadPoolExecutor(jobs) as pool:
        for case, (end, words) in zip(chosen, pool.map(command, chosen), strict=True):
            yield "command", case, end, words
    for case in every[commands - fork :][this - 1 :: of]:
        yield "forked", case, *command(case, fork=True)


def main() -> int:
    """Run it and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1900)
    parser.add_argument("--command", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument(
        "--fork", type=int, default=0, help="so many of the commands as forks of this process"
    )
    parser.add_argument("--part", default="1/1", help="the i-th of n slices of the cases, as i/n")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started, counts, wrong, rows = time.time(), Counter[tuple[str, str, str]](), [], []
    for way, case, end, words in campaign(
        args.cases, args.command, args.seed, args.part, args.jobs, args.fork
    ):
        counts[way, case.fault, end] += 1
        rows.append({"way": way, **asdict(case), "outcome": end, "words": words[:300]})
        if args.json:  # as it goes: an hour's work survives an interruption
            args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        if end == "wrong":
            wrong.append(rows[-1])
            print("WRONG", json.dumps(rows[-1]), flush=True)
    print("| fault | right | named error | wrong |\n|---|---:|---:|---:|")
    for fault in FAULTS:
        line = [
            sum(v for (_, f, e), v in counts.items() if (f, e) == (fault, end))
            for end in ("right", "error", "wrong")
        ]
        print(f"| {fault} | " + " | ".join(map(str, line)) + " |")
    total = Counter(
        {end: sum(v for (*_, e), v in counts.items() if e == end) for end in ("right", "error", "wrong")}
    )
    print(f"{sum(total.values())} cases in {time.time() - started:.0f} s: {dict(total)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
