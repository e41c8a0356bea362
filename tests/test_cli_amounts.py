"""Numbers on command lines that are none, or no count: a sentence and exit code 2, never a result made of them."""

from __future__ import annotations

import pytest

from icr_tasks.cli import main

PLAN = "plan --tasks icr_synth_rag_512 --settings full "
LINES = [
    (PLAN + "--prefill nan", "'nan' is not a number"), (PLAN + "--prefill 0", "0 is not above 0"),
    (PLAN + "--decode inf", "'inf' is not a number"), (PLAN + "--dollars-per-hour -1", "-1 is below 0"),
    (PLAN + "--price-in nan", "'nan' is not a number"), (PLAN + "--price-out=-2", "-2 is below 0"),
    (PLAN + "--max-model-len 0", "0 is below 1"), (PLAN + "--margin many", "'many' is not a number"),
    (PLAN + "--margin nan", "'nan' is not a number"), (PLAN + "--alpha x", "'x' is not a number"),
    ("sweep s.yaml --rate nan", "'nan' is not a number"), ("sweep s.yaml --jobs 0", "0 is below 1"),
    ("sweep s.yaml --sample -1", "-1 is below 0"), ("agreement f.jsonl --f1-threshold nan", "'nan' is not a number"),
    ("agreement f.jsonl --f1-threshold 50", "50 is not between 0 and 1"), ("agreement f.jsonl --examples -1", "-1 is below 0"),
    ("prepare --tasks t --setting rag@1k --tokenizer x --limit -5", "-5 is below 1"),
    ("rank --model m --tasks t --limit 0", "0 is below 1"), ("rank --model m --tasks t --max-length few", "'few' is not a whole"),
    ("compare a b --limit -1", "-1 is below 0"), ("demo --items 0", "0 is below 1"), ("gate a --baseline b --look 0", "0 is below 1"),
    ("gate a --baseline b --margin-for helmet_rag=x", "'x' is not a number"), ("judge replies --last 0", "0 is below 1"),
    ("publish r --to s --html-items -1", "-1 is below 0"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), LINES)
def test_what_is_no_amount_is_said(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    out = capsys.readouterr()
    assert end.value.code == 2 and said in out.err.splitlines()[-1] and out.out == ""


@pytest.mark.parametrize(
    "line", ["--prefill 2e4 --dollars-per-hour 0", "--margin 2.5 --alpha 0.01 --max-model-len 4096"]
)
def test_what_is_one_is_taken(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main((PLAN + line).split()) == 0 and "tokens" in capsys.readouterr().out
