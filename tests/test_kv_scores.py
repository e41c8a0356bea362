"""Evictors that judge by what the prefill shows: each held against a restatement of its paper over the model's own modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from test_kv_hf import HEADS, NEW, model, ours, prompt  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv import make  # noqa: E402
from icr_tasks.kv.hf import attention, decode  # noqa: E402
from icr_tasks.kv.hf.rotary import Rotary  # noqa: E402
from icr_tasks.kv.hf.session import Session  # noqa: E402
from icr_tasks.settings import Setting  # noqa: E402

N = 90


def kept(
    built: Any, ids: list[int], method: Any, monkeypatch: pytest.MonkeyPatch, **job: Any
) -> list[list[list[int]]]:
    """Positions kept, by layer and head."""
    seen: list[list[list[int]]] = []
    whole: dict[int, Any] = {}
    evict = Session._evict

    def spy(self: Any, sizes: Any) -> None:
        before = [(x.keys[0].clone(), x.values[0].clone()) for x in self.cache.layers]
        evict(self, sizes)
        for (keys, _), layer in zip(before, self.cache.layers, strict=True):
            heads = [k for k, _ in layer.heads[0]] if self.ragged else list(layer.keys[0])
            seen.append([[_place(keys[h], one) for one in stored] for h, stored in enumerate(heads)])

    monkeypatch.setattr(Session, "_evict", spy)
    ours(built, [ids], method, **job)
    assert whole == {}
    return seen


def _place(keys: Any, one: Any) -> int:
    (at,) = (keys == one).all(-1).nonzero().flatten().tolist()
    return at


def hidden(built: Any, ids: list[int]) -> list[Any]:
    """Input of each layer's attention, (tokens, hidden)."""
    found: list[Any] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda m, a, kw: found.append(kw["hidden_states"][0]), with_kwargs=True
        )
        for layer in built.model.layers
    ]
    built(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "glm", "smollm3"])
def test_expected_attention_is_the_published_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries from the model's own projection before any rotation, keys and values from its cache; the average over
    future positions taken sample by sample of the rotation."""
    import sys

    built, ids, future = model(kind), prompt(N), 16
    found = kept(built, ids, make("expected", 0.3, {"future": future}), monkeypatch)
    built.set_attn_implementation("sdpa")
    rotate = sys.modules[type(built.model).__module__].apply_rotary_pos_emb
    with torch.inference_mode():
        cache = built(torch.tensor([ids]), use_cache=True).past_key_values
        for slot, (layer, x) in enumerate(zip(built.model.layers, hidden(built, ids), strict=True)):
            queries = layer.self_attn.q_proj(x[4:]).view(N - 4, 4, 8).transpose(0, 1)
            mean = queries.mean(1)
            centred = queries - mean.unsqueeze(1)
            cov = centred.transpose(1, 2) @ centred / (N - 4)
            unit = torch.eye(8).view(1, 1, 8, 8)
            turns = []
            for at in range(N, N + future):
                cos, sin = built.model.rotary_emb(unit, torch.full((1, 8), at))
                turns.append(rotate(unit, unit, cos, sin)[0][0, 0])
            turn = torch.stack(turns).mean(0) if getattr(layer.self_attn, "use_rope", True) else unit[0, 0]
            keys, values = cache.layers[slot].keys[0], cache.layers[slot].values[0]
            for head in range(2):
                worth = torch.zeros(N - 4)
                for q in range(2 * head, 2 * head + 2):
                    m, c = mean[q] @ turn, turn.T @ cov[q] @ turn
                    logits = torch.stack([m @ k / 8**0.5 + k @ c @ k / 16 for k in keys[head, 4:]])
                    worth += torch.softmax(logits, 0) / 2
                worth = worth * values[head, 4:].norm(dim=-1)
                best = (worth.topk(round(0.3 * N) - 4).indices + 4).tolist()
                assert set(found[slot][head]) == {*range(4), *best}


@pytest.mark.parametrize("kind", ["Cohere2", "Exaone4"])
def test_layers_that_see_no_positions_are_found(kind: str) -> None:
    """Windows rotate, full attention does not."""
    import transformers
    from test_kv_models import HALF, SMALL

    config = getattr(transformers, f"{kind}Config")(**{**SMALL, "sliding_window": 16, "layer_types": HALF})
    assert Rotary(getattr(transformers, f"{kind}ForCausalLM")(config)).layers == {0, 2}


@pytest.mark.parametrize("name", ["expected", "kvzip"])
def test_what_a_method_looks_at_beyond_the_prompt_does_not_move_the_rotation(name: str) -> None:
    """rope_type `dynamic`: the angles are those of the longest pass."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    built, ask = model("llama", max_position_embeddings=64, rope_parameters=rope), ([5, 6, 7], [8, 9])
    (full,) = ours(built, [prompt(N)], None)
    (whole,) = ours(built, [prompt(N)], make(name, 1.0), repeat=ask)
    assert torch.allclose(torch.stack(whole.logits), torch.stack(full.logits), atol=1e-4)


