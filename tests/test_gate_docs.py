"""The CI recipes of docs/gate.md, run as far as that goes without the services: real git, bash and icr, a
stand-in lm_eval."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import gatekit
import pytest
import yaml

DOC = Path(__file__).parents[1] / "docs/gate.md"

# stands in for lm_eval: writes one small HELMET task into --output_path; $WRONG of its 120 answers are wrong
LM_EVAL = """#!{python} -S
import json, os, pathlib, sys
flags = [a for a in sys.argv[1:] if a.startswith("--")]
assert "--log_samples" in flags and "--apply_chat_template" in flags
out = pathlib.Path(sys.argv[sys.argv.index("--output_path") + 1])
out.mkdir(parents=True, exist_ok=True)
args = dict(pair.split("=") for pair in sys.argv[sys.argv.index("--model_args") + 1].split(","))
model = args["pretrained"]
setting = json.loads(sys.argv[sys.argv.index("--metadata") + 1])["setting"]
task, stamp = "icr_helmet_rag_nq_4k", f"2026-01-01T00-00-{{len(setting):02}}"
sheet = {{"benchmark": "helmet_rag", "dataset": "nq", "length": "4k", "metric": "subem", "metric_version": 1,
         "data_revision": "r", "n_expected": 120, "prompt": "ao",
         "setting": {{"text": setting, "kind": setting, "method": None, "amount": None, "params": {{}}}}}}
results = {{"configs": {{task: {{"metadata": {{"icr": sheet}}}}}}, "versions": {{task: "1-A"}},
           "config": {{"model": "icr-vllm", "model_args": {{"pretrained": model}}}}}}
(out / f"results_{{stamp}}.json").write_text(json.dumps(results))
with (out / f"samples_{{task}}_{{stamp}}.jsonl").open("w") as file:
    for i in range(120):
        score = float(i % 10 > 1 and i >= int(os.environ["WRONG"]))
        row = {{"doc_id": i, "doc": {{"id": f"q{{i}}", "cluster": f"q{{i}}"}}, "arguments": {{}}, "filter": "none",
               "filtered_resps": [f"answer {{score}}"], "metrics": ["subem"], "subem": score,
               "doc_hash": f"{{i:064x}}", "prompt_hash": f"{{i + 1:064x}}", "target_hash": f"{{i + 1:064x}}"}}
        file.write(json.dumps(row) + "\\n")
