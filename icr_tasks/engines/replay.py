"""`--model icr-replay`: answers come from a log, so any metric, judge or extractor can be run again by stock
lm_eval.

    lm_eval --tasks icr_loong_fin --model icr-replay --model_args samples=out \
        --metadata '{"judge_base_url":"http://localhost:8001/v1","judge_model":"..."}' --log_samples
        --output_path out2

`samples` is an lm_eval output folder (made with --log_samples) or a predictions file: JSON lines with `id`,
`prediction`, and `task` when the file holds several (`model=NAME` chooses where it holds several models). Ids
are those of the items, exactly. No prompt is built, so neither tokenizer nor contexts are needed beyond the
task's questions and answers. What was logged must be the same items: hashes are compared.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from lm_eval.api.model import LM
from lm_eval.utils import handle_non_serializable, hash_string

from ..benchmarks import predictions
from ..errors import IcrError
from ..schema import digest
from ..storage import evaluations


class Log:
    """Logged answers by task and item id, with what the run was. `model` chooses one of a predictions
    file."""

    def __init__(self, path: Path, model: str | None = None) -> None:
        self.path = path
        self.answers: dict[str | None, dict[str, dict[str, Any]]] = {}
        self.sheets: dict[str, dict[str, Any]] = {}
        self.config: dict[str, Any] | None = None
        self._by_task: dict[str, dict[str, dict[str, Any]]] = {}
        self.is_predictions = path.is_file() and not path.name.startswith("results_")
        if not path.exists():
            raise IcrError(
                f"samples={path} does not exist; give an lm_eval output folder or a predictions file"
            )
        for row in self._predictions(model) if self.is_predictions else self._tree():
            self.answers.setdefault(row["task"], {})[row["id"]] = row

    def _tree(self) -> Iterator[dict[str, Any]]:
        # oldest first: a newer run of a task replaces the older one
        for evaluation in evaluations([self.path]):
            self.config = evaluation.results.get("config")
            for task, path in evaluation.samples.items():
                self.sheets[task] = evaluation.results["configs"][task].get("metadata", {}).get("icr", {})
                for number, raw in enumerate(path.open("rb"), 1):
                    try:
                        sample = orjson.loads(raw)
                    except orjson.JSONDecodeError as error:
                        raise IcrError(
                            f"{path}:{number}: not valid JSON ({error}); the file is cut off"
                        ) from error
                    doc = sample["doc"] if isinstance(sample["doc"], dict) else {}
                    text = (sample["resps"][0] or [""])[0] if sample["resps"] else ""
                    yield {
                        "task": task,
                        "id": str(doc.get("id", sample["doc_id"])),
                        "text": text,
                        "doc_hash": sample["doc_hash"],
                        "digest": digest(sample),
                        "out_tokens": sample.get("out_tokens"),
                        "thought_tokens": sample.get("thought_tokens"),
                    }

    def _predictions(self, model: str | None) -> Iterator[dict[str, Any]]:
        seen: set[tuple[str | None, str]] = set()
        for found in predictions.read(self.path, model=model):
            if (found.task, found.id) in seen:
                where = f" of {found.task}" if found.task else ""
                raise IcrError(f"{self.path}: item {found.id}{where} has two predictions; keep one of them")
            seen.add((found.task, found.id))
            text = found.text if isinstance(found.text, str) else None  # no text: an answer that never came
            empty: dict[str, Any] = {
                "doc_hash": None,
                "digest": {},
                "out_tokens": None,
                "thought_tokens": None,
            }
            told = {"text": text, "finish_reason": found.finish_reason}
            yield {"task": found.task, "id": found.id, **told, **empty}

    def of(self, task: str) -> dict[str, dict[str, Any]]:
        """The logged answers of a task by item id. Raises IcrError when there are none."""
        known = self.answers.get(task) or self.answers.get(None)
        if known is None:
            raise IcrError(
                f"{self.path} has no answers for {task}; it has {', '.join(sorted(map(str, self.answers)))}"
            )
        return {predictions.item_id(task, given): row for given, row in known.items()}

    def check(self, task: str, items: Collection[str]) -> None:
        """Raise IcrError for a predictions file with ids that are none of the task's items.

        What is missing is told item by item: `--limit` asks for a few of them.
        """
        known = self.of(task) if self.is_predictions else {}
        found = predictions.problems(task, known, dict.fromkeys(items))
        if found.get("unknown"):
            raise predictions.refuse(
                self.path,
                task,
                found,
                len(items),
                f"the ids must be those of the items, e.g. {next(iter(items))}",
            )

    def find(self, task: str, doc: dict[str, Any]) -> dict[str, Any]:
        """The logged answer of an item. Raises IcrError when it is missing or was made for another item."""
        known = self._of(task)
        row = known.get(str(doc["id"]))
        if row is None:
            raise IcrError(
                f"{self.path} has no answer for item {doc['id']} of {task} ({len(known)} items logged); use "
                "the --limit of that run"
            )
        if row["doc_hash"] is not None and row["doc_hash"] != doc_hash(doc):
            raise IcrError(
                f"item {doc['id']} of {task} is not the item that was answered (question, answers or data "
                "changed); evaluate again"
            )
        return row

    def _of(self, task: str) -> dict[str, dict[str, Any]]:
        if task not in self._by_task:
            self._by_task[task] = self.of(task)
        return self._by_task[task]


@lru_cache(maxsize=4)
def load(path: str, model: str | None = None) -> Log:
    """The log at that path, read once."""
    return Log(Path(path), model)


def log_of(metadata: Mapping[str, Any]) -> Log:
    """The log that a task's metadata (lm_eval adds the model arguments to it) names."""
    return load(str(metadata["samples"]), metadata.get("model"))


def doc_hash(doc: dict[str, Any]) -> str:
    """lm_eval's own doc_hash (evaluator.py)."""
    return hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))


class ReplayLM(LM):
    """Answers generate_until from a log; likelihoods cannot be replayed."""

    def __init__(self, samples: str, model: str | None = None, **_: Any) -> None:
        super().__init__()
        self.log = load(str(samples), model)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The logged answers, in request order."""
        return [self.log.find(r.task_name, r.doc)["text"] for r in requests]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Refused."""
        raise IcrError("icr-replay holds generated text, no likelihoods; icr_ tasks do not need them")

    loglikelihood_rolling = loglikelihood  # type: ignore[assignment]

    def get_model_info(self) -> dict[str, Any]:
        """The model that gave the answers, for the results file."""
        return {
            "replayed": self.log.config
            or {"model": "predictions", "model_args": {"pretrained": self.log.path.stem}}
        }
