"""`icr collect` never loses: results of a run are merged task by task, and what was left aside is said."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_store_collect import _sample, tree

from icr_tasks.cli import main
from icr_tasks.leaderboard.ledgers import ledger
from icr_tasks.leaderboard.ledgers.load import load

NQ4, NQ8 = "icr_helmet_rag_nq_4k", "icr_helmet_rag_nq_8k"
OLD, NEW, LATEST = (f"20{y}-01-01T00-00-00.000001" for y in (26, 27, 99))


def _eight(right: int = 1) -> list[dict[str, Any]]:
    return [_sample(i, right) for i in range(8)]


class Folder:
    """A results folder and what the last collect said."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys, self.err = root, capsys, ""

    def collect(self, *names: str, code: int = 0) -> dict[str, tuple[int, float]]:
        """Collect; {task: (items scored, mean)} of the one run there."""
        args = [
            n if n.startswith("-") or "/" in n or not (self.root / n).is_dir() else str(self.root / n)
            for n in names
        ]
        assert main(["collect", *args, "-o", str(self.root / "r")]) == code
        self.err = self.capsys.readouterr().err
        [(folder, run)] = list(ledger.runs(self.root / "r"))
        rows = list(ledger.items(folder))
        for name, sheet in run["tasks"].items():
            own = [r for r in rows if r["task"] == name]
            assert len(own) == sheet["n_scored"] + sheet["n_failed"]
        assert run["tokens"]["prompt"] == sum(r["n_prompt_tokens"] for r in rows)
        return {n: (s["n_scored"], s["means"].get("subem")) for n, s in run["tasks"].items()}


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "a", NQ4, _eight(), expected=8, stamp=OLD)
    return Folder(tmp_path, capsys)


def test_tasks_collected_one_after_the_other_are_all_there(folder: Folder) -> None:
    tree(folder.root / "b", NQ8, _eight(0), expected=8, stamp=NEW)
    assert folder.collect("a") == {NQ4: (8, 1.0)}
    assert folder.collect("b") == {NQ4: (8, 1.0), NQ8: (8, 0.0)}
    before = [p.read_bytes() for p in sorted((folder.root / "r").rglob("items.jsonl.gz"))]
    assert folder.collect("a", "b") == {NQ4: (8, 1.0), NQ8: (8, 0.0)}  # again: the same bytes, no word
    assert [p.read_bytes() for p in sorted((folder.root / "r").rglob("items.jsonl.gz"))] == before
    assert "note" not in folder.err


@pytest.mark.parametrize("together", [True, False])
def test_a_later_smoke_run_does_not_replace_a_complete_one(folder: Folder, together: bool) -> None:
    tree(folder.root / "smoke", NQ4, _eight(0)[:3], expected=8, stamp=LATEST)
    if together:
        assert folder.collect("a", "smoke") == {NQ4: (8, 1.0)}
    else:
        folder.collect("a")
        assert folder.collect("smoke") == {NQ4: (8, 1.0)}
    assert f"{NQ4}: 8/8 items of {OLD} kept although older: not 3/8 items of {LATEST}" in folder.err
    assert folder.collect("smoke", "--replace") == {NQ4: (3, 0.0)}


def test_newer_replaces_older_and_complete_replaces_partial(folder: Folder) -> None:
    tree(folder.root / "part", NQ4, _eight(0)[:5], expected=8, stamp=LATEST)
    folder.collect("part")
    assert folder.collect("a") == {NQ4: (8, 1.0)} and "5/8 items of 2099" in folder.err
    tree(folder.root / "again", NQ4, _eight(0), expected=8, stamp=NEW)
    assert folder.collect("again") == {NQ4: (8, 0.0)}
    assert f"8/8 items of {NEW} replaces 8/8 items of {OLD}" in folder.err


