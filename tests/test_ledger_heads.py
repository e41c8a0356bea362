"""What is known of a run as a whole: which evaluation speaks for it, and what it says where fields are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.leaderboard.ledgers import collect, lm_eval_files

HASHES = {"doc_hash": "a" * 64, "prompt_hash": "b" * 64, "target_hash": "c" * 64}


def results(sheet: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Results of one task of a model, as lm-eval writes them."""
    config = {"model": "hf", "model_args": {"pretrained": "org/m"}}
    metadata = {"icr": {"metric": "m", "n_expected": 1, **(sheet or {})}}
    return {"configs": {"t": {"metadata": metadata}}, "config": config, **more}


def evaluation(out: Path, stamp: str, found: dict[str, Any], **sent: Any) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"results_{stamp}.json").write_text(json.dumps(found))
    told = {"g": {"arg_0": json.dumps({"icr": 1, **sent}, sort_keys=True)}}
    row = {"doc_id": 0, "arguments": told, "metrics": ["m"], "m": 1, **HASHES}
    for task in found["configs"]:
        (out / f"samples_{task}_{stamp}.jsonl").write_text(json.dumps(row) + "\n")


def head(found: dict[str, Any]) -> dict[str, Any]:
    return collect._head(found, lm_eval_files.identity(found, "t"), "fp")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_the_newest_evaluation_speaks_for_the_run(order: tuple[int, ...], tmp_path: Path) -> None:
    for n in order:
        stamp = f"2026-01-0{n}T00-00-00"
        evaluation(tmp_path / str(order.index(n)), stamp, results(lm_eval_version=f"0.{n}", date=n))
    ((_, run),) = collect.collect([tmp_path / str(n) for n in range(3)], tmp_path / "results")
    assert (run["started"], run["versions"]["lm_eval"]) == (3, "0.3")


@pytest.mark.parametrize("ours", [None, "ours"])
@pytest.mark.parametrize("theirs", [None, "theirs"])
def test_what_either_may_say(ours: str | None, theirs: str | None) -> None:
    """Our own word where there is one, else lm-eval's; nothing where there is neither."""
    versions = {"icr": "1"} | ({"transformers": ours} if ours else {})
    sheet = {"git": ours, "plugins": {"p": ours} if ours else None, "versions": versions}
    found = results(sheet, git_hash=theirs, transformers_version=theirs, lm_eval_version="0.4")
    found["config"] |= {"model_dtype": f"torch.{theirs}" if theirs else None}
    found["config"]["model_args"] |= {
        "dtype": ours,
        "peft": ours,
        "lora_local_path": theirs,
        "revision": ours,
    }
    made = head(found)
    assert made["git"] == (ours or theirs)
    assert made["plugins"] == ({"p": ours} if ours else {})
    assert made["versions"] == {"icr": "1", "lm_eval": "0.4", "transformers": ours or theirs}
    model = made["model"]
    assert (model["dtype"], model["adapter"], model["revision"]) == (theirs or ours, theirs or ours, ours)
    assert made["seconds"] == {"total": 0.0}


def test_settings_and_versions_come_from_a_sheet_that_has_them() -> None:
    """Of several tasks some may be another package's: they know neither."""
    found = results({"versions": {"icr": "2"}, "setting": {"text": "rag@4k", "deployable": True}})
    found["configs"] = {
        "a": {"metadata": {}},
        "b": {"metadata": {"icr": {"versions": {}}}},
        **found["configs"],
    }
    made = head(found)
    assert made["versions"]["icr"] == "2"
    assert made["setting"] == {"text": "rag@4k", "deployable": True}
    assert made["fingerprint_inputs"]["setting"] == {
        "text": "rag@4k"
    }  # what may be deployed decides no answer


