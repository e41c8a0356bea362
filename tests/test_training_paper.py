"""The paper's experiment at toy scale: the study file, its constructed judge, five answer formats, Tables 1 to 4."""

from __future__ import annotations

import json
import random
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl", reason="training needs trl (extra [train])")
pytest.importorskip("openai", reason="the judge client needs openai (extra [judge])")

from icr_tasks.errors import IcrError
from icr_tasks.metrics.judge.rubrics import RUBRICS, Case
from icr_tasks.training import config as configs
from icr_tasks.training.demo import base, forms
from icr_tasks.training.rewards import Row, score
from icr_tasks.training.study import judge, spec

STUDY = "paper_cpu.yaml"


@pytest.mark.parametrize("name", forms.FIVE)
def test_every_format_s_answer_earns_the_whole_reward_and_is_short(name: str) -> None:
    tokenizer = base.tokenizer(forms.FIVE)
    limit = spec.load(Path(STUDY), Path("out")).config(name, 0, "m").max_response_length
    for row in base.rows(6, [6], name, seed=1):
        gold = row["gold_ids"][0]
        text = base.answer(name, gold, row["passages"][gold], row["answers"][0])
        assert len(tokenizer(text)["input_ids"]) < limit, tokenizer.tokenize(text)
        if name == "judge":
            prompt, _ = RUBRICS["paper"].render(
                Case(row["question"], row["answers"][0], text, "x", "\n\n".join(row["gold_docs"]))
            )
            assert RUBRICS["paper"].parse(judge.verdict(prompt)).rating == 3
        else:
            best = {"ao": 1, "id": 2, "idc": 3, "idq": 3}[name]
            assert score(name, [text], [Row.of(row)])[0]["reward"] == best
    assert len(base.conversation(random.Random(0), 3, 8, formats=(name,))) == 7


def test_the_constructed_judge_tells_its_three_criteria_apart() -> None:
    def rated(text: str) -> dict[str, int]:
        case = Case("Where?", "Brand", text, "x", "[DOC 3] Ada was born in the city Brand.")
        return RUBRICS["paper"].parse(judge.verdict(RUBRICS["paper"].render(case)[0])).criteria

    step = "**Step 3: Reasoning**\nAccording to [DOC 3]\n{}\n\n**Step 4: Answer**\nThe answer is: {}."
    right = "Ada was born in the city Brand."
    assert rated(step.format(right, "Brand")) == {"reasoning": 1, "grounding": 1, "correctness": 1}
    assert rated(step.format("Bob was born in Lund.", "Brand")) == {
        "reasoning": 1,
        "grounding": 0,
        "correctness": 1,
    }
    assert rated(step.format(right, "Lund"))["correctness"] == 0
    assert rated("The answer is: Brand.") == {"reasoning": 0, "grounding": 0, "correctness": 1}


def test_the_judge_answers_on_its_port_while_the_study_runs() -> None:
    with judge.served(0):
        pass  # none
    with judge.served(8758):
        body = json.dumps({"messages": [{"role": "user", "content": "what?"}]}).encode()
        request = urllib.request.Request("http://127.0.0.1:8758/v1/chat/completions", body)
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert "not a prompt" in json.load(reply)["choices"][0]["message"]["content"]
        with pytest.raises(IcrError, match="cannot listen on port 8758"), judge.served(8758):
            pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"judge": "yes"}, "the port of the study's constructed judge"),
        ({"tables": {"rank": "icr_x"}}, "list of task names"),
        ({"tables": {"ranks": []}}, "Did you mean 'rank'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**configs.read(spec.SHIPPED / STUDY), **changes}))
    with pytest.raises(IcrError, match=says):
        spec.load(path, tmp_path)


def test_tables_1_to_4_of_a_studys_ledgers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by setting, what compression costs, how attention ranks: from ledgers, without a model."""
    import gatekit

    from icr_tasks.leaderboard.ledgers import lm_eval_files
    from icr_tasks.settings import Setting
    from icr_tasks.training.study import tables

    study, results = spec.load(Path(STUDY), tmp_path), tmp_path / "eval" / "results"
    for model, prompt in (("base", "id"), ("base", "ao"), ("ao-s0@20", "ao")):
        for setting in ("full", "kv:snapkv@0.5"):

            def change(run: dict[str, Any], setting: str = setting, prompt: str = prompt) -> None:
                run["setting"] = {**Setting.parse(setting).describe()}
                run["prompt"] = run["fingerprint_inputs"]["prompt"] = prompt
                run["fingerprint"] = lm_eval_files.run_fingerprint(run["fingerprint_inputs"])

            gatekit.write(results, gatekit.rows(seed=0), model=model, setting=setting, change=change)
    item = {"item": "q1", "cluster": "c1", "tokens": 9, "ndcg@10": {"attention": 0.5, "position": 0.25}}
    rank = {
        "model": "base",
        "revision": None,
        "task": "icr_synth_short_128",
        "prompt": "ao",
        "data": {
            "benchmark": "synth",
            "dataset": "short",
            "length": "128",
            "data_source": "",
            "data_revision": "1",
        },
        "items": [item, item | {"item": "q2", "cluster": "c2"}],
    }
    (results / "ranks").mkdir()
    (results / "ranks" / "rank_icr_synth_short_128.json").write_text(json.dumps(rank))
    monkeypatch.setattr(tables, "rank", lambda *args: None)
    text = tables.write(study, str(tmp_path / "base"))
    for part in ("### Tables 1 and 2", "### Table 3", "Drop under compression", "### Table 4", "`attention`"):
        assert part in text
    assert "vs drop of base" in text and "kv:snapkv@0.5" in text
    assert "different prompt" not in text.partition("### Table 3")[2], (
        "the reference has a row of each prompt"
    )
    assert (tmp_path / "board" / "board.html").is_file()


def test_arms_in_formats_of_their_own_are_compared_as_whole_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of runs refuses other prompts unless they are allowed: it did so at the end of a study."""
    from icr_tasks.leaderboard.pairs import joined
    from icr_tasks.training.study import results

    found = object.__new__(results.Results)
    found.study = spec.load(Path(STUDY), Path("out"))
    assert found.settings() == ["full", "rag@18", "kv:snapkv@0.3,window=8"], "as ledgers name them"
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(results.Results, "_run", lambda self, *args: args)
    monkeypatch.setattr(joined, "pair", lambda a, b, allow=(): seen.append((a[3], b[3], allow)))
    found._pairs("id", "sft", "full")
    found._pairs("ao", "sft", "full")
    found._pairs("id", spec.START, "full")
    assert seen[::3] == [("id", "id", ("prompts",)), ("ao", "ao", ()), ("id", "id", ())]
