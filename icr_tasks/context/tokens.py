"""The evaluated model's tokenizer and context window, found the way lm-eval's own arguments name them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import hub
from ..errors import IcrError
from .words import Words, WordSpans

_NO_TOKENIZER = (
    "this task counts tokens with the evaluated model's tokenizer and found none: pass "
    '--metadata \'{"tokenizer":"MODEL_OR_FOLDER"}\' (or {"tokenizer":"none"} to count nothing and never '
    "truncate)"
)


_WINDOW, _OVERLAP = 25_000, 1_500  # characters
_LONG = 2_000  # characters from which on a text is counted word by word
_AGREE = 24  # tokens that two windows must cut alike before one follows the other


class Spans:
    """(start, end) of each token of a text, by number, from the encodings of its windows."""

    def __init__(self, parts: list[tuple[Any, int, int, int]]) -> None:
        # (encoding or list, its first token that counts, how many count, character at which it starts)
        self._parts = parts
        self._first = [0]
        for _, _, count, _ in parts:
            self._first.append(self._first[-1] + count)

    @classmethod
    def of_list(cls, offsets: list[tuple[int, int]]) -> Spans:
        """All of them, from a list."""
        return cls([(offsets, 0, len(offsets), 0)])

    @classmethod
    def joined(cls, encodings: list[Any], starts: list[int]) -> Spans | None:
        """Windows that overlap, each followed from where it and the next cut alike; None where two do not.

        A tokenizer that cuts the same for a stretch of tokens stands at the same place in the same state, so
        what follows is what the whole text would give.
        """
        parts, first = [], 0
        for number, encoding in enumerate(encodings):
            last = len(encoding)
            following = 0
            if number + 1 < len(encodings):
                met = _meet(encoding, starts[number], encodings[number + 1], starts[number + 1], first)
                if met is None:
                    return None
                last, following = met
            parts.append((encoding, first, last - first, starts[number]))
            first = following
        return cls(parts)

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, i: int) -> tuple[int, int]:
        part = bisect_right(self._first, i) - 1
        encoding, first, _, at = self._parts[part]
        number = i - self._first[part] + first
        start, stop = encoding[number] if isinstance(encoding, list) else encoding.token_to_chars(number)
        return start + at, stop + at


def _meet(one: Any, at: int, two: Any, second: int, first: int) -> tuple[int, int] | None:
    """(token of `one`, token of `two`) from which on `two` is followed; None where they never cut alike."""
    ids, other = one.ids, two.ids
    places = {two.token_to_chars(j)[0] + second: j for j in range(min(len(two), _OVERLAP // 2))}
    near = range(second + _OVERLAP // 8 - at, second + _OVERLAP // 4 - at)
    i = next((token for char in near if (token := one.char_to_token(char)) is not None), None)
    while i is not None and i + _AGREE < len(one):
        j = places.get(one.token_to_chars(i)[0] + at)
        fits = j is not None and i > first and j + _AGREE < len(two)
        if fits and j is not None and ids[i : i + _AGREE] == other[j : j + _AGREE]:
            starts = [one.token_to_chars(i + n)[0] + at for n in range(_AGREE)]
            if starts == [two.token_to_chars(j + n)[0] + second for n in range(_AGREE)]:
                return i, j
        i += 1
    return None


class TokenCounter:
    """Counts and cuts text in tokens. `special` adds the tokens the engine adds when no chat template is
    used."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.name = str(getattr(tokenizer, "name_or_path", type(tokenizer).__name__))

    def count(self, text: str, *, special: bool = False) -> int:
        """Number of tokens of `text`."""
        if len(text) >= _LONG and (words := Words.of(self.tokenizer)) is not None:
            found = words.count(text)
            if found is not None:
                return found + (self._special() if special else 0)
        return len(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def counts(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text, in one batch."""
        if not texts:
            return []
        if sum(map(len, texts)) >= _LONG and (words := Words.of(self.tokenizer)) is not None:
            found = [words.count(text) for text in texts]
            if None not in found:
                return [n for n in found if n is not None]
        return [
            len(ids) for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        ]

    def _special(self) -> int:
        """Tokens that the engine puts around a text."""
        return len(self.tokenizer("", add_special_tokens=True, verbose=False)["input_ids"])

    def spans(self, text: str) -> Spans | WordSpans:
        """`offsets` of a long text without a list of them: word by word where the tokenizer reads so, else
        encoded in windows side by side, read where asked.

        IcrError without a fast tokenizer.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or len(text) < 2 * _WINDOW or backend.truncation or backend.padding:
            return Spans.of_list(self.offsets(text))
        words = Words.of(self.tokenizer)
        if words is not None and (found := words.spans(text)) is not None:
            return found
        starts = list(range(0, len(text), _WINDOW))
        windows = [text[at : at + _WINDOW + _OVERLAP] for at in starts]
        return Spans.joined(backend.encode_batch(windows, add_special_tokens=False), starts) or Spans.of_list(
            self.offsets(text)
        )

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) character offsets of each token; needs a fast tokenizer (IcrError otherwise)."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise IcrError(f"{self.name} has no fast tokenizer; cutting text at token bounds needs one")
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]


def _on_hub(name: str) -> bool:
    """Whether a served model's name is that of a tokenizer too: a hub id or a folder."""
    return "/" in name or Path(name).is_dir()


@lru_cache(maxsize=4)
def _load(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    here = hub.local(name, "tokenizer", revision)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code, local_files_only=here
        )
    except Exception as error:  # the hub client raises many types; all mean the same to the user
        raise IcrError(f"cannot load tokenizer {name!r}: {error}\n{_NO_TOKENIZER}") from error


def counter(metadata: Mapping[str, Any], lm: Any = None) -> TokenCounter | None:
    """Tokenizer of the running model `lm`, else of metadata's tokenizer, pretrained or model; None for
    "none"."""
    name = metadata.get("tokenizer")
    if str(name).lower() == "none" and "tokenizer" in metadata:
        return None
    if name is None and callable(getattr(lm, "tokenizer", None)):
        return TokenCounter(lm.tokenizer)
    served = name is None and metadata.get("base_url") and not metadata.get("pretrained")
    name = name or metadata.get("pretrained") or metadata.get("model")
    if not name:
        raise IcrError(_NO_TOKENIZER)
    if served and not _on_hub(str(name)):
        return None  # a name of the server's own, such as gpt-5: nothing is counted and nothing is cut
    revision = metadata.get("tokenizer_revision") or metadata.get("revision")
    return TokenCounter(_load(str(name), revision, bool(metadata.get("trust_remote_code"))))


@dataclass
class Chat:
    """Stands for an engine where prompts are built: what a task asks of a running model, its tokenizer,
    window and chat template."""

    tokenizer: Any
    max_length: int | None = None

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The rendered conversation."""
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
