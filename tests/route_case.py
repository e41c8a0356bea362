"""Run by test_routes.py in a process of its own (vLLM wants one): a route that sends every item on, beside its two
steps, on one engine. Prints the sample rows of each setting as JSON on the last line.

python route_case.py ENGINE MODEL OUT [STORE]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
TASK, WINDOW = "icr_synth_rag_512", 8192
SETTINGS = ("full", "route:always@1k", "rag@1k")


def engine(name: str, model: str, store: str | None) -> Any:
    if name == "icr-hf":
        from icr_tasks.engines.hf import IcrHF

        return IcrHF(model, dtype="float32", device="cpu", store=store)
    from icr_tasks.engines.vllm import IcrVLLM

    return IcrVLLM(
        model,
        dtype="float32",
        kv="task",
        max_model_len=WINDOW,
        distributed_executor_backend="uni",
        enforce_eager=True,
    )


def main(name: str, model: str, out: str, store: str | None = None) -> None:
    from icr_tasks.context.routes import Route
    from icr_tasks.engines import session
    from icr_tasks.harness import run
    from icr_tasks.registry import ROUTES

    class Always(Route):
        asks = "First look."  # type: ignore[assignment]

        def goes_on(self, answer: str, *, marker: bool) -> bool:
            return True

    lm = engine(name, model, store)
    ROUTES.add("always", Always, retrieves=True)
    found = {}
    for setting in SETTINGS:
        results = run.evaluate(
            lm,
            run.Cell((TASK,), {"setting": setting}, 2),
            engine=name,
            model_args={"pretrained": model, "max_model_len": WINDOW},
            gen_kwargs={"max_gen_toks": 4},
            out=Path(out),
        )
        found[setting] = results["samples"][TASK]
    assert session.engine() is None
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
