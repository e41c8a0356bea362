"""lm-eval's output folders, read line by line: results_*.json and the samples_*.jsonl beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError

from .ledger import fingerprint

_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl?$")
_NOT_SCORES = frozenset({"out_tokens", "thought_tokens", "truncated", "unfinished", "bypass"})
_NUMBER = frozenset({int, float, bool})
_KEPT = ("retrieval", "kv", "thoughts")  # of the prompt digest, whole
_sha256 = hashlib.sha256
_NEEDED = {"doc_hash", "prompt_hash", "target_hash", "metrics"}
# Changes speed, not answers: kept in the run, not in its fingerprint.
_OPERATIONAL = (
    "batch_size",
    "max_batch_size",
    "device",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_prefix_caching",
    "store",
    "samples",
    "prefill_store",
    "prefill_store_gb",
    "distributed_executor_backend",
    "enforce_eager",
    "download_dir",
    "parallelize",
    "disable_log_stats",
)


@dataclass
class Evaluation:
    """One lm_eval invocation: its results file and the samples file of each task."""

    path: Path
    results: dict[str, Any]
    samples: dict[str, Path] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """Time stamp in the file name; newer ones win."""
        found = _STAMP.search(self.path.name.replace(".json", ".jsonl"))
        return found[1] if found else ""


def evaluations(roots: list[Path], bad: list[str] | None = None) -> Iterator[Evaluation]:
    """All evaluations below the folders, oldest first.

    Raises IcrError for folders without results and for unreadable files; with a list `bad`, the latter are
    left out and their messages added to it.
    """
    paths = sorted({p for root in roots for p in _results(root)}, key=lambda p: p.name)
    if not paths:
        raise IcrError(
            f"no results_*.json below {', '.join(map(str, roots))}; run lm_eval with --output_path and --log_samples"
        )
    for path in paths:
        try:
            yield _evaluation(path)
        except IcrError as error:
            if bad is None:
                raise
            bad.append(str(error))


def _evaluation(path: Path) -> Evaluation:
    try:
        results = orjson.loads(path.read_bytes())
    except OSError as error:
        raise IcrError(f"{path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise IcrError(
            f"{path}: {_why(path.read_bytes(), error, 'the run did not finish writing')}"
        ) from error
    if not isinstance(results, dict) or not isinstance(results.get("configs"), dict):
        version = (
            results.get("lm_eval_version", "an unknown version")
            if isinstance(results, dict)
            else "something else"
        )
        raise IcrError(
            f"{path}: no task configs, written by lm_eval {version}; run again with lm_eval 0.4.4 or newer"
        )
    found = Evaluation(path, results)
    for task in results["configs"]:
        sample = path.with_name(f"samples_{task}_{found.stamp}.jsonl")
        if sample.is_file():
            found.samples[task] = sample
    return found


def _results(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise IcrError(f"{root} is not a folder")
    return list(root.rglob("results_*.json"))


def samples(path: Path) -> Iterator[dict[str, Any]]:
    """lm-eval's sample rows of one file. Raises IcrError naming file and line for what is not one."""
    seen: set[Any] = set()
    loads = orjson.loads
    known: Any = None
    with path.open("rb", buffering=1 << 18) as file:
        for number, raw in enumerate(file, 1):
            try:
                sample = loads(raw)
            except orjson.JSONDecodeError as error:
                raise IcrError(f"{path}:{number}: {_why(raw, error, 'the file is cut off')}") from error
            if type(sample) is not dict or not sample.keys() >= _NEEDED:
                gone = (
                    ", ".join(sorted(_NEEDED - sample.keys()))
                    if isinstance(sample, dict)
                    else "a JSON object"
                )
                raise IcrError(
                    f"{path}:{number}: {gone} missing; the file is not from lm_eval 0.4.4 or newer"
                )
            used = sample.get("filter", "none")
            if used != known and known is not None:
                raise IcrError(
                    f"{path}:{number}: two filters {sorted({str(known), str(used)})}; score one filter per task"
                )
            known, place = used, sample.get("doc_id", number)
            if place in seen:
                raise IcrError(f"{path}:{number}: doc_id {place} twice; two runs were written into one file")
            seen.add(place)
            yield sample


