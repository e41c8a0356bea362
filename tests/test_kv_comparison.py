"""benchmarks/kv_comparison.py: the study it writes and the tables it makes from ledgers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import kv_comparison
import tiny


def test_one_item_a_question_and_a_study_that_parses(replica: Path, tmp_path: Path) -> None:
    from icr_tasks.sweep import cells, study

    kv_comparison.one_a_question(replica, tmp_path)
    (nq,) = (tmp_path / "data/helmet/data/kilt").glob("nq-dev*_k20_*.jsonl")
    rows = [json.loads(line) for line in nq.read_text().splitlines()]
    assert len(rows) == len({r["question"] for r in rows}) > 100
    assert len({r["depth"] for r in rows}) == 6, "the gold's place varies"
    for engine, settings in (("icr-hf", 16), ("icr-vllm", 10)):
        found = cells.matrix(study.load(kv_comparison.study(tmp_path, engine, "org/model", 8, 24)))
        assert len(found) == settings * 4
        assert len({c.load_key for c in found}) == 1, "one engine for all settings"


def test_the_table_has_the_paired_difference_and_the_same_answers(tmp_path: Path) -> None:
    from icr_tasks.leaderboard.collect import collect
    from icr_tasks.models.hf import IcrHF
    from icr_tasks.runs import Cell, evaluate

    folder, study = tiny.llama(tmp_path / "model"), tmp_path / "study-icr-hf"
    engine = IcrHF(str(folder), dtype="float32", device="cpu", prefill_store=str(tmp_path / "prefills"))
    for setting in ("full", "kv:snapkv@0.25"):
        evaluate(
            engine, Cell(("icr_synth_rag_512",), {"setting": setting}, 3), engine="icr-hf",
            model_args={"pretrained": str(folder)}, gen_kwargs={"max_gen_toks": 4}, out=study / setting[-2:],
        )  # fmt: skip
    collect(list(study.iterdir()), study / "results")
    lines = kv_comparison.tables(tmp_path).splitlines()
    full, kept = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[-2:])
    heads = [cell.strip() for cell in lines[2].strip("| ").split(" | ")]
    assert heads[5:] == ["synth SubEM (N = 3)", "minus full", "same text as full"]
    assert full[0] == "`full`"
    assert full[1] == full[3] == "100.0%"
    assert kept[:2] == ["`kv:snapkv@0.25`", "25.0%"]
    assert float(kept[2]) == pytest.approx(float(full[2]) / 4, abs=0.1)
    assert kept[6].startswith(("+", "-")), "a paired difference"
    assert "[" in kept[6], "with its interval"
    assert kept[-1].endswith("/3")
