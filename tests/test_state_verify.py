"""What ran is compared with what was asked for, in both directions and by its effect: never a score for
another setting than the one that is recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from test_kv_vllm_task import _model as kv_vllm_model  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.harness.options import Options  # noqa: E402
from icr_tasks.kv import choose  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

INERT = "kv:topk@0.5,window=8000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide weights make attention matter, so that settings give different answers."""
    return kv_vllm_model(tmp_path_factory.mktemp("llama"))


def lm(folder: Path, **args: Any) -> Any:
    from icr_tasks.engines.hf import IcrHF

    return IcrHF(str(folder), dtype="float32", device="cpu", **args)


def evaluate(engine: Any, setting: str | None) -> Any:
    """Errors of two items, and the scores, through lm_eval.simple_evaluate."""
    import lm_eval

    from icr_tasks.harness.run import manager

    metadata = {} if setting is None else {"setting": setting}
    found = lm_eval.simple_evaluate(
        model=engine,
        tasks=["icr_synth_rag_512"],
        task_manager=manager({**metadata, "tokenizer": "none"}),
        limit=2,
        gen_kwargs={"max_gen_toks": 5},
        bootstrap_iters=0,
    )
    samples = found["samples"]["icr_synth_rag_512"]
    digests = [json.loads(s["arguments"][0][0]) for s in samples]
    return [d.get("error") for d in digests], [s["filtered_resps"] for s in samples]


def test_an_error_of_an_earlier_run_does_not_reach_a_later_one(folder: Path) -> None:
    engine = lm(folder)
    first = evaluate(engine, "full")
    assert all("no compressed step" in error for error in evaluate(engine, INERT)[0])
    assert evaluate(engine, "full") == first
    assert first[0] == [None, None]


def test_lm_evals_own_cache_hides_no_setting(folder: Path, tmp_path: Path) -> None:
    """Requests pass through lm_eval's CachingLM with what they carry; what it answers itself nobody
    measured."""
    from lm_eval.api.model import CachingLM

    setting = "kv:topk@0.05,window=16"
    engine = lm(folder)
    cached = CachingLM(engine, str(tmp_path / "cache.db"))
    new, again = request(setting), request(setting)
    answers = cached.generate_until([new, new])  # a repeated request is one object, sent twice
    assert answers == engine.generate_until([request(setting)] * 2, disable_tqdm=True)
    assert "error" not in choose.verify_all(Setting.parse(setting), [new.found])[0]
    assert cached.generate_until([again]) == answers[:1]
    assert (
        "answers that --use_cache kept are not measured"
        in choose.verify(Setting.parse(setting), again.found)["error"]
    )


def test_one_compressed_cell_does_not_vouch_for_an_inert_one(folder: Path, tmp_path: Path) -> None:
    import yaml

    from icr_tasks.cli import main

    study = {
        "out": str(tmp_path / "study"),
        "settings": ["kv:topk@0.5", INERT, "full"],
        "gen_kwargs": {"max_gen_toks": 5},
        "tasks": [{"task": "icr_synth_rag_512", "limit": 2}],
        "models": [
            {
                "name": "h",
                "model": "icr-hf",
                "model_args": {"pretrained": str(folder), "device": "cpu", "dtype": "float32"},
            }
        ],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert main(["sweep", str(tmp_path / "study.yaml")]) == 1
    runs = [json.loads(p.read_text()) for p in (tmp_path / "study" / "results").glob("*/*/*/run.json")]
    scored = {run["setting"]["text"]: run["tasks"]["icr_synth_rag_512"]["n_scored"] for run in runs}
    assert scored == {"kv:topk@0.5": 2, INERT: 0, "full": 2}


@pytest.mark.parametrize("setting", ["full", "none", "rag@256"])
def test_a_leftover_icr_kv_is_refused_before_generation(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_KV", "topk@0.02,sink=2,window=8")
    with pytest.raises(IcrError, match=f"setting {setting}.* was asked for, but ICR_KV=topk@0.02"):
        Options.parse({"setting": setting})
    assert str(Options.parse({}).setting) == "kv:topk@0.02,sink=2,window=8", (
        "without a setting it chooses one"
    )
    assert str(Options.parse({"setting": setting, "kv": "full"}).setting).startswith(setting)


@pytest.mark.parametrize("text", ["full", "none", "gold", "rag@4k"])
@pytest.mark.parametrize(
    ("kv", "said"),
    [
        ({"setting": "kv:topk@0.02", "steps": 3, "sparse_steps": 3}, "the engine ran kv:topk@0.02, not"),
        ({"setting": "full", "steps": 3, "sparse_steps": 2}, "left keys out in 2 steps"),
        ({"setting": "full", "steps": 3, "sparse_steps": 0}, None),
    ],
)
def test_verify_looks_in_both_directions(text: str, kv: dict[str, Any], said: str | None) -> None:
    found = choose.verify(Setting.parse(text), {"kv": kv})
    assert said in found["error"] if said else "error" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("full", "ran kv:fp8, not full"),
        ("rag@4k", None),
        ("kv:fp8", None),
        ("rag@4k+kv:fp8", None),
        ("kv:nvfp4", "ran kv:fp8, not kv:nvfp4"),
    ],
)
def test_a_cache_of_another_type(text: str, said: str | None) -> None:
    found = choose.verify(Setting.parse(text), {"kv": {"setting": "kv:fp8"}})
    assert said in found["error"] if said else "error" not in found


