"""What `--model icr-vllm` is made of, without an engine: exact tokens in pieces, answers stored as they
come."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.engines import answers
from icr_tasks.engines.answers import AnswerStore
from icr_tasks.engines.encode import encode

WORDS = [
    "the",
    " quick",
    " brown",
    "\n",
    "\n\n",
    "  ",
    "中文",
    "é",
    "12345678",
    "😀",
    "<|end|>",
    "don't",
    ".",
    "aaaaaaaa",
]


@pytest.fixture(scope="module")
def trained() -> Any:
    """A byte-level BPE trained on the spot, with GPT-2's word rule and a BOS token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rng = random.Random(0)
    corpus = ["".join(rng.choices(WORDS, k=200)) for _ in range(50)]
    raw.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<|end|>"]))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>")


@given(st.lists(st.sampled_from(WORDS), min_size=0, max_size=3000), st.booleans(), st.integers(300, 5000))
@settings(max_examples=60, deadline=None)
def test_pieces_give_the_tokens_of_the_whole(
    trained: Any, words: list[str], special: bool, piece: int
) -> None:
    text = "".join(words) * 3
    expected = trained(text, add_special_tokens=special)["input_ids"]
    found = encode(trained, text, special=special, piece=piece)
    assert found.dtype == np.int32 and found.tolist() == expected


@pytest.mark.parametrize(
    "text", ["a" * 20_000, " " * 20_000, "\n" * 9_999 + "x", "1234567890" * 2_000, "中" * 9_000]
)
def test_text_without_joints_is_exact_too(trained: Any, text: str) -> None:
    assert encode(trained, text, piece=1000).tolist() == trained(text, add_special_tokens=False)["input_ids"]
    one_token_a_byte = tiny.tokenizer()
    expected = one_token_a_byte(text, add_special_tokens=False)["input_ids"]
    assert encode(one_token_a_byte, text, piece=1000).tolist() == expected


class _Request:
    task_name, doc_id, setting = "t", 0, None

    def __init__(self, prompt: str, **kwargs: Any) -> None:
        self.args, self.found = (prompt, kwargs), {}


