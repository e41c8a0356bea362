"""Stage 7: the context of each row. Gold and as many ranked negatives as the token budget holds, in seeded
order.

A budget rather than a filter: 500 passages of 100 words are about 66k tokens, so keeping only rows of at most
32k keeps those whose hits are unusually short (mode `paper` does that).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from icr_tasks.context.tokens import TokenCounter, counter
from icr_tasks.errors import IcrError
from icr_tasks.metrics.answers import normalize

from . import dedupe, judge, keychain
from .config import Config
from .formats import FORMATS, messages, prompt
from .store import ROW, Record, count, read, write

# ---- split ---------------------------------------------------------------------------------------
# Last stage: 95/5 split by question into train.parquet and dev.parquet; rows no reward could use are
# refused.

OUTPUTS = ("train.parquet", "dev.parquet")


def problem(row: Record) -> str | None:
    """Why a row cannot be trained on, or None."""
    n = len(row["passages"])
    if not row["answers"] or not any(a.strip() for a in row["answers"]):
        return "no answer"
    if not row["gold_ids"]:
        return "no gold"
    if any(not 0 <= i < n for i in [*row["gold_ids"], *row["original_ids"]]):
        return "gold id outside the context"
    if [row["passages"][i] for i in row["gold_ids"]] != list(row["gold_docs"]):
        return "gold not in the context"
    return None


def _key(row: Record, seed: int) -> tuple[str, str]:
    """Equal for equal questions, hidden ones too, so that a repeated question never stands on both sides."""
    text = normalize(keychain.question_of(row))
    return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest(), text


def split(source: Path, folder: Path, *, seed: int, dev: float = 0.05) -> dict[str, Any]:
    """Write both files in the source's order; returns counts by outcome. IcrError when nothing is left."""
    keys = sorted({_key(row, seed) for row in read(source, ["question", "gold_docs"])})
    held_out = {text for _, text in keys[: round(len(keys) * dev)]}
    counts: Counter[str] = Counter()
    seen: set[str] = set()

    def part(is_dev: bool) -> Iterator[Record]:
        for row in read(source):
            if (_key(row, seed)[1] in held_out) != is_dev:
                continue
            why = "duplicate id" if row["id"] in seen else problem(row)
            seen.add(row["id"])
            if why:
                counts[f"dropped: {why}"] += 1
            else:
                yield row

    for name, is_dev in zip(OUTPUTS, (False, True), strict=True):
        counts[name.removesuffix(".parquet")] = write(folder / name, part(is_dev), ROW, batch=64)
    if not counts["train"]:
        raise IcrError(f"no row can be trained on: {dict(counts)}")
    return dict(counts)


def split_rows(cfg: Config, folder: Path) -> dict[str, Any]:
    """Split packed.parquet."""
    return split(folder / OUTPUT, folder, seed=cfg.seed, dev=cfg.dev)


OUTPUT = "packed.parquet"
_CHUNK = 64


