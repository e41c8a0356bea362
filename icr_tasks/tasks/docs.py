"""The documents lm-eval iterates over: what it logs of an item, without the context."""

from __future__ import annotations

from typing import Any

from ..data.item import Item


class Docs(list):
    """The light documents lm-eval iterates over; it asks a dataset for `.features`."""

    @property
    def features(self) -> dict[str, None]:
        """Column names, as keys."""
        return dict.fromkeys(self[0] if self else ())


def light(item: Item) -> dict[str, Any]:
    """What lm-eval logs as `doc`: no context, but the files it was read from where the item names them."""
    doc = {"id": item.id, "question": item.question, "answers": list(item.answers), "cluster": item.cluster}
    doc["keys"] = dict(item.keys)
    if "documents" in item.fields:
        doc["documents"] = item.fields["documents"]
    return {**doc, "options": list(item.options)} if item.options else doc
