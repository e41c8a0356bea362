"""lm-eval's output folders, read line by line: results_*.json and the samples_*.jsonl beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.errors import IcrError, unknown
from icr_tasks.schema import answering, digest
from icr_tasks.schema import run_fingerprint as run_fingerprint
from icr_tasks.settings import split_task
from icr_tasks.storage import Evaluation as Evaluation
from icr_tasks.storage import evaluations as _evaluations
from icr_tasks.storage import lenient, why

from . import usages

_NOT_SCORES = frozenset({"out_tokens", "thought_tokens", "truncated", "unfinished", "bypass"})
_TWICE = frozenset({"score", "score_se"})  # of our tasks: the headline under a name for other hosts
_NUMBER = frozenset({int, float, bool})
_BY_TASK = ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes")
_KEPT = ("retrieval", "route", "kv", "thoughts")  # of the prompt digest, whole
_sha256 = hashlib.sha256
_NEEDED = {"doc_hash", "prompt_hash", "target_hash", "metrics"}


def evaluations(roots: list[Path], bad: list[str] | None = None) -> Iterator[Evaluation]:
    """`storage.evaluations`, each divided by the settings that its tasks name (`icr_x::rag@4k`): afterwards a
    task has its own name, and its sheet says the setting."""
    for found in _evaluations(roots, bad):
        by_setting: dict[str | None, dict[str, str]] = {}
        for name in found.results["configs"]:
            task, setting = split_task(name) if name.startswith("icr_") else (name, None)
            by_setting.setdefault(setting, {})[name] = task
        if by_setting.keys() <= {None}:
            yield found
            continue
        for names in by_setting.values():
            results = {
                key: {names[n]: v for n, v in value.items() if n in names} if key in _BY_TASK else value
                for key, value in found.results.items()
            }
            files = {names[n]: path for n, path in found.samples.items() if n in names}
            yield Evaluation(found.path, results, files)


def samples(path: Path) -> Iterator[dict[str, Any]]:
    """lm-eval's sample rows of one file. Raises IcrError naming file and line for what is not one."""
    seen: set[Any] = set()
    loads = orjson.loads
    with path.open("rb", buffering=1 << 18) as file:
        for number, raw in enumerate(file, 1):
            try:
                sample = loads(raw)
            except orjson.JSONDecodeError as error:
                try:
                    sample = lenient(raw)
                except ValueError:
                    raise IcrError(f"{path}:{number}: {why(raw, error, 'the file is cut off')}") from error
            if type(sample) is not dict or not sample.keys() >= _NEEDED:
                gone = (
                    ", ".join(sorted(_NEEDED - sample.keys()))
                    if isinstance(sample, dict)
                    else "a JSON object"
                )
                raise IcrError(
                    f"{path}:{number}: {gone} missing; the file is not from lm_eval 0.4.4 or newer"
                )
            place = (sample.get("doc_id", number), sample.get("filter"))
            if place in seen:
                raise IcrError(
                    f"{path}:{number}: doc_id {place[0]} twice; two runs were written into one file"
                )
            seen.add(place)
            yield sample


def filters(path: Path) -> tuple[str, ...]:
    """Names of the filters a samples file holds, from its first two lines and its last: one row a filter and
    document, ordered by filter (lm-eval) or by document. `_rows` names the line where that was not enough."""
    with path.open("rb") as file:
        first, second = file.readline(), file.readline()
        size = file.seek(0, 2)
        back, tail = 1 << 16, b""
        while b"\n" not in tail:
            file.seek(max(0, size - back))
            tail = file.read().rstrip(b"\n")
            if back >= size:
                break
            back *= 4
        last = tail.rpartition(b"\n")[2]
    found = []
    for raw in (first, second, last):
        try:
            sample = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue  # `samples` names the line
        if isinstance(sample, dict):
            found.append(str(sample.get("filter", "none")))
    return tuple(dict.fromkeys(found))


def no_scores(path: Path) -> str | None:
    """Why no row of a samples file has a score, for tasks whose metrics are none of single items."""
    for sample in samples(path):
        logged = [m for m in sample["metrics"] if m not in _NOT_SCORES]
        pairs = [m for m in logged if isinstance(sample.get(m), list | tuple)]
        if pairs:
            return (
                f"{', '.join(pairs)}: no score of single items (log-likelihoods and lengths that lm_eval "
                "adds up); "
                "ledgers hold scores between 0 and 1"
            )
        return None
    return None


Told = tuple[str, int, tuple[str, str, str]]  # item, occurrence, (question, gold, answer)


