"""icr export: records of every_eval_ever, Hugging Face result files, parquet and LaTeX say what the board says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import board_tree
import pytest
import yaml
from board_tree import cells, scores, table

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.board.build import Board
from icr_tasks.leaderboard.export._source import Source
from icr_tasks.registry import EXPORTS

# What every_eval_ever 0.3.0 asks of a record: required fields and their types, written from its documentation.
AGGREGATE: dict[str, Any] = {
    "schema_version": str,
    "evaluation_id": str,
    "retrieved_timestamp": str,
    "source_metadata": {"source_type": str, "source_organization_name": str, "evaluator_relationship": str},
    "model_info": {
        "name": str,
        "id": str,
        "additional_details": {"deployment_type": str, "model_availability": str},
    },
    "eval_library": {"name": str, "version": str},
    "evaluation_results": list,
    "detailed_evaluation_results": {"format": str, "file_path": str, "checksum": str, "total_rows": int},
}
RESULT: dict[str, Any] = {
    "evaluation_name": str,
    "source_data": {"dataset_name": str, "source_type": str},
    "metric_config": {"lower_is_better": bool, "score_type": str, "min_score": float, "max_score": float},
    "score_details": {"score": float, "uncertainty": {"num_samples": int}},
    "generation_config": {"generation_args": dict, "additional_details": dict},
}
ITEM: dict[str, Any] = {
    "schema_version": str,
    "evaluation_id": str,
    "model_id": str,
    "evaluation_name": str,
    "sample_id": str,
    "interaction_type": str,
    "input": {"raw": str, "reference": list},
    "output": {"raw": list},
    "answer_attribution": list,
    "evaluation": {"score": float, "is_correct": bool},
    "token_usage": {"input_tokens": int, "output_tokens": int, "total_tokens": int},
}
DETAILS = ("additional_details", "details", "metadata")


def conforms(value: Any, shape: Any, where: str = "") -> None:
    """Every required field is there with its type; every free-form detail is a string."""
    for name, wanted in shape.items():
        assert name in value, f"{where}.{name} is missing"
        if isinstance(wanted, dict):
            conforms(value[name], wanted, f"{where}.{name}")
        else:
            assert type(value[name]) is wanted, f"{where}.{name} is {value[name]!r}"

    def strings(part: Any) -> None:
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            if key in DETAILS:
                assert all(isinstance(v, str) for v in inner.values()), inner
            if isinstance(inner, dict | list):
                strings(inner)

    strings(value)


@pytest.fixture(scope="module")
def records(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eee")
    assert main(["export", "eee", str(tree), "-o", str(out), "--organization", "Lab"]) == 0
    return out


def test_records_conform_and_their_items_belong_to_them(records: Path) -> None:
    paths = sorted(records.rglob("*-*.json"))
    assert len(paths) == 11
    for path in paths:
        body = json.loads(path.read_text())
        conforms(body, AGGREGATE)
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", path.stem)
        owner, name = body["model_info"]["id"].split("/")
        assert path.parent.relative_to(records).parts == ("data", "icr-tasks", owner, name)
        about = body["detailed_evaluation_results"]
        lines = (records / about["file_path"]).read_bytes()
        items = [json.loads(line) for line in lines.splitlines()]
        assert (len(items), hashlib.sha256(lines).hexdigest()) == (about["total_rows"], about["checksum"])
        results = {r["evaluation_result_id"]: r for r in body["evaluation_results"]}
        for result in results.values():
            conforms(result, RESULT)
        for item in items:
            conforms(item, ITEM)
            assert (
                item["evaluation_id"] == body["evaluation_id"]
                and item["model_id"] == body["model_info"]["id"]
            )
        for (
            ident,
            result,
        ) in results.items():  # an aggregate is the mean of its own samples, of no other setting's
            own = [i["evaluation"]["score"] for i in items if i["evaluation_result_id"] == ident]
            assert len(own) == result["score_details"]["uncertainty"]["num_samples"]
            assert sum(own) / len(own) == pytest.approx(result["score_details"]["score"])


def test_the_setting_and_the_clustered_error_are_in_the_record(
    tree: Path, board: Board, records: Path
) -> None:
    found = {}
    for path in records.rglob("*-*.json"):
        for result in json.loads(path.read_text())["evaluation_results"]:
            assert result["evaluation_name"] not in found or "org/base-7b" not in str(path)
            if "base-7b" in str(path):
                found[result["evaluation_name"]] = result
    one = found["icr_helmet_rag_nq_4k::kv:topk@0.05 (ao)"]
    assert one["generation_config"]["additional_details"]["setting"] == "kv:topk@0.05"
    assert one["source_data"]["dataset_name"] == "helmet_rag/nq"
    shown = cells(table(board, "length-helmet_rag-nq"), "org/base-7b", "kv:topk@0.05")["4k"]
    details = one["score_details"]
    interval = details["uncertainty"]["confidence_interval"]
    assert 100 * details["score"] == pytest.approx(shown.value)
    assert (100 * interval["lower"], 100 * interval["upper"]) == pytest.approx((shown.low, shown.high))
    assert details["details"]["clusters"] == "20" and details["uncertainty"]["num_samples"] == 60
    naive = details["uncertainty"]["standard_deviation"] / 60**0.5
    assert details["uncertainty"]["standard_error"]["value"] != pytest.approx(naive, rel=0.01)


def test_exporting_twice_writes_the_same_bytes(tree: Path, records: Path, tmp_path: Path) -> None:
    main(["export", "eee", str(tree), "-o", str(tmp_path), "--organization", "Lab"])
    files = sorted(p.relative_to(records) for p in records.rglob("*.json*"))
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.json*"))
    assert all((records / p).read_bytes() == (tmp_path / p).read_bytes() for p in files)


def test_a_local_model_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board_tree.run(tmp_path / "r", "base", datasets=("nq",))
    for form in ("eee", "hf"):
        assert main(["export", form, str(tmp_path / "r"), "-o", str(tmp_path / form)]) == 2
        assert "give --model base=OWNER/NAME" in capsys.readouterr().err
    command = ["export", "eee", str(tmp_path / "r"), "-o", str(tmp_path / "eee"), "--model", "base=org/base"]
    assert main(command) == 0
    assert len(list((tmp_path / "eee" / "data" / "icr-tasks" / "org" / "base").iterdir())) == 2
    for name in ("a model", "x" * 5000):
        board_tree.run(tmp_path / "odd", name, datasets=("nq",))
    assert main(["export", "eee", str(tmp_path / "odd"), "-o", str(tmp_path / "eee")]) == 2
    said = capsys.readouterr().err
    assert "give --model 'a model'=OWNER/NAME" in said and len(said) < 1000


def test_every_eval_evers_own_validator(records: Path) -> None:
    binary = os.environ.get("EVERY_EVAL_EVER") or shutil.which("every_eval_ever")
    if not binary:
        pytest.skip(
            "every_eval_ever is not installed (it needs Python 3.12; EVERY_EVAL_EVER names its command)"
        )
    done = subprocess.run(
        [binary, "validate", "--format", "json", "data/*/*/*/*"],
        cwd=records,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_hugging_face_results(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "hf", str(tree), "-o", str(tmp_path), "--dataset", "helmet_rag=princeton-nlp/HELMET"]
    assert main([*command, "--url", "https://example.org/board", "--organization", "Lab"]) == 2
    assert "infbench: no data set on the hub; give --dataset infbench=OWNER/NAME" in capsys.readouterr().err
    path = tmp_path / "org" / "base-7b" / ".eval_results" / "icr-helmet_rag-full-ao.yaml"
    entries = yaml.safe_load(path.read_text())
    ids = [e["dataset"]["task_id"] for e in entries]
    assert len(ids) == len(set(ids)) == 6 and "helmet_rag_nq_4k::full" in ids
    one = next(e for e in entries if e["dataset"]["task_id"] == "helmet_rag_nq_4k::full")
    mean = sum(found := scores(tree, "org/base-7b", "full", "icr_helmet_rag_nq_4k").values()) / len(found)
    assert one["value"] == pytest.approx(100 * mean, abs=0.005)
    assert one["dataset"] == {
        "id": "princeton-nlp/HELMET",
        "task_id": "helmet_rag_nq_4k::full",
        "revision": "r1",
    }
    assert one["source"] == {"url": "https://example.org/board", "name": "Lab"}
    assert (
        "setting full" in one["notes"]
        and "95 % interval [" in one["notes"]
        and "60 of 60 items" in one["notes"]
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", one["date"])


def test_parquet(tree: Path, board: Board, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert main(["export", "parquet", str(tree), "-o", str(tmp_path)]) == 0
    items, results = (pandas.read_parquet(tmp_path / f"{name}.parquet") for name in ("items", "results"))
    assert len(items) == board.n_items
    means = items.groupby(["run", "task"])["score"].mean()
    for row in results.dropna(subset=["score"]).itertuples():
        assert means[row.run, row.task] == pytest.approx(row.score)
        assert row.low <= row.score <= row.high and row.n >= row.clusters > 0


def test_latex_is_the_boards(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "latex", str(tree), "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    main(["board", str(tree), "--format", "latex"])
    assert (tmp_path / "board.tex").read_text() == capsys.readouterr().out


def test_an_export_of_ones_own_is_one_function(tree: Path, tmp_path: Path) -> None:
    @EXPORTS.register("labels_of_a_test")
    def labels(source: Source, out: Path) -> list[Path]:
        path = out / "labels.txt"
        path.write_text("".join(f"{run.label}\n" for run in source.runs()), encoding="utf-8")
        return [path]

    try:
        assert main(["export", "labels_of_a_test", str(tree), "-o", str(tmp_path)]) == 0
        assert len((tmp_path / "labels.txt").read_text().splitlines()) == 11
    finally:
        del EXPORTS.known["labels_of_a_test"]


def test_unknown_formats_and_empty_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "eeee", str(tmp_path), "-o", str(tmp_path / "o")]) == 2
    assert "eee" in capsys.readouterr().err
    with pytest.raises(IcrError, match="holds no run.json"):
        list(Source(tmp_path).runs())
    assert main(["export", "hf", str(tmp_path), "-o", str(tmp_path / "o"), "--model", "base"]) == 2
    assert "write NAME=OWNER/NAME" in capsys.readouterr().err


# ---- what runs say of themselves -----------------------------------------------------------------


def _started(value: Any) -> Any:
    def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["started"] = value

    return change


def _hf(root: Path, out: Path) -> dict[str, list[dict[str, Any]]]:
    assert main(["export", "hf", str(root), "-o", str(out), "--dataset", "helmet_rag=org/helmet"]) == 0
    return {p.name: yaml.safe_load(p.read_text()) for p in sorted(out.rglob("*.yaml"))}


def test_a_time_is_read_as_the_board_reads_it_and_none_is_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text was a traceback, and a run without a time began in 1970."""
    board_tree.run(tmp_path / "text", "org/a", datasets=("nq",), change=_started("2026-01-02T03:04:05+00:00"))
    board_tree.run(tmp_path / "none", "org/b", datasets=("nq",), change=_started(None))
    [entries] = _hf(tmp_path / "text", tmp_path / "1").values()
    assert {entry["date"] for entry in entries} == {"2026-01-02"}
    [entries] = _hf(tmp_path / "none", tmp_path / "2").values()
    assert len(entries) == 3 and not any("date" in entry for entry in entries)
    assert main(["export", "eee", str(tmp_path / "text"), "-o", str(tmp_path / "3")]) == 0
    [record] = [p for p in (tmp_path / "3").rglob("*.json")]
    assert json.loads(record.read_text())["evaluation_timestamp"] == "1767323045"
    capsys.readouterr()
    assert main(["export", "eee", str(tmp_path / "none"), "-o", str(tmp_path / "4")]) == 2
    assert "does not say when it began" in capsys.readouterr().err
    assert not list((tmp_path / "4").rglob("*.json"))


