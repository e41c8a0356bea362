"""Command lines of `lm_eval run` in which every two values of two options meet: engines, templates, flags, settings.

    python tests/flag_lines.py [--seed 0] [--part i/n] [--json out.json]      # make faults

Each line runs in this process, through lm_eval's own command. It must end with the right score of every item and a prompt
that holds the question and the system text, or in one line that names the option that cannot be, before anything is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fake_served import FakeServed
from flagkit import TASK, only_ours, results, samples
from hostkit import right
from test_flags_templates import SHAPES, THINKS, Engine

os.environ.setdefault("LOGLEVEL", "ERROR")
OUT = "OUT"  # stands for a folder of the line's own
SYSTEM = "Answer as a librarian would."
SHOWN = ("qwen3", "llama3", "gemma", "mistral-v1", "glm", "gpt-oss", "deepseek-v3.1", "granite", "phi")
DIALECTS = ("vllm", "sglang", "openai")
# Option -> name of a value -> (words of the command line, what the line that refuses it says, or None).
OPTIONS: dict[str, dict[str, tuple[tuple[str, ...], str | None]]] = {
    "engine": {
        **{
            f"shaped {shape}": (("--model", "shaped", "--model_args", f"shape={shape}"), None)
            for shape in SHOWN
        },
        "chat vllm": (("--model", "local-chat-completions"), None),
        "text vllm": (("--model", "local-completions"), None),
        # lm-eval's own engines send what these refuse
        **{f"chat {d}": (("--model", "local-chat-completions"), "--model icr-api") for d in DIALECTS[1:]},
        "text sglang": (("--model", "local-completions"), "--model icr-api"),
        **{f"api {d}": (("--model", "icr-api"), None) for d in DIALECTS},
    },
    "template": {
        "none": ((), None),
        "on": (("--apply_chat_template",), None),
        "named": (("--apply_chat_template", "default"), None),
        "multiturn": (("--apply_chat_template", "--fewshot_as_multiturn"), None),
    },
    "system": {"none": ((), None), "given": (("--system_instruction", SYSTEM), None)},
    "gen": {
        "none": ((), None),
        "length": (("--gen_kwargs", "max_gen_toks=64"), None),
        "spelling": (("--gen_kwargs", "max_tokens=64,stop=###"), None),
        "json": (("--gen_kwargs", '{"max_new_tokens": 64, "until": ["###"]}'), None),
        "warm": (("--gen_kwargs", "temperature=0.6", "top_p=0.9"), None),
        "several": (("--gen_kwargs", "n=2"), "n=2"),
    },
    "items": {
        "count": (("--limit", "2"), None),
        "share": (("--limit", "0.02"), None),
        "chosen": (("--samples", json.dumps({TASK: [3, 1]})), None),
        "none": (("--limit", "0"), "--limit 0"),
    },
    "setting": {
        "full": ((), None),
        "none": (("setting=none",), None),
        "gold@only": (("setting=gold@only",), None),
        "gold": (("setting=gold",), None),
        "compressed": (("setting=kv:topk@0.05",), "kv:topk@0.05"),
    },
    "prompt": {"own": ((), None), "id": (("prompt=id",), None), "wrong": (("prompt=aoo",), "'ao'")},
    "shots": {
        "none": ((), None),
        "0": (("--num_fewshot", "0"), None),
        "2": (("--num_fewshot", "2"), "--num_fewshot 2"),
    },
    "output": {
        "logged": (("--log_samples", "--output_path", OUT), None),
        "predicted": (("--predict_only", "--output_path", OUT), None),
        "nowhere": (("--log_samples",), "--output_path"),
    },
    "shown": {"none": ((), None), "prompts": (("--write_out",), None), "config": (("--show_config",), None)},
    "seed": {"none": ((), None), "one": (("--seed", "7"), None), "four": (("--seed", "1,None,3,4"), None)},
    "batch": {
        "1": (("--batch_size", "1"), None),
        "auto": (("--batch_size", "auto"), None),
        "auto:4": (("--batch_size", "auto:4", "--max_batch_size", "8"), None),
    },
    "cache": {
        "none": ((), None),
        "answers": (("--use_cache", f"{OUT}/cache"), None),
        "requests": (("--cache_requests", "true"), "--cache_requests"),
    },
    "other": {
        "none": ((), None),
        "device": (("--device", "cpu"), None),
        "remote": (("--trust_remote_code",), None),
        "unsafe": (("--confirm_run_unsafe_code",), None),
        "integrity": (("--check_integrity",), "--check_integrity"),
    },
    "dated": {
        "none": ((), None),
        "date": (("template_date=2031-01-02",), None),
        "user": (("system_role=user",), None),
    },
}


@dataclass(frozen=True)
class Line:
    """One choice of every option."""

    chosen: tuple[tuple[str, str], ...]

    def __getitem__(self, option: str) -> str:
        return dict(self.chosen)[option]

    @property
    def words(self) -> list[str]:
        """The command line without the server's address."""
        found: list[str] = []
        for option, value in self.chosen:
            found += OPTIONS[option][value][0] if option not in ("setting", "prompt", "dated") else ()
        return found

    @property
    def metadata(self) -> dict[str, Any]:
        """`--metadata`."""
        given = [OPTIONS[o][self[o]][0] for o in ("setting", "prompt", "dated")]
        return {"tokenizer": "none", **dict(word.split("=", 1) for words in given for word in words)}

    @property
    def refused(self) -> list[str]:
        """What the one line may say, of all that cannot be; empty for a line that runs."""
        said = [why for option, value in self.chosen if (why := OPTIONS[option][value][1])]
        kind, _, which = self["engine"].partition(" ")
        templated = self["template"] != "none"
        if kind == "chat" and not templated:
            said.append("--apply_chat_template")
        if kind == "chat" and self["batch"] != "1":
            said.append("batch")
        if kind == "text" and templated:
            said.append("has no tokenizer here")
        if kind != "shaped" and self["template"] == "named":
            said.append("template")
        if kind == "shaped" and self["template"] == "named":
            said.append("without a name")
        if self["engine"] == "api openai" and self["gen"] == "warm":
            said.append("the server refuses temperature=0.6")
        if kind == "api" and self["cache"] == "answers":
            said.append("--use_cache")
        if self["setting"] == "none" and self["prompt"] == "id":
            said.append("no form without context")
        if self["setting"] == "gold" and templated:
            if which == "openai":
                said.append("continue")
            if kind == "shaped" and which in THINKS:
                said.append("think first")
        return said


