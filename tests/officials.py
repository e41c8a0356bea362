"""Runs in a process of its own: the official code of the four benchmarks, read where `$ICR_OFFICIALS` has it.

    python officials.py helmet|infbench|longbench_v2|loong REQUEST.json ANSWER.json

The request holds the files to load and the constructed answers to score; the answer holds what the official
loaders made of them (sha256 of each prompt) and what the official scorers gave. Their modules are called `data`,
`utils` and `prompt`, so each benchmark has a process. Packages that they import and that nothing here uses are
stood in for where they are not installed; `evaluate`'s rouge, which is fetched from a hub, is rouge_score called as
it calls it.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import io
import json
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

UNUSED = ("pytrec_eval", "rouge", "jieba", "colorlog", "evaluate")


def sha(text: str) -> str:
    """What two prompts are compared by."""
    return hashlib.sha256(text.encode()).hexdigest()


def stand_in(name: str, **members: Any) -> None:
    """A module of that name whose every member exists."""
    module = types.ModuleType(name)
    module.__dict__.update({"Rouge": object, "ColoredFormatter": _formatter, **members})
    sys.modules[name] = module


def _formatter(*args: Any, **options: Any) -> Any:
    import logging

    return logging.Formatter()


class _Rouge:
    """`evaluate.load("rouge")`: rouge_score without a stemmer, one score a pair."""

    def compute(
        self, predictions: list[str], references: Any, use_aggregator: bool
    ) -> dict[str, list[float]]:
        from rouge_score import rouge_scorer

        names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
        scorer = rouge_scorer.RougeScorer(rouge_types=names, use_stemmer=False)
        score = (scorer.score_multi if isinstance(references[0], list) else scorer.score)(
            references[0], predictions[0]
        )
        return {name: [score[name].fmeasure] for name in names}


def helmet(asked: dict[str, Any]) -> dict[str, Any]:
    """HELMET: its loader on each file, its default scorer on each (text, golds)."""
    import data  # type: ignore[import-not-found]

    out: dict[str, Any] = {"prompts": {}}
    for name, found in asked["files"].items():
        random.seed(42)
        options = types.SimpleNamespace(max_test_samples=100, shots=2, seed=42)
        loaded = data.load_data(options, found["dataset"], found["test"], found["demos"])
        out["prompts"][name] = [sha(loaded["prompt_template"].format(**row)) for row in loaded["data"]]
    out["scores"] = [
        data.default_post_process({"output": text}, {"answer": golds})[0] for text, golds in asked["answers"]
    ]
    return out


def infbench(asked: dict[str, Any]) -> dict[str, Any]:
    """InfiniteBench: its messages to GPT-4 for each record, its score of each (task, text, record)."""
    import compute_scores  # type: ignore[import-not-found]
    import eval_utils  # type: ignore[import-not-found]

    whole = types.SimpleNamespace(encode=lambda text: [text], decode="".join)  # nothing is cut
    records: dict[str, list[dict[str, Any]]] = {}
    out: dict[str, Any] = {"prompts": {}, "scores": []}
    for task in asked["tasks"]:
        records[task] = eval_utils.load_data(task, asked["folder"])
        made = [
            eval_utils.create_msgs(whole, dict(r), task, "gpt4", asked["folder"])[0] for r in records[task]
        ]
        out["prompts"][task] = [sha("\n\n".join(m["content"] for m in messages)) for messages in made]
    for task, number, text in asked["answers"]:
        label = eval_utils.get_answer(records[task][number], task)
        out["scores"].append(compute_scores.get_score_one(text, label, task, "gpt4"))
    return out


def longbench_v2(asked: dict[str, Any]) -> dict[str, Any]:
    """LongBench-v2: what `pred.get_pred` sends for each record, with and without context, and its judgement of each
    constructed answer."""
    import pred  # type: ignore[import-not-found]
    import tiktoken

    tiktoken.encoding_for_model = lambda name: None  # nothing is counted or cut: query_llm is ours
    records = json.loads(Path(asked["file"]).read_text(encoding="utf-8"))
    out: dict[str, Any] = {}
    for form in ("full", "none"):
        sent: list[str] = []
        pred.query_llm = lambda prompt, *_, sent=sent, **__: sent.append(prompt) or "x"
        options = types.SimpleNamespace(model="gpt", rag=0, no_context=form == "none", cot=False)
        pred.get_pred([dict(r) for r in records], options, io.StringIO())
        out[form] = [sha(prompt) for prompt in sent]
    answers = iter([text for _, text in asked["answers"]])
    pred.query_llm = lambda *_, **__: next(answers)
    sink = io.StringIO()
    chosen = [dict(records[number], context="") for number, _ in asked["answers"]]
    pred.get_pred(chosen, types.SimpleNamespace(model="gpt", rag=0, no_context=False, cot=False), sink)
    out["scores"] = [bool(json.loads(line)["judge"]) for line in sink.getvalue().splitlines()]
    return out


def loong(asked: dict[str, Any]) -> dict[str, Any]:
    """Loong: prompts of records whose documents are named in our order (nothing shuffled, nothing left out, the first
    match of a name in byte order), what its judge is shown, and the ratings it reads."""
    stand_in("utils.token_length", token_length=len)
    from utils import metric, prompt  # type: ignore[attr-defined,import-not-found]

    unsorted = glob.glob
    prompt.glob = types.SimpleNamespace(glob=lambda pattern: sorted(unsorted(pattern)))
    options = types.SimpleNamespace(doc_path=asked["documents"], rag=False, max_length=1 << 60)
    out: dict[str, Any] = {
        "prompts": [sha(prompt.get_generate_prompt(options, r)["prompt"]) for r in asked["records"]]
    }
    kept = Path(asked["scratch"]) / "answers.jsonl"
    kept.write_text("".join(json.dumps(r) + "\n" for r in asked["judged"]), encoding="utf-8")
    shown = prompt.get_evaluate_prompts(types.SimpleNamespace(output_path=kept), "said")
    out["judge"] = [sha(line["prompt"]) for line in shown]
    out["ratings"] = [metric.extract_number(text) for text in asked["replies"]]
    return out


FOLDERS = {
    "helmet": "HELMET",
    "infbench": "InfiniteBench/src",
    "longbench_v2": "LongBench",
    "loong": "Loong/src",
}


def main(what: str, request: str, answer: str) -> None:
    """Run one of them in its own folder, as its authors do."""
    folder = Path(os.environ["ICR_OFFICIALS"]) / FOLDERS[what]
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    for name in UNUSED:
        if importlib.util.find_spec(name) is None or name == "evaluate":
            stand_in(name, load=lambda kind: _Rouge())
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if p != str(Path(__file__).parent))]
    made = {"helmet": helmet, "infbench": infbench, "longbench_v2": longbench_v2, "loong": loong}[what](asked)
    Path(answer).write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
