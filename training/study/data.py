"""Training data of a study's arms: a folder made by `icr train data`, or rows of the short synthetic world.

    data: data/                                                  # as it is
    data: {folder: data/, domains: [hotpotqa], unit_tokens: 4096, tokenizer: MODEL}
    data: {short: {n: 960, passages: [6, 12, 18], domains: [arts], target: gold, unit_passages: 3, aliases: 0.5}}

`unit_*` joins neighbouring passages to retrieval units, which are then what has a number: LongRAG's units (arXiv 2406.15319).
`aliases` is the share of rows whose recorded answer is written in a form that no passage has (`alias`), as answers of real
data often are: a rule that compares strings calls every answer wrong there.
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError, unknown

from ..data.store import ROW, Manifest, Record, key_of, read, write

_SHORT = ("n", "passages", "domains", "target", "seed", "unit_passages", "aliases")
_FOLDER = ("folder", "domains", "unit_tokens", "tokenizer")
TARGETS = ("gold", "careless")


def place(given: Any, seed: int, prompt: str, root: Path) -> tuple[Any, Path]:
    """Checked options with the run's seed in them, and their folder. A plain folder is used as it is, under every seed."""
    if given is None or isinstance(given, str):
        return given, Path(given or root)
    if not isinstance(given, Mapping) or ("short" in given) == ("folder" in given):
        raise IcrError(f"data is {given!r}; give a folder, {{folder: ...}} or {{short: ...}}")
    options = {**given["short"]} if "short" in given else {**given}
    known = _SHORT if "short" in given else _FOLDER
    for name in options:
        if name not in known:
            raise unknown("data option", name, known)
    if "short" in given:
        if options.setdefault("target", "gold") not in TARGETS:
            raise unknown("data target", str(options["target"]), TARGETS)
        if not isinstance(options.get("n"), int) or not options.get("passages"):
            raise IcrError("data.short needs n (rows) and passages (a list of passages a prompt)")
        share = options.get("aliases", 0)
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise IcrError(f"data.aliases is {share!r}; it is a share of the rows, from 0 to 1")
        options |= {"seed": options.get("seed", 0) + seed, "prompt": prompt, "short": True}
    return options, root / key_of(options)


def make(options: Any, folder: Path) -> Path:
    """Write train.parquet and its manifest, unless they are there. Returns the folder."""
    if isinstance(options, str) or Manifest.load(folder).fresh("study", key_of(options)):
        return folder
    records = _short(options) if options.get("short") else _filtered(options)
    count = write(folder / "train.parquet", records, ROW | {"target": "str"})
    Manifest.load(folder).record("study", key_of(options), {"train.parquet": count}, options=options)
    return folder


def _short(options: Mapping[str, Any]) -> Iterator[Record]:
    """Rows of the training split, domains taking turns; no demonstration of their own with target `gold`."""
    from ..demo import rows

    domains = options.get("domains") or [None]
    share = -(-options["n"] // len(domains))
    parts = [rows.rows(share, list(options["passages"]), options["prompt"], options["seed"], d) for d in domains]
    mixed = (row for row in chain.from_iterable(zip_longest(*parts)) if row)
    for row in _first(options["n"], mixed):
        if options["target"] == "gold":
            row.pop("target")
        if random.Random(f"{options['seed']}/alias/{row['id']}").random() < options.get("aliases", 0):
            row["answers"] = [alias(a) for a in row["answers"]]
        yield joined(row, _every(options["unit_passages"])) if options.get("unit_passages") else row


def alias(answer: str) -> str:
    """The answer in other letters, which no passage holds: "Brandell" -> "Oenaqryy". Its own inverse."""
    return codecs.encode(answer, "rot13")


def _filtered(options: Mapping[str, Any]) -> Iterator[Record]:
    keep, cut = options.get("domains"), _same
    if options.get("unit_tokens"):
        if not options.get("tokenizer"):
            raise IcrError("data.unit_tokens needs data.tokenizer, the model whose tokens are counted")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options["tokenizer"])
        cut = _budget(options["unit_tokens"], lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    total = 0
    for row in read(Path(options["folder"]) / "train.parquet"):
        if not keep or row["domain"] in keep or row["dataset"] in keep:
            total += 1
            yield row if cut is _same else joined(row, cut)
    if not total:
        raise IcrError(f"{options['folder']} has no rows of {', '.join(keep or ['any domain'])}")


Cut = Callable[[list[str]], list[int]]


def _same(passages: list[str]) -> list[int]:
    return list(range(len(passages)))


def _every(size: int) -> Cut:
    return lambda passages: [i // size for i in range(len(passages))]


def _budget(tokens: int, count: Callable[[str], int]) -> Cut:
    """Passages fill a unit until the next one would exceed the budget; a longer passage is a unit of its own."""

    def cut(passages: list[str]) -> list[int]:
        unit, held, out = 0, 0, []
        for text in passages:
            size = count(text)
            if held and held + size > tokens:
                unit, held = unit + 1, 0
            held += size
            out.append(unit)
        return out

    return cut


def joined(row: Mapping[str, Any], cut: Cut) -> Record:
    """The row with its passages joined to units; gold ids and gold texts are those of the units. `cut`: unit per passage."""
    passages = list(row["passages"])
    of = cut(passages)
    units = ["\n".join(p for p, u in zip(passages, of, strict=True) if u == unit) for unit in range(of[-1] + 1)]
    gold = sorted({of[i] for i in row["gold_ids"]})
    names = {"passages": units, "gold_ids": gold, "gold_docs": [units[i] for i in gold], "original_ids": gold}
    return {k: v for k, v in row.items() if k not in ("target", "n_tokens")} | names


def _first(count: int, records: Iterable[Record]) -> Iterator[Record]:
    return (row for row, _ in zip(records, range(count), strict=False))