def test_stock_vllm_counts_a_run_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.kv.vllm import counters

    monkeypatch.setenv("ICR_KV", "topk@0.02")
    monkeypatch.setenv(counters.VARIABLE, str(file := counters.new()))
    asked, full = Setting.parse("kv:topk@0.02"), Setting.parse("full")
    counters.Counters(file).add(
        steps=9, sparse_steps=9, bytes_read=1, bytes_full=9, tokens_read=1, tokens_full=9
    )
    before = choose.counted()
    assert "ran full, not kv:topk@0.02" in choose.verify_all(asked, [{}], before)[0]["error"], (
        "an earlier run's steps"
    )
    counters.Counters(file).add(
        steps=4, sparse_steps=4, bytes_read=1, bytes_full=4, tokens_read=2, tokens_full=4
    )
    (ran,) = choose.verify_all(asked, [{}], before)
    assert ran == {"kv": {"setting": "kv:topk@0.02", "scope": "run", "fallback": False}}, (
        "nothing that is an item's"
    )
    assert choose.run_shares(before) == {
        "read_fraction": 0.25,
        "attended_fraction": 0.5,
        "stored_fraction": 1.0,
    }
    assert "the engine ran kv:topk@0.02, not full" in choose.verify_all(full, [{}], before)[0]["error"]
    file.unlink()


