"""The judge's options as `--metadata` gives them, checked before anything is generated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...checked import check
from ...errors import IcrError, install_hint, unknown
from .endpoint import Endpoint
from .rubrics import RUBRICS
from .secrets import api_key, split_url
from .store import default_path, key_of

KEYS = (
    "base_url",
    "model",
    "revision",
    "rubric",
    "api_key",
    "api_key_env",
    "api",
    "concurrency",
    "timeout",
    "retries",
    "max_tokens",
    "extra",
    "store",
)


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """`revision` is any text that tells versions of the judge apart; `store` None keeps verdicts in memory
    only."""

    base_url: str
    model: str
    revision: str = ""
    rubric: str = "loong"
    api_key: str | None = field(default=None, repr=False)
    api: str = "chat"
    concurrency: int = 32
    timeout: float = 300.0
    retries: int = 5
    max_tokens: int = 4096
    extra: dict[str, Any] = field(default_factory=dict)
    store: Path | None = field(default_factory=default_path)
    pause: float = 0.5

    @classmethod
    def parse(cls, metadata: Mapping[str, Any]) -> JudgeConfig | None:
        """From `judge_*` keys; None when there are none. Raises IcrError for an unknown, missing or
        impossible one."""
        given = prefixed(metadata, "judge_", KEYS)
        if not given:
            return None
        for needed in ("base_url", "model"):
            if not given.get(needed):
                raise IcrError(
                    f"a judge needs judge_base_url and judge_model; judge_{needed} is missing (--metadata "
                    f'\'{{"judge_base_url":"http://localhost:8001/v1","judge_model":"..."}}\')'
                )
        split_url(str(given["base_url"]))
        rubric = str(given.get("rubric", "loong"))
        if rubric not in RUBRICS:
            raise unknown("judge_rubric", rubric, RUBRICS)
        api = str(given.get("api", "chat"))
        if api not in ("chat", "completions"):
            raise unknown("judge_api", api, ("chat", "completions"))
        return cls(
            base_url=str(given["base_url"]),
            model=str(given["model"]),
            revision=str(given.get("revision", "")),
            rubric=rubric,
            api_key=api_key(given.get("api_key_env"), given.get("api_key")),
            api=api,
            **common(given, "judge_"),
        )

    def endpoint(self) -> Endpoint:
        """Where the judge's prompts go."""
        return Endpoint(
            self.base_url,
            self.model,
            self.api_key,
            self.api == "chat",
            self.concurrency,
            self.timeout,
            self.retries,
            self.max_tokens,
            (),
            self.extra,
            self.pause,
        )

    def identity(self) -> tuple[str, str, str, str]:
        """(kind, model, revision, rubric version) of a verdict; unusual request options count as another
        revision."""
        return "judge", self.model, self.revision + self._unusual(), RUBRICS[self.rubric].version

    def _unusual(self) -> str:
        return mark_of({**({"api": self.api} if self.api != "chat" else {}), **self.extra})

    def sheet(self) -> dict[str, Any]:
        """Who gave a verdict, for the results file: what `identity` tells apart. Unusual request options as a mark alone,
        since they may hold a key."""
        unusual = {"request": mark} if (mark := self._unusual()) else {}
        return {
            "model": self.model,
            "revision": self.revision,
            "rubric": RUBRICS[self.rubric].version,
            **unusual,
        }


def mark_of(unusual: Mapping[str, Any]) -> str:
    """What tells replies to unusual requests from others: a mark behind the revision; "" for none."""
    return "+" + key_of(json.dumps(unusual, sort_keys=True))[:8] if unusual else ""


def prefixed(metadata: Mapping[str, Any], prefix: str, known: tuple[str, ...]) -> dict[str, Any]:
    """The options with that prefix, without it. Raises IcrError for one that does not exist."""
    given = {k: v for k, v in metadata.items() if k.startswith(prefix)}
    for key in given:
        if key.removeprefix(prefix) not in known:
            raise unknown("option", key, [prefix + k for k in known])
    return {k.removeprefix(prefix): v for k, v in given.items()}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'must be a JSON object such as {{"top_p": 1}}, not {value!r}')
    return value


class _Common(BaseModel):
    """What every grader over HTTP takes; numbers may come as text, from `--option KEY=VALUE`."""

    model_config = ConfigDict(extra="ignore")

    concurrency: int = Field(32, ge=1, le=1024)
    timeout: float = Field(300.0, ge=0.001, le=86400, allow_inf_nan=False)
    retries: int = Field(5, ge=0, le=100)
    max_tokens: int = Field(4096, ge=1, le=1 << 20)
    max_chars: int = Field(16_000, ge=100, le=1 << 30)
    batch_size: int = Field(16, ge=1, le=1 << 16)
    extra: Annotated[Any, AfterValidator(_object)] = Field(default_factory=dict)


def common(given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Numbers, extra request fields and the store, checked."""
    if find_spec("openai") is None and given.get("base_url"):
        raise IcrError(f"{prefix}base_url needs the openai client: {install_hint('judge')}")
    found = check(_Common, given, "", prefix=prefix, quote="")
    out = {name: getattr(found, name) for name in found.model_fields_set}
    store = given.get("store")
    if store is not None:
        out["store"] = None if str(store) in ("", "off", "none") else Path(str(store)).expanduser()
    return {"extra": {}, **out}
