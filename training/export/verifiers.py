"""Target `verifiers`: a package with one Taskset (verifiers 0.4, `verifiers.v1`), whose reward is ours,
called directly."""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path

from icr_tasks import storage
from icr_tasks.errors import IcrError

from ..data import formats, store
from ..rewards import registry
from ..rows import opened
from .verl import tokenizer_of

COLUMNS = ("question", "answers", "gold_ids", "gold_docs", "original_ids")
_PROJECT = """[project]
name = "{name}"
version = "0.1.0"
description = "In-context retrieval: {count} rows, reward {reward} (preset {preset})"
requires-python = ">=3.11"
dependencies = ["verifiers>=0.4,<0.5", "icr-tasks", "rapidfuzz"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""
_MODULE = '''"""In-context retrieval as a verifiers Taskset: rows of `icr train data`, reward {reward!r} of icr-tasks.

    uv pip install -e . && eval {name}
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import verifiers.v1 as vf
from icr_tasks.training.rewards import Row, score

REWARD, PRESET = {reward!r}, {preset!r}
# Whether replies begin inside a thought: the chat template opens it and no parser of the server takes it out.
OPENED = {opened!r}


class IcrData(vf.TaskData):
    """A prompt with its passages, and what the reward compares the answer with."""

    question: str = ""
    answers: list[str] = []
    gold_ids: list[int] = []
    gold_docs: list[str] = []
    original_ids: list[int] = []


class IcrTask(vf.Task[IcrData]):
    """One question over its passages; a single turn."""

    def terms(self, text: str) -> dict[str, float]:
        """`reward` and its terms for a completion."""
        row = Row.of({{"id": self.data.id, **self.data.model_dump(include=set({columns!r}))}})
        return score(REWARD, [text], [row], preset=PRESET, opened=OPENED)[0]

    @vf.reward
    async def retrieval(self, trace: vf.Trace) -> float:
        """The reward of icr-tasks for the last reply."""
        return self.terms(trace.last_reply)["reward"]

    @vf.metric
    async def terms_of_the_reward(self, trace: vf.Trace) -> dict[str, float]:
        """Its terms, logged."""
        return {{name: value for name, value in self.terms(trace.last_reply).items() if name != "reward"}}


class IcrTaskset(vf.Taskset[IcrTask, vf.TasksetConfig]):
    """The rows of rows.jsonl.gz, in training order."""

    def load(self) -> Iterator[IcrTask]:
        """One task a row."""
        with gzip.open(Path(__file__).parent / "rows.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                yield IcrTask(IcrData(**json.loads(line)), self.config.task)


__all__ = ["IcrTaskset"]
'''


def write(args: argparse.Namespace) -> str:
    """Write the package; returns what to do with it."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", args.name):
        raise IcrError(f"--name {args.name!r}: a package name is lower-case letters, digits and hyphens")
    source = args.data / "train.parquet"
    registry.check(store.read(source), args.reward)
    begun = bool(args.model) and opened(tokenizer_of(args.model), args.reward)
    module = args.name.replace("-", "_")
    folder: Path = args.out / module
    count = 0
    with (
        storage.replacing(folder / "rows.jsonl.gz") as temporary,
        gzip.open(temporary, "wt", encoding="utf-8") as file,
    ):
        for row in store.read(source):
            if args.limit is not None and count >= args.limit:
                break
            asked = formats.messages(row, args.reward)
            record = {"id": row["id"], "prompt": asked, **{name: row[name] for name in COLUMNS}}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    given = {
        "name": args.name,
        "module": module,
        "count": count,
        "reward": args.reward,
        "preset": args.preset,
        "opened": begun,
    }
    readme = f"# {args.name}\n\n{count} rows, reward {args.reward}, preset {args.preset}.\n"
    storage.write_atomic(folder / "__init__.py", _MODULE.format(**given, columns=COLUMNS).encode())
    storage.write_atomic(args.out / "pyproject.toml", _PROJECT.format(**given).encode())
    storage.write_atomic(args.out / "README.md", readme.encode())
    return f"{args.out}: {count} rows as verifiers package {args.name}; uv pip install -e {args.out}"
