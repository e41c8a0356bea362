"""Every command of the README is run by a test; this one keeps the list complete and the options real, and runs the
Python in it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from icr_tasks.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
STARTS = ("icr ", "lm_eval ", "make ", "pip ", "ICR_KV=", "inspect eval ", ".venv/bin/icr ")
# beginning of a command -> (test file that runs it, words to be found there)
RUN_BY = {
    "make demo": ("test_engine_vllm.py", ["demo"]),
    "make test": ("../.ci/run", ["make test"]),
    "pip install": ("../.ci/run", ["wheel"]),
    "icr data fetch helmet": ("test_fetch.py", ["fetch", "helmet", "--datasets", "--lengths"]),
    "lm_eval --tasks icr_helmet_rag_nq_4k --model vllm": (
        "test_engine_vllm.py",
        ["icr_helmet_rag_nq_4k", "vllm"],
    ),
    "lm_eval --tasks icr_helmet_rag --model vllm": ("test_discovery.py", ["icr_helmet_rag"]),
    "lm_eval --model icr-api --model_args model=M,base_url=": ("test_served.py", ["icr-api", "base_url"]),
    "lm_eval ls tasks": ("test_discovery.py", ["ls", "tasks"]),
    "icr plan --tasks": ("test_plan.py", ["plan", "--settings", "--margin"]),
    "icr collect out -o results": ("test_gate_docs.py", ["icr collect"]),
    "icr board results/ -o board/": ("test_board.py", ["board", "-o"]),
    ".venv/bin/icr board results --view use": ("test_study.py", ["board", "--view", "use"]),
    "icr baseline set main": ("test_gate_docs.py", ["icr baseline set main"]),
    "icr check results/": ("test_check.py", ["check"]),
    "inspect eval icr_tasks/": ("test_hosts_inspect.py", ["inspect"]),
    "icr doctor": ("test_doctor.py", ["doctor"]),
    "icr publish results/ --to site/": ("test_publish.py", ["publish", "--to"]),
    "icr export eee results/ -o out": ("test_export.py", ["export", "eee"]),
    "icr sweep study.yaml": ("test_sweep.py", ["sweep"]),
    "icr status study.yaml": ("test_sweep.py", ["status"]),
    "icr prepare": ("test_retrieve_prepare.py", ["prepare"]),
    "ICR_KV=topk@0.05 lm_eval --model vllm": ("test_kv_vllm.py", ["ICR_KV", "topk@0.05"]),
    "icr rank --model MODEL": ("test_rank.py", ["rank", "--model"]),
    "icr compare A B": ("test_compare.py", ["compare"]),
    "icr gate CANDIDATE --baseline main": ("test_gate.py", ["gate", "--baseline"]),
    "icr judge serve --model MODEL": ("test_judge_engine.py", ["judge", "serve"]),
    "icr score --task icr_infbench_mc": ("test_metrics_official.py", ["infbench_mc"]),
    "icr train data": ("test_training_data.py", ["train", "data"]),
    "icr train grpo grpo_ao.yaml": ("test_training_grpo.py", ["grpo"]),
    "icr train study study.yaml": ("test_training_study.py", ["study"]),
    "make train-demo": ("test_training_demo.py", ["train", "demo"]),
}


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks; "" are commands."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.S | re.M)


def in_blocks() -> list[str]:
    """Command lines of the blocks, continued lines joined, comments dropped."""
    text = "\n".join(body for language, body in blocks() if not language).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.strip()]


def commands() -> list[str]:
    """Commands in blocks and in inline code."""
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))
    return [re.sub(r"\s+", " ", c) for c in (*in_blocks(), *(c for c in inline if c.startswith(STARTS)))]


def test_blocks_are_commands_or_python() -> None:
    assert {language for language, _ in blocks()} == {"", "python"}
    assert not [line for line in in_blocks() if not line.startswith(STARTS)]


def test_first_screen_is_a_sentence_a_picture_two_commands_and_their_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = TEXT.split("\n## ")[0]
    picture = re.search(r"<picture>.*</picture>", first)
    assert picture and "prefers-color-scheme: dark" in picture[0]
    for name in re.findall(r'src(?:set)?="([^"]+)"', picture[0]):
        assert (ROOT / name).stat().st_size < 60_000, name
    assert len([body for language, body in blocks() if not language][0].strip().splitlines()) == 2
    assert main(["board", str(ROOT / "results"), "--view", "use"]) == 0
    said = next(part for part in capsys.readouterr().out.split("\n\n") if part.startswith("At every length"))
    assert f"\n\n> {said}\n\n" in first
    assert not [half for half in re.findall(r"±(\d+)", TEXT) if int(half) > 25]


@pytest.mark.parametrize("line", in_blocks())
def test_nothing_needs_gnu_tools(line: str) -> None:
    """Options that BSD's tools (macOS) do not have, and shells that are not bash."""
    gnu = r"sed -i(?! ''| \.)|readlink -f|grep -[a-zA-Z]*P|xargs -r|date -d|cp -t|sort -V|\b(timeout|nproc|tac) |<\(|\[\["
    assert not re.search(gnu, line)


def test_what_is_not_on_an_index_is_not_installed_from_one() -> None:
    found = [shlex.split(line)[2:] for line in in_blocks() if line.startswith("pip install")]
    assert found and all(what.startswith((".", "git+")) for words in found for what in words[-1:])
    assert "pip install icr-tasks" not in TEXT and 'pip install "icr-tasks' not in TEXT


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_a_block_installs_what_it_uses(page: str) -> None:
    """Who copies a block must not meet a missing package hours later: retrieval and pictures are extras."""
    for body in re.findall(r"^```\w*\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M):
        extras = {one for told in re.findall(r"install.*?\[([\w,-]+)\]", body) for one in told.split(",")}
        if extras & {"vllm", "hf"}:
            assert "rag@" not in body or "rag" in extras, page
            assert not re.search(r"icr board .*-o", body) or "board" in extras, page


def test_the_python_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    import tiny

    model = tiny.llama(tmp_path / "model")
    code = "\n".join(body for language, body in blocks() if language == "python")
    assert code.count('"MODEL"') == 1
    # a token a byte there: no passage fits 256 of them
    for shown, here in (('"MODEL"', repr(str(model))), ("limit=8", "limit=2"), ("rag@256", "rag@1k")):
        code = code.replace(shown, here)
    code += "\nassert len(runs) == 3, runs\n"
    code += (
        "assert starts_right('Paris, of course', icr.Item('i', 'q', ('paris',), 'i', lambda: [])) == 1.0\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| `rag@1k` |" in done.stdout and "2 paired items" in done.stdout


@pytest.mark.parametrize("command", commands())
def test_is_run_by_a_test(command: str) -> None:
    begins = [begin for begin in RUN_BY if command.startswith(begin)]
    assert begins, f"{command!r} stands in the README and no test is named for it"
    file, words = RUN_BY[max(begins, key=len)]
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert all(word in text for word in words), f"{file} does not run {command!r}"


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith(("icr ", ".venv/bin/icr "))])
def test_names_a_command_there_is(command: str) -> None:
    assert shlex.split(command)[1] in COMMANDS


def test_links_lead_somewhere() -> None:
    local = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert local and not [target for target in local if not (ROOT / target).exists()]
