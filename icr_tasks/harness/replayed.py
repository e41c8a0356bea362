"""What a task takes from a log when its answers are replayed (`--model icr-replay`): options, digests, counts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from .options import Options

if TYPE_CHECKING:
    from ..context.build import Built


def options(task: str, metadata: dict[str, Any]) -> Options:
    """The user's options; in a replay those of the log, which an explicit option may not contradict."""
    if "samples" not in metadata:
        return Options.parse(metadata)
    from ..engines import replay

    sheet = replay.log_of(metadata).sheets.get(task, {})
    logged = {
        k: v
        for k, v in (("setting", sheet.get("setting", {}).get("text")), ("prompt", sheet.get("prompt")))
        if v
    }
    for key, value in logged.items():
        if str(metadata.get(key, value)) != value:
            raise IcrError(
                f"{task} was logged with {key} {value!r}, not {metadata[key]!r}; leave {key} out to replay it"
            )
    return Options.parse({**metadata, **logged})


def check(config: Any, ids: Collection[str]) -> None:
    """Raises IcrError for a log of other items."""
    from ..engines import replay

    replay.log_of(config.metadata).check(str(config.task), ids)


def recall(config: Any, doc: dict[str, Any], built: Built) -> tuple[dict[str, float], str | None]:
    """Take the digest of the logged prompt into `built`, so that lengths and cuts stay with the answer.

    Returns the logged token counts and why the item was not sent, if it was not.
    """
    from ..engines import replay

    row = replay.log_of(config.metadata).find(config.task, doc)
    if row["digest"]:
        built.digest = row["digest"]
    else:
        built.digest["error"] = None
    if row.get("finish_reason"):
        built.digest["finish_reason"] = row["finish_reason"]
    counts = {name: float(row[name]) for name in ("out_tokens", "thought_tokens") if row[name] is not None}
    return counts, built.digest.get("error") or None
