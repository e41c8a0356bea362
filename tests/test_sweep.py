"""Studies: checked before anything runs, one engine load a model, what fails does not stop the rest."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from icr_tasks.cli import main
from icr_tasks.engines import answers
from icr_tasks.errors import IcrError
from icr_tasks.sweep import cells, executors, progress, records, runner
from icr_tasks.sweep import study as studies

TOY = {"name": "toy", "model": "counting", "model_args": {"pretrained": "counting", "tokenizer": "none"}}
BODY = {
    "models": [TOY],
    "tasks": ["icr_synth_rag_512"],
    "prompts": ["ao"],
    "limit": 4,
    "imports": ["sweep_models"],
}


def write(folder: Path, **changes: Any) -> Path:
    """A study file with these keys changed; None removes a key. Its models stand beside it for worker
    processes."""
    body = {k: v for k, v in {**BODY, "out": str(folder / "out"), **changes}.items() if v is not None}
    shutil.copy(Path(__file__).with_name("sweep_models.py"), folder)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"setings": ["full"]}, "unknown key 'setings'. Did you mean 'settings'"),
        (
            {"models": [{**TOY, "modle_args": {}}]},
            r"models\[0\]: unknown key 'modle_args'. Did you mean 'model_args'",
        ),
        ({"tasks": [{"task": "icr_synth_rag_512", "limits": 3}]}, "Did you mean 'limit'"),
        ({"tasks": ["icr_synth_rag_513"]}, "Did you mean 'icr_synth_rag_512'"),
        ({"settings": ["golden"]}, "Did you mean 'gold'"),
        ({"settings": ["kv:topkk@0.1"]}, "Did you mean 'topk'"),
        ({"prompts": ["aoo"]}, "Did you mean 'ao'"),
        (
            {"settings": ["gold"], "tasks": ["icr_infbench_qa"], "prompts": None},
            "does not mark gold passages",
        ),
        ({"models": None}, "`models` is missing"),
        ({"limit": 0}, "`limit` must be at least 1"),
        ({"limit": "4"}, "`limit` must be a number"),
        ({"metadata": {"setting": "gold"}}, "in a study it is an axis"),
        ({"metadata": {"alow_partial": True}}, "did you mean 'allow_partial'"),
        ({"models": [TOY, TOY]}, "two models are called 'toy'"),
        ({"tasks": ["icr_synth_rag", "icr_synth_rag_4k"]}, "stands twice"),
        ({"out": "$ICR_NO_SUCH_VARIABLE/x"}, "ICR_NO_SUCH_VARIABLE is not set"),
        ({"settings": []}, "`settings` is empty"),
        ({"settings": [512]}, "holds 512, which is no name"),
    ],
)
def test_a_bad_study_is_refused_with_the_fix(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(IcrError, match=words):
        cells.matrix(studies.load(write(tmp_path, **changes)))


def test_broken_yaml_doubled_keys_and_unknown_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path)
    path.write_text("models: [a]\ntasks: [b]\ntasks: [c]\n")
    assert main(["sweep", str(path)]) == 2 and "stands twice" in capsys.readouterr().err
    path.write_text("models: [a\n")
    assert main(["sweep", str(path)]) == 2
    said = capsys.readouterr().err
    assert "not valid YAML: line 2, column 1" in said and said.count("\n") == 1, said
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2 and "cannot read" in capsys.readouterr().err
    path = write(tmp_path, models=[{**TOY, "model_args": "a=1,b={"}])
    assert main(["sweep", str(path)]) == 2 and "b={ is not valid YAML" in capsys.readouterr().err
    path = write(tmp_path, models=[{**TOY, "model": "countingg"}])
    assert main(["sweep", str(path)]) == 2 and "Did you mean 'counting'" in capsys.readouterr().err
    assert main(["sweep", str(path), "--only", "nothing"]) == 2 and "no cell" in capsys.readouterr().err


def test_matrix_levels_groups_and_engines(tmp_path: Path) -> None:
    other = {
        "model": "vllm",
        "model_args": "pretrained=org/b,max_model_len=4096",
        "settings": ["full", "kv:fp8"],
    }
    tasks = [
        "icr_infbench",
        {"task": "icr_synth_rag_1k", "settings": ["none"], "limit": 2, "gen_kwargs": {"max_gen_toks": 9}},
    ]
    found = cells.matrix(
        studies.load(write(tmp_path, models=[TOY, other], tasks=tasks, prompts=None, settings=["full"]))
    )
    assert len(found) == 3 + 1 + 3 * 2 + 1
    by = {c.where: c for c in found}
    assert all((c.args.get("kv_cache_dtype") == "fp8") is (c.setting == "kv:fp8") for c in found)
    small = by["toy", "none", "ao", "icr_synth_rag_1k"]
    assert (small.limit, small.gen_kwargs) == (2, {"max_gen_toks": 9})
    assert len({c.load_key for c in found}) == 3  # toy, b, b with the other cache type
    assert len({c.fingerprint for c in found}) == len(found)
    split = executors.parts(found, 1)
    assert len(split) == 3 and all(len({c.load_key for c in part}) == 1 for part in split)
    assert (
        sum(len(part) for part in executors.parts(found, 6)) == len(found)
        and len(executors.parts(found, 6)) > 3
    )


def test_fingerprint_follows_answers_not_speed_or_secrets(tmp_path: Path) -> None:
    def fingerprint(**args: Any) -> str:
        model = {**TOY, "model_args": {**TOY["model_args"], **args}}
        return cells.matrix(studies.load(write(tmp_path, models=[model])))[0].fingerprint

    plain = fingerprint()
    assert plain == fingerprint(tensor_parallel_size=8) == fingerprint(gpu_memory_utilization=0.5)
    assert plain != fingerprint(dtype="float16") and fingerprint(api_key="a") == fingerprint(api_key="b")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"1" * 9_000_000)
    before = fingerprint(pretrained=str(weights))
    (weights / "model.safetensors").write_bytes(b"2" + b"1" * 8_999_999)
    assert fingerprint(pretrained=str(weights)) != before  # trained on in the same folder


def test_a_dry_run_names_missing_data_once_with_the_command_that_fetches_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ICR_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path, settings=["full", "none", "rag@1k"], tasks=["icr_helmet_rag_nq_4k"])
    assert main(["sweep", str(path), "-n"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("no data at") == 1 and " and 2 more: no data at" in shown
    assert "icr data fetch helmet --datasets nq --lengths 4k" in shown


def test_a_study_from_dry_run_to_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTING_LOG", str(tmp_path / "calls"))
    path = write(tmp_path, settings=["full", "none", "rag@1k"])
    tiny.tokenizer().save_pretrained(tmp_path / "tok")
    args = {"pretrained": "counting", "tokenizer": str(tmp_path / "tok"), "max_model_len": 8192}
    path = write(tmp_path, settings=["full", "none", "rag@1k"], models=[{**TOY, "model_args": args}])
    assert main(["sweep", str(path), "-n", "--rate", "1000", "--sample", "0"]) == 0
    shown = capsys.readouterr().out
    assert (
        "to do: 3 of 3 cells, 12 items" in shown
        and "time: about" in shown
        and not (tmp_path / "calls").exists()
    )
    assert main(["status", str(path)]) == 0 and "3 missing of 3 cells" in capsys.readouterr().out
    assert main(["sweep", str(path), "--only", "none"]) == 0
    capsys.readouterr()
    assert main(["status", str(path), "--json"]) == 0
    states = {s["setting"]: s["state"] for s in json.loads(capsys.readouterr().out)}
    assert states == {"full": "missing", "none": "done", "rag@1k": "missing"}
    assert main(["sweep", str(path)]) == 0
    out = capsys.readouterr()
    assert "3 cells, 1 done before" in out.err and "| rag@1k |" in out.out
    lines = len((tmp_path / "calls").read_text().splitlines())
    assert lines == 12
    assert main(["sweep", str(path)]) == 0 and len((tmp_path / "calls").read_text().splitlines()) == lines
    changed = write(
        tmp_path, settings=["full"], models=[{**TOY, "model_args": args}], gen_kwargs={"max_gen_toks": 7}
    )
    capsys.readouterr()
    assert main(["status", str(changed), "--check"]) == 1
    shown = capsys.readouterr().out
    assert "1 stale" in shown and "made with other gen_kwargs.max_gen_toks" in shown and "icr sweep" in shown


def test_one_bad_prompt_one_broken_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three models in three worker processes: the good one is whole, the bad prompt costs its item, exit
    1."""
    from icr_tasks import benchmarks

    item = benchmarks.load("synth", "rag", "512").items[1]
    models = [
        TOY,
        {**TOY, "name": "poisoned", "model_args": {**TOY["model_args"], "poison": item.question}},
        {**TOY, "name": "broken", "model_args": {**TOY["model_args"], "broken": True}},
    ]
    path = write(tmp_path, models=models)
    assert main(["sweep", str(path), "--jobs", "3"]) == 1
    found = {s.model: s for s in records.states(studies.load(path))}
    assert (found["toy"].state, found["toy"].n_done) == ("done", 4)
    assert (found["poisoned"].state, found["poisoned"].n_done) == ("partial", 3)
    assert "this prompt is poison" in found["poisoned"].note
    assert found["broken"].state == "error" and "no such weights" in found["broken"].note
    assert found["broken"].command == f"icr sweep {path} --only {found['broken'].fingerprint}"
    assert (
        f"2 of 3 cells are not done; `icr status {path}` shows why; go on with: icr sweep {path} --jobs 3\n"
        in (capsys.readouterr().err)
    )