def rows(path: Path, task: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """(ledger row, prompt digest, filter) of each line of a samples file. Raises IcrError naming file and
    line for broken or doubled rows."""
    seen: dict[str, int] = {}
    logged: list[str] | None = None
    metrics: list[str] = []
    for number, sample in enumerate(samples(path), 1):
        if sample["metrics"] != logged:  # the same list on every row, as a rule
            logged = sample["metrics"]
            metrics = [m for m in logged if m not in _NOT_SCORES]
        try:
            sent = digest(sample)
            row = _row(sample, sent, task, metrics)
        except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
            raise IcrError(
                f"{path}:{number}: not a sample row of lm_eval ({type(error).__name__}: {error})"
            ) from error
        score, item = row["score"], row["item"]
        if score and min(score.values()) < 0:
            value, metric = min((v, m) for m, v in score.items())
            raise IcrError(
                f"{path}:{number}: {metric} is {value:g}; negative marks are not scores, use one task a length"
            )
        if item in seen:
            row["occ"] = seen[item] = seen[item] + 1
        else:
            seen[item] = 0
        yield row, sent, sample.get("filter", "none")


def _why(raw: bytes, error: Exception, otherwise: str) -> str:
    """Python's own reader takes NaN and Infinity; JSON does not."""
    try:
        json.loads(raw)
    except ValueError:
        return f"not valid JSON ({error}); {otherwise}"
    return "NaN or Infinity in place of a score; the metric failed, score again with icr-replay"


def _row(sample: dict[str, Any], sent: dict[str, Any], task: str, metrics: list[str]) -> dict[str, Any]:
    doc = sample.get("doc")
    doc = doc if type(doc) is dict else {}
    of = sent.get
    length, kept = sample.get("out_tokens"), of("gold_kept")
    response = str((sample.get("filtered_resps") or ("",))[0])
    row = {
        "task": task,
        "item": str(doc.get("id") or sample["doc_hash"][:16]),
        "occ": 0,
        "cluster": doc.get("cluster"),
        "keys": _keys(doc),
        "score": {m: v for m in metrics if type(v := sample.get(m)) in _NUMBER},
        "n_prompt_tokens": of("n_prompt_tokens"),
        "n_out_tokens": int(length)
        if isinstance(length, int | float) and "out_tokens" in sample["metrics"]
        else None,
        "truncated": of("truncated"),
        "unfinished": bool(of("unfinished")),
        "gold_kept": None if kept is None else [kept, of("n_gold")],
        "resp_hash": _sha256(response.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "prompt_hash": (of("sha256") or sample["prompt_hash"])[:16],
        "target_hash": sample["target_hash"][:16],
        "error": of("error"),
    }
    if type(thought := sample.get("thought_tokens")) in _NUMBER and thought:
        row["n_thought_tokens"] = int(thought)
    for name in _KEPT:
        if of(name):
            row[name] = sent[name]
    return row


def _keys(doc: dict[str, Any]) -> dict[str, Any]:
    """Breakdown columns of an item, and the documents it shares with others where it names them (Loong's
    filings)."""
    keys, documents = doc.get("keys") or {}, doc.get("documents")
    if not documents or "documents" in keys:
        return keys
    return {**keys, "documents": [str(d["file"] if isinstance(d, dict) else d) for d in documents]}


def digest(sample: dict[str, Any]) -> dict[str, Any]:
    """The prompt digest our tasks log in place of the prompt; empty for other tasks."""
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


def identity(results: dict[str, Any], task: str) -> dict[str, Any]:
    """What decides the answers of a task in this evaluation (the fingerprint inputs)."""
    config, meta = results.get("config", {}), results["configs"][task].get("metadata", {})
    config = config.get("replayed") or config  # a replay is a run of the model that gave the answers
    sheet = meta.get("icr", {})
    args = config.get("model_args") or {}
    if isinstance(args, str):
        args = dict(part.partition("=")[::2] for part in args.split(",") if part)
    engine = {k: v for k, v in args.items() if k not in _OPERATIONAL}
    setting = sheet.get("setting") or {
        "text": "full",
        "kind": "full",
        "method": None,
        "amount": None,
        "params": {},
    }
    return {
        "model": _model_id(
            # never model_name: without `pretrained=` lm_eval writes a random word there
            str(engine.get("pretrained") or engine.get("model") or config.get("model") or "unknown")
        ),
        "model_args": engine,
        "engine": config.get("model"),
        "setting": setting,
        "prompt": sheet.get("prompt"),
        "gen_kwargs": results["configs"][task].get("generation_kwargs"),
        "gen_kwargs_cli": config.get("gen_kwargs") or {},
        "chat": sheet.get("chat", bool(results.get("chat_template_sha"))),
        "chat_template_sha": results.get("chat_template_sha") or sheet.get("chat_template_sha"),
        "system_prompt_sha": results.get("system_instruction_sha"),
        "max_model_len": sheet.get("max_model_len"),
        "truncation": sheet.get("truncation"),
        "overflow": sheet.get("overflow"),
    }


def _model_id(name: str) -> str:
    """A hub id as it is; a local folder by its name, so that results do not carry a machine's paths.

    A trainer's folder RUN/checkpoint-40 is RUN@40: "checkpoint-40" alone would be the same for every run.
    """
    if not name.startswith(("/", ".", "~")):
        return name
    path = Path(name)
    step = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return f"{path.parent.name}@{step[1]}" if step and path.parent.name else path.name


def run_fingerprint(inputs: dict[str, Any]) -> str:
    """Fingerprint of a run: its identity without what differs by task (generation length)."""
    return fingerprint({k: v for k, v in inputs.items() if k not in ("gen_kwargs", "truncation")})
