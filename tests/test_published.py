"""The published tables as data, and every contradiction between them that arithmetic can show."""

from __future__ import annotations

from collections import Counter

import pytest

from icr_tasks.leaderboard.board import published


def test_data_are_complete() -> None:
    cells = {name: sum(len(row[2]) for row in t["rows"]) for name, t in published.data()["tables"].items()}
    assert cells == {"1": 24, "2": 65, "3": 30, "4": 18, "10": 190, "11": 162, "12": 95}
    for table in published.data()["tables"].values():
        assert all(len(row[2]) == len(table["columns"]) for row in table["rows"])


@pytest.mark.parametrize(
    ("mean", "n", "possible"),
    [
        (72.1, 229, True),
        (72.0, 229, False),
        (0.0, 7, True),
        (100.0, 7, True),
        (33.3, 3, True),
        (34.9, 503, False),
        (34.9, 502, True),
        (50.0, 3, False),
        (56.2, 600, True),
    ],
)
def test_attainable(mean: float, n: int, possible: bool) -> None:
    assert published.attainable(mean, n) is possible


def test_every_mean_of_counts_is_attainable() -> None:
    for n in (3, 229, 503):
        assert all(published.attainable(round(100 * k / n, 1), n) for k in range(n + 1))


def test_contradictions_in_the_paper() -> None:
    found = published.check()
    assert Counter((f.kind, f.table) for f in found) == {
        ("impossible", "2"): 4,
        ("impossible", "10"): 12,
        ("impossible", "12"): 7,
        ("average", "1"): 1,
        ("average", "11"): 1,
        ("drop", "3"): 15,
        ("disagree", "10/12"): 2,
        ("claim", "12"): 1,
    }
    by = {(f.kind, f.table, f.row, f.column): f for f in found}
    kv = "kv:retrievalattention"
    # The QA column of Table 3 contradicts Table 2 in all six rows.
    models = ("Qwen2.5-7B-Instruct-1M", "R_AO", "R_ID", "R_ID+C", "R_ID+Q", "R_R+Judge")
    qa = [round(by["drop", "3", f"{m} {kv}", "qa"].derived, 1) for m in models]
    assert qa == [-8.0, -12.0, -15.6, -13.4, -12.0, -8.1]
    # Averages from Table 2: the R+Judge model loses more than the base model, not less.
    averages = [round(by["drop", "3", f"{m} {kv}", "avg"].derived, 1) for m in models]
    assert averages == [-12.2, -11.7, -11.5, -10.8, -10.8, -12.6]
    assert {c for kind, _, row, c in by if kind == "drop" and row.startswith("R_R+Judge")} == {
        "qa",
        "sum",
        "lb",
        "loong",
        "avg",
    }
    # Four LongBench-v2 cells cannot come from 503 items, all uncapped rows of 128k models; all fit 502.
    lb = [f for f in found if f.kind == "impossible" and f.column == "lb"]
    assert sorted(f.printed for f in lb) == [29.1, 31.1, 32.7, 34.9] and all(
        "N=502 would fit" in f.text for f in lb
    )
    [best] = [f for f in found if f.kind == "claim"]
    assert (best.column, round(best.derived, 1)) == ("rag@128k", 45.4)


def test_a_correct_table_has_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are not blind accusations: with Table 3 derived from Table 2, its findings vanish."""
    import copy

    repaired = copy.deepcopy(published.data())
    scores = {(r[0], r[1]): r[2] for r in repaired["tables"]["2"]["rows"]}
    for row in repaired["tables"]["3"]["rows"]:
        row[2] = [
            round(published.drop(f, c), 1)
            for f, c in zip(scores[row[0], "full"], scores[row[0], row[1]], strict=True)
        ]
        row[3] = round(sum(row[2]) / len(row[2]), 1)
    monkeypatch.setattr(published, "data", lambda: repaired)
    assert not [f for f in published.check() if f.table == "3"]
