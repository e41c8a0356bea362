"""An lm-eval request that keeps its prompt compressed until an engine asks for it, and drops it after the
answer."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from ..benchmarks.base import Item
from ..settings import Setting
from .waiting import STORE, Waiting

# ---- docs ----------------------------------------------------------------------------------------
# The documents lm-eval iterates over: what it logs of an item, without the context.


class Docs(list):
    """The light documents lm-eval iterates over; it asks a dataset for `.features`."""

    @property
    def features(self) -> dict[str, None]:
        """Column names, as keys."""
        return dict.fromkeys(self[0] if self else ())


def part_of(items: Sequence[Item], share: float) -> list[Item]:
    """The items of a share of the questions, in their order: by a hash of the cluster, so that every length and
    depth keeps the same questions and a larger share holds all of a smaller one. Where one cluster is most of the
    data (Loong's filings), single items are chosen."""
    if share >= 1:
        return list(items)
    sizes = Counter(item.cluster for item in items)
    single = max(sizes.values(), default=0) > len(items) / 5
    unit = [item.id if single else item.cluster for item in items]
    order = sorted(set(unit), key=lambda name: hashlib.sha256(f"part {name}".encode()).digest())
    kept = set(order[: math.ceil(share * len(order))])
    return [item for item, name in zip(items, unit, strict=True) if name in kept]


def light(item: Item) -> dict[str, Any]:
    """What lm-eval logs as `doc`: no context, but the files it was read from where the item names them. Of a
    sealed item only hashes."""
    shown = _hash if item.sealed else str
    doc: dict[str, Any] = {
        "id": item.id,
        "question": shown(item.question),
        "answers": [shown(answer) for answer in item.answers],
        "cluster": item.cluster,
    }
    doc["keys"] = dict(item.keys)
    if "documents" in item.fields:
        doc["documents"] = item.fields["documents"]
    return {**doc, "options": list(item.options)} if item.options else doc


def unsealed(doc: dict[str, Any], item: Item) -> dict[str, Any]:
    """The document with the texts that its log must not show, for scorers and judges."""
    return {**doc, "question": item.question, "answers": list(item.answers)} if item.sealed else doc


def _hash(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class Arguments(tuple):
    """(prompt, generation kwargs), and in `salt` what else decides the answer: lm_eval's response cache knows
    neither model nor setting (`hooks.patch_cache`)."""

    salt: str = ""


class PromptInstance(Instance):
    """Instance whose text waits packed, beyond some in a file (`waiting`), and costs nothing once released.

    `arguments` is rebuilt on each access, so engines, samplers and loggers see a normal request. It carries
    what engines need beside the text (`engines.session`): the `setting` it is asked under (None: the model
    arguments decide), the character `boundary` at which its context ends, and `found`, which the engine
    fills.
    """

    def __init__(
        self,
        *,
        doc: dict[str, Any],
        prompt: Any,
        gen_kwargs: dict[str, Any],
        digest: str,
        task: str,
        doc_id: int,
        repeats: int,
        setting: Setting | None = None,
        boundary: int | None = None,
        salt: str = "",
        counted_by: str | None = None,
    ) -> None:
        self.setting, self.boundary, self.salt = setting, boundary, salt
        self.counted_by = counted_by  # the tokenizer whose count `size` is; None where it is a guess
        self.found: dict[str, Any] = {}
        self._gen_kwargs, self._digest = gen_kwargs, digest
        # An API engine's JsonChatStr is a tuple, not text: rebuilt by its own type.
        self._wrap = None if isinstance(prompt, str) else type(prompt)
        text = prompt if self._wrap is None else prompt.prompt
        self._packed: Waiting | None = STORE.put(zlib.compress(text.encode("utf-8", "surrogatepass"), 1))
        super().__init__("generate_until", doc, (), 0, (task, doc_id, repeats))

    @property
    def arguments(self) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        """(prompt, generation kwargs); after release (digest, generation kwargs)."""
        if self._packed is None:
            return self._digest, self._gen_kwargs
        text = zlib.decompress(self._packed.get()).decode("utf-8", "surrogatepass")
        found = Arguments((text if self._wrap is None else self._wrap(text), self._gen_kwargs))
        found.salt = self.salt
        return found

    @arguments.setter
    def arguments(self, value: tuple[Any, ...]) -> None:
        """Set by the dataclass constructor with an empty tuple; the text is kept packed instead."""

    @property
    def served(self) -> bool:
        """Whether a chat server answers (its prompts are messages, not text)."""
        return self._wrap is not None

    @property
    def size(self) -> int:
        """Prompt tokens as counted when the prompt was built, else a guess from its characters."""
        digest = json.loads(self._digest)
        return int(digest.get("n_prompt_tokens") or digest.get("n_chars", 0) // 4)

    def release(self, digest: str) -> None:
        """Drop the prompt; from now on the request shows its digest."""
        if self._packed is not None:
            self._packed.drop()
        self._packed, self._digest = None, digest
