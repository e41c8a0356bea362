"""prefill=xattention against a restatement of the paper's rule, and through a model."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_kv_hf import NEW, model, prompt, small  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import choose, prefill  # noqa: E402
from icr_tasks.kv.hf import attention, decode  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

B, S = prefill.BLOCK, prefill.STRIDE


def case(q: int, past: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Sharp enough that some blocks hold nearly everything."""
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(4, q, 16, generator=g) * 3
    return query, torch.randn(2, past + q, 16, generator=g) * 3, torch.randn(2, past + q, 16, generator=g)


def by_hand(query: Any, keys: Any, past: int, scale: float, threshold: float) -> Any:
    """XAttention for each head and query block: antidiagonal sums, softmax over strides, fewest blocks."""
    heads, q, _ = query.shape
    n = keys.shape[1]
    rows, columns = -(-q // B), -(-n // B)
    out = torch.zeros(heads, rows, columns, dtype=torch.bool)
    for h in range(heads):
        k, x = keys[h // 2], query[h]
        products = x @ k.T
        at = [(i, j) for i in range(-(-q // S)) for j in range(-(-n // S)) if j * S <= past + i * S]
        score = torch.full((-(-q // S), -(-n // S)), -torch.inf)
        for i, j in at:
            total = 0.0
            for a in range(S):
                row, column = i * S + S - 1 - a, j * S + a
                if row < q and column < n:
                    total += float(products[row, column])
            score[i, j] = total * scale / S
        weight = torch.softmax(score, -1)
        for i in range(rows):
            part = weight[i * B // S : (i + 1) * B // S]
            held = [float(part[:, j * B // S : (j + 1) * B // S].sum()) for j in range(columns)]
            own = past // B + i
            got, need = 0.0, threshold * sum(held)
            for j in sorted(range(columns), key=lambda j: (j not in (0, own), -held[j])):
                if j <= own and (got < need or j in (0, own)):
                    out[h, i, j] = True
                    got += held[j]
    return out


@pytest.mark.parametrize(("q", "past"), [(3 * B, 0), (2 * B + 40, 2 * B), (B - 7, B)])
def test_blocks_are_the_published_ones(q: int, past: int) -> None:
    query, keys, _ = case(q, past)
    found = prefill.tiles(query, keys, past, 0.25)
    assert torch.equal(found, by_hand(query, keys, past, 0.25, prefill.THRESHOLD))
    assert found.shape[2] < 3 or not found.all(), "the case leaves something out"


@pytest.mark.parametrize(("q", "past"), [(2 * B + 40, 0), (B + 3, 2 * B)])
def test_attention_is_that_over_what_is_kept(q: int, past: int) -> None:
    query, keys, values = case(q, past)
    n = past + q
    causal = torch.arange(n)[None] <= past + torch.arange(q)[:, None]
    scores = (query @ keys.repeat_interleave(2, 0).transpose(1, 2)) * 0.25
    dense = torch.softmax(scores.masked_fill(~causal, -torch.inf), -1)
    whole = prefill.tiles(query, keys, past, 0.25, threshold=1.0)
    out = prefill.attend(query, keys, values, whole, past, 0.25)
    torch.testing.assert_close(out, dense @ values.repeat_interleave(2, 0), atol=1e-5, rtol=1e-5)
    kept = prefill.tiles(query, keys, past, 0.25)
    seen = kept.repeat_interleave(B, 1)[:, :q].repeat_interleave(B, 2)[:, :, :n] & causal
    sparse = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    out = prefill.attend(query, keys, values, kept, past, 0.25)
    torch.testing.assert_close(out, sparse @ values.repeat_interleave(2, 0), atol=1e-5, rtol=1e-5)
    last = [min(s + B, q) - 1 for s in range(0, q, B)]
    by_hand = (dense * seen).sum(-1)[:, last].mean()
    assert prefill.mass(query, keys, kept, past, 0.25) == pytest.approx(float(by_hand), abs=1e-6)
    assert prefill.mass(query, keys, whole, past, 0.25) == pytest.approx(1.0, abs=1e-6)


def ours(built: Any, prompts: list[list[int]], method: Any, **job: Any) -> list[decode.Answer]:
    built.set_attn_implementation(attention.register())
    given = {"prefill": "xattention", "chunk": 2 * B, **job}
    return decode.generate(built, decode.Job(prompts, NEW, frozenset(), keep_logits=True, **given), method)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights attend to everything alike: half of the estimate leaves blocks out."""
    monkeypatch.setattr(decode, "SparsePrefill", partial(prefill.SparsePrefill, threshold=0.5))


def test_through_a_model(half: None) -> None:
    built, prompts = model("llama"), [prompt(5 * B + 30), prompt(4 * B, seed=2)]
    dense = ours(built, prompts, small("topk", 0.2), prefill="dense")
    both = ours(built, prompts, small("topk", 0.2))
    for one, whole, ids in zip(both, dense, prompts, strict=True):
        alone = ours(built, [ids], small("topk", 0.2))[0]
        assert alone.tokens == one.tokens and alone.kv["prefill_fraction"] == one.kv["prefill_fraction"]
        assert 0 < one.kv["prefill_fraction"] < 1 and 0.3 < one.kv["prefill_mass_kept"] < 1
        assert not torch.allclose(one.logits[0], whole.logits[0], atol=1e-5), "the prefill left something out"
        assert "prefill_fraction" not in whole.kv
    short = ours(built, [prompt(B - 20)], small("topk", 0.2))[0]
    assert short.kv["prefill_fraction"] == 1 and short.kv["prefill_mass_kept"] == 1
    with pytest.raises(IcrError, match="a multiple of 128 tokens; set prefill_chunk="):
        ours(built, prompts, small("topk", 0.2), chunk=B + 2)


def test_a_sparse_prefill_alone_is_a_compressed_run(half: None) -> None:
    """A budget of everything while decoding: what is left out is the prefill's."""
    answer = ours(model("llama"), [prompt(5 * B)], small("topk", 1.0))[0]
    assert answer.kv["sparse_steps"] == 0 and not answer.kv["fallback"]
    asked = Setting.parse("kv:topk@1.0,prefill=xattention")
    found = choose.verify_all(asked, [{"kv": {"setting": str(asked), **answer.kv}}])
    assert "error" not in found[0]
    dense = {"setting": str(asked), **answer.kv, "prefill_fraction": 1.0}
    assert "left no key out" in choose.verify(asked, {"kv": dense})["error"]


def test_as_a_setting() -> None:
    assert str(Setting.parse("kv:page@4k,prefill=xattention")) == "kv:page@4k,prefill=xattention"
    assert str(Setting.parse("kv:page@4k,prefill=dense")) == "kv:page@4k"
    assert "prefill" not in Setting.parse("kv:page@4k").params, "older runs keep their fingerprint"
    with pytest.raises(IcrError, match="Did you mean 'xattention'"):
        Setting.parse("kv:page@4k,prefill=xatention")
    with pytest.raises(IcrError, match="prefill= needs --model icr-hf"):
        choose.parse("page@4k,prefill=xattention")


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_a_rotation_that_depends_on_the_length_is_prefilled_in_one_piece(kind: str) -> None:
    """Phi-3 128k: pieces below its first window would be rotated by other factors than those above."""
    from test_kv_hf import model, ours, prompt, stock

    factors = (
        {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
        if kind == "longrope"
        else {"factor": 4.0}
    )
    rope = {"rope_type": kind, "rope_theta": 10000.0, "original_max_position_embeddings": 64, **factors}
    built = model("llama", rope_parameters=rope, max_position_embeddings=64 if kind == "dynamic" else 2048)
    ids = prompt(200)
    tokens, logits = stock(built, ids)
    short = prompt(40, seed=2)
    found, other = ours(built, [ids, short], None, chunk=48)
    assert found.tokens == tokens and other.tokens == stock(built, short)[0]
    assert float((found.logits[0] - logits[0]).abs().max()) < 1e-4
