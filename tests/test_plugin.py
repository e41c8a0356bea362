"""Somebody else's package (tests/plugin), built as a wheel, installed, and driven through every command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLUGIN = HERE / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel, as `pip install --target` makes it."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, root / "source")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root / "dist"), "."]
    subprocess.run(build, cwd=root / "source", check=True, capture_output=True)
    (wheel,) = (root / "dist").glob("*.whl")
    assert wheel.name == "icr_codes-1.2-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(root / "site")], check=True)
    return root / "site"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    folder = tmp_path_factory.mktemp("work")
    tiny.llama(folder / "model", window=8192)
    return folder


class Run:
    """Commands in a process of their own, with the plugin installed."""

    def __init__(self, site: Path, work: Path) -> None:
        self.work = work
        paths = os.pathsep.join([str(site), str(HERE)])
        self.env = {
            **os.environ,
            "PYTHONPATH": paths,
            "XDG_CACHE_HOME": str(work / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        self.env.pop("ICR_DATA_DIR", None)

    def __call__(self, *command: str, code: int = 0, **env: str) -> str:
        named = (
            [sys.executable, "-P", "-m", "icr_tasks.cli", *command[1:]] if command[0] == "icr" else [*command]
        )
        if command[0] == "lm_eval":
            named = [sys.executable, "-P", "-m", "lm_eval", *command[1:]]
        done = subprocess.run(
            named, cwd=self.work, env={**self.env, **env}, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == code, (
            f"{command}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(site: Path, work: Path) -> Run:
    return Run(site, work)


def test_each_kind_is_one_file_of_at_most_sixty_lines() -> None:
    for path in (PLUGIN / "icr_codes").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path.name


def test_without_data_the_fetch_command_is_named(run: Run) -> None:
    said = run(
        "icr",
        "prepare",
        "--tasks",
        "icr_my_benchmark_codes_512",
        "--setting",
        "rag@256,shared",
        "--tokenizer",
        "model",
        code=2,
    )
    assert "icr data fetch my_benchmark" in said


def test_data_fetch(run: Run) -> None:
    assert "my_benchmark/codes.jsonl" in run("icr", "data", "fetch", "my_benchmark", "--dry-run")
    run("icr", "data", "fetch", "my_benchmark", "--from", str(PLUGIN / "data"))
    assert (run.work / "cache" / "icr-tasks" / "data" / "my_benchmark" / "codes.jsonl").is_file()
    assert "Did you mean 'my_benchmark'" in run("icr", "data", "fetch", "my_benchmrk", code=2)


def test_lm_eval_lists_and_runs_it(run: Run) -> None:
    assert "icr_my_benchmark_codes_512" in run("lm_eval", "ls", "tasks")
    assert len(run("icr", "tasks-path").splitlines()) == 2
    for setting in ("full", "rag@512,shared,letters=5", "kv:smallnorm@0.6,power=3"):
        run(
            "lm_eval",
            "run",
            "--tasks",
            "icr_my_benchmark_codes_512",
            "--model",
            "icr-hf",
            "--model_args",
            "pretrained=model",
            "--metadata",
            json.dumps({"setting": setting}),
            "--limit",
            "4",
            "--gen_kwargs",
            "max_gen_toks=8",
            "--apply_chat_template",
            "--output_path",
            "out",
            "--log_samples",
        )
    said = run("icr", "collect", "out", "-o", "results")
    assert "rag@512,shared,letters=5" in said and "kv:smallnorm@0.6,power=3.0" in said
    heads = [json.loads(p.read_text()) for p in (run.work / "results").rglob("run.json")]
    sheet = heads[0]["tasks"]["icr_my_benchmark_codes_512"]
    assert len(heads) == 3 and sheet["metric"] == "numeric" and sheet["title"] == "Codes"
    assert heads[0]["plugins"] == {"codes": "icr-codes 1.2"}


def test_prepare_rank_sweep_score_board_compare(run: Run) -> None:
    said = run(
        "icr",
        "prepare",
        "--tasks",
        "icr_my_benchmark_codes_512",
        "--setting",
        "rag@512,shared",
        "--tokenizer",
        "model",
    )
    assert "icr_my_benchmark_codes_512" in said
    ranked = run(
        "icr",
        "rank",
        "--model",
        "model",
        "--tasks",
        "icr_my_benchmark_codes_512",
        "--limit",
        "3",
        "-o",
        "rank",
    )
    assert "icr_my_benchmark_codes_512" in ranked
    (run.work / "study.yaml").write_text(
        "out: study\nlimit: 3\ntasks: [icr_my_benchmark]\nsettings: [full, 'kv:smallnorm@0.6']\n"
        "models: [{name: tiny, model: icr-hf, model_args: {pretrained: model}, device: cpu}]\ngen_kwargs: "
        "{max_gen_toks: 8}\n"
    )
    run("icr", "sweep", "study.yaml")
    rows = [json.loads(line) for line in (PLUGIN / "data" / "codes.jsonl").read_text().splitlines()[:12]]
    right = "".join(json.dumps({"id": r["name"], "prediction": f"It is {r['code']}."}) + "\n" for r in rows)
    (run.work / "answers.jsonl").write_text(right)
    said = run("icr", "score", "--task", "icr_my_benchmark_codes_512", "--predictions", "answers.jsonl")
    assert "numeric" in said and "100" in said
    board = run("icr", "board", "results", "--partial")
    assert "Codes" in board and "Complete cells" in board and "smallnorm" in board
    prints = sorted(p.parent.name for p in (run.work / "results").rglob("run.json"))
    assert "paired items" in run(
        "icr", "compare", prints[0], prints[1], "--results", "results", "--common-items"
    )


def test_icr_plugins_limits_what_is_imported(run: Run) -> None:
    assert "my_benchmark" not in run("icr", "tasks-path", ICR_PLUGINS="off").replace("icr-tasks", "")
    said = run("icr", "sweep", "study.yaml", code=2, ICR_PLUGINS="off")
    assert "unknown task 'icr_my_benchmark'" in said and "ICR_PLUGINS=off" in said
    code = "import icr_tasks as icr; print(icr.Setting.parse('rag@4k,shared,letters=7'), icr.Setting.parse('kv:smallnorm'))"
    assert "rag@4k,shared,letters=7 kv:smallnorm@0.5" in run(sys.executable, "-P", "-c", code)
    assert "Did you mean 'letters'" in run(
        sys.executable, "-P", "-c", code.replace("letters", "leters"), code=1
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("import icr_tasks as icr\n@icr.metric('subem')\ndef f(a, i): ...", "one of icr-tasks itself"),
        (
            "import icr_tasks as icr\n@icr.retriever('bm25')\nclass R(icr.Retriever): ...",
            "registered twice, by icr-tasks itself",
        ),
        (
            "import icr_tasks as icr\n@icr.benchmark('half', title='Half', metrics=icr.metrics.QA, "
            "prompts=icr.prompts.HELMET)\n"
            "class B: tasks = []",
            "does not say units, marks_gold, chance, load, files",
        ),
    ],
)
def test_a_broken_plugin_is_named_in_one_sentence_and_breaks_nothing(
    run: Run, tmp_path: Path, source: str, said: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    info = tmp_path / "broken-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[icr_tasks]\nbroken = broken\n")
    paths = os.pathsep.join([str(tmp_path), run.env["PYTHONPATH"]])
    found = run("icr", "data", "fetch", "synth", PYTHONPATH=paths)
    assert "plugin 'broken' is not used" in found and said in found and found.count("plugin 'broken'") == 1
    assert "needs no files" in found
