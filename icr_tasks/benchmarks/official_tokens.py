"""Length bins that a benchmark defines in tokens of its own tokenizer, whatever model is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from ..errors import IcrError
from ..storage import cache_root, noted, write_atomic
from .flat import Records
from .lines import Row

# Characters a token holds at least and at most in any text of these benchmarks: what cannot lie in a bin is not counted.
_CHARS = (1, 12)


@lru_cache(maxsize=2)
def encoder(name: str) -> Callable[[str], int]:
    """Counts tokens of tiktoken's encoding `name`. Raises IcrError where it cannot be had."""
    try:
        import tiktoken
    except ImportError as error:
        raise IcrError(f"the length bins are counted in {name} tokens: pip install tiktoken") from error
    try:
        encoding = tiktoken.get_encoding(name)
    except ValueError:
        raise
    except Exception as error:  # whatever its HTTP client raises
        raise IcrError(
            f"the length bins are counted in {name} tokens, and tiktoken cannot fetch that encoding "
            f"({type(error).__name__}); set TIKTOKEN_CACHE_DIR to a folder that has it, or fetch it once online"
        ) from error
    return lambda text: len(encoding.encode_ordinary(text))


def counted(
    key: str,
    encoding: str,
    sizes: Mapping[int, int],
    texts: Callable[[int], Sequence[str]],
    low: int,
    high: int,
) -> dict[int, int]:
    """{record: tokens} of the records that may have `low` to `high` tokens; each is counted once per machine.

    `key` names the file's content, `sizes` are characters by record, `texts(record)` what is counted.
    """
    note = cache_root() / "official_tokens" / f"{key}-{encoding}.json"
    known = {int(k): int(v) for k, v in (noted(note) or {}).items()}
    possible = [n for n, size in sizes.items() if low * _CHARS[0] <= size <= high * _CHARS[1]]
    missing = [n for n in possible if n not in known]
    if missing:
        count = encoder(encoding)
        known.update({n: sum(count(text) for text in texts(n)) for n in missing})
        write_atomic(note, orjson.dumps({str(k): v for k, v in known.items()}))
    return {n: known[n] for n in possible}


def binned(
    found: Records,
    encoding: str,
    texts: Callable[[dict[str, Any]], Sequence[str]],
    size: str,
    bin: tuple[int, int],
    top: int,
) -> Iterator[tuple[Row, int]]:
    """(row, tokens) of the records whose `texts` have the bin's tokens. `size`: the kept field that holds their
    characters; `top`: the upper edge of the last bin, which belongs to it."""
    rows = {row.line: row for row in found.rows}
    sizes = {line: row.kept[size] for line, row in rows.items()}
    low, high = bin
    tokens = counted(found.sha256[:24], encoding, sizes, lambda n: texts(found.read(rows[n])), low, high)
    for line, n in tokens.items():
        if inside(n, low, high, (top,)):
            yield rows[line], n


def bins(edges: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Labels by the upper edge: {"8k": (4096, 8192), ...}.

    >>> list(bins([4096, 8192, 1048576]))
    ['8k', '1M']
    """
    return {label(high): (low, high) for low, high in zip(edges, edges[1:], strict=False)}


def label(tokens: int) -> str:
    """8192 -> "8k", 1048576 -> "1M"."""
    return f"{tokens >> 20}M" if tokens >= 1 << 20 else f"{tokens >> 10}k"


def inside(tokens: int, low: int, high: int, edges: Sequence[int]) -> bool:
    """Whether a count lies in the bin [low, high); the last bin includes its upper edge."""
    return low <= tokens < high or (tokens == high == edges[-1])