"""


def _snippets() -> list[dict]:
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOC.read_text(), re.S)]
    assert len(found) == 2
    return found


class Shell:
    """A repository with a pinned baseline on main and a branch without it; `shell(script)` -> (exit code,
    output)."""

    def __init__(self, root: Path) -> None:
        self.repo, self.summary, self.tools = root / "repo", root / "summary.md", root / "bin"
        self.path, self.data = root / "github_path", root / "fetched"

    def __call__(self, script: str, **environment: str) -> tuple[int, str]:
        base = {
            **os.environ,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }
        if environment.pop("FRESH", None):  # a runner: what steps added to its path, git and a bare python3
            added = self.path.read_text().split() if self.path.exists() else []
            base["PATH"] = ":".join([*added, str(self.tools.parent / "python"), "/usr/bin", "/bin"])
            base |= {"GITHUB_PATH": str(self.path), "RUNNER_TEMP": str(self.tools.parent / "temp")}
        base |= {
            f"GIT_{who}_{what}": "x@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        command = ["bash", "-eo", "pipefail", "-c", script]
        env = {**base, "WRONG": "0", **environment}
        done = subprocess.run(command, cwd=self.repo, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ci")
    shell = Shell(root)
    shell.repo.mkdir()
    shell.tools.mkdir()
    scripts = {
        "lm_eval": LM_EVAL.format(python=sys.executable),
        # fetching data is all that needs the network: noted instead
        "icr": f"#!{sys.executable}\nimport sys, pathlib\nfrom icr_tasks.cli import main\n"
        "note = pathlib.Path(__file__).parents[1] / 'fetched'\n"
        "if sys.argv[1:3] == ['data', 'fetch']:\n    note.write_text(sys.argv[3])\n    raise SystemExit(0)\n"
        "raise SystemExit(main())\n",
        "pip": "#!/bin/sh\nexit 0\n",
    }
    for name, text in scripts.items():
        (shell.tools / name).write_text(text)
        (shell.tools / name).chmod(0o755)
    # `python3 -m venv DIR` of a fresh runner: a folder whose pip "installs" our commands
    (root / "python").mkdir()
    venv = root / "python/python3"
    venv.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exit 9\nmkdir -p "$3" && cp -r "{shell.tools}" "$3/bin"\n'
    )
    venv.chmod(0o755)
    evaluate = "lm_eval --model icr-vllm --model_args pretrained=org/base --apply_chat_template --log_samples"
    begin = f"""git init -q -b main .
        {evaluate} --metadata '{{"setting":"full"}}' --output_path first
        {evaluate} --metadata '{{"setting":"rag@16k"}}' --output_path first
        icr collect first && rm -r first
        for run in results/*/*/*; do icr baseline set main $run; done
        git add -A && git commit -qm baseline && git update-ref refs/remotes/origin/main HEAD
        git checkout -qb work && git rm -q baselines/main.json && git commit -qm sly"""
    code, out = shell(begin)
    assert code == 0, out
    return root


@pytest.fixture
def shell(made: Path, tmp_path: Path) -> Shell:
    shutil.copytree(made, tmp_path / "ci")
    return Shell(tmp_path / "ci")


def _steps(snippet: dict) -> list[str]:
    if "jobs" in snippet:
        return [s["run"] for s in snippet["jobs"]["gate"]["steps"] if "run" in s and "if" not in s]
    return snippet["gate"]["script"]


@pytest.mark.parametrize(
    ("wrong", "code", "verdict"), [("0", 0, "PASS"), ("60", 1, "REGRESSED"), ("3", 3, "INCONCLUSIVE")]
)
def test_github_workflow(shell: Shell, wrong: str, code: int, verdict: str) -> None:
    workflow = _snippets()[0]
    *before, gate = _steps(workflow)
    job = workflow["jobs"]["gate"]
    runner = {"FRESH": "1", "WINDOW": str(job["env"]["WINDOW"]), "CHECKPOINT": "org/new", "WRONG": wrong}
    for step in before:
        assert (done := shell(step, **runner))[0] == 0, done[1]
    assert (shell.tools.parent / "temp/icr/fetched").read_text() == "helmet"
    found, out = shell(gate, **runner)
    assert (found, f"→ {verdict}: 2 runs" in out) == (code, True), out
    assert job["timeout-minutes"] > 360 and "pull-requests" in job["permissions"]
    [comment] = [s for s in job["steps"] if "pull_request" in str(s.get("if"))]
    body = comment["run"].split("--body-file ")[1]
    assert "rag@16k" in (shell.repo / body).read_text()
    assert verdict in shell.summary.read_text()
    artifact = _snippets()[0]["jobs"]["gate"]["steps"][-1]["with"]["path"].split()
    assert all((shell.repo / name).exists() for name in artifact)


def test_github_workflow_notices_an_evaluation_that_wrote_nothing(shell: Shell) -> None:
    assert shell("icr collect out -o results-new", CHECKPOINT="org/new")[0] == 2
    shell("git checkout main -q -- baselines; mkdir results-new")
    code, out = shell("icr gate results-new --baseline main")
    assert code == 4 and "NOT COMPARABLE" in out


def test_gitlab_job(shell: Shell) -> None:
    snippet = _snippets()[1]
    shell("git checkout -q main -- baselines")
    script = "\n".join(_steps(snippet))
    code, out = shell(script, WRONG="3", CHECKPOINT="org/new")
    assert code == 3 and code in snippet["gate"]["allow_failure"]["exit_codes"], out
    report = shell.repo / snippet["gate"]["artifacts"]["reports"]["junit"]
    assert ElementTree.parse(report).getroot().get("failures") == "1"


def test_documented_terminal_block_has_the_real_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from icr_tasks.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    main(["baseline", "set", "main", str(gatekit.write(Path("results"), gatekit.rows(), model="qwen-base"))])
    capsys.readouterr()
    main(
        [
            "gate",
            str(gatekit.write(Path("new"), gatekit.rows(1, 0.4), model="qwen-grpo")),
            "--baseline",
            "main",
        ]
    )
    out = capsys.readouterr().out.rstrip().splitlines()
    documented = re.search(r"```\n(icr gate  .*?)\n```", DOC.read_text(), re.S)
    assert documented and documented[1].splitlines() == out
