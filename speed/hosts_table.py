"""The same answers through every host: the table of docs/hosts.md.

python speed/hosts_table.py [--limit 14] [--tasks icr_synth_rag_1k ...] [--write docs/hosts.md]

Each task gets the same texts (right, wrong, hidden in thoughts, cut inside one, empty) by lm-eval's own
evaluation, by the plain task interface as NeMo Evaluator drives it, and by Inspect with a scripted model. A row
holds the mean of each host and the largest difference of any item. Tasks without data at hand are left out and
named. Data are found as everywhere (ICR_DATA_DIR); one judge, a rule, stands for Loong's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_endpoint import FakeEndpoint
from hostkit import JUNK, right

from icr_tasks.benchmarks import catalog
from icr_tasks.errors import IcrError
from icr_tasks.harness.run import manager
from icr_tasks.hosts import inspect

START, END = "<!-- hosts:start -->", "<!-- hosts:end -->"
Scores = dict[str, float]


def texts(name: str, docs: list[dict[str, Any]]) -> dict[str, str]:
    """Question -> answer, every kind of answer in turn."""
    first = {doc["question"]: doc for doc in docs}
    out = {}
    for number, (question, doc) in enumerate(first.items()):
        gold = right(doc, name)
        forms = (gold, JUNK, f"<think>{gold}</think>{JUNK}", f"<think>no</think>{gold}", f"<think>{gold}", "")
        out[question] = forms[number % len(forms)]
    return out


def task_of(name: str, options: dict[str, Any]) -> Any:
    """The task object."""
    return manager(options).load([name])["tasks"][name]


def by_lm_eval(name: str, said: dict[str, str], options: dict[str, Any], limit: int) -> Scores:
    """Item id -> score, in the order of calls of lm-eval's evaluator."""
    task = task_of(name, options)
    task.build_all_requests(limit=limit, apply_chat_template=True, chat_template=inspect.chat)
    for request in task.instances:
        request.resps = [said[request.doc["question"]]]
    task.apply_filters()
    return {
        r.doc["id"]: task.process_results(r.doc, [r.filtered_resps["none"]])["score"] for r in task.instances
    }


def by_plain(name: str, said: dict[str, str], options: dict[str, Any], limit: int) -> Scores:
    """Item id -> score through the bare interface; options come from the environment, as for such hosts."""
    os.environ["ICR_OPTIONS"] = json.dumps(options)
    try:
        task = task_of(name, {})
        found = {}
        for number, doc in task.doc_iterator(rank=0, limit=limit, world_size=1):
            prompt = task.fewshot_context(doc, num_fewshot=0)
            request = task.construct_requests(doc=doc, ctx=prompt, metadata=(name, number, 1))
            assert doc["question"].strip()[:80] in request.args[0]
            found[doc["id"]] = task.process_results(doc, [said[doc["question"]]])["score"]
        return found
    finally:
        del os.environ["ICR_OPTIONS"]


def by_inspect(name: str, said: dict[str, str], options: dict[str, Any], limit: int) -> Scores:
    """Item id -> score of an Inspect evaluation."""
    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def say(messages: Any, *_: Any) -> ModelOutput:
        out = ModelOutput.from_content(
            "mockllm", next(text for question, text in said.items() if question in messages[-1].text)
        )
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return out

    made = inspect.TASKS[name.removeprefix("icr_")](options=options)
    model = get_model("mockllm/model", custom_outputs=say, memoize=False)
    with tempfile.TemporaryDirectory() as folder:
        log = evaluate(made, model=model, limit=limit, log_dir=folder, display="none")[0]
        if log.status != "success":
            raise IcrError(f"{name}: Inspect ended with {log.status}: {log.error}")
        return {str(s.id): float(next(iter((s.scores or {}).values())).as_float()) for s in log.samples or []}


HOSTS: dict[str, Callable[[str, dict[str, str], dict[str, Any], int], Scores]] = {
    "lm-eval": by_lm_eval,
    "plain interface": by_plain,
    "Inspect": by_inspect,
}


def compare(name: str, options: dict[str, Any], limit: int) -> tuple[int, dict[str, float], float]:
    """(items, mean by host, largest difference of an item between two hosts)."""
    docs = list(task_of(name, options).dataset["test"][:limit])
    said = texts(name, docs)
    found = {host: run(name, said, options, limit) for host, run in HOSTS.items()}
    ids = [doc["id"] for doc in docs]
    assert all(list(scores) == ids or set(scores) == set(ids) for scores in found.values())
    gap = max(max(s[i] for s in found.values()) - min(s[i] for s in found.values()) for i in ids)
    return len(ids), {host: sum(s.values()) / len(s) for host, s in found.items()}, gap


@contextmanager
def options() -> Iterator[Callable[[str], dict[str, Any]]]:
    """What a task needs beside its name: partial data are allowed, Loong has a judge."""
    with FakeEndpoint(lambda p: f"Evaluation evidence: x\nRating: [[{1 if JUNK in p else 100}]]") as server:
        judged = {
            "judge_base_url": server.url,
            "judge_model": "rule",
            "questions_file": "loong_replica.jsonl",
        }
        yield lambda name: {
            "tokenizer": "none",
            **({} if "_synth_" in name else {"allow_partial": True}),
            **(judged if "loong" in name else {}),
        }


def table(names: list[str], limit: int) -> tuple[str, list[str]]:
    """(Markdown table, tasks whose data are not at hand). Raises AssertionError where hosts differ."""
    rows = [
        f"| task | items | {' | '.join(HOSTS)} | largest difference |",
        "|---|---:|" + "---:|" * (len(HOSTS) + 1),
    ]
    left = []
    with options() as of:
        for name in names:
            try:
                n, means, gap = compare(name, of(name), limit)
            except IcrError as error:
                if "no data at" not in str(error):
                    raise
                left.append(name)
                continue
            assert gap == 0, f"{name}: hosts differ by {gap}"
            rows.append(f"| `{name}` | {n} | {' | '.join(f'{m:.4f}' for m in means.values())} | {gap:g} |")
    return "\n".join(rows), left


def main() -> None:
    """Print the table, or write it into a page between its marks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=14)
    parser.add_argument("--tasks", nargs="*", default=list(catalog.leaves()))
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    text, left = table(args.tasks, args.limit)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, after = page.split(START)[0], page.split(END)[1]
        args.write.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")
    else:
        print(text)
    print(f"no data at hand: {', '.join(left) or 'none'}", file=sys.stderr)


if __name__ == "__main__":
    main()
