"""What a user wrote (a study file, options of `--metadata`), checked by pydantic, told in our words.

A record is a pydantic model with `Record` as its base: a key that it does not have is an error with the
nearest match, and a value of another kind or out of range is one sentence that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import IcrError, unknown

_WORDS = {
    "dict": "mapping",
    "model": "mapping",
    "string": "text",
    "int": "number",
    "float": "number",
    "bool": "yes or no",
    "list": "list",
}


class Record(BaseModel):
    """No unknown keys, no conversions: `limit: "4"` is text, not 4."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


R = TypeVar("R", bound=BaseModel)


def check(
    record: type[R],
    given: Mapping[str, Any],
    where: str,
    *,
    prefix: str = "",
    kind: str = "key",
    quote: str = "`",
) -> R:
    """The record, or an IcrError: `where: what is wrong with which key`. Keys are shown behind `prefix`."""
    try:
        return record.model_validate(dict(given))
    except ValidationError as error:
        said = _sentence(error.errors(include_url=False), record, prefix, kind, quote)
        raise IcrError(
            f"{where}: {said}" if where else said
        ) from None  # pydantic's own text repeats every value


def _sentence(errors: Sequence[Any], record: type[BaseModel], prefix: str, kind: str, quote: str) -> str:
    first = errors[0]
    name = f"{prefix}{first['loc'][0]}" if first["loc"] else ""
    key, value, what = f"{quote}{name}{quote}", first.get("input"), first["type"]
    if what in ("extra_forbidden", "invalid_key"):
        return str(unknown(kind, name, [f"{prefix}{known}" for known in record.model_fields]))
    if what == "missing":
        return f"{key} is missing or empty"
    same = [e for e in errors if e["loc"][:1] == first["loc"][:1]]  # one for each kind that a key may have
    limits = _limits(record, str(first["loc"][0]))
    out_of_range = what in ("greater_than_equal", "less_than_equal", "finite_number") or "parsing" in what
    if limits and (out_of_range or limits[1] is not None):
        low, high = limits
        if high is None:
            return f"{key} must be at least {low:g}, not {value}"
        return f"{key} must be a number from {low:g} to {high:g}, not {value!r}"
    if what == "value_error":
        return f"{key} {first['ctx']['error']}"
    names = {_WORDS.get(e["type"].partition("_")[0], e["type"].partition("_")[0]) for e in same}
    return f"{key} must be a {' or '.join(sorted(names))}, not {value!r}"


def _limits(record: type[BaseModel], name: str) -> tuple[float, float | None] | None:
    found: dict[str, Any] = {}
    for part in record.model_fields[name].metadata:
        found |= {side: getattr(part, side) for side in ("ge", "le") if hasattr(part, side)}
    return (found["ge"], found.get("le")) if "ge" in found else None


def read_yaml(text: str, where: object, loader: Any = None) -> Any:
    """The value of a YAML text. Raises IcrError, one line with the place, for what is none; `where` names the
    file or the option."""
    try:
        return yaml.load(text, Loader=loader or yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise IcrError(f"{where} is not valid YAML: {place}{said}") from error
