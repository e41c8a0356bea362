"""NoLiMa (amodaresi/NoLiMa): a needle that shares no word with its question, in shuffled books.

The data may be used for research only (Adobe Research License): the user fetches them and accepts that with
`icr data fetch nolima --accept-license`. Nothing of them is shipped.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from .. import storage
from ..metrics import scorers
from . import lines, nominal
from .base import Item, ItemSet, Prompt
from .declare import benchmark, grid, whole
from .pinned import Pinned
from .synth.names import rng

LENGTHS = {"250": 250, "500": 500, **{f"{n}k": n << 10 for n in (1, 2, 4, 8, 16, 32)}}
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_BOOKS = tuple(f"rand_book_{n}.txt" for n in range(1, 6))
DATA = Pinned(
    "amodaresi/NoLiMa",
    "378115b1f136b6ba78f90f78682bc55f70ec3ddd",
    "Adobe Research License (non-commercial research)",
    {
        "needlesets/needle_set.json": "b197f5633668be11aa5855144716b3009d6246c5fb05a508c37db0d08303aa99",
        "haystack/rand_shuffle/rand_book_1.txt": "1f7bdc697141b888565c851e6c34dbd649aaf580280eae92199561c4f0e93dab",
        "haystack/rand_shuffle/rand_book_2.txt": "e77a1c8c52b31b0cb02b4b78af2e4f662ef7baaf0cfca52d84b33c710e353357",
        "haystack/rand_shuffle/rand_book_3.txt": "3a45fdf98871e0a0e4924037661646b6ec20ecea490e2195fbd7103582782010",
        "haystack/rand_shuffle/rand_book_4.txt": "9cf0ee84b8969c7a6a3b607d241af6b4f4dd4d6ab13ae8464d8cd4787ad5f618",
        "haystack/rand_shuffle/rand_book_5.txt": "0424d75836f692d04c07c14dad362828e89ff69c802c7021774a32ec289a62b9",
    },
    "nolima",
    options="--accept-license",
)
_CHARS = 4.3  # a token, of nominal lengths: no tokenizer is asked
_FIELDS: lines.Fields = {"id": str, "needle": str, "questions": dict, "character_set": list, "tests": dict}


def load(
    dataset: str = "all", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Every needle with each of its tests and questions, at five depths in turn. Raises IcrError."""
    found = DATA.records("needle_set.json", _FIELDS, _keep)
    books = [storage.data_root() / DATA.folder / name for name in _BOOKS]
    at_hand = [book for book in books if book.is_file()]
    at_hand = at_hand or [storage.require(books[0], "nolima --accept-license")]
    tests = [
        (row.kept, name, test["input_args"], hop)
        for row in found.rows
        for name, test in row.kept["tests"].items()
        for hop in row.kept["questions"]
    ]
    items = [_item(*test, n, at_hand, str(length)) for n, test in enumerate(tests)]
    return DATA.items(items, [found], len(_BOOKS), allow_partial, count=len(at_hand), what="books")


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    if "{CHAR}" not in record["needle"]:
        raise ValueError("the needle has no {CHAR}")
    if not record["character_set"] or not record["tests"] or not record["questions"]:
        raise ValueError("a needle without names, tests or questions")
    templates = " ".join([record["needle"], *record["questions"].values()])
    most = max(map(int, re.findall(r"\{(\d+)\}", templates)), default=0)
    for name, test in record["tests"].items():
        args = test.get("input_args") if isinstance(test, dict) else None
        if not isinstance(args, list):
            raise ValueError(f"test {name!r} has no input_args")
        if len(args) < most:
            raise ValueError(f"test {name!r}: a template asks for more than its {len(args)} arguments")
    return {k: record[k] for k in _FIELDS}


def _filled(template: str, args: list[Any], who: str) -> str:
    """{CHAR} and {1}, {2} ... by what they stand for."""
    text = re.sub(r"\{(\d+)\}", lambda m: str(args[int(m[1]) - 1]), template)
    return text.replace("{CHAR}", who)


def _item(
    kept: dict[str, Any], test: str, args: list[Any], hop: str, number: int, books: list[Path], length: str
) -> Item:
    r = rng("nolima", kept["id"], test, hop)
    who, book, depth = r.choice(kept["character_set"]), r.choice(books), DEPTHS[number % len(DEPTHS)]
    needle, question = (_filled(text, args, who) for text in (kept["needle"], kept["questions"][hop]))
    units = partial(nominal.planted, book, needle, int(LENGTHS[length] * _CHARS), depth, r.random())
    case, keys = f"{kept['id']}-{test}", {"length": length, "depth": depth, "hop": hop}
    return Item(f"{case}-{hop}", question, (who,), case, units, keys=keys)


@benchmark(
    "nolima",
    title="NoLiMa",
    units="documents",
    marks_gold=True,
    chance=None,
    metrics=("nolima", "nolima_last", *scorers.COST),
    prompts={
        "snippet": Prompt(
            "snippet",
            user="Here is a part of a book:\n\n{context}\n\nAnswer from what the text says or plainly implies, with the "
            "answer alone.\n\nQuestion: {question}",
            no_context="Answer with the answer alone.\n\nQuestion: {question}",
            unit="{text}",
            joiner=" ",
            ordered=True,
            max_gen_toks=192,
            source="ours; a needle set brings its own wording",
        )
    },
    **DATA.facts,
    accept="its licence (Adobe Research License, https://github.com/adobe-research/NoLiMa/blob/main/LICENSE) allows "
    "non-commercial research only.",
    overflow="skip",
    metric_definition="the right name stands in the response (0 or 1)",
    cluster="test",
    breakdown=["hop", "depth"],
)
class NoLiMa:
    """One needle set in five shuffled books, at eight lengths."""

    tasks = grid(length=LENGTHS)
    groups = [whole("icr_nolima", "NoLiMa", tasks, "nolima")]
    load = staticmethod(load)
    files = DATA.all  # needles and books
