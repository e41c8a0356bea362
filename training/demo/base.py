"""The demonstration's base model: a tiny model learns to answer questions about more and more passages (its
"pre-training").

A plain PyTorch loop: contexts grow with what the model gets right, which no trainer's dataset can do.
Everything after it (warm start, GRPO) goes through TRL.
"""

from __future__ import annotations

import json
import random
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.synth import names, short
from icr_tasks.storage import replacing_folder

from ..curves import HEIGHT, chart, page
from ..data.store import ROW, Manifest, key_of, write
from .forms import FIXED, PLAIN, answer

# ---- tiny ----------------------------------------------------------------------------------------
# A language model small enough to be trained in minutes on a CPU: its tokenizer, and its random
# initialisation.

WINDOW, MAX_DOCS = 1024, 96
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}{{ "
    "m['content'] }}<|end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# What the heads of the first layer look at before any training: tokens this far back.
OFFSETS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def pieces(formats: tuple[str, ...] = PLAIN) -> list[str]:
    """What becomes one token each: words of the short world, its wordings, `[DOC i]`, and the text of the
    prompts and answers of `formats`."""
    out: list[str] = []
    for kind in ("first", "last", "city", *short._FIXED):
        out += [form for word in short.pool(kind) for form in (word, f" {word}")]
    templates = [
        t for rel in short.RELATIONS.values() for r in rel.values() for t in (r.sentence, r.question)
    ]
    for name in formats:
        form = base.get("synth", name)
        templates += [form.user, form.system or ""]
    for template in templates:
        for part in re.split(r"\{\w+\}", template):
            out += [part, part.lstrip("\n"), part.lstrip(".?\n")]
    # The end of a question and what follows it in the prompt are one token: a name is equally far from either
    # answer.
    rests = [base.get("synth", name).user.rpartition("}")[2] for name in formats]
    ends = [r.question.rpartition("}")[2] for rel in short.RELATIONS.values() for r in rel.values()]
    out += [end + rest for end in ends for rest in rests]
    out += [".\n\n", "Question: ", "Answer: ", "The answer is: ", "Relevant documents: ", "\n", ", "]
    out += [f"[DOC {i}]\n" for i in range(MAX_DOCS)]
    out += [part for name in formats for part in FIXED.get(name, ())]
    return [p for p in dict.fromkeys(out) if p]


def tokenizer(formats: tuple[str, ...] = PLAIN) -> Any:
    """Byte-level, so that any text has tokens, with whole words and prompt sentences on top (about 900
    entries)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*SPECIAL, *alphabet])}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    raw.add_tokens([AddedToken(piece, normalized=False) for piece in pieces(formats)])
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


def build(
    folder: Path,
    seed: int,
    *,
    width: int = 128,
    layers: int = 2,
    head: int = 64,
    formats: tuple[str, ...] = PLAIN,
) -> Path:
    """Save a random-init Llama (about 0.7 million parameters) with its tokenizer; returns the folder."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    fast = tokenizer(formats)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=len(OFFSETS),
        num_key_value_heads=len(OFFSETS),
        head_dim=head,
        attention_bias=True,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        initializer_range=0.03,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    _look_back(model)
    model.generation_config = GenerationConfig(
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _look_back(
    model: Any, sharpness: float = 6.0, gather: float = 0.5, match: float = 2.0, copy: float = 0.7
) -> None:
    """Start the first layer with heads that look back a fixed distance, the second with heads that match what
    they gathered.

    Large models have such heads from pre-training (induction heads). From plain noise a model of this size
    stays at "any value of the right type" for many minutes of CPU; with this start it finds what to match,
    and what to say, by itself. Half of the dimensions hold a token's own embedding, the other half what was
    gathered. Matching lives in the dimensions that rotary positions turn slowly, so that it works at any
    distance.
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


FEWEST = 2
TOKENS = 3200  # of a batch, about
PASS = 0.85  # share right in the last _RECENT batches before contexts grow
_RECENT = 6


def train(
    folder: Path,
    *,
    seed: int,
    steps: int,
    most: int,
    rate: float = 3e-3,
    formats: tuple[str, ...] = PLAIN,
    careless: int = 0,
) -> Path:
    """Make `folder` (a model with tokenizer), unless it is there; every step is a line of
    `<folder>-init/metrics.jsonl`.

    Contexts have at most `passages` passages, which grows from 2 to `most`. The loss is on the answers alone.
    The last `careless` of the steps are careless demonstrations in all `formats` (see `rows`): a habit for
    training to correct.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    start = build(folder.with_name(f"{folder.name}-init"), seed, formats=formats)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    content = content_ids(tokenizer)
    r, recent, passages, rows = random.Random(f"base/{seed}"), deque[float](maxlen=_RECENT), FEWEST, []
    log = start / "metrics.jsonl"
    log.unlink(missing_ok=True)
    for step in range(steps):
        left = (steps - careless - step) / (0.3 * (steps - careless))
        share = max(0.05, left) if step < steps - careless else 1 / 3
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 40, share)
        now = r.randint(max(FEWEST, passages // 2), passages)
        talks = (
            [conversation(r, now, most, formats=formats) for _ in range(_batch(now))]
            if step < steps - careless
            else _careless(r, step, most, formats)
        )
        loss, right = _step(model, tokenizer, talks, content)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(right)
        rows.append({"step": step + 1, "loss": loss.item(), "right": right, "passages": now})
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        if len(recent) == _RECENT and sum(recent) / _RECENT > PASS and passages < most:
            passages = min(passages + max(1, passages // 8), most)
            recent.clear()
    with replacing_folder(folder) as building:
        model.save_pretrained(building)
        tokenizer.save_pretrained(building)
        (building / "curves.svg").write_text(_curves(rows), encoding="utf-8")
    return folder


def _careless(r: random.Random, step: int, most: int, formats: tuple[str, ...]) -> list[list[dict[str, str]]]:
    """A batch of careless demonstrations, formats in turn; `target` is any of three passages that look
    right."""
    talks = []
    for n, name in enumerate(formats):
        form = base.get("synth", name)
        for row in rows(4, [r.randint(min(6, most), most)], name, 9000 + step * len(formats) + n):
            units = [base.Unit(str(i), text) for i, text in enumerate(row["passages"])]
            asked = form.messages(context=form.context(units), question=row["question"])
            talks.append([*asked, {"role": "assistant", "content": row["target"]}])
    return talks


def _batch(passages: int) -> int:
    return max(6, min(64, TOKENS // (24 + 17 * passages)))


def _step(model: Any, tokenizer: Any, talks: list[list[dict[str, str]]], content: Any) -> tuple[Any, float]:
    """Loss on the answers, and the share of their values and passage numbers that are right."""
    import torch

    texts = tokenizer.apply_chat_template(talks, tokenize=False)
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    ids = batch["input_ids"]
    asks, ends = (tokenizer.convert_tokens_to_ids(t) for t in ("<|assistant|>", "<|end|>"))
    # Inside an answer: more answers begun than messages ended since (every message ends; three kinds begin).
    last = torch.where(ids == asks, 1, torch.where(ids == ends, -1, 0))
    at = torch.arange(ids.shape[1]).expand_as(ids)
    seen = torch.cummax(torch.where(last != 0, at, -1), dim=1).values
    inside = (last.gather(1, seen.clamp(min=0)) == 1) & (
        seen >= 0
    )  # from <|assistant|> to the token before <|end|>
    rows, columns = torch.nonzero(inside[:, :-1], as_tuple=True)
    hidden = model.model(input_ids=ids, attention_mask=batch["attention_mask"]).last_hidden_state[
        rows, columns
    ]
    logits, wanted = model.lm_head(hidden), ids[rows, columns + 1]
    counted = content[wanted]
    right = (logits.argmax(-1) == wanted)[counted].float().mean().item()
    return torch.nn.functional.cross_entropy(logits, wanted), right


def _curves(rows: list[dict[str, float]]) -> str:
    titles = {
        "right": "base model: share of answers right",
        "passages": "passages of a context",
        "loss": "loss",
    }
    charts = []
    for i, (name, title) in enumerate(titles.items()):
        line = [(r["step"], r[name]) for r in rows]
        charts.append(chart(title, {name: line}, y_range=(0.0, max(y for _, y in line)), top=HEIGHT * i))
    return page(charts)


# ---- rows ----------------------------------------------------------------------------------------
# Training rows of the demonstration, from the training split of `icr_synth_short` (its names never occur in
# the test split).

Record = dict[str, Any]


def rows(n: int, passages: list[int], prompt: str, seed: int, domain: str | None = None) -> Iterator[Record]:
    """`n` rows; the numbers of passages take turns. `target` is a careless demonstration: any passage whose
    name ends like the one asked for, and which states the same relation, is as good as the right one (1 of 3
    is right).
    """
    parts = {
        k: short.load(domain, None, passages=k, seed=seed, n=n, split="train").items for k in set(passages)
    }
    deal = [passages[i % len(passages)] for i in range(n)]
    random.Random(f"{seed}/deal").shuffle(deal)
    for number, k in enumerate(deal):
        item = parts[k][number]
        units = list(item.units())
        gold = [i for i, u in enumerate(units) if u.gold]
        index, value = random.Random(f"{seed}/careless/{number}").choice(item.fields["candidates"])
        yield {
            "id": f"{item.id}-{k}",
            "dataset": "synth",
            "domain": item.keys["domain"],
            "question": item.question,
            "answers": list(item.answers),
            "passages": [u.text for u in units],
            "gold_ids": gold,
            "gold_docs": [units[i].text for i in gold],
            "original_ids": gold,
            "n_dropped": 0,
            "target": answer(prompt, index, units[index].text, value),
        }


def save(folder: Path, records: Iterator[Record], options: Record) -> Path:
    """Write train.parquet and its manifest; returns the folder."""
    count = write(folder / "train.parquet", records, ROW | {"target": "str"})
    Manifest.load(folder).record("synth", key_of(options), {"train.parquet": count}, options=options)
    return folder


def conversation(
    r: random.Random,
    passages: int,
    most: int,
    domain: str | None = None,
    formats: tuple[str, ...] = PLAIN,
) -> list[dict[str, str]]:
    """Messages for the base model: passages about unrelated names, then a question about each of them.

    One of the formats: with `ao` alone, two passages and four relations, the model long gets by without
    reading names. Passages are numbered from anywhere below `most`, so that every number is seen, also in
    short contexts.
    """
    prompt = r.choice(formats)
    form = base.get("synth", prompt)
    tail = (
        "Question: " + form.user.partition("Question: ")[2]
    )  # later turns repeat the prompt from the question on
    facts = _unrelated(r, passages, domain or r.choice(sorted(short.RELATIONS)))
    first = r.randint(0, max(0, most - passages))
    parts = [
        base.fill(form.unit, {"i": first + i, "title": f.name, "text": f.text}) for i, f in enumerate(facts)
    ]
    messages: list[dict[str, str]] = []
    for i in r.sample(range(passages), passages):
        question = short.RELATIONS[facts[i].domain][facts[i].relation].question.format(name=facts[i].name)
        follow = [{"role": "user", "content": base.fill(tail, {"question": question})}]
        messages += follow if messages else form.messages(context=form.joiner.join(parts), question=question)
        messages.append(
            {"role": "assistant", "content": answer(prompt, first + i, facts[i].text, facts[i].value)}
        )
    return messages


def _unrelated(r: random.Random, count: int, domain: str) -> list[short.Fact]:
    """Facts about names of the training split; now and then two share a part."""
    firsts, lasts = (short.pool(kind) for kind in short._NAMES[domain])
    found: dict[tuple[str, str, str], short.Fact] = {}
    while len(found) < count:
        relation = r.choice(sorted(short.RELATIONS[domain]))
        first, last = r.choice(firsts), r.choice(lasts)
        value = r.choice(short.pool(short.RELATIONS[domain][relation].pool))
        if names.belongs(f"{first} {last}", "train"):
            found.setdefault((first, last, relation), short.Fact(domain, relation, first, last, value))
    return list(found.values())
