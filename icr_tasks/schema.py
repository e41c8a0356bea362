"""What crosses rooms, decided here and nowhere else: the typed records, what the fingerprint of a run is made
of, and which options only change speed. Every room may import this file; it imports none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import orjson

from .credentials import redacted, secret_key
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
        missing += _unread(sheets) if whole else ["tasks by name"]
        inputs = head.get("fingerprint_inputs", {})
        by_name = isinstance(inputs, dict) and isinstance(inputs.get("model_args") or {}, dict)
        missing += [] if by_name else ["fingerprint_inputs by name"]
    if missing:
        raise IcrError(f"{path}: {', '.join(missing)} missing; collect the run again")
    inputs = head.get("fingerprint_inputs")
    if not as_written and isinstance(inputs, dict) and isinstance(inputs.get("model_args"), dict):
        inputs["model_args"] = answering(inputs["model_args"])
    return head


_COUNTS = ("n_expected", "n_scored", "n_failed", "n_truncated", "n_unfinished")


def _unread(sheets: dict[str, dict[str, Any]]) -> list[str]:
    """What every reader of a task's sheet counts with, where it is there and of another kind."""
    found = []
    for name, sheet in sheets.items():
        found += [f"{what} of {name} as a number" for what in _COUNTS if not _number(sheet.get(what, 0))]
        means, lower = sheet.get("means") or {}, sheet.get("lower_is_better", [])
        if not (isinstance(means, dict) and all(map(_number, means.values()))):
            found.append(f"means of {name} by metric")
        if not isinstance(lower, list):
            found.append(f"lower_is_better of {name} as a list")
    return found


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


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
    data_parallel_rpc_port decode_context_parallel_size prefill_context_parallel_size enable_expert_parallel enable_eplb
    eplb_config expert_placement_strategy all2all_backend disable_custom_all_reduce data_parallel_start_rank
    data_parallel_hybrid_lb data_parallel_external_lb"""
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
