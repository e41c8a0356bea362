"""A language model small enough to be trained in minutes on a CPU: its tokenizer, and its random initialisation.

Everything is public transformers: `LlamaForCausalLM`, `PreTrainedTokenizerFast`. No layer is our own, so lm_eval, vLLM and
the KV methods load the result like any model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from icr_tasks.context import prompts
from icr_tasks.data.synth import short

WINDOW, MAX_DOCS = 1024, 96
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# What the heads of the first layer look at before any training: tokens this far back.
OFFSETS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def pieces() -> list[str]:
    """What becomes one token each: words of the short world, its wordings, `[DOC i]`, and the text of the prompts."""
    out: list[str] = []
    for kind in ("first", "last", "city", *short._FIXED):
        out += [form for word in short.pool(kind) for form in (word, f" {word}")]
    templates = [t for rel in short.RELATIONS.values() for r in rel.values() for t in (r.sentence, r.question)]
    for name in ("ao", "id"):
        form = prompts.get("synth", name)
        templates += [form.user, form.system or ""]
    for template in templates:
        for part in re.split(r"\{\w+\}", template):
            out += [part, part.lstrip("\n"), part.lstrip(".?\n")]
    # The end of a question and what follows it in the prompt are one token: a name is equally far from either answer.
    rests = [prompts.get("synth", name).user.rpartition("}")[2] for name in ("ao", "id")]
    ends = [r.question.rpartition("}")[2] for rel in short.RELATIONS.values() for r in rel.values()]
    out += [end + rest for end in ends for rest in rests]
    out += [".\n\n", "Question: ", "Answer: ", "The answer is: ", "Relevant documents: ", "\n", ", "]
    out += [f"[DOC {i}]\n" for i in range(MAX_DOCS)]
    return [p for p in dict.fromkeys(out) if p]


def tokenizer() -> Any:
    """Byte-level, so that any text has tokens, with whole words and prompt sentences on top (about 900 entries)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*SPECIAL, *alphabet])}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    raw.add_tokens([AddedToken(piece, normalized=False) for piece in pieces()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", pad_token="<|pad|>", extra_special_tokens=list(SPECIAL[2:])
    )
    fast.chat_template = TEMPLATE
    fast.clean_up_tokenization_spaces = False
    return fast


def content_ids(tokenizer: Any) -> Any:
    """Mask over the vocabulary: values and passage numbers, what an answer is right or wrong about."""
    import torch

    mask = torch.zeros(len(tokenizer), dtype=torch.bool)
    words = [w for rel in short.RELATIONS.values() for r in rel.values() for w in short.pool(r.pool)]
    mask[tokenizer.convert_tokens_to_ids([*words, *(f"[DOC {i}]\n" for i in range(MAX_DOCS))])] = True
    return mask


def build(folder: Path, seed: int, *, width: int = 128, layers: int = 2, head: int = 64) -> Path:
    """Save a random-init Llama (about 0.7 million parameters) with its tokenizer; returns the folder."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    fast = tokenizer()
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=len(OFFSETS), num_key_value_heads=len(OFFSETS), head_dim=head, attention_bias=True,
        max_position_embeddings=WINDOW, tie_word_embeddings=True, initializer_range=0.03,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        pad_token_id=fast.pad_token_id, eos_token_id=fast.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _look_back(model)
    model.generation_config = GenerationConfig(
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _look_back(model: Any, sharpness: float = 6.0, gather: float = 0.5, match: float = 2.0, copy: float = 0.7) -> None:
    """Start the first layer with heads that look back a fixed distance, the second with heads that match what they gathered.

    Large models have such heads from pre-training (induction heads). From plain noise a model of this size stays at "any
    value of the right type" for many minutes of CPU; with this start it finds what to match, and what to say, by itself.
    Half of the dimensions hold a token's own embedding, the other half what was gathered. Matching lives in the
    dimensions that rotary positions turn slowly, so that it works at any distance.
    """
    import torch

    config = model.config
    size, heads = config.head_dim, config.num_attention_heads
    turn = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
    mix = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size))[0]
    own, gathered = mix[:size], mix[-size:]
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    slow = torch.cat([torch.arange(size // 4, size // 2), torch.arange(size - size // 4, size)])
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding.copy_(0.3 * torch.randn(len(embedding), size) @ own)
        for h, back in enumerate(OFFSETS[:heads]):
            part = slice(h * size, (h + 1) * size)
            first.q_proj.bias[part] = torch.cat([torch.full((size // 2,), sharpness), torch.zeros(size // 2)])
            first.k_proj.bias[part] = sharpness * torch.cat([torch.cos(turn * back), torch.sin(turn * back)])
            first.v_proj.weight[part] += gather * own
            first.o_proj.weight[:, part] += gather * gathered.T
            seen = gathered[(h % 2) * size // 2 :][: size // 2]
            second.q_proj.weight[h * size + slow] += match * seen
            second.k_proj.weight[h * size + slow] += match * seen
            second.v_proj.weight[part] += copy * (own if h < heads // 2 else gathered)
            second.o_proj.weight[:, part] += copy * own.T
