"""Collect at its edges: equal results, files of several filters, tasks without rows, measures of a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_ledger_rows import result, sample, written

from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.ledgers import collect, lm_eval_files, merge
from icr_tasks.leaderboard.ledgers.merge import Result, Rules

STAMP = "2026-01-01T00-00-00"


def evaluated(folder: Path, tasks: dict[str, list[dict[str, Any]] | None], **more: Any) -> Path:
    """An lm_eval output folder; a task with None has no samples file."""
    metadata = {"icr": {"metric": "m", "n_expected": 2}}
    body = {"configs": {t: {"metadata": metadata} for t in tasks}, "config": {"model": "hf"}, **more}
    folder.mkdir(parents=True)
    (folder / f"results_{STAMP}.json").write_text(json.dumps(body))
    for task, rows in tasks.items():
        if rows is not None:
            written(folder, rows, f"samples_{task}_{STAMP}.jsonl")
    return folder


def row(n: int, name: str = "none", sent: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return sample(n, sent or {}, metrics=["m"], m=1, filter=name, **more)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_results_without_a_setting_are_left_as_they_are(tmp_path: Path) -> None:
    """Groups, which are no tasks, included."""
    evaluated(tmp_path / "out", {"icr_x": [row(0)]}, results={"icr_x": {"m": 1}, "group": {"m": 1}})
    (found,) = lm_eval_files.evaluations([tmp_path / "out"])
    assert found.results["results"] == {"icr_x": {"m": 1}, "group": {"m": 1}}


def test_a_row_of_several_filters_is_the_first_ones_with_the_scores_of_all(tmp_path: Path) -> None:
    rows = [
        row(n, name, {"sha256": name * 32}, filtered_resps=[f"{name}{n}"])
        for name in ("ab", "cd")
        for n in (0, 1)
    ]
    path = written(tmp_path, rows)
    found = list(lm_eval_files.rows(path, "t"))
    alone = list(lm_eval_files.rows(path, "t", "ab"))
    for (one, sent, name), (first, told, _) in zip(found, alone, strict=True):
        assert one == {**first, "score": {"m,ab": 1, "m,cd": 1}} and sent == told and name == "ab+cd"
    assert [line[2] for line in lm_eval_files.rows(path, "t", "cd")] == ["cd", "cd"]
    with pytest.raises(IcrError, match="filter 'abc'"):
        list(lm_eval_files.rows(path, "t", "abc"))


@pytest.mark.parametrize(
    ("names", "line"), [("aabb", None), ("aab", 3), ("abb", 2), ("aaabbc", 4), ("abc", None), ("aabbc", 3)]
)
def test_filters_of_different_documents_are_refused_by_line(
    names: str, line: int | None, tmp_path: Path
) -> None:
    """The line named is the second filter's first."""
    seen: dict[str, int] = {}
    rows = []
    for name in names:
        rows.append(row(seen.setdefault(name, 0), name))
        seen[name] += 1
    path = written(tmp_path, rows)
    if line is None:
        assert len(list(lm_eval_files.rows(path, "t"))) == seen["a"]
        return
    with pytest.raises(IcrError, match=rf"s\.jsonl:{line}: two filters .* of different documents"):
        list(lm_eval_files.rows(path, "t"))


def test_a_second_filter_in_the_middle_is_named(tmp_path: Path) -> None:
    """Only the first lines and the last are looked at for names."""
    rows = [row(n, name) for n, name in enumerate("aaba")]
    with pytest.raises(IcrError, match=r"s\.jsonl:3: two filters \['a', 'b'\]; sort the rows by filter"):
        list(lm_eval_files.rows(written(tmp_path, rows), "t"))


def test_a_headline_by_its_second_name_alone_is_no_metric(tmp_path: Path) -> None:
    """`score` and `score_se` repeat a metric of ours; a task that has only one of them means something else."""

    def scores(*metrics: str) -> list[str]:
        path = written(tmp_path, [sample(0, metrics=[*metrics], **dict.fromkeys(metrics, 0.5))])
        return [name for line, _, _ in lm_eval_files.rows(path, "t") for name in line["score"]]

    assert scores("score", "score_se") == []
    assert scores("m", "score", "score_se") == ["m"]
    assert scores("score") == ["score"] and scores("score_se", "m") == ["score_se", "m"]


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 18) + 1])
def test_the_last_filter_of_a_file_that_ends_where_a_block_does(size: int, tmp_path: Path) -> None:
    def line(name: str, length: int) -> str:
        text = json.dumps({"filter": name, "text": ""})
        return text[:-2] + "x" * (length - len(text) - 1) + '"}\n'

    first = line("a", 60) * 2
    path = tmp_path / "s.jsonl"
    path.write_text(first + line("b", size - len(first)))
    assert path.stat().st_size == size and lm_eval_files.filters(path) == ("a", "b")
    path.write_text(first + line("b", size))
    assert lm_eval_files.filters(path) == ("a", "b")


def test_metrics_of_no_single_item_are_named(tmp_path: Path) -> None:
    listed = [sample(0, metrics=["ppl", "out_tokens", "m"], ppl=[-1.5, 3], m=1)]
    assert str(lm_eval_files.no_scores(written(tmp_path, listed))).startswith("ppl: no score of single items")
    for rows in ([], [sample(0, metrics=["m"], m=1)], [sample(0, metrics=["out_tokens"], out_tokens=[1])]):
        assert lm_eval_files.no_scores(written(tmp_path, rows)) is None


# ---- which result wins -----------------------------------------------------------------------------------------------


