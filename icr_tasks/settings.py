"""How the context reaches the model, as a string that parses and prints back to itself.

>>> str(Setting.parse("rag@32k,document"))
'rag@32k,document'
>>> str(Setting.parse("rag@4k+kv:snapkv@0.5").kv)
'kv:snapkv@0.5'

Equal settings print equally: defaults are not printed, options have an order. Retrievers, KV methods and
routes with their parameters come from the registries, so that a plugin's are written like ours. Options of
the kinds themselves are declared in `setting_options`. The grammar stands in docs/settings.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import cache_types
from .errors import IcrError, unknown
from .params import Flag, Param, Word
from .registry import KV_METHODS, RETRIEVERS, ROUTES, Entry
from .setting_options import (
    COMPAT_RESERVE,
    EMBEDDING,
    KV,
    ORDERS,
    PRINTED,
    RAG,
    SPLITS,
    check_rag,
    digests,
    kv_budget,
    parse_tokens,
    show_tokens,
)
from .setting_options import split_task as split_task

__all__ = ["EMBEDDING", "KV_NATIVE", "ORDERS", "SPLITS", "Setting", "parse_tokens", "pieces", "show_tokens"]

KINDS = ("full", "none", "gold", "rag", "kv", "route")
BY_DESIGN = "native"  # kv:native: nothing of ours compresses; the model's own cache is small
_COMPAT = {"instruction": False}  # the paper's choices, implied by paper_compat, beside the retriever dense
_SHORT = 2048  # token budgets of a KV method below this are printed in full: kv:snapkv@1024
KV_NATIVE = tuple(cache_types.NATIVE)  # cache types an engine brings itself; they take no parameters
_HEAD = re.compile(r"(?P<kind>[a-z]+)(?::(?P<name>[A-Za-z0-9_.\-]+))?(?:@(?P<amount>[^@]+))?\Z")
_PLUS = re.compile(rf"\+\s*(?=(?:{'|'.join(KINDS)})(?:[:@,+]|\s*\Z))")


def pieces(text: str) -> list[str]:
    """The parts of a setting string at its '+': `rag@4k+kv:topk` -> ["rag@4k", "kv:topk"]. A model's name may
    have one."""
    return [piece.strip() for piece in _PLUS.split(text.strip())]


@dataclass(frozen=True)
class Setting:
    """A parsed setting. `method` is the name after the colon (kv, route). `amount` is int tokens (rag, route,
    kv), float kept share (kv) or the word after @ (gold). `extra` are the options that differ from their
    defaults.

    `then` is the KV part of a combined setting (`rag@4k+kv:topk@0.05`), whose other fields are those of its
    first part.
    """

    kind: str
    method: str | None = None
    amount: int | float | str | None = None
    extra: tuple[tuple[str, Any], ...] = field(default=())
    then: Setting | None = None

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Parse a setting string. Raises IcrError naming the nearest match or the allowed range."""
        found = [_part(piece) for piece in pieces(text)]
        if len(found) == 1:
            return found[0]
        if len(found) > 2 or found[0].kind not in ("rag", "gold") or found[1].kind != "kv":
            raise IcrError(
                f"setting {text!r}: only rag@k or gold and one kv:METHOD after it are combined, e.g. "
                "rag@4k+kv:snapkv@0.5"
            )
        first, then = found
        return cls(first.kind, first.method, first.amount, first.extra, then)

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        head = self.kind + (f":{self.method}" if self.method else "")
        if self.amount is not None:
            short = self.kind == "kv" and isinstance(self.amount, int) and self.amount < _SHORT
            head += (
                f"@{show_tokens(self.amount) if isinstance(self.amount, int) and not short else self.amount}"
            )
        words = [_show(name, self._declared.get(name), value) for name, value in self.extra]
        return ",".join([head, *words]) + (f"+{self.then}" if self.then else "")

    @property
    def context(self) -> Setting:
        """The part that chooses the context: this setting without what follows the '+'."""
        return Setting(self.kind, self.method, self.amount, self.extra) if self.then else self

    @property
    def rag(self) -> Setting | None:
        """The part that retrieves (the first step of a route that does); None where nothing is retrieved."""
        if self.kind != "route":
            return self.context if self.kind == "rag" else None
        entry = ROUTES.get(str(self.method))
        if not entry.facts.get("retrieves"):
            return None
        return Setting(
            "rag", amount=self.amount, extra=tuple(o for o in self.extra if o[0] not in entry.params)
        )

    @property
    def kv(self) -> Setting | None:
        """The part that an engine acts on: this setting or what follows the '+'; None without compression of
        ours."""
        part = self if self.kind == "kv" else self.then
        return None if part is None or part.method == BY_DESIGN else part

    @property
    def compressed(self) -> bool:
        """True when the KV cache is not the full one."""
        return self.kv is not None

    @property
    def deployable(self) -> bool:
        """True for what somebody could serve; gold, none and retrievers like `oracle` are reference lines."""
        if self.rag:
            return not RETRIEVERS.get(self.params["retriever"]).facts.get("reference", False)
        return self.kind in ("full", "kv", "route")

    @cached_property
    def _declared(self) -> Mapping[str, Param]:
        """The parameters that this setting (its first part) may have."""
        if self.kind == "rag":
            own = RETRIEVERS.get(_retriever(dict(self.extra))).params
            return {**{name: option.param for name, option in RAG.items()}, **own}
        if self.kind == "route":
            return {**(self.rag._declared if self.rag else {}), **ROUTES.get(str(self.method)).params}
        if self.kind == "kv" and self.method not in (*KV_NATIVE, BY_DESIGN):
            return {**_method(str(self.method)).params, **{n: o.param for n, o in KV.items()}}
        return {}

    @property
    def _code(self) -> int:
        """Version of a KV method's code: how often it was changed so that its answers changed."""
        if self.kind != "kv" or self.method in (*KV_NATIVE, BY_DESIGN):
            return 1
        return int(_method(str(self.method)).facts.get("version", 1))

    @property
    def files(self) -> dict[str, str]:
        """Digest of each file that a KV method's options name: other contents are another run."""
        part = self.kv
        if part is None or part.method in KV_NATIVE:
            return {}
        return digests({n: part.params.get(n) for n in _method(str(part.method)).facts.get("files", ())})

    @cached_property
    def params(self) -> dict[str, Any]:
        """Every knob of this setting (of its first part, where two are combined), defaults filled in; quiet
        ones and empty names only where they are given."""
        given = dict(self.extra)
        quiet: Collection[str] = ()
        if self.kind == "route" and self.rag:
            return {**self.rag.params, **ROUTES.get(str(self.method)).defaults, **given}
        defaults = {name: param.default for name, param in self._declared.items()}
        if self.kind == "rag":
            defaults = _rag_defaults(self._declared, given, int(self.amount or 0))
            quiet = [n for n, o in RAG.items() if o.quiet and not any(given.get(need) for need in o.needs)]
        elif self.kind == "kv" and defaults:
            quiet = [n for n, o in KV.items() if o.quiet] + list(
                _method(str(self.method)).facts.get("quiet", ())
            )
        found = {**defaults, **given}
        return {n: v for n, v in found.items() if n in given or (n not in quiet and v != "")}

    @property
    def budget(self) -> int:
        """Context tokens of a rag setting: k, less 2048 with paper_compat."""
        return int(self.amount or 0) - (COMPAT_RESERVE if self.params.get("paper_compat") else 0)

    def describe(self) -> dict[str, Any]:
        """The fields run.json stores beside the string; all but `deployable` are part of the fingerprint."""
        return {**self._fields(), "deployable": self.deployable}

    def _fields(self) -> dict[str, Any]:
        return {
            "text": str(self),
            "kind": self.kind,
            "method": self.method,
            "amount": self.amount,
            "params": self.params,
            **({"code": self._code} if self._code > 1 else {}),
            **({"files": self.files} if self.kind == "kv" and self.files else {}),
            **({"then": self.then._fields()} if self.then else {}),
        }


