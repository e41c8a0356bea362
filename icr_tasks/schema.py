"""What crosses rooms, decided here and nowhere else: the typed records, what the fingerprint of a run is made
of, which options only change speed, and what is a secret. Every room may import this file; it imports none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from .errors import IcrError

SCHEMA = 1  # of run.json and the ledger rows


# ---- records -------------------------------------------------------------------------------------
# Every key may be absent: a stock lm-eval task has no sheet, an older ledger lacks what came later, and a key
# that is not listed here (a newer writer's) is carried along and ignored.


class Sheet(TypedDict, total=False):
    """A task's data sheet (`metadata.icr` of its YAML), filled in while it runs; lm-eval logs it."""

    benchmark: str
    dataset: str
    length: str | None
    n: int  # items of the official data
    n_expected: int
    scorer: str
    metric: str
    metric_version: int
    prompt: str
    setting: dict[str, Any]  # text, kind, method, amount, params
    truncation: str | None
    overflow: str
    max_model_len: int | None
    chat: bool
    chat_template_sha: str | None
    data_source: str
    data_revision: str
    official: bool
    judge: dict[str, Any] | None
    extractor: dict[str, Any] | None
    reasons: dict[str, str] | None  # metric -> why it is missing
    versions: dict[str, str]
    git: str | None


class Digest(TypedDict, total=False):
    """What is logged in place of a prompt: hashes and counts, no text. Token counts by the evaluated
    tokenizer."""

    icr: int  # 1: marks the record as ours
    sha256: str  # of the prompt; absent where it could not be sent
    n_chars: int
    n_prompt_tokens: int | None
    truncated: bool
    n_gold: int | None
    gold_kept: int | None
    gold_ids: list[int]
    error: str | None
    retrieval: dict[str, Any]
    kv: dict[str, Any]
    timing: dict[str, float]  # seconds by stage; `wall`: by the clock since the answer before
    device: str  # "2 x NVIDIA H100"
    usage: dict[str, float]  # what a served model counted: tokens_in, _cached, _out, _reasoning, usd
    engine_tokens: dict[str, int]


