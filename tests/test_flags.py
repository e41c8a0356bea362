"""Every flag of `lm_eval run` on a task of ours: it works as lm-eval's users expect, or is refused in one line
before a model is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flagkit
import pytest
import tiny
from flagkit import TASK, cli, results, samples

from icr_tasks.errors import IcrError
from icr_tasks.harness import flags

BASE = ("--model", "scripted", "--metadata", "tokenizer=none")
FEW = (*BASE, "--limit", "3")

WORKS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "limit": ((*BASE, "--limit", "2"), {"n": 2}),
    "limit_share": ((*BASE, "--limit", "0.02"), {"n": None}),
    "samples": ((*BASE, "--samples", json.dumps({TASK: [3, 1]})), {"n": 2}),
    "num_fewshot_0": ((*FEW, "--num_fewshot", "0"), {}),
    "system_instruction": ((*FEW, "--system_instruction", "Be brief."), {}),
    "seed": ((*FEW, "--seed", "7"), {}),
    "seeds": ((*FEW, "--seed", "1,None,3,4"), {}),
    "confirm_run_unsafe_code": ((*FEW, "--confirm_run_unsafe_code"), {}),
    "write_out": ((*FEW, "--write_out"), {}),
    "show_config": ((*FEW, "--show_config"), {}),
    "trust_remote_code": ((*FEW, "--trust_remote_code"), {}),
    "batch_size": ((*FEW, "--batch_size", "4"), {}),
    "batch_size_auto": ((*FEW, "--batch_size", "auto"), {}),
    "batch_size_auto_n": ((*FEW, "--batch_size", "auto:4", "--max_batch_size", "8"), {}),
    "device": ((*FEW, "--device", "cpu"), {}),
    "verbosity": ((*FEW, "--verbosity", "ERROR"), {}),
    "max_gen_toks": ((*FEW, "--gen_kwargs", "max_gen_toks=64"), {"gen": {"max_gen_toks": 64}}),
    "max_tokens": ((*FEW, "--gen_kwargs", "max_tokens=64"), {"gen": {"max_gen_toks": 64}}),
    "max_new_tokens": ((*FEW, "--gen_kwargs", "max_new_tokens=64"), {"gen": {"max_gen_toks": 64}}),
    "max_completion_tokens": (
        (*FEW, "--gen_kwargs", "max_completion_tokens=64"),
        {"gen": {"max_gen_toks": 64}},
    ),
    "json_gen_kwargs": (
        (*FEW, "--gen_kwargs", '{"max_tokens": 64, "stop": ["###"]}'),
        {"gen": {"max_gen_toks": 64, "until": ["###"]}},
    ),
    "temperature": (
        (*FEW, "--gen_kwargs", "temperature=0.6,top_p=0.9"),
        {"gen": {"temperature": 0.6, "top_p": 0.9, "do_sample": True}},
    ),
    "several_words": (
        (*FEW, "--gen_kwargs", "temperature=0", "max_gen_toks=32"),
        {"gen": {"do_sample": False, "max_gen_toks": 32}},
    ),
}


@pytest.mark.parametrize("name", WORKS)
def test_it_works(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args, wanted = WORKS[name]
    model = flagkit.model()
    model.calls.clear()
    code, said = cli(capsys, *args, "--log_samples", "--output_path", str(tmp_path))
    assert (code, said) == (0, "")
    found, rows = results(tmp_path), samples(tmp_path)
    assert found["results"][TASK]["subem,none"] == 1.0
    assert len(rows) == wanted["n"] if wanted.get("n") else rows
    assert {k: model.last[0].get(k) for k in wanted.get("gen", {})} == wanted.get("gen", {})
    assert not set(model.last[0]) & {"max_tokens", "max_new_tokens", "max_completion_tokens", "stop"}


def test_samples_carry_their_own_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """lm-eval runs them in the order of the data and labels them in the order given."""
    out = ("--log_samples", "--output_path")
    assert cli(capsys, *BASE, "--limit", "4", *out, str(tmp_path / "all"))[0] == 0
    assert cli(capsys, *BASE, "--samples", json.dumps({TASK: [3, 1]}), *out, str(tmp_path / "two"))[0] == 0
    whole = {row["doc_id"]: row["doc"]["id"] for row in samples(tmp_path / "all")}
    assert {row["doc_id"]: row["doc"]["id"] for row in samples(tmp_path / "two")} == {
        1: whole[1],
        3: whole[3],
    }


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "num_fewshot": ((*FEW, "--num_fewshot", "5"), "--num_fewshot 5"),
    "cache_requests": ((*FEW, "--cache_requests", "true"), "--cache_requests"),
    "check_integrity": ((*FEW, "--check_integrity"), "--check_integrity"),
    "limit_0": ((*BASE, "--limit", "0"), "--limit 0"),
    "limit_negative": ((*BASE, "--limit", "-1"), "--limit -1"),
    "samples_of_no_task": ((*BASE, "--samples", '{"icr_synth_rag_1k": [0]}'), "--samples"),
    "two_lengths": (
        (*FEW, "--gen_kwargs", "max_tokens=64,max_gen_toks=32"),
        "max_gen_toks=32 and max_tokens",
    ),
    "no_length": ((*FEW, "--gen_kwargs", "max_tokens=0"), "max_tokens=0"),
    "half_a_token": ((*FEW, "--gen_kwargs", "max_gen_toks=12.5"), "max_gen_toks=12.5"),
    "max_length": ((*FEW, "--gen_kwargs", "max_length=4096"), "max_gen_toks=N"),
    "several_answers": ((*FEW, "--gen_kwargs", "n=4"), "n=4"),
    "beams": ((*FEW, "--gen_kwargs", "num_beams=4"), "num_beams=4"),
    "warm_but_greedy": ((*FEW, "--gen_kwargs", "do_sample=False,temperature=0.6"), "contradict"),
    "sampling_without_temperature": ((*FEW, "--gen_kwargs", "do_sample=True"), "temperature=0.6"),
    "no_number": ((*FEW, "--gen_kwargs", "temperature=warm"), "temperature=warm"),
    "no_task": ((*FEW, "--tasks", "icr_synth_rga_512"), "'icr_synth_rag_512'"),
    "no_setting": (("--model", "scripted", "--metadata", "setting=rga@4k"), "rag"),
    "no_prompt": (("--model", "scripted", "--metadata", "prompt=aoo"), "'ao'"),
    "both_limits": ((*FEW, "--samples", json.dumps({TASK: [1]})), "--limit must be None"),
    "nowhere_to_log": ((*FEW, "--log_samples"), "--output_path"),
    "multiturn_without_template": ((*FEW, "--fewshot_as_multiturn"), "apply_chat_template"),
    "cached_compression": (
        ("--model", "scripted", "--metadata", "setting=kv:topk@0.05", "--use_cache", "cache"),
        "--use_cache",
    ),
    "cached_failures": (
        (
            *("--model", "icr-api", "--model_args", "model=M,base_url=http://127.0.0.1:9/v1"),
            *("--apply_chat_template", "--use_cache", "cache"),
        ),
        "store=FOLDER",
    ),
    "messages_without_template": (
        ("--model", "local-chat-completions", "--model_args", "model=M,base_url=http://127.0.0.1:9/v1"),
        "--apply_chat_template",
    ),
    "compression_on_a_server": (
        (
            *("--model", "local-completions", "--model_args", "model=M,base_url=http://127.0.0.1:9/v1"),
            *("--metadata", "setting=kv:topk@0.05"),
        ),
        "icr-hf or icr-vllm",
    ),
    "tokens_on_a_chat_server": (
        (
            *("--model", "local-chat-completions", "--apply_chat_template"),
            *("--model_args", "model=M,base_url=http://127.0.0.1:9/v1,truncation_side=left"),
        ),
        "truncation_side",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_a_model_is_loaded(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, named = REFUSED[name]
    model = flagkit.model()
    before = model.loaded
    code, said = cli(capsys, *args)
    assert code == 2 and named in said, said
    assert model.loaded == before


def test_predicted_answers_are_graded_by_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(capsys, *FEW, "--predict_only", "--output_path", str(tmp_path / "one"))[0] == 0
    found = results(tmp_path / "one")["results"][TASK]
    assert "bypass,none" in found and not any("subem" in name for name in found)
    assert [row["filtered_resps"] for row in samples(tmp_path / "one")]
    args = ("--model", "icr-replay", "--model_args", f"samples={tmp_path / 'one'}", "--limit", "3")
    assert cli(capsys, *args, "--log_samples", "--output_path", str(tmp_path / "two"))[0] == 0
    assert results(tmp_path / "two")["results"][TASK]["subem,none"] == 1.0


def test_the_response_cache_tells_settings_and_models_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """rag@4k and full show the same few passages of a short task; their answers are not each other's."""
    model = flagkit.model()

    def calls(metadata: str, *args: str) -> int:
        before = len(model.calls)
        more = ("--limit", "3", "--use_cache", str(tmp_path / "cache"), *args)
        assert cli(capsys, "--model", "scripted", "--metadata", metadata, *more) == (0, "")
        return len(model.calls) - before

    full, gold = "tokenizer=none", "tokenizer=none,setting=kv:native"
    assert calls(full) == 3 and calls(full) == 0
    assert calls(gold) == 3 and calls(gold) == 0 and calls(full) == 0
    assert calls(full, "--model_args", "pretrained=other") == 3 and calls(full) == 0


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lm_eval", "--tasks", TASK, *BASE, "--num_fewshot", "2"])
    from lm_eval.__main__ import cli_evaluate

    for debug in ("", "1"):
        monkeypatch.setenv("ICR_DEBUG", debug)
        with pytest.raises(SystemExit) as ended, flagkit.only_ours():
            cli_evaluate()
        shown = "in before_loading" in capsys.readouterr().err  # a line of the traceback
        assert ended.value.code == 2 and shown is bool(debug)


