"""Every command of the README is run by a test; this one keeps the list complete and the options real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from icr_tasks.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
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
    "lm_eval ls tasks": ("test_discovery.py", ["ls", "tasks"]),
    "icr plan --tasks": ("test_plan.py", ["plan", "--settings", "--margin"]),
    "icr collect out -o results": ("test_gate_docs.py", ["icr collect"]),
    "icr board results/ -o board/": ("test_board.py", ["board", "-o"]),
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
    "icr train grpo config.yaml": ("test_training_grpo.py", ["grpo"]),
    "icr train study study.yaml": ("test_training_study.py", ["study"]),
    "make train-demo": ("test_training_demo.py", ["train", "demo"]),
}


def commands() -> list[str]:
    """Commands in fenced blocks (continued lines joined, comments dropped) and in inline code."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.S)).replace("\\\n", " ")
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    found = [line.split("  #")[0].strip() for line in blocks.splitlines()] + inline
    starts = ("icr ", "lm_eval ", "make ", "pip ", "ICR_KV=")
    return [re.sub(r"\s+", " ", c) for c in found if c.startswith(starts)]


@pytest.mark.parametrize("command", commands())
def test_is_run_by_a_test(command: str) -> None:
    begins = [begin for begin in RUN_BY if command.startswith(begin)]
    assert begins, f"{command!r} stands in the README and no test is named for it"
    file, words = RUN_BY[max(begins, key=len)]
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert all(word in text for word in words), f"{file} does not run {command!r}"


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("icr ")])
def test_names_a_command_there_is(command: str) -> None:
    assert shlex.split(command)[1] in COMMANDS


def test_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    local = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert local and not [target for target in local if not (ROOT / target).exists()]
