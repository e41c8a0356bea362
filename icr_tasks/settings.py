"""How the context reaches the model, as a string that parses and prints back to itself.

>>> str(Setting.parse("rag@32k,document"))
'rag@32k,document'
>>> Setting.parse("kv:topk@0.05,window=64").params["window"]
64
>>> str(Setting.parse("rag@4k+kv:snapkv@1024").kv)
'kv:snapkv@1k'

    setting = kind [ "+" kv ]                      rag@32k+kv:snapkv@0.5: retrieve, then compress
    kind    = "full" | "none" | "gold" [ "@only" ] | "rag@" amount { "," option } | kv
    kv      = "kv:" method [ "@" budget ] { "," option }
    amount  = whole [ "k" | "M" ]                  tokens of the evaluated tokenizer (4k = 4096)
    budget  = share | amount                       a number with a point is a share, a whole one is tokens
    option  = flag | name "=" value                declared as data

Equal settings print equally: defaults are not printed. Retrievers, KV methods and their parameters come from the
registries, so that a plugin's are written like ours. An option of every `rag` setting is one entry in RAG.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .errors import IcrError, unknown
from .params import Flag, Name, Param, Tokens, Whole, Word
from .params import parse_tokens as parse_tokens
from .registry import KV_METHODS, RETRIEVERS

KINDS = ("full", "none", "gold", "rag", "kv")
REFERENCES = ("oracle", "random", "head")  # retrievers nobody would serve: reference lines, never ranked
ORDERS = ("score", "document", "reverse")  # reverse: best last, next to the question
SPLITS = ("query-aware", "query-agnostic")  # whether the question is seen while the cache is built
# Options of every rag setting, in the order in which they are printed; a retriever's own follow.
RAG: dict[str, Param] = {
    "retriever": Name("bm25"),
    "order": Word("score", words=ORDERS, bare=True),
    "chunk": Tokens(2048, low=1),
    "overlap": Tokens(0, low=0),
    "paper_compat": Flag(False),
    "seed": Whole(0, low=0),
    "rerank": Name("", "a model that orders the best `depth` chunks anew"),
    "depth": Whole(50, low=1),
    "neighbours": Whole(0, low=0),
    "decompose": Flag(False),
    "iterate": Whole(0, low=0),
    "asker": Name("rules", "who says what to search for next: rules, or a served model"),
}
# Stages that a setting has only where it asks for them, and the options that then stand beside them.
_STAGES = {"rerank": ("depth",), "neighbours": (), "decompose": ("asker",), "iterate": ("asker",)}
# What retrievers with an embedder share (`context.retrieval.dense` registers with them).
EMBEDDING: dict[str, Param] = {
    "embedder": Name("Qwen/Qwen3-Embedding-4B"),
    "revision": Name(""),
    "instruction": Flag(True),
}
_PRINTED = (
    "retriever",
    "order",
    "chunk",
    "overlap",
    "instruction",
    "paper_compat",
    "seed",
    "embedder",
    "revision",
)
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


def show_tokens(n: int) -> str:
    """Inverse of parse_tokens in its shortest form: 4096 -> `4k`."""
    if n % 1024**2 == 0:
        return f"{n // 1024**2}M"
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


@dataclass(frozen=True)
class Setting:
    """A parsed setting. `amount` is int tokens (rag, kv), float kept share (kv) or the word after @ (gold).

    `then` is the KV part of a combined setting (`rag@4k+kv:topk@0.05`), whose other fields are those of its first part.
    """

    kind: str
    method: str | None = None
    amount: int | float | str | None = None
    extra: tuple[tuple[str, Any], ...] = field(default=())
    then: Setting | None = None

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Parse a setting string. Raises IcrError naming the nearest match or the allowed range."""
        first, plus, second = text.strip().partition("+")
        found = _part(first)
        if not plus:
            return found
        if found.kind not in ("rag", "gold"):
            raise IcrError(
                f"setting {text!r}: only rag@k and gold are combined with a KV method, not {found.kind!r}"
            )
        then = _part(second)
        if then.kind != "kv":
            raise IcrError(f"setting {text!r}: after '+' stands a KV method, e.g. {first}+kv:snapkv@0.5")
        return cls(found.kind, found.method, found.amount, found.extra, then)

    def __str__(self) -> str:
        head = self.kind + (f":{self.method}" if self.method else "")
        if self.amount is not None:
            head += f"@{show_tokens(self.amount) if isinstance(self.amount, int) else self.amount}"
        shown = [_print(name, value) for name, value in self.extra]
        return ",".join([head, *shown]) + (f"+{self.then}" if self.then else "")

    @property
    def kv(self) -> Setting | None:
        """The part that an engine acts on: this setting or what follows the '+'; None without compression."""
        return self if self.kind == "kv" else self.then

    @property
    def compressed(self) -> bool:
        """True when the KV cache is not the full one."""
        return self.kv is not None

    @property
    def deployable(self) -> bool:
        """True for what somebody could serve; gold, none and retrievers like `oracle` are reference lines."""
        if self.kind == "rag":
            return self.params["retriever"] not in REFERENCES
        return self.kind in ("full", "kv")

    @cached_property
    def params(self) -> dict[str, Any]:
        """Every knob of this setting (of its first part, where two are combined), defaults filled in."""
        if self.kind == "kv" and self.method not in KV_NATIVE:
            return {**_knobs(str(self.method))[1], "split": SPLITS[0], **dict(self.extra)}
        if self.kind != "rag":
            return dict(self.extra)
        params = {**_rag_defaults(dict(self.extra), int(self.amount or 0)), **dict(self.extra)}
        on = [name for name in _STAGES if params[name]]
        shown = {*on, *(more for name in on for more in _STAGES[name])}
        off = {*_STAGES, "depth", "asker"} - shown | ({"revision"} if not params.get("revision") else set())
        return {name: value for name, value in params.items() if name not in off}

    @property
    def budget(self) -> int:
        """Context tokens of a rag setting: k, less 2048 with paper_compat."""
        return int(self.amount or 0) - (_COMPAT_RESERVE if self.params.get("paper_compat") else 0)

    def describe(self) -> dict[str, Any]:
        """The fields run.json stores beside the string, so readers need no parser."""
        return {
            "text": str(self),
            "kind": self.kind,
            "method": self.method,
            "amount": self.amount,
            "params": self.params,
            **({"then": self.then.describe()} if self.then else {}),
        }


