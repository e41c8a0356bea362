"""xFinder: a small model that extracts the answer of a multiple-choice generation, over HTTP or in this
process.

    --metadata
    '{"xfinder_base_url":"http://localhost:8002/v1","xfinder_model":"IAAR-Shanghai/xFinder-llama38it"}'
    --metadata '{"xfinder_model":"/models/xFinder-qwen1505"}'          # local, with transformers

Temperature 0, batched, every failure is an error and never a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import IcrError, unknown
from .judge.config import common, mark_of, prefixed
from .judge.endpoint import Endpoint, Outcome, ask_all
from .judge.rubrics import BadReply
from .judge.secrets import api_key, split_url
from .judge.store import VerdictStore, default_path, key_of
from .xfinder_cases import ChoiceCase, Extraction, to_letter
from .xfinder_package import MODES, Prompter, package, same, template_of

KEYS = (
    "base_url",
    "model",
    "revision",
    "template",
    "prompt",
    "system",
    "api_key",
    "api_key_env",
    "concurrency",
    "timeout",
    "retries",
    "max_tokens",
    "max_chars",
    "batch_size",
    "device",
    "extra",
    "store",
)


@dataclass(frozen=True, slots=True)
class XFinderConfig:
    """`base_url` None runs `model` (a folder or hub id) with transformers in this process."""

    model: str
    base_url: str | None = None
    revision: str = ""
    template: str | None = None
    prompt: str = "as_released"
    system: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 32
    timeout: float = 120.0
    retries: int = 5
    max_tokens: int = 100
    max_chars: int = 16_000
    batch_size: int = 16
    device: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    store: Path | None = field(default_factory=default_path)
    pause: float = 0.5

    @classmethod
    def parse(cls, metadata: Mapping[str, Any]) -> XFinderConfig | None:
        """From `xfinder_*` keys; None when there are none. Raises IcrError for what cannot work."""
        given = prefixed(metadata, "xfinder_", KEYS)
        if not given:
            return None
        if not given.get("model"):
            raise IcrError(
                "xFinder needs xfinder_model, the served name, or a folder or hub id to run it here"
            )
        if given.get("base_url"):
            split_url(str(given["base_url"]))
        if (prompt := str(given.get("prompt", "as_released"))) not in MODES:
            raise unknown("xfinder_prompt", prompt, MODES)
        texts: dict[str, Any] = {
            k: str(given[k]) for k in ("base_url", "revision", "template", "system", "device") if given.get(k)
        }
        key = api_key(given.get("api_key_env"), given.get("api_key"), "ICR_XFINDER_API_KEY")
        return cls(
            model=str(given["model"]), prompt=prompt, api_key=key, **texts, **common(given, "xfinder_")
        )

    def sheet(self) -> dict[str, Any]:
        """What decides the scores, for the results file."""
        template = template_of(self.model, self.template)
        return {
            "model": self.model,
            "revision": self.revision,
            "template": template,
            "prompt": self.prompt,
            "package": package().version,
        }


class XFinder:
    """An Extractor. Raises IcrError at once when the package, the store or the local model cannot be used."""

    name = "xfinder"

    def __init__(self, config: XFinderConfig) -> None:
        self.config = config
        self.template = template_of(config.model, config.template)
        self.prompter = Prompter(self.template, config.prompt, config.system, config.max_chars)
        self.store = VerdictStore(config.store)
        self.calls = 0

    def extract(self, cases: Sequence[ChoiceCase]) -> list[Extraction]:
        """One extraction a case. Raises endpoint.Unreachable (exit code 3) when the server cannot be used."""
        config, prompts = self.config, [self.prompter(case) for case in cases]
        who = (
            "xfinder",
            config.model,
            config.revision + mark_of(config.extra),
            f"{package().version} {self.template} {config.prompt}",
        )
        keys = [key_of(*who, prompt) for prompt in prompts]
        known = self.store.get(dict.fromkeys(keys))
        found: dict[str, Extraction] = {key: Extraction(row["value"]) for key, row in known.items()}
        todo = list({key: n for n, key in enumerate(keys) if key not in found}.values())

        def done(index: int, outcome: Outcome) -> None:
            n = todo[index]
            found[keys[n]] = Extraction(outcome.value, outcome.reason)
            self.store.put(keys[n], who, cases[n].id, outcome.replies, outcome.value, outcome.reason)
            self.calls += max(len(outcome.replies), 1)

        try:
            if config.base_url is None:
                from .xfinder_package import ask_locally

                ask_locally(config, package().stop, [prompts[n] for n in todo], read, done)
            else:
                ask_all(self._endpoint(), [prompts[n] for n in todo], lambda _, reply: read(reply), done)
        finally:
            self.store.flush()
        return [found[key] for key in keys]

    def correct(self, case: ChoiceCase, extracted: str) -> bool:
        """The package's comparator, on the extraction and on its plain letter ("B. Mars" counts as B)."""
        return same(case, extracted) or same(case, to_letter(case, extracted))

    def _endpoint(self) -> Endpoint:
        c = self.config
        assert c.base_url is not None
        return Endpoint(
            c.base_url,
            c.model,
            c.api_key,
            chat=False,
            concurrency=c.concurrency,
            timeout=c.timeout,
            retries=c.retries,
            max_tokens=c.max_tokens,
            stop=package().stop,
            extra=c.extra,
            pause=c.pause,
        )


def read(reply: str) -> str:
    """The extraction in a reply: up to the first stop token. Raises BadReply when nothing is left."""
    for token in package().stop:
        reply = reply.partition(token)[0]
    if not reply.strip():
        raise BadReply("empty extraction")
    return reply.strip()
