"""icr-hf: equal to stock transformers where it must be, honest where it differs; random weights of six
architectures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import tiny  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import METHODS, choose, make  # noqa: E402
from icr_tasks.kv.hf import attention, decode, models  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

SHAPE = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "head_dim": 8,
}
NEW = 12
HEADS = Path(__file__).parent / "golden" / "head_scores.tsv"  # of two layers with two KV heads
ARCHITECTURES = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "glm": ("Glm", {}),
    "phi3": ("Phi3", {"sliding_window": None}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),  # its second layer has no positions
}


def model(kind: str = "qwen2", **extra: Any) -> Any:
    name, given = ARCHITECTURES[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **given, **extra})
    built = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for (
        parameter
    ) in built.parameters():  # random weights attend to everything alike; sharper ones can go wrong
        parameter.data.mul_(3 if parameter.dim() > 1 else 1)
    return built


def prompt(n: int, seed: int = 1) -> list[int]:
    return torch.randint(1, 120, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def small(name: str, budget: float | None = None) -> Any:
    knobs: dict[str, Any] = {
        "sink": 2,
        "window": 8,
        "update": 16,
        "size": 4,
        "segment": 64,
        "page": 4,
        "kernel": 3,
    }
    knobs |= {"chunk": 5, "future": 16, "part": 60, "scores": str(HEADS)}
    return make(name, budget, {k: v for k, v in knobs.items() if k in METHODS[name].params})


def ours(built: Any, prompts: list[list[int]], method: Any, **job: Any) -> list[decode.Answer]:
    built.set_attn_implementation(attention.register())
    return decode.generate(built, decode.Job(prompts, NEW, frozenset(), keep_logits=True, **job), method)


def stock(built: Any, ids: list[int]) -> tuple[list[int], Any]:
    built.set_attn_implementation("sdpa")
    out = built.generate(
        torch.tensor([ids]),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, len(ids) :].tolist(), torch.stack([step[0] for step in out.logits])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_full_is_stock_and_full_budget_is_close(kind: str) -> None:
    built, ids = model(kind), prompt(150)
    models.check(built.config, "kv:topk")
    tokens, logits = stock(built, ids)
    full = ours(built, [ids], None)[0]
    assert full.tokens == tokens
    assert torch.equal(full.logits[0], logits[0]), "the prefill is stock sdpa"
    assert (torch.stack(full.logits) - logits).abs().max() < 1e-4, "a step has the query group as rows"
    for name in (
        "topk",
        "cluster",
        "page",
        "snapkv",
        "keydiff",
        "streaming",
        "chunkkv",
        "expected",
        "kvzip",
        "duo",
    ):
        answer = ours(built, [ids], small(name, 1.0))[0]
        assert answer.tokens == tokens, name
        assert (torch.stack(answer.logits) - logits).abs().max() < 1e-4, name
        assert answer.kv["sparse_steps"] == 0 and answer.kv["fallback"], "nothing was left out"
    lossy = ours(built, [ids], small("steady"))[0]
    assert (torch.stack(lossy.logits) - logits).abs().max() > 1e-4
    assert torch.equal(lossy.logits[0], logits[0]), "the first token comes from the dense prefill"


def test_chunked_prefill_agrees() -> None:
    built, ids = model(), prompt(150)
    whole, pieces = (
        ours(built, [ids], small("snapkv", 0.3))[0],
        ours(built, [ids], small("snapkv", 0.3), chunk=32)[0],
    )
    assert whole.tokens == pieces.tokens
    torch.testing.assert_close(torch.stack(whole.logits), torch.stack(pieces.logits), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [None, *METHODS])
def test_left_padded_batches_agree_with_batch_1_in_any_order(name: str | None) -> None:
    built, prompts = model(), [prompt(150), prompt(90, 2), prompt(8, 3)]
    batch = ours(built, prompts, name and small(name))
    turned = ours(built, prompts[::-1], name and small(name))[::-1]
    for ids, a, b in zip(prompts, batch, turned, strict=True):
        alone = ours(built, [ids], name and small(name))[0]
        assert a.tokens == b.tokens == alone.tokens
        torch.testing.assert_close(torch.stack(a.logits), torch.stack(alone.logits), atol=1e-4, rtol=1e-4)
        same = (
            "tokens",
            "tokens_stored",
            "fallback",
            "steps",
            "bytes_stored_per_token",
            "bytes_read_per_step",
        )
        assert {k: a.kv[k] for k in same} == {k: alone.kv[k] for k in same}
    assert batch[2].kv["fallback"] == (name is not None)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "kivi"])
def test_bytes_are_those_of_the_tensors(name: str) -> None:
    kv = ours(model(), [prompt(150)], small(name))[0].kv
    per_token = 2 * 2 * 8 * 4 * 2  # keys and values, KV heads, dimension, bytes, layers
    assert kv["bytes_full_per_token"] == per_token
    assert kv["bytes_stored_per_token"] == kv["formula"]["bytes_stored_per_token"]
    if METHODS[name].frees:
        assert kv["tokens_stored"] == (80 if name == "duo" else 75)
        assert kv["stored_fraction"] == pytest.approx(kv["bytes_stored_per_token"] / per_token, abs=1e-3)
        assert kv["stored_fraction"] == pytest.approx((150 + 10) / 300 if name == "duo" else 0.5, abs=1e-3)
    else:
        assert kv["stored_fraction"] == 1
        assert 0 < kv["mass_kept"] < 1
    assert kv["read_fraction"] < 0.75
    slack = {"cluster": 0.5, "page": 0.05}.get(name, 1e-6)
    assert kv["bytes_read_per_step"] == pytest.approx(kv["formula"]["bytes_read_per_step"], rel=slack)
    assert kv["index_bytes"] == kv["formula"]["index_bytes"]
    assert kv["peak_memory_bytes"] > 1e6


def test_attention_kept_is_measured_at_a_rows_own_steps() -> None:
    """Questions of other lengths come before them; a batch has the numbers of each alone."""
    built, prompts, after = model(), [prompt(100), prompt(60, seed=2)], [5, 3]
    batch = ours(built, prompts, small("page", 0.1), after=after)
    alone = [
        ours(built, [one], small("page", 0.1), after=n)[0] for one, n in zip(prompts, after, strict=True)
    ]
    assert [x.kv["mass_kept"] for x in batch] == pytest.approx([x.kv["mass_kept"] for x in alone], abs=1e-5)


def test_evicted_tensors_are_gone() -> None:
    from icr_tasks.kv.hf.cache import gather, new_cache

    cache = new_cache(transformers.LlamaConfig(**{**SHAPE, "num_hidden_layers": 1}), 100)
    cache.layers[0].update(torch.randn(1, 2, 80, 4), torch.randn(1, 2, 80, 4))
    before = cache.layers[0].keys[0, 1, 7].clone()
    gather(cache.layers[0], [torch.tensor([[1, 3], [7, 9]])], room=5)
    assert torch.equal(cache.layers[0].keys[0, 1, 0], before)
    assert cache.layers[0].keys.untyped_storage().nbytes() == 2 * 7 * 4 * 4


@pytest.mark.parametrize("name", ["topk", "snapkv"])
def test_query_agnostic_does_not_see_the_question(name: str) -> None:
    """With the question after compression the first token can change; with a full budget it does not."""
    built, ids = model(), prompt(150)
    _, logits = stock(built, ids)
    whole = ours(built, [ids], small(name, 1.0), after=9)[0]
    torch.testing.assert_close(torch.stack(whole.logits), logits, atol=1e-4, rtol=1e-4)
    part = ours(built, [ids], small(name, 0.2), after=9)[0]
    assert part.kv["tokens"] == 141
    assert part.kv["steps"] == 9 + NEW - 1
    assert not torch.allclose(part.logits[0], logits[0], atol=1e-3)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (transformers.MistralConfig(sliding_window=128), "none of its layers has full attention"),
        (transformers.DeepseekV3Config(), "MLA"),
        (transformers.Gemma2Config(), "caps its scores"),
        (transformers.MambaConfig(), "none of its layers has full attention"),
    ],
)
def test_other_attention_is_refused_by_name(config: Any, said: str) -> None:
    with pytest.raises(IcrError, match=said):
        models.check(config, "setting kv:topk@0.05")


# -- through lm-eval's model interface ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


def lm(folder: Path, **args: Any) -> Any:
    from icr_tasks.engines.hf import IcrHF

    return IcrHF(str(folder), dtype="float32", device="cpu", **args)


def request(
    text: str, task: str = "t", setting: str | None = None, boundary: int | None = None, **kwargs: Any
) -> Any:
    from icr_tasks.harness.instance import PromptInstance

    gen = {"until": [], "do_sample": False, "max_gen_toks": 6, **kwargs}
    return PromptInstance(
        doc={},
        prompt=text,
        gen_kwargs=gen,
        digest="{}",
        task=task,
        doc_id=0,
        repeats=1,
        setting=Setting.parse(setting) if setting else None,
        boundary=boundary,
    )


TEXT = "The river Ilessdell runs through Dorovgate. " * 6


def test_both_entries_choose_the_setting_and_full_equals_stock(folder: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    plain = HFLM(str(folder), dtype="float32", device="cpu").generate_until(
        [request(TEXT)], disable_tqdm=True
    )
    full, asked = lm(folder), request(TEXT)
    assert full.generate_until([asked], disable_tqdm=True) == plain
    assert asked.found["kv"]["method"] == asked.found["kv"]["setting"] == "full"
    named = request(TEXT, setting="kv:topk@0.05,window=16")
    by_task = full.generate_until([named], disable_tqdm=True)
    assert named.found["kv"]["setting"] == "kv:topk@0.05,window=16"
    assert named.found["kv"]["sparse_steps"] == 5
    by_args, asked = lm(folder, kv="topk", kv_budget=0.05, kv_window=16), request(TEXT)
    assert by_args.generate_until([asked], disable_tqdm=True) == by_task
    assert by_args.get_model_info()["kv"] == {"setting": "kv:topk@0.05,window=16"}
    assert asked.found["kv"]["sparse_steps"] == 5


def test_likelihoods_are_refused_only_when_compressed(folder: Path) -> None:
    from lm_eval.api.instance import Instance

    ask = Instance("loglikelihood", {}, ("the river", " runs"), 0, ("t", 0, 1))
    assert lm(folder).loglikelihood([ask], disable_tqdm=True)[0][0] < 0
    compressed = lm(folder, kv="steady")
    for method in (compressed.loglikelihood, compressed.loglikelihood_rolling):
        with pytest.raises(IcrError, match="would be the uncompressed ones"):
            method([ask])


def test_a_task_without_a_compressed_step_is_an_error(folder: Path) -> None:
    asked = [
        request("Too short. " * 3, "short", setting="kv:topk@0.05"),
        request(TEXT, setting="kv:topk@0.05"),
    ]
    lm(folder).generate_until(asked, disable_tqdm=True)
    assert asked[0].found["kv"]["fallback"] and not asked[1].found["kv"]["fallback"]
    setting = Setting.parse("kv:topk@0.05")
    (short,) = choose.verify_all(setting, [asked[0].found])
    assert "no compressed step ran under kv:topk@0.05: 1 of 1 prompts are too short" in short["error"]
    both = choose.verify_all(setting, [r.found for r in asked])
    assert not any("error" in one for one in both), "a short item of a compressed task is read in full"


def test_a_prompt_whose_budget_cannot_hold_the_window_is_read_in_full(folder: Path) -> None:
    engine = lm(folder, kv="snapkv", kv_budget=0.3, batch_size=2)
    long = "A long text that has enough tokens for the window. " * 6
    asked = [request("x" * 100), request(long)]
    engine.generate_until(asked, disable_tqdm=True)
    assert asked[0].found["kv"]["fallback"] and asked[0].found["kv"]["stored_fraction"] == 1
    assert asked[1].found["kv"]["stored_fraction"] == pytest.approx(0.3, abs=0.01)


def test_query_agnostic_takes_the_boundary_out_of_band(folder: Path) -> None:
    engine = lm(folder, kv="keydiff", kv_budget=0.5, kv_split="query-agnostic")
    text = TEXT + "Which river?"
    asked = [request(TEXT + "no boundary known"), request(text, boundary=len(TEXT))]
    engine.generate_until(asked, disable_tqdm=True)
    assert "does not say where its context ends" in asked[0].found["error"]
    assert asked[1].found["kv"]["steps"] == len("Which river?") + 5  # one token a byte


def test_answers_are_kept(folder: Path, tmp_path: Path) -> None:
    first = lm(folder, kv="topk", store=str(tmp_path)).generate_until([request(TEXT)], disable_tqdm=True)
    again, asked = lm(folder, kv="topk", store=str(tmp_path)), request(TEXT)
    again.model.forward = None  # nothing is computed
    assert again.generate_until([asked], disable_tqdm=True) == first
    assert asked.found["kv"]["setting"] == "kv:topk@0.05"


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ({"attn_implementation": "flash_attention_2"}, {}, "hides the keys"),
        ({"kv": "topk"}, {"do_sample": True, "temperature": 1.0}, "decodes greedily"),
        ({"kv": "topk"}, {"num_beams": 4}, "does not know the generation argument 'num_beams'"),
        ({"kv": "fp8"}, {}, "option of vLLM"),
    ],
)
def test_bad_input(folder: Path, args: dict, kwargs: dict, said: str) -> None:
    with pytest.raises(IcrError, match=said):
        lm(folder, **args).generate_until([request(TEXT, **kwargs)], disable_tqdm=True)


def test_padding_is_masked_under_our_attention_name() -> None:
    """Without a mask function of the same name transformers would attend to padding."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    assert attention.register() in ALL_MASK_ATTENTION_FUNCTIONS
    assert SimpleNamespace(n=attention.register()).n == "icr_kv"


def test_from_a_task_to_the_ledger(folder: Path, tmp_path: Path) -> None:
    """The boundary travels from the task to the engine, the measurements from the engine to run.json."""
    import orjson

    from icr_tasks.harness.run import Cell, evaluate
    from icr_tasks.leaderboard.ledgers.collect import collect

    cell = Cell(("icr_synth_rag_512",), {"setting": "kv:snapkv@0.5,query-agnostic"}, 2)
    evaluate(
        lm(folder),
        cell,
        engine="icr-hf",
        model_args={"pretrained": str(folder)},
        gen_kwargs={"max_gen_toks": 4},
        out=tmp_path / "out",
    )
    (where, run), *_ = collect([tmp_path / "out"], tmp_path / "results")
    stored = orjson.loads((where / "run.json").read_bytes())
    assert stored["setting"]["text"] == "kv:snapkv@0.5,query-agnostic"
    assert stored["kv"]["stored_fraction"] == pytest.approx(0.5, abs=0.01)
    assert stored["tasks"]["icr_synth_rag_512"]["n_scored"] == 2