def test_a_broken_file_costs_its_task_only(folder: Folder) -> None:
    tree(folder.root / "b", NQ8, _eight(0), expected=8, stamp=NEW)
    tree(folder.root / "c", NQ4, _eight(0), expected=8, stamp=LATEST)
    broken = next((folder.root / "c").glob("samples_*"))
    broken.write_text(broken.read_text() + '{"doc_id": 9, "d')
    assert folder.collect("a", "b", "c", code=2) == {NQ4: (8, 1.0), NQ8: (8, 0.0)}
    assert f"{broken.name}:9: not valid JSON" in folder.err and "next best result" in folder.err
    assert folder.collect("c", code=2) == {NQ4: (8, 1.0), NQ8: (8, 0.0)}
    only = folder.root / "fresh"
    assert main(["collect", str(folder.root / "b"), str(folder.root / "c"), "-o", str(only)]) == 2
    assert [set(run.tasks) for run in load(only)] == [{NQ8}]


def test_a_broken_ledger_is_not_written_over(folder: Folder) -> None:
    folder.collect("a")
    items = next((folder.root / "r").rglob("items.jsonl.gz"))
    items.write_bytes(items.read_bytes()[:-20])
    left = items.read_bytes()
    tree(folder.root / "b", NQ8, _eight(0), expected=8, stamp=NEW)  # needs the 4k items that are there
    assert main(["collect", str(folder.root / "b"), "-o", str(folder.root / "r")]) == 2
    assert "nothing was written there: move" in folder.capsys.readouterr().err and items.read_bytes() == left
    assert folder.collect("a", "b") == {NQ4: (8, 1.0), NQ8: (8, 0.0)}  # collected again: mended


def test_a_pinned_baseline_is_never_changed_in_place(folder: Folder) -> None:
    folder.collect("a")
    assert main(["baseline", "set", "main", str(folder.root / "r")]) == 0
    items = next((folder.root / "r").rglob("items.jsonl.gz"))
    pinned = items.read_bytes()
    tree(folder.root / "again", NQ4, _eight(0), expected=8, stamp=NEW)
    for more in ([], ["--replace"]):
        folder.collect("again", *more, code=2)
        assert "is pinned by baseline main and stays as it is" in folder.err and items.read_bytes() == pinned
        assert "replaces" not in folder.err  # nothing was
    folder.collect("a")  # the same items are no change
    assert not list((folder.root / "r").rglob(".*"))


# ---- stock lm-eval tasks -------------------------------------------------------------------------


