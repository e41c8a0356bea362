"""MRCR (openai/mrcr): a long conversation asks for several alike texts; the model repeats the i-th of one kind.

The context is the conversation itself, sent as chat turns and never cut. Bins are o200k_base tokens of all
messages, whatever model reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import orjson

from .. import storage
from ..metrics import scorers
from . import flat
from . import official_tokens as official
from .base import Item, ItemSet, Prompt, Unit
from .declare import Group, benchmark, grid
from .fetch import Remote

ENCODING = "o200k_base"
EDGES = tuple(4096 << n for n in range(9))
BINS = official.bins(EDGES)
N_BIN = 100  # rows of one needle count in one bin: 2,400 in 3 x 8
NEEDLES = ("2needle", "4needle", "8needle")
_PARTS = (0, 1)  # files of each needle count
REVISION = "f4c69fae7cf81f7ca26b9fee34b392a50f6b8a1d"  # after the correction of 2025-12-05
SHA256 = {
    "2needle_0.parquet": "1c297b254bf64a31856b74918cd7db889a214503e0b67daa834e84f20df6aa93",
    "2needle_1.parquet": "a5a1dc9ccc945623253d04d33c03d89aee2d676c88955ce368da2ab16a0ce94d",
    "4needle_0.parquet": "4d4fa3d11ce064749de3cd039eef1a621e30a81c2c9b3e64f1df37f8afeaf312",
    "4needle_1.parquet": "8dfdb94a208cf3eee73c4e7ac6ee8a5ccb7236c6934c13c6c5f67c0a9928cdf3",
    "8needle_0.parquet": "65df601a2e0ae4a3cfb56920a6ef99f26c0de37c6b1018695e8aed684e6a94c1",
    "8needle_1.parquet": "c80b19573bff1d38e1c157d6a0bdf9cfd1a8ab6372296174c9a7015e164189e3",
}
_FIELDS = {"prompt": str, "answer": str, "random_string_to_prepend": str, "n_needles": int, "n_chars": int}


def load(
    dataset: str = "2needle", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Rows of a needle count whose messages have the bin's tokens. Raises IcrError for broken records."""
    low, high = BINS[str(length)]
    items, files = [], []
    for part in _PARTS:
        found = flat.load(f"mrcr/{dataset}_{part}.parquet", "mrcr", _FIELDS, _keep, "mrcr-1")
        files.append(found)
        rows = {row.line: row for row in found.rows}

        def contents(line: int, found: flat.Records = found, rows: Any = rows) -> list[str]:
            return [m["content"] for m in _messages(found.read(rows[line])["prompt"])]

        sizes = {line: row.kept["n_chars"] for line, row in rows.items()}
        tokens = official.counted(found.sha256[:24], ENCODING, sizes, contents, low, high)
        items += [
            _item(found, rows[line], f"{dataset}-{part}-{line}", str(length), n)
            for line, n in tokens.items()
            if official.inside(n, low, high, EDGES)
        ]
    whole = len(items) == N_BIN
    if not whole and not storage.allow_partial(allow_partial):
        raise storage.short(found.source.parent, f"{dataset} rows of {length}", len(items), N_BIN)
    notes = flat.other(files, SHA256.values(), REVISION)
    sums = "+".join(f.sha256[:16] for f in files)
    return ItemSet(items, N_BIN, f"{dataset}_*.parquet", f"sha256:{sums}", whole and not notes, notes)


def _messages(text: str) -> list[dict[str, str]]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"field 'prompt' is not a JSON list of messages ({error})") from error
    if not isinstance(found, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in found
    ):
        raise ValueError("field 'prompt' is not a list of messages with role and content")
    if not found or found[-1]["role"] != "user":
        raise ValueError("the conversation does not end with the user's question")
    return found


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    messages, prefix = _messages(record["prompt"]), record["random_string_to_prepend"]
    if not prefix or not record["answer"].startswith(prefix):
        raise ValueError("the answer does not start with random_string_to_prepend")
    talk = hashlib.sha256("\0".join(m["content"] for m in messages[:-1]).encode()).hexdigest()[:16]
    kept = {k: record[k] for k in _FIELDS if k != "prompt"}
    return {**kept, "question": messages[-1]["content"], "talk": talk}


