"""A model's name while the hub does not answer: one sentence at once, and what its cache has is loaded without asking."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import tiny

from icr_tasks import hub
from icr_tasks.cli import main
from icr_tasks.errors import IcrError

NAME, COMMIT = "nosuch/model", "0" * 40
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(params=[False, True], ids=["unreachable", "offline"])
def cut_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What the sentence names; a hub that nobody runs, or that is switched off."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", request.param)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(hub, "_TRIES", 1)
    hub.unanswered.cache_clear()
    yield "HF_HUB_OFFLINE is set" if request.param else "cannot be reached"
    hub.unanswered.cache_clear()


def _tokens() -> Any:
    from icr_tasks.context.tokens import counter

    return counter({"tokenizer": NAME})


def _window() -> Any:
    from icr_tasks.context import window

    return window.find({"pretrained": NAME})


def _embedder(engine: str) -> Any:
    from icr_tasks.context.retrieval import engines

    return engines.load({"engine": engine}, NAME, None)


def _reranker() -> Any:
    from icr_tasks.context.retrieval import rerank

    return rerank._load(NAME, None, "unpinned", None)


def _late() -> Any:
    from icr_tasks.context.retrieval import learned

    return learned._load("SparseEncoder", NAME, None, "unpinned", None)


def _read_by() -> Any:
    from icr_tasks.context.retrieval import reading

    return reading._tokenizer(NAME, 0)


def _attention() -> Any:
    from icr_tasks.ranking import attention

    return attention.load(NAME)


def _extractor() -> Any:
    from icr_tasks.metrics import xfinder_package
    from icr_tasks.metrics.xfinder import XFinderConfig

    return xfinder_package._load(XFinderConfig(NAME, store=None))


def _verl() -> Any:
    from icr_tasks.training.export import verl

    return verl._fitter(NAME, "ao", 100)


def _prepared() -> Any:
    from icr_tasks.training import config, prepare

    asked = config.load("sft_ao.yaml", [f"model={NAME}", "output=nowhere"])
    return prepare.materialise(asked, Path("rows.parquet"), "", 1)


def _loaded_by(name: str) -> Callable[[], Any]:
    def load() -> Any:
        import icr_tasks

        return icr_tasks.evaluate(name, {"pretrained": NAME}, tasks=["icr_synth_rag_512"], limit=1)

    return load


def _command_line() -> Any:
    from icr_tasks.harness import flags
    from icr_tasks.harness.asked import Asked

    return flags.before_loading(
        ["icr_synth_rag_512"], {"pretrained": NAME}, Asked(engine="hf", model_args={"pretrained": NAME}), {}
    )


ASKING: dict[str, Callable[[], Any]] = {
    "lm_eval": _command_line,
    "tokenizer": _tokens,
    "window": _window,
    "embedder": lambda: _embedder("st"),
    "embedder of vLLM": lambda: _embedder("vllm"),
    "embedder's tokenizer": _read_by,
    "reranker": _reranker,
    "sparse": _late,
    "attention": _attention,
    "extractor": _extractor,
    "verl": _verl,
    "training rows": _prepared,
    "judge": lambda: main(["judge", "serve", "--model", NAME]),
    "hf": _loaded_by("hf"),
    "icr-hf": _loaded_by("icr-hf"),
}


@pytest.mark.parametrize("asking", ASKING)
def test_a_name_that_is_nowhere_to_be_had(
    asking: str, cut_off: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", _found(asking))
    if asking == "judge":
        assert ASKING[asking]() in (2, 3)
        said = capsys.readouterr().err
    else:
        with pytest.raises(IcrError) as caught:
            ASKING[asking]()
        assert caught.value.exit_code == (2 if "OFFLINE" in cut_off else 3)
        said = str(caught.value)
    assert NAME in said and cut_off in said and "give a folder" in said
    assert len(said.strip().splitlines()) == 1, said


def _found(asking: str) -> Callable[..., Any]:
    """As find_spec; `icr judge serve` looks for vLLM first, which this is not about."""
    import importlib.util

    real = importlib.util.find_spec
    return lambda name, *more: object() if (asking, name) == ("judge", "vllm") else real(name, *more)


def test_an_embedder_without_files_is_asked_for_none(cut_off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors made earlier are used where neither the model nor a network is at hand."""
    import huggingface_hub

    from icr_tasks.context.retrieval import embedder

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: pytest.fail("asked"))
    embedder._hub.cache_clear()
    assert embedder.Model(NAME).folder is None
    embedder._hub.cache_clear()


@pytest.mark.parametrize("status", [200, 404, 429, 500])
def test_whatever_answers_is_a_hub(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Says(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            return None

    running = HTTPServer(("127.0.0.1", 0), Says)
    Thread(target=running.serve_forever, daemon=True).start()
    assert hub.unanswered(f"http://127.0.0.1:{running.server_port}") is None
    running.shutdown()


def test_folders_and_what_is_no_name_are_left_to_the_library(cut_off: str, tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "none"), "a/b/c", "../up"):
        assert hub.local(name, "model") is False
    hub.engine("dummy", {"pretrained": NAME})
    hub.engine("hf", {"pretrained": str(tmp_path), "tokenizer": None})


def test_the_command_ends_at_once_and_uses_the_hub_s_cache(tmp_path: Path) -> None:
    """`icr prepare` in a process of its own, whose hub client would go on asking for minutes."""
    kept = tmp_path / "hub" / "models--made--model"
    tiny.llama(kept / "snapshots" / COMMIT, hidden=16, layers=1)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(COMMIT)
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    env |= {"HF_ENDPOINT": NOBODY, "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "ours")}
    code = (
        "from icr_tasks.cli import main\n"
        "for name in ('nosuch/model', 'nosuch', 'made/model'):\n"
        "    words = ['prepare', '--tasks', 'icr_synth_rag_512', '--setting', 'rag@1k', '--limit', '1']\n"
        "    print(main([*words, '--workers', '1', '--tokenizer', name]), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=300, env=env
    )
    ends = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert ends == ["3", "3", "0"], done.stdout[-1000:] + done.stderr[-3000:]
    assert "Retry" not in done.stderr and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 2 and all("HF_HOME" in line and NOBODY in line for line in errors), done.stderr
