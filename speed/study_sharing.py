"""Prompt tokens that a prefix cache leaves to compute in a whole study: 8 questions x {full, gold, rag, kv}, without
an engine.

    python speed/study_sharing.py [--tokens 32000] [--questions 8] [--documents 4] [--capacity 400000]

Builds the real prompts of the real settings, puts them in the order in which `icr sweep` sends them (the units of
`sweep.cells`, each by common beginnings), and counts what vLLM's cache of blocks of 16 tokens would find: at most
`--capacity` tokens, the blocks used longest ago go first, and a compressed KV setting shares with nothing else.
Three shapes: one document for all questions (InfiniteBench), a question's passages at six depths of the gold one
(HELMET-RAG), and every question with passages of its own (HELMET's worst case, one depth).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context.build import Builder
from icr_tasks.context.tokens import counter
from icr_tasks.engines.answers import by_prefix
from icr_tasks.settings import Setting

SETTINGS = ("full", "gold", "rag@4k", "kv:topk@0.05")
BLOCK = 16


def passages(seed: str, count: int) -> list[Unit]:
    """Passages of about 140 tokens."""
    draw = random.Random(seed)
    words = [
        f"{a}{b}" for a in ("river", "old", "king", "stone", "north") for b in ("", "s", "ing", "er", "ly")
    ]
    return [
        Unit(f"{seed}-{n}", " ".join(draw.choices(words, k=75)) + ".", title=f"Name{seed} {n}")
        for n in range(count)
    ]


def items(shape: str, documents: int, questions: int, count: int) -> list[Item]:
    """Items of a shape; each question's gold passage is marked."""
    found = []
    for document in range(documents):
        shared = passages(f"d{document}", count)
        for question in range(questions):
            if shape == "one document":
                own, gold = list(shared), (question * count) // questions
            elif shape == "six depths":
                rest, gold = passages(f"d{document}", count), round(question % 6 / 5 * (count - 1))
                own = rest[1 : gold + 1] + rest[:1] + rest[gold + 1 :]
            else:
                own, gold = passages(f"d{document}q{question}", count), 0
            units = [Unit(u.id, u.text, title=u.title, gold=n == gold) for n, u in enumerate(own)]
            asked = f"What does Named{document} {question} say of stone?"
            name = f"{document}-{question}"
            found.append(Item(name, asked, ("x",), name, partial(list, units), fields={"dataset": "nq"}))
    return found


class Cache:
    """Blocks of the cache by what stands before them too, least recently used first."""

    def __init__(self, capacity: int) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._most = capacity // BLOCK

    def computed(self, ids: list[int]) -> int:
        """Tokens of a prompt that are computed, and kept from then on. The last block always is, as in vLLM."""
        chain, found, hit = 0, 0, True
        for at in range(0, len(ids) - len(ids) % BLOCK, BLOCK):
            chain = hash((chain, *ids[at : at + BLOCK]))
            hit = hit and chain in self._blocks and at + BLOCK < len(ids)
            found += BLOCK * hit
            self._blocks[chain] = None
            self._blocks.move_to_end(chain)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)
        return len(ids) - found


def prompts(made: Iterable[Item], setting: str, tokenizer: Any) -> list[str]:
    """The text that each item sends."""
    tokens = counter({"tokenizer": tokenizer})
    assert tokens is not None
    prompt = base.get("helmet_rag", None, "nq")
    template = partial(tokens.tokenizer.apply_chat_template, tokenize=False)

    def render(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        text = template(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(text)

    builder = Builder("helmet_rag", Setting.parse(setting), prompt, tokens, None, 20, render)
    return [str(builder.build(item).prompt) for item in made]


def measure(shape: str, args: argparse.Namespace) -> tuple[int, int, int]:
    """(tokens asked, computed in the order of a sweep, computed setting by setting in the file's order)."""
    count = max(12, args.tokens // 140)
    made = items(shape, args.documents, args.questions, count)
    random.Random(0).shuffle(made)
    texts = {setting: prompts(made, setting, args.tokenizer) for setting in SETTINGS}
    compressed = [setting for setting in SETTINGS if setting.startswith("kv:")]
    units = [[s for s in SETTINGS if s not in compressed], *([s] for s in compressed)]
    tokens = counter({"tokenizer": args.tokenizer})
    assert tokens is not None
    encoded: dict[str, list[int]] = {}

    def ids(text: str) -> list[int]:
        if text not in encoded:
            encoded[text] = tokens.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return encoded[text]

    asked = computed = naive = 0
    for unit in units:  # each its own cache: compressed and whole keys and values do not mix
        sent = [text for setting in unit for text in texts[setting]]
        order = by_prefix([SimpleNamespace(args=(text,)) for text in sent], range(len(sent)))
        ours, other = Cache(args.capacity), Cache(args.capacity)
        asked += sum(len(ids(text)) for text in sent)
        computed += sum(ours.computed(ids(sent[i])) for i in order)
        naive += sum(other.computed(ids(text)) for text in sent)
    return asked, computed, naive


def main() -> int:
    """Print the table; 1 where one document for all questions computes more than --aim of what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=32_000, help="of a document")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--capacity", type=int, default=400_000, help="tokens that the cache holds")
    parser.add_argument("--tokenizer", help="default: SmolLM2's")
    parser.add_argument("--aim", type=float, default=0.2)
    args = parser.parse_args()
    if not args.tokenizer:
        from icr_tasks.engines.smollm2 import export

        args.tokenizer = str(export())
    print(
        f"{args.documents} documents of {args.tokens:,} tokens, {args.questions} questions each, "
        f"{', '.join(SETTINGS)}; a cache of {args.capacity:,} tokens\n"
    )
    print(
        "| shape | prompt tokens | computed / asked, order of a sweep | computed / asked, setting by setting |"
    )
    print("|---|---:|---:|---:|")
    worst = 0.0
    for shape in ("one document", "six depths", "passages of its own"):
        asked, ours, naive = measure(shape, args)
        print(f"| {shape} | {asked:,} | {ours / asked:.3f} | {naive / asked:.3f} |", flush=True)
        worst = max(worst, ours / asked if shape == "one document" else 0.0)
    return int(worst > args.aim)


if __name__ == "__main__":
    sys.exit(main())
