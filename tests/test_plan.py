"""What an evaluation can see and costs: against simulations, and the command."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gatekit
import numpy as np
import pytest
import tiny
from scipy import special

from icr_tasks.cli import main
from icr_tasks.leaderboard import plan
from icr_tasks.leaderboard.ledgers.load import load
from icr_tasks.leaderboard.plan import PRIOR, Cell, Rates, Spread
from icr_tasks.leaderboard.stats import Design


def helmet(
    questions: int = 100, lengths: tuple[str, ...] = ("4k", "8k", "16k"), depths: int = 6
) -> list[Cell]:
    return [
        Cell(
            f"{d}_{n}",
            "helmet_rag",
            f"helmet_rag/{d}",
            n,
            [f"{d}{q}" for q in range(questions)] * k,
            1024 * int(n[:-1]),
        )
        for d, k in (("nq", depths), ("hotpotqa", 3))
        for n in lengths
    ]


def books(sizes: list[int]) -> list[Cell]:
    return [
        Cell(
            "mc", "infbench", "infbench/mc", "", [f"b{i}" for i, n in enumerate(sizes) for _ in range(n)], 1e5
        )
    ]


SHAPES = {
    "HELMET": helmet(),
    "HELMET, 20 questions at 1 depth": helmet(20, ("4k",), 1),
    "books of 1 to 8 questions": books([1 + i % 8 for i in range(58)]),
    "two benchmarks": [*helmet(60), *books([4] * 58)],
}


def _simulated(cells: list[Cell], spread: Spread, draws: int = 1500) -> float:
    """The drop that a one-sided test at 5 % finds in 80 of 100 draws."""
    rng = np.random.default_rng(3)
    labels = [(c.benchmark + q, c.length, c.dataset) for c in cells for q in c.clusters]
    cluster, length, dataset = map(list, zip(*labels, strict=True))
    design = Design(cluster, length, dataset)
    both = np.unique([f"{a}|{b}|{d}" for a, b, d in labels], return_inverse=True)[1]
    n = design.cluster.max() + 1
    needed = []
    for _ in range(draws):
        d = rng.normal(0, math.sqrt(spread.question), n)[design.cluster]
        d = d + rng.normal(0, math.sqrt(spread.length), both.max() + 1)[both]
        effect = design.effect(d + rng.normal(0, math.sqrt(spread.noise), len(d)))
        needed.append(effect.mean + effect.se * float(special.stdtrit(effect.df, 0.95)))
    return float(np.quantile(needed, 0.8))


@pytest.mark.parametrize(
    "spread", [PRIOR[""], Spread(0.2, 0.0, 0.1), Spread(0.0, 0.0, 0.2)], ids=["shipped", "shared", "noise"]
)
@pytest.mark.parametrize("name", list(SHAPES))
def test_the_predicted_mde_is_the_simulated_one(name: str, spread: Spread) -> None:
    cells = SHAPES[name]
    assert plan.mde(cells, {"": spread}) == pytest.approx(_simulated(cells, spread), rel=0.15)


def test_filings_shared_in_part() -> None:
    rng = np.random.default_rng(1)
    shared = [[f"f{j}" for j in rng.choice(60, rng.integers(2, 6), replace=False)] for _ in range(250)]
    cell = Cell("loong", "loong_fin", "loong_fin/all", "", ["all"] * 250, 1e5, shared=shared)
    spread = Spread(0.01, 0.0, 0.06)
    design = Design(["all"] * 250, shared=shared)
    reads = np.array([[f"f{j}" in s for j in range(60)] for s in shared], float)
    reads /= np.sqrt(reads.sum(1, keepdims=True))
    needed = []
    for _ in range(1000):
        effect = design.effect(reads @ rng.normal(0, 0.1, 60) + rng.normal(0, math.sqrt(0.06), 250))
        needed.append(effect.mean + effect.se * float(special.stdtrit(effect.df, 0.95)))
    assert plan.mde([cell], {"": spread}) == pytest.approx(np.quantile(needed, 0.8), rel=0.15)


def test_an_endpoint_that_cannot_be_decided_says_so() -> None:
    [end] = plan.endpoints(books([229]))
    assert not end.possible and math.isinf(end.mde)
    suite, *rest = plan.endpoints([*helmet(), *books([100, 129])])
    assert not suite.possible and [e.possible for e in rest] == [True, False]


def test_the_cheapest_design_is_cheaper_and_enough() -> None:
    cells = helmet(lengths=("4k", "8k", "64k"))
    least = plan.mde(cells)
    choice = plan.cheapest(cells, PRIOR, 1.25 * least, Rates())
    assert choice.enough and choice.mde <= 1.25 * least
    whole, part = (Rates().seconds(*plan.total(c)) for c in (cells, choice.cells))
    assert part < 0.7 * whole
    # no design of equal questions everywhere and all depths that is enough costs less
    for q, m in itertools.product(range(20, 101, 5), range(1, 7)):
        even = [c.part(q, m) for c in cells]
        if plan.mde(even) <= 1.25 * least:
            assert Rates().seconds(*plan.total(even)) >= 0.95 * part
    none = plan.cheapest(cells, PRIOR, least / 3, Rates())
    assert not none.enough and none.mde == pytest.approx(least)
    assert sum(len(c.clusters) for c in none.cells) == sum(len(c.clusters) for c in cells)


def test_the_spread_of_a_measured_difference() -> None:
    rng = np.random.default_rng(5)
    questions, lengths, depths = 400, 4, 5
    q, n, _ = (x.ravel() for x in np.meshgrid(range(questions), range(lengths), range(depths), indexing="ij"))
    truth = Spread(0.04, 0.02, 0.3)
    d = rng.normal(0, math.sqrt(truth.question), questions)[q]
    d = d + rng.normal(0, math.sqrt(truth.length), (questions, lengths))[q, n]
    found = plan.spread_of(d + rng.normal(0, math.sqrt(truth.noise), len(q)), q, n)
    for name in ("question", "length", "noise"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.25)


def test_rates() -> None:
    assert Rates(1000, 10).seconds(5000, 20) == 7 and Rates().dollars(1, 1) is None
    assert Rates(1000, 10, hour=3600).dollars(5000, 20) == 7
    assert Rates(price_in=2, price_out=8).dollars(1e6, 1e6) == 10


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "none"))
    args = ["plan", "--tasks", "icr_helmet_rag", "--settings", "full,rag@16k", "--margin", "2"]
    assert main([*args, "--dollars-per-hour", "2.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["endpoints"][0]["items"] >= 8000 and 0.015 < found["endpoints"][0]["mde"] < 0.04
    full, rag = found["costs"]["full"], found["costs"]["rag@16k"]
    assert full["prompt_tokens"] > 2 * rag["prompt_tokens"] and full["dollars"] > rag["dollars"] > 0
    assert main([*args[:-1], "3"]) == 0
    text = capsys.readouterr().out
    assert text.count("official numbers") == 1  # of 24 tasks
    assert "MDE" in text and "cheapest design that sees 3.0 points" in text
    assert main(args) == 0
    assert "a margin of 2.0 is beyond these data: with every item they see 2.7" in capsys.readouterr().out
    assert main(["plan", "--tasks", "icr_nosuch", "--settings", "full"]) == 2
    assert main(["plan", "--tasks", "icr_helmet_rag", "--settings", "rag@"]) == 2


def test_lengths_without_data_ask_the_questions_of_those_with_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledgers of two lengths and the official numbers of a third: 60 questions, not 60 and 100."""
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "none"))
    (tmp_path / "none").mkdir()
    known = ("icr_helmet_rag_nq_4k", "icr_helmet_rag_nq_8k")
    gatekit.write(tmp_path / "r", gatekit.rows(tasks=known))
    tasks = ",".join([*known, "icr_helmet_rag_nq_16k"])
    assert main(["plan", "--tasks", tasks, "--results", str(tmp_path / "r"), "--json"]) == 0
    (end,) = json.loads(capsys.readouterr().out)["endpoints"]
    assert (end["items"], end["questions"]) == (540, 60)


