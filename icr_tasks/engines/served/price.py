"""What answers of a served model cost: prices in USD per million tokens, usage as a server tells it.

    price: {input: 0.1, output: 0.4}                     # USD per million tokens, the only unit
    price: {input: 0.1, cached: 0.025, output: 0.4}      # prompt tokens from the server's cache cost less

A number alone says neither which tokens it is for nor its unit, so it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import IcrError, unknown

UNIT = "USD per million tokens"
_SAME = (
    "usd per million tokens",
    "usd/million tokens",
    "usd/1m tokens",
    "usd per 1m tokens",
    "usd/mtok",
    "$/mtok",
)
_LEAST, _MOST = 0.0005, 10_000.0  # below: somebody wrote a price a token or a thousand tokens
_WRITE = "write price: {input: 0.1, output: 0.4}, in USD per million tokens"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer as the server counts them; `reasoning` are among `out`, `cached` among `prompt`.
    None: not told."""

    prompt: int | None = None
    cached: int | None = None
    out: int | None = None
    reasoning: int | None = None

    @classmethod
    def read(cls, told: Any) -> Usage:
        """The `usage` of a reply in the spellings of OpenAI, vLLM, SGLang and DeepSeek; what is no count is
        not told."""
        told = told if isinstance(told, Mapping) else {}

        def of(*path: str) -> int | None:
            found: Any = told
            for key in path:
                found = found.get(key) if isinstance(found, Mapping) else None
            return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None

        def first(*paths: tuple[str, ...]) -> int | None:
            return next((n for path in paths if (n := of(*path)) is not None), None)

        return cls(
            prompt=first(("prompt_tokens",), ("input_tokens",)),
            cached=first(
                ("prompt_tokens_details", "cached_tokens"),
                ("input_tokens_details", "cached_tokens"),
                ("prompt_cache_hit_tokens",),
            ),
            out=first(("completion_tokens",), ("output_tokens",)),
            reasoning=first(
                ("completion_tokens_details", "reasoning_tokens"),
                ("output_tokens_details", "reasoning_tokens"),
                ("reasoning_tokens",),
            ),
        )

    def record(self, usd: float | None = None) -> dict[str, Any]:
        """As it stands in logs and ledgers; what was not told is left out."""
        told = {
            "tokens_in": self.prompt,
            "tokens_cached": self.cached,
            "tokens_out": self.out,
            "tokens_reasoning": self.reasoning,
            "usd": None if usd is None else round(usd, 9),
        }
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million prompt tokens, tokens of it that were cached (default: as others) and generated
    tokens."""

    input: float
    output: float
    cached: float | None = None

    @classmethod
    def parse(cls, given: Any, where: str = "price") -> Price | None:
        """None for none. Raises IcrError for a price without a unit, in another unit, or one that cannot be
        meant."""
        if given in (None, ""):
            return None
        if not isinstance(given, Mapping):
            raise IcrError(f"{where}: {given!r} does not say which tokens it is for, nor its unit; {_WRITE}")
        given = dict(given)
        unit = given.pop("unit", UNIT)
        if not isinstance(unit, str) or " ".join(unit.lower().split()) not in _SAME:
            raise IcrError(f"{where}: unit {unit!r} is not {UNIT}; convert the numbers, and leave `unit` out")
        for name in given:
            if name not in ("input", "output", "cached"):
                raise unknown(f"key of {where}", str(name), ("input", "output", "cached", "unit"))
        for name in ("input", "output"):
            if given.get(name) is None:
                raise IcrError(f"{where}: `{name}` is missing; {_WRITE}")
        return cls(
            **{
                name: _number(value, f"{where}: `{name}`")
                for name, value in given.items()
                if value is not None
            }
        )

    def usd(self, usage: Usage, at_most: float) -> tuple[float, bool]:
        """(dollars of one answer, whether they are told): `at_most` where the server counts nothing."""
        if usage.prompt is None or usage.out is None:
            return at_most, False
        cached = min(usage.cached or 0, usage.prompt)
        lower = self.input if self.cached is None else self.cached
        return ((usage.prompt - cached) * self.input + cached * lower + usage.out * self.output) / 1e6, True

    def at_most(self, prompt: int, out: int) -> float:
        """Dollars of a request of at most so many tokens, none of them cached."""
        return (prompt * max(self.input, self.cached or 0.0) + out * self.output) / 1e6

    def record(self) -> dict[str, Any]:
        """As it stands in results, with its unit."""
        return {**{k: v for k, v in asdict(self).items() if v is not None}, "unit": UNIT}


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise IcrError(f"{where} must be a number in {UNIT}, not {value!r}")
    if not math.isfinite(value) or value < 0 or value > _MOST:
        raise IcrError(f"{where} must be from 0 to {_MOST:,.0f} {UNIT}, not {value!r}")
    if 0 < value < _LEAST:
        raise IcrError(
            f"{where} is {value!r}, which looks like a price of one token; write it in {UNIT} "
            f"({value * 1e6:g} if it is a token's)"
        )
    return float(value)


def budget(given: Any, price: Price | None, where: str = "budget_usd") -> float | None:
    """The cap in USD, or None. Raises IcrError for what is no amount, and for a cap without prices."""
    if given in (None, ""):
        return None
    if (
        isinstance(given, bool)
        or not isinstance(given, int | float)
        or not math.isfinite(given)
        or given <= 0
    ):
        raise IcrError(f"{where} must be an amount above 0 in USD, such as 20, not {given!r}")
    if price is None:
        raise IcrError(f"{where} is {given:g}, but nothing says what tokens cost; {_WRITE}")
    return float(given)
