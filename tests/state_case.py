"""Run by test_state.py in a process of its own: one engine, one setting after the other, as JSON on the last
line.

python state_case.py ENGINE MODEL SETTING [SETTING ...]       each setting its own call
python state_case.py ENGINE MODEL --together SETTING ...      one generate_until for all
python state_case.py ENGINE MODEL --apart SETTING ...         each setting in a process of its own
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
TASK, LIMIT = "icr_synth_rag_512", 2
# what another process measures alike: counts and bytes, no seconds and no memory of the whole process
SAME = (
    "setting",
    "fallback",
    "tokens",
    "tokens_stored",
    "steps",
    "sparse_steps",
    "read_fraction",
    "attended_fraction",
    "stored_fraction",
    "bytes_read_per_step",
    "index_bytes",
    "mass_kept",
)


def engine(name: str, model: str) -> Any:
    if name == "icr-hf":
        from icr_tasks.engines.hf import IcrHF

        return IcrHF(model, dtype="float32", device="cpu", batch_size=2)
    from icr_tasks.engines.vllm import IcrVLLM

    return IcrVLLM(model, dtype="float32", kv="task", max_model_len=2048, distributed_executor_backend="uni")


def build(lm: Any, model: str, setting: str) -> Any:
    from icr_tasks.harness import run

    cell = run.Cell((TASK,), {"setting": setting}, LIMIT)
    (task,) = run.build(lm, cell, {"pretrained": model}, {"max_gen_toks": 6})
    return task


def outcome(task: Any, answers: list[str]) -> list[dict[str, Any]]:
    """What lm_eval would make of these answers: text, error, scores and counts of each item."""
    for instance, text in zip(task.instances, answers, strict=True):
        instance.resps.append(text)
    task.apply_filters()
    found = []
    for instance, text in zip(task.instances, answers, strict=True):
        digest = json.loads(instance.arguments[0])
        scores = task.process_results(instance.doc, [text])
        kv = {k: v for k, v in (digest.get("kv") or {}).items() if k in SAME}
        found.append({"text": text, "error": digest.get("error"), "scores": scores, "kv": kv})
    return found


def apart(name: str, model: str, setting: str) -> list[dict[str, Any]]:
    """In a child that was forked before any engine, task or request existed: only imports are shared."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lm = engine(name, model)
            task = build(lm, model, setting)
            found = outcome(task, lm.generate_until(task.instances, disable_tqdm=True))
            with os.fdopen(writing, "w") as file:
                json.dump(found, file)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text)


def main(name: str, model: str, *settings: str) -> None:
    if settings[0] == "--apart":
        import lm_eval.evaluator

        import icr_tasks.engines.hf  # noqa: F401

        assert lm_eval.evaluator
        print(json.dumps([apart(name, model, text) for text in settings[1:]]))
        return
    lm = engine(name, model)
    if settings[0] == "--together":
        tasks = [build(lm, model, text) for text in settings[1:]]
        texts = iter(lm.generate_until([r for task in tasks for r in task.instances], disable_tqdm=True))
        found = [outcome(task, [next(texts) for _ in task.instances]) for task in tasks]
    else:
        found = []
        for text in settings:
            task = build(lm, model, text)
            found.append(outcome(task, lm.generate_until(task.instances, disable_tqdm=True)))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