def test_prompts_are_counted_with_the_evaluated_models_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "t")
    args = ["plan", "--tasks", "icr_synth_rag_512", "--settings", "full", "--json"]
    assert main([*args]) == 0
    nominal = json.loads(capsys.readouterr().out)["costs"]["full"]["prompt_tokens"]
    assert main([*args, "--tokenizer", str(tmp_path / "t")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["costs"]["full"]["prompt_tokens"] != nominal
    assert any("prompt tokens: the tasks' data by" in note for note in found["notes"])
    assert main([*args, "--tokenizer", str(tmp_path / "none")]) == 2


def test_the_users_own_ledgers_are_a_prior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        gatekit.write(tmp_path / "r", gatekit.rows(seed=seed), model=f"org/m{seed}")
    args = ["plan", "--results", str(tmp_path / "r"), "--settings", "full", "--margin", "5"]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spread"]["infbench"]["noise"] > 0.1 and "1 pair of runs" in str(found["notes"])
    assert {e["name"] for e in found["endpoints"]} == {
        "suite",
        "helmet_rag",
        "infbench",
        "longbench_v2",
        "loong_fin",
    }


def test_settings_of_one_model_are_a_prior_for_want_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, setting in enumerate(
        ("full", "rag@4k", "none")
    ):  # none is a reference line, no change to expect
        gatekit.write(tmp_path / "r", gatekit.rows(seed=seed), setting=setting)
    assert (
        main(["plan", "--results", str(tmp_path / "r"), "--settings", "full", "--margin", "5", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["spread"]["infbench"]["noise"] > 0.1
    assert any("1 pair of settings of one model" in note for note in found["notes"]), found["notes"]


def test_the_shipped_prior_is_the_larger_of_the_simulated_and_the_studys() -> None:
    """No pair of settings of the study varies more than what ships, and what the code says of the study is measured."""
    from icr_tasks.sweep import planning

    runs = load(Path(__file__).parent.parent / "results")
    found = planning._spreads(runs, [])["synth"]
    assert [found.question, found.length, found.noise] == pytest.approx(
        [plan.STUDY.question, plan.STUDY.length, plan.STUDY.noise], abs=5e-4
    )
    pairs, used = planning._changes(runs, "setting")
    shipped = PRIOR[""]
    whole = shipped.question + shipped.length + shipped.noise
    assert used == planning.PAIRS
    assert all(s.question + s.length + s.noise < whole for s in pairs["synth"])
    assert shipped == plan.widest(plan.SIMULATED, plan.STUDY)


@pytest.mark.parametrize("part", ["question", "length", "noise"])
def test_the_widest_takes_each_part(part: str) -> None:
    zero = Spread(0.0, 0.0, 0.0)
    assert plan.widest(zero, replace(zero, **{part: 0.4})) == replace(zero, **{part: 0.4})


def _pilot(root: Path, task: str, expected: int) -> None:
    """The first 20 questions of a task, of which the data have more."""

    def part(head: dict[str, Any]) -> None:
        head["tasks"][task] |= {"n_expected": expected, "status": "partial"}

    rows = {task: gatekit.rows(tasks=(task,))[task][:20]}
    gatekit.write(root, rows, change=part)


@pytest.mark.parametrize("named", [["--tasks", "icr_longbench_v2"], []])
def test_a_pilot_gives_its_tokens_and_not_its_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    """20 of 503 items were planned as the whole task: an MDE of 45 points for 8.5."""
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path / "none"))
    _pilot(tmp_path / "r", "icr_longbench_v2", 503)
    assert main(["plan", *named, "--results", str(tmp_path / "r"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["endpoints"][0]["items"], found["costs"]["full"]["prompt_tokens"]) == (503, 503 * 4000)
    assert found["costs"]["full"]["output_tokens"] == 503 * 5
    assert any(
        note.startswith("pilots: the ledgers hold a part of icr_longbench_v2 20/503;")
        for note in found["notes"]
    )


def test_a_pilot_of_a_task_that_nobody_knows_is_planned_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gatekit.TASKS, "mmlu", ("mmlu", "all", None, "acc", 120, 1))
    _pilot(tmp_path / "r", "mmlu", 500)
    assert main(["plan", "--results", str(tmp_path / "r"), "--alpha", "0.01", "--price-out", "10"]) == 0
    said = capsys.readouterr().out
    assert "the ledgers hold a part of mmlu 20/500, and the other items are not known here" in said
    assert "a one-sided test at 1 % finds" in said and "| 80 000 | 100 | 0.0 h | 0.00 |" in said


def test_a_price_of_answers_alone_is_a_price() -> None:
    assert Rates(price_out=8).dollars(1e6, 1e6) == 8