def test_the_command_to_go_on_with_is_the_one_that_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --only, which else everything would run, with -o, which else all is missing, and as a shell takes it."""
    (tmp_path / "mit Räume").mkdir()
    path = write(
        tmp_path / "mit Räume", models=[{**TOY, "model_args": {**TOY["model_args"], "broken": True}}]
    )
    other = tmp_path / "other out"
    assert main(["sweep", str(path), "-o", str(other), "--only", "icr_synth"]) == 1
    said = capsys.readouterr().err
    assert f"`icr status '{path}' -o '{other}'` shows why" in said
    assert f"go on with: icr sweep '{path}' -o '{other}' --only icr_synth\n" in said
    [state] = records.states(studies.load(path, other))
    assert state.command == f"icr sweep '{path}' -o '{other}' --only {state.fingerprint}"
    [missing] = records.states(studies.load(path))
    assert missing.command == f"icr sweep '{path}' --only {state.fingerprint}"


@pytest.mark.parametrize("step", ["_requests", "_keep"])
def test_a_full_disk_stops_the_sweep_wherever_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    """While prompts are built (the index of a data file) or a cell's output is moved: exit 2 with a sentence, and no
    cell is marked as failed."""
    path = write(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, step, full)
        assert main(["sweep", str(path)]) == 2
    assert "stopped: cannot write (No space left on device)" in capsys.readouterr().err
    assert [s.state for s in records.states(studies.load(path))] in (["missing"], ["partial"])
    assert main(["sweep", str(path)]) == 0


def test_slurm_through_submitit(tmp_path: Path) -> None:
    """The Slurm executor on submitit's own local cluster."""
    pytest.importorskip("submitit")
    path = write(tmp_path, slurm={"cluster": "local", "timeout_min": 5})
    assert main(["sweep", str(path), "--executor", "slurm"]) == 0
    assert [s.state for s in records.states(studies.load(path))] == ["done"]
    assert list((tmp_path / "out" / "slurm").glob("*_result.pkl"))


