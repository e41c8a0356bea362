"""`--model vllm` of lm-eval is asked in pieces: the same prompts, ids and answers, and few of them at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from icr_tasks.harness import pieces

causal = pytest.importorskip("lm_eval.models.vllm_causallms")
pytest.importorskip("vllm")


class _Request:
    def __init__(self, prompt: str, size: int | None = None) -> None:
        self.args = (prompt, {"until": [], "max_gen_toks": 4})
        if size is not None:
            self.size = size


class _Cached:
    """lm-eval's response cache around a model."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm


@pytest.fixture
def lm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of lm-eval without an engine: it answers each prompt with its number of tokens."""
    monkeypatch.setattr(pieces, "TOKENS", 3000)
    model: Any = causal.VLLM.__new__(causal.VLLM)
    super(causal.VLLM, model).__init__()
    model.tokenizer, model.batch_size, model.data_parallel_size = tiny.tokenizer(), "auto", 1
    model._max_length, model._max_gen_toks, model.truncation_side = 100_000, 4, "left"
    model.add_bos_token = model.custom_prefix_token_id = model.think_end_token = None
    model.enable_thinking, model.asked = False, []

    def generate(requests: list[list[int]], **_: Any) -> list[Any]:
        model.asked.append([list(ids) for ids in requests])
        return [SimpleNamespace(outputs=[SimpleNamespace(text=str(len(ids)))]) for ids in requests]

    model._model_generate = generate
    return model


def test_long_runs_are_cut_and_answered_in_their_order(lm: Any) -> None:
    """Three documents of 1,000 tokens with four questions each, shuffled: a document's stand in one piece."""
    texts = [f"{'abc'[i % 3] * 1000} question {'x' * i}" for i in range(12)]
    requests = [_Request(text, len(text)) for text in texts]
    stock = causal.VLLM.generate_until(lm, requests, disable_tqdm=True)
    [whole] = lm.asked
    lm.asked.clear()
    pieces.prepare(lm)
    pieces.prepare(_Cached(lm))  # once is enough
    assert lm.generate_until(requests, disable_tqdm=True) == stock == [str(len(text)) for text in texts]
    assert sorted(ids for piece in lm.asked for ids in piece) == sorted(whole)
    assert len(lm.asked) == 6 and all(sum(map(len, piece)) <= 3000 for piece in lm.asked)
    assert all(len({ids[0] for ids in piece}) == 1 for piece in lm.asked)


def test_a_short_run_and_another_model_are_left_as_they_are(lm: Any) -> None:
    pieces.prepare(lm)
    requests = [_Request("b" * 400), _Request("a" * 400)]  # of another task: no size, so a guess
    assert lm.generate_until(requests, disable_tqdm=True) == ["400", "400"] and len(lm.asked) == 1
    assert list(pieces.parts(requests)) == [[0, 1]]
    assert sorted(pieces.parts([_Request("c" * 20_000), _Request("a" * 20_000)])) == [[0], [1]]
    other = SimpleNamespace(generate_until=len)
    pieces.prepare(other)
    assert other.generate_until is len


@pytest.mark.parametrize("bos", [None, True, False])
def test_ids_are_those_of_lm_eval(lm: Any, bos: bool | None) -> None:
    lm.add_bos_token = bos
    texts = ["short", "<s>begun", "w\u00f6rter \U0001f642 " * 9000]
    before = lm.tok_encode(texts)
    pieces.prepare(lm)
    assert lm.tok_encode(texts) == before
    assert lm.tok_encode("alone") == causal.VLLM.tok_encode(lm, "alone")
    assert lm.tok_encode(texts, add_special_tokens=False) == causal.VLLM.tok_encode(lm, texts, False)


def test_the_lists_of_a_piece_share_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bytes a token: Python would make a new number of 32 bytes for each id above 256."""

    class Tokenizer:
        def __len__(self) -> int:
            return 6000

    lm = SimpleNamespace(tokenizer=Tokenizer(), prefix_token_id=None, add_bos_token=False)
    monkeypatch.setattr(pieces.encode, "encode", lambda *_, **__: np.array([5999, 5999, 7000], np.int32))
    one, two = pieces._ids(lm, "a"), pieces._ids(lm, "b")
    assert one == two == [5999, 5999, 7000]  # an added token may lie above the vocabulary
    assert one[0] is one[1] is two[0]
