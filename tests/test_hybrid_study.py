"""The study of the hybrid reward: rows whose recorded answer no passage has, and a constructed judge of known
error."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("trl", reason="training needs icr-tasks[train]")
pytest.importorskip("openai", reason="a judge is asked through the openai client (extra [judge])")
import hybrid_study
from fake_endpoint import FakeEndpoint

from icr_tasks.benchmarks.synth import short
from icr_tasks.metrics.answers import subem
from icr_tasks.training.data import store
from icr_tasks.training.rewards import Row, score
from icr_tasks.training.rewards.paper import question
from icr_tasks.training.study import spec
from icr_tasks.training.trainers import reward_function


def made(root: Path, seed: int = 0, **changes: object) -> list[dict]:
    given = {"short": {"n": 200, "passages": [6], **changes}}
    return list(store.read(spec.make(*spec.place(given, seed, "ao", root)) / "train.parquet"))


def test_the_share_of_rows_is_recorded_under_an_alias_and_nothing_else_changes(tmp_path: Path) -> None:
    exact, half = made(tmp_path), made(tmp_path, aliases=0.5)
    other = [i for i, (a, b) in enumerate(zip(exact, half, strict=True)) if a["answers"] != b["answers"]]
    assert 70 < len(other) < 130 and half == made(tmp_path / "again", aliases=0.5)
    assert all({**a, "answers": None} == {**b, "answers": None} for a, b in zip(exact, half, strict=True))
    assert [spec.alias(half[i]["answers"][0]) for i in other] == [exact[i]["answers"][0] for i in other]
    ids = {r["id"] for r in made(tmp_path, seed=1, aliases=1)}
    assert len(ids) == 200 and not ids & {r["id"] for r in half}  # another seed, other rows
    assert all(spec.alias(r["answers"][0]) in r["gold_docs"][0] for r in made(tmp_path, seed=1, aliases=1))
    for row in half:
        truth = next(r["answers"][0] for r in exact if r["id"] == row["id"])
        found = score("ao", [f"Answer: {truth}."], [Row.of(row)])[0]["reward"]
        assert found == float(row["answers"][0] == truth)  # the false zero


def test_an_alias_is_no_value_of_the_world() -> None:
    values = {v for rel in short.RELATIONS.values() for r in rel.values() for v in short.pool(r.pool)}
    aliases = {spec.alias(v) for v in values}
    assert len(aliases) == len(values) and {spec.alias(a) for a in aliases} == values
    assert not any(subem(said, [recorded]) for said in values for recorded in aliases)


def test_the_constructed_judge_knows_aliases_and_errs_at_its_rate() -> None:
    def prompts(answer: str) -> list[str]:
        gold = spec.alias("Brandell")
        return [
            question(f"Answer: {answer}.", Row((gold,), (0,), (f"Passage {i}.",), f"Who {i}?"))
            for i in range(2000)
        ]

    for answer, truth in (("Brandell", True), (spec.alias("Brandell"), True), ("Fenis", False)):
        asked = prompts(answer)
        assert all(hybrid_study.right(p) == truth for p in asked)
        for error in hybrid_study.JUDGES.values():
            wrong = [hybrid_study.reply(p, error).endswith("3: 0}") == truth for p in asked]
            assert wrong == [hybrid_study.errs(p, error) for p in asked]
            assert abs(sum(wrong) - 2000 * error) < 3 * (2000 * error) ** 0.5
            assert hybrid_study.counts(asked, error) == {
                "calls": 2000,
                f"false {'rejects' if truth else 'accepts'}": sum(wrong),
            }


def test_the_arms_ask_the_judge_they_are_written_for(tmp_path: Path) -> None:
    study = spec.load(Path(hybrid_study.STUDY), tmp_path)
    assert len({study.data_of(a, 0)[1] for a in ("rule", "judge", "hybrid")}) == 1 and study.control == "rule"
    rows = [r for r in made(tmp_path, aliases=0.5)][:40]
    truth = [r["answers"][0] for r in made(tmp_path)][:40]
    columns = {k: [r[k] for r in rows] for k in ("answers", "question", "gold_ids", "gold_docs", "id")}
    given: dict[str, list[float | None]] = {}
    with ExitStack() as stack:
        servers = {
            e: stack.enter_context(FakeEndpoint(partial(hybrid_study.reply, error=e)))
            for e in hybrid_study.JUDGES.values()
        }
        for arm in study.arms:
            config = study.config(arm, 0, "model")
            if judge := config.reward.get("judge"):
                error = hybrid_study.JUDGES[urlsplit(judge["base_url"]).port]
                judge["base_url"] = servers[error].url
            given[arm] = reward_function(config)(completions=[f"Answer: {t}." for t in truth], **columns)
        calls = hybrid_study.save(tmp_path / "calls.json", servers)
        again = hybrid_study.save(tmp_path / "calls.json", servers)
    recorded = [float(r["answers"][0] == t) for r, t in zip(rows, truth, strict=True)]
    assert given["rule"] == given["exact"] == recorded
    doubtful = recorded.count(0.0)
    assert {arm: c["calls"] for arm, c in calls.items()} == {
        "judge": 40,
        "hybrid": doubtful,
        "hybrid_2": doubtful,
    }
    assert {arm: c.get("false rejects", 0) for arm, c in calls.items()} == {
        a: given[a].count(0.0) for a in calls
    }
    assert again == {
        arm: {k: 2 * v for k, v in c.items()} for arm, c in calls.items()
    }  # an earlier session's are added
    assert all(h == 1.0 for h, r in zip(given["hybrid"], recorded, strict=True) if r)
