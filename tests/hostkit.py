"""Other harnesses in miniature: the calls that NeMo Evaluator's `lm-eval://` makes, the oracle's words, and data
for every leaf task."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from icr_tasks.benchmarks import catalog
from icr_tasks.harness.instance import unsealed
from icr_tasks.harness.run import manager

# What NeMo Evaluator 0.3 takes for the reward of an item, in its order.
REWARDS = ("exact_match", "acc", "em", "score", "bleu", "rouge1")
SWALLOWED = (TypeError, ValueError, KeyError, IndexError, AttributeError)
JUNK = "xq zv"  # "cannot" holds a gold "no"


CANARY = "A sentence that is no canary."  # BrowseComp-Plus asks for one


def right(doc: dict[str, Any], task: str) -> str:
    """The gold answer in the words that the task's scorer reads."""
    from oracle import _right

    return _right(doc, task)


def open_doc(task: Any, doc: dict[str, Any]) -> dict[str, Any]:
    """The document with the texts that its log must not show."""
    return unsealed(dict(doc), task.item(doc))


class PlainHost:
    """Drives a task as NeMo Evaluator does: no options, one prompt at a time, one answer at a time.

    Like it, this host takes the errors of `SWALLOWED` for an empty prompt or a reward of 0.
    """

    def __init__(self, name: str, limit: int) -> None:
        from lm_eval.tasks import get_task_dict

        found = get_task_dict([name], manager({}))  # only our tasks: indexing all takes seconds
        self.tasks = list(_leaves(found))
        self.rows: list[tuple[Any, dict[str, Any], str, dict[str, Any]]] = []
        for task in self.tasks:
            assert task.OUTPUT_TYPE == "generate_until"
            task.download()
            for number, doc in task.doc_iterator(rank=0, limit=limit, world_size=1):
                try:
                    prompt = task.fewshot_context(doc, num_fewshot=task.config.num_fewshot or 0)
                except (TypeError, ValueError, KeyError):
                    prompt = ""
                try:
                    place = (task.config.task, number, 1)
                    request = task.construct_requests(doc=doc, ctx=prompt, metadata=place)
                    sent, kwargs = request.args[0], request.args[1]
                except SWALLOWED:
                    sent, kwargs = prompt, {}
                self.rows.append((task, doc, sent, kwargs))

    def rewards(self, say: Any) -> list[float]:
        """The reward of each item for `say(doc, task name)`."""
        out = []
        for task, doc, _, kwargs in self.rows:
            text = say(open_doc(task, doc), str(task.config.task))
            for stop in kwargs.get("until", []):
                text = text.partition(stop)[0]
            try:
                metrics = task.process_results(doc, [text])
            except (TypeError, ValueError, KeyError):
                metrics = {}
            out.append(float(next((metrics[key] for key in REWARDS if key in metrics), 0.0)))
        return out


def _leaves(found: Any) -> Any:
    if not isinstance(found, dict):
        yield found
        return
    for value in found.values():
        yield from _leaves(value)


def whole_data(replica: Path, root: Path) -> Path:
    """A data root for every benchmark: the replica's files; where it has none of HELMET, rows of a shorter file
    with their passages repeated to the number that the task's file has; small files of the others' shapes.

    Where counts are kept (XDG_CACHE_HOME) and BrowseComp-Plus' key must be set before.
    """
    import newbench
    import test_bench_sealed

    for path in sorted(replica.rglob("*")):
        if path.is_file():
            target = root / path.relative_to(replica)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    newbench.everything(root)
    newbench.every_length(root)
    test_bench_sealed.nolima(root)
    (root / "nolima" / "rand_book_1.txt").write_text("A sentence of a book about nothing. " * 6000)
    test_bench_sealed.write(root, [test_bench_sealed.row()])
    kilt = replica / "helmet" / "data" / "kilt"
    short = {"hotpotqa": "hotpotqa-dev-multikilt_1000_k20_dep3", "popqa": "popqa_test_1000_k20_dep6"}
    for benchmark, task in catalog.leaves().values():
        if benchmark.name != "helmet_rag":
            continue
        source = kilt / (short.get(task.dataset, "nq-dev-multikilt_1000_k20_dep6") + ".jsonl")
        for remote in benchmark.files(task.dataset, task.length) if benchmark.files else ():
            target = root / remote.target
            if target.exists() or not (size := re.search(r"_k(\d+)_dep", target.name)):
                continue
            with source.open() as file, target.open("w") as out:
                for row in map(json.loads, itertools.islice(file, 3)):
                    row["ctxs"] = list(itertools.islice(itertools.cycle(row["ctxs"]), int(size[1])))
                    out.write(json.dumps(row) + "\n")
    return root
