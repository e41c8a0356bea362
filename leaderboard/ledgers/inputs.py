"""What tells runs apart: the inputs of their fingerprints, as flat names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model_args": {"dtype": "float32"}} as {"model_args.dtype": "float32"}, at any depth."""
    found: dict[str, Any] = {}
    for k, v in value.items():
        found |= flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}": v}
    return found


def differing(heads: Sequence[dict[str, Any]], told: Collection[str] = ()) -> list[str]:
    """For each run.json what its inputs have that is not the same in all of them, as "prompt=id dtype=float32"
    sorted by the inputs' full names, without those in `told`; "" where nothing else differs."""
    each = [flat(head.get("fingerprint_inputs") or {}) for head in heads]
    names = sorted({k for f in each for k in f if k.split(".")[0] not in told and k not in told})
    names = [k for k in names if len({repr(f.get(k)) for f in each}) > 1]
    # One part where two inputs say the same: a command's gen_kwargs are among those of the run.
    return [" ".join(dict.fromkeys(f"{k.split('.')[-1]}={f[k]}" for k in names if k in f)) for f in each]


def switches(head: dict[str, Any]) -> str:
    """What switches the thoughts of a run's model, for its name; empty where nothing does."""
    inputs = flat(head.get("fingerprint_inputs") or {})
    return " ".join(f"{k.split('.')[-1]}={inputs[k]}" for k in sorted(inputs) if _switches(k))[:80]


def thoughts(head: dict[str, Any]) -> str:
    """`switches` to be compared: whole, and the same however a command line spelled it (JSON as text, false or False)."""
    given = {k: v for k, v in flat(head.get("fingerprint_inputs") or {}).items() if _switches(k)}
    found: set[str] = set()
    for name, value in given.items():
        try:
            read = orjson.loads(value) if isinstance(value, str) else value
        except orjson.JSONDecodeError:
            read = value
        parts = flat(read) if isinstance(read, dict) else {name: read}
        found |= {f"{k.split('.')[-1]}={str(v).strip().lower()}" for k, v in parts.items()}
    return " ".join(sorted(found))


def _switches(name: str) -> bool:
    """Whether an input of a run says how its model thinks: our option, or arguments of the chat template."""
    return (
        name == "thinking"
        or name.startswith("model_args.")
        and any(word in name for word in ("chat_template_args", "chat_template_kwargs", "enable_thinking"))
    )
