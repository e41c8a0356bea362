"""State belongs to the request: two settings in one process give what two processes give, in any order."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from test_kv_vllm_task import _model as kv_vllm_model  # noqa: E402

INERT = "kv:topk@0.5,window=8000"
SETTINGS = (
    "full",
    "none",
    "rag@1k",
    "kv:topk@0.05,window=16",
    "kv:page@0.05,window=16",
    "kv:snapkv@0.3",
    "kv:keydiff@0.5",
    INERT,
)
VLLM = ("full", "none", "kv:topk@0.05,window=16", "kv:page@0.05,window=16", "kv:steady", INERT)
# eight pairs: into and out of full, between methods, around an inert one, the same twice
VLLM_PAIRS = ((2, 0), (0, 2), (2, 3), (3, 4), (4, 1), (1, 5), (5, 0), (0, 0))


def every_pair(n: int) -> list[int]:
    """A walk over 0..n-1 in which every ordered pair, also of one with itself, follows one another once."""
    left = {a: list(range(n)) for a in range(n)}
    stack, walk = [0], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            walk.append(stack.pop())
    return walk[::-1]


def case(engine: str, model: Path, *settings: str) -> list[list[dict[str, Any]]]:
    script = str(Path(__file__).with_name("state_case.py"))
    env = {k: v for k, v in os.environ.items() if k not in ("ICR_KV", "ICR_KV_COUNTERS")} | {
        "OMP_NUM_THREADS": "1"
    }
    done = subprocess.run(
        [sys.executable, script, engine, str(model), *settings],
        env=env,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide weights make attention matter, so that settings give different answers."""
    return kv_vllm_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Each setting in a process of its own."""
    return dict(zip(SETTINGS, case("icr-hf", folder, "--apart", *SETTINGS), strict=True))


def test_the_walk_holds_every_ordered_pair() -> None:
    walk = every_pair(len(SETTINGS))
    assert set(itertools.pairwise(walk)) == set(itertools.product(range(len(SETTINGS)), repeat=2))
    assert len(walk) == len(SETTINGS) ** 2 + 1


def test_any_order_gives_what_processes_of_their_own_give(folder: Path, alone: dict[str, Any]) -> None:
    walk = [SETTINGS[i] for i in every_pair(len(SETTINGS))]
    for i, (text, found) in enumerate(zip(walk, case("icr-hf", folder, *walk), strict=True)):
        assert found == alone[text], f"step {i}: {text} after {walk[i - 1]}"


def test_one_call_may_hold_all_settings(folder: Path, alone: dict[str, Any]) -> None:
    found = case("icr-hf", folder, "--together", *SETTINGS)
    assert dict(zip(SETTINGS, found, strict=True)) == alone


def test_the_cases_are_what_they_are_named_for(alone: dict[str, Any]) -> None:
    for text, items in alone.items():
        errors = [item["error"] for item in items]
        if text == INERT:
            assert all(f"no compressed step ran under {INERT}: 2 of 2 prompts" in e for e in errors)
            assert not any(item["scores"] for item in items)
            continue
        assert errors == [None, None]
        assert all(item["scores"] for item in items)
        for item in items:
            kv, compressed = item["kv"], text.startswith("kv:")
            assert kv["setting"] == (text if compressed else "full")
            assert (kv["read_fraction"] < 1) == (kv["sparse_steps"] > 0) == compressed
    assert len({item["text"] for items in alone.values() for item in items}) > 6, "settings can be told apart"


def test_vllm_follows_the_settings_of_its_requests(folder: Path) -> None:
    """One engine, eight pairs in turn and all in one call, against icr-hf under the same settings."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM")
    walk = [VLLM[i] for pair in VLLM_PAIRS for i in pair]
    found = case("icr-vllm", folder, *walk)
    first = {text: found[walk.index(text)] for text in VLLM}
    for i, (text, items) in enumerate(zip(walk, found, strict=True)):
        assert items == first[text], f"step {i}: {text} after {walk[i - 1]}"
    reference = dict(zip(VLLM, case("icr-hf", folder, *VLLM), strict=True))
    for text, items in first.items():
        for item, expected in zip(items, reference[text], strict=True):
            assert item["error"] == expected["error"]
            assert item["text"].rstrip("\ufffd") == expected["text"].rstrip("\ufffd"), text
            for name in ("setting", "tokens", "steps", "sparse_steps", "fallback") if item["kv"] else ():
                assert item["kv"][name] == expected["kv"][name], (text, name)
            for name in ("read_fraction", "attended_fraction") if item["kv"] else ():
                assert item["kv"][name] == pytest.approx(expected["kv"][name], rel=0.01), (text, name)
        assert bool(items[0]["kv"]) == text.startswith("kv:")
