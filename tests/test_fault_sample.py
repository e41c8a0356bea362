"""A seeded sample of the fault campaign in this process, and what is in it; `make faults` runs all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import fault_campaign
import pytest
from fault_cases import ENGINES, FAULTS, FLAGS, SETTINGS, TASKS, cases, refused

from icr_tasks import benchmarks

SEED, CASES, PARTS = 20601, 200, 4


@pytest.fixture(scope="module", autouse=True)
def synth_as_it_was() -> Iterator[None]:
    """The campaign keeps generated data, which the tests after it in this process would be given too."""
    synth = benchmarks.get("synth")
    load = synth.load
    yield
    object.__setattr__(synth, "load", load)
    fault_campaign._STATE.clear()


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_no_case_of_the_sample_ends_wrong(part: int) -> None:
    found = fault_campaign.campaign(CASES, 0, SEED, f"{part}/{PARTS}")
    rows = [(case, end, words) for _, case, end, words in found]
    wrong = [
        json.dumps({**asdict(case), "words": words[:300]}) for case, end, words in rows if end == "wrong"
    ]
    again = f"python tests/fault_campaign.py --seed {SEED} --cases {CASES} --command 0 --part {part}/{PARTS}"
    assert not wrong, "\n".join([*wrong, again])
    assert len(rows) == CASES // PARTS and sum(end == "right" for _, end, _ in rows) > len(rows) / 2


def test_the_sample_has_everything() -> None:
    sample = cases(CASES, SEED)
    assert sample == cases(CASES, SEED) and len(set(sample)) == CASES
    for name, known in (
        *(("engine", ENGINES), ("fault", FAULTS), ("flag", FLAGS), ("setting", SETTINGS), ("task", TASKS)),
    ):
        assert {getattr(case, name) for case in sample} == set(known), name
    assert 0 < sum(refused(case) is not None for case in sample) < CASES / 5