# -- one part ----------------------------------------------------------------------------------------------


def _part(text: str) -> Setting:
    head, *options = (piece.strip() for piece in text.split(","))
    match = _HEAD.match(head)
    kind = match["kind"] if match else re.split(r"[:@+]", head)[0]
    if kind not in KINDS:
        raise unknown("setting", kind, KINDS)
    if "+" in head:
        raise unknown("setting after '+'", re.split(r"[:@]", head.partition("+")[2])[0], KINDS)
    if not match or "" in options:
        raise IcrError(
            f"setting {text!r} cannot be read: write {kind}, name and amount, then options after single "
            "commas"
        )
    parser = {"rag": _rag, "kv": _kv, "route": _route}.get(kind, _plain)
    return parser(kind, match["name"], match["amount"], options)


def _plain(kind: str, name: str | None, amount: str | None, options: Sequence[str]) -> Setting:
    allowed = {"gold": ("only",)}.get(kind, ())
    if name or options or (amount is not None and amount not in allowed):
        raise IcrError(
            f"setting {kind!r} takes no parameters" + (f" except @{allowed[0]}" if allowed else "")
        )
    return Setting(kind, amount=amount)


def _show(name: str, param: Param | None, value: Any) -> str:
    """An option as it is written; a bare word only where nothing else is written the same way."""
    if name == "retriever":
        return value if _owner(value) is None else f"{name}={value}"
    if isinstance(param, Word) and param.bare and _owner(value) in (None, name) and value not in RETRIEVERS:
        return str(value)
    if value is True and _owner(name) in (None, name) and name not in RETRIEVERS:
        return name
    return f"{name}={param.show(value) if param else value}"


