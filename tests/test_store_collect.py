"""Answers that survive a kill, ledgers that say what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.cli import main
from icr_tasks.engines.answers import AnswerStore
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.ledgers import ledger
from icr_tasks.leaderboard.ledgers.collect import collect
from icr_tasks.leaderboard.ledgers.summary import table


def test_store_round_trip_and_cut_off_line(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, {"model": "m"})
    key = AnswerStore.key("prompt", {"max_gen_toks": 3})
    assert store.get(key) is None
    store.put(key, {"text": "x"})
    store.close()
    with store.path.open("ab") as file:
        file.write(b'{"key": "cut')  # killed while writing
    again = AnswerStore(tmp_path, {"model": "m"})
    assert again.get(key) == {"key": key, "text": "x"} and again.damaged == 1
    again.put("other", {"text": "y"})
    again.close()
    third = AnswerStore(tmp_path, {"model": "m"})
    assert len(third) == 2 and third.damaged == 1
    assert AnswerStore(tmp_path, {"model": "other"}).get(key) is None


def test_a_line_changed_on_disk_is_no_answer_and_lines_without_a_checksum_are_read(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, {"model": "m"})
    for n in range(3):
        store.put(f"k{n}", {"text": f"answer {n}"})
    store.close()
    lines = store.path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"answer 1", b"answer 7")  # still valid JSON
    lines[2] = b'{"key":"k2","text":"as an older version wrote it"}\n'
    store.path.write_bytes(b"".join(lines))
    again = AnswerStore(tmp_path, {"model": "m"})
    assert again.get("k1") is None and again.damaged == 1
    assert again.get("k0") == {"key": "k0", "text": "answer 0"}
    assert again.get("k2") == {"key": "k2", "text": "as an older version wrote it"}
    again.put("k1", {"text": "made again"})
    again.close()
    assert AnswerStore(tmp_path, {"model": "m"}).get("k1") == {"key": "k1", "text": "made again"}


def test_store_key_depends_on_prompt_and_generation() -> None:
    keys = {AnswerStore.key(p, {"n": n}) for p in ("a", "b") for n in (1, 2)}
    assert len(keys) == 4


def _sample(i: int, subem: float, *, error: str | None = None) -> dict[str, Any]:
    digest = {
        "icr": 1,
        "sha256": f"{i:064x}",
        "n_prompt_tokens": 100 + i,
        "truncated": i == 0,
        "n_gold": 1,
        "gold_kept": 1,
        "error": error,
    }
    metrics = {} if error else {"subem": subem, "out_tokens": 3.0, "truncated": float(i == 0)}
    return {
        "doc_id": i,
        "doc": {"id": f"q{i}", "cluster": f"c{i // 2}", "keys": {"length": "4k", "depth": 0.5}},
        "arguments": {"gen_args_0": {"arg_0": json.dumps(digest, sort_keys=True), "arg_1": {}}},
        "filtered_resps": ["answer"],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": "d" * 64,
        "prompt_hash": "p" * 64,
        "target_hash": "t" * 64,
        **metrics,
    }


def tree(
    folder: Path,
    task: str,
    samples: list[dict[str, Any]],
    *,
    expected: int,
    setting: str = "full",
    stamp: str = "2026-01-01T00-00-00.000001",
    args: dict[str, Any] | None = None,
    dtype: str | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    dataset, length = task.removeprefix("icr_helmet_rag_").split("_")
    sheet = {
        "benchmark": "helmet_rag",
        "dataset": dataset,
        "length": length,
        "metric": "subem",
        "n_expected": expected,
        "setting": {"text": setting, "kind": setting, "method": None, "amount": None, "params": {}},
        "prompt": "ao",
    }
    results = {
        "configs": {task: {"metadata": {"icr": sheet}, "generation_kwargs": {"max_gen_toks": 8}}},
        "config": {
            "model": "vllm",
            "model_args": {"pretrained": "org/model", **(args or {})},
            "gen_kwargs": None,
            **({"model_dtype": dtype} if dtype else {}),
        },
        "versions": {task: "1-A"},
        "n-samples": {task: {"original": expected, "effective": len(samples)}},
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(results))
    (folder / f"samples_{task}_{stamp}.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))


@pytest.mark.parametrize(
    ("loaded", "asked", "named"),
    [
        ("torch.bfloat16", None, "bfloat16"),  # the checkpoint's own
        ("torch.float16", "auto", "float16"),
        (None, "half", "float16"),
        (None, "auto", None),
        (None, None, None),
    ],
)
def test_the_dtype_that_was_loaded_is_in_the_run(
    tmp_path: Path, loaded: str | None, asked: str | None, named: str | None
) -> None:
    args = {"dtype": asked} if asked else None
    rows = [_sample(i, 1) for i in range(4)]
    tree(tmp_path / "out", "icr_helmet_rag_nq_4k", rows, expected=4, args=args, dtype=loaded)
    [(_, run)] = collect([tmp_path / "out"], tmp_path / "results")
    assert run["model"]["dtype"] == named


def test_collect_writes_the_contract(tmp_path: Path) -> None:
    tree(tmp_path / "out", "icr_helmet_rag_nq_4k", [_sample(i, i % 2) for i in range(4)], expected=4)
    [(folder, run)] = collect([tmp_path / "out"], tmp_path / "results")
    assert (
        folder.relative_to(tmp_path / "results").parts[:2] == ("org_model", "full")
        and folder.name == run["fingerprint"]
    )
    stored = json.loads((folder / "run.json").read_text())
    assert stored["status"] == "complete" and stored["tokens"] == {"prompt": 406, "output": 12}
    task = stored["tasks"]["icr_helmet_rag_nq_4k"]
    assert (task["n_expected"], task["n_scored"], task["n_failed"], task["n_truncated"]) == (4, 4, 0, 1)
    rows = list(ledger.items(folder))
    assert rows[1] == {
        "task": "icr_helmet_rag_nq_4k",
        "item": "q1",
        "occ": 0,
        "cluster": "c0",
        "keys": {"length": "4k", "depth": 0.5},
        "score": {"subem": 1},
        "n_prompt_tokens": 101,
        "n_out_tokens": 3,
        "truncated": False,
        "unfinished": False,
        "gold_kept": [1, 1],
        "resp_hash": rows[0]["resp_hash"],
        "prompt_hash": "0" * 16,
        "target_hash": "t" * 16,
        "error": None,
    }
    before = (folder / "items.jsonl.gz").read_bytes()
    collect([tmp_path / "out"], tmp_path / "results")
    assert (folder / "items.jsonl.gz").read_bytes() == before
    assert [f for f, _ in ledger.runs(tmp_path / "results")] == [folder]


def test_a_gap_makes_the_average_a_dash(tmp_path: Path) -> None:
    tree(tmp_path / "out", "icr_helmet_rag_nq_4k", [_sample(i, 1) for i in range(4)], expected=4)
    tree(
        tmp_path / "out",
        "icr_helmet_rag_nq_8k",
        [_sample(0, 1), _sample(1, 0, error="too long")],
        expected=4,
        stamp="2026-01-01T00-00-01",
    )
    runs = collect([tmp_path / "out"], tmp_path / "results")
    assert len(runs) == 1  # two calls, one run
    text = table(runs)
    assert "| full | 100.0 [34.2, 100.0] (4/4; 25% cut) | 100.0 (1/4; 50% cut) | – |" in text
    assert runs[0][1]["tasks"]["icr_helmet_rag_nq_8k"]["n_failed"] == 1 and runs[0][1]["status"] == "partial"


def test_newest_result_of_a_task_wins_and_settings_stay_apart(tmp_path: Path) -> None:
    name = "icr_helmet_rag_nq_4k"
    tree(tmp_path / "out", name, [_sample(0, 0)], expected=1)
    tree(tmp_path / "out", name, [_sample(0, 1)], expected=1, stamp="2026-02-01T00-00-00")
    tree(tmp_path / "out", name, [_sample(0, 1)], expected=1, stamp="2026-02-02T00-00-00", setting="none")
    tree(
        tmp_path / "out",
        name,
        [_sample(0, 1)],
        expected=1,
        stamp="2026-02-03T00-00-00",
        args={"dtype": "float16"},
    )
    tree(
        tmp_path / "out",
        name,
        [_sample(0, 1)],
        expected=1,
        stamp="2026-02-04T00-00-00",
        args={"max_num_seqs": 4},
    )
    runs = collect([tmp_path / "out"], tmp_path / "results")
    assert len(runs) == 3  # full, none, full in another dtype; what only changes speed is the same run
    assert all(run["tasks"][name]["means"]["subem"] == 1 for _, run in runs)


def test_broken_files_name_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "icr_helmet_rag_nq_4k"
    tree(tmp_path / "cut", name, [_sample(0, 1)], expected=1)
    path = next((tmp_path / "cut").glob("samples_*"))
    path.write_text(path.read_text() + '{"doc_id": 1, "doc"')
    assert main(["collect", str(tmp_path / "cut"), "-o", str(tmp_path / "r")]) == 2
    assert f"{path.name}:2: not valid JSON" in capsys.readouterr().err
    assert not list((tmp_path / "r").rglob("*.json*"))
    tree(tmp_path / "two", name, [_sample(0, 1), {**_sample(1, 1), "filter": "other"}], expected=1)
    with pytest.raises(IcrError, match="two filters"):
        collect([tmp_path / "two"], tmp_path / "r")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IcrError, match="no results_"):
        collect([tmp_path / "empty"], tmp_path / "r")