def _item(found: flat.Records, row: Any, name: str, length: str, n_tokens: int) -> Item:
    kept = row.kept
    opening, _ = _split(_messages(found.read(row)["prompt"])[:-1])
    keys = {"length": length, "needles": kept["n_needles"], "official_tokens": n_tokens}
    fields = {"opening": opening, "prefix": kept["random_string_to_prepend"]}
    units = partial(_units, found, row)
    return Item(name, kept["question"], (kept["answer"],), kept["talk"], units, keys=keys, fields=fields)


def _split(messages: Sequence[dict[str, str]]) -> tuple[list[list[str]], list[list[tuple[str, str]]]]:
    """(what precedes the conversation, its exchanges: a request and the text that was written for it)."""
    pairs: list[list[tuple[str, str]]] = []
    opening: list[list[str]] = []
    for message in messages:
        turn = (message["role"], message["content"])
        if turn[0] != "user" and pairs and len(pairs[-1]) == 1:
            pairs[-1].append(turn)
        else:
            pairs.append([turn])
    while pairs and len(pairs[0]) == 1 and pairs[0][0][0] != "assistant":
        opening.append(list(pairs.pop(0)[0]))
    return opening, pairs


def _units(found: flat.Records, row: Any) -> list[Unit]:
    record = found.read(row)
    _, pairs = _split(_messages(record["prompt"])[:-1])
    wanted = record["answer"].removeprefix(record["random_string_to_prepend"])
    asked = {pair[0][1] for pair in pairs if pair[-1][1] == wanted}  # which one it is needs all of its kind
    return [
        Unit(
            f"turn-{n}",
            "\n".join(f"{role}: {content}" for role, content in pair),
            gold=pair[0][1] in asked,
            turns=tuple(pair),
        )
        for n, pair in enumerate(pairs)
    ]


@scorers.metric("mrcr", reads="text")
def ratio(text: str, item: Item) -> float:
    """0 unless the response starts with the random string, else difflib's ratio of what follows (the card's
    function). Blanks before it, which engines and chat templates add, are not the model's."""
    prefix, response = item.fields["prefix"], text.lstrip()
    if not response.startswith(prefix):
        return 0.0
    return SequenceMatcher(None, response.removeprefix(prefix), item.answers[0].removeprefix(prefix)).ratio()


@scorers.metric("mrcr_prefix", reads="text")
def prefixed(text: str, item: Item) -> float:
    """Whether the response starts with the random string, as it was told to."""
    return float(text.lstrip().startswith(item.fields["prefix"]))


@benchmark(
    "mrcr",
    title="MRCR",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=("mrcr", "mrcr_prefix", *scorers.COST),
    prompts={
        "official": Prompt(
            "official",
            user="{question}",
            no_context="{question}",
            unit="{text}",
            turns=True,
            max_gen_toks=4096,
            source="openai/mrcr card",
        )
    },
    source="openai/mrcr",
    revision=REVISION,
    license="MIT",
    n=N_BIN,
    overflow="skip",
    metric_definition="0 unless the response starts with the random string, else SequenceMatcher ratio (0 to 1)",
    cluster="conversation",
    breakdown=["needles"],
)
class Mrcr:
    """Three needle counts in eight bins."""

    tasks = grid(dataset=NEEDLES, length=BINS)
    groups = [
        *(
            Group(f"icr_mrcr_{d}", f"MRCR, {d[0]} needles", [f"icr_mrcr_{d}_{n}" for n in BINS], "mrcr")
            for d in NEEDLES
        ),
        Group("icr_mrcr", "MRCR", [f"icr_mrcr_{d}" for d in NEEDLES], "mrcr"),
    ]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """The parquet files of a needle count hold all lengths."""
        base = f"datasets/openai/mrcr/resolve/{REVISION}"
        names = [f"{dataset}_{part}.parquet" for part in _PARTS]
        return [Remote(f"mrcr/{n}", f"{base}/{dataset}/{n}", sha256=SHA256[n]) for n in names]
