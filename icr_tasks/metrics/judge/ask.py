"""Prompts to a judge model and its replies back, for data refinement and for the R+Judge reward.

The judge is named by the same options as in evaluation: base_url, model, api_key_env, max_tokens, concurrency
...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from icr_tasks.errors import IcrError
from icr_tasks.metrics.judge.config import JudgeConfig
from icr_tasks.metrics.judge.endpoint import Outcome, Unreachable, ask_all, load_openai
from icr_tasks.metrics.judge.store import VerdictStore, key_of

log = logging.getLogger("icr_tasks")


class Asker:
    """`asker(prompts)` -> replies that `accept` could read, None where there is none after three tries.

    `accept` raises BadReply for a reply that must be asked for again. With `store` every reply is kept in
    that file and never asked for twice. `outages` is how many calls in a row may find no server before
    Unreachable is raised (0: at once); until then their replies are None.
    """

    def __init__(
        self,
        judge: Mapping[str, Any],
        accept: Callable[[str], Any],
        *,
        kind: str,
        version: str,
        store: Path | None = None,
        outages: int = 0,
    ) -> None:
        config = JudgeConfig.parse(
            {f"judge_{name}": value for name, value in judge.items() if value not in ("", None)}
        )
        if config is None:
            raise IcrError("no judge: set base_url and model")
        load_openai()
        self.endpoint, self.accept, self.outages = config.endpoint(), accept, outages
        self.who = (kind, config.model, config.revision, version)
        self.store = VerdictStore(store) if store else None
        self.calls = self._silent = 0

    def __call__(self, prompts: Sequence[str]) -> list[str | None]:
        keys = [key_of(*self.who, prompt) for prompt in prompts]
        found = {k: v["reply"] for k, v in self.store.get(dict.fromkeys(keys)).items()} if self.store else {}
        todo = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
        names = list(todo)

        def done(index: int, outcome: Outcome) -> None:
            self.calls += len(outcome.replies)
            if outcome.reason is None:
                found[names[index]] = outcome.replies[-1]
            if self.store:
                self.store.put(names[index], self.who, "", outcome.replies, True, outcome.reason)

        def read(index: int, reply: str) -> bool:
            self.accept(reply)
            return True

        try:
            ask_all(self.endpoint, list(todo.values()), read, done)
            self._silent = 0
        except Unreachable as error:
            self._silent += 1
            if self._silent > self.outages:
                raise
            log.warning(
                "%s; %d rewards have no value (%d of %d times)", error, len(todo), self._silent, self.outages
            )
        finally:
            if self.store:
                self.store.flush()
        return [found.get(key) for key in keys]
