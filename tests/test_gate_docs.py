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
out.mkdir(parents=True)
model = sys.argv[sys.argv.index("--model_args") + 1].split("=")[1]
setting = json.loads(sys.argv[sys.argv.index("--metadata") + 1])["setting"]
task, stamp = "icr_helmet_rag_nq_4k", "2026-01-01T00-00-00"
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

    def __call__(self, script: str, **environment: str) -> tuple[int, str]:
        base = {
            **os.environ,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }
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
        "icr": f"#!{sys.executable}\nfrom icr_tasks.cli import main\nraise SystemExit(main())\n",
        "pip": "#!/bin/sh\nexit 0\n",
    }
    for name, text in scripts.items():
        (shell.tools / name).write_text(text)
        (shell.tools / name).chmod(0o755)
    evaluate = 'lm_eval --model icr-vllm --model_args pretrained=org/base --metadata \'{"setting":"full"}\''
    begin = f"""git init -q -b main . && {evaluate} --apply_chat_template --log_samples --output_path first
        icr collect first && rm -r first && icr baseline set main results
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
        return [step["run"] for step in snippet["jobs"]["gate"]["steps"] if "run" in step]
    return snippet["gate"]["script"]


@pytest.mark.parametrize(
    ("wrong", "code", "verdict"), [("0", 0, "PASS"), ("60", 1, "REGRESSED"), ("3", 3, "INCONCLUSIVE")]
)
def test_github_workflow(shell: Shell, wrong: str, code: int, verdict: str) -> None:
    *before, gate = _steps(_snippets()[0])
    for step in before:
        assert (done := shell(step, WRONG=wrong, CHECKPOINT="org/new"))[0] == 0, done[1]
    found, out = shell(gate)
    assert (found, f"→ {verdict}" in out) == (code, True), out
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