# -- one part ----------------------------------------------------------------------------------------------------------


def _part(text: str) -> Setting:
    match = _PATTERN.match(text.strip())
    kind = match["kind"] if match else re.split(r"[:@,]", text.strip())[0]
    if not match or kind not in KINDS:
        raise unknown("setting", text if kind in KINDS else kind, KINDS)
    parts = [p.strip() for p in match["rest"].split(",") if p.strip()]
    return {"rag": _rag, "kv": _kv}.get(kind, _plain)(kind, match["method"], match["amount"], parts)


def _print(name: str, value: Any) -> str:
    if name in ("retriever", "order", "split"):
        return str(value)
    if value is True:
        return name
    return f"{name}={'off' if value is False else value}"


def _plain(kind: str, method: str | None, amount: str | None, parts: list[str]) -> Setting:
    allowed = {"gold": ("only",)}.get(kind, ())
    if method or parts or (amount is not None and amount not in allowed):
        raise IcrError(
            f"setting {kind!r} takes no parameters" + (f" except @{allowed[0]}" if allowed else "")
        )
    return Setting(kind, amount=amount)


# -- rag ---------------------------------------------------------------------------------------------------------------


def _own(retriever: str) -> Mapping[str, Param]:
    """A retriever's own parameters; those of an unknown one are refused where it is named."""
    return RETRIEVERS.get(retriever).params


