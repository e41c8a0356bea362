"""How the context reaches the model, as a string that parses and prints back to itself.

>>> str(Setting.parse("rag@32k,document"))
'rag@32k,document'
>>> Setting.parse("kv:topk@0.05,window=64").params["window"]
64

Grammar: `kind[:method][@amount][,flag][,name=value]`. Kinds: full, none, gold, rag, kv. Defaults are not
printed, so equal settings are equal strings. Amounts: tokens for rag (`4k` = 4096), kept share for kv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .errors import IcrError, unknown

KINDS = ("full", "none", "gold", "rag", "kv")
RETRIEVERS = ("bm25", "dense", "hybrid", "oracle", "random", "head")
ORDERS = ("score", "document", "reverse")  # reverse: best last, next to the question
# name -> default, per kind; a flag is the bare value of one of the enumerations below
RAG_PARAMS: dict[str, Any] = {
    "retriever": "bm25",
    "order": "score",
    "chunk": 2048,
    "overlap": 0,
    "instruction": True,
    "paper_compat": False,
    "seed": 0,
    "embedder": "Qwen/Qwen3-Embedding-4B",
    "revision": "",
}
EMBEDDING = ("dense", "hybrid")  # retrievers that use embedder, revision and instruction
_EMBEDDING_ONLY = ("embedder", "revision", "instruction")
_COMPAT = {"retriever": "dense", "instruction": False}  # the paper's choices, implied by paper_compat
_COMPAT_RESERVE = 2048  # tokens the released code takes off k
# cache types an engine brings itself; they take no parameters
KV_NATIVE = (
    "auto",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "float16",
    "bfloat16",
    "nvfp4",
    "nvfp4_4over6",
    "int4_per_token_head",
    "int8_per_token_head",
    "fp8_per_token_head",
    "turboquant_k8v4",
    "turboquant_4bit_nc",
    "turboquant_k3v4_nc",
    "turboquant_3bit_nc",
)
_PATTERN = re.compile(
    r"(?P<kind>[a-z]+)(?::(?P<method>[A-Za-z0-9_.\-]+))?(?:@(?P<amount>[^,]+))?(?P<rest>(?:,[^,]+)*)\Z"
)


def parse_tokens(text: str) -> int:
    """`"512"` -> 512, `"4k"` -> 4096, `"1M"` -> 1048576. Raises IcrError on anything else."""
    match = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    if not match or int(match[1]) == 0:
        raise IcrError(f"{text!r} is not a token count; write 512, 4k, 128k or 1M")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]


def show_tokens(n: int) -> str:
    """Inverse of parse_tokens in its shortest form: 4096 -> `4k`."""
    if n % 1024**2 == 0:
        return f"{n // 1024**2}M"
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


def _value(text: str) -> Any:
    if text.lower() in ("true", "on", "yes"):
        return True
    if text.lower() in ("false", "off", "no"):
        return False
    for cast in (int, float):
        try:
            return cast(text)
        except ValueError:
            continue
    return text


def _print_value(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


@dataclass(frozen=True)
class Setting:
    """A parsed setting. `amount` is int tokens (rag), float kept share (kv) or the word after @ (gold)."""

    kind: str
    method: str | None = None
    amount: int | float | str | None = None
    extra: tuple[tuple[str, Any], ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Parse a setting string. Raises IcrError naming the nearest match or the allowed range."""
        match = _PATTERN.match(text.strip())
        kind = match["kind"] if match else re.split(r"[:@,]", text.strip())[0]
        if not match or kind not in KINDS:
            raise unknown("setting", text if kind in KINDS else kind, KINDS)
        parts = [p.strip() for p in match["rest"].split(",") if p.strip()]
        return _PARSERS[kind](kind, match["method"], match["amount"], parts)

    def __str__(self) -> str:
        head = self.kind + (f":{self.method}" if self.method else "")
        if self.amount is not None:
            shown = show_tokens(self.amount) if self.kind == "rag" else _print_value(self.amount)
            head += f"@{shown}"
        flags = {"retriever", "order", "split"}
        words = [
            str(v) if k in flags else k if v is True else f"{k}={_print_value(v)}" for k, v in self.extra
        ]
        return ",".join([head, *words])

    @cached_property
    def params(self) -> dict[str, Any]:
        """Every knob with its value, defaults filled in."""
        if self.kind == "kv" and self.method not in KV_NATIVE:
            from . import kv

            return {**kv.spec(str(self.method)).params, "split": "query-aware", **dict(self.extra)}
        if self.kind != "rag":
            return dict(self.extra)
        params = {**_rag_defaults(dict(self.extra), int(self.amount or 0)), **dict(self.extra)}
        unused = [] if params["retriever"] in EMBEDDING else list(_EMBEDDING_ONLY)
        return {k: v for k, v in params.items() if k not in unused and (k != "revision" or v)}

    @property
    def budget(self) -> int:
        """Context tokens of a rag setting: k, less 2048 with paper_compat."""
        return int(self.amount or 0) - (_COMPAT_RESERVE if self.params.get("paper_compat") else 0)

    @property
    def compressed(self) -> bool:
        """True when the KV cache is not the full one."""
        return self.kind == "kv"

    def describe(self) -> dict[str, Any]:
        """The fields run.json stores beside the string, so readers need no parser."""
        return {
            "text": str(self),
            "kind": self.kind,
            "method": self.method,
            "amount": self.amount,
            "params": self.params,
        }


