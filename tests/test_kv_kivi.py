"""Keys and values in few bits: by hand, against the definition, and through a model in both engines' terms of bytes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_kv_hf import NEW, model, ours, prompt, stock  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import choose, kivi, make  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

SMALL: dict[str, Any] = {"group": 8, "residual": 16}


@pytest.mark.parametrize("bits", [2, 4])
@given(seed=st.integers(0, 99), size=st.floats(1e-3, 500))
@settings(max_examples=20, deadline=None)
def test_a_number_is_off_by_half_a_step_at_most(bits: int, seed: int, size: float) -> None:
    gen = torch.Generator().manual_seed(seed)
    keys = size * (torch.randn(2, 24, 8, generator=gen) + torch.randn(2, 1, 8, generator=gen))
    for x, back, over in (
        (keys, kivi.decode_keys(kivi.encode_keys(keys, bits, 8), bits, torch.float32), (2, 3)),
        (keys, kivi.decode_values(kivi.encode_values(keys, bits, 8), bits, torch.float32), None),
    ):
        groups = x.view(2, 3, 8, 8).transpose(2, 3) if over else x.unsqueeze(2)
        off = (back - x).abs()
        off = off.view(2, 3, 8, 8).transpose(2, 3) if over else off.unsqueeze(2)
        step = (groups.amax(-1, True) - groups.amin(-1, True)) / (2**bits - 1)
        rounding = (
            groups.abs().amax(-1, True) * 2**-10
        )  # of the minimum and the step, which are 16-bit floats
        assert (off <= step / 2 + 4 * rounding + 1e-6).all()


def test_codes_by_hand() -> None:
    coded = kivi.encode(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), 2)
    assert coded.codes.tolist() == [[[0 | 1 << 2 | 2 << 4 | 3 << 6]]]
    assert kivi.decode(coded, 2, torch.float32).tolist() == [[[0.0, 1.0, 2.0, 3.0]]]


@pytest.mark.parametrize("bits", ["2", "4"])
@pytest.mark.parametrize("after", [0, 9])
def test_through_a_model(bits: str, after: int) -> None:
    built, prompts = model(), [prompt(150), prompt(60, 2), prompt(12, 3)]
    method = make("kivi", None, {**SMALL, "bits": bits})
    afters = [after, min(after, 5), min(after, 3)]
    batch = ours(built, prompts, method, after=afters)
    full = ours(built, prompts, None)
    for ids, own, got, whole in zip(prompts, afters, batch, full, strict=True):
        alone = ours(built, [ids], method, after=own)[0]
        assert got.tokens == alone.tokens
        torch.testing.assert_close(torch.stack(got.logits), torch.stack(alone.logits), atol=1e-3, rtol=1e-3)
        assert got.kv["bytes_stored_per_token"] == alone.kv["bytes_stored_per_token"]
        assert got.kv["bytes_read_per_step"] == alone.kv["bytes_read_per_step"]
        assert len(ids) < 20 or not torch.allclose(got.logits[-1], whole.logits[-1], atol=1e-4)
    kv = batch[0].kv
    n = 150 - after
    keys, values = n // 16 * 16, n - 16
    size = 2 * (
        (keys + values) * 8 * int(bits) / 8 + (keys + values) / 8 * 8 * 4 + (2 * n - keys - values) * 8 * 4
    )
    assert kv["bytes_stored_per_token"] == kv["formula"]["bytes_stored_per_token"] == round(2 * size / n, 2)
    assert kv["sparse_steps"] == kv["steps"] == NEW - 1 + after
    assert kv["attended_fraction"] == 1
    assert kv["read_fraction"] < (0.6 if bits == "4" else 0.5)
    assert kv["tokens_stored"] == n


def test_more_bits_are_nearer() -> None:
    built, ids = model(), prompt(150)
    dense = stock(built, ids)[1]
    off = [
        float(
            (
                torch.stack(ours(built, [ids], make("kivi", None, {**SMALL, "bits": b}))[0].logits)[1]
                - dense[1]
            ).norm()
        )
        for b in ("2", "4")
    ]
    assert off[1] < off[0] / 2


def test_as_a_setting() -> None:
    assert str(Setting.parse("kv:kivi,bits=2")) == "kv:kivi,bits=2"
    assert str(Setting.parse("kv:kivi,bits=4")) == "kv:kivi"
    with pytest.raises(IcrError, match="4"):
        Setting.parse("kv:kivi,bits=3")
    with pytest.raises(IcrError, match="takes no budget"):
        make("kivi", 0.5)
    with pytest.raises(IcrError, match="the vLLM backend has"):
        choose.parse("kivi")