def _stock(folder: Path, task: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    body = {
        "configs": {task: {"metadata": {"version": 1}}},
        "config": {"model": "hf", "model_args": "pretrained=org/m"},
        "versions": {task: 1},
        "n-samples": {task: {"original": len({r["doc_id"] for r in rows}), "effective": len(rows)}},
    }
    stamp = "2026-01-01T00-00-00"
    (folder / f"results_{stamp}.json").write_text(json.dumps(body))
    (folder / f"samples_{task}_{stamp}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def _doc(i: int, metrics: dict[str, Any], name: str = "none") -> dict[str, Any]:
    hashes = {"doc_hash": f"{i:064x}", "prompt_hash": "p" * 64, "target_hash": f"{i:064x}"}
    shown = {"doc_id": i, "doc": {"q": i}, "arguments": {}, "filtered_resps": [f"a{i}"], "filter": name}
    return {**shown, "metrics": list(metrics), **hashes, **metrics}


def _scores(root: Path) -> tuple[dict[str, list[float]], dict[str, Any]]:
    [run] = load(root)
    [task] = run.tasks.values()
    return {name: values.tolist() for name, values in task.score.items()}, task.sheet


@pytest.mark.parametrize("mixed", [False, True])
def test_several_filters_are_separate_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mixed: bool
) -> None:
    rows = [_doc(i, {"exact_match": float(i < 1)}, "strict-match") for i in range(4)]
    rows += [_doc(i, {"exact_match": float(i < 3)}, "flexible-extract") for i in range(4)]
    if mixed:  # document by document, as other writers log
        random.Random(0).shuffle(rows)
        rows.sort(key=lambda r: r["doc_id"])
    _stock(tmp_path / "out", "my_gsm8k", rows)
    out = str(tmp_path / "out")
    assert main(["collect", out, "-o", str(tmp_path / "both")]) == 0
    scores, sheet = _scores(tmp_path / "both")
    assert scores["exact_match,strict-match"] == [1, 0, 0, 0] and sheet["n_scored"] == 4
    assert scores["exact_match,flexible-extract"] == [1, 1, 1, 0] and sheet["status"] == "complete"
    assert main(["collect", out, "-o", str(tmp_path / "one"), "--filter", "flexible-extract"]) == 0
    assert _scores(tmp_path / "one")[0] == {"exact_match": [1, 1, 1, 0]}
    capsys.readouterr()
    assert main(["collect", out, "-o", str(tmp_path / "no"), "--filter", "flexible"]) == 2
    assert "filter 'flexible'" in (err := capsys.readouterr().err) and "flexible-extract" in err


def test_perplexity_says_why_it_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _stock(tmp_path / "out", "wikitext", [_doc(i, {"word_perplexity": [-12.5, 7]}) for i in range(3)])
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 0
    assert "word_perplexity: no score of single items" in capsys.readouterr().out
    [(_, run)] = list(ledger.runs(tmp_path / "r"))
    assert run["tasks"]["wikitext"]["status"] == "error"


def test_a_hostile_name_stays_on_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of models are untrusted: no line break, no text direction, no page of them in what is printed."""
    name = "a\nb\u202ec" + "x" * 5000
    tree(tmp_path / "a", NQ4, [_sample(0, 1)], expected=1, args={"pretrained": name})
    assert main(["collect", str(tmp_path / "a"), "-o", str(tmp_path / "r")]) == 0
    said = capsys.readouterr()
    first = said.out.splitlines()[0]
    assert first.startswith("**a b\ufffdcxxx") and first.endswith("x**, prompt ao") and len(first) < 130
    assert "\u202e" not in said.out + said.err


def test_multiple_choice_of_a_stock_task_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _stock(tmp_path / "out", "arc", [_doc(i, {"acc": float(i % 2), "acc_norm": 1.0}) for i in range(4)])
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 0
    assert "prompt" not in capsys.readouterr().out.splitlines()[0]  # a stock task has no prompt of ours
    assert _scores(tmp_path / "r")[0] == {"acc": [0, 1, 0, 1], "acc_norm": [1, 1, 1, 1]}


def test_the_board_shows_the_metric_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _stock(tmp_path / "out", "arc", [_doc(i, {"acc": float(i % 2), "acc_norm": 1.0}) for i in range(4)])
    assert main(["collect", str(tmp_path / "out"), "-o", str(tmp_path / "r")]) == 0
    capsys.readouterr()
    shown = {}
    for metric in ("acc", "acc_norm"):
        assert main(["board", str(tmp_path / "r"), "--metric", metric, "--format", "tsv"]) == 0
        shown[metric] = capsys.readouterr().out
    assert "50.0" in shown["acc"] and "100.0" in shown["acc_norm"] and "50.0" not in shown["acc_norm"]
    assert main(["board", str(tmp_path / "r"), "--metric", "acc_nrm"]) == 2
    assert "acc_norm" in capsys.readouterr().err


def test_what_was_written_as_json(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """`--json` prints the runs that were written, and nothing else on that stream."""
    tree(tmp_path / "a", NQ4, _eight(), expected=8, stamp=OLD)
    assert main(["collect", str(tmp_path / "a"), "-o", str(tmp_path / "r"), "--json"]) == 0
    printed = capfdbinary.readouterr().out
    [run] = json.loads(printed)
    assert list(run["tasks"]) == [NQ4] and printed.endswith(b"\n")
