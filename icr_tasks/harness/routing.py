"""Settings `route:NAME@k` in lm-eval: a second prompt for the items whose first answer asks for it.

lm-eval sends the first prompts (retrieved, with the route's sentence) as it sends any. Before the answers are
scored, those that go on get the prompt of `full`, sent to the same model in one call; the answer that counts
is the last one. Tokens and seconds of both steps are counted, and both stand in the digest under `route`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..context.build import Builder, Built
from ..context.routes import Route
from ..engines import session
from ..errors import IcrError
from ..metrics.scorers import asks_marker
from ..registry import ROUTES
from ..settings import Setting

if TYPE_CHECKING:
    from .instance import PromptInstance
    from .task import ICRTask

log = logging.getLogger("icr_tasks")
FULL = Setting("full")
_SHOWN = 80  # characters of a first answer that the log keeps
# What the last step says of the prompt that was answered; what identifies an item stays that of the first.
_LAST = ("n_units", "n_units_kept", "dropped", "n_gold", "gold_kept", "gold_ids", "truncated", "error")
_ENGINE = ("finish_reason", "thought_opened", "max_gen_toks", "kv")
_SUMS = ("n_prompt_tokens", "n_context_tokens", "n_chars")


@dataclass
class Routing:
    """One task under a route: what builds its first prompts and its second ones, and the model that answers."""

    name: str
    route: Route
    first: Builder
    second: Builder
    engine: Any

    @classmethod
    def of(cls, task: ICRTask, builder: Builder) -> Routing | None:
        """None where the setting is no route. Raises IcrError where a second prompt could not be sent."""
        setting = task.options.setting
        if setting.kind != "route":
            return None
        lm = session.engine() or getattr(builder.template, "__self__", None)
        if lm is None:
            raise IcrError(
                f"setting {setting} sends a second prompt to the model, which this host does not show: run "
                "lm_eval with the start-up hook (ICR_LMEVAL_AUTOLOAD unset), icr sweep or icr.evaluate"
            )
        if (task.config.repeats or 1) > 1:
            raise IcrError(f"setting {setting} takes one answer an item; leave repeats out")
        entry = ROUTES.get(str(setting.method))
        route: Route = entry.target({n: setting.params[n] for n in entry.params})
        first = replace(builder, setting=setting.rag or FULL, ask=route.asks)
        return cls(str(setting), route, first, replace(builder, setting=FULL, prepared=None), lm)

    def go_on(
        self,
        task: ICRTask,
        instances: Sequence[PromptInstance],
        built: dict[str, Built],
        failed: Mapping[str, str],
    ) -> None:
        """Decide each first answer, send the second prompts, and leave the last answer in each request."""
        marker = asks_marker(task.prompt_format.user)
        asked = [i for i in instances if i.resps and i.doc["id"] not in failed]
        on: list[PromptInstance] = []
        for instance in asked:
            digest = built[instance.doc["id"]].digest
            seen = task.read(instance.resps[0], Built("", dict(digest)), served=instance.served)
            goes = self.route.goes_on(seen.text, marker=marker)
            step = _step(self.first.setting, digest, seen.n_tokens)
            digest["route"] = {"went_on": goes, "said": seen.text[:_SHOWN], "steps": [step]}
            if goes:
                on.append(instance)
        self._second(task, on, built)
        self._tell(task, len(asked), len(on))

    def _second(self, task: ICRTask, on: Sequence[PromptInstance], built: dict[str, Built]) -> None:
        before = {i.doc["id"]: built[i.doc["id"]].digest for i in on}
        sent = [task.request(self.second, int(i.doc_id or 0), i.doc) for i in on]
        ready = [i for i in sent if i.repeats]
        texts = self.engine.generate_until(ready) if ready else []
        for request, text in zip(ready, texts, strict=True):
            request.resps.append(text)
        task.measured(sent, FULL)
        for instance, request in zip(on, sent, strict=True):
            item_id = instance.doc["id"]
            last = built[item_id].digest
            digest = built[item_id].digest = _both(before[item_id], last)
            digest["route"]["steps"].append(_step(FULL, last, None))
            instance.resps[:] = request.resps

    def _tell(self, task: ICRTask, asked: int, went_on: int) -> None:
        """The counts in the data sheet; a route that never decides is said aloud, since it is another
        setting."""
        task.sheet["route"] = {"items": asked, "went_on": went_on}
        if asked and went_on in (0, asked):
            log.warning(
                "%s %s: %d of %d items went on to the whole context, so this is %s",
                task.config.task,
                self.name,
                went_on,
                asked,
                "full with a first step in vain" if went_on else f"{self.first.setting} alone",
            )


def spent(digest: Mapping[str, Any]) -> int:
    """Generated tokens of the steps before the last one."""
    steps = (digest.get("route") or {}).get("steps", ())
    return sum(step["output"] or 0 for step in steps[:-1])


def _step(setting: Setting, digest: Mapping[str, Any], n_tokens: int | None) -> dict[str, Any]:
    return {"setting": str(setting), "prompt": digest.get("n_prompt_tokens"), "output": n_tokens}


def _both(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """One digest of two steps: sums of what they cost, the rest of the prompt that was answered last."""
    merged = {k: v for k, v in first.items() if k not in _ENGINE}
    merged.update({k: last[k] for k in (*_LAST, *_ENGINE) if k in last})
    for name in _SUMS:
        if first.get(name) is not None and last.get(name) is not None:
            merged[name] = first[name] + last[name]
    for name in ("timing", "engine_tokens", "usage"):
        if name in first or name in last:
            merged[name] = _sum(first.get(name) or {}, last.get(name) or {})
    return merged


def _sum(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Sums by name; what one of them says and does not know (a price) is not known of both."""
    found = {}
    for name in {**one, **two}:
        values = [part[name] for part in (one, two) if name in part]
        numbers = all(isinstance(v, int | float) for v in values)
        found[name] = sum(values) if numbers else None if None in values else values[-1]
    return found
