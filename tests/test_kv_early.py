"""What a model's configuration tells of a setting is said before its weights load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from icr_tasks.errors import IcrError

TASK = "icr_synth_rag_512"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration without weights: 3 layers of 2 KV heads."""
    from transformers import LlamaConfig

    found = tmp_path_factory.mktemp("plain")
    LlamaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=50
    ).save_pretrained(found)
    return found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kv": "duo"}, "needs scores=FILE"),
        ({"kv": "duo", "kv_scores": "absent.tsv"}, "cannot be read"),
        ({"kv": "duo", "kv_scores": "two.tsv"}, "another model: 2 layers of 2 KV heads, this one has 3 of 2"),
        ({"kv": "native"}, "is for models that compress by design"),
        ({"kv": "fp8"}, "is an option of vLLM"),
        ({"kv": "topk", "kv_budget": 0}, r"outside \(0, 1\]"),
        ({"kv": "cluster", "kv_build": "fast", "kv_rounds": 3}, "rounds= does nothing"),
        ({"kv": "press.Nope"}, "unknown kvpress press 'Nope'"),
    ],
)
def test_a_setting_is_refused_before_weights_load(
    folder: Path, given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    from icr_tasks.engines.hf import IcrHF

    (folder / "two.tsv").write_text("1 2\n3 4\n")
    if "kv_scores" in given:
        given = {**given, "kv_scores": str(folder / given["kv_scores"])}
    monkeypatch.setattr(HFLM, "__init__", lambda self, *args, **kwargs: pytest.fail("weights load"))
    monkeypatch.delenv("ICR_KV", raising=False)
    with pytest.raises(IcrError, match=said):
        IcrHF(str(folder), device="cpu", **given)


def test_models_that_hold_nothing_to_choose_from_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import MistralConfig

    from icr_tasks.engines.hf import IcrHF

    MistralConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, sliding_window=64
    ).save_pretrained(tmp_path)
    monkeypatch.setattr(HFLM, "__init__", lambda self, *args, **kwargs: pytest.fail("weights load"))
    with pytest.raises(IcrError, match="none of its layers has full attention"):
        IcrHF(str(tmp_path), device="cpu", kv="topk")


