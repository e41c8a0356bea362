"""Records as tables write them: whole numbers with a point, empty cells, one question about many documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
from icr_tasks.errors import IcrError
from icr_tasks.training.data import read, sources, store
from icr_tasks.training.data.config import config
from icr_tasks.training.rewards import Row, score

NAN = float("nan")
ONE: dict[str, Any] = {"question": "When?", "answer": "1889", "evidence": ["It opened in 1889."]}


def row(**changes: Any) -> dict[str, Any]:
    made, why = sources.plain(ONE | changes)
    assert made is not None, why
    return made


def test_a_whole_number_of_a_table_is_its_digits() -> None:
    assert row(answer=1889.0)["answers"] == ["1889"] and row(answer=[2.5, 3])["answers"] == ["2.5", "3"]
    assert row(id=7.0)["id"] == "7"


def test_an_empty_cell_is_null_not_the_word_nan() -> None:
    assert sources.plain(ONE | {"question": NAN}) == (None, "dropped: no question")
    assert sources.plain(ONE | {"answer": NAN}) == (None, "dropped: no answer")
    assert sources.plain(ONE | {"evidence": NAN}) == (None, "dropped: no evidence")
    made = row(id=NAN, domain=NAN, dataset=NAN, evidence=[NAN, {"title": NAN, "text": "In 1889."}])
    assert made["domain"] == made["dataset"] == "records" and made["gold_titles"] == [""]
    assert made["id"] == row(evidence=["In 1889."])["id"] and "nan" not in made["id"]
    with pytest.raises(IcrError, match="neither text nor number"):
        row(answer=True)


def test_an_answer_of_two_lines_can_be_earned() -> None:
    said = row(answers=["Revenue grew.\nMargins fell."])["answers"]
    assert said == ["Revenue grew. Margins fell."]
    assert score("ao", [f"Answer: {said[0]}"], [Row(answers=tuple(said))])[0]["reward"] == 1.0


def test_one_question_about_many_documents_keeps_them_all(tmp_path: Path) -> None:
    law = [
        {"question": "Which law governs?", "answers": [s], "evidence": [f"The laws of {s} govern."]}
        for s in ("Delaware", "Texas", "Ohio")
    ]
    (tmp_path / "law.json").write_text(json.dumps([*law, law[0]]))
    counts = read.run(config({"records": str(tmp_path / "law.json")}), tmp_path)
    assert counts["records kept"] == 3 and counts["records dropped: duplicate id"] == 1
    assert len({r["id"] for r in store.read(tmp_path / read.OUTPUT)}) == 3
