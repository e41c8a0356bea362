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
from ..errors import IcrError
from ..metrics import scorers
from . import flat, lines
from .base import Item, ItemSet, Prompt, Unit
from .declare import Group, benchmark, grid
from .fetch import Remote
from .synth.names import rng

LENGTHS = {"250": 250, "500": 500, **{f"{n}k": n << 10 for n in (1, 2, 4, 8, 16, 32)}}
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_NEEDLES, _BOOKS = "needle_set.json", tuple(f"rand_book_{n}.txt" for n in range(1, 6))
REVISION = "378115b1f136b6ba78f90f78682bc55f70ec3ddd"
SHA256 = {
    _NEEDLES: "b197f5633668be11aa5855144716b3009d6246c5fb05a508c37db0d08303aa99",
    _BOOKS[0]: "1f7bdc697141b888565c851e6c34dbd649aaf580280eae92199561c4f0e93dab",
    _BOOKS[1]: "e77a1c8c52b31b0cb02b4b78af2e4f662ef7baaf0cfca52d84b33c710e353357",
    _BOOKS[2]: "3a45fdf98871e0a0e4924037661646b6ec20ecea490e2195fbd7103582782010",
    _BOOKS[3]: "9cf0ee84b8969c7a6a3b607d241af6b4f4dd4d6ab13ae8464d8cd4787ad5f618",
    _BOOKS[4]: "0424d75836f692d04c07c14dad362828e89ff69c802c7021774a32ec289a62b9",
}
_CHARS = 4.3  # a token, of nominal lengths: no tokenizer is asked
_FIELDS: lines.Fields = {"id": str, "needle": str, "questions": dict, "character_set": list, "tests": dict}


def load(
    dataset: str = "all", length: str | None = None, *, allow_partial: object = None, **_: Any
) -> ItemSet:
    """Every needle with each of its tests and questions, at five depths in turn. Raises IcrError."""
    found = flat.load(f"nolima/{_NEEDLES}", "nolima --accept-license", _FIELDS, _keep, "nolima-1")
    books = [storage.data_root() / "nolima" / name for name in _BOOKS]
    at_hand = [storage.require(book, "nolima --accept-license") for book in books if book.is_file()]
    if not at_hand:
        storage.require(books[0], "nolima --accept-license")
    items: list[Item] = []
    for row in found.rows:
        for test, spec in row.kept["tests"].items():
            for hop in row.kept["questions"]:
                items.append(_item(row.kept, test, spec["input_args"], hop, len(items), at_hand, str(length)))
    whole = len(at_hand) == len(_BOOKS)
    if not whole and not storage.allow_partial(allow_partial):
        raise storage.short(books[0].parent, "books", len(at_hand), len(_BOOKS))
    notes = flat.other([found], SHA256.values(), REVISION)
    return ItemSet(items, len(items), _NEEDLES, f"sha256:{found.sha256[:16]}", whole and not notes, notes)


def _keep(record: dict[str, Any]) -> dict[str, Any]:
    if "{CHAR}" not in record["needle"]:
        raise ValueError("the needle has no {CHAR}")
    if not record["character_set"] or not record["tests"] or not record["questions"]:
        raise ValueError("a needle without names, tests or questions")
    for name, test in record["tests"].items():
        if not isinstance(test, dict) or not isinstance(test.get("input_args"), list):
            raise ValueError(f"test {name!r} has no input_args")
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
    try:
        needle, question = _filled(kept["needle"], args, who), _filled(kept["questions"][hop], args, who)
    except IndexError as error:
        raise IcrError(
            f"NoLiMa needle {kept['id']}, test {test}: a template asks for more than it has"
        ) from error
    units = partial(_units, book, needle, LENGTHS[length], depth, r.random())
    name = f"{kept['id']}-{test}-{hop}"
    return Item(
        name,
        question,
        (who,),
        f"{kept['id']}-{test}",
        units,
        keys={"length": length, "depth": depth, "hop": hop},
    )


def _units(book: Path, needle: str, tokens: int, depth: float, start: float) -> list[Unit]:
    """A stretch of the book, whole sentences, with the needle at `depth`; the needle is a unit of its own."""
    text = book.read_text(encoding="utf-8")
    size = int(tokens * _CHARS) - len(needle)
    if len(text) < size:
        raise IcrError(
            f"{book}: {len(text)} characters are too few for {tokens} tokens; fetch the file again"
        )
    at = int(start * (len(text) - size))
    sentences = re.split(r"(?<=[.!?])\s+", text[at : at + size])
    place = round(depth * len(sentences))
    parts = [(" ".join(sentences[:place]), False), (needle, True), (" ".join(sentences[place:]), False)]
    return [Unit(f"n-{n}", part, gold=gold) for n, (part, gold) in enumerate(parts) if part]


@scorers.metric("nolima", reads="text")
def contains(text: str, item: Item) -> float:
    """Whether the name stands in the response."""
    return float(item.answers[0] in text)


@scorers.metric("nolima_last", reads="text")
def in_last_line(text: str, item: Item) -> float:
    """Whether the name stands in the response's last line."""
    rows = text.strip().splitlines()
    return float(bool(rows) and item.answers[0] in rows[-1])


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
    source="amodaresi/NoLiMa",
    revision=REVISION,
    license="Adobe Research License (non-commercial research)",
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
    groups = [Group("icr_nolima", "NoLiMa", [f"icr_nolima_{n}" for n in LENGTHS], "nolima")]
    load = staticmethod(load)

    @staticmethod
    def files(dataset: str, length: str | None) -> list[Remote]:
        """Needles and books."""
        base = f"datasets/amodaresi/NoLiMa/resolve/{REVISION}"
        places = {_NEEDLES: "needlesets", **dict.fromkeys(_BOOKS, "haystack/rand_shuffle")}
        return [Remote(f"nolima/{n}", f"{base}/{place}/{n}", sha256=SHA256[n]) for n, place in places.items()]