def told(path: Path) -> Iterator[Told]:
    """The texts of each document of a samples file, for reports; of several filters those of the first."""
    seen: dict[str, int] = {}
    first: Any = None
    for sample in samples(path):
        used = sample.get("filter", "none")
        if used != (first := first or used):
            continue
        doc = sample["doc"] if isinstance(sample.get("doc"), dict) else {}
        item = _item(sample, doc)
        seen[item] = occ = seen.get(item, -1) + 1
        gold = "; ".join(map(str, doc.get("answers") or [sample.get("target", "")]))
        yield item, occ, (str(doc.get("question", "")), gold, str((sample.get("filtered_resps") or [""])[0]))


def _item(sample: dict[str, Any], doc: dict[str, Any]) -> str:
    return str(doc.get("id") or str(sample["doc_hash"])[:16])


Line = tuple[dict[str, Any], dict[str, Any], str]  # ledger row, prompt digest, filter


def rows(path: Path, task: str, wanted: str | None = None) -> Iterator[Line]:
    """(ledger row, prompt digest, filter) of each document of a samples file. Raises IcrError naming file and
    line for broken or doubled rows.

    Of a task with several filters the one `wanted` is taken; without it each filter's metrics stand beside
    each other under lm-eval's own names, `exact_match,strict-match`.
    """
    if len(filters(path)) > 1:
        yield from _filtered(path, task, wanted)
    else:
        yield from _rows(path, task)


def _filtered(path: Path, task: str, wanted: str | None) -> Iterator[Line]:
    """Rows of a file with several filters, one a document."""
    by_filter: dict[str, dict[Any, Line]] = {}
    for line, place in zip(_rows(path, task, True), _places(path), strict=True):
        by_filter.setdefault(line[2], {})[place] = line
    if wanted is not None:
        if wanted not in by_filter:
            raise unknown("filter", wanted, list(by_filter))
        yield from by_filter[wanted].values()
        return
    sizes = {f: found.keys() for f, found in by_filter.items()}
    if any(places != sizes[next(iter(sizes))] for places in sizes.values()):
        at = next(n for n, sample in enumerate(samples(path), 1) if sample.get("filter") == list(sizes)[1])
        raise IcrError(
            f"{path}:{at}: two filters {sorted(sizes)} of different documents; score again, or choose one "
            "with --filter"
        )
    name = "+".join(by_filter)
    documents = dict.fromkeys(place for lines in by_filter.values() for place in lines)
    for place in documents:
        lines = [(f, found[place]) for f, found in by_filter.items() if place in found]
        row, sent, _ = lines[0][1]
        score = {f"{metric},{f}": v for f, line in lines for metric, v in line[0]["score"].items()}
        yield {**row, "score": score}, sent, name


def _places(path: Path) -> Iterator[Any]:
    """Document of each line."""
    for number, sample in enumerate(samples(path)):
        yield sample.get("doc_id", number)


def _rows(path: Path, task: str, several: bool = False) -> Iterator[Line]:
    seen: dict[str, int] = {}
    logged: list[str] | None = None
    known: str | None = None
    metrics: list[str] = []
    counted = False
    for number, sample in enumerate(samples(path), 1):
        if sample["metrics"] != logged:  # the same list on every row, as a rule
            logged = sample["metrics"]
            twice = _TWICE if set(logged) >= _TWICE else frozenset()
            metrics = [m for m in logged if m not in _NOT_SCORES and m not in twice]
            counted = "out_tokens" in logged
        used = sample.get("filter", "none")
        if used != (known := known or used) and not several:
            raise IcrError(
                f"{path}:{number}: two filters {sorted({str(known), str(used)})}; sort the rows by filter"
            )
        try:
            sent = digest(sample)
            row = _row(sample, sent, task, metrics, counted)
        except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
            raise IcrError(
                f"{path}:{number}: not a sample row of lm_eval ({type(error).__name__}: {error})"
            ) from error
        score, item = row["score"], row["item"]
        if score and min(score.values()) < 0:
            value, metric = min((v, m) for m, v in score.items())
            raise IcrError(
                f"{path}:{number}: {metric} is {value:g}; negative marks are not scores, use one task a "
                "length"
            )
        if several:
            item = f"{sample.get('filter', 'none')}/{item}"  # occurrences are counted within a filter
        if item in seen:
            row["occ"] = seen[item] = seen[item] + 1
        else:
            seen[item] = 0
        yield row, sent, sample.get("filter", "none")


