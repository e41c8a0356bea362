"""One answer to "may these be compared?": the table of axes, and that board, gate, compare and check
agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gatekit
import pytest

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.ledgers.dtypes import dtype_name
from icr_tasks.leaderboard.ledgers.load import load_run
from icr_tasks.leaderboard.pairs import axes
from icr_tasks.leaderboard.pairs.axes import CHECKPOINT, MODEL, SETTING, WORDS, Identity, comparable
from icr_tasks.leaderboard.pairs.joined import pair

ONE = Identity(
    task="t",
    benchmark="b",
    dataset="b/d",
    length="4k",
    metric="m",
    metric_version=1,
    data_revision="r",
    judge="j",
    filter="none",
    task_version="1",
    prompt="ao",
    instruction="i",
    setting="full",
    template="x",
    dtype="bfloat16",
    shots="0",
    clusters=1,
    context=2,
    truncation=3,
)
OTHER = {name: 9 if isinstance(getattr(ONE, name), int) else "other" for name in WORDS}
ALWAYS = set(WORDS) - {"setting", "context", "truncation", "template", "dtype", "thinking"}
REFUSED = {
    CHECKPOINT: set(WORDS),
    SETTING: ALWAYS | {"template", "dtype", "thinking"},
    MODEL: ALWAYS | {"setting"},
}


@pytest.mark.parametrize("axis", list(REFUSED))
@pytest.mark.parametrize("field", list(WORDS))
def test_the_table_of_axes(axis: str, field: str) -> None:
    other = replace(ONE, **{field: OTHER[field]})
    found = [r.check for r in comparable(ONE, other, axis)]
    assert found == ([field] if field in REFUSED[axis] else [])
    assert bool(axes.noted(ONE, other, axis)) == (field not in REFUSED[axis])
    assert comparable(other, ONE, axis)[:1] == [] or field in REFUSED[axis]  # both ways alike


def test_what_old_ledgers_do_not_know_is_not_compared() -> None:
    old = replace(
        ONE,
        shots=None,
        instruction=None,
        template=None,
        dtype=None,
        clusters=None,
        context=None,
        truncation=None,
    )
    assert not comparable(ONE, old, CHECKPOINT) and not comparable(old, ONE, CHECKPOINT)
    assert [r.check for r in comparable(ONE, replace(ONE, judge=None), MODEL)] == ["judge"]
    with pytest.raises(IcrError, match="axis 'modl'.*model"):
        comparable(ONE, ONE, "modl")


def test_waivers_name_what_they_waive() -> None:
    other = replace(ONE, context=9, dtype="float16")
    assert [r.check for r in comparable(ONE, other, CHECKPOINT, ["prompts"])] == ["dtype"]
    assert not comparable(ONE, other, CHECKPOINT, ["prompts", "dtype"])
    for same in ("torch.bfloat16", "bf16", "auto", None):  # as older ledgers have it, or not at all
        assert dtype_name(same) in (ONE.dtype, None)


def _rows(edit: Callable[[dict[str, Any], int], None] | None = None, seed: int = 1) -> gatekit.Rows:
    rows = gatekit.rows(seed=seed)
    for listed in rows.values():
        for at, row in enumerate(listed):
            if edit:
                edit(row, at)
    return rows


def _sheets(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda run: [sheet.update(values) for sheet in run["tasks"].values()]  # type: ignore[func-returns-value]


def _cut(row: dict[str, Any], at: int) -> None:
    row["truncated"] = at % 3 == 0


# what differs -> (edit of rows, change of run.json, refused by the gate, by the board, mark in the cell)
CASES: dict[str, tuple[Any, Any, str, str, str]] = {
    "judge": (None, _sheets(judge="qwen"), "different judge", "different judge", ""),
    "filter": (None, _sheets(filter="strict-match"), "different filter", "different filter", ""),
    "metric": (None, _sheets(metric_version=2), "different metric version", "", ""),  # stale on the board
    "prompts": (
        lambda row, at: row.update(prompt_hash=row["prompt_hash"][::-1]),
        None,
        "different prompts under the same setting",
        "",
        "",
    ),
    "cut": (_cut, None, "cut in one run only", "", "cut 33 %"),
    "clusters": (
        lambda row, at: row.update(cluster=row["item"]),
        None,
        "no common cluster label",
        "other cluster labels",
        "",
    ),
    "unofficial": (None, _sheets(official=False), "", "", "unofficial data"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_board_gate_compare_and_check_agree(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit, change, gate, board, mark = CASES[case]
    for seed, name in ((0, "org/base"), (2, "org/third")):
        gatekit.write(tmp_path / "results", _rows(seed=seed), model=name)
    base = next((tmp_path / "results").rglob("org_base/*/*/run.json")).parent
    odd = gatekit.write(tmp_path / "results", _rows(edit), model="org/odd", change=change)

    joined = pair(load_run(base), load_run(odd))
    assert bool(joined.refusals) == bool(gate) and (not gate or gate in str(joined.refusals[0]))
    code = main(["gate", str(odd), "--baseline", str(base), "--allow-inconclusive"])
    assert (code == 4) == bool(gate)

    table = next(t for t in build(tmp_path / "results", Options()).tables if t.name == "board")
    lines = {line.labels[0]: line for line in table.lines}
    assert (lines["org/base"].ranked and lines["org/third"].ranked) == (case != "metric")
    last = lines["org/odd"].cells[-1]
    if board:
        assert not lines["org/odd"].ranked and board in last.extra and not last.mark
    elif case != "metric":
        assert lines["org/odd"].ranked
    assert (mark in f"{last.reason}") and (not mark or mark in str(joined.notes))
    assert case == "metric" or not any(cell.reason for cell in lines["org/base"].cells)

    capsys.readouterr()
    main(["check", str(tmp_path / "results")])
    said = "".join(capsys.readouterr())
    if board or mark == "unofficial data":
        assert {"clusters": "another cluster label", "unofficial": "unofficial data"}.get(case, board) in said


@pytest.mark.parametrize(
    ("metric", "entry", "refused"),
    [
        ("judge", "judge", True),
        ("judge_equiv", "judge_equiv", True),
        ("summary", "embedder", True),
        ("subem", "judge_equiv", False),  # beside a headline that nobody gave
    ],
)
def test_who_gave_the_headline_is_compared(tmp_path: Path, metric: str, entry: str, refused: bool) -> None:
    def rename(row: dict[str, Any], at: int) -> None:
        row["score"] = {metric: next(iter(row["score"].values()))}

    one, two = (
        gatekit.write(
            tmp_path / "r",
            _rows(rename),
            model=f"org/{who}",
            change=_sheets(metric=metric, **{entry: {"model": who}}),
        )
        for who in ("a", "b")
    )
    found = pair(load_run(one), load_run(two), axis="model").refusals
    assert bool(found) == refused and (not refused or "different judge" in str(found[0]))


def test_another_setting_is_another_axis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = gatekit.write(tmp_path / "r", _rows(seed=0))
    cut = gatekit.write(tmp_path / "r", _rows(_cut, seed=0), setting="rag@4k")
    assert main(["compare", str(full), str(cut)]) == 0  # setting by itself
    assert main(["compare", str(full), str(cut), "--axis", "checkpoint"]) == 4
    assert "different setting, 'full' and 'rag@4k'" in capsys.readouterr().out
    assert main(["gate", str(cut), "--baseline", str(full), "-o", str(tmp_path / "g")]) == 4
    half = gatekit.write(
        tmp_path / "r", _rows(seed=0), model="m/half", change=lambda run: run["model"].update(dtype="float16")
    )
    whole = gatekit.write(
        tmp_path / "r",
        _rows(seed=0),
        model="m/whole",
        change=lambda run: run["model"].update(dtype="float32"),
    )
    assert main(["compare", str(half), str(whole)]) == 4
    assert "different dtype, 'float16' and 'float32'" in capsys.readouterr().out
    assert main(["compare", str(half), str(whole), "--axis", "model"]) == 0
    assert main(["compare", str(half), str(whole), "--allow", "dtype"]) == 0
