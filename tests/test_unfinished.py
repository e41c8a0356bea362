"""Unfinished answers from the prediction to lm_eval's numbers, the ledger, the table of `icr collect` and the
notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import newbench
import pytest

from icr_tasks.cli.score import score
from icr_tasks.errors import IcrError
from icr_tasks.harness.run import manager
from icr_tasks.leaderboard.ledgers.unfinished import cut_note, percent, unfinished

TASK = "icr_synth_rag_512"
ANSWERS: list[tuple[Any, str | None, bool]] = [
    ("The answer is: {gold}.", "stop", False),
    ("The answer is: {gold}.", "length", True),
    ("<think>The answer is: {gold}.", None, True),
    (None, None, True),
    ("There is {gold} and", "length", True),
    ("<think>hm</think>The answer is: {gold}.", None, False),
]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    items = manager({}).load([TASK])["tasks"][TASK].items[: len(ANSWERS)]
    path = tmp_path / "p.jsonl"
    rows = [
        {"id": item.id, "prediction": text and text.format(gold=item.answers[0]), "finish_reason": reason}
        for item, (text, reason, _) in zip(items, ANSWERS, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_task_marks_what_was_cut_and_scores_what_was_read(predictions: Path) -> None:
    from icr_tasks.engines.replay import ReplayLM

    task = manager({"samples": str(predictions), "pretrained": "x", "prompt": "id"}).load([TASK])["tasks"][
        TASK
    ]
    task.build_all_requests(limit=len(ANSWERS))
    for request, text in zip(
        task.instances, ReplayLM(str(predictions)).generate_until(task.instances), strict=True
    ):
        request.resps.append(text)
    task.apply_filters()
    rows = [task.process_results(i.doc, [i.filtered_resps["none"]]) for i in task.instances]
    assert [bool(row["unfinished"]) for row in rows] == [cut for *_, cut in ANSWERS]
    assert [row["subem"] for row in rows] == [1, 1, 0, 0, 0, 1]
    assert [row["subem_raw"] for row in rows] == [1, 1, 0, 0, 1, 1]
    assert {"unfinished", "thought_tokens"} <= set(task.aggregation()) and not task.higher_is_better()[
        "unfinished"
    ]
    digests = [json.loads(i.arguments[0]) for i in task.instances]
    assert [bool(d.get("unfinished")) for d in digests] == [cut for *_, cut in ANSWERS]
    assert [d.get("thoughts", 0) for d in digests] == [0, 0, 1, 0, 0, 1]


def test_icr_score_counts_and_names_what_is_no_text(predictions: Path) -> None:
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    for row, odd in zip(rows, (None, 3, ["x"], {"a": 1}, True), strict=False):
        row["prediction"] = odd
    text = "".join(json.dumps(row) + "\n" for row in rows[:-1])
    text += json.dumps({**rows[-1], "prediction": "The answer is: X \ud800"}) + "\n"
    predictions.write_text(text)
    found = score(TASK, predictions, allow_missing=True)
    assert found["unreadable"] == {"null": 1, "number": 1, "list": 1, "object": 1, "true or false": 1}
    assert found["unreadable_ids"]["null"] == [rows[0]["id"]]
    assert found["headline"] == "subem" and found["n"] == 6 and found["metrics"]["unfinished"] < 1


def test_lines_that_are_no_predictions_are_counted_and_named(predictions: Path) -> None:
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    del rows[0]["id"], rows[1]["prediction"], rows[3]["id"]
    rows[2]["id"], rows[4]["id"], rows[5]["finish_reason"] = None, ["a"], ["length"]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(IcrError) as told:
        score(TASK, predictions, allow_missing=True)
    for part in (
        "2 lines without `id` (1, 4)",
        "1 line without `prediction` (or `pred`) (2)",
        "2 lines with an `id` that is neither text nor a whole number (3, 5)",
        "1 line with a `finish_reason` that is no text (6)",
    ):
        assert part in str(told.value)


def test_ten_megabytes_are_one_answer(predictions: Path) -> None:
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    rows[0]["prediction"] = "Answer: " + "x" * 10_000_000
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert score(TASK, predictions, allow_missing=True)["n"] == len(rows)


def test_the_share_and_its_sentence() -> None:
    sheet = {"n_scored": 40, "n_unfinished": 3}
    assert unfinished(sheet) == 0.075 and percent(0.004) == "<1%"
    assert "8% of the answers are unfinished" in str(cut_note(sheet)) and "max_gen_toks" in str(
        cut_note(sheet)
    )
    assert cut_note({"n_scored": 40, "n_unfinished": 2}) is None and cut_note({}) is None
    assert cut_note(sheet, 0.5) is None


@pytest.mark.parametrize(
    ("served", "unfinished"), [({"base_url": "http://127.0.0.1:9/v1/completions"}, 1.0), ({}, 0.0)]
)
def test_an_empty_text_of_a_server_is_a_null_and_never_a_silent_zero(
    served: dict[str, str], unfinished: float
) -> None:
    found = newbench.scores(newbench.task("icr_synth_rag_512", **served), lambda doc: "")
    assert (found["subem"], found["unfinished"]) == (0.0, unfinished)


def test_a_metric_of_which_less_is_better_says_so_to_lm_eval() -> None:
    """A registered one in the YAML, and the headline under its name for other hosts."""
    from icr_tasks.benchmarks import sheets
    from icr_tasks.metrics import scorers

    scorers.metric("harm", higher_is_better=False)(lambda answer, item: 0.0)
    try:
        assert sheets._common(["harm"])["metric_list"][0]["higher_is_better"] is False
    finally:
        scorers.METRICS.known.pop("harm")
    task = newbench.task(TASK)
    assert task.higher_is_better()["score"] is True
    next(m for m in task.config.metric_list if m["metric"] == "subem")["higher_is_better"] = False
    assert task.higher_is_better()["score"] is False
