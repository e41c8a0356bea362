"""What is changed on a loaded engine of lm-eval for our requests, because its defaults are no facts.

Its API engines cut prompts to 2047 tokens from the left (its transformers engine to 2048, where a model does not
say its length), send `"stop": []` where a task has no stop strings, which strict servers refuse, and end in a
bare KeyError or ValueError where a server answers with fewer choices or none.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from ..context.window import Window
from ..errors import IcrError

_ANY = 1 << 40  # tokens: nothing is cut


def prepare(lm: Any, window: Window) -> None:
    """Let an engine take what was built to fit `window`, and leave empty parameters out."""
    if hasattr(lm, "_create_payload"):
        lm.max_length = window.size or _ANY
        _leave_out(lm)
        _count_answers(lm)
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


def _count_answers(lm: Any) -> None:
    read = lm.parse_generations
    if getattr(read, "icr", False):
        return

    @wraps(read)
    def parse(*args: Any, **kwargs: Any) -> list[Any]:
        advice = "look at what the server returns, or use --model icr-api, which fails such an item alone"
        try:
            _check(args[0] if args else kwargs["outputs"])
            found = read(*args, **kwargs)
        except (KeyError, IndexError, TypeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise IcrError(
                f"a server's answer has no text where one belongs ({said}); {advice}", exit_code=3
            ) from error
        asked = kwargs.get("contexts")
        if not found or (asked is not None and len(found) != len(asked)):
            raise IcrError(
                f"a server gave {len(found)} answers to {len(asked) if asked is not None else 1} prompts; {advice}",
                exit_code=3,
            )
        return found

    parse.icr = True  # type: ignore[attr-defined]
    lm.parse_generations = parse


def _check(outputs: Any) -> None:
    """lm_eval takes whatever it cannot read for a blocked answer, an empty one. Raises KeyError or TypeError for
    what is no answer; a message without content may be a blocked one, and is marked as one that never ended."""
    for out in outputs if isinstance(outputs, list) else [outputs]:
        if not isinstance(out, dict) or not isinstance(out["choices"], list):
            raise TypeError(f"no list of choices: {str(out)[:80]}")
        for choice in out["choices"]:
            if not isinstance(choice.get("message", {}) if isinstance(choice, dict) else None, dict):
                raise TypeError(f"a choice is no message: {str(choice)[:80]}")
            if not {"message", "text"} & choice.keys():
                raise KeyError("message")
