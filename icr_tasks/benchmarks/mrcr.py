"""MRCR (openai/mrcr): a long conversation asks for several alike texts; the model repeats the i-th of one kind.

The context is the conversation itself, sent as chat turns and never cut. Bins are o200k_base tokens of all
messages, whatever model reads them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..metrics import scorers
from . import conversation as talk
from . import flat
from . import official_tokens as official
from .base import Item, ItemSet, Prompt, Unit, digest
from .declare import Group, benchmark, grid
from .pinned import Pinned

ENCODING = "o200k_base"
EDGES = tuple(4096 << n for n in range(9))
BINS = official.bins(EDGES)
N_BIN = 100  # rows of one needle count in one bin: 2,400 in 3 x 8
NEEDLES = ("2needle", "4needle", "8needle")
DATA = Pinned(
    "openai/mrcr",
    "f4c69fae7cf81f7ca26b9fee34b392a50f6b8a1d",  # after the correction of 2025-12-05
    "MIT",
    {
        "2needle/2needle_0.parquet": "1c297b254bf64a31856b74918cd7db889a214503e0b67daa834e84f20df6aa93",
        "2needle/2needle_1.parquet": "a5a1dc9ccc945623253d04d33c03d89aee2d676c88955ce368da2ab16a0ce94d",
        "4needle/4needle_0.parquet": "4d4fa3d11ce064749de3cd039eef1a621e30a81c2c9b3e64f1df37f8afeaf312",
        "4needle/4needle_1.parquet": "8dfdb94a208cf3eee73c4e7ac6ee8a5ccb7236c6934c13c6c5f67c0a9928cdf3",
        "8needle/8needle_0.parquet": "65df601a2e0ae4a3cfb56920a6ef99f26c0de37c6b1018695e8aed684e6a94c1",
        "8needle/8needle_1.parquet": "c80b19573bff1d38e1c157d6a0bdf9cfd1a8ab6372296174c9a7015e164189e3",
    },
    "mrcr",
    about=1_380_000_000,
)
_FIELDS = {"prompt": str, "answer": str, "random_string_to_prepend": str, "n_needles": int, "n_chars": int}


def load(
    dataset: str = "2needle", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Rows of a needle count whose messages have the bin's tokens. Raises IcrError for broken records."""
    found = [DATA.records(path, _FIELDS, _keep) for path in _paths(dataset)]
    items = [
        _item(file, row, f"{dataset}-{part}-{row.line}", str(length), n)
        for part, file in enumerate(found)
        for row, n in official.binned(file, ENCODING, _contents, "n_chars", BINS[str(length)], EDGES[-1])
    ]
    what = f"{dataset} rows of {length}"
    return DATA.items(items, found, N_BIN, allow_partial, what=what, name=f"{dataset}_*.parquet")


def _paths(dataset: str) -> list[str]:
    return [path for path in DATA.sha256 if path.startswith(f"{dataset}/")]


def _contents(record: dict[str, Any]) -> list[str]:
    return [m["content"] for m in talk.asked(record["prompt"], "prompt")]


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    *before, question = _contents(record)
    prefix = record["random_string_to_prepend"]
    if not prefix or not record["answer"].startswith(prefix):
        raise ValueError("the answer does not start with random_string_to_prepend")
    kept = {k: record[k] for k in _FIELDS if k != "prompt"}
    return {**kept, "question": question, "talk": digest("\0".join(before))}


def _item(found: flat.Records, row: Any, name: str, length: str, n_tokens: int) -> Item:
    kept = row.kept
    opening, _ = talk.exchanges(talk.asked(found.read(row)["prompt"], "prompt")[:-1])
    keys = {"length": length, "needles": kept["n_needles"], "official_tokens": n_tokens}
    fields = {"opening": opening, "prefix": kept["random_string_to_prepend"]}
    units = partial(_units, found, row)
    return Item(name, kept["question"], (kept["answer"],), kept["talk"], units, keys=keys, fields=fields)


def _units(found: flat.Records, row: Any) -> list[Unit]:
    record = found.read(row)
    _, pairs = talk.exchanges(talk.asked(record["prompt"], "prompt")[:-1])
    wanted = record["answer"].removeprefix(record["random_string_to_prepend"])
    asked = {pair[0][1] for pair in pairs if pair[-1][1] == wanted}  # which one it is needs all of its kind
    return [talk.unit(n, pair, pair[0][1] in asked) for n, pair in enumerate(pairs)]


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
    **DATA.facts,
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
    files = staticmethod(lambda dataset, length: DATA.remotes(*_paths(dataset)))  # which hold all lengths