def test_who_answered() -> None:
    """The model that was replayed, by any of its names; arguments as a text or as a table."""
    identity = lm_eval_files.identity
    for config, model in (
        ({"model": "hf", "model_args": "pretrained=org/m,,dtype=auto"}, "org/m"),
        ({"model": "api", "model_args": {"model": "served"}}, "served"),
        ({"model": "api", "model_args": {"pretrained": "org/m", "model": "served"}}, "org/m"),
        ({"model": "dummy", "model_args": None}, "dummy"),
        ({}, "unknown"),
        ({"model": "icr-replay", "replayed": {"model": "hf", "model_args": "pretrained=org/m"}}, "org/m"),
    ):
        assert identity({"config": config, "configs": {"t": {}}}, "t")["model"] == model, config
    bare = identity({"configs": {"t": {}}}, "t")
    assert bare["setting"]["kind"] == "full" and bare["gen_kwargs_cli"] == {} and "thinking" not in bare
    for template, sheet, chat in (
        (None, {}, False),
        ("sha", {}, True),
        (None, {"chat": True}, True),
        ("sha", {"chat": False}, False),
        (None, {"chat_template_sha": "own"}, False),
    ):
        found = {"chat_template_sha": template, "configs": {"t": {"metadata": {"icr": sheet}}}}
        made = identity(found, "t")
        assert made["chat"] is chat
        assert made["chat_template_sha"] == (template or sheet.get("chat_template_sha"))


def test_the_texts_around_prompts_do_not_depend_on_the_order_of_keys() -> None:
    one = lm_eval_files.texts_of({"chat_template": "x", "other": "y"}, {"template": {"b": 1, "a": 2}})
    two = lm_eval_files.texts_of({"chat_template": "x"}, {"template": {"a": 2, "b": 1}})
    assert one == two == {"chat_template": "x", "template": '{"a": 2, "b": 1}'}
    assert lm_eval_files.texts_of({"system_instruction": ""}, {"template": {}}) == {}


def test_a_row_with_no_more_than_it_needs_is_one(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"metrics": [], **HASHES}) + "\n")
    ((row, _, used),) = lm_eval_files.rows(path, "t")
    assert (row["item"], row["score"], used) == ("a" * 16, {}, "none")


def test_seconds_and_tokens_are_sums_over_tasks(tmp_path: Path) -> None:
    """Of three tasks from two evaluations, one of which was not timed."""
    two = results(total_evaluation_time_seconds=4)
    two["configs"] = {task: two["configs"]["t"] for task in ("a", "b")}
    timing = {"wall": 1.5, "prefill": 0.25}
    evaluation(tmp_path / "1", "2026-01-01T00-00-00", two, timing=timing, n_prompt_tokens=7)
    evaluation(
        tmp_path / "2", "2026-01-02T00-00-00", results(total_evaluation_time_seconds=3), n_prompt_tokens=5
    )
    ((_, run),) = collect.collect([tmp_path / "1", tmp_path / "2"], tmp_path / "results")
    assert run["seconds"] == {"total": 7.0, "wall": 3.0, "prefill": 0.5}
    assert run["tokens"]["prompt"] == 19
    assert {task: sheet["seconds"] for task, sheet in run["tasks"].items()} == {
        "a": timing,
        "b": timing,
        "t": {},
    }
    for out in ("2", "2", "1"):  # the others are in the ledger, and what is collected again was counted
        ((_, again),) = collect.collect([tmp_path / out], tmp_path / "results")
        assert again["seconds"] == run["seconds"] and again["tokens"] == run["tokens"]
    evaluation(
        tmp_path / "3", "2026-01-03T00-00-00", results(total_evaluation_time_seconds=2), n_prompt_tokens=5
    )
    ((_, later),) = collect.collect([tmp_path / "3"], tmp_path / "results")
    assert later["seconds"] == {
        "total": 9.0,
        "wall": 3.0,
        "prefill": 0.5,
    }  # another evaluation of the same task


def test_what_is_said_of_an_older_result(tmp_path: Path) -> None:
    """Beside a new one, or in the ledger."""
    for n in (1, 2):
        evaluation(tmp_path / "both", f"2026-01-0{n}T00-00-00", results({"n_expected": 3}))
    evaluation(tmp_path / "new", "2026-01-03T00-00-00", results({"n_expected": 3}))
    said: list[str] = []
    rules = collect.Rules(said=said)
    collect.collect([tmp_path / "both"], tmp_path / "results", rules=rules)
    collect.collect([tmp_path / "new"], tmp_path / "results", rules=rules)
    words = [f"1/3 items of 2026-01-0{n}T00-00-00" for n in (1, 2, 3)]
    assert said == [f"t: {words[1]} taken, not the older {words[0]}", f"t: {words[2]} replaces {words[1]}"]
