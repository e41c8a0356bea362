"""Other hosts: every leaf task through lm-eval's bare task interface, a setting after the name, `score`."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from fake_endpoint import FakeEndpoint
from hostkit import CANARY, JUNK, PlainHost, open_doc, right, whole_data
from lm_eval.api.metrics import mean
from test_contract import lm_eval, results

from icr_tasks.benchmarks import browsecomp_plus, catalog
from icr_tasks.errors import IcrError
from icr_tasks.harness.run import manager
from icr_tasks.harness.score import Scored, clustered_error
from icr_tasks.leaderboard.ledgers.collect import collect
from icr_tasks.leaderboard.stats import Design

LEAVES = tuple(catalog.leaves())
SYNTH = tuple(name for name in LEAVES if "_synth_" in name)


@pytest.fixture(scope="module")
def data(replica: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(browsecomp_plus.KEY, CANARY)
        root = whole_data(replica, tmp_path_factory.mktemp("data"))
        patch.setenv("ICR_DATA_DIR", str(root))
        yield root


@pytest.fixture(scope="module")
def judge() -> Iterator[FakeEndpoint]:
    """A judge that finds junk to be junk, by Loong's rubric and by that of equivalence."""

    def say(prompt: str) -> str:
        junk = JUNK in prompt
        return (
            f"Evidence: x\nRating: [[{1 if junk else 100}]]"
            if "Rating" in prompt
            else (f"Verdict: [[{'INCORRECT' if junk else 'CORRECT'}]]")
        )

    with FakeEndpoint(say) as server:
        yield server