def test_two_runs_of_a_setting_have_a_file_each_and_marks_are_said(tmp_path: Path) -> None:
    """Another revision under one name: one file held two values of each task, and nothing told them apart."""

    def marked(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        for sheet in head["tasks"].values():
            sheet["official"] = False

    one = board_tree.run(tmp_path / "r", "org/a", datasets=("nq",), revision="x", change=marked)
    two = board_tree.run(tmp_path / "r", "org/a", datasets=("nq",), revision="y")
    found = _hf(tmp_path / "r", tmp_path / "out")
    assert list(found) == [f"icr-helmet_rag-full-ao-{name}.yaml" for name in sorted([one.name, two.name])]
    for name, entries in found.items():
        ids = [entry["dataset"]["task_id"] for entry in entries]
        assert len(set(ids)) == len(ids) == 3
        assert all(f"run {name[-17:-5]}" in entry["notes"] for entry in entries)
        assert all(("unofficial data" in entry["notes"]) == (one.name in name) for entry in entries)


def test_a_model_called_dots_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board_tree.run(tmp_path / "r", "org/..", datasets=("nq",))
    for form in ("eee", "hf"):
        assert main(["export", form, str(tmp_path / "r"), "-o", str(tmp_path / form)]) == 2
        assert "is no owner/name of a hub" in capsys.readouterr().err


def test_latex_says_what_stands_below_a_table(tmp_path: Path) -> None:
    """How many of the items a limited run has is a note, and a table without it shows them as the whole."""
    for name in ("a", "b"):
        board_tree.run(tmp_path / "r", name, datasets=("nq", "mc"), drop=0.5)
    assert main(["export", "latex", str(tmp_path / "r"), "-o", str(tmp_path)]) == 0
    said = (tmp_path / "board.tex").read_text()
    assert r"\par\footnotesize All rows: 30 of 60 items in each cell of HELMET-RAG; 20 of 40 items of" in said