def _row(
    sample: dict[str, Any], sent: dict[str, Any], task: str, metrics: list[str], counted: bool
) -> dict[str, Any]:
    doc = sample.get("doc")
    doc = doc if type(doc) is dict else {}
    of = sent.get
    length, kept = sample.get("out_tokens"), of("gold_kept")
    response = _answer(sample, ours=bool(sent))
    row = {
        "task": task,
        "item": _item(sample, doc),
        "occ": 0,
        "cluster": doc.get("cluster"),
        "keys": _keys(doc),
        "score": {m: v for m in metrics if type(v := sample.get(m)) in _NUMBER},
        "n_prompt_tokens": of("n_prompt_tokens"),
        "n_out_tokens": int(length)  # type: ignore[arg-type]
        if counted and type(length) in _NUMBER
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
    if usage := of("usage"):
        row.update({name: usage[name] for name in usages.FIELDS if name in usage})
        for name, told in (("n_prompt_tokens", "tokens_in"), ("n_out_tokens", "tokens_out")):
            if row[name] is None:  # no tokenizer here: the server's own count
                row[name] = usage.get(told)
    for name in _KEPT:
        if of(name):
            row[name] = sent[name]
    return row


def _answer(sample: dict[str, Any], ours: bool) -> str:
    """What a model said to an item. Filters of other tasks leave what they found in it: "[invalid]" for a hundred
    answers that have nothing in common."""
    said = None if ours else sample.get("resps")
    if not said:
        return str((sample.get("filtered_resps") or ("",))[0])
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    return str(said)


def _keys(doc: dict[str, Any]) -> dict[str, Any]:
    """Breakdown columns of an item, and the documents it shares with others where it names them (Loong's
    filings); in a column that holds one text they are none."""
    keys, documents = doc.get("keys") or {}, doc.get("documents")
    if not documents or not isinstance(documents, list) or "documents" in keys:
        return keys
    return {**keys, "documents": [str(d["file"] if isinstance(d, dict) else d) for d in documents]}


def identity(results: dict[str, Any], task: str) -> dict[str, Any]:
    """What decides the answers of a task in this evaluation (the fingerprint inputs)."""
    config, meta = results.get("config", {}), results["configs"][task].get("metadata", {})
    config = config.get("replayed") or config  # a replay is a run of the model that gave the answers
    sheet = meta.get("icr", {})
    args = config.get("model_args") or {}
    if isinstance(args, str):
        args = dict(part.partition("=")[::2] for part in args.split(",") if part)
    engine = answering(args)
    each = results.get("n-shot") or {}
    # one number where all tasks have it (--num_fewshot), so that what is run apart joins; else those of the evaluation
    shots = next(iter(each.values())) if len({*each.values()}) == 1 else {t: n for t, n in each.items() if n}
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
        "setting": {k: v for k, v in setting.items() if k != "deployable"},  # which is no input
        "prompt": sheet.get("prompt"),
        "gen_kwargs": results["configs"][task].get("generation_kwargs"),
        "gen_kwargs_cli": config.get("gen_kwargs") or {},
        "chat": sheet.get("chat", bool(results.get("chat_template_sha"))),
        "chat_template_sha": results.get("chat_template_sha") or sheet.get("chat_template_sha"),
        "system_prompt_sha": results.get("system_instruction_sha"),
        "max_model_len": sheet.get("max_model_len"),
        "truncation": sheet.get("truncation"),
        "overflow": sheet.get("overflow"),
        **({"thinking": sheet["thinking"]} if sheet.get("thinking") else {}),
        **({"num_fewshot": shots} if shots else {}),  # runs without keep the fingerprint that they had
    }


def texts_of(results: Mapping[str, Any], sheet: Mapping[str, Any]) -> dict[str, str]:
    """The texts around a run's prompts, to show where two runs part; no input of the fingerprint."""
    found = {name: results.get(name) for name in ("chat_template", "system_instruction")}
    found["template"] = json.dumps(sheet["template"], sort_keys=True) if sheet.get("template") else None
    return {name: str(text) for name, text in found.items() if text}


def _model_id(name: str) -> str:
    """A hub id as it is; a local folder by its name, so that results do not carry a machine's paths.

    A trainer's folder RUN/checkpoint-40 is RUN@40: "checkpoint-40" alone would be the same for every run.
    """
    if not name.startswith(("/", ".", "~")):
        return name
    path = Path(name)
    step = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return f"{path.parent.name}@{step[1]}" if step and path.parent.name else path.name