def test_a_result_that_counted_nothing_is_behind_one_of_one_item() -> None:
    older, newer = result("partial", 1, "1"), Result({"status": "partial"}, [], "2", "file")
    rules = Rules()
    assert merge.best("t", [("1", lambda: older), ("2", lambda: newer)], None, rules, None) is older
    assert rules.said == ["t: 1/9 items of 1 kept although older: not 0/? items of 2"]
    assert (newer.total, newer.tokens, newer.kept, newer.fetch) == (0.0, {}, False, None)


def test_of_two_results_of_one_moment_none_is_newer() -> None:
    rules = Rules()
    two = [("1", lambda n=n: result("partial", n, "1")) for n in (2, 1)]  # type: ignore[misc]
    merge.best("t", two, None, rules, None)
    assert rules.said == ["t: 2/9 items of 1 taken, not the older 1/9 items of 1"]


def test_a_run_is_guarded_only_where_one_is_pinned(tmp_path: Path) -> None:
    assert Rules().guard(tmp_path) is None and Rules(pins={"x": "main"}).guard(tmp_path) is None
    assert merge.there(tmp_path / "nothing") == {} and merge.pinned(tmp_path / "nothing") == {}
    folder = collect.collect([evaluated(tmp_path / "out", {"t": [row(0)]})], tmp_path / "r")[0][0]
    assert Rules(pins={"another": "main"}).guard(folder) is None
    assert merge.there(folder)["t"].total == 0.0 and merge.there(folder)["t"].kept
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.json").write_text(
        '{"pins": [{"items_sha256": "1", "first": {"items_sha256": "2"}}, {"items_sha256": "3", "first": {"items_sha256": "3"}}]}'
    )
    assert merge.pinned(tmp_path / "base") == {"1": "b", "2": "b", "3": "b"}
    (tmp_path / "base" / "c.json").write_text('{"pins": [{}]}')
    with pytest.raises(IcrError, match="c.json: not a baseline file"):
        merge.pinned(tmp_path / "base")


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_task_without_rows_is_written_with_its_reason(tmp_path: Path) -> None:
    """Alone, and beside one that has rows."""
    for name, more, status in (("alone", {}, "error"), ("beside", {"b": [row(0), row(1)]}, "partial")):
        out = evaluated(tmp_path / name, {"a": None, **more})
        ((folder, run),) = collect.collect([out], tmp_path / f"r{name}")
        assert run["status"] == status and run["tasks"]["a"]["status"] == "error"
        assert run["tasks"]["a"]["reason"].startswith("no samples file")
        assert json.loads((folder / "run.json").read_text())["tasks"].keys() == {"a", *more}


def test_a_run_whose_every_file_is_broken_is_not_written(tmp_path: Path) -> None:
    out = evaluated(tmp_path / "out", {"a": [row(0)]})
    next(out.glob("samples_*")).write_text("{")
    bad: list[str] = []
    assert collect.collect([out], tmp_path / "r", bad) == [] and len(bad) == 1
    assert not list((tmp_path / "r").rglob("run.json"))
    with pytest.raises(IcrError, match="not valid JSON"):
        collect.collect([out], tmp_path / "r")


def test_bytes_of_the_cache_are_means_of_a_task_and_of_the_run(tmp_path: Path) -> None:
    """What a task reads and stores stands in its sheet; all that was measured, and the largest peak, in the run's."""

    def kv(read: float, peak: int) -> dict[str, Any]:
        return {
            "kv": {
                "read_fraction": read,
                "bytes_read_per_step": 8,
                "peak_memory_bytes": peak,
                "nested": {"x": read},
            }
        }

    tasks: dict[str, Any] = {
        "a": [row(0, sent=kv(0.5, 7)), row(1, sent=kv(0.25, 9))],
        "b": [row(0, sent=kv(0.75, 8))],
    }
    ((_, run),) = collect.collect([evaluated(tmp_path / "out", {**tasks, "c": [row(0)]})], tmp_path / "r")
    assert run["tasks"]["a"]["kv"] == {"read_fraction": 0.375, "bytes_read_per_step": 8}
    assert run["tasks"]["b"]["kv"] == {"read_fraction": 0.75, "bytes_read_per_step": 8}
    assert "kv" not in run["tasks"]["c"] and run["peak_memory_bytes"] == 9
    assert run["kv"]["n_items"] == 3 and run["kv"]["read_fraction"] == pytest.approx(0.5)
    assert run["kv"]["nested.x"] == pytest.approx(0.5)
    assert run["status"] == "partial", "b and c have one item of two"


def test_tokens_that_only_some_tasks_count_are_summed(tmp_path: Path) -> None:
    """Cached ones, and what a served model counted and charged."""
    cached = [row(0, sent={"engine_tokens": {"cached": 4}, "n_prompt_tokens": 6}), row(1)]
    served = [
        row(0, sent={"usage": {"tokens_in": 5, "tokens_cached": 3, "tokens_out": 2, "usd": 0.25}}),
        row(1),
    ]
    out = evaluated(tmp_path / "out", {"a": cached, "b": served, "c": [row(0), row(1)]})
    ((_, run),) = collect.collect([out], tmp_path / "r")
    assert run["tokens"] == {"prompt": 11, "output": 2, "cached": 7}
    assert run["usage"] == {"tokens_in": 5, "tokens_cached": 3, "tokens_out": 2, "usd": 0.25}
    assert run["tasks"]["b"]["usd"] == 0.25 and run["status"] == "complete"
    assert "usage" not in collect.collect([evaluated(tmp_path / "2", {"c": [row(0)]})], tmp_path / "r2")[0][1]
