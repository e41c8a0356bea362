"""How much of a text an embedder reads, counted with its own tokenizer, and texts cut so that nothing is left
unread.

The limit stands in a model's files under several names (`max_seq_length`, which sentence-transformers wrote
until version 5, the tokenizer's `model_max_length`, the positions of config.json); the smallest binds. A
server says its own.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from ... import hub, listing
from ...errors import IcrError

log = logging.getLogger("icr_tasks")
ASSUMED = 512  # tokens, of a served embedder that does not say its limit: what most small ones read
_BYTES_PER_TOKEN = (
    3  # where no tokenizer is at hand; English text has four and more, Chinese about one character
)
_UNLIMITED = 1_000_000  # tokenizers say 1e30 where nothing limits them
_OFFSET_TYPES = (
    "roberta",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
)  # positions start after the padding

Count = Callable[[list[str]], list[int]]


@dataclass(frozen=True)
class Reading:
    """`tokens` an embedder reads of one text, special tokens included (None: no limit); `count` counts them
    as it does.

    `source` says where the number stands, `exact` whether its own tokenizer counts.
    """

    tokens: int | None
    source: str
    count: Count
    exact: bool

    def describe(self) -> dict[str, Any]:
        """As recorded in digests."""
        return {
            "reads": self.tokens,
            "reads_by": self.source,
            "counted": "tokenizer" if self.exact else "bytes",
        }

    def overlong(self, texts: Sequence[str]) -> dict[int, int]:
        """Number of each text that is longer than what is read -> its tokens."""
        if self.tokens is None:
            return {}
        # A token stands for a byte or more (a quarter where characters are taken apart): short texts need no
        # count.
        suspects = [i for i, t in enumerate(texts) if 4 * len(t.encode("utf-8", "replace")) > self.tokens - 8]
        sizes = self.count([texts[i] for i in suspects]) if suspects else []
        return {i: size for i, size in zip(suspects, sizes, strict=True) if size > self.tokens}

    def split(self, texts: Sequence[str], prefix: str = "") -> list[list[str]]:
        """Each text as consecutive pieces that are read whole behind `prefix`; joined they are the text.

        Raises IcrError when the prefix alone fills what is read.
        """
        bare = self.count([prefix])[0]
        if self.tokens is not None and bare >= self.tokens:
            raise IcrError(
                f"the embedder reads {self.tokens} tokens and its instruction has {bare}; use instruction=off"
            )
        pieces = [(owner, text, False) for owner, text in enumerate(texts)]  # False: not measured yet
        while new := [n for n, (_, _, measured) in enumerate(pieces) if not measured]:
            sizes = self.overlong([prefix + pieces[n][1] for n in new])
            long = {new[n]: size for n, size in sizes.items()}
            next_round = []
            for n, (owner, text, _) in enumerate(pieces):
                if n in long and len(text) > 1:
                    parts = math.ceil((long[n] - bare) / ((self.tokens or 1) - bare))
                    next_round += [(owner, part, False) for part in _cut(text, parts)]
                else:
                    next_round.append((owner, text, True))
            pieces = next_round
        out: list[list[str]] = [[] for _ in texts]
        for owner, text, _ in pieces:
            out[owner].append(text)
        return out

    def head(self, text: str, prefix: str = "") -> str:
        """The beginning of `text` that is read behind `prefix`."""
        return self.split([text], prefix)[0][0]


def _cut(text: str, parts: int) -> list[str]:
    """About `parts` pieces of equal length, at least two, ended at a space where one is near."""
    size = max(len(text) // max(parts, 2), 1) + (len(text) > 2)
    out, start = [], 0
    while len(text) - start > size:
        stop = text.rfind(" ", start + max(size // 2, 1), start + size + 1)
        stop = start + size if stop < 0 else stop
        out.append(text[start:stop])
        start = stop
    return [*out, text[start:]]


def of_folder(folder: Path) -> Reading:
    """What the model in a folder reads: sentence-transformers of any version, or plain transformers."""
    limit, source = _limit(folder)
    count = _tokenizer(str(folder), _stamp(folder)) if _has_tokenizer(folder) else None
    return Reading(limit, source, count or by_bytes, count is not None)


def of_server(ask: Callable[[str], Any], model: str, tokenizer: str | None, limit: int | None) -> Reading:
    """What a served model reads: `limit` as given, else as the server says (vLLM: /v1/models, TEI: /info).

    `ask(path)` gets a JSON answer or None. Counted with the tokenizer of that folder or hub id, where one is
    given.
    """
    count = _tokenizer(tokenizer, 0) if tokenizer else None
    made = (count or by_bytes, count is not None)
    if limit:
        return Reading(limit, "embed_limit", *made)
    told = listing.of(ask("models"), model)
    if told.window is not None:
        return Reading(told.window, "server /models", *made)
    found = (ask("../info") or {}).get("max_input_length")
    if isinstance(found, int) and found > 0:
        return Reading(found, "server /info", *made)
    log.warning(
        "the embedding server does not say how many tokens %s reads; texts are cut to %d. Tell it with "
        '"embed_limit":N',
        model,
        ASSUMED,
    )
    return Reading(ASSUMED, "assumed", *made)


def by_bytes(texts: list[str]) -> list[int]:
    """Tokens where no tokenizer is at hand: a third of the bytes, and two special ones."""
    return [math.ceil(len(t.encode("utf-8", "replace")) / _BYTES_PER_TOKEN) for t in texts]


def _limit(folder: Path) -> tuple[int | None, str]:
    """(the smallest limit that the files name, where it stands)."""
    modules = read_json(folder / "modules.json")
    first = modules[0].get("path", "") if isinstance(modules, list) and modules else ""
    found: list[tuple[int, str]] = []
    for place in dict.fromkeys((folder, folder / str(first))):
        config = read_json(place / "config.json")
        config = {**config, **(config.get("text_config") or {})} if isinstance(config, dict) else {}
        positions = next(
            (config[k] for k in ("max_position_embeddings", "n_positions") if isinstance(config.get(k), int)),
            None,
        )
        if positions and any(t in str(config.get("model_type")) for t in _OFFSET_TYPES):
            positions -= int(config.get("pad_token_id") or 0) + 1
        said = (
            (read_json(place / "sentence_bert_config.json").get("max_seq_length"), "max_seq_length"),
            (read_json(place / "tokenizer_config.json").get("model_max_length"), "tokenizer"),
            (positions, "config"),
        )
        for value, name in said:
            if isinstance(value, int | float) and 0 < value < _UNLIMITED:
                found.append((int(value), name))
    return min(found) if found else (None, "no limit found")


def read_json(path: Path) -> Any:
    """A JSON file, {} when absent. Raises IcrError when it cannot be read."""
    try:
        return orjson.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise IcrError(f"{path} cannot be read ({error}); get the embedder again") from error


def _has_tokenizer(folder: Path) -> bool:
    names = (
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer.model",
    )
    return any((folder / name).is_file() for name in names)


def _stamp(folder: Path) -> int:
    return max((p.stat().st_mtime_ns for p in folder.glob("tokenizer*.json")), default=0)


@lru_cache(maxsize=8)
def _tokenizer(place: str, stamp: int) -> Count:
    """Counts as the model's own tokenizer does, special tokens included. `stamp` notices new files."""
    path = Path(place).expanduser() / "tokenizer.json"
    if path.is_file():
        from tokenizers import Tokenizer

        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["truncation"] = raw["padding"] = None  # old files cut at 128 tokens and fill up to that
        fast = Tokenizer.from_str(json.dumps(raw))
        return lambda texts: [len(e.ids) for e in fast.encode_batch_fast(texts)]
    here = hub.local(place, "the embedder's tokenizer")
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(place, local_files_only=here)
    except Exception as error:  # transformers and the hub raise many types; all mean that it does not load
        raise IcrError(f"the embedder's tokenizer {place!r} cannot be loaded: {error}") from error
    return lambda texts: [len(ids) for ids in slow(texts, verbose=False)["input_ids"]]
