"""What is a credential, decided here and nowhere else: by its key (what an option, header or query field is called) and by its
value (what the text looks like). Everything that is shown, logged or written goes through `redact_text`, `redact_url`,
`redacted` or a `Redactor`; `found_secrets` is how `icr check` finds what an older version let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HIDDEN = "***"
_NO_SECRET = (HIDDEN, "", "None", "True", "False", "null", "true", "false", "Bearer", "Basic")
_ALWAYS = _words(
    """apikey authorization auth bearer cookie cookies credential credentials header headers passphrase passwd password
    pwd secret secrets"""
)
# "..._key" and "..._token" are secrets behind these words; bos_token, think_end_token, cache_key are not.
_KEY_OF = _words("api access account auth encryption master private secret service sign signing")
_TOKEN_IS_TEXT = _words(
    """add audio begin bos chunk cls delimiter each end eod eos eot first image last mask newline next pad per prefix
    sep separator special start stop think unk video"""
)
# What keys of known services look like, and anything behind "Bearer".
_LONG = r"(?=[A-Za-z0-9_-]*[0-9A-Z]|[A-Za-z0-9_-]{16})"
_KEY_LIKE = re.compile(
    rf"(?<![A-Za-z0-9_])(?:sk-{_LONG}[A-Za-z0-9_-]{{8,}}|hf_{_LONG}[A-Za-z0-9]{{8,}}|gh[pousr]_[A-Za-z0-9]{{16,}}"
    r"|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,}|xox[abposr]-[A-Za-z0-9-]{8,}|A[KS]IA[0-9A-Z]{12,}"
    r"|AIza[A-Za-z0-9_-]{20,}|(?:nvapi|xai|pplx|csk)-[A-Za-z0-9_-]{16,}|(?:gsk|r8|npm|fw|rpa|tgp_v1|wandb_v1)_[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*)"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
_SCHEME = re.compile(
    r"\b((?i:bearer|basic))(\s+)(?!\*\*\*)(?=[^\s\"']*(?:[0-9=]|[A-Z]{2}|[a-z][A-Z])|sk-)[^\s\"',;}\]]+"
)
# A header on a line of its own, whatever scheme stands before its value; an option of a command with its value behind.
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\s*:\s*)(?!\*\*\*|(?:bearer|basic)\s)"
    r"(?=(?:[A-Za-z]+\s+)?[^\s\"']*(?:[0-9=]|[^\s\"']{16}))[^\r\n\"'\\]+"
)
_OPTION = re.compile(
    r"(?P<name>--[A-Za-z][A-Za-z0-9_-]*)(?P<sign>\s+)(?P<value>(?!-)[^\s\"']+|\"[^\"]*\"|'[^']*')"
)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>|]+", re.I)
# name=value, 'name': value, Some-Name: value
_NAMED = re.compile(
    r"(?P<quote>[\"']?)(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P=quote)(?P<sign>\s*[:=]\s*)"
    r"(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s\"',;&?})\]{\[(:/]+))"
)
_HINT = re.compile(
    r"(?i)sk-|hf_|gh[pousr]_|github_pat|glpat|xox|akia|aiza|gsk_|eyj|asia[0-9a-z]{12}|nvapi-|xai-|pplx-|csk-|r8_|npm_|fw_|rpa_|tgp_|wandb_v1|bearer|basic|private key|://|secret|passw|pwd"
    r"|auth|cookie|credential|header|apikey|(?:token|key)[\"' =:]"
)


@lru_cache(maxsize=4096)
def secret_key(name: str) -> bool:
    """True for the name of an option, header or query field that holds a credential.

    >>> [secret_key(n) for n in ("api_key", "X-Auth-Token", "judge_api_key_env", "eos_token", "tokenizer")]
    [True, True, False, False, False]
    """
    words = re.findall(r"[a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", str(name)).lower())
    if not words or words[-1] == "env":  # the name of a variable, not what is in it
        return False
    before = words[:-1]
    if words[-1] == "token":
        return not _TOKEN_IS_TEXT.intersection(before)
    if words[-1] in ("key", "keys"):
        return not before and words[-1] == "key" or bool({*_KEY_OF, *_ALWAYS}.intersection(before))
    return bool(_ALWAYS.intersection(words))


def redact_url(url: str) -> str:
    """The address as it may be shown: user name, password and query are replaced by ***."""
    head, slashes, rest = url.partition("://")
    if not slashes:
        head, rest = "", url
    place, slash, path = rest.partition("/")
    if "@" in rest:  # a password may itself hold a slash: everything before the last @ goes
        place, slash, path = rest.rpartition("@")[2].partition("/")
        place = f"{HIDDEN}@{place}"
    shown = f"{place}{slash}{path}"
    for mark in ("?", "#"):
        if mark in shown:
            shown = shown.partition(mark)[0] + mark + HIDDEN
            break
    return f"{head}{slashes}{shown}"


def redact_text(text: str) -> str:
    """Any text (an error, a log line, a command) without what looks like a credential in it."""
    text = _PEM.sub(HIDDEN, _SCHEME.sub(rf"\1\2{HIDDEN}", text))
    text = _OPTION.sub(_shown_option, _HEADER.sub(rf"\1\2{HIDDEN}", text))
    text = _KEY_LIKE.sub(HIDDEN, _ADDRESS.sub(_shown_address, text))
    return _NAMED.sub(_shown_pair, text)


def _shown_address(found: re.Match[str]) -> str:
    """Addresses without user name, password or query stay as they are, fragments included."""
    return redact_url(found[0]) if "@" in found[0] or "?" in found[0] else found[0]


def _shown_option(found: re.Match[str]) -> str:
    return f"{found['name']}{found['sign']}{HIDDEN}" if secret_key(found["name"]) else found[0]


def _shown_pair(found: re.Match[str]) -> str:
    name, value = found["name"], found["double"] or found["single"] or found["bare"]
    # "unknown key: x" and "password: missing" are sentences; "x-api-key: x", "'key': x", "password: x7" are not
    prose = ":" in found["sign"] and not found["quote"] and not re.search("[_-]", name)
    prose = prose and (name.lower() in ("key", "token") or not re.search("[0-9]|.{16}", value))
    if not value or value in _NO_SECRET or prose or not secret_key(name.rpartition(".")[2]):
        return found[0]
    return HIDDEN.join(found[0].rsplit(value, 1))


def redacted(value: Any, name: str = "") -> Any:
    """A copy of a record without credentials: those under a secret's name, and those that look like one.

    Numbers under such a name go too (a password may be one); flags and None stay.
    """
    hide = bool(name) and secret_key(name)
    if isinstance(value, Mapping):
        return {k: redacted(v, name if hide else str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([redacted(v, name) for v in value]) if type(value) in (list, tuple) else value
    if isinstance(value, bool) or value is None or value == "":
        return value
    if isinstance(value, str):
        if hide:
            return HIDDEN
        if name == "model_args":  # lm-eval's text form: a=1,b=2
            pairs = [part.partition("=") for part in value.split(",")]
            return ",".join(f"{k}{sign}{redacted(v, k.strip())}" for k, sign, v in pairs)
        return redact_url(value) if name.endswith("url") else redact_text(value)
    return HIDDEN if hide and isinstance(value, int | float | bytes) else value


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Every credential of a record as text, for a Redactor: whole values, and what an address carries."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from secrets_in(inner, name if name and secret_key(name) else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_in(inner, name)
    elif isinstance(value, str) and value:
        if name and secret_key(name):
            yield value
            yield value.removeprefix("Bearer ").removeprefix("Basic ")
        if "://" in value:
            try:
                parts = urlsplit(value)
                found = [parts.password, parts.query, *(v for _, v in parse_qsl(parts.query))]
            except ValueError:
                return
            yield from (text for one in found if one for text in (one, unquote(one)))


class Redactor:
    """Replaces the secrets it knows in any text."""

    def __init__(self, *secrets: str | None) -> None:
        self._secrets = sorted({s for s in secrets if s and len(s) >= 4}, key=len, reverse=True)

    def __call__(self, text: object) -> str:
        """The text, with each secret as ***."""
        shown = str(text)
        for secret in self._secrets:
            shown = shown.replace(secret, HIDDEN)
        return shown


def found_secrets(value: Any, name: str = "", path: str = "") -> Iterator[str]:
    """Where a stored record still holds a credential, without repeating it; for `icr check`.

    >>> list(found_secrets({"model_args": {"api_key": "abcd", "base_url": "http://a:b@c"}}))
    ['model_args.api_key', 'model_args.base_url']
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            below = f"{path}.{key}" if path else str(key)
            yield from found_secrets(inner, name if name and secret_key(name) else str(key), below)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from found_secrets(inner, name, path)
    elif isinstance(value, str) and value not in _NO_SECRET:
        if not (name and secret_key(name)) and not _HINT.search(value):  # most text: one cheap look
            return
        left = _ADDRESS.sub(lambda found: "" if _harmless(found[0]) else found[0], value)
        if redacted(left, name) != left:
            yield path or "the text"
    elif redacted(value, name) != value:
        yield path


def _harmless(url: str) -> bool:
    """True for an address whose query holds no credential, as an older version may have written it."""
    user = url.partition("://")[2].rpartition("@")[0]
    return user in ("", HIDDEN) and not any(
        secret_key(k) and v != HIDDEN for k, v in parse_qsl(urlsplit(url).query)
    )
