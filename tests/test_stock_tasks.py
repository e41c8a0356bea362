"""Tasks of lm-eval that are not ours: which way a metric points, what an answer is, how many shots there were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_ledger_rows import sample, short, written

from icr_tasks.cli import main
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.ledgers import ledger, lm_eval_files
from icr_tasks.leaderboard.ledgers.inputs import thoughts

STAMP = "2026-01-01T00-00-00"


def evaluated(folder: Path, rows: list[dict[str, Any]], *, shots: int = 0, **more: Any) -> Path:
    """lm_eval's output of one task `t` of a model that is called as the folder."""
    body = {
        "configs": {"t": {"metadata": {"version": 1.0}}},
        "config": {"model": "hf", "model_args": {"pretrained": f"org/{folder.name[0]}"}},
        "n-shot": {"t": shots},
        "n-samples": {"t": {"original": len({r["doc_id"] for r in rows})}},
        **more,
    }
    folder.mkdir(parents=True)
    (folder / f"results_{STAMP}.json").write_text(json.dumps(body))
    written(folder, rows, f"samples_t_{STAMP}.jsonl")
    return folder


def collected(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    """Its ledgers, and the table that is printed."""
    assert main(["collect", str(folder), "-o", f"r{folder.name}"]) == 0
    return Path(f"r{folder.name}"), capsys.readouterr().out


def row(n: int, **more: Any) -> dict[str, Any]:
    return sample(n, None, doc_hash=f"{n:064x}", **{"metrics": ["m"], "m": 1.0, "resps": [[f"a{n}"]], **more})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_metric_of_which_less_is_better_is_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    """Its rise passed the gate as a gain; another metric of the same runs is compared."""
    paths = []
    for name, most in (("a", 20), ("b", 81)):
        rows = [
            row(n, doc={}, metrics=["toxicity", "acc"], toxicity=float(n < most), acc=1.0) for n in range(100)
        ]
        out = evaluated(Path(name), rows, higher_is_better={"t": {"toxicity": False, "acc": True}})
        paths.append(str(collected(out, capsys)[0]))
    head = json.loads(next(Path(paths[0]).rglob("run.json")).read_text())
    assert head["tasks"]["t"]["lower_is_better"] == ["toxicity"]
    assert main(["gate", paths[1], "--baseline", paths[0], "--allow", "clusters"]) == 4
    said = capsys.readouterr().out
    assert (
        "t: of 'toxicity' a lower value is the better one; a higher score is the better one; choose" in said
    )
    assert main(["compare", *paths, "--allow", "clusters"]) == 4
    assert main(["compare", *paths, "--allow", "clusters", "--metric", "acc"]) == 0
    (cell,) = build(Path(paths[0]), Options()).rows[0].cells.values()
    assert not cell.usable and cell.reason == "toxicity is no score, a lower value is the better one"


def test_a_metric_of_points_is_a_dash_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """It was 3238.6 [2726.0, 100.0]."""
    _, said = collected(evaluated(Path("a"), [row(n, doc={}, m=20.0 + n) for n in range(5)]), capsys)
    assert "| full | – (5/5) | – |" in said and "- full, t: m is not a score between 0 and 1" in said


def test_answers_are_what_the_model_said_not_what_a_filter_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs whose answers a strict filter could not read were the same byte for byte, and PASSed."""
    paths = []
    for name, most in (("a", 70), ("b", 20)):
        rows = [
            row(n, doc={}, filter=f, m=float(f == "loose" and n < most), resps=[[f"{name} says {n}"]],
                filtered_resps=["[invalid]" if f == "strict" else str(n)])
            for f in ("strict", "loose") for n in range(100)
        ]  # fmt: skip
        paths.append(str(collected(evaluated(Path(name), rows), capsys)[0]))
    assert main(["gate", paths[1], "--baseline", paths[0], "--allow", "clusters"]) == 0
    said = capsys.readouterr().out
    assert "100 same (0 byte-identical)" in said and "the same, byte for byte" not in said


def test_of_raw_answers_all_choices_count_and_one_text_is_itself(tmp_path: Path) -> None:
    lines = [
        row(0, resps=[["Paris"]], filtered_resps=["x"]), row(1, resps=[[[-1.5, False]], [[-2.5, True]]]),
        row(2, resps=[], filtered_resps=["y"]),
    ]  # fmt: skip
    read = [line["resp_hash"] for line, _, _ in lm_eval_files.rows(written(tmp_path, lines), "t")]
    assert read == [short(s) for s in ("Paris", "[[[-1.5, False]], [[-2.5, True]]]", "y")]


def test_a_text_called_documents_names_no_documents(tmp_path: Path) -> None:
    """Its letters did, and all items shared them: no error could be estimated."""
    lines = [row(0, doc={"documents": "one text"}), row(1, doc={"documents": ["d1", {"file": "d2"}]})]
    read = [line["keys"] for line, _, _ in lm_eval_files.rows(written(tmp_path, lines), "t")]
    assert read == [{}, {"documents": ["d1", "d2"]}]


def test_runs_with_other_shots_are_other_runs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(n, doc={}) for n in range(30)]
    for name, shots in (("a", 0), ("a5", 5)):
        evaluated(Path(name), rows, shots=shots)
    assert main(["collect", "a", "a5", "-o", "r"]) == 0 and "replaces" not in capsys.readouterr().err
    heads = dict(
        reversed([(h["fingerprint_inputs"].get("num_fewshot"), f) for f, h in ledger.runs(Path("r"))])
    )
    assert set(heads) == {None, 5}
    assert main(["compare", str(heads[None]), str(heads[5]), "--allow", "clusters"]) == 4
    assert "different number of shots, '0' and '5'" in capsys.readouterr().out
    assert len({row.label for row in build(Path("r"), Options()).rows}) == 2


def test_an_evaluation_of_tasks_with_shots_of_their_own_is_one_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As leaderboards mix them; a ledger of an older version, which did not count shots, is compared with it."""
    body = {"configs": {t: {"metadata": {"version": 1.0}} for t in "tu"}, "n-shot": {"t": 5, "u": 0}}
    body["n-samples"] = {t: {"original": 30} for t in "tu"}
    out = evaluated(Path("a"), rows := [row(n, doc={}) for n in range(30)], **body)
    written(out, rows, f"samples_u_{STAMP}.jsonl")
    folder, said = collected(out, capsys)
    [(place, head)] = ledger.runs(folder)
    assert head["fingerprint_inputs"]["num_fewshot"] == {"t": 5} and "| full | 100.0" in said
    assert {n: s["num_fewshot"] for n, s in head["tasks"].items()} == {"t": 5, "u": 0}
    for sheet in head["tasks"].values():
        del sheet["num_fewshot"]
    del head["fingerprint_inputs"]["num_fewshot"]
    old = ledger.write(
        Path("older"), head | {"fingerprint": "0" * 12}, [row for _, row in ledger.rows(place / ledger.ITEMS)]
    )
    assert main(["compare", str(old), str(place), "--allow", "clusters"]) == 0


def test_one_switch_of_thoughts_is_one_however_it_is_spelled() -> None:
    def head(**args: Any) -> dict[str, Any]:
        return {"fingerprint_inputs": {"model_args": args}}

    off = thoughts(head(chat_template_args={"enable_thinking": False}))
    assert off == "enable_thinking=false" == thoughts(head(chat_template_args='{"enable_thinking": false}'))
    assert off == thoughts(head(enable_thinking="False")) != thoughts(head(enable_thinking=True))
    long = {"x" * 99: 1, "enable_thinking": True}
    assert thoughts(head(chat_template_args=long)) != thoughts(
        head(chat_template_args=long | {"enable_thinking": False})
    )