def lines(seed: int = 0) -> list[Line]:
    """So many that every two values of two options stand together in one: in one that runs, where any does. Values that
    are refused by themselves stand in one line each."""
    rng, found = random.Random(seed), []
    fine = {o: [v for v, (_, why) in values.items() if why is None] for o, values in OPTIONS.items()}
    open_pairs = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(fine, 2)
        for x in fine[a]
        for y in fine[b]
    }
    while open_pairs:
        best, most = None, (False, -1)
        (a, x), (b, y) = sorted(min(open_pairs, key=sorted))
        for _ in range(60):
            chosen = {o: rng.choice(values) for o, values in fine.items()} | {a: x, b: y}
            count = sum(frozenset(p) in open_pairs for p in itertools.combinations(chosen.items(), 2))
            new = (not Line(tuple(chosen.items())).refused, count)
            best, most = (chosen, new) if new > most else (best, most)
        assert best is not None
        open_pairs -= {frozenset(p) for p in itertools.combinations(best.items(), 2)}
        found.append(best)
    bad = [(o, v) for o, values in OPTIONS.items() for v in values if v not in fine[o]]
    for number, (option, value) in enumerate(bad):  # each once, in a line that would run
        found.insert(number * 7 % len(found), {**found[rng.randrange(len(found))], option: value})
    return [Line(tuple(chosen.items())) for chosen in found]


def documents() -> dict[str, dict[str, Any]]:
    """Question -> document."""
    from icr_tasks.harness.run import manager

    task = manager({"tokenizer": "none"}).load([TASK])["tasks"][TASK]
    return {doc["question"]: doc for doc in task.dataset["test"]}