def _rag_defaults(given: Mapping[str, Any], amount: int) -> dict[str, Any]:
    """Defaults that depend on other values: paper_compat's choices, smaller chunks when k is below one chunk."""
    out = {name: param.default for name, param in RAG.items()}
    if amount < out["chunk"]:
        out["chunk"] = max(amount // 4, 1)
    if given.get("paper_compat"):
        out.update(_COMPAT)
    elif "embedder" in given:
        out["retriever"] = "dense"
    own = _own(given.get("retriever", out["retriever"]))
    return {**{name: param.default for name, param in own.items()}, **out}


def _rag(kind: str, method: str | None, amount: str | None, parts: list[str]) -> Setting:
    if amount is None:
        raise IcrError("setting 'rag' needs a token budget: rag@4k, rag@32k ...")
    given: dict[str, Any] = {} if method is None else {"retriever": method}
    texts: dict[str, str] = {}
    for part in parts:
        name, sep, value = part.partition("=")
        if not sep and (part in RETRIEVERS or part in ORDERS):
            name, value = ("order" if part in ORDERS else "retriever"), part
        if name in texts or (name == "retriever" and name in given):
            raise IcrError(f"rag@{amount} gives {name} twice")
        texts[name] = value
    if "retriever" in texts:
        given["retriever"] = texts.pop("retriever")
    compat = RAG["paper_compat"].parse("rag", "paper_compat", texts.get("paper_compat", False))
    implied = "dense" if compat or "embedder" in texts else "bm25"
    retriever = RETRIEVERS.get(str(given.get("retriever", implied))).name
    known = {**RAG, **_own(retriever)}
    for name, value in texts.items():
        if name not in known:
            if belongs := [e.name for e in RETRIEVERS.entries() if name in e.params]:
                raise IcrError(f"{name}= belongs to the retrievers {' and '.join(belongs)}, not {retriever}")
            raise unknown("rag parameter", name, [*RAG, *_own(retriever), *RETRIEVERS, *ORDERS])
        given[name] = known[name].parse("rag parameter", name, value)
    k = parse_tokens(amount)
    merged = {**_rag_defaults(given, k), **given}
    _check_rag(merged, k)
    if "depth" in given and not merged["rerank"]:
        raise IcrError("depth= is how many chunks a reranker reads; give rerank=MODEL as well")
    if "asker" in given and not (merged["decompose"] or merged["iterate"]):
        raise IcrError("asker= asks for decompose or iterate=N; give one of them as well")
    plain = {**_rag_defaults(given, k), "retriever": "dense" if merged["paper_compat"] else "bm25"}
    order = [n for n in _PRINTED if n in merged] + [n for n in merged if n not in _PRINTED]
    return Setting(kind, amount=k, extra=tuple((n, merged[n]) for n in order if merged[n] != plain.get(n)))


def _check_rag(merged: Mapping[str, Any], k: int) -> None:
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


# -- kv ----------------------------------------------------------------------------------------------------------------


def _knobs(method: str) -> tuple[Mapping[str, Param], dict[str, Any], Any]:
    """(parameters, their defaults, default budget) of a method or of a kvpress press (`press.NAME`)."""
    entry = KV_METHODS.get("press" if method.startswith("press.") else method)
    if method.startswith("press.") and method.removeprefix("press.") not in entry.facts["names"]:
        raise unknown("kvpress press", method.removeprefix("press."), entry.facts["names"])
    return entry.params, entry.defaults, entry.facts["budget"]


def _kv(kind: str, method: str | None, amount: str | None, parts: list[str]) -> Setting:
    if method is None:
        raise IcrError("setting 'kv' needs a method: kv:topk@0.05, kv:snapkv@0.5, kv:fp8 ...")
    if method in KV_NATIVE:
        if amount is not None or parts:
            raise IcrError(f"kv:{method} is the engine's own cache type and takes no parameters")
        return Setting(kind, method)
    if method == "press":
        raise IcrError("kv:press needs the name of a kvpress class: kv:press.SnapKV@0.5")
    params, defaults, budget = _knobs(method)
    given: dict[str, Any] = {}
    for part in parts:
        name, sep, value = part.partition("=")
        if not sep and part in SPLITS:
            name, value = "split", part
        if name in given:
            raise IcrError(f"kv:{method} gives {name} twice")
        if name == "split":
            given[name] = Word(SPLITS[0], words=SPLITS).parse(f"kv:{method}", name, value)
        elif name not in params:
            raise unknown(f"kv:{method} parameter", name, params)
        else:
            given[name] = params[name].parse(f"kv:{method}", name, value)
    size = budget if amount is None else _budget(method, amount)
    order = [n for n in params if n in given and given[n] != defaults[n]]
    extra = [(n, given[n]) for n in order]
    if given.get("split", SPLITS[0]) != SPLITS[0]:
        extra.append(("split", given["split"]))
    return Setting(kind, method, size, tuple(extra))


def _budget(method: str, text: str) -> int | float:
    """A share of the prompt (a number with a point) or a number of tokens (whole, 2 or more)."""
    if re.fullmatch(r"[1-9]\d*[kKmM]?", text) and text != "1":
        tokens = parse_tokens(text)
        if method.startswith("press."):
            raise IcrError(f"kv:{method} takes a share, e.g. kv:{method}@0.5, not {text} tokens")
        return tokens
    if text == "1":
        raise IcrError(
            f"kv budget 1 may mean the whole cache or one token; write kv:{method}@1.0, or a token count"
        )
    try:
        share = float(text)
    except ValueError:
        raise IcrError(
            f"kv budget {text!r} is not a number; write the kept share, e.g. kv:{method}@0.05, or tokens, kv:{method}@1k"
        ) from None
    if not 0 < share <= 1:
        raise IcrError(
            f"kv budget {text} is outside (0, 1]; it is the share of the cache kept or read (tokens: 1024, 4k)"
        )
    return share