def _owner(word: str) -> str | None:
    """The option of the kinds themselves that a bare word gives."""
    for name, option in {**RAG, **KV}.items():
        if word == name or (
            isinstance(option.param, Word) and option.param.bare and word in option.param.words
        ):
            return name
    return None


def _given(head: str, options: Sequence[str], params: Mapping[str, Param]) -> dict[str, str | None]:
    """Options as name -> text (None: a name alone). A word alone that a bare parameter of `params` has is its
    value."""
    found: dict[str, str | None] = {}
    for option in options:
        name, sep, value = (piece.strip() for piece in option.partition("="))
        if not sep:
            for known, param in params.items():
                if isinstance(param, Word) and param.bare and name in param.words:
                    name, sep, value = known, "=", name
                    break
        if sep and not value:
            raise IcrError(f"{head}: {name}= has no value; write {name}=VALUE or leave it out")
        if name in found:
            raise IcrError(f"{head} gives {name} twice")
        found[name] = value if sep else None
    return found


def _values(owner: str, given: Mapping[str, str | None], params: Mapping[str, Param]) -> dict[str, Any]:
    """Texts as values of their types. Raises IcrError in one sentence."""
    found = {}
    for name, text in given.items():
        if text is None and not isinstance(params[name], Flag):
            raise IcrError(f"{owner}: {name} needs a value, {name}=...")
        found[name] = params[name].parse(owner, name, True if text is None else text)
    return found