def digest(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The Digest that our tasks log in place of the prompt in a sample row of lm_eval; empty for other
    tasks."""
    for sent in sample.get("arguments", {}).values():
        text = sent.get("arg_0")
        if type(text) is not str or text[:2] != '{"':
            break
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            break
        return found if type(found) is dict and found.get("icr") == 1 else {}
    return {}


class LedgerRow(TypedDict, total=False):
    """One item of one run in items.jsonl.gz; hashes are 16 hex digits, scores 0 to 1."""

    task: str
    item: str
    occ: int  # 0, or how often the item came before in this task
    cluster: str | None
    keys: dict[str, Any]
    score: dict[str, float]
    n_prompt_tokens: int | None
    n_out_tokens: int | None
    truncated: bool | None
    gold_kept: list[int] | None  # kept, of
    resp_hash: str
    prompt_hash: str
    target_hash: str
    error: str | None
    retrieval: dict[str, Any]
    kv: dict[str, Any]
    tokens_in: int  # as a served model's server counts; also tokens_cached, tokens_out, tokens_reasoning, usd


class RunHead(TypedDict, total=False):
    """run.json: what a run was. `fingerprint_inputs` decide its answers, the rest is measured or
    descriptive."""

    schema: int
    fingerprint: str
    fingerprint_inputs: dict[str, Any]
    model: dict[str, Any]  # id, slug, revision, dtype, adapter
    engine: dict[str, Any]
    setting: dict[str, Any]
    prompt: str | None
    gen_kwargs: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    status: str  # complete, partial or error
    seconds: dict[str, float]
    tokens: dict[str, int]
    usage: dict[str, float]  # sums of a served model's
    kv: dict[str, float]
    versions: dict[str, str]


def read_head(path: Path, *, as_written: bool = False) -> dict[str, Any]:
    """One run.json (a RunHead), checked, in today's form: an older version counted more options among the
    fingerprint inputs and hid fewer secrets. `as_written` leaves it as it is on disk.

    Raises IcrError for anything that is not a run of this schema.
    """
    try:
        head = orjson.loads(path.read_bytes())
    except OSError as error:
        raise IcrError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise IcrError(f"{path}: not valid JSON ({error}); collect the run again") from error
    found = head.get("schema") if isinstance(head, dict) else None
    if found != SCHEMA:
        raise IcrError(f"{path}: schema {found!r}, this version reads {SCHEMA}; collect the run again")
    missing = [k for k in ("fingerprint", "model", "setting", "tasks") if k not in head]
    if not missing:
        missing += [] if isinstance(head["model"], dict) and "id" in head["model"] else ["model id"]
        missing += [] if isinstance(head["setting"], dict) and "text" in head["setting"] else ["setting text"]
        sheets = head["tasks"]
        whole = isinstance(sheets, dict) and all(isinstance(sheet, dict) for sheet in sheets.values())
        missing += [] if whole else ["tasks by name"]
    if missing:
        raise IcrError(f"{path}: {', '.join(missing)} missing; collect the run again")
    inputs = head.get("fingerprint_inputs")
    if not as_written and isinstance(inputs, dict) and isinstance(inputs.get("model_args"), dict):
        inputs["model_args"] = answering(inputs["model_args"])
    return head


# ---- fingerprint ---------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Changes speed, or how a server is reached, but not answers: stored with the run, not part of its
# fingerprint.
SPEED_ONLY = _words(
    """batch_size max_batch_size device device_map parallelize max_memory_per_gpu max_cpu_memory offload_folder gpus
    tensor_parallel_size pipeline_parallel_size data_parallel_size data_parallel_backend distributed_executor_backend
    gpu_memory_utilization swap_space cpu_offload_gb num_gpu_blocks_override max_num_seqs max_num_batched_tokens
    enable_prefix_caching enforce_eager max_parallel_loading_workers disable_log_stats disable_tqdm use_tqdm
    download_dir embed_url store samples prefill_store prefill_store_gb price budget_usd spent api_key_env
    in_flight num_concurrent max_retries timeout header verify_certificate ca_cert_path on_model_change fleet
    nnodes node_rank master_addr master_port data_parallel_rank data_parallel_size_local data_parallel_address
    data_parallel_rpc_port decode_context_parallel_size prefill_context_parallel_size"""
)
# The same for graders, below their prefixes: where a judge is served does not change what it says.
_GRADERS = ("judge_", "xfinder_", "similarity_")
_GRADER_SPEED = _words("base_url api_key api_key_env concurrency timeout retries batch_size store")
GRADER_SPEED_ONLY = frozenset(prefix + name for prefix in _GRADERS for name in _GRADER_SPEED)


def speed_only(name: str) -> bool:
    """True for an option that cannot change an answer or a score: speed, addresses of graders, credentials."""
    return name in SPEED_ONLY or name in GRADER_SPEED_ONLY or secret_key(name)


def answering(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change answers, without any credential in their values."""
    return redacted({name: value for name, value in options.items() if not speed_only(name)})


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 over canonical JSON of everything that changes answers."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:12]


def same_run(head: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """True when a run read by `read_head` is the one with these inputs, whichever version wrote it."""
    return run_fingerprint(inputs) in (
        head["fingerprint"],
        run_fingerprint(head.get("fingerprint_inputs") or {}),
    )


def run_fingerprint(inputs: Mapping[str, Any]) -> str:
    """Fingerprint of a run: its identity without what differs by task (generation length), or describes a
    setting."""
    used = {k: v for k, v in inputs.items() if k not in ("gen_kwargs", "truncation")}
    told = {k: v for k, v in (used.get("setting") or {}).items() if k != "deployable"}
    return fingerprint(used | ({"setting": told} if told else {}))


# ---- secrets -------------------------------------------------------------------------------------
# By key (what the option is called) and by value (what the text looks like).

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
    r"|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,}|xox[abposr]-[A-Za-z0-9-]{8,}|AKIA[0-9A-Z]{12,}"
    r"|AIza[A-Za-z0-9_-]{20,}|gsk_[A-Za-z0-9]{16,}|eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*)"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
_SCHEME = re.compile(
    r"\b((?i:bearer|basic))(\s+)(?!\*\*\*)(?=[^\s\"']*(?:[0-9=]|[A-Z]{2}|[a-z][A-Z])|sk-)[^\s\"',;}\]]+"
)
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>|]+", re.I)
# name=value, 'name': value, Some-Name: value
_NAMED = re.compile(
    r"(?P<quote>[\"']?)(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P=quote)(?P<sign>\s*[:=]\s*)"
    r"(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s\"',;&?})\]{\[(:/]+))"
)
_HINT = re.compile(
    r"(?i)sk-|hf_|gh[pousr]_|github_pat|glpat|xox|akia|aiza|gsk_|eyj|bearer|basic|private key|://|secret|passw|pwd"
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
    text = _KEY_LIKE.sub(HIDDEN, _ADDRESS.sub(_shown_address, text))
    return _NAMED.sub(_shown_pair, text)


def _shown_address(found: re.Match[str]) -> str:
    """Addresses without user name, password or query stay as they are, fragments included."""
    return redact_url(found[0]) if "@" in found[0] or "?" in found[0] else found[0]


def _shown_pair(found: re.Match[str]) -> str:
    name, value = found["name"], found["double"] or found["single"] or found["bare"]
    # "unknown key: x" is a sentence, "x-api-key: x" and "'key': x" are not
    prose = ":" in found["sign"] and not found["quote"] and not re.search("[_-]", name)
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
