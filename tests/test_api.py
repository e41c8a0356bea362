"""The Python API: its surface, an evaluation end to end, scores of answers from elsewhere, mistakes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import icr_tasks as icr

PUBLIC = [
    "Board",
    "EvaluationError",
    "Flag",
    "Group",
    "IcrError",
    "Item",
    "ItemSet",
    "Line",
    "Name",
    "Number",
    "Prompt",
    "Remote",
    "Results",
    "Retriever",
    "Run",
    "Setting",
    "Shown",
    "Table",
    "Task",
    "Tokens",
    "Unit",
    "Whole",
    "Word",
    "__version__",
    "benchmark",
    "board",
    "compare",
    "evaluate",
    "gate",
    "grid",
    "kv",
    "kv_method",
    "load",
    "metric",
    "metrics",
    "plan",
    "prompts",
    "retriever",
    "score",
    "tasks_dir",
    "view",
]


def test_the_public_surface_is_guarded() -> None:
    assert sorted(icr.__all__) == sorted(PUBLIC)
    for name in icr.__all__:
        found = getattr(icr, name)
        if callable(found):
            assert (inspect.getdoc(found) or "").strip(), f"icr.{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        icr.evalute  # noqa: B018


def test_importing_the_package_costs_nothing() -> None:
    code = (
        "import sys, icr_tasks; heavy = {'numpy', 'torch', 'lm_eval', 'pandas', 'yaml', 'vllm', "
        "'transformers'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", "import site; site.main();" + code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_version_is_that_of_the_package() -> None:
    from importlib import metadata

    done = subprocess.run(
        [sys.executable, "-P", "-m", "icr_tasks.cli", "--version"], capture_output=True, text=True
    )
    assert (
        icr.__version__ == metadata.version("icr-tasks") and done.stdout == f"icr-tasks {icr.__version__}\n"
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> icr.Results:
    pytest.importorskip("torch")
    import tiny

    folder = tmp_path_factory.mktemp("api")
    model = tiny.llama(folder / "model", window=8192)
    return icr.evaluate(
        "icr-hf",
        {"pretrained": str(model), "device": "cpu"},
        tasks=["icr_synth_rag_512"],
        settings=["full", "rag@1k", "kv:topk@0.05"],
        limit=3,
        gen_kwargs={"max_gen_toks": 12},
        out=folder / "out",
    )


def test_evaluate_gives_one_run_a_setting_and_rows_of_items(runs: icr.Results) -> None:
    assert [run.setting for run in runs] == ["full", "rag@1k", "kv:topk@0.05"] and len(runs[:2]) == 2
    frame = runs.to_pandas()
    assert len(frame) == 9 and set(frame["setting"]) == {"full", "rag@1k", "kv:topk@0.05"}
    assert frame["subem"].between(0, 1).all() and frame["error"].isna().all()
    assert (
        frame[frame.setting == "rag@1k"].n_prompt_tokens
        < frame[frame.setting == "full"].n_prompt_tokens.min()
    ).all()
    found = runs.to_dataset()
    assert found.num_rows == 9 and found["item"][0] == frame["item"][0]
    assert "full" in str(runs) and len(icr.load(runs.root)) == 3  # type: ignore[arg-type]


def test_each_setting_has_a_folder_of_lm_evals_output(runs: icr.Results) -> None:
    """Converters take the newest samples of a task for those of every results file in the same folder."""
    written = sorted((runs.root.parent / "lm_eval").rglob("results_*.json"))
    assert len({path.parent for path in written}) == len(written) == 3
    for path in written:
        (samples,) = path.parent.glob("samples_*.jsonl")
        sheet = json.loads(path.read_text())["configs"]["icr_synth_rag_512"]["metadata"]["icr"]
        rows = [json.loads(line) for line in samples.open()]
        sent = [json.loads(row["arguments"]["gen_args_0"]["arg_0"])["n_prompt_tokens"] for row in rows]
        whole = sheet["setting"]["text"] != "rag@1k"
        assert len(sent) == 3 and (min(sent) > 1000) is whole, (sheet["setting"]["text"], sent)


def test_board_compare_and_gate_print_as_markdown(runs: icr.Results) -> None:
    shown = icr.board(runs)
    assert (
        "| `model` | `rag@1k` |" in str(shown)
        and [t.name for t in shown.tables]
        and shown._repr_markdown_() == str(shown)
    )
    assert "synth" in str(icr.board(runs[0])).lower()
    compared = icr.compare(runs[0], runs[1])
    assert (
        compared.n == 3
        and "3 paired items" in str(compared)
        and compared.lines[0].delta.mean
        == pytest.approx(compared.lines[0].new.mean - compared.lines[0].base.mean)
    )
    refused = icr.gate(runs[0], runs[0].folder)
    assert refused.verdict == "NOT COMPARABLE" and refused.code == 4 and "partial" in str(refused)
    assert icr.gate(runs[0], runs[0], common=True).verdict in ("PASS", "INCONCLUSIVE")


def test_mistakes_are_named_before_an_engine_loads() -> None:
    for wrong, said in (
        ({"tasks": ["icr_synth_rag_513"]}, "Did you mean 'icr_synth_rag_512'"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": ["icr_synth_rag_512"], "settings": ["rag@4x"]}, "not a token count"),
        ({"tasks": ["icr_synth_rag_512"], "prompts": ["aoo"]}, "Did you mean 'ao'"),
    ):
        with pytest.raises(icr.IcrError, match=said):
            icr.evaluate("no-such-engine", **wrong)  # type: ignore[arg-type]
    with pytest.raises(icr.IcrError, match="no engine 'no-such-engine'"):
        icr.evaluate("no-such-engine", tasks=["icr_synth_rag_512"])
    with pytest.raises(icr.IcrError, match="Did you mean 'sort'"):
        icr.board([object()], sorte="x")  # type: ignore[list-item]


@pytest.mark.parametrize("limit", [0, -3, 2.5, True, "4"])
def test_a_limit_that_is_no_count_is_named(limit: object) -> None:
    with pytest.raises(icr.IcrError, match="a whole number of 1 or more"):
        icr.evaluate("icr-hf", {"pretrained": "x"}, tasks=["icr_synth_rag_512"], limit=limit)  # type: ignore[arg-type]


def test_what_score_says_is_said_in_words_of_the_function() -> None:
    with pytest.raises(
        icr.IcrError, match='the answers: 1 unknown, 100 missing ids .* missing="skip" scores'
    ) as told:
        icr.score("icr_synth_rag_512", {"0": "x"})
    assert "--allow-missing" not in str(told.value) and "jsonl" not in str(told.value)


def test_a_setting_that_fails_costs_only_itself(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import tiny

    model = tiny.llama(tmp_path / "model", window=8192)
    with pytest.raises(
        icr.EvaluationError, match=r"1 of 2 not evaluated: rag@64: .*not one passage fits"
    ) as caught:
        icr.evaluate(
            "icr-hf",
            {"pretrained": str(model), "device": "cpu"},
            tasks=["icr_synth_rag_512"],
            settings=["rag@64", "none"],
            limit=2,
            gen_kwargs={"max_gen_toks": 4},
        )
    assert [run.setting for run in caught.value.results] == ["none"] and len(
        caught.value.results.to_pandas()
    ) == 2


def test_score_takes_answers_from_anywhere(tmp_path: Path) -> None:
    from icr_tasks import benchmarks

    items = benchmarks.load("synth", "rag", "512").items
    right = {item.id: f"The answer is: {item.answers[0]}." for item in items}
    assert icr.score("icr_synth_rag_512", right)["subem"] == 1.0
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"id": i, "prediction": t}) + "\n" for i, t in right.items()))
    assert icr.score("icr_synth_rag_512", path)["subem"] == 1.0
    half = dict(list(right.items())[:50])
    with pytest.raises(icr.IcrError, match="50 missing"):
        icr.score("icr_synth_rag_512", half)
    assert icr.score("icr_synth_rag_512", half, missing="skip")["subem"] == 1.0
    with pytest.raises(icr.IcrError, match="1 unknown"):
        icr.score("icr_synth_rag_512", {**right, "0": "x"})
    with pytest.raises(icr.IcrError, match="Did you mean 'skip'"):
        icr.score("icr_synth_rag_512", half, missing="skp")


def test_the_order_of_settings_changes_no_answer(runs: icr.Results, tmp_path: Path) -> None:
    import tiny

    again = icr.evaluate(
        "icr-hf",
        {"pretrained": str(tiny.llama(tmp_path / "model", window=8192))},
        tasks=["icr_synth_rag_512"],
        settings=["kv:topk@0.05", "rag@1k", "full"],
        limit=3,
        gen_kwargs={"max_gen_toks": 12},
    )
    answers = {run.setting: run.tasks["icr_synth_rag_512"].resp_hash.tolist() for run in runs}
    assert {run.setting: run.tasks["icr_synth_rag_512"].resp_hash.tolist() for run in again} == answers
    assert len({tuple(hashes) for hashes in answers.values()}) > 1  # the settings do differ
