"""Models whose attention is not plain: compressed in their full-attention layers, equal to transformers where nothing is
left out; random weights of each architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import make  # noqa: E402
from icr_tasks.kv.hf import attention, decode, models, same_logits  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
HALF = ["sliding_attention", "full_attention"] * 2
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, int]]] = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}, {"full_attention": 4}),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", MOE, {"full_attention": 4}),
    "qwen3-next": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        {**MOE, **LINEAR, "shared_expert_intermediate_size": 16},
        {"linear_attention": 3, "full_attention": 1},
    ),
    "qwen3.5": (
        "Qwen3_5TextConfig",
        "Qwen3_5ForCausalLM",
        LINEAR,
        {"linear_attention": 3, "full_attention": 1},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"sliding_window": 16, "layer_types": HALF, "query_pre_attn_scalar": 8},
        {"sliding_attention": 2, "full_attention": 2},
    ),
    "gpt-oss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        {
            "sliding_window": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": HALF,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        {"sliding_attention": 2, "full_attention": 2},
    ),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", {}, {"full_attention": 4}),
    "olmo3": (
        "Olmo3Config",
        "Olmo3ForCausalLM",
        {"sliding_window": 16, "layer_types": HALF},
        {"sliding_attention": 2, "full_attention": 2},
    ),
    "granite": ("GraniteConfig", "GraniteForCausalLM", {"attention_multiplier": 0.3}, {"full_attention": 4}),
    "glm4": ("Glm4Config", "Glm4ForCausalLM", {}, {"full_attention": 4}),
    "llama4": (
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        {
            "intermediate_size_mlp": 64,
            "num_local_experts": 2,
            "attention_chunk_size": 24,
            "attn_temperature_tuning": False,
            "layer_types": ["chunked_attention", "full_attention"] * 2,
        },
        {"chunked_attention": 2, "full_attention": 2},
    ),
}


def build(kind: str) -> Any:
    config, name, extra, _ = MODELS[kind]
    torch.manual_seed(0)
    built = getattr(transformers, name)(getattr(transformers, config)(**{**SMALL, **extra})).eval().float()
    for parameter in built.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return built


def own(built: Any) -> str:
    return str(built.config._attn_implementation)


def ids(n: int) -> list[int]:
    return torch.randint(3, 120, (n,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_passes_the_identity_check_and_is_compressed_in_its_full_layers(kind: str) -> None:
    built = build(kind)
    models.check(built.config, "setting kv:topk")
    assert models.layer_types(built.config) == MODELS[kind][3]
    same_logits.identity(built, own(built))
    full = MODELS[kind][3]["full_attention"]
    knobs = {"sink": 2, "window": 8}
    prompts = [ids(100), ids(70)]
    dense = decode.generate(built, decode.Job(prompts, 6, frozenset(), keep_logits=True), None)
    for name, chosen in (("topk", knobs), ("snapkv", {"window": 8})):
        method = make(name, 0.2, chosen)
        job = decode.Job(prompts, 6, frozenset(), keep_logits=True)
        answers = decode.generate(built, job, method)
        for answer, whole in zip(answers, dense, strict=True):
            kv = answer.kv
            assert kv["sparse_steps"] == kv["steps"] == 5
            assert kv.get("full_layers", 4) == full
            assert ("bytes_other_layers" in kv) == (full < 4)
            assert kv["bytes_full_per_token"] == full * 2 * 2 * 8 * 4
            assert torch.allclose(answer.logits[0], whole.logits[0], atol=1e-4), (
                "the first comes from the prefill"
            )
            assert not torch.allclose(answer.logits[-1], whole.logits[-1], atol=1e-5)
    agnostic = decode.Job([prompts[0]], 3, frozenset(), after=7, keep_logits=True)
    whole = decode.generate(built, agnostic, make("topk", 1.0, knobs))[0]
    assert torch.allclose(whole.logits[0], dense[0].logits[0], atol=2e-4), "the question after a whole cache"


LATENT: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
}


@pytest.mark.parametrize(
    ("name", "extra", "kinds"),
    [
        ("Qwen3_5", LINEAR, {"linear_attention": 3, "full_attention": 1}),
        ("Mistral", {"sliding_window": 16}, {"sliding_attention": 4}),
        ("DeepseekV3", LATENT, {"latent_attention": 4}),
    ],
)
def test_what_compresses_by_design_is_recorded_with_the_bytes_of_its_own_cache(
    name: str, extra: dict[str, Any], kinds: dict[str, int]
) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}TextConfig", None) or getattr(transformers, f"{name}Config")
    built = getattr(transformers, f"{name}ForCausalLM")(config(**{**SMALL, **extra})).eval().float()
    built.set_attn_implementation("sdpa")
    # no token ends an answer: 120 is beyond the vocabulary
    stock = built.generate(torch.tensor([ids(60)]), max_new_tokens=5, do_sample=False, eos_token_id=120)
    built.set_attn_implementation(attention.register())
    short, long = (decode.generate(built, decode.Job([ids(n)], 5, frozenset()), None)[0] for n in (60, 120))
    assert short.tokens == stock[0, 60:].tolist()
    assert (
        short.kv["native"]["layers"] == long.kv["native"]["layers"] == kinds == models.by_design(built.config)
    )
    grown = long.kv["native"]["bytes"] - short.kv["native"]["bytes"]
    assert short.kv["native"]["bytes"] > 0 and short.kv["method"] == "full"
    if name == "Mistral":  # windows alone: nothing grows, and there is nothing to have a share of
        assert grown == 0 and short.kv["read_fraction"] is short.kv["stored_fraction"] is None
    else:
        assert grown == 60 * short.kv["bytes_full_per_token"]
    asked = Setting.parse("rag@4k+kv:native")
    models.refuse_native(asked, built.config, name)
    plain = transformers.LlamaConfig(**SMALL)
    with pytest.raises(IcrError, match="llama keeps every key in every layer: use rag@4k"):
        models.refuse_native(asked, plain, "llama")
    with pytest.raises(IcrError, match="use full"):
        models.refuse_native(Setting.parse("kv:native"), plain, "llama")


def test_an_attention_that_does_more_than_softmax_is_found_at_start_up() -> None:
    """Gemma 2 caps its scores, which no method does."""
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        **{**SMALL, "sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 0.05}
    )
    built = transformers.Gemma2ForCausalLM(config).eval()
    for parameter in built.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    built.set_attn_implementation("eager")
    with pytest.raises(IcrError, match="gemma2.*reading every key gives logits that differ"):
        same_logits.identity(built, "eager")
    assert own(built) == attention.NAME


def test_full_attention_caps_what_the_model_caps(tmp_path: Path) -> None:
    """transformers' sdpa leaves a soft cap out; ours is the model's own eager attention, prompt and steps."""
    import tiny

    from icr_tasks.engines.hf import IcrHF

    torch.manual_seed(0)
    capped = {"sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 0.5}
    folder = tiny.llama(tmp_path)
    size = transformers.AutoConfig.from_pretrained(folder).vocab_size
    transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**{**SMALL, **capped, "vocab_size": size})
    ).save_pretrained(folder)
    engine = IcrHF(str(folder), dtype="float32", device="cpu")
    assert engine.own_attention == "eager"
    for parameter in engine.model.parameters():
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    (found,) = decode.generate(engine.model, decode.Job([ids(60)], 5, frozenset(), keep_logits=True), None)
    engine.model.set_attn_implementation("eager")
    with torch.inference_mode():
        stock = engine.model(torch.tensor([[*ids(60), *found.tokens[:4]]])).logits[0, -5:]
    assert torch.allclose(torch.stack(found.logits), stock, atol=1e-4)


def test_a_cache_takes_values_of_another_size_than_keys() -> None:
    from icr_tasks.kv.hf.cache import RoomyLayer

    layer, keys, values = RoomyLayer(), torch.randn(1, 2, 5, 24), torch.randn(1, 2, 5, 8)
    layer.room = 3
    for at in range(5):
        got = layer.update(keys[:, :, at : at + 1], values[:, :, at : at + 1])
    assert torch.equal(got[0], keys) and torch.equal(got[1], values)