def test_kvzip_keeps_what_the_repetition_attends_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention of one plain eager pass over prompt and repetition, renormalised to the keys that take part."""
    built, ids, part = model(), prompt(N), 50
    ask = ([7, 8, 9], [11, 12])
    found = kept(built, ids, make("kvzip", 0.4, {"part": part}), monkeypatch, repeat=ask)
    built.set_attn_implementation("eager")
    scores = torch.zeros(2, 2, N)
    for start in range(0, N, part):
        end = min(start + part, N)
        said = ask[0] + ids[:part] if start == 0 else ask[1] + ids[start - 8 : start] + ids[start:end]
        with torch.inference_mode():
            out = built(torch.tensor([ids + said]), output_attentions=True).attentions
        for layer in range(2):
            near = [*range(min(4, start)), *range(start, end), *range(N, N + len(said))]
            own = out[layer][0][:, N:][:, :, near]
            own = own / own.sum(-1, keepdim=True)
            best = own[:, :, min(4, start) : min(4, start) + end - start].amax(1)
            scores[layer, :, start:end] = best.view(2, 2, -1).amax(1)
    scores[:, :, :4] = torch.inf
    best = scores.flatten().topk(4 * round(0.4 * N)).indices.tolist()
    assert {(i // (2 * N), i // N % 2, i % N) for i in best} == {
        (layer, head, at) for layer, heads in enumerate(found) for head, row in enumerate(heads) for at in row
    }
    assert len({len(row) for heads in found for row in heads}) > 1, "heads have lengths of their own"


def test_chunks_stay_whole() -> None:
    gen = torch.Generator().manual_seed(3)
    keys, queries = torch.randn(2, 60, 8, generator=gen), torch.randn(2, 3, 5, 8, generator=gen)
    method = make("chunkkv", 25, {"window": 5, "chunk": 5})
    found = method.keep(keys, keys, queries, 0.4)
    assert torch.equal(found[0], found[1])
    votes = torch.zeros(55)
    for head in range(2):
        for group in range(3):
            for at in range(5):
                row = torch.softmax(keys[head, : 56 + at] @ queries[head, group, at] * 0.4, 0)
                votes += row[:55]
    best = votes.view(11, 5).sum(1).topk(4).indices
    assert set(found[0].tolist()) == {5 * int(c) + i for c in best for i in range(5)} | set(range(55, 60))
    part = make("chunkkv", 23, {"window": 5, "chunk": 5}).keep(keys, keys, queries, 0.4)[0].tolist()
    assert len(part) == 23 and set(part) < set(found[0].tolist())


def test_retrieval_heads_keep_everything_and_streaming_heads_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    built, ids = model(), prompt(N)
    knobs = {"sink": 4, "window": 12, "scores": str(HEADS)}
    lengths: list[list[int]] = []
    done = decode.Session.step_done

    def spy(self: Any, cache: Any, tokens: int = 1) -> bool:
        changed = done(self, cache, tokens)
        lengths.append([len(k) for layer in cache.layers for k, _ in layer.heads[0]])
        return changed

    monkeypatch.setattr(decode.Session, "step_done", spy)
    answer = ours(built, [ids], make("duo", 0.5, knobs))[0]
    assert lengths == [[N + i, 16, 16, N + i] for i in range(1, NEW)]
    assert answer.kv["stored_fraction"] == pytest.approx((N + 16) / (2 * N), abs=1e-4)
    lengths.clear()
    ours(built, [ids], make("duo", 0.5, {**knobs, "window": 0}))
    assert lengths[0] == [N + 1, 4, 4, N + 1], "without a window the sink alone"
    whole = ours(built, [ids], make("duo", 1.0, knobs))[0]
    assert whole.kv["fallback"] and whole.kv["stored_fraction"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2\n3 4\n5 6\n", "those of another model: 3 layers of 2 KV heads, this one has 2 of 2"),
        ("1 2\n3\n", "as many numbers as there are KV heads"),
        ("a b\n", "cannot be read as numbers"),
        (None, "cannot be read"),
    ],
)
def test_head_scores_that_do_not_fit(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "heads.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(IcrError, match=said):
        ours(model(), [prompt(N)], make("duo", 0.5, {"sink": 4, "window": 12, "scores": str(path)}))
    with pytest.raises(IcrError, match="needs scores=FILE"):
        ours(model(), [prompt(400)], make("duo", 0.5))
    with pytest.raises(IcrError, match="share of heads that retrieve"):
        make("duo", 100, {"scores": str(HEADS)}).applies(500)


def test_other_contents_of_the_file_are_another_run(tmp_path: Path) -> None:
    path = tmp_path / "heads.tsv"
    path.write_text("1 2\n3 4\n")
    asked, both = (Setting.parse(f"{rag}kv:duo@0.5,scores={path}") for rag in ("", "rag@4k+"))
    before, within = asked.describe(), both.describe()["then"]
    assert before["files"] == within["files"] and len(before["files"]["scores"]) == 16
    path.write_text("4 3\n2 1\n")
    assert Setting.parse(str(asked)).describe()["files"] != before["files"]
    path.unlink()
    assert asked.describe()["files"] == {"scores": ""}, "the method says that it is not there"
    assert "files" not in Setting.parse("kv:snapkv@0.5").describe()


@pytest.mark.parametrize("name", ["expected", "kvzip"])
def test_models_that_cannot_are_refused_in_a_sentence(name: str) -> None:
    from test_kv_models import build

    kind = {"expected": "llama4", "kvzip": "gemma3"}[name]
    built = build(kind)
    built.set_attn_implementation(attention.register())
    with pytest.raises(IcrError, match={"expected": "not one rotation", "kvzip": "repeats the prompt"}[name]):
        decode.generate(built, decode.Job([prompt(N)], 3, frozenset(), repeat=([5], [6])), make(name, 0.5))