def shaped() -> None:
    """Register `shaped`: a model in this process with the chat template of a family, which answers rightly."""
    import lm_eval.models  # noqa: F401  (first: it would hide the built-in models)
    from lm_eval.api.model import LM
    from lm_eval.api.registry import model_registry, register_model

    if "shaped" in model_registry:
        return

    @register_model("shaped")
    class Shaped(LM):
        prompts: list[str] = []

        def __init__(self, shape: str, **kwargs: Any) -> None:
            super().__init__()
            self._engine = Engine(SHAPES[shape])
            self.apply_chat_template = self._engine.apply_chat_template  # type: ignore[assignment]
            self.tokenizer, self._shape = self._engine.tokenizer, shape

        @property
        def tokenizer_name(self) -> str:
            return self._shape

        def chat_template(self, chat_template: Any = False) -> str:
            return self._engine.tokenizer.chat_template

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            type(self).prompts.extend(r.args[0] for r in requests)
            return [right(r.doc, TASK) for r in requests]

        def loglikelihood(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("never asked for")

        loglikelihood_rolling = loglikelihood


def prompts_of() -> list[str]:
    """What the model in this process was asked since the last call."""
    from lm_eval.api.registry import get_model

    kept: Any = get_model("shaped").prompts  # type: ignore[attr-defined]
    found = kept[:]
    kept.clear()
    return found


def run(line: Line, docs: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """("right" | "refused" | "wrong", what was said or what is wrong)."""
    from lm_eval.__main__ import cli_evaluate

    from icr_tasks.harness.hooks import environment_once

    shaped()
    asked: list[str] = []

    def reply(prompt: str) -> str:
        asked.append(prompt)
        return next((right(doc, TASK) for question, doc in docs.items() if question in prompt), "no question")

    kind, _, which = line["engine"].partition(" ")
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeServed(reply, dialect=which if kind != "shaped" else "vllm") as server,
    ):
        words = [word.replace(OUT, folder) for word in line.words]
        if kind != "shaped":
            end = {"chat": "/chat/completions", "text": "/completions", "api": ""}[kind]
            more = (
                ",tokenizer_backend=none,tokenized_requests=False,max_length=8192" if kind == "text" else ""
            )
            words += ["--model_args", f"model=M,base_url={server.url}{end},max_retries=1{more}"]
        words += ["--metadata", json.dumps(line.metadata), "--tasks", TASK]
        before, sys.argv, err, code = sys.argv, ["lm_eval", "run", *words], io.StringIO(), 0
        try:
            quiet = contextlib.redirect_stdout(io.StringIO())
            with quiet, contextlib.redirect_stderr(err), environment_once(), only_ours():
                cli_evaluate()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except Exception as error:  # what the user would see as a traceback
            return "wrong", f"{type(error).__name__}: {error}"
        finally:
            sys.argv = before
        said = (err.getvalue().strip().splitlines() or [""])[-1]
        prompts = asked + prompts_of()
        if code:
            return refusal(line, code, said, prompts)
        if line.refused:
            return "wrong", f"ran, though {line.refused} cannot be"
        return ("right", "") if (why := judged(line, Path(folder), prompts)) is None else ("wrong", why)


def refusal(line: Line, code: int, said: str, prompts: list[str]) -> tuple[str, str]:
    """Whether an error is one that the line deserves."""
    if not said.startswith("icr: error: ") or code not in (2, 3):
        return "wrong", f"exit code {code}: {said}"
    if not any(why in said for why in line.refused):
        return "wrong", f"refused without need, or for another reason than {line.refused}: {said}"
    if prompts and OPTIONS["engine"][line["engine"]][1] is None:
        return "wrong", f"refused after {len(prompts)} prompts were asked: {said}"
    return "refused", said


def judged(line: Line, out: Path, prompts: list[str]) -> str | None:
    """What is wrong with a finished run."""
    if not prompts:
        return "nothing was asked"
    for prompt in prompts:
        if line["system"] == "given" and prompt.count(SYSTEM) != 1:
            return f"the system text stands {prompt.count(SYSTEM)} times in {prompt[:200]!r}"
    if line["output"] == "predicted":
        return "--predict_only scored" if any("score" in row for row in samples(out)) else None
    rows, found = samples(out), results(out)["results"][TASK]
    if line["items"] != "share" and len(rows) != 2:
        return f"{len(rows)} rows of 2"
    if any(row["score"] != 1.0 for row in rows) or found["score,none"] != 1.0:
        return f"scores {[row['score'] for row in rows]}, in the table {found['score,none']}"
    return None


def main() -> int:
    """Run them and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="the i-th of n slices of the lines, as i/n")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started, docs, counts, rows = time.time(), documents(), Counter[str](), []
    this, of = map(int, args.part.split("/"))
    for line in lines(args.seed)[this - 1 :: of]:
        end, said = run(line, docs)
        counts[end] += 1
        rows.append({**dict(line.chosen), "outcome": end, "words": said})
        if end == "wrong":
            print("WRONG", json.dumps(rows[-1]), flush=True)
    print(f"{sum(counts.values())} command lines in {time.time() - started:.0f} s: {dict(counts)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
