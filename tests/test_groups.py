"""Groups across benchmarks: every name in them is a task or a group, lengths are complete, lm-eval finds them."""

from __future__ import annotations

import re

import pytest

from icr_tasks.benchmarks import groups
from icr_tasks.benchmarks.catalog import expand, leaves
from icr_tasks.benchmarks.declare import all_benchmarks
from icr_tasks.cli import main
from icr_tasks.harness.run import manager

OURS = [b for b in all_benchmarks() if b.origin == "icr_tasks"]
KNOWN = {*leaves(), *(g.name for b in OURS for g in b.groups)}
ACROSS = {g.name: g for g in groups.across()}


def test_every_member_exists_and_stands_once() -> None:
    for group in ACROSS.values():
        assert group.tasks and set(group.tasks) <= KNOWN and len(set(group.tasks)) == len(group.tasks), (
            group.name
        )


@pytest.mark.parametrize("length", groups.LENGTHS)
def test_a_length_has_every_task_of_it_but_those_whose_licence_must_be_accepted(length: str) -> None:
    found = set(ACROSS[f"icr_all_{length}"].tasks)
    asked = {b.task_name(t) for b in OURS for t in b.tasks if t.length == length}
    assert asked - found == {name for name in asked if name.startswith("icr_nolima")}
    assert found <= asked and len({leaves()[name][0].name for name in found}) >= 2


def test_the_years_benchmarks_and_the_gates_set() -> None:
    """What model cards of the year print; a gate's set is generated, so that nothing has to be fetched."""
    named = (
        "mrcr",
        "graphwalks",
        "aa_lcr",
        "longbench_pro",
        "longbench_v2",
        "longmemeval_s",
        "browsecomp_plus",
    )
    assert set(ACROSS["icr_2026"].tasks) == {f"icr_{name}" for name in named}
    assert len(ACROSS["icr_ci"].tasks) == 6
    assert all(leaves()[name][0].files is None for name in ACROSS["icr_ci"].tasks)


def test_every_command_takes_them_for_their_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    """A group of lm_eval's is one of `icr plan`, sweeps, `icr prepare` and `icr.evaluate`, which ask the catalogue."""
    for name, group in ACROSS.items():
        assert expand(name) == [leaf for task in group.tasks for leaf in expand(task)] and set(
            expand(name)
        ) <= {*leaves()}
    assert main(["plan", "--tasks", "icr_ci", "--settings", "full", "--margin", "5"]) == 0
    assert "600" in capsys.readouterr().out
    assert main(["doctor", "--data", "icr_ci"]) == 0 and "6 of 6 tasks" in capsys.readouterr().out


def test_lm_eval_finds_them() -> None:
    known = manager({}).all_groups
    assert set(ACROSS) <= set(known)


def test_every_benchmark_is_listed_with_size_licence_and_count(capsys: pytest.CaptureFixture[str]) -> None:
    """`icr data ls --known`: sizes are exact, rough, at least, or said to be unknown."""
    assert main(["data", "ls", "--known"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in lines}
    assert head.split()[:4] == ["name", "tasks", "items", "size"] and set(rows) == {b.name for b in OURS}
    sizes = {name: row[3] for name, row in rows.items()}
    assert (
        sizes["longmemeval"] == "292.8 MB" and sizes["longbench_pro"] == "531.5 MB" and sizes["synth"] == "-"
    )
    assert sizes["browsecomp_plus"] == "~2.8 GB" and sizes["nolima"] == "not known"
    assert sizes["helmet_rag"].endswith("GB") and rows["aa_lcr"][2] == "100"
    assert rows["graphwalks"][2] == "750/400 in both kinds" and rows["longbench_pro"][2] == "1500 in all"
    for found in OURS:
        assert str(found.facts["license"]) in "  ".join(rows[found.name])