def drive(name: str, limit: int, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> PlainHost:
    monkeypatch.setenv("ICR_OPTIONS", json.dumps(options))
    return PlainHost(name, limit)


def check(host: PlainHost, name: str) -> None:
    assert host.rows
    for task, doc, prompt, kwargs in host.rows:
        question = open_doc(task, doc)["question"].strip()
        assert question[:80] in prompt and len(prompt) > len(question) + 10, name
        assert kwargs["max_gen_toks"] > 0 and not kwargs["do_sample"]
    assert host.rewards(right) == pytest.approx([1.0] * len(host.rows)), name
    # junk shares a letter or two with a summary, and a judge's lowest mark is 1 of 100
    assert max(host.rewards(lambda doc, task: JUNK)) <= 0.05, name


@pytest.mark.parametrize("name", SYNTH)
def test_every_synth_task_as_nemo_evaluator_drives_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(drive(name, 1 if name.endswith(("256k", "512k", "1M")) else 3, monkeypatch, {}), name)


def test_every_other_task_as_nemo_evaluator_drives_it(
    data: Path, judge: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = {"judge_base_url": judge.url, "judge_model": "fake"}
    driven = set()
    for name in LEAVES:
        if name in SYNTH:
            continue
        more = {"questions_file": "loong_replica.jsonl"} if "loong" in name else {}
        more |= judged if scorer_of(name) in ("loong", "qa_judged") else {}
        check(drive(name, 2, monkeypatch, {"allow_partial": True, **more}), name)
        driven.add(name)
    assert {*driven, *SYNTH} == set(LEAVES)


def scorer_of(name: str) -> str | None:
    return catalog.sheet_of(name)["scorer"]


def one(name: str, **metadata: Any) -> Any:
    return next(iter(manager(metadata).load([name])["tasks"].values()))


def first(task: Any) -> dict[str, Any]:
    return next(task.doc_iterator(rank=0, limit=1, world_size=1))[1]


def test_a_score_needs_no_earlier_state(tmp_path: Path) -> None:
    """Another process may grade: citations and cuts are found again from the item."""
    asked, fresh = one("icr_synth_rag_1k", prompt="id"), one("icr_synth_rag_1k", prompt="id")
    doc = first(asked)
    asked.fewshot_context(doc)
    text = f"The answer is: {doc['answers'][0]} [DOC {asked.plain.digest(doc)['gold_ids'][0]}]"
    after = json.loads(json.dumps(doc))  # as a host hands it on
    assert fresh.process_results(after, [text]) == asked.process_results(doc, [text])
    assert fresh.process_results(after, [text])["cite_f1"] == 1.0
    folder = tmp_path / "tiny"
    tiny.tokenizer().save_pretrained(folder)
    cut = one("icr_synth_rag_1k", tokenizer=str(folder), max_model_len=4000)
    assert cut.process_results(doc, ["x"])["truncated"] == 1.0


def test_the_prompt_is_the_one_that_lm_eval_sends() -> None:
    for name in ("icr_synth_rag_1k", "icr_synth_rag_1k::none", "icr_synth_rag_1k::gold@only"):
        plain, stock = one(name), one(name, tokenizer="none")
        doc = first(plain)
        stock.build_all_requests(limit=1)
        assert plain.fewshot_context(doc) == stock.instances[0].args[0]
        assert (
            plain.construct_requests(doc=doc, ctx="", metadata=(name, 0, 1)).args[0]
            == stock.instances[0].args[0]
        )


@pytest.mark.parametrize(
    ("name", "metadata", "call", "says"),
    [
        (
            "icr_synth_rag_1k",
            {},
            lambda t, d: t.process_results({**d, "id": "other"}, ["x"]),
            "as the task gave it",
        ),
        (
            "icr_synth_rag_1k",
            {},
            lambda t, d: t.process_results({"question": "?"}, ["x"]),
            "as the task gave it",
        ),
        ("icr_synth_rag_1k", {}, lambda t, d: t.process_results("?", ["x"]), "as the task gave it"),
        ("icr_synth_rag_1k", {}, lambda t, d: t.process_results(d, []), "no answer"),
        ("icr_synth_rag_1k", {}, lambda t, d: t.fewshot_context(d, num_fewshot=5), "num_fewshot"),
        ("icr_synth_rag_1k", {"setting": "rag@1k"}, lambda t, d: t.fewshot_context(d), "ICR_OPTIONS"),
        (
            "icr_synth_rag_1k",
            {"setting": "kv:topk@0.05"},
            lambda t, d: t.fewshot_context(d),
            "icr-hf or icr-vllm",
        ),
        (
            "icr_synth_rag_1k",
            {"setting": "rag@1k+kv:topk@0.05"},
            lambda t, d: t.process_results(d, ["x"]),
            "icr-hf or icr-vllm",
        ),
    ],
)
def test_what_a_plain_host_cannot_do_is_no_zero(
    name: str, metadata: dict[str, Any], call: Any, says: str
) -> None:
    """Such a host takes KeyError, TypeError and ValueError for a score of 0."""
    task = one(name, **metadata)
    with pytest.raises(IcrError, match=says):
        call(task, first(task))


def test_a_judged_task_without_a_judge_is_refused(replica: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    task = one("icr_loong_fin", questions_file="loong_replica.jsonl", allow_partial=True)
    for call in (lambda: task.fewshot_context(first(task)), lambda: task.process_results(first(task), ["x"])):
        with pytest.raises(IcrError, match="judge_base_url"):
            call()


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "3"])
def test_options_of_the_environment_are_checked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_OPTIONS", text)
    with pytest.raises(IcrError, match="ICR_OPTIONS"):
        one("icr_synth_rag_512")


def test_a_setting_after_the_name() -> None:
    tasks = manager({})
    match = tasks.match_tasks
    assert match(["icr_synth_rag_5*::none", "icr_synth_rag_1k"]) == [
        "icr_synth_rag_512::none",
        "icr_synth_rag_512k::none",
        "icr_synth_rag_1k",
    ]
    assert match(["icr_helmet_rag_4k::rag@1k;document"])[0] == "icr_helmet_rag_nq_4k::rag@1k;document"
    found = tasks.load(["icr_synth_rag_512::rag@1k;document", "icr_synth_rag_512::full"])["tasks"]
    assert [str(task.options.setting) for task in found.values()] == ["rag@1k,document", "full"]
    for name, says in (
        ("icr_synth_rag_512::golden", "unknown setting 'golden'. Did you mean 'gold'?"),
        ("icr_synth_rag_512::rag@1k;dens", "Did you mean 'dense'?"),
        ("icr_synth_rg_512::full", "Did you mean 'icr_synth_rag_512'?"),
        ("icr_synth_rag_512::rag@1k;dense;embedder=a/b", "by --metadata"),
    ):
        for call in (match, tasks.load):
            with pytest.raises(IcrError) as caught:
                call([name])
            assert says in str(caught.value)
    with pytest.raises(IcrError, match="give only one of them"):
        one("icr_synth_rag_512::full", setting="none")
    assert str(one("icr_synth_rag_512::rag@1024", setting="rag@1k").options.setting) == "rag@1k"
    with pytest.raises(IcrError, match="name icr_synth_rag_512 and setting rag@1k"):
        catalog.expand("icr_synth_rag_512::rag@1k")


def test_named_settings_through_the_command_and_into_ledgers(tmp_path: Path) -> None:
    names = ("icr_synth_rag_512::full", "icr_synth_rag_512::none", "icr_synth_rag_1k::gold@only")
    run = lm_eval("oracle", names, tmp_path / "out", {}, "--limit", "4")
    assert run.returncode == 0, run.stderr[-2000:]
    assert {name: found["score,none"] for name, found in results(tmp_path / "out").items()} == dict.fromkeys(
        names, 1.0
    )
    ledgers = {
        run["setting"]["text"] if isinstance(run["setting"], dict) else run["setting"]: sorted(run["tasks"])
        for _, run in collect([tmp_path / "out"], tmp_path / "results")
    }
    assert ledgers == {
        "full": ["icr_synth_rag_512"],
        "none": ["icr_synth_rag_512"],
        "gold@only": ["icr_synth_rag_1k"],
    }
    run = lm_eval("oracle", ("icr_synth_rag_512::fulll",), tmp_path / "bad", {})
    assert run.returncode != 0 and "Did you mean 'full'?" in run.stderr


def test_score_and_its_errors(tmp_path: Path) -> None:
    run = lm_eval("mixed", ("icr_synth_rag_512",), tmp_path / "out", {}, "--limit", "40")
    assert run.returncode == 0, run.stderr[-2000:]
    found = results(tmp_path / "out")["icr_synth_rag_512"]
    rows = [json.loads(line) for line in next((tmp_path / "out").rglob("samples_*")).open()]
    scores = np.array([row["score"] for row in rows])
    assert 0 < scores.mean() < 1 and [row["subem"] for row in rows] == scores.tolist()
    assert found["score,none"] == found["subem,none"] == scores.mean()
    plain = scores.std(ddof=1) / math.sqrt(len(scores))
    assert found["score_stderr,none"] == pytest.approx(plain)
    clustered = Design([row["doc"]["cluster"] for row in rows]).score(scores).se
    assert found["score_se,none"] == pytest.approx(clustered)
    shared = [Scored(v, f"c{i // 4}") for i, v in enumerate([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0] * 5)]
    assert clustered_error(shared) > 1.5 * clustered_error([float(v) for v in shared])
    for _, run_head in collect([tmp_path / "out"], tmp_path / "results"):
        means = run_head["tasks"]["icr_synth_rag_512"]["means"]
        assert "subem" in means and not {"score", "score_se"} & means.keys()  # once in a ledger


def test_every_mean_is_lm_evals_own() -> None:
    task = one("icr_synth_rag_512")
    assert task.aggregation().pop("score_se") is clustered_error
    assert {function for name, function in task.aggregation().items() if name != "score_se"} == {mean}


def test_scores_remember_their_cluster() -> None:
    values = [Scored(v, c) for v, c in ((1, "a"), (1, "a"), (0, "b"), (0, "b"), (1, "c"), (1, "c"))]
    again = pickle.loads(pickle.dumps(values))  # as lm-eval gathers them from several processes
    expected = Design(["a", "a", "b", "b", "c", "c"]).score(np.array(values, float)).se
    assert clustered_error(values) == clustered_error(again) == expected
    assert json.dumps(values) == "[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]"
    assert math.isnan(clustered_error(values[:2]))  # one cluster says nothing of others
    assert clustered_error([0.0, 1.0, 1.0, 0.0]) == Design(range(4)).score(np.array([0.0, 1, 1, 0])).se
    shared = [Scored(v, "x", d) for v, d in ((1, "ab"), (0, "bc"), (1, "cd"), (0, "de"))]
    documents = [tuple("ab"), tuple("bc"), tuple("cd"), tuple("de")]
    assert clustered_error(shared) == Design(["x"] * 4, shared=documents).score(np.array([1.0, 0, 1, 0])).se
