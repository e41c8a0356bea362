"""Tokens of long texts word by word: a word that was seen before costs one look-up, whatever the text.

Most tokenizers first split a text into words and never merge across them, so a text's tokens are those of its
words in a row. That holds where a word's split depends on nothing before it, and ends where it does not depend
on what follows: before a space after something visible, and before any white space after an ASCII letter or
digit (GPT-2, Llama 3, Qwen, o200k, DeepSeek, BERT: none of their patterns has a space after a visible
character, or any white space after a letter or digit). Tokenizers that are built of other parts, or that fail
the probe below, are not taken: SentencePiece models that see a text as one word, dropout, added prefix spaces.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from ..storage import Lru

# A word with the white space before it; a line break after punctuation belongs to it (".\n\n" is one token), and
# so do control characters, which Python takes for white space and BERT removes.
_WORD = re.compile(r"\s*\S+(?:(?:(?<=[^\s0-9A-Za-z])[^\S ]|[\x0b\x0c\x1c-\x1f\x85])\s*\S*)*|\s+")
_LONGEST, _MOST = 200, 200_000  # characters of a word that is remembered; words remembered
_PRE_TOKENIZERS = {
    "ByteLevel",
    "Split",
    "Digits",
    "Punctuation",
    "BertPreTokenizer",
    "Whitespace",
    "WhitespaceSplit",
}
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "BertNormalizer", "Lowercase", "StripAccents"}
_MODELS = {"BPE", "WordPiece", "WordLevel", "Unigram"}
_PARTS = (
    "a",
    "Zé",
    "don't",
    "IT'S",
    "7",
    "1234567",
    ".",
    '."',
    "--",
    "(",
    "'",
    "_",
    "/",
    "漢字",
    "\u0301",
    "ß",
    "🙂",
    "…",
    "\u200b",
)
_GAPS = (
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    " \n",
    "\n ",
    "\r\n",
    "\t",
    " \t ",
    "\u00a0",
    "\u3000 ",
    "\x1c",
    "\x85",
)
_OF: WeakKeyDictionary[Any, tuple[int, Words | None]] = WeakKeyDictionary()


class WordSpans:
    """(start, end) of each token of a text, by number; exactly the offsets of the text encoded as a whole."""

    def __init__(self, words: Words, pieces: list[str]) -> None:
        self._words, self._pieces = words, pieces
        n = len(pieces)
        self._first = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(words.sizes(pieces), out=self._first[1:])
        self._start = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, pieces), dtype=np.int64, count=n), out=self._start[1:])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        piece = int(np.searchsorted(self._first, i, side="right")) - 1
        start, stop = self._words.offsets(self._pieces[piece])[i - int(self._first[piece])]
        return start + int(self._start[piece]), stop + int(self._start[piece])


class Words:
    """The words of one tokenizer and how many tokens each has. `of` gives one, or None where it cannot work."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._known: dict[str, int] = {}
        self._offsets: Lru[str, list[tuple[int, int]]] = Lru(1 << 20)
        added = backend.get_added_tokens_decoder().values()
        contents = sorted((token.content for token in added), key=len, reverse=True)
        self._first = {content[0] for content in contents if content}
        self._added = re.compile("(" + "|".join(map(re.escape, contents)) + ")") if contents else None
        self._plain = not any(token.lstrip or token.rstrip or token.single_word for token in added) and (
            backend.normalizer is None or not any(token.normalized for token in added)
        )

    @classmethod
    def of(cls, tokenizer: Any) -> Words | None:
        """Remembered as long as the tokenizer lives, until tokens are added to it."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        size, found = _OF.get(tokenizer, (None, None))
        if size != len(tokenizer):
            found = cls(backend) if _word_by_word(backend) else None
            if found is not None and not found._right():
                found = None
            _OF[tokenizer] = (len(tokenizer), found)
        return found

    def pieces(self, text: str) -> list[str] | None:
        """The words of a text, joined the text; None where an added token in it reads what stands beside it."""
        if self._added is None or not any(first in text for first in self._first):
            return _WORD.findall(text)
        parts = self._added.split(text)
        if len(parts) == 1:
            return _WORD.findall(text)
        if not self._plain:
            return None
        return [piece for n, part in enumerate(parts) for piece in ([part] if n % 2 else _WORD.findall(part))]

    def sizes(self, pieces: list[str]) -> np.ndarray:
        """Tokens of each word, int64 [n]."""
        known = self._known
        missing = list(set(pieces).difference(known))
        if missing and len(known) + len(missing) > _MOST:
            known.clear()
            missing = list(set(pieces))
        encode = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        for some in _batches(missing):
            known.update(zip(some, map(len, encode(some, add_special_tokens=False)), strict=True))
        out = np.fromiter(map(known.__getitem__, pieces), dtype=np.int64, count=len(pieces))
        for piece in missing:
            if len(piece) > _LONGEST:
                del known[piece]
        return out

    def count(self, text: str) -> int | None:
        """Tokens of a text; None where `pieces` gives none."""
        pieces = self.pieces(text)
        return None if pieces is None else int(self.sizes(pieces).sum())

    def spans(self, text: str) -> WordSpans | None:
        """All tokens of a text by number; None where `pieces` gives none."""
        pieces = self.pieces(text)
        return None if pieces is None else WordSpans(self, pieces)

    def offsets(self, piece: str) -> list[tuple[int, int]]:
        """(start, end) of each token of a word."""
        found = self._offsets.get(piece)
        if found is None:
            found = self._backend.encode(piece, add_special_tokens=False).offsets
            self._offsets.put(piece, found, 100 + len(piece) + 150 * len(found))
        return found

    def _right(self) -> bool:
        """Whether a text with every kind of neighbourhood has the tokens and offsets of its words."""
        for text in _probes():
            whole = self._backend.encode(text, add_special_tokens=False)
            pieces = _WORD.findall(text)
            parts = self._backend.encode_batch(pieces, add_special_tokens=False)
            starts = itertools.accumulate(map(len, pieces), initial=0)
            ids = [number for part in parts for number in part.ids]
            offsets = [(a + at, b + at) for part, at in zip(parts, starts) for a, b in part.offsets]  # noqa: B905
            if ids != whole.ids or offsets != whole.offsets:
                return False
        return True


def _word_by_word(backend: Any) -> bool:
    """Whether a tokenizer is built of parts that see one word at a time."""
    if backend.truncation or backend.padding:
        return False
    state = orjson.loads(backend.to_str())
    if state["model"]["type"] not in _MODELS or state["model"].get("dropout"):
        return False
    before = list(_flat(state["pre_tokenizer"], "pretokenizers"))
    if not before or any(part.get("add_prefix_space") for part in before):
        return False
    return {part["type"] for part in before} <= _PRE_TOKENIZERS and {
        part["type"] for part in _flat(state["normalizer"], "normalizers")
    } <= _NORMALIZERS


def _flat(part: dict[str, Any] | None, inside: str) -> Iterator[dict[str, Any]]:
    """The parts of a sequence, whatever its depth."""
    if part is not None and part["type"] == "Sequence":
        for one in part[inside]:
            yield from _flat(one, inside)
    elif part is not None:
        yield part


def _probes() -> Iterator[str]:
    """Texts in which every part follows every part after every gap."""
    for gap in _GAPS:
        yield gap + "".join(f"{a}{gap}{b}{gap}" for a in _PARTS for b in _PARTS)


def _batches(pieces: list[str]) -> Iterator[list[str]]:
    """Pieces in lots of about 256,000 characters: what an encoding takes is many times its text."""
    some, size = [], 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size > 256_000:
            yield some
            some, size = [], 0
    if some:
        yield some