def test_the_real_command_ends_in_one_line() -> None:
    command = [str(Path(sys.executable).parent / "lm_eval"), "--tasks", TASK, "--model", "dummy"]
    done = subprocess.run(
        [*command, "--num_fewshot", "5"], capture_output=True, text=True, timeout=300, env=os.environ
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("icr: error: --num_fewshot 5"), done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_a_device_among_the_models_arguments_names_the_option(tmp_path: Path) -> None:
    """lm-eval passes its own default device to every engine, so device= there is said twice."""
    command = [str(Path(sys.executable).parent / "lm_eval"), "--tasks", TASK, "--model", "hf"]
    done = subprocess.run(
        [
            *command,
            "--limit",
            "1",
            "--model_args",
            f"pretrained={tiny.llama(tmp_path, hidden=16, layers=1)},device=cpu",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "use --device of the command" in last, done.stderr[-2000:]


def test_what_lm_eval_was_asked_for_still_stands_in_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task is told neither the model's name nor its arguments, cache or template: they are read where lm_eval keeps
    them. This fails when a release keeps them elsewhere."""
    import lm_eval

    from icr_tasks.harness import asked, asking
    from icr_tasks.harness.run import manager

    found: list[asked.Asked] = []
    monkeypatch.setattr(asking, "running", lambda lm=None: found.append(asked.running(lm)) or found[-1])
    flagkit.scripted()
    lm_eval.simple_evaluate(
        model="scripted",
        model_args={"say": "x"},
        tasks=[TASK],
        task_manager=manager({"tokenizer": "none"}),
        limit=1,
        num_fewshot=0,
        gen_kwargs={"max_gen_toks": 8},
        use_cache=str(tmp_path / "cache"),
    )
    read = {
        "model": found[0].engine == "scripted",
        "lm": type(found[0].lm) is flagkit.model(),
        "model_args": dict(found[0].model_args) == {"say": "x"},
        "gen_kwargs": dict(found[0].gen_kwargs) == {"max_gen_toks": 8},
        "use_cache": str(found[0].use_cache).startswith(str(tmp_path)),
        "num_fewshot": found[0].num_fewshot == 0,
        "apply_chat_template": found[0].template is False,
    }
    gone = [name for name, fits in read.items() if not fits]
    assert not gone, (
        f"lm_eval.evaluator.simple_evaluate no longer keeps {', '.join(gone)} in variables of these names: "
        "mend icr_tasks/harness/asked.py"
    )


def test_generation_arguments_have_one_name() -> None:
    for name in flags.LENGTHS:
        assert flags.generation({name: 8}) == {"max_gen_toks": 8}
    assert flags.generation({"stop": "x"}) == flags.generation({"until": ["x"]}) == {"until": ["x"]}
    assert flags.generation({"temperature": 1, "do_sample": "true"})["do_sample"] is True
    assert flags.generation({"max_tokens": "16", "max_gen_toks": 16}) == {"max_gen_toks": 16}
    with pytest.raises(IcrError, match="contradict"):
        flags.generation({"temperature": 0, "do_sample": True})