def _changed(values: Mapping[str, Any], plain: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What differs from the defaults, in the order of printing: `plain` has the order of declaration."""
    order = [n for n in PRINTED if n in values] + [n for n in plain if n in values and n not in PRINTED]
    return tuple((n, values[n]) for n in order if values[n] != plain.get(n))


# -- rag ---------------------------------------------------------------------------------------------------


def _retriever(given: Mapping[str, Any]) -> str:
    """The retriever that is named, or follows from the other options."""
    implied = "dense" if given.get("paper_compat") or "embedder" in given else "bm25"
    return str(given.get("retriever", implied))


def _rag_defaults(declared: Mapping[str, Param], given: Mapping[str, Any], amount: int) -> dict[str, Any]:
    """Defaults that depend on other values: paper_compat's choices, smaller chunks when k is below one
    chunk."""
    out = {"retriever": _retriever(given), **{name: param.default for name, param in declared.items()}}
    if amount < out["chunk"]:
        out["chunk"] = max(amount // 4, 1)
    if given.get("paper_compat"):
        out.update({name: value for name, value in _COMPAT.items() if name in declared})
    return out


def _rag(kind: str, name: str | None, amount: str | None, options: Sequence[str]) -> Setting:
    if amount is None:
        raise IcrError("setting 'rag' needs a token budget: rag@4k, rag@32k ...")
    k, head = parse_tokens(amount), f"rag@{amount}"
    mine = {n: option.param for n, option in RAG.items()}
    # A word alone that is no option names the retriever, whose own words can only be read after that.
    words = [w for w in options if "=" not in w and _owner(w) is None and w in RETRIEVERS]
    named = ([f"retriever={name}"] if name else []) + [f"retriever={word}" for word in words]
    rest = [option for option in options if option not in words]
    first = _given(head, [*named, *rest], mine)
    compat = _values("rag parameter", {n: t for n, t in first.items() if n == "paper_compat"}, mine)
    chosen = _retriever({**first, "paper_compat": False, **compat})
    entry = RETRIEVERS.get(chosen)
    if clash := [n for n in entry.params if n in (*RAG, "retriever")]:
        raise IcrError(f"retriever {chosen} declares {clash[0]}, which is an option of rag itself; rename it")
    declared = {**mine, **entry.params}
    texts = _given(head, [*named, *rest], declared)
    texts.pop("retriever", None)
    for option in texts:
        if option not in declared:
            if belongs := [e.name for e in RETRIEVERS.entries() if option in e.params]:
                kinds = f"the retriever{'s' if len(belongs) > 1 else ''} {' and '.join(belongs)}"
                raise IcrError(f"{option}= belongs to {kinds}, not {chosen}")
            raise unknown("rag parameter", option, [*declared, "retriever", *RETRIEVERS, *ORDERS])
    given = _values("rag parameter", texts, declared)
    for option in (o for o in given if o in RAG and RAG[o].needs):
        if not any(given.get(need) for need in RAG[option].needs):
            ways = " or ".join(f"{n}=..." for n in RAG[option].needs)
            raise IcrError(f"{option}= means nothing alone; give {ways} as well")
    plain = _rag_defaults(declared, {**given, "retriever": chosen}, k)
    merged = {**plain, **given}
    check_rag(merged, k)
    plain["retriever"] = "dense" if merged["paper_compat"] else "bm25"
    return Setting(kind, amount=k, extra=_changed(merged, plain))


# -- route -------------------------------------------------------------------------------------------------


def _route(kind: str, name: str | None, amount: str | None, options: Sequence[str]) -> Setting:
    if name is None or amount is None:
        raise IcrError("setting 'route' needs a name and a token budget: route:NAME@4k")
    entry = ROUTES.get(name)
    retrieving: tuple[tuple[str, Any], ...] = ()
    if entry.facts.get("retrieves"):
        own = [o for o in options if o.partition("=")[0].strip() in entry.params]
        retrieving = _rag("rag", None, amount, [o for o in options if o not in own]).extra
        options = own
    given = _given(f"route:{name}", options, entry.params)
    for option in given:
        if option not in entry.params:
            raise unknown(f"route:{name} parameter", option, entry.params)
    values = _values(f"route:{name}", given, entry.params)
    return Setting(kind, name, parse_tokens(amount), retrieving + _changed(values, entry.defaults))


# -- kv ----------------------------------------------------------------------------------------------------


def _method(name: str) -> Entry[Any]:
    """The entry of a method, or of a kvpress press (`press.NAME`)."""
    entry = KV_METHODS.get("press" if name.startswith("press.") else name)
    if name.startswith("press.") and name.removeprefix("press.") not in entry.facts["names"]:
        raise unknown("kvpress press", name.removeprefix("press."), entry.facts["names"])
    return entry


def _kv(kind: str, name: str | None, amount: str | None, options: Sequence[str]) -> Setting:
    if name is None:
        raise IcrError("setting 'kv' needs a method: kv:topk@0.05, kv:snapkv@0.5, kv:fp8 ...")
    if name in (*KV_NATIVE, BY_DESIGN):
        if amount is not None or options:
            what = "the model as it is" if name == BY_DESIGN else "the engine's own cache type"
            raise IcrError(f"kv:{name} is {what} and takes no parameters")
        return Setting(kind, name)
    if name == "press":
        raise IcrError("kv:press needs the name of a kvpress class: kv:press.SnapKV@0.5")
    entry = _method(name)
    declared = {**entry.params, **{n: option.param for n, option in KV.items()}}
    given = _given(f"kv:{name}", options, declared)
    for option in given:
        if option not in declared:
            raise unknown(f"kv:{name} parameter", option, [*declared, *SPLITS])
    values = _values(f"kv:{name}", given, declared)
    plain = {n: param.default for n, param in declared.items()}
    size = (
        entry.facts.get("budget") if amount is None else kv_budget(name, amount, entry, {**plain, **values})
    )
    return Setting(kind, name, size, _changed(values, plain))