def test_answers_are_stored_as_they_come_and_never_made_twice(tmp_path: Path) -> None:
    store, made = AnswerStore(tmp_path, {}), []

    def stream(requests: Any, order: list[int]) -> Any:
        for i in order:
            prompt = requests[i].args[0]
            made.append(prompt)
            if prompt == "stop":
                raise KeyboardInterrupt
            yield i, prompt.upper(), {"error": "refused"} if prompt == "bad" else {"timing": {"engine": 1.0}}

    asked = [_Request(p) for p in ("b", "a", "bad", "a")]
    assert answers.answer(asked, store, stream) == ["B", "A", "BAD", "A"]
    assert (
        sorted(made) == ["a", "b", "bad"] and len(store) == 2
    )  # one of two equal ones; a failure is not stored
    made.clear()
    again = AnswerStore(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        answers.answer([*asked, _Request("stop"), _Request("c")], again, stream)
    assert "a" not in made and "b" not in made
    asked[2] = _Request("ok")
    assert answers.answer(asked, again, stream) == ["B", "A", "OK", "A"]
    # what was measured comes back with every answer: stored, new, and of two equal requests
    assert [request.found["timing"]["engine"] for request in asked] == [1.0] * 4
    assert all(request.found["timing"]["wall"] >= 0 for request in asked)


def test_wall_seconds_add_up_to_the_time_of_the_engine(tmp_path: Path) -> None:
    """However requests overlap, and although two equal ones are generated once; a stored answer keeps the
    seconds of its own generation."""
    import time

    def stream(requests: Any, order: list[int]) -> Any:
        time.sleep(0.05)  # three run side by side, and end together
        for i in order:
            yield i, "x", {"timing": {"engine": 0.05}}

    store = AnswerStore(tmp_path, {})
    asked = [_Request(p) for p in ("a", "b", "c", "a")]
    since = time.perf_counter()
    answers.answer(asked, store, stream)
    spent = time.perf_counter() - since
    walls = [request.found["timing"]["wall"] for request in asked]
    assert 0.05 <= sum(walls) <= spent + 0.001 and sum(w > 0.04 for w in walls) == 1
    again = [_Request(p) for p in ("a", "b", "c")]
    answers.answer(again, AnswerStore(tmp_path, {}), stream)
    assert [r.found["timing"]["wall"] for r in again] == walls[:3]


def test_sampled_repeats_differ_and_settings_that_change_the_cache_are_kept_apart() -> None:
    from icr_tasks.settings import Setting

    greedy, sampled = _Request("p"), _Request("p", do_sample=True)
    assert (
        len(set(answers.keys_of([greedy, greedy]))) == 1
        and len(set(answers.keys_of([sampled, sampled]))) == 2
    )
    plain = answers.key_of(greedy)
    for text, same in (("full", True), ("gold", True), ("kv:fp8", False)):
        greedy.setting = Setting.parse(text)
        assert (answers.key_of(greedy) == plain) is same


def test_a_failing_batch_fails_one_item_and_a_broken_engine_everything() -> None:
    def generate(requests: list[Any]) -> list[str]:
        if any(r.args[0].startswith("bad") for r in requests):
            raise ValueError("too long")
        return [r.args[0].upper() for r in requests]

    stream = answers.batches(generate, 4)
    found = list(stream([_Request(p) for p in ("a", "bad", "b", "c", "d")], [0, 1, 2, 3, 4]))
    assert [(i, text) for i, text, _ in found] == [(0, "A"), (1, ""), (2, "B"), (3, "C"), (4, "D")]
    assert found[1][2]["error"] == "engine refused: too long"
    with pytest.raises(ValueError, match="too long"):
        list(stream([_Request(f"bad{i}") for i in range(9)], list(range(9))))


def test_a_store_is_shared_while_it_is_open(tmp_path: Path) -> None:
    one, two = AnswerStore(tmp_path, {"m": 1}), AnswerStore(tmp_path, {"m": 1})
    one.put("k", {"text": "x"})
    assert two.get("k") is None
    two.refresh()
    assert two.get("k") == {"key": "k", "text": "x"}
    two.put("k", {"text": "y"})
    third = AnswerStore(tmp_path, {"m": 1})
    assert third.get("k") == {"key": "k", "text": "x"} and third.damaged == 0  # the first answer stays


def test_one_call_may_hold_requests_of_several_settings() -> None:
    """Two tasks of different settings in one process: each request carries its own."""
    from icr_tasks.harness.run import manager

    def setting(text: str) -> Any:
        task = manager({"setting": text, "tokenizer": "none"}).load(["icr_synth_rag_512"])["tasks"][
            "icr_synth_rag_512"
        ]
        task.build_all_requests(limit=2)
        return {str(instance.setting) for instance in task.instances}

    assert (setting("gold"), setting("full"), setting("none")) == ({"gold"}, {"full"}, {"none"})


PARALLEL = {
    "tensor_parallel_size": 4,
    "pipeline_parallel_size": 2,
    "nnodes": 2,
    "node_rank": 0,
    "master_addr": "10.0.0.1",
    "master_port": 29501,
    "distributed_executor_backend": "mp",
    "decode_context_parallel_size": 2,
    "prefill_context_parallel_size": 1,
    "enable_expert_parallel": True,
    "max_parallel_loading_workers": 2,
}


@pytest.mark.parametrize("name", ["icr-vllm", "vllm"])
def test_options_of_many_gpus_and_nodes_reach_the_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As typed in model_args, to vLLM's own arguments: each is a field that it knows, and none is left on the way."""
    import dataclasses
    import os

    pytest.importorskip("vllm")
    import lm_eval.models.vllm_causallms as stock
    from lm_eval.api.registry import get_model
    from lm_eval.utils import simple_parse_args_string
    from vllm.engine.arg_utils import EngineArgs

    given: dict[str, Any] = {}

    class Reached(Exception):
        pass

    def engine(**args: Any) -> None:
        given.update(args)
        raise Reached

    monkeypatch.setattr(stock, "LLM", engine)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # vLLM's name for the executor changes what forks do
    typed = ",".join(f"{key}={value}" for key, value in {"pretrained": "m", **PARALLEL}.items())
    with pytest.raises(Reached):
        get_model(name).create_from_arg_string(typed)
    assert {key: given.get(key) for key in PARALLEL} == PARALLEL
    assert given.keys() <= {field.name for field in dataclasses.fields(EngineArgs)}
    assert simple_parse_args_string(typed)["node_rank"] == 0


def test_none_of_them_makes_another_cell() -> None:
    from icr_tasks.schema import answering

    assert answering({**PARALLEL, "pretrained": "m", "data_parallel_size": 2}) == {"pretrained": "m"}
