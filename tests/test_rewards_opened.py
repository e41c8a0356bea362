"""Completions that begin inside a thought, because the chat template opened it: a cut one earns nothing anywhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("trl", reason="training needs trl (extra [train])")
import trainkit
from transformers import AutoTokenizer

from icr_tasks.cli import main
from icr_tasks.training import difficulty, trainers
from icr_tasks.training.data import store
from icr_tasks.training.rewards import Row, compute_score, score, trl_reward
from icr_tasks.training.rows import opened

CUT = "Document 3 says the Seine runs through it. So the answer is Paris. But wait, I should check whether the others say it"
WHOLE = f"{CUT} too.\n</think>\n\nThe answer is: Paris"
ROW = Row(answers=("Paris",), gold_ids=(3,), gold_docs=("Paris lies on the Seine.",), question="Which city?")
VERDICT = "".join(f"\\boxed{{Criterion {i}: 1}}\n" for i in (1, 2, 3))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run whose base begins every answer with <think>, as DeepSeek R1 does."""
    made = trainkit.make(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    begin = "{% if add_generation_prompt %}<think>\n{% endif %}"
    tokenizer.chat_template += begin
    tokenizer.save_pretrained(made / "base")
    return made


def test_a_thought_that_was_cut_earns_nothing() -> None:
    assert [s["reward"] for s in score("ao", [CUT, WHOLE], [ROW] * 2, opened=True)] == [0.0, 1.0]
    columns = {"answers": [["Paris"]] * 2}
    assert trl_reward("ao", opened=True)(completions=[CUT, WHOLE], **columns) == [0.0, 1.0]
    shown: list[str] = []

    def ask(prompts: list[str]) -> list[str]:
        shown.extend(prompts)
        return [VERDICT] * len(prompts)

    doubt = trl_reward("hybrid", ask=ask, opened=True)
    assert doubt(completions=[CUT, WHOLE], **columns) == [0.0, 1.0] and not shown
    assert compute_score("x", CUT, "Paris", opened=True)["score"] == 0.0
    assert compute_score("x", WHOLE, "Paris", reward="hybrid", ask=ask, opened=True)["score"] == 1.0


def test_training_asks_the_template(root: Path, tmp_path: Path) -> None:
    config = trainkit.config(root, "grpo", "out")
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    columns = {"completions": [CUT], "answers": [["Paris"]]}
    assert opened(tokenizer, "ao")
    assert trainers.reward_function(config, tokenizer)(**columns) == [0.0]
    tokenizer.response_schema = {"type": "object"}  # TRL takes the thought out itself
    assert trainers.reward_function(config, tokenizer)(**columns) == [1.0]
    assert not opened(AutoTokenizer.from_pretrained(trainkit.make(tmp_path / "plain") / "base"), "ao")


def test_difficulty_reads_what_follows_the_thought(root: Path, tmp_path: Path) -> None:
    config = trainkit.config(root, "grpo", "out")
    answer = {r["question"]: r["answers"][0] for r in store.read(root / "data" / "train.parquet")}

    def sample(conversations, k):  # type: ignore[no-untyped-def]
        said = [next(a for q, a in answer.items() if q in m[-1]["content"]) for m in conversations]
        return [[f"Answer: {a}", f"Hm.</think>Answer: {a}"] for a in said]

    found = difficulty.measure(config, root / "data" / "train.parquet", tmp_path / "hard", 2, sample)
    assert {r["mean"] for r in found.values()} == {0.5}
    parsed = SimpleNamespace(content="Answer: Paris", reasoning_content="Hm.")
    lost = SimpleNamespace(content=None, reasoning="Hm.")
    texts = difficulty.Replies(True).texts([[parsed, lost]])[0]
    assert [s["reward"] for s in score("ao", texts, [ROW] * 2, opened=True)] == [1.0, 0.0]


def reply(content: str, *thought: str | None) -> SimpleNamespace:
    """A served message; without `thought` it has no field for one."""
    return SimpleNamespace(content=content, **({"reasoning_content": thought[0]} if thought else {}))


@pytest.mark.parametrize(
    ("same", "replies", "earned"),
    [
        # the server has a parser: a blank thought, one with marks of its own, a cut one, none
        (True, [reply("Answer: Paris", "\n\n"), reply("Answer: Paris", "Hm.")], [1, 1]),
        (
            True,
            [reply("Answer: Paris", "It says </think> and <think> there."), reply("", "It is Paris.")],
            [1, 0],
        ),
        (True, [reply("Answer: Paris", None), reply("Answer: Paris", "Hm.")], [1, 1]),
        # it has none: the thought is in the content, be it cut
        (True, [reply(CUT), reply(WHOLE)], [0, 1]),
        (False, [reply(CUT, None), reply(WHOLE, None)], [0, 1]),
        (True, [reply(CUT)], [0]),
        (False, [reply("Answer: Paris")], [1]),  # another model's, and nothing speaks of thoughts
    ],
)
def test_served_replies_begin_where_the_server_s_parser_lets_them(
    same: bool, replies: list[SimpleNamespace], earned: list[int]
) -> None:
    texts = [text for (text,) in difficulty.Replies(same).texts([[one] for one in replies])]
    assert [s["reward"] for s in score("ao", texts, [ROW] * len(texts), opened=True)] == earned


def test_a_mark_that_decoding_takes_out_opens_nothing(root: Path) -> None:
    config = trainkit.config(root, "grpo", "out")
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = tokenizer("Hm.</think>Answer: Paris", add_special_tokens=False)["input_ids"]
    assert "</think>" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert not opened(tokenizer, "ao")
    columns = {"completions": ["Hm. The answer is: Paris"], "answers": [["Paris"]]}
    assert trainers.reward_function(config, tokenizer)(**columns) == [1.0]


def test_exports_without_a_chat_template_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trainkit.make(tmp_path)
    (made / "base" / "chat_template.jinja").unlink()
    asked = [
        "train",
        "export",
        str(made / "data"),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(made / "base"),
    ]
    for to in ("verl", "verifiers"):
        assert main([*asked, "--to", to]) != 0 and "no chat template" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.*"))


def test_exports_carry_it(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "rows"
    assert main(["train", "data", "--synth", "12", "--length", "512", "--dev", "0.2", "-o", str(data)]) == 0
    asked = ["train", "export", str(data), "-o", str(tmp_path / "out"), "--model", str(root / "base")]
    assert main([*asked, "--to", "verl"]) == 0 and "opened: true" in capsys.readouterr().out
    assert main([*asked, "--to", "verifiers"]) == 0
    source = (tmp_path / "out" / "icr_retrieval" / "__init__.py").read_text()
    assert "OPENED = True" in source and "opened=OPENED" in source
