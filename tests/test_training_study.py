"""`icr train study`: from a file to trained arms, ledgers and sentences; resumed, refused, and its
statistics."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("trl", reason="training needs icr-tasks[train]")
from icr_tasks.errors import IcrError
from icr_tasks.leaderboard.pairs.seeds import Pooled, with_seeds
from icr_tasks.leaderboard.stats import Design
from icr_tasks.training import checkpoint
from icr_tasks.training.data import store
from icr_tasks.training.demo import base
from icr_tasks.training.study import report, results, run, spec

SHIPPED = sorted(p.name for p in spec.SHIPPED.glob("[!_]*.yaml"))
FAST = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "bf16": False,
    "logging_steps": 1,
    "save_steps": 2,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}
TASKS = ["icr_synth_short_arts_256", "icr_synth_short_business_256"]

SHORT = {"short": {"n": 8, "passages": [6]}}


def tree(root: Path, **changes: Any) -> dict[str, Any]:
    one, two = ({"short": {"n": 8, "passages": [6], "domains": [d]}} for d in ("arts", "business"))
    return {
        "name": "tiny",
        "base": str(root / "base"),
        "control": "arts",
        "seeds": [0, 1],
        "common": {
            "kind": "sft",
            "prompt": "ao",
            "max_prompt_length": 400,
            "max_response_length": 6,
            "trl": FAST,
        },
        "arms": {
            "arts": {"data": one, "trained_on": ["arts"]},
            "other": {"data": two, "trained_on": ["business"], "order": "growing"},
        },
        "evaluate": {
            "tasks": TASKS,
            "engine": "icr-hf",
            "args": {"device": "cpu"},
            "gen": {"max_gen_toks": 4},
            "limit": 2,
        },
        "domains": {"arts": TASKS[:1], "business": TASKS[1:]},
        **changes,
    }


def save(root: Path, **changes: Any) -> Path:
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree(root, **changes)))
    return path


def test_a_study_from_file_to_report(tmp_path: Path) -> None:
    base.build(tmp_path / "base", seed=0, width=32, head=16)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- study: tiny -->\nold\n<!-- end study -->\nafter\n")
    args = [str(save(tmp_path)), "-o", str(tmp_path / "out"), "--into", str(page)]
    assert run.main(args) == 0
    spent = {p.parent.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").glob(f"*/{run.DONE}")}
    assert sorted(spent, key=spent.__getitem__) == ["arts-s0", "other-s0", "arts-s1", "other-s1"]
    text = (tmp_path / "out" / "report.md").read_text()
    # two seeds of one comparison do not show their luck; the two arms' spread around the start does
    assert (
        "other against arts is **undecided**, too few seeds" in text and "N = 2" in text and "2 seeds" in text
    )
    assert (
        "other is **not distinguishable** from start" in text and "with start " in text and "(df 2)" in text
    )
    assert (
        "Where neither was trained" not in text
        and "Where the control was not trained (business; N = 2)" in text
    )
    assert "equal steps" in text and "| arts | 2 |" in text
    assert "other - arts: +0.0" in (tmp_path / "out" / "forest.svg").read_text()
    assert "old" not in page.read_text() and page.read_text().endswith("<!-- end study -->\nafter\n")
    assert "other against arts is" in page.read_text()

    order = json.loads((tmp_path / "out" / "runs" / "other-s0" / "order.json").read_text())["indices"]
    rows = list(
        store.read(
            Path(yaml.safe_load((tmp_path / "out/runs/other-s0/config.yaml").read_text())["data"])
            / "train.parquet"
        )
    )
    sizes = [sum(map(len, rows[i]["passages"])) + len(rows[i]["question"]) for i in order]
    assert sizes == sorted(sizes) and {r["domain"] for r in rows} == {"business"}

    study = spec.load(Path(args[0]), tmp_path / "out")
    start = results.START
    found = results.Results(study, str((tmp_path / "base").resolve()))
    one = found.pooled("other", start, "full")
    pairs = found.pairs("other", start, "full")
    by_hand = np.mean([p.new for p in pairs], axis=0) - pairs[0].base
    assert one.delta == pairs[0].design(np.ones(4, bool)).effect(by_hand) and one.delta.clusters == 4

    assert (
        run.main([*args, "--seeds", "1"]) == 0
    )  # nothing left to train or to ask; one seed of the same runs
    assert spent == {
        p.parent.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").glob(f"*/{run.DONE}")
    }
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("**undecided**, too few seeds") >= 3 and "one seed: its luck is not covered" in text
    assert "significantly" not in text and "distinguishable" not in text
    # ... unless an earlier study says how far seeds spread
    given = tree(tmp_path, seed_spread={"points": 20, "df": 4, "from": "the study before"})
    Path(args[0]).write_text(yaml.safe_dump(given))
    assert run.main([*args, "--seeds", "1"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "undecided" not in text and "20 points, df 4 (the study before)" in text
    widened = replace(spec.load(Path(args[0]), tmp_path / "out"), seeds=(1,))
    wide = results.Results(widened, found.begin).pooled("other", start, "full")
    assert wide.total.se == pytest.approx(np.hypot(wide.delta.se, 0.2)) and wide.free == 4
    own = [np.var(found.pooled(a, start, "full").each, ddof=1) for a in study.arms]
    assert found.prior(start, "full") == (pytest.approx(np.mean(own)), 2), (
        "the arms' own, where none is given"
    )
    changed = tree(tmp_path)
    changed["common"]["trl"]["learning_rate"] = 1e-4
    Path(args[0]).write_text(yaml.safe_dump(changed))
    with pytest.raises(IcrError, match=r"differs in trl\.learning_rate"):
        run.main(args)


def test_a_run_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    base.build(tmp_path / "base", seed=0, width=32, head=16)
    given = tree(tmp_path, launch='sh -c "echo out of memory; exit 3"')
    given["common"]["devices"] = 2  # as many as the launcher starts, whatever this process is
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(given))
    with pytest.raises(IcrError, match="arts-s0 ended with code 3.*\n.*\n?.*out of memory"):
        run.main([str(path), "-o", str(tmp_path / "out")])
    spent = json.loads((tmp_path / "out" / "runs" / "arts-s0" / run.DONE).read_text())
    assert (
        not spent["done"]
        and spent["wall"] > 0
        and checkpoint.latest(tmp_path / "out" / "runs" / "arts-s0") is None
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_are_whole(name: str, tmp_path: Path) -> None:
    study = spec.load(Path(name), tmp_path)
    assert study.question and study.control in study.arms and len(study.seeds) >= 2
    assert all(study.config(arm, seed, "m").seed == seed for arm, seed in study.runs())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"control": "artz"}, "Did you mean 'arts'"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"evaluat": {}}, "Did you mean 'evaluate'"),
        ({"evaluate": {"task": []}}, "tasks"),
        ({"domains": {"law": ["icr_x"]}}, "which evaluate.tasks does not hold"),
        ({"arms": {"arts": {"data": "x", "trl": {"learning_rat": 1}}}}, "learning_rate"),
        ({"arms": {"arts": {}}}, "has no data"),
        ({"arms": {"arts": {"data": {"short": {"n": 3}}}}}, "passages"),
        ({"arms": {"arts": {"data": {"short": {"n": 3, "passages": [6], "targets": 1}}}}}, "target"),
        (
            {"arms": {"arts": {"data": {"short": {"n": 3, "passages": [6], "aliases": 50}}}}},
            "a share of the rows",
        ),
        ({"arms": {"arts": {"data": "x", "trained_on": ["law"]}}}, "unknown domain 'law'"),
        ({"arms": None}, "no arms"),
        ({"seed_spread": {"points": 5, "df": 4, "frm": "x"}}, "Did you mean 'from'"),
        ({"seed_spread": {"points": 0, "df": 4, "from": "x"}}, "a standard deviation in points"),
        ({"seed_spread": {"points": 5, "df": 3, "from": "x"}}, "fewer than 4 degrees of freedom"),
        ({"seed_spread": {"points": 5, "df": 4}}, "the study that it was measured in"),
        ({"seed_spread": 5}, "must be a mapping"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(IcrError, match=says):
        run.main([str(save(tmp_path, **changes)), "-o", str(tmp_path / "out"), "--check"])


def test_units_carry_the_gold_with_them() -> None:
    row = {
        "id": "a",
        "passages": list("abcdefg"),
        "gold_ids": [1, 5],
        "gold_docs": ["b", "f"],
        "target": "x",
        "n_dropped": 0,
    }
    made = spec.joined(row, spec._every(3))
    assert (
        made["passages"] == ["a\nb\nc", "d\ne\nf", "g"]
        and made["gold_ids"] == [0, 1]
        and "target" not in made
    )
    assert made["gold_docs"] == ["a\nb\nc", "d\ne\nf"]
    assert spec.joined(row | {"original_ids": [5]}, spec._every(3))["original_ids"] == [
        1
    ]  # the gold before refinement
    assert spec._budget(3, len)(["aa", "a", "bbbb", "c", "c", "cc"]) == [0, 0, 1, 2, 2, 3]


def test_units_of_a_folder_of_real_rows(tmp_path: Path) -> None:
    base.build(tmp_path / "base", seed=0, width=32, head=16)
    made = spec.make(*spec.place({"short": {"n": 4, "passages": [6]}}, 0, "ao", tmp_path))
    given = {"folder": str(made), "unit_tokens": 15, "tokenizer": str(tmp_path / "base")}
    options, folder = spec.place(given, 0, "ao", tmp_path)
    rows = list(store.read(spec.make(options, folder) / "train.parquet"))
    assert len(rows) == 4 and all(1 < len(r["passages"]) < 6 for r in rows)
    assert all(
        r["gold_docs"][0] == r["passages"][r["gold_ids"][0]] and r["answers"][0] in r["gold_docs"][0]
        for r in rows
    )
    with pytest.raises(IcrError, match="has no rows of law"):
        spec.make(*spec.place({**given, "domains": ["law"]}, 0, "ao", tmp_path))
    with pytest.raises(IcrError, match="no training data at .*nowhere"):
        spec.make(*spec.place({**given, "folder": str(tmp_path / "nowhere")}, 0, "ao", tmp_path))
    # a data folder that was made anew is chosen from anew
    base.save(made, list(store.read(made / "train.parquet"))[:2], {"n": 2})
    assert store.count(spec.make(options, folder) / "train.parquet") == 2


def test_rows_of_an_arm_are_counted_as_they_will_be(tmp_path: Path) -> None:
    given = {"short": {"n": 5, "passages": [6], "domains": ["biography", "arts", "business"]}}
    options, folder = spec.place(given, 0, "ao", tmp_path)
    counts, _ = spec.rows_of(options, folder)
    rows = list(store.read(spec.make(options, folder) / "train.parquet"))
    assert counts == dict(Counter(r["domain"] for r in rows)) and sum(counts.values()) == 5


def test_arms_on_two_files_of_the_same_ids_are_not_the_same_rows(tmp_path: Path) -> None:
    rows = list(base.rows(4, [6], "ao", seed=0))
    for name, more in (("a", ""), ("b", "s")):
        (tmp_path / name).mkdir()
        store.write(
            tmp_path / name / "train.parquet",
            [r | {"question": r["question"] + more} for r in rows],
            store.ROW,
        )
    keys = {name: spec.rows_of(str(tmp_path / name), tmp_path)[1] for name in ("a", "b")}
    assert keys["a"] != keys["b"]


def test_seeds_widen_the_interval_and_never_help() -> None:
    r = np.random.default_rng(0)
    delta = Design(np.arange(200)).effect(0.05 + 0.3 * r.standard_normal(200))
    agree, differ = with_seeds(delta, (0.05, 0.05, 0.05)), with_seeds(delta, (0.15, 0.05, -0.05))
    assert agree.ci() == pytest.approx(delta.ci()) and agree.p == pytest.approx(delta.p)
    assert differ.half() > 2 * delta.half() and differ.p > delta.p and with_seeds(delta, (0.05,)) is delta
    assert differ.se == pytest.approx(np.sqrt(delta.se**2 + 0.01 / 3))


def test_two_seeds_that_agree_by_luck_get_no_verdict() -> None:
    """Three seeds, or a variance over seeds that stands on two degrees of freedom or more; else undecided."""

    def said(each: tuple[float, ...], prior: tuple[float, int] | None) -> str:
        delta = Design(np.arange(400)).effect(np.where(np.arange(400) % 2, 0.3, -0.1))
        free = max(len(each) - 1, prior[1] if prior else 0)
        one = Pooled(delta, delta, delta, with_seeds(delta, each, prior), each, free=free)
        return report.sentence("a", "b", one, one.total.p)

    assert "undecided" in said((0.1,), None) and "undecided" in said((0.1, 0.1), None)
    assert "undecided" in said((0.1, 0.1), (0.0001, 1)) and "+10.0 points" in said((0.1, 0.1), None)
    assert "significantly **better**" in said((0.1, 0.1), (0.0001, 2))
    assert "significantly **better**" in said((0.1, 0.1, 0.1), None)
    assert "significantly **better**" in said((0.1,), (0.0001, 4))
    assert "not distinguishable" in said((0.1,), (0.04, 4))


def test_equal_recipes_are_rarely_called_different() -> None:
    import seed_spread

    alone, both, pooled = seed_spread.alarms(seeds=3, spread=0.05, draws=300)
    assert alone > 0.15 and both < 0.09 and pooled < 0.09
    # what the rule refuses (two seeds of one comparison), and what it takes instead
    assert seed_spread.alarms(2, 0.10, 300, arms=1)[2] > 0.09 > seed_spread.alarms(2, 0.10, 300, arms=2)[2]
    assert seed_spread.alarms(1, 0.17, 300, arms=1, given=1)[2] > 0.09
    assert seed_spread.alarms(1, 0.17, 300, arms=1, given=4)[2] < 0.09


def test_verdicts_in_words_follow_the_numbers() -> None:
    def said(mean: float, spread: float) -> str:
        each = (mean - spread, mean, mean + spread)
        delta = Design(np.arange(400)).effect(np.where(np.arange(400) % 2, mean + 0.2, mean - 0.2))
        total = with_seeds(delta, each)
        one = Pooled(delta, delta, delta, total, each, identical=float(not mean), free=len(each) - 1)
        return report.sentence("a", "b", one, one.total.p)

    assert "significantly **better**" in said(0.1, 0.01) and "3 of 3 seeds" in said(0.1, 0.01)
    assert "significantly **worse**" in said(-0.1, 0.01)
    assert "not distinguishable" in said(0.1, 0.3) and "go unseen" in said(0.1, 0.3)  # seeds disagree
    assert "not distinguishable" in said(0.001, 0.0)
    assert "the same answers" in said(0.0, 0.0)  # an arm that changed nothing is not a null result


def test_the_share_of_judged_completions_stands_in_the_cost(tmp_path: Path) -> None:
    study = spec.load(save(tmp_path), tmp_path / "out")
    costs = {"arts": results.Cost(2, 9, 1, 1, 0.5, 0.25), "other": results.Cost(2, 9, 1, 1, 0.5)}

    class Found:
        def __init__(self) -> None:
            self.study = study

        def cost(self, arm: str) -> results.Cost:
            return costs[arm]

    assert "| arts | 2 | 9 | 1 | 1 | 0.50 | 25 % |\n| other | 2 | 9 | 1 | 1 | 0.50 | 0 % |" in report.cost(
        Found()
    )
    costs["arts"] = costs["other"]
    assert "judged" not in report.cost(Found()) and "| arts | 2 | 9 | 1 | 1 | 0.50 |\n" in report.cost(
        Found()
    )


def test_tokens_that_differ_are_said() -> None:
    cost = results.Cost(10, 1000, 1, 1, None)
    assert "equal tokens (within 1.0 %)" in results.equal_tokens(
        {"a": cost, "b": results.Cost(10, 1010, 1, 1, None)}
    )
    said = results.equal_tokens({"a": cost, "b": results.Cost(20, 1500, 1, 1, None)})
    assert "NOT equal steps (10 to 20)" in said and "b saw 50.0 % more than a" in said


def test_seeds_that_follow_begin_with_the_same_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.build(tmp_path / "base", seed=0, width=32, head=16)
    path = save(tmp_path, start={"kind": "sft", "prompt": "ao", "data": SHORT, "trl": FAST})
    trained: list[tuple[str, int, str]] = []

    def train(study: spec.Study, config: Any) -> Path:
        trained.append((Path(config.output).name, config.seed, config.data))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", train)
    for seeds in ("0,1", "1"):
        with pytest.raises(KeyboardInterrupt):
            run.main([str(path), "-o", str(tmp_path / "out"), "--seeds", seeds])
    assert trained[0] == trained[1] and trained[0][:2] == ("start", 0)
    # a start that is there was trained under a seed of the file, or is refused when it is trained
    there = tmp_path / "out" / "runs" / "start" / "config.yaml"
    there.parent.mkdir(parents=True)
    for seed, first in ((1, 1), (7, 0)):
        there.write_text(f"seed: {seed}\n")
        assert spec.load(path, tmp_path / "out").first == first


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"arms": {"arts": {"data": SHORT}, "b": {"data": SHORT, "epochs": 2, "model": "x"}}},
            "b sets 'model'",
        ),
        ({"arms": {"arts": {"data": SHORT}, "b": {"data": SHORT, "epochs": 2, "seed": 7}}}, "b sets 'seed'"),
        ({"common": {"kind": "sft", "output": "runs", "trl": FAST}}, "common sets 'output'"),
        ({"common": {"kind": "sft", "data": "data", "trl": FAST}}, "common sets 'data'"),
        ({"start": {"kind": "sft", "model": "x", "data": SHORT}}, "start sets 'model'"),
        *(
            ({"arms": {"arts": {"data": SHORT}, "b": {"data": SHORT, **same}}}, "by the same config")
            for same in (
                {"trl": {"run_name": "b"}},
                {"log_completions": 3},
                {"trl": {"save_total_limit": 2}},
                {"reward": {"preset": "paper"}},
                {"trl": {"warmup_steps": 0}},
            )
        ),
    ],
)
def test_keys_that_a_study_decides_and_arms_that_differ_in_nothing_are_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(IcrError, match=says):
        spec.load(save(tmp_path, domains={}, **changes), tmp_path / "out")