def test_a_job_that_breaks_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs start in a folder whose `icr_tasks` is not the installed package, and one of them cannot start."""
    pytest.importorskip("submitit")
    (tmp_path / "icr_tasks").mkdir()
    (tmp_path / "icr_tasks" / "__init__.py").write_text("raise ImportError('not the installed package')")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, slurm={"cluster": "local", "timeout_min": 5})
    assert main(["sweep", str(path), "--executor", "slurm"]) == 0
    monkeypatch.setattr(executors, "command", lambda study, part: [str(tmp_path / "no-such-python")])
    path = write(tmp_path, slurm={"cluster": "local", "timeout_min": 5}, limit=3)
    assert main(["sweep", str(path), "--executor", "slurm"]) == 1
    assert "no-such-python" in capsys.readouterr().err


class _Request:
    task_name, doc_id = "t", 0

    def __init__(self, prompt: str, **kwargs: Any) -> None:
        self.args = (prompt, kwargs)


def test_order_keeps_documents_together() -> None:
    documents = [f"{name} {'text ' * n}" for name, n in (("a", 2000), ("b", 300), ("c", 40), ("d", 2000))]
    asked = [_Request(f"{documents[i % 4]}Question {i}?") for i in range(40)]
    order = answers.by_prefix(asked, range(40))
    groups = [i % 4 for i in order]
    assert sorted(order) == list(range(40))
    changes = sum(a != b for a, b in zip(groups, groups[1:], strict=False))
    assert changes == 3  # each document once, in one stretch


def test_progress_counts_tokens_and_estimates() -> None:
    assert [progress.clock(s) for s in (3, 65, 3725)] == ["3s", "1m05s", "1h02m"]
    [cell] = cells.matrix(
        studies.Study(
            Path("s"), Path("o"), [{**TOY, "tasks": None}], [{"task": "icr_synth_rag_4k", "limit": 10}], {}
        )
    )
    assert progress.guess(cell) == (10, 10 * (4096 + 300))
    bar = progress.Progress([cell])
    assert bar.eta() is None
    bar.built(cell, 10, 1000)
    bar._busy = 2.0
    for _ in range(4):
        bar.item(cell, 100, False)
    assert bar.speed() == 200.0 and bar.eta() == pytest.approx(3.0)
