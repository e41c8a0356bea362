"""`icr prepare` and rag@k through lm_eval's real command line."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_contract import lm_eval, results

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.harness.run import manager

TASK = "icr_synth_rag_1k"


def words(folder: Path) -> str:
    """A tokenizer with one token a word or punctuation mark."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny.tokenizer().save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def build(
    tokenizer: str, setting: str = "rag@1k", task: str = TASK, at: Sequence[int] = range(4), **more: Any
) -> list[dict[str, Any]]:
    """Digests of the items at these places, as a run would make them."""
    metadata = {"setting": setting, "tokenizer": tokenizer, "max_model_len": 100_000, **more}
    found = manager(metadata).load([task])["tasks"][task]
    found.build_all_requests(samples=list(at))
    return [found._built[instance.doc["id"]].digest for instance in found.instances]


def test_prepared_runs_show_the_same_and_retrieve_nothing(
    tokenizer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(tokenizer)
    assert (
        main(["prepare", "--tasks", TASK, "--setting", "rag@1k", "--tokenizer", tokenizer, "--limit", "4"])
        == 0
    )
    *_, line, advice = capsys.readouterr().out.splitlines()
    assert advice == """run it with  --metadata '{"setting":"rag@1k"}'"""
    assert line.startswith(f"| {TASK} | rag@1k | 4 | 5.0 |") and "% (4)" in line
    from icr_tasks.context import retrieve

    monkeypatch.setattr(retrieve, "retrieve", lambda *a, **k: pytest.fail("retrieved again"))
    after = build(tokenizer)
    assert [d["sha256"] for d in before] == [d["sha256"] for d in after]
    assert [d["retrieval"] for d in before] == [d["retrieval"] for d in after]


def test_another_tokenizer_or_data_is_refused_with_the_command(tokenizer: str, tmp_path: Path) -> None:
    assert (
        main(["prepare", "--tasks", TASK, "--setting", "rag@1k", "--tokenizer", tokenizer, "--limit", "2"])
        == 0
    )
    other = tiny.tokenizer()
    other.add_tokens(["bird"])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(IcrError) as refused:
        build(str(tmp_path / "other"))
    assert f"icr prepare --tasks {TASK} --setting rag@1k --tokenizer {tmp_path / 'other'}" in str(
        refused.value
    )
    assert "was prepared for tokenizer" in str(refused.value)
    assert build(
        str(tmp_path / "other"), prepared=False
    )  # retrieving while running is allowed when asked for
    path = next((tmp_path / "cache").rglob("prepared/**/*.json"))
    raw = json.loads(path.read_text())
    raw["head"]["data_revision"] = "1-test-seed9"
    path.write_text(json.dumps(raw))
    with pytest.raises(IcrError, match="was prepared for data 1-test-seed9"):
        build(tokenizer)
    assert build(tokenizer, "rag@2k")  # nothing prepared for this setting


def test_a_damaged_preparation_is_said_and_made_while_running(
    tokenizer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main(["prepare", "--tasks", TASK, "--setting", "rag@1k", "--tokenizer", tokenizer, "--limit", "2"])
    path = next((tmp_path / "cache").rglob("prepared/**/*.json"))
    path.write_bytes(path.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING):
        assert build(tokenizer)[0]["retrieval"]["n_kept"]
    assert "is damaged" in caplog.text


def test_prepare_bad_input(tokenizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = (
        (["--tasks", "icr_synth_rag_1kk", "--setting", "rag@1k"], "Did you mean 'icr_synth_rag_1k'"),
        (["--tasks", TASK, "--setting", "full"], "retrieves nothing"),
        (["--tasks", TASK, "--setting", "rag@8"], "no item has a piece of context that fits"),
        (["--tasks", TASK, "--setting", "rag@512,chunk=1k"], "cannot hold one chunk"),
        (["--tasks", TASK, "--setting", "rag@1k", "--embedder", "/nowhere/at/all"], "no such folder"),
    )
    for args, expected in cases:
        assert main(["prepare", "--tokenizer", tokenizer, "--limit", "2", *args]) == 2
        assert expected in capsys.readouterr().err


def test_rag_512_through_lm_eval(tokenizer: str, tmp_path: Path) -> None:
    metadata = {
        "setting": "rag@512,bm25",
        "tokenizer": words(tmp_path / "words"),
        "max_model_len": 100_000,
        "prompt": "id",
    }
    run = lm_eval(
        "oracle", ("icr_synth_rag_512", "icr_synth_rag_4k"), tmp_path / "out", metadata, "--limit", "6"
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for task in ("icr_synth_rag_512", "icr_synth_rag_4k"):
        assert results(tmp_path / "out")[task]["subem,none"] == 1.0
    path = next((tmp_path / "out").rglob("results_*.json"))
    sheet = json.loads(path.read_text())["configs"]["icr_synth_rag_4k"]["metadata"]["icr"]["setting"]
    assert sheet["text"] == "rag@512" and sheet["params"]["retriever"] == "bm25"
    rows = [json.loads(line) for line in next((tmp_path / "out").rglob("samples_icr_synth_rag_4k*")).open()]
    digests = [json.loads(row["arguments"]["gen_args_0"]["arg_0"]) for row in rows]
    assert all(0 < d["retrieval"]["n_tokens"] <= 512 and d["retrieval"]["n_chunks"] == 24 for d in digests)
    assert len({d["sha256"] for d in digests}) == 6


@pytest.mark.parametrize(
    "task", ["icr_infbench_qa", "icr_longbench_v2", "icr_loong_fin", "icr_helmet_rag_nq_4k"]
)
def test_every_benchmark_on_real_data(
    task: str, tokenizer: str, replica: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    more = {"allow_partial": True, "questions_file": "loong_replica.jsonl", "max_model_len": 300_000}
    chunk = None if "helmet" in task else 2048
    # HELMET asks its 100 questions once before any again at another depth
    digests = build(tokenizer, "rag@8k", task, range(0, 400, 100) if "helmet" in task else range(4), **more)
    for digest in digests:
        found = digest["retrieval"]
        assert (
            found["n_tokens"] <= 8192 and 0 < found["n_kept"] < found["n_chunks"] and not digest["truncated"]
        )
        assert chunk is None or 8192 - found["n_tokens"] < chunk
    # In score order the variants of a question, which differ in the depth of gold, are one prompt.
    assert len({d["sha256"] for d in digests}) == (1 if "helmet" in task else len(digests))


def test_recall_mrr_and_ndcg_at_every_k(tokenizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "prepare",
        "--tasks",
        TASK,
        "--setting",
        "rag@1k,document",
        "--k",
        "600,1k,2k",
        "--tokenizer",
        tokenizer,
    ]
    assert main([*asked, "--limit", "8"]) == 0
    lines = [
        line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {TASK}")
    ]
    overall = {cells[1]: cells for cells in lines if cells[2] == "all"}
    assert list(overall) == ["rag@600,document", "rag@1k,document", "rag@2k,document"]
    values = [[float(cell.split()[0]) for cell in cells[4:]] for cells in overall.values()]
    assert all(0 <= v <= 100 for row in values for v in row) and "[" in overall["rag@1k,document"][4]
    assert values[0][0] <= values[1][0] <= values[2][0]  # recall grows with k
    assert {cells[2] for cells in lines} >= {"all", "kind single", "kind hop"}
    assert main([*asked[:4], "full", *asked[5:], "--limit", "2"]) == 2
    assert "--k is for settings like rag@4k" in capsys.readouterr().err
