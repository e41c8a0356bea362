"""Training rows of the demonstration, from the training split of `icr_synth_short` (its names never occur in the test split)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icr_tasks.context import prompts
from icr_tasks.data.synth import names, short

from ..data.store import ROW, Manifest, key_of, write

Record = dict[str, Any]


def answer(prompt: str, number: int, value: str) -> str:
    """A completion in the prompt's format that cites passage `number`."""
    return f"[DOC {number}]\nThe answer is: {value}." if prompt == "id" else f"Answer: {value}."


def rows(n: int, passages: list[int], prompt: str, seed: int, domain: str | None = None) -> Iterator[Record]:
    """`n` rows; the numbers of passages take turns. `target` is a careless demonstration: any passage whose name ends like the
    one asked for, and which states the same relation, is as good as the right one (1 of 3 is right).
    """
    parts = {k: short.load(domain, None, passages=k, seed=seed, n=n, split="train").items for k in set(passages)}
    deal = [passages[i % len(passages)] for i in range(n)]
    random.Random(f"{seed}/deal").shuffle(deal)
    for number, k in enumerate(deal):
        item = parts[k][number]
        units = list(item.units())
        gold = [i for i, u in enumerate(units) if u.gold]
        index, value = random.Random(f"{seed}/careless/{number}").choice(item.fields["candidates"])
        yield {
            "id": f"{item.id}-{k}", "dataset": "synth", "domain": item.keys["domain"], "question": item.question,
            "answers": list(item.answers), "passages": [u.text for u in units], "gold_ids": gold,
            "gold_docs": [units[i].text for i in gold], "original_ids": gold, "n_dropped": 0,
            "target": answer(prompt, index, value),
        }  # fmt: skip


def save(folder: Path, records: Iterator[Record], options: Record) -> Path:
    """Write train.parquet and its manifest; returns the folder."""
    count = write(folder / "train.parquet", records, ROW | {"target": "str"})
    Manifest.load(folder).record("synth", key_of(options), {"train.parquet": count}, options=options)
    return folder


def conversation(r: random.Random, passages: int, most: int, domain: str | None = None) -> list[dict[str, str]]:
    """Messages for the base model: passages about unrelated names, then a question about each of them.

    One of both formats: with `ao` alone, two passages and four relations, the model long gets by without reading names.
    Passages are numbered from anywhere below `most`, so that every number is seen, also in short contexts.
    """
    prompt = r.choice(("ao", "id"))
    form = prompts.get("synth", prompt)
    tail = "Question: " + form.user.partition("Question: ")[2]  # later turns repeat the prompt from the question on
    facts = _unrelated(r, passages, domain or r.choice(sorted(short.RELATIONS)))
    first = r.randint(0, max(0, most - passages))
    parts = [prompts.fill(form.unit, {"i": first + i, "title": f.name, "text": f.text}) for i, f in enumerate(facts)]
    messages: list[dict[str, str]] = []
    for i in r.sample(range(passages), passages):
        question = short.RELATIONS[facts[i].domain][facts[i].relation].question.format(name=facts[i].name)
        follow = [{"role": "user", "content": prompts.fill(tail, {"question": question})}]
        messages += follow if messages else form.messages(context=form.joiner.join(parts), question=question)
        messages.append({"role": "assistant", "content": answer(prompt, first + i, facts[i].value)})
    return messages


def _unrelated(r: random.Random, count: int, domain: str) -> list[short.Fact]:
    """Facts about names of the training split; now and then two share a part."""
    firsts, lasts = (short.pool(kind) for kind in short._NAMES[domain])
    found: dict[tuple[str, str, str], short.Fact] = {}
    while len(found) < count:
        relation = r.choice(sorted(short.RELATIONS[domain]))
        first, last = r.choice(firsts), r.choice(lasts)
        value = r.choice(short.pool(short.RELATIONS[domain][relation].pool))
        if names._mine(f"{first} {last}", "train"):
            found.setdefault((first, last, relation), short.Fact(domain, relation, first, last, value))
    return list(found.values())
