"""Records as tables write them: whole numbers with a point, empty cells, one question about many documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.training import checks
from icr_tasks.training.data import corpus, read, report, similarity, sources, store
from icr_tasks.training.data.config import config
from icr_tasks.training.export import trl_env
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


CITIES = [
    "北京是中华人民共和国的首都，位于华北平原的北部边缘，人口约两千二百万，是全国的政治与文化中心。",
    "上海是中国最大的城市，位于长江入海口，人口约两千四百万。",
    "广州是广东省的省会，位于珠江三角洲北部，人口约一千八百万。",
]
ZH = [
    ("中华人民共和国的首都是哪里？", "北京"),
    ("中国最大的城市是哪座？", "上海"),
    ("广东省的省会在哪里？", "广州"),
]


def test_scripts_without_blanks_are_read_by_their_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(corpus.passages(CITIES[0], 20, 10))[0] == CITIES[0][:21]  # one of them a mark
    assert "".join(corpus.passages(CITIES[0], 20, 1)) == CITIES[0]
    assert list(corpus.passages("In 北京 live  22 million", 3, 1)) == ["In 北京", "live 22 million"]
    signal = similarity.signal("containment", CITIES[:1], [CITIES[0][4:30], CITIES[1]])
    assert signal[0, 0] == similarity.containment(CITIES[0], CITIES[0][4:30]) == 1.0 and signal[0, 1] < 0.2
    lines = [
        {"question": q, "answers": [a], "evidence": [t], "domain": "geo", "documents": [*CITIES, "短文。"]}
        for (q, a), t in zip(ZH, CITIES, strict=True)
    ]
    path = tmp_path / "zh.jsonl"
    path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in lines), encoding="utf-8")
    options = ["--tokenizer", "words", "--tokens", "400", "--dev", "0", "--top-k", "3"]
    assert main(["train", "data", "--records", str(path), "-o", str(tmp_path / "zh"), *options]) == 0
    assert "1 articles without a passage of 10 words" in capsys.readouterr().out
    rows = list(store.read(tmp_path / "zh" / "train.parquet"))
    hits = {r["id"]: r["pids"][0] for r in store.read(tmp_path / "zh" / "hits.parquet")}
    asked = {r["id"]: r["question"] for r in rows}
    assert {asked[i]: pid for i, pid in hits.items()} == {q: n for n, (q, _) in enumerate(ZH)}
    checks.held(tmp_path / "zh" / "train.parquet")
    assert "answer that no passage holds" not in capsys.readouterr().err
    for row in rows:
        assert report._answers(row, set(row["gold_ids"]))["gold without it"] == 0
        env = trl_env.search_environment("ao")()
        env.reset(**row)
        assert env.search(row["question"]).startswith(f"[DOC {row['gold_ids'][0]}]")
