"""The demonstration's base model: a tiny model learns to answer questions about more and more passages (its "pre-training").

A plain PyTorch loop: contexts grow with what the model gets right, which no trainer's dataset can do. Everything after it
(warm start, GRPO) goes through TRL.
"""

from __future__ import annotations

import json
import random
from collections import deque
from pathlib import Path
from typing import Any

from ..curves import HEIGHT, chart, page
from .rows import conversation
from .tiny import build, content_ids

FEWEST = 2
TOKENS = 3200  # of a batch, about
PASS = 0.85  # share right in the last _RECENT batches before contexts grow
_RECENT = 6


def train(folder: Path, *, seed: int, steps: int, most: int, rate: float = 3e-3) -> Path:
    """Make `folder` (a model with tokenizer), unless it is there; every step is a line of `<folder>-init/metrics.jsonl`.

    Contexts have at most `passages` passages, which grows from 2 to `most`. The loss is on the answers alone.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    start = build(folder.with_name(f"{folder.name}-init"), seed)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    content = content_ids(tokenizer)
    r, recent, passages, rows = random.Random(f"base/{seed}"), deque[float](maxlen=_RECENT), FEWEST, []
    log = start / "metrics.jsonl"
    log.unlink(missing_ok=True)
    for step in range(steps):
        left = (steps - step) / (0.3 * steps)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 40, max(0.05, left))
        now = r.randint(max(FEWEST, passages // 2), passages)
        talks = [conversation(r, now, most) for _ in range(_batch(now))]
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
    building = folder.with_name(f"{folder.name}.part")
    model.save_pretrained(building)
    tokenizer.save_pretrained(building)
    (building / "curves.svg").write_text(_curves(rows), encoding="utf-8")
    building.rename(folder)
    return folder


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
    inside = (last.gather(1, seen.clamp(min=0)) == 1) & (seen >= 0)  # from <|assistant|> to the token before <|end|>
    rows, columns = torch.nonzero(inside[:, :-1], as_tuple=True)
    hidden = model.model(input_ids=ids, attention_mask=batch["attention_mask"]).last_hidden_state[rows, columns]
    logits, wanted = model.lm_head(hidden), ids[rows, columns + 1]
    counted = content[wanted]
    right = (logits.argmax(-1) == wanted)[counted].float().mean().item()
    return torch.nn.functional.cross_entropy(logits, wanted), right


def _curves(rows: list[dict[str, float]]) -> str:
    titles = {"right": "base model: share of answers right", "passages": "passages of a context", "loss": "loss"}
    charts = []
    for i, (name, title) in enumerate(titles.items()):
        line = [(r["step"], r[name]) for r in rows]
        charts.append(chart(title, {name: line}, y_range=(0.0, max(y for _, y in line)), top=HEIGHT * i))
    return page(charts)