def _plain(kind: str, method: str | None, amount: str | None, parts: list[str]) -> Setting:
    allowed = {"gold": ("only",)}.get(kind, ())
    if method or parts or (amount is not None and amount not in allowed):
        raise IcrError(
            f"setting {kind!r} takes no parameters" + (f" except @{allowed[0]}" if allowed else "")
        )
    return Setting(kind, amount=amount)


def _rag_defaults(given: dict[str, Any], amount: int) -> dict[str, Any]:
    """Defaults that depend on other values: paper_compat's choices, smaller chunks when k is below one
    chunk."""
    out = dict(RAG_PARAMS)
    if amount < out["chunk"]:
        out["chunk"] = max(amount // 4, 1)
    if given.get("paper_compat"):
        out.update(_COMPAT)
    elif "embedder" in given:
        out["retriever"] = "dense"
    return out


def _rag(kind: str, method: str | None, amount: str | None, parts: list[str]) -> Setting:
    if amount is None:
        raise IcrError("setting 'rag' needs a token budget: rag@4k, rag@32k ...")
    given: dict[str, Any] = {} if method is None else {"retriever": method}
    for part in parts:
        name, sep, value = part.partition("=")
        if not sep and part in RETRIEVERS + ORDERS:
            name, value = ("retriever" if part in RETRIEVERS else "order"), part
        elif name not in RAG_PARAMS:
            raise unknown("rag parameter", name, [*RAG_PARAMS, *RETRIEVERS, *ORDERS])
        given[name] = _rag_value(name, value, sep)
    k = parse_tokens(amount)
    merged = {**_rag_defaults(given, k), **given}
    _check_rag(given, merged, k)
    plain = {**_rag_defaults(given, k), "retriever": "dense" if merged["paper_compat"] else "bm25"}
    return Setting(kind, amount=k, extra=tuple((n, merged[n]) for n in RAG_PARAMS if merged[n] != plain[n]))


def _rag_value(name: str, value: str, sep: str) -> Any:
    if name in ("embedder", "revision"):  # a revision of digits stays text
        return value
    if name in ("chunk", "overlap") and value[-1:] in tuple("kK"):
        return parse_tokens(value)
    return _value(value) if sep else (value or True)


def _check_rag(given: dict[str, Any], merged: dict[str, Any], k: int) -> None:
    for name, known in (("retriever", RETRIEVERS), ("order", ORDERS)):
        if merged[name] not in known:
            raise unknown(name, str(merged[name]), known)
    for name, low in (("chunk", 1), ("overlap", 0), ("seed", 0)):
        if isinstance(merged[name], bool) or not isinstance(merged[name], int) or merged[name] < low:
            raise IcrError(f"rag parameter {name}={merged[name]} must be a whole number >= {low}")
    for name in ("instruction", "paper_compat"):
        if not isinstance(merged[name], bool):
            raise IcrError(f"rag parameter {name}={merged[name]} must be on or off")
    if merged["overlap"] >= merged["chunk"]:
        raise IcrError(f"rag overlap {merged['overlap']} must be smaller than chunk {merged['chunk']}")
    if merged["chunk"] > k:
        raise IcrError(
            f"rag@{show_tokens(k)} cannot hold one chunk of {merged['chunk']} tokens; use chunk={k} or less"
        )
    if merged["paper_compat"] and (k <= _COMPAT_RESERVE or merged["order"] != "score"):
        raise IcrError(
            "paper_compat keeps k - 2048 tokens in score order: it needs k above 2k and no other order"
        )
    if merged["retriever"] not in EMBEDDING and (useless := [n for n in _EMBEDDING_ONLY if n in given]):
        raise IcrError(
            f"{useless[0]}= belongs to the retrievers {' and '.join(EMBEDDING)}, not {merged['retriever']}"
        )


def _kv(kind: str, method: str | None, amount: str | None, parts: list[str]) -> Setting:
    from . import kv

    if method is None:
        raise IcrError("setting 'kv' needs a method: kv:topk@0.05, kv:snapkv@0.5, kv:fp8 ...")
    if method in KV_NATIVE:
        if amount is not None or parts:
            raise IcrError(f"kv:{method} is the engine's own cache type and takes no parameters")
        return Setting(kind, method)
    spec = kv.spec(method)
    share = spec.budget
    if amount is not None:
        try:
            share = float(amount)
        except ValueError:
            raise IcrError(
                f"kv budget {amount!r} is not a number; write the kept share, e.g. kv:{method}@0.05"
            ) from None
        if not 0 < share <= 1:
            raise IcrError(f"kv budget {amount} is outside (0, 1]; it is the share of the cache kept or read")
    given: dict[str, Any] = {}
    for part in parts:
        name, sep, value = part.partition("=")
        if not sep and part in kv.SPLITS:
            name, value = "split", part
        if name in given:
            raise IcrError(f"kv:{method} gives {name} twice")
        given[name] = value if name == "split" else _value(value) if sep else True
    split = given.pop("split", "query-aware")  # the default: the question is seen while the cache is built
    if split not in kv.SPLITS:
        raise unknown("split", str(split), kv.SPLITS)
    extra = kv.check(method, given)
    return Setting(
        kind, method, share, (*extra.items(), *((("split", split),) if split != "query-aware" else ()))
    )


_PARSERS = {"full": _plain, "none": _plain, "gold": _plain, "rag": _rag, "kv": _kv}
