"""Thinking templates counted, recorded and evaluated alike; input that would train on a lie, named and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="rows are counted with a tokenizer")
pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
import trainkit

from icr_tasks.errors import IcrError
from icr_tasks.training import checkpoint, checks, difficulty, evaluate, prepare, trainers
from icr_tasks.training.data import store
from icr_tasks.training.rewards import trl_reward
from icr_tasks.training.rows import Report, counter

# Thinking is on unless it is switched off, which puts an empty thought before the answer, as in Qwen3.
THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OFF = {"enable_thinking": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer

    root = trainkit.make(tmp_path_factory.mktemp("thinking"))
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    tokenizer.chat_template = THINKING
    tokenizer.save_pretrained(root / "base")
    return root


def _tokenizer(root: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(root / "base")


def test_the_template_s_arguments_count_in_a_prompt_s_length(root: Path) -> None:
    tokenizer, row = _tokenizer(root), next(store.read(root / "data" / "train.parquet"))
    on, off = (counter(tokenizer, "ao", given)[0](row) for given in ({}, OFF))
    extra = len(tokenizer("<think>\n\n</think>\n\n", add_special_tokens=False)["input_ids"])
    assert off == on + extra > on
    # at a limit between the two, a row fits with thinking on and is cut with thinking off
    path, rows = root / "data" / "train.parquet", list(store.read(root / "data" / "train.parquet"))
    for given, cut in (({}, 0), (OFF, len(rows))):
        limit = max(counter(tokenizer, "ao", {})[0](r) for r in rows)
        config = trainkit.config(root, "sft", "none", chat_template_kwargs=given, max_prompt_length=limit)
        report = Report()
        made = list(prepare.rows(config, path, tokenizer, report))
        assert report.cut <= cut and (report.cut > 0) == bool(given)
        assert all(("chat_template_kwargs" in m) == bool(given) for m in made)
    assert not prepare.counted(path, trainkit.config(root, "grpo", "none", chat_template_kwargs=OFF))


def test_the_template_s_arguments_reach_trainer_card_and_evaluation(root: Path, tmp_path: Path) -> None:
    config = trainkit.config(root, "grpo", "none", chat_template_kwargs=OFF)
    assert prepare.arguments(config)["chat_template_kwargs"] == OFF
    assert "chat_template_kwargs" not in prepare.arguments(trainkit.config(root, "grpo", "none"))
    found = checkpoint.record(config, data_hash="d", order="o", step=2, metrics={}, truncation="")
    assert found["chat_template_kwargs"] == OFF
    folder = tmp_path / "run" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "icr.json").write_text(json.dumps(found))
    given: dict[str, Any] = {"engine": "icr-hf", "settings": ["full"], "tasks": ["icr_synth_short_128"]}
    tree = evaluate.study([evaluate.read(folder)], **given, out=tmp_path)
    assert [m["model_args"]["enable_thinking"] for m in tree["models"]] == [False, False]
    other = tmp_path / "other" / "checkpoint-2"
    other.mkdir(parents=True)
    (other / "icr.json").write_text(json.dumps(found | {"chat_template_kwargs": {}}))
    with pytest.raises(IcrError, match="different chat_template_kwargs"):
        evaluate.study([evaluate.read(folder), evaluate.read(other)], **given, out=tmp_path)


def test_a_base_without_a_chat_template_is_refused_before_training(root: Path, tmp_path: Path) -> None:
    copied = trainkit.make(tmp_path)
    tokenizer = _tokenizer(copied)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(copied / "base")
    (copied / "base" / "chat_template.jinja").unlink(missing_ok=True)
    path = copied / "data" / "train.parquet"
    for kind in ("sft", "grpo"):
        config = trainkit.config(copied, kind, f"out-{kind}")
        with pytest.raises(IcrError, match="base has no chat template.*put a chat_template.jinja into"):
            prepare.check(config, launched=False)  # what --check, --plan, launch and difficulty begin with
        with pytest.raises(IcrError, match="tokenizer has no chat template"):
            prepare.ready(config, path, 1)
    tokenizer.chat_template = THINKING
    tokenizer.save_pretrained(copied / "base")
    prepare.check(config, launched=False)
    for name in ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json"):
        (copied / "base" / name).unlink(missing_ok=True)
    with pytest.raises(IcrError, match="base holds no tokenizer"):
        prepare.check(config, launched=False)


def test_a_base_without_a_chat_template_in_the_hub_s_cache_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    home = tmp_path / "hub" / "models--some--base"
    folder = home / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    checks.template("some/base")  # nothing is here
    (folder / "tokenizer_config.json").write_text("{}")
    checks.template("some/base")  # the template may not have been fetched yet
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(IcrError, match="some/base has no chat template"):
        checks.template("some/base")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (home / ".no_exist" / "abc").mkdir(parents=True)
    (home / ".no_exist" / "abc" / "chat_template.jinja").touch()
    with pytest.raises(IcrError, match="some/base has no chat template"):
        checks.template("some/base")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": THINKING}))
    checks.template("some/base")
    checks.template("no/name/of/the/hub")


def test_rows_of_the_dev_set_under_another_file_name_are_refused_too(tmp_path: Path) -> None:
    root = trainkit.make(tmp_path)
    rows = list(store.read(root / "data" / "train.parquet"))
    store.write(root / "data" / "hard.parquet", rows, store.ROW)
    store.write(root / "data" / "dev.parquet", rows[:2], store.ROW)
    held = {"eval_strategy": "steps", "eval_steps": 1}
    given = {"data": str(root / "data" / "hard.parquet"), "trl": held}
    with pytest.raises(IcrError, match="2 rows of .*hard.parquet are in dev.parquet too"):
        prepare.check(trainkit.config(root, "sft", "out", **given))
    given = {"data": str(root / "data" / "dev.parquet")}
    prepare.check(trainkit.config(root, "sft", "out", **given))  # nothing else is looked at
    with pytest.raises(IcrError, match="2 rows of .*dev.parquet are in dev.parquet too"):
        prepare.check(trainkit.config(root, "sft", "out", **given, trl=held))


def test_a_run_and_a_card_name_the_rows_they_were_trained_on(tmp_path: Path) -> None:
    root = trainkit.make(tmp_path)
    path = root / "data" / "train.parquet"
    rows, whole = list(store.read(path)), checks.hash_of(path)
    assert whole == store.Manifest.load(path.parent).hash()
    store.write(path.parent / "hard.parquet", rows[:4], store.ROW)
    assert checks.hash_of(path.parent / "hard.parquet") != whole  # not the folder's
    config = trainkit.config(root, "sft", "out")
    prepare.ready(config, path, 1)
    prepare.check(config)
    store.write(path, rows[:6], store.ROW)  # by hand: the manifest knows nothing of it
    assert checks.hash_of(path) != whole
    with pytest.raises(IcrError, match="changed since the run in .* began"):
        prepare.check(config)


def test_starting_over_is_not_said_to_one_of_several_processes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "out").mkdir()
    config = trainkit.config(root, "sft", str(tmp_path / "out"), devices=2)
    prepare.check(config)
    with pytest.raises(IcrError, match="--fresh is for one process"):
        prepare.check(config, fresh=True)


def test_a_tokenizer_that_cannot_be_read_is_not_called_rows_that_cannot_be_used(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("tokenizer.json is cut off")

    config = trainkit.config(root, "sft", str(tmp_path / "out"))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", broken)
    with pytest.raises(OSError, match="cut off"):
        prepare.materialise(config, root / "data" / "train.parquet", "", 1)


def test_answers_that_no_passage_holds_are_counted_and_refused_where_all_rows_are_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = trainkit.make(tmp_path)
    path, rows = root / "data" / "train.parquet", list(store.read(root / "data" / "train.parquet"))
    config = trainkit.config(root, "grpo", "out")
    prepare.check(config, launched=False)
    assert "no passage" not in capsys.readouterr().err
    store.write(path, [rows[0] | {"answers": ["Xanadu"]}, *rows[1:]], store.ROW)
    prepare.check(config, launched=False)
    assert "1 of 8 rows have an answer that no passage holds" in capsys.readouterr().err
    yes = [r | {"answers": ["yes"]} for r in rows]  # said of passages, never in them
    store.write(path, yes, store.ROW)
    prepare.check(config, launched=False)
    assert "no passage" not in capsys.readouterr().err
    store.write(path, [r | {"answers": ["Xanadu"]} for r in rows], store.ROW)
    with pytest.raises(IcrError, match="no row has an answer that its passages hold, such as"):
        prepare.check(config, launched=False)


def test_a_judge_that_answers_garbage_gives_no_reward_and_stops_the_run(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the judge client needs openai (extra [judge])")
    from fake_endpoint import FakeEndpoint

    columns = {"question": ["q"] * 2, "answers": [["Paris"]] * 2, "gold_ids": [[0]] * 2}
    columns |= {"gold_docs": [["Paris is it."]] * 2, "original_ids": [[0]] * 2, "id": ["a", "b"]}
    texts = ["The answer is: Paris.", "The answer is: Rome."]
    with FakeEndpoint(lambda prompt: "I like documents.") as server:
        judge = {"base_url": server.url, "model": "m", "cache": False}
        found = trl_reward("judge", judge={k: v for k, v in judge.items() if k != "cache"})
        assert found(completions=texts, **columns) == [None, None]
        recorder = trainers.Recorder(found, tmp_path, every=0)
        with pytest.raises(IcrError, match="gave no value for any of 2 completions"):
            recorder(completions=texts, **columns)


def test_difficulty_asks_a_served_model_in_the_words_of_the_config(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="a served model is asked through openai (extra [judge])")
    from fake_endpoint import FakeEndpoint

    rows = list(store.read(root / "data" / "train.parquet"))
    answers = {r["question"]: r["answers"][0] for r in rows}
    hard = rows[0]["question"]

    def reply(prompt: str) -> str:
        asked = next(q for q in answers if q in prompt)
        return "Answer: nobody knows." if asked == hard else f"Answer: {answers[asked]}."

    config = root / "served.yaml"
    config.write_text(trainkit.config(root, "grpo", "none", chat_template_kwargs=OFF).dump())
    with FakeEndpoint(reply, whole=True) as server:
        given = [str(config), "-k", "2", "-o", str(tmp_path), "--base-url", server.url]
        with pytest.raises(IcrError, match="no row is left"):  # each group is all right or all wrong
            difficulty.main([*given, "--served-model", "m"])
        assert {b["model"] for b in server.bodies} == {"m"} and {b["n"] for b in server.bodies} == {2}
        assert all(b["chat_template_kwargs"] == OFF for b in server.bodies)
        assert {b["max_tokens"] for b in server.bodies} == {6} and len(server.bodies) == len(rows)
    found = [json.loads(line) for line in (tmp_path / "difficulty.jsonl").read_text().splitlines()]
    assert sum(r["pass"] for r in found) == len(rows) - 1 and all(r["flat"] for r in found)


def test_difficulty_names_a_server_that_does_not_answer(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="a served model is asked through openai (extra [judge])")
    config = root / "nobody.yaml"
    config.write_text(trainkit.config(root, "grpo", "none").dump())
    given = [str(config), "-k", "2", "-o", str(tmp_path), "--base-url", "http://127.0.0.1:9/v1"]
    with pytest.raises(IcrError, match="server at http://127.0.0.1:9/v1 gave no completions of .* goes on"):
        difficulty.main(given)


def test_a_model_that_is_nowhere_is_named_not_its_rows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = trainkit.config(root, "sft", str(tmp_path / "out"), model="nowhere")
    path = root / "data" / "train.parquet"
    with pytest.raises(IcrError, match="nowhere") as error:
        prepare.materialise(config, path, "hash")
    assert "no row" not in str(error.value)


def test_difficulty_in_this_process_asks_vllm_for_the_config_s_lengths(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM itself is started by tests/test_engine_vllm.py; this is what it is asked."""
    vllm = pytest.importorskip("vllm")
    seen: dict[str, Any] = {}

    class Fake:
        def __init__(self, **given: Any) -> None:
            seen.update(given)

        def chat(self, asked: Any, given: Any, **more: Any) -> Any:
            seen.update(given=given, more=more)
            text = type("Text", (), {"text": "Answer: x."})
            return [type("Out", (), {"outputs": [text] * given.n}) for _ in asked]

    monkeypatch.setattr(vllm, "LLM", Fake)
    config = trainkit.config(root, "grpo", "none", chat_template_kwargs=OFF)
    found = difficulty.vllm_sampler(config)([[{"role": "user", "content": "q"}]] * 3, 4)
    assert found == [["Answer: x."] * 4] * 3 and seen["max_model_len"] == 406
    assert seen["given"].n == 4 and seen["given"].max_tokens == 6 and seen["given"].temperature == 1.0
    assert seen["more"]["chat_template_kwargs"] == OFF


def test_rows_that_are_not_whole_are_refused_before_training(tmp_path: Path) -> None:
    root = trainkit.make(tmp_path)
    path = root / "data" / "train.parquet"
    rows, config = list(store.read(path)), trainkit.config(root, "sft", "out")
    for change, says in (
        ({"question": None}, "8 of 8 rows .* no question"),
        ({"question": " "}, "no question"),
        ({"gold_docs": ["Another text."]}, "gold texts are not the passages that its gold ids name"),
    ):
        store.write(path, [r | change for r in rows], store.ROW)
        with pytest.raises(IcrError, match=says):
            prepare.check(config)
    for name in ("passages", "n_tokens"):
        store.write(path, rows, {k: v for k, v in store.ROW.items() if k != name})
        with pytest.raises(IcrError, match=f"has no column {name}; make it with `icr train data`"):
            prepare.check(config)
    path.write_bytes(b"no parquet")
    with pytest.raises(IcrError, match="is not a readable parquet file"):
        prepare.check(config)
