"""Published numbers reproduced from the models' own predictions (parity level)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from icr_tasks.benchmarks import predictions
from icr_tasks.cli import main
from icr_tasks.cli.score import score
from icr_tasks.errors import IcrError
from icr_tasks.metrics import choice, rouge

# InfiniteBench README (acc_v1, f1, rougeLsum) and the newest scorer (acc), in percent
PUBLISHED = {
    "gpt4": {"acc_v1": 67.25, "acc": 68.12, "f1": 22.44, "rougeLsum": 14.73},
    "chatglm3": {"acc_v1": 10.48, "acc": 12.23, "f1": 3.62},
    "yi-6b-200k": {"acc_v1": 36.68, "acc": 36.68, "f1": 9.20},
    "yarn-mistral": {"acc_v1": 27.95, "acc": 28.82, "f1": 9.55},
}
TASK_OF = {"acc": "mc", "acc_v1": "mc", "f1": "qa", "rougeLsum": "sum"}


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_figures(model: str, shared_data: Path) -> None:
    path = shared_data / "infinitebench_predictions" / "preds_longbook_eng_4_models.jsonl.gz"
    for metric, value in PUBLISHED[model].items():
        result = score(f"icr_infbench_{TASK_OF[metric]}", path, model)
        assert abs(100 * result["metrics"][metric] - value) < 0.0051, (model, metric)


def test_rouge_engines_agree(shared_data: Path) -> None:
    pytest.importorskip("rouge_score_rs")
    path = shared_data / "infinitebench_predictions" / "preds_longbook_eng_4_models.jsonl.gz"
    for row in predictions.read(path, task="icr_infbench_sum", model="gpt4")[:15]:
        assert rouge.score(row.text, row.gold, "rs") == rouge.score(row.text, row.gold, "py")


def test_rouge_variants_differ_where_they_should() -> None:
    one_line = rouge.score("the cats run fast", ["the cat runs fast"])
    assert one_line["rougeL"] == one_line["rougeLsum"] == pytest.approx(0.5)
    assert one_line["rougeL_stem"] == pytest.approx(1.0)
    lines = rouge.score("b c d\na x y", ["a x y\nb c d"])
    assert lines["rougeLsum"] == pytest.approx(1.0) and lines["rougeL"] == pytest.approx(0.5)
    assert rouge.score("", ["text"])["rougeLsum"] == 0.0


@pytest.mark.parametrize(
    ("said", "gold"),
    [("二〇二四年の夏", "二〇二三年の冬"), ("北京 in 夏", "in 北京"), ("カタカナ", "かたかな")],
)
def test_scripts_without_blanks_are_compared_by_character(said: str, gold: str) -> None:
    """F1 of the longest common subsequence of characters, where a Latin word counts as one."""
    one, two = (re.findall(r"[a-z]+|\S", text) for text in (said, gold))
    longest = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(two):
            longest[i + 1][j + 1] = longest[i][j] + 1 if a == b else max(longest[i][j + 1], longest[i + 1][j])
    wanted = 2 * longest[-1][-1] / (len(one) + len(two))
    found = rouge.score(said, [gold])
    assert found["rougeL"] == found["rougeL_stem"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "v1", "newest"),
    [
        ("B", 1, 1),
        ("", 0, 0),
        ("Based on the text", 1, 1),  # the leading letter counts
        ("The answer is: B", 1, 1),
        ("The answer is B, not A", 1, 1),  # the last letter is wrong, the old rules save it
        ("right option", 1, 1),
        ("I think C", 0, 0),
    ],
)
def test_multiple_choice(text: str, v1: int, newest: int) -> None:
    assert (choice.acc_v1(text, "right option", "B"), choice.acc(text, "right option", "B")) == (v1, newest)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is (C).", "C"),
        ("The correct answer is C", "C"),
        ("**The correct answer is (C)**", "C"),
        ("The correct answer is: (C)", None),
        ("the correct answer is (C)", None),
        ("(D)", None),
        ("The correct answer is Denmark", "D"),
    ],
)
def test_longbench_extraction(text: str, letter: str | None) -> None:
    assert choice.letter(text) == letter


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_score_counts_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": i, "prediction": "A", "ground_truth": ["text", "A"]} for i in range(228)]
    preds = _write(tmp_path / "p.jsonl", rows)
    with pytest.raises(IcrError, match="1 missing ids .*--allow-missing"):
        score("icr_infbench_mc", preds)
    assert score("icr_infbench_mc", preds, allow_missing=True)["n_failed"] == 1
    assert main(["score", "--task", "icr_infbench_mc", "--predictions", str(preds)]) == 2
    twice = _write(tmp_path / "d.jsonl", [*rows, rows[0]])
    with pytest.raises(IcrError, match="1 duplicate"):
        score("icr_infbench_mc", twice, allow_missing=True)
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "prediction": "A"\n')
    with pytest.raises(IcrError, match=r"bad.jsonl:1: not valid JSON"):
        score("icr_infbench_mc", tmp_path / "bad.jsonl")
    with pytest.raises(IcrError, match="Did you mean 'icr_infbench_mc'"):
        score("icr_infbench_mcc", preds)
    capsys.readouterr()
    full = _write(tmp_path / "f.jsonl", [*rows, {"id": 228, "pred": "B", "ground_truth": ["text", "A"]}])
    assert main(["score", "--task", "icr_infbench_mc", "--predictions", str(full), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["n"] == 229 and out["metrics"]["acc"] == pytest.approx(228 / 229)