# -- settings of --metadata, as lm_eval's command hands them on ----------------------------------------------


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose layers take turns between windows and full attention."""
    from transformers import Gemma3TextConfig

    found = tmp_path_factory.mktemp("windows")
    Gemma3TextConfig(
        hidden_size=32, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, vocab_size=50
    ).save_pretrained(found)
    return found


def before(engine: str, folder: Path, setting: str, gen: Any = None, task: str = TASK, **args: Any) -> None:
    from icr_tasks.harness import flags
    from icr_tasks.harness.asked import Asked

    args = {"pretrained": str(folder), **args}
    asked = Asked(engine=engine, model_args=args, gen_kwargs=gen or {})
    flags.before_loading([task], {**args, **({"setting": setting} if setting else {})}, asked, {})


@pytest.mark.parametrize("engine", ["icr-hf", "icr-vllm", "hf", "vllm"])
def test_full_attention_is_not_refused(engine: str, folder: Path) -> None:
    for setting in ("full", "none", "rag@512", "gold"):
        before(engine, folder, setting)


@pytest.mark.parametrize(
    "setting",
    [
        *("kv:topk@0.05", "kv:page@4k,dense=2", "kv:snapkv@1k,query-agnostic", "kv:cluster", "kv:kivi"),
        *("kv:kvzip@0.25", "kv:expected@0.5", "kv:topk@1.0,prefill=xattention", "rag@512+kv:steady"),
    ],
)
def test_what_can_run_is_not_refused(setting: str, folder: Path) -> None:
    before("icr-hf", folder, setting)


@pytest.mark.parametrize(
    ("setting", "args", "said"),
    [
        ("kv:duo@0.5", {}, "needs scores=FILE"),
        ("kv:duo@0.5,scores=two.tsv", {}, "another model: 2 layers of 2 KV heads, this one has 3 of 2"),
        ("kv:duo@100,scores=two.tsv", {}, "the share of heads that retrieve"),
        ("kv:kivi@0.5", {}, "takes no budget"),
        ("kv:native", {}, "for models that compress by design"),
        ("kv:page@0.05,dense=3", {}, "dense=3 leaves every one of this model's 3 full-attention layers"),
        ("kv:topk@1.0", {}, "keeps everything, so it measures full attention: .* take setting full"),
        ("rag@512+kv:snapkv@1.0", {}, "keeps everything.*take setting rag@512"),
        ("kv:press.SnapKV@0.5", {}, "kvpress"),
        ("kv:topk@0.05", {"compress_once": True}, "write kv:topk@0.05,query-agnostic"),
        ("kv:topk@0.1,prefill=xattention", {"prefill_chunk": 100}, "not prefill_chunk=100"),
        ("kv:press.SnapKV@0.5,prefill=xattention", {}, "a press runs in its own prefill"),
        ("kv:fp8", {}, "needs the engine's own option"),
        ("full", {"kv_cache_dtype": "fp8"}, "kv_cache_dtype=fp8 is an option of vLLM"),
        ("kv:topk@0.05", {"kv": "page"}, "contradicts --model_args"),
        ("kv:topk@0", {}, r"outside \(0, 1\]"),
        ("kv:snapkv@32", {}, r"keeps fewer tokens than window \(64\)"),
    ],
)
def test_icr_hf_refuses_a_setting_of_the_metadata_before_it_loads(
    folder: Path, setting: str, args: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "two.tsv").write_text("1 2\n3 4\n")
    monkeypatch.chdir(folder)
    with pytest.raises(IcrError, match=said):
        before("icr-hf", folder, setting, **args)
    with pytest.raises(IcrError, match=said):  # the same after the task's name
        before("icr-hf", folder, "", task=f"{TASK}::{setting.replace(',', ';')}", **args)


def test_icr_hf_says_that_it_does_not_sample_before_it_loads(folder: Path) -> None:
    with pytest.raises(IcrError, match="icr-hf decodes greedily"):
        before("icr-hf", folder, "full", gen={"temperature": 0.6})
    before("hf", folder, "full", gen={"temperature": 0.6})


def test_a_cache_type_is_not_dropped_without_a_word(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM

    from icr_tasks.engines.hf import IcrHF

    monkeypatch.setattr(HFLM, "__init__", lambda self, *args, **kwargs: pytest.fail("weights load"))
    with pytest.raises(IcrError, match="kv_cache_dtype=fp8 is an option of vLLM"):
        IcrHF(str(folder), device="cpu", kv_cache_dtype="fp8")


def test_repeating_a_prompt_needs_full_attention_everywhere(windows: Path) -> None:
    before("icr-hf", windows, "kv:topk@0.05")
    before("hf", windows, "kv:native")
    with pytest.raises(IcrError, match="repeats the prompt, which layers without full attention cannot undo"):
        before("icr-hf", windows, "kv:kvzip@0.25")


@pytest.mark.parametrize(
    ("setting", "args", "said"),
    [
        ("kv:topk@0.05", {}, "loaded for full attention and cannot run kv:topk@0.05; load it with kv=task"),
        ("kv:cluster", {"kv": "task"}, "use --model icr-hf"),
        ("kv:topk@0.05,query-agnostic", {"kv": "task"}, "needs --model icr-hf"),
        ("kv:snapkv@0.5", {"kv": "task"}, "needs enable_prefix_caching=False"),
        ("kv:topk@1.0", {"kv": "task"}, "keeps everything"),
        ("kv:native", {}, "for models that compress by design"),
        ("kv:turboquant_4bit_nc", {}, "needs the engine's own option"),
        ("kv:topk@0.05", {"kv": "task", "kv_cache_dtype": "fp8"}, "contradicts kv_cache_dtype=fp8"),
        ("full", {"kv": "task", "kv_cache_dtype": "fp8"}, "does not work with kv_cache_dtype=fp8"),
        ("kv:topk@0.05", {"kv": "task", "pipeline_parallel_size": 2}, "pipeline_parallel_size=2"),
    ],
)
def test_icr_vllm_refuses_before_it_starts(
    folder: Path, setting: str, args: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    monkeypatch.delenv("ICR_KV", raising=False)
    with pytest.raises(IcrError, match=said):
        before("icr-vllm", folder, setting, **args)


def test_layers_that_our_vllm_backend_does_not_take_are_refused_before_it_starts(
    windows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    said = "needs full attention in every layer in vLLM, and gemma3_text has"
    with pytest.raises(IcrError, match=said):
        before("icr-vllm", windows, "kv:topk@0.05", kv="task")
    monkeypatch.setenv("ICR_KV", "topk@0.05")
    with pytest.raises(IcrError, match=said):
        before("vllm", windows, "")


@pytest.mark.parametrize(
    ("variable", "setting", "said"),
    [
        ("task", "kv:topk@0.05", "which --model vllm keeps and reads whole.*unset ICR_KV"),
        ("", "kv:topk@0.05", "or ICR_KV=topk@0.05 with --model vllm"),
        ("snapkv@0.5", "", "needs enable_prefix_caching=False"),
        ("topk@1.0", "", "keeps everything"),
        ("topk@0.05", "kv:page@0.05", "contradicts"),
        ("", "kv:native", "for models that compress by design"),
        ("", "kv:kvzip@0.5", "use --model icr-hf or icr-vllm"),
    ],
)
def test_stock_vllm_refuses_before_it_starts(
    folder: Path, variable: str, setting: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setenv("ICR_KV", variable)
    with pytest.raises(IcrError, match=said):
        before("vllm", folder, setting)


def test_stock_transformers_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ICR_KV", raising=False)
    for setting, args, said in (
        ("kv:native", {}, "for models that compress by design"),
        ("kv:topk@0.05", {}, "which --model hf keeps and reads whole"),
        ("full", {"kv_cache_dtype": "fp8"}, "is an option of vLLM, which --model hf does not have"),
    ):
        with pytest.raises(IcrError, match=said):
            before("hf", folder, setting, **args)


def test_a_sweep_fails_such_cells_and_loads_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from icr_tasks.sweep import cells, records, runner
    from icr_tasks.sweep import study as studies

    args = {"pretrained": str(folder)}
    body = {
        "out": str(tmp_path / "out"),
        "models": [
            {"name": "own", "model": "icr-hf", "model_args": args, "settings": ["kv:native"]},
            {"name": "stock", "model": "hf", "model_args": args, "settings": ["kv:topk@0.05"]},
            {
                "name": "warm",
                "model": "icr-hf",
                "model_args": args,
                "gen_kwargs": {"temperature": 0.5, "do_sample": True},
            },
        ],
        "tasks": [TASK],
        "limit": 2,
    }
    (tmp_path / "study.yaml").write_text(json.dumps(body))
    found = studies.load(tmp_path / "study.yaml")
    monkeypatch.setattr(runner, "Engine", lambda *args: pytest.fail("an engine loads"))
    made = runner.Runner(records.Folder(found.out), cells.matrix(found))
    failed = {name.split(" / ")[0]: why for name, why in made.run().items()}
    assert "compress by design" in failed["own"] and "reads whole" in failed["stock"]
    assert "decodes greedily" in failed["warm"]


def test_evaluate_says_what_cannot_run_before_it_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import icr_tasks as icr
    from icr_tasks import api

    monkeypatch.setattr(api, "_engine", lambda *args: pytest.fail("an engine loads"))
    with pytest.raises(IcrError, match="for models that compress by design"):
        icr.evaluate(
            "icr-hf", {"pretrained": str(folder)}, tasks=[TASK], settings=["kv:native", "kv:topk@1.0"]
        )
    said = "1 of 2 not evaluated: kv:native: .* by design"
    monkeypatch.undo()
    monkeypatch.setattr(api, "_engine", lambda *args: None)
    monkeypatch.setattr("icr_tasks.harness.run.evaluate", lambda *args, **kwargs: {})
    with pytest.raises(icr.EvaluationError, match=said):
        icr.evaluate("icr-hf", {"pretrained": str(folder)}, tasks=[TASK], settings=["full", "kv:native"])


def test_a_budget_above_every_prompt_ends_the_command_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known only once prompts are there: what was measured is saved, and the exit code is not 0."""
    import tiny
    from flagkit import cli

    args = f"pretrained={tiny.llama(tmp_path / 'tiny', layers=1, hidden=32)}"
    code, said = cli(
        capsys,
        *("--model", "icr-hf", "--model_args", args, "--device", "cpu", "--tasks", TASK, "--limit", "2"),
        *("--gen_kwargs", "max_gen_toks=3", "--metadata", '{"setting":"kv:snapkv@100k"}'),
        *("--log_samples", "--output_path", str(tmp_path / "out")),
    )
    assert code == 2 and f"icr: error: {TASK}: no item has a score: no compressed step ran" in said
    assert "2 of 2 prompts are too short" in said
    assert len(list((tmp_path / "out").rglob("samples_*.jsonl"))) == 1