def test_the_run_holds_what_stock_vllm_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From workers that count a run (ICR_KV and `--model vllm`) to run.json; the items hold the setting
    alone."""
    from sweep_models import Counting

    from icr_tasks.harness.run import Cell
    from icr_tasks.harness.run import evaluate as run_cell
    from icr_tasks.kv.vllm import counters
    from icr_tasks.leaderboard.ledgers import ledger
    from icr_tasks.leaderboard.ledgers.collect import collect

    class Stock(Counting):
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            count = {"bytes_read": 1, "bytes_full": 4, "tokens_read": 2, "tokens_full": 4}
            counters.Counters(file).add(steps=3, sparse_steps=3, **count)
            return super().generate_until(requests)

    monkeypatch.setenv("ICR_KV", "topk@0.02")
    monkeypatch.setenv(counters.VARIABLE, str(file := counters.new()))
    cell = Cell(("icr_synth_rag_512",), {"tokenizer": "none"}, 2)
    run_cell(Stock(), cell, engine="vllm", model_args={}, gen_kwargs={}, out=tmp_path / "out")
    ((where, run),) = collect([tmp_path / "out"], tmp_path / "results")
    assert run["setting"]["text"] == "kv:topk@0.02"
    assert (run["kv"]["read_fraction"], run["kv"]["attended_fraction"]) == (0.25, 0.5)
    assert [row["kv"] for row in ledger.items(where)] == [
        {"setting": "kv:topk@0.02", "scope": "run", "fallback": False}
    ] * 2
    file.unlink()


def request(setting: str, text: str = "The river Ilessdell runs through Dorovgate. " * 6) -> Any:
    from icr_tasks.harness.instance import PromptInstance

    gen = {"until": [], "do_sample": False, "max_gen_toks": 6}
    return PromptInstance(
        doc={},
        prompt=text,
        gen_kwargs=gen,
        digest="{}",
        task="t",
        doc_id=0,
        repeats=1,
        setting=Setting.parse(setting),
    )


def checked(engine: Any, setting: str) -> dict[str, Any]:
    asked = request(setting)
    engine.generate_until([asked], disable_tqdm=True)
    return choose.verify_all(Setting.parse(setting), [asked.found])[0]


@pytest.mark.parametrize("setting", ["kv:topk@0.05,window=16", "kv:page@0.05,window=16"])
def test_an_attention_that_was_patched_away_is_an_error(folder: Path, setting: str) -> None:
    engine = lm(folder)
    assert "error" not in checked(engine, setting)
    engine.model.set_attn_implementation("sdpa")
    assert "left no key out in any of 5 steps" in checked(engine, setting)["error"]


def test_a_budget_that_keeps_everything_is_no_compression(folder: Path) -> None:
    assert "no compressed step ran under kv:topk@1.0" in checked(lm(folder), "kv:topk@1.0")["error"]


def test_an_engine_does_not_run_another_setting_than_it_was_loaded_for(folder: Path) -> None:
    engine = lm(folder, kv="topk")
    for setting in ("full", "none", "rag@256", "kv:page@0.05"):
        with pytest.raises(IcrError, match="contradicts the engine's own .kv:topk@0.05"):
            engine.generate_until([request(setting)], disable_tqdm=True)
    assert lm(folder, kv="full").generate_until([request("none")], disable_tqdm=True)
    asked = [request("kv:fp8"), request("full")]  # in one call
    answers = lm(folder).generate_until(asked, disable_tqdm=True)
    assert answers[0] == "" and "is an option of vLLM" in asked[0].found["error"], "one of them fails alone"
    assert answers[1] and "error" not in asked[1].found


# -- presses: a stand-in with the shape of kvpress -----------------------------------------------------------


class _Press:
    """Hides the first half of the keys of every head, or nothing."""

    def __init__(self, compression_ratio: float = 0.5, hides: bool = True) -> None:
        self.hides = hides

    def __call__(self, model: Any) -> Any:
        from contextlib import ExitStack

        stack = ExitStack()
        for layer in model.model.layers if self.hides else ():
            stack.callback(layer.self_attn.register_forward_hook(self._hide, with_kwargs=True).remove)
        return stack

    @staticmethod
    def _hide(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        n = kwargs["hidden_states"].shape[1] if "hidden_states" in kwargs else args[0].shape[1]
        heads, at = torch.meshgrid(torch.arange(2), torch.arange(n // 2), indexing="ij")
        module.masked_key_indices = (
            torch.zeros(heads.numel(), dtype=torch.long),
            heads.flatten(),
            at.flatten(),
        )


def _attention_patch(function: Any) -> Any:
    def patched(module: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        places = getattr(module, "masked_key_indices", None)
        if query.shape[2] == key.shape[2]:
            module.masked_key_indices = None
        elif places is not None:
            grouped = query[0, :, 0].view(key.shape[1], -1, query.shape[-1])
            away = torch.linalg.pinv(grouped) @ torch.full((*grouped.shape[:2], 1), -1e5)
            key = key.clone()
            key[places] = away[places[1], :, 0]
        return function(module, query, key, *args, **kwargs)

    return patched


@pytest.fixture
def kvpress(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from icr_tasks.kv import press
    from icr_tasks.kv.hf.attention import NAME

    package = ModuleType("kvpress")
    package.SnapKVPress = lambda compression_ratio: _Press(hides=False)
    package.AdaKVPress = lambda inner: _Press()
    monkeypatch.setitem(sys.modules, "kvpress", package)
    monkeypatch.setattr(press, "_NEWEST", (99, 0))
    yield package
    ALL_ATTENTION_FUNCTIONS._local_mapping.pop(NAME, None)


def test_a_press_whose_masks_are_ignored_is_an_error(folder: Path, kvpress: ModuleType) -> None:
    """kvpress was imported before the engine: its masks never reach our attention."""
    assert "left no key out in any of 5 steps" in checked(lm(folder), "kv:press.AdaKV@0.5")["error"]


def test_a_press_that_keeps_everything_is_an_error(folder: Path, kvpress: ModuleType) -> None:
    assert "left no key out in any of 5 steps" in checked(lm(folder), "kv:press.SnapKV@0.5")["error"]


def test_masks_reach_our_attention_whatever_was_imported_first(
    folder: Path, kvpress: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patch = ModuleType("kvpress.attention_patch")
    patch.attention_patch = _attention_patch
    monkeypatch.setitem(sys.modules, "kvpress.attention_patch", patch)
    engine = lm(
        folder, prefill_store=str(tmp_path)
    )  # `full` takes its prefill from there, which clears no mask
    checked(engine, "full")
    found = checked(engine, "kv:press.AdaKV@0.5")
    assert "error" not in found
    assert found["kv"]["sparse_steps"] == found["kv"]["steps"] == 5
    assert found["kv"]["attended_fraction"] == pytest.approx(0.5, abs=0.02), "half of the prompt was hidden"
    assert found["kv"]["read_fraction"] == 1, "a mask saves no byte"
    assert "error" not in checked(engine, "full"), "the masks do not outlive their request"
    assert "error" not in checked(engine, "kv:topk@0.05,window=16")