class Words:
    """Tokenizer stand-in for dry runs (`--tokenizer words`): four tokens for three words."""

    name = "words"

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Estimated tokens of each text."""
        return [-(-4 * len(t.split()) // 3) for t in texts]


def tokens_of(name: str) -> TokenCounter | Words:
    """The counter of that name; `words` needs no files."""
    try:
        found = Words() if name == "words" else counter({"tokenizer": name})
    except (IcrError, OSError) as error:
        raise IcrError(
            f"the tokenizer {name!r} cannot be loaded ({str(error).splitlines()[0][:160]}); give "
            "--tokenizer FOLDER of a "
            "downloaded model, or --tokenizer words for an estimate"
        ) from error
    if found is None:
        raise IcrError("packing needs a tokenizer: --tokenizer NAME_OR_FOLDER, or words for an estimate")
    return found


def rendered(tokens: TokenCounter | Words, row: Record, name: str) -> str:
    """The whole prompt of a format, through the chat template where the tokenizer has one."""
    asked = messages(row, name)
    tokenizer = getattr(tokens, "tokenizer", None)
    if tokenizer is not None and getattr(tokenizer, "chat_template", None):
        return tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return "\n\n".join(m["content"] for m in asked)


class Packer:
    """Fits rows into the budget; `longest` is the format whose instruction takes most tokens."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.tokens = cfg, tokens_of(cfg.tokenizer)
        empty = {"passages": [], "question": ""}
        sizes = self.tokens.counts([rendered(self.tokens, empty, name) for name in FORMATS])
        self.longest = FORMATS[sizes.index(max(sizes))]
        self.unit = prompt(self.longest)

    def size(self, row: Record) -> int:
        """Tokens of the row's longest prompt."""
        return self.tokens.counts([rendered(self.tokens, row, self.longest)])[0]

    def order(self, row_id: str, texts: list[str], gold: set[int]) -> Record:
        """Columns passages, gold_ids, gold_docs: all texts in an order that only the seed and the id
        decide."""
        turn = list(range(len(texts)))
        random.Random(f"{self.cfg.seed}/{row_id}").shuffle(turn)
        ids = [place for place, i in enumerate(turn) if i in gold]
        placed = {i: place for place, i in enumerate(turn)}
        return {
            "passages": [texts[i] for i in turn],
            "gold_ids": ids,
            "gold_docs": [texts[turn[i]] for i in ids],
            "placed": placed,
        }

    def pack(self, row: Record, verdict: Record) -> tuple[Record | None, str]:
        """(row, "kept"), or (None, why not)."""
        out = set(verdict["removed"]) | set(verdict["gold"])
        extra = [row["negatives"][i] for i in verdict["gold"]]
        gold = [*row["gold_texts"], *extra]
        ranked = [text for i, text in enumerate(row["negatives"]) if i not in out]
        originals = range(len(row["gold_texts"]))
        base = {name: row[name] for name in ("id", "dataset", "question", "answers")} | {
            "domain": row.get("domain") or "wikipedia"
        }
        n = len(ranked) if self.cfg.keep == "filter" else self._room(row, gold, ranked)
        while True:
            made = self.order(row["id"], [*gold, *ranked[:n]], set(range(len(gold))))
            placed = made.pop("placed")
            full = base | made | {"n_dropped": len(ranked) - n}
            full["original_ids"] = sorted(placed[i] for i in originals)
            full["n_tokens"] = self.size(full)
            if full["n_tokens"] <= self.cfg.tokens:
                break
            if self.cfg.keep == "filter":
                return None, "dropped: over the budget"
            if n <= 0:
                return None, "dropped: gold does not fit"
            n = max(
                0, n - max(1, (full["n_tokens"] - self.cfg.tokens) // 400)
            )  # the sum of parts was a little too low
        if full["n_tokens"] < self.cfg.min_tokens:
            return None, "dropped: under the minimum"
        return full, "kept"

    def _room(self, row: Record, gold: list[str], ranked: list[str]) -> int:
        """How many ranked passages fit beside the instruction, the question and the gold, by the sum of their
        parts."""
        widest = len(gold) + len(ranked)
        left = self.cfg.tokens - self.size(row | {"passages": []}) - sum(self._parts(gold, widest))
        for start in range(0, len(ranked), _CHUNK):
            for n, size in enumerate(self._parts(ranked[start : start + _CHUNK], widest)):
                left -= size
                if left < 0:
                    return start + n
        return len(ranked)

    def _parts(self, texts: list[str], number: int) -> list[int]:
        """Tokens of passages as they are rendered, under a document number at least as long as any that
        occurs."""
        unit = self.unit.unit.replace("{i}", str(number))
        return self.tokens.counts([unit.replace("{text}", t) + self.unit.joiner for t in texts])


def run(cfg: Config, folder: Path) -> dict[str, Any]:
    """Write packed.parquet."""
    packer, counts = Packer(cfg), Counter[str]()
    asked = [row["question"] for row in read(folder / dedupe.OUTPUT, ["question"])] if cfg.keychain else []

    def rows() -> Iterator[Record]:
        for row, verdict in zip(
            read(folder / dedupe.OUTPUT, batch=64), read(folder / judge.OUTPUT), strict=True
        ):
            if cfg.keychain:
                row, verdict = keychain.hidden(row, verdict, asked, cfg.keychain, cfg.seed)
            made, outcome = packer.pack(row, verdict)
            counts[outcome] += 1
            if made is not None:
                counts["gold before"] += len(made["original_ids"])
                counts["gold after"] += len(made["gold_ids"])
                yield made

    total = count(folder / dedupe.OUTPUT)
    counts["rows"] = write(folder / OUTPUT, rows(), ROW, batch=64, about="pack", total=total)
    if not counts["rows"]:
        raise IcrError(f"no row is left after packing: {dict(counts)}; raise tokens, or use keep=pack")
    return dict(counts)
