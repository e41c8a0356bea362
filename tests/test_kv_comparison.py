"""speed/kv_comparison.py: the study it writes and the tables it makes from ledgers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
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
        found = cells.matrix(study.load(kv_comparison.study(tmp_path, engine, "org/model", 8, 4, 24)))
        assert len(found) == settings * 7, "three HELMET data sets under two prompts, and synth"
        assert len({c.load_key for c in found}) == 1, "one engine for all settings"


def test_the_table_has_the_paired_difference_and_the_same_answers(tmp_path: Path) -> None:
    from icr_tasks.engines.hf import IcrHF
    from icr_tasks.harness.run import Cell, evaluate
    from icr_tasks.leaderboard.ledgers.collect import collect

    folder, study = tiny.llama(tmp_path / "model"), tmp_path / "study-icr-hf"
    engine = IcrHF(str(folder), dtype="float32", device="cpu", prefill_store=str(tmp_path / "prefills"))
    for setting in ("full", "kv:snapkv@0.25"):
        evaluate(
            engine,
            Cell(("icr_synth_rag_512",), {"setting": setting}, 3),
            engine="icr-hf",
            model_args={"pretrained": str(folder)},
            gen_kwargs={"max_gen_toks": 4},
            out=study / setting[-2:],
        )
    collect(list(study.iterdir()), study / "results")
    scores, cost = kv_comparison.tables(tmp_path).split("`--model icr-hf`: cost\n\n")
    heads, full, kept = cells(scores)
    assert heads == ["setting", "synth SubEM (N = 3)", "minus full"]
    assert full[0] == "`full`"
    assert kept[2].startswith(("+", "-")), "a paired difference"
    assert "[" in kept[2], "with its interval"
    heads, full, kept = cells(cost)
    assert heads[-1] == "same text as full"
    assert full[1] == full[3] == "100.0%"
    assert kept[:2] == ["`kv:snapkv@0.25`", "25.0%"]
    assert float(kept[2]) == pytest.approx(float(full[2]) / 4, abs=0.1)
    assert kept[-1].endswith("/3")


def cells(markdown: str) -> list[list[str]]:
    """The head and the rows of the only table in this text."""
    rows = [line.strip("| ") for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.split(" | ")] for row in (rows[0], *rows[2:])]


def test_prompts_stay_apart_and_only_what_survives_holm_has_a_star() -> None:
    def rows(right: int, official: int, items: int = 12) -> kv_comparison.Rows:
        made = {}
        for prompt, hits in (("ao", right), ("official", official)):
            for i in range(items):
                score = {"subem": float(i < hits), "f1": float(i < hits) / 2}
                made["icr_helmet_rag_nq_4k", prompt, f"q{i}"] = {"cluster": f"q{i}", "score": score}
        return made

    found = {
        "full": rows(12, 0, 13),
        "kv:steady": rows(0, 0),
        "kv:topk@0.05": rows(8, 0),
        "kv:topk@0.25": rows(12, 0),
    }
    heads, *lines = kv_comparison._scores(found)
    ao, official = heads.index("HELMET `ao` SubEM (N = 12)"), heads.index("HELMET official SubEM (N = 12)")
    shown = {line[0]: line for line in lines}
    assert shown["`full`"][ao].startswith("100.0 ")
    assert shown["`full`"][official].startswith("0.0 ")
    assert shown["`kv:steady`"][ao + 1].startswith("-100.0")
    assert shown["`kv:steady`"][ao + 1].endswith("*")
    assert not shown["`kv:topk@0.05`"][ao + 1].endswith("*"), "4 of 12 lost: p = 1/8"
    assert not shown["`kv:topk@0.25`"][ao + 1].endswith("*")
    assert not any(line[official + 1].endswith("*") for line in lines)
