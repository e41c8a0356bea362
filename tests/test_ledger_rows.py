"""What a sample row becomes in a ledger, which result of a task wins, and what is counted: against short references."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.ledgers import collect, lm_eval_files, merge
from icr_tasks.leaderboard.ledgers.merge import Result, Rules
from icr_tasks.storage import Evaluation

HASHES = {"doc_hash": "0123456789abcdef" * 4, "prompt_hash": "f0" * 32, "target_hash": "fedcba9876543210" * 4}


def sample(n: int, sent: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    told = {} if sent is None else {"g": {"arg_0": json.dumps({"icr": 1, **sent}, sort_keys=True)}}
    return {"doc_id": n, "doc": {"id": f"q{n}"}, "arguments": told, "metrics": [], **HASHES, **more}


def written(folder: Path, samples: list[dict[str, Any]], name: str = "s.jsonl") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("".join(json.dumps(s) + "\n" for s in samples))
    return folder / name


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_row_of_ours_and_one_of_another_task(tmp_path: Path) -> None:
    ours = sample(
        0,
        {"sha256": "ab" * 32, "gold_kept": 0, "n_gold": 2, "truncated": True, "unfinished": 1, "retrieval": {"k": "4k"},
         "kv": {}, "n_prompt_tokens": 0, "usage": {"tokens_in": 7, "tokens_out": 9, "usd": 0.5, "other": 1}},
        metrics=["subem", "f1", "out_tokens", "thought_tokens", "truncated", "score", "score_se"],
        subem=True, f1=0.25, out_tokens=3.0, thought_tokens=2.0, truncated=1.0, score=0.5, score_se=0.1,
        filtered_resps=["an answer", "another"], doc={"id": 0, "cluster": "c", "keys": {"depth": 0.5}},
    )  # fmt: skip
    other = sample(1, None, metrics=["score"], score=1, out_tokens=4, f1=0.5, thought_tokens=0, doc=["text"])
    served = sample(
        2, {"usage": {"tokens_in": 7, "tokens_out": 9}}, metrics=["acc"], acc="yes", filter="none"
    )
    rows = [row for row, _, _ in lm_eval_files.rows(written(tmp_path, [ours, other, served]), "t")]
    empty = {"occ": 0, "cluster": None, "keys": {}, "score": {}, "n_prompt_tokens": None, "n_out_tokens": None,
             "truncated": None, "unfinished": False, "gold_kept": None, "resp_hash": short(""), "error": None, "task": "t",
             "prompt_hash": "f0" * 8, "target_hash": "fedcba9876543210"}  # fmt: skip
    assert rows[0] == {
        **empty, "item": "0123456789abcdef", "cluster": "c", "keys": {"depth": 0.5}, "score": {"subem": True, "f1": 0.25},
        "n_prompt_tokens": 0, "n_out_tokens": 3, "truncated": True, "unfinished": True, "gold_kept": [0, 2],
        "resp_hash": short("an answer"), "prompt_hash": "ab" * 8, "n_thought_tokens": 2, "tokens_in": 7, "tokens_out": 9,
        "usd": 0.5, "retrieval": {"k": "4k"},
    }  # fmt: skip
    assert rows[1] == {
        **empty,
        "item": "0123456789abcdef",
        "occ": 1,
        "score": {"score": 1},
    }  # the second of that name
    assert rows[2] == {
        **empty,
        "item": "q2",
        "n_prompt_tokens": 7,
        "n_out_tokens": 9,
        "tokens_in": 7,
        "tokens_out": 9,
    }


def test_the_same_item_thrice_is_numbered_and_negative_marks_are_no_scores(tmp_path: Path) -> None:
    same = [sample(n, doc={"id": "q"}, metrics=["m"], m=0) for n in range(3)]
    assert [row["occ"] for row, _, _ in lm_eval_files.rows(written(tmp_path, same), "t")] == [0, 1, 2]
    low = sample(3, metrics=["a", "m"], a=1, m=-0.5)
    with pytest.raises(IcrError, match=r"s\.jsonl:2: m is -0\.5"):
        list(lm_eval_files.rows(written(tmp_path, [same[0], low]), "t"))
    with pytest.raises(IcrError, match=r"s\.jsonl:2: doc_id 0 twice"):
        list(lm_eval_files.samples(written(tmp_path, [same[0], same[0]])))


def test_documents_of_an_item() -> None:
    assert lm_eval_files._keys({"documents": [{"file": "a"}, 2]}) == {"documents": ["a", "2"]}
    assert lm_eval_files._keys({"documents": ["a"], "keys": {"documents": "x"}}) == {"documents": "x"}
    assert lm_eval_files._keys({"documents": [], "keys": {"depth": 1}}) == {"depth": 1}


@pytest.mark.parametrize(
    ("names", "found"),
    [("", ()), ("a", ("a",)), ("aa", ("a",)), ("ab", ("a", "b")), ("aab", ("a", "b")), ("aabb", ("a", "b")), ("baa", ("b", "a"))],
)  # fmt: skip
@pytest.mark.parametrize(("end", "size"), [("\n", 0), ("", 0), ("\n\n\n", 0), ("\n", 100_000), ("", 300_000)])
def test_names_of_filters(names: str, found: tuple[str, ...], end: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(json.dumps({"filter": name, "text": "x" * size}) for name in names) + end)
    assert lm_eval_files.filters(path) == found
    path.write_text(
        "\n".join(
            json.dumps({"filter": n, "text": "x" * s}) for n, s in (("a", 1), ("a", 1), ("b", 1_200_000))
        )
    )
    assert lm_eval_files.filters(path) == ("a", "b")
    path.write_text(json.dumps({"text": 1}) + "\n[1]\nnot JSON\n")
    assert lm_eval_files.filters(path) == ("none",)


def test_local_folders_are_named_by_their_end() -> None:
    said = {
        "org/model": "org/model",
        "/a/model": "model",
        "./run/checkpoint-40": "run@40",
        "~/x/checkpoint-4b": "checkpoint-4b",
    }
    assert {name: lm_eval_files._model_id(name) for name in said} == said
    assert lm_eval_files._model_id("/checkpoint-7") == "checkpoint-7"


def result(status: str, n: int, stamp: str, kept: bool = False) -> Result:
    return Result({"status": status, "n_scored": n, "n_expected": 9}, [], stamp, "file", kept=kept)


def test_the_best_of_three_results() -> None:
    """By status, then items, then time; of equals the new one. A complete one makes older fresh ones unread."""
    every = [
        result(s, n, t) for s in ("complete", "partial", "error") for n, t in ((1, "2"), (2, "1"), (2, "2"))
    ]
    held = [None, *(result(r.sheet["status"], r.sheet["n_scored"], r.stamp, kept=True) for r in every)]
    for one, two, kept in itertools.product(every, every, held):
        read: list[Result] = []

        def reader(found: Result, into: list[Result] = read) -> Any:
            return lambda: into.append(found) or found

        rules = Rules()
        chosen = merge.best("t", [(r.stamp, reader(r)) for r in (one, two)], kept, rules, None)
        newest = max((one, two), key=lambda r: r.stamp)
        fresh = [newest] if newest.sheet["status"] == "complete" else [one, two]
        assert {id(r) for r in read} == {id(r) for r in fresh}
        order = ["error", "partial", "complete"]
        among = [*fresh, *([kept] if kept else [])]
        rank = [(order.index(r.sheet["status"]), r.sheet["n_scored"], r.stamp, not r.kept) for r in among]
        assert chosen in among and rank[[r is chosen for r in among].index(True)] == max(rank)
        said = [note for note in rules.said if "was not needed" in note]
        assert len(said) == (len(fresh) == 1 and one is not two or len(fresh) == 1)
        last = merge.best("t", [(r.stamp, reader(r)) for r in (one, two)], kept, Rules(replace=True), None)
        assert last is newest or (one.stamp == two.stamp and last in (one, two))


def test_what_is_said_of_the_others() -> None:
    rules = Rules()
    merge.best(
        "t", [("1", lambda: result("partial", 2, "1"))], result("partial", 1, "3", kept=True), rules, None
    )
    merge.best(
        "t", [("3", lambda: result("partial", 2, "3"))], result("partial", 1, "1", kept=True), rules, None
    )
    merge.best(
        "t",
        [("3", lambda: result("partial", 2, "3")), ("1", lambda: result("partial", 1, "1"))],
        None,
        rules,
        None,
    )
    merge.best(
        "t", [("3", lambda: result("partial", 2, "3"))], result("partial", 2, "3", kept=True), rules, None
    )
    assert rules.said == [
        "t: 2/9 items of 1 kept although older: not 1/9 items of 3",
        "t: 2/9 items of 3 replaces 1/9 items of 1",
        "t: 2/9 items of 3 taken, not the older 1/9 items of 1",
    ]
    assert Result({}, [], "", "").words == "0/? items of an older run"

    def broken() -> Result:
        raise IcrError("line 3")

    bad: list[str] = []
    assert merge.best("t", [("1", broken)], None, Rules(), bad) is None and bad[0].startswith("line 3; ")
    with pytest.raises(IcrError, match="line 3"):
        merge.best("t", [("1", broken)], None, Rules(), None)


def test_tokens_of_a_kept_result_are_its_sheets_or_its_rows() -> None:
    rows = [{"n_prompt_tokens": 5, "n_out_tokens": 1}, {"n_prompt_tokens": None}, {"n_out_tokens": 2}]
    found = merge.taken(Result({}, [], "1", "f", fetch=lambda: rows))
    assert (found.tokens, found.rows, found.fetch) == ({"prompt": 5, "output": 3}, rows, None)
    assert merge.taken(Result({"tokens": {"prompt": 8}}, [], "1", "f", fetch=lambda: rows)).tokens == {
        "prompt": 8
    }
    assert merge.taken(Result({}, [], "1", "f", tokens={"prompt": 1})).tokens == {"prompt": 1}


@pytest.mark.parametrize("n", [1, 199, 201, 430])
def test_counts_are_those_of_a_loop(n: int, tmp_path: Path) -> None:
    """More rows than are read at once, of every kind."""
    samples = []
    for i in range(n):
        sent: dict[str, Any] = {"n_prompt_tokens": i % 7, "truncated": i % 5 == 0, "unfinished": i % 11 == 0}
        sent |= {"error": "too long"} if i % 13 == 0 else {}
        sent |= {"engine_tokens": {"cached": i % 3}} if i % 2 else {"engine_tokens": None}
        sent |= (
            {"device": "gpu" if i % 3 else "cpu", "timing": {"wall": 0.5, "prefill": 0.25}}
            if i % 4
            else {"timing": {"queue": 1}}
        )
        sent |= {"route": {"went_on": i % 6 == 0}} if i % 3 == 0 else {}
        sent |= {"thoughts": {"n": 1}} if i % 17 == 0 else {}
        scores = {} if i % 13 == 0 else {"subem": i % 2} if i % 3 else {"subem": i % 2, "f1": 0.5}
        samples.append(sample(i, sent, metrics=[*scores, "out_tokens"], out_tokens=i % 4, **scores))
    results = {
        "configs": {"t": {"metadata": {"icr": {"metric": "subem", "n_expected": n - n // 13 - 1}}}},
        "total_evaluation_time_seconds": "12.5",
    }
    path = written(tmp_path, samples)
    found = collect._read(
        "fp",
        "t",
        Evaluation(tmp_path / "results_2026-01-01T00-00-00.json", results, {"t": path}),
        {},
        Rules(),
        None,
    )
    counts = found.sheet
    right = [s for s in samples if len(s["metrics"]) > 1]
    told = [json.loads(s["arguments"]["g"]["arg_0"]) for s in samples]
    assert counts["n_scored"] == len(right) and counts["n_failed"] == n - len(right)
    assert counts["n_truncated"] == sum(d["truncated"] for d in told) and counts["n_unfinished"] == sum(
        d["unfinished"] for d in told
    )
    assert counts["n_thoughts"] == sum("thoughts" in d for d in told)
    assert counts["route"] == {
        "items": sum("route" in d for d in told), "went_on": sum(d["route"]["went_on"] for d in told if "route" in d)
    }  # fmt: skip
    for metric in ("subem", "f1"):
        values = [s[metric] for s in right if metric in s]
        assert counts["means"].get(metric) == (pytest.approx(sum(values) / len(values)) if values else None)
    wanted = {
        "prompt": sum(d["n_prompt_tokens"] for d in told),
        "output": sum(s["out_tokens"] for s in samples),
    }
    cached = [d["engine_tokens"]["cached"] for d in told if d["engine_tokens"]]
    assert found.tokens == {**wanted, **({"cached": sum(cached)} if cached else {})} and found.total == 12.5
    devices = [d["device"] for d in told if "device" in d]
    assert counts["devices"] == {name: devices.count(name) for name in set(devices)}
    timings = [d["timing"] for d in told]
    assert counts["n_timed"] == sum("wall" in t for t in timings)
    assert counts["seconds"] == {
        k: pytest.approx(sum(t.get(k, 0) for t in timings)) for k in {k for t in timings for k in t}
    }
    assert len(found.rows) == n and counts["status"] == "complete"


def test_status_of_a_task(tmp_path: Path) -> None:
    def read(
        expected: int | None, scores: list[dict[str, Any]] | None, metric: str | None = "m", **sheet: Any
    ) -> tuple[Any, ...]:
        config = {"metric": metric, **({} if expected is None else {"n_expected": expected}), **sheet}
        path = (
            None
            if scores is None
            else written(tmp_path, [sample(i, metrics=[*s], **s) for i, s in enumerate(scores)])
        )
        results = {"configs": {"t": {"metadata": {"icr": config}}}}
        bad: list[str] = []
        found = collect._read(
            "fp", "t", Evaluation(tmp_path / "r.json", results, {"t": path} if path else {}), {}, Rules(), bad
        )
        return found.sheet["status"], found.sheet.get("reason"), bad

    assert read(2, [{"m": 1}, {"m": 0}]) == ("complete", None, [])
    assert read(1, [{"m": 1}, {"m": 0}]) == ("complete", None, [])
    assert read(3, [{"m": 1}, {"m": 0}]) == ("partial", None, [])
    assert read(None, [{"m": 1}]) == ("partial", None, [])
    assert read(1, None) == ("error", "no samples file: run lm_eval with --log_samples", [])
    status, reason, bad = read(1, [{"f1": 1}])
    assert (
        status == "error"
        and "no row has the metric 'm', only f1" in reason
        and bad[0].endswith("score again with icr-replay")
    )
    assert read(1, [{"f1": 1}], reasons={"m": "no judge"}) == ("error", "no judge", [])
    assert read(1, [{"f1": 1}], metric=None) == ("complete", None, [])
    assert read(1, [{}]) == ("partial", None, [])


def test_shares_of_a_run_are_means_over_its_tasks() -> None:
    sheets = {"a": {"kv_shares": {"read_fraction": 0.5}}, "b": {"kv_shares": {"read_fraction": 1.0}}, "c": {}}
    assert collect._shares(sheets) == {"read_fraction": 0.75}


def test_tasks_that_name_a_setting_are_divided(tmp_path: Path) -> None:
    names = ["icr_x::rag@4k", "icr_y", "icr_x", "other::a"]
    results = {
        "configs": {name: {"metadata": {}} for name in names},
        "results": {name: {"n": name} for name in names},
        "config": {"model": "hf"},
    }
    (tmp_path / "results_2026-01-01T00-00-00.json").write_text(json.dumps(results))
    for name in names[:2]:
        written(tmp_path, [sample(0)], f"samples_{name}_2026-01-01T00-00-00.jsonl")
    found = list(lm_eval_files.evaluations([tmp_path]))
    tasks = [sorted(evaluation.results["configs"]) for evaluation in found]
    assert tasks == [["icr_x"], ["icr_x", "icr_y", "other::a"]]
    assert found[0].results["results"] == {"icr_x": {"n": "icr_x::rag@4k"}}
    assert all(evaluation.results["config"] == {"model": "hf"} for evaluation in found)
    assert [sorted(evaluation.samples) for evaluation in found] == [["icr_x"], ["icr_y"]]


def test_what_is_no_sample_row_is_named(tmp_path: Path) -> None:
    for line, said in (("[1]", "a JSON object missing"), ('{"doc_hash": "", "metrics": []}', "prompt_hash, target_hash missing"),
                       ('{"doc_hash', "cut off")):  # fmt: skip
        (tmp_path / "s.jsonl").write_text(json.dumps(sample(0)) + "\n" + line + "\n")
        with pytest.raises(IcrError, match=rf"s\.jsonl:2: .*{said}"):
            list(lm_eval_files.samples(tmp_path / "s.jsonl"))


def test_the_seconds_of_a_run_are_those_of_its_evaluations_once(tmp_path: Path) -> None:
    """Two tasks of one evaluation, one of another, and one that the ledger has from before."""
    model = {
        "config": {"model": "hf", "model_args": {"pretrained": "org/m"}},
        "total_evaluation_time_seconds": 5,
    }

    def evaluation(stamp: str, tasks: list[str], **more: Any) -> None:
        folder = tmp_path / stamp
        configs = {task: {"metadata": {"icr": {"metric": "m", "n_expected": 1}}} for task in tasks}
        written(folder, [], f"results_2026-01-0{stamp}T00-00-00.json")
        (folder / f"results_2026-01-0{stamp}T00-00-00.json").write_text(
            json.dumps({"configs": configs, **model, **more})
        )
        for task in tasks:
            written(
                folder, [sample(0, {}, metrics=["m"], m=1)], f"samples_{task}_2026-01-0{stamp}T00-00-00.jsonl"
            )

    evaluation("1", ["a", "b"])
    ((_, run),) = collect.collect([tmp_path / "1"], tmp_path / "results")
    assert run["seconds"]["total"] == 5.0 and run["status"] == "complete"
    evaluation("2", ["c"], total_evaluation_time_seconds=None)
    ((folder, run),) = collect.collect([tmp_path / "2"], tmp_path / "results")
    assert sorted(run["tasks"]) == ["a", "b", "c"] and run["seconds"]["total"] == 5.0
    head = json.loads((folder / "run.json").read_text())
    for seconds in (None, {}, {"total": None}):
        (folder / "run.json").write_text(json.dumps({**head, "seconds": seconds}))
        assert {kept.total for kept in merge.there(folder).values()} == {0.0}
    assert {kept.stamp for kept in merge.there(folder).values()} == {
        "2026-01-01T00-00-00",
        "2026-01-02T00-00-00",
    }
    assert merge.there(tmp_path / "nowhere") == {}
