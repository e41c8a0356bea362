"""What is changed on a loaded engine of lm-eval for our requests, because its defaults are no facts.

Its API engines cut prompts to 2047 tokens from the left (its transformers engine to 2048, where a model does not
say its length), and send `"stop": []` where a task has no stop strings, which strict servers refuse.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from ..context.window import Window

_ANY = 1 << 40  # tokens: nothing is cut


def prepare(lm: Any, window: Window) -> None:
    """Let an engine take what was built to fit `window`, and leave empty parameters out."""
    if hasattr(lm, "_create_payload"):
        lm.max_length = window.size or _ANY
        _leave_out(lm)
    elif window.size is None and hasattr(lm, "_DEFAULT_MAX_LENGTH") and not getattr(lm, "_max_length", None):
        lm._max_length = _ANY


def _leave_out(lm: Any) -> None:
    make = lm._create_payload
    if getattr(make, "icr", False):
        return

    @wraps(make)
    def payload(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = make(*args, **kwargs)
        return {name: value for name, value in made.items() if name != "stop" or value}

    payload.icr = True  # type: ignore[attr-defined]
    lm._create_payload = payload
