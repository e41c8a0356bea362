"""Eviction beyond the prefill: compression while decoding, heads that divide a budget, the question after compression in
batches. Held against attention computed by hand from the keys that must be there."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from test_kv_hf import NEW, model, ours, prompt, stock  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import choose, make  # noqa: E402
from icr_tasks.kv.hf import attention, decode  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

CASES: list[tuple[str, float | int, dict[str, Any]]] = [
    ("streaming", 0.3, {}),
    ("streaming", 40, {"every": 4}),
    ("snapkv", 0.3, {"window": 8, "every": 3}),
    ("snapkv", 0.3, {"window": 8, "adaptive": True}),
    ("snapkv", 0.3, {"window": 8, "adaptive": True, "every": 5}),
    ("keydiff", 30, {"every": 2}),
    ("keydiff", 0.3, {"adaptive": True, "floor": 0.5}),
]


def identified(case: tuple[str, Any, dict[str, Any]]) -> str:
    return f"{case[0]}@{case[1]},{case[2]}"


def small(case: tuple[str, Any, dict[str, Any]]) -> Any:
    return make(case[0], case[1], case[2])


@pytest.mark.parametrize("case", CASES, ids=identified)
@pytest.mark.parametrize("after", [0, 9])
def test_batches_agree_with_batch_1_where_the_cache_is_compressed_again(case: Any, after: int) -> None:
    built, prompts = model(), [prompt(150), prompt(60, 2), prompt(12, 3)]
    afters = [after, min(after, 5), min(after, 3)]
    batch = ours(built, prompts, small(case), after=afters)
    for ids, own, got in zip(prompts, afters, batch, strict=True):
        alone = ours(built, [ids], small(case), after=own)[0]
        assert got.tokens == alone.tokens
        torch.testing.assert_close(torch.stack(got.logits), torch.stack(alone.logits), atol=1e-4, rtol=1e-4)
        same = ("steps", "sparse_steps", "tokens_stored", "bytes_stored_per_token", "bytes_read_per_step")
        assert {k: got.kv[k] for k in same} == {k: alone.kv[k] for k in same}
    assert batch[0].kv["sparse_steps"] == batch[0].kv["steps"]


@pytest.mark.parametrize("case", CASES, ids=identified)
def test_the_cache_has_the_size_that_was_asked_for(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys a step reads never exceed the budget by more than what came since the last compression."""
    sizes: list[float] = []
    done = decode.Session.step_done

    def spy(self: Any, cache: Any, tokens: int = 1) -> bool:
        changed = done(self, cache, tokens)
        layer = cache.layers[0]
        sizes.append(layer.tokens(0) if self.ragged else layer.keys.shape[2] - self.pads[0])
        return changed

    monkeypatch.setattr(decode.Session, "step_done", spy)
    answer = ours(model(), [prompt(150)], small(case))[0]
    budget = case[1] if isinstance(case[1], int) else round(case[1] * 150)
    every = small(case).every
    expected = [budget + (i % every if every else i) for i in range(1, NEW)]
    assert sizes == expected
    assert answer.kv["compressions" if every else "steps"] == ((NEW - 1) // every if every else NEW - 1)
    assert answer.kv["tokens_stored"] == budget


def test_streaming_rolls_while_it_decodes() -> None:
    """Sink and the most recent tokens, at each step: the logits are those of attention masked to them."""
    built, ids, kept, sink = model(), prompt(60), 20, 4
    answer = ours(built, [ids], make("streaming", kept))[0]
    text = ids + answer.tokens
    built.set_attn_implementation("sdpa")
    for step in range(1, NEW):
        n = len(ids) + step
        logits = _masked(built, text[:n], len(ids), kept, sink)
        torch.testing.assert_close(answer.logits[step], logits, atol=1e-4, rtol=1e-4)


def _masked(built: Any, text: list[int], prompt: int, kept: int, sink: int) -> Any:
    """Logits after the last token: prompt rows see everything before them, each later row its sink, `kept` - sink
    recent tokens as they were before it, and itself."""
    n = len(text)
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    for row in range(prompt, n):
        seen[row, sink : row - (kept - sink)] = False
    return built(input_ids=torch.tensor([text]), attention_mask=seen[None, None]).logits[0, -1].detach()


def test_heads_that_divide_a_budget_store_only_what_they_keep() -> None:
    built, ids = model(), prompt(150)
    shared, own = (
        ours(built, [ids], make("snapkv", 0.3, {"window": 8, "adaptive": a}))[0] for a in (False, True)
    )
    assert own.kv["bytes_stored_per_token"] == shared.kv["bytes_stored_per_token"]
    assert own.kv["stored_fraction"] == 0.3
    assert not torch.allclose(own.logits[-1], shared.logits[-1], atol=1e-4)
    whole = ours(built, [ids], make("snapkv", 1.0, {"window": 8, "adaptive": True}))[0]
    assert (torch.stack(whole.logits) - stock(built, ids)[1]).abs().max() < 1e-4


def test_a_short_prompt_is_compressed_once_it_has_grown_past_a_budget_in_tokens() -> None:
    answer = ours(model(), [prompt(30)], make("streaming", 34))[0]
    assert answer.kv["sparse_steps"] == NEW - 1 - 5 and not answer.kv["fallback"]
    assert ours(model(), [prompt(30)], make("streaming", 34, {"every": 0}))[0].kv["fallback"]


def test_dense_first_layers_read_everything() -> None:
    built, ids = model(), prompt(150)
    half = ours(built, [ids], make("page", 0.1, {"sink": 2, "window": 8, "page": 4, "dense": 1}))[0].kv
    none = ours(built, [ids], make("page", 0.1, {"sink": 2, "window": 8, "page": 4}))[0].kv
    assert half["attended_fraction"] == pytest.approx((1 + none["attended_fraction"]) / 2, abs=1e-3)
    assert half["bytes_read_per_step"] == pytest.approx(half["formula"]["bytes_read_per_step"], rel=0.05)
    assert half["index_bytes"] == none["index_bytes"] / 2 == half["formula"]["index_bytes"]
    assert ours(built, [ids], make("page", 0.1, {"dense": 2}))[0].kv["fallback"], (
        "nothing is left to compress"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kv:streaming@0.5", "kv:streaming@0.5"),
        ("kv:streaming@1k,every=0", "kv:streaming@1024,every=0"),
        ("kv:snapkv@1024,every=128,adaptive", "kv:snapkv@1024,every=128,adaptive"),
        ("kv:page@0.05,dense=2", "kv:page@0.05,dense=2"),
    ],
)
def test_knobs_as_settings(text: str, shown: str) -> None:
    assert str(Setting.parse(text)) == shown
    assert Setting.parse(shown) == Setting.parse(text)


def test_knobs_that_came_later_leave_old_fingerprints() -> None:
    assert set(Setting.parse("kv:snapkv@0.5").params) == {"window", "kernel", "split"}
    assert Setting.parse("kv:snapkv@0.5,every=64").params["every"] == 64
    assert "dense" not in Setting.parse("kv:page@0.05").params


def test_a_changed_method_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks import schema
    from icr_tasks.registry import KV_METHODS

    def recorded() -> tuple[str, ...]:
        texts = ("kv:keydiff@0.5", "rag@4k+kv:keydiff@0.5", "kv:topk@0.05")
        return tuple(schema.run_fingerprint({"setting": Setting.parse(t).describe()}) for t in texts)

    before = recorded()
    monkeypatch.setitem(KV_METHODS.get("keydiff").facts, "version", 3)
    after = recorded()
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    assert Setting.parse("kv:page@0.05").describe()["code"] == 2
    assert "code" not in Setting.parse("kv:topk@0.05").describe()


def test_vllm_refuses_dense_first_layers() -> None:
    with pytest.raises(IcrError, match="dense= needs --model icr-hf"):
        choose.parse("page@0.05,dense=2")
    assert attention.NAME == "icr_kv"
