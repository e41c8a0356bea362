"""every_eval_ever (schema 0.3.0): one JSON a run with a result a task, and one JSONL with a row an item.

The setting stands in `evaluation_name` (`icr_helmet_rag_nq_4k::rag@4k`, as a host names it) and in
`generation_config`; errors are the clustered ones. Layout, ids and checks are those of the datastore
(https://github.com/evaleval/every_eval_ever): `data/COLLECTION/OWNER/MODEL/UUID4.json`.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.registry import EXPORTS
from icr_tasks.storage import write_atomic

from ..ledgers.check import began
from ..ledgers.inputs import switches
from ..ledgers.load import Run, TaskItems
from ._source import Source, deviation, finite, words

SCHEMA = "0.3.0"
COLLECTION = "icr-tasks"
_LIBRARY = {"icr-vllm": "vllm", "vllm": "vllm", "icr-hf": "transformers", "hf": "transformers"}
METHOD = "clustered by question, book or document"


@EXPORTS.register("eee")
def eee(source: Source, out: Path) -> list[Path]:
    """Write the records of every run below `out`/data; a run whose model has no hub id is left out and named."""
    written: list[Path] = []
    for run in source.named():
        if began(run.head) is None:
            source.skipped.append(
                f"{run.label}: run.json does not say when it began, which a record must; collect the run again"
            )
            continue
        owner, _, name = source.model(run).partition("/")
        folder = out / "data" / COLLECTION / owner / name
        body, items = record(source, run)
        if not body["evaluation_results"]:
            source.skipped.append(f"{run.label}: no task has a score")
            continue
        stem = str(uuid.UUID(bytes=hashlib.sha256(run.fingerprint.encode()).digest()[:16], version=4))
        lines = b"".join(orjson.dumps(item) + b"\n" for item in items)
        if items:
            where = f"data/{COLLECTION}/{owner}/{name}/{stem}_samples.jsonl"
            body["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": where,
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(lines).hexdigest(),
                "total_rows": len(items),
            }
            written.append(_write(out / where, lines))
        text = orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"
        written.append(_write(folder / f"{stem}.json", text))
    return written


def _write(path: Path, text: bytes) -> Path:
    write_atomic(path, text)
    return path


def record(source: Source, run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The aggregate record of a run without its reference to the items, and the items' records."""
    head, model = run.head, source.model(run)
    when = str(int(began(head) or 0))  # the run's own start: exporting twice writes the same bytes
    ident = f"{COLLECTION}/{model}/{run.fingerprint}/{when}"
    versions = head.get("versions") or {}
    results, items = [], []
    for task in run.tasks.values():
        found = _result(source, run, task)
        if found is None:
            continue
        results.append(found)
        items += _items(source, run, task, ident, model, found)
    engine = head.get("engine") or {}
    body = {
        "schema_version": SCHEMA,
        "evaluation_id": ident,
        "evaluation_timestamp": when,
        "retrieved_timestamp": when,
        "source_metadata": {
            "source_name": "icr-tasks",
            "source_type": "evaluation_run",
            "source_organization_name": source.organization or "unknown",
            "evaluator_relationship": source.relationship,
            **({"source_organization_url": source.url} if source.url else {}),
        },
        "eval_library": {
            "name": "icr-tasks",
            "version": str(versions.get("icr_tasks") or "unknown"),
            "additional_details": words({k: v for k, v in versions.items() if k != "icr_tasks"}),
        },
        "model_info": {
            "name": run.model,
            "id": model,
            "inference_engine": words(
                {
                    "name": engine.get("name"),
                    "version": versions.get(_LIBRARY.get(str(engine.get("name")), "")),
                }
            ),
            "additional_details": words(
                {
                    "deployment_type": "unknown",
                    "model_availability": "unknown",
                    **{
                        k: (head.get("model") or {}).get(k)
                        for k in ("revision", "dtype", "adapter", "weights_hash")
                    },
                }
            ),
        },
        "evaluation_results": results,
    }
    return body, items


def _name(run: Run, task: TaskItems) -> str:
    return f"{task.name}::{run.setting}" + (f" ({run.prompt})" if run.prompt else "")


def _result(source: Source, run: Run, task: TaskItems) -> dict[str, Any] | None:
    effect, reason = source.effect(run, task)
    if effect is None:
        source.skipped.append(f"{run.label}, {task.name}: {reason}")
        return None
    sheet, dataset = task.sheet, source.dataset(task)
    low, high = effect.ci()
    uncertainty: dict[str, Any] = {"num_samples": effect.n}
    if (spread := deviation(task)) is not None:
        uncertainty["standard_deviation"] = spread
    if (error := finite(effect.se)) is not None:
        uncertainty["standard_error"] = {"value": error, "method": METHOD}
        uncertainty["confidence_interval"] = {
            "lower": low, "upper": high, "confidence_level": 0.95, "method": METHOD,
        }  # fmt: skip
    facts = {"version": sheet.get("data_revision"), "official": sheet.get("official"), "length": task.length}
    data: dict[str, Any] = {
        "dataset_name": task.dataset,
        "source_type": "hf_dataset" if dataset else "other",
        "additional_details": words({**facts, "data_source": sheet.get("data_source")}),
    }
    if dataset:
        data |= {"hf_repo": dataset, "samples_number": len(task)}
    counts = ("n_expected", "n_scored", "n_failed", "n_truncated", "n_unfinished", "status")
    return {
        "evaluation_result_id": f"{run.fingerprint}:{task.name}",
        "evaluation_name": _name(run, task),
        "source_data": data,
        "metric_config": _metric(task),
        "score_details": {
            "score": effect.mean,
            "details": words(
                {"clusters": effect.clusters, "prompt": run.prompt, **{k: sheet.get(k) for k in counts}}
            ),
            "uncertainty": uncertainty,
        },
        "generation_config": _generation(run, task),
    }


def _metric(task: TaskItems) -> dict[str, Any]:
    sheet = task.sheet
    found: dict[str, Any] = {
        "evaluation_description": f"{task.dataset} {task.length}".strip(),
        "metric_id": f"icr.{task.metric}",
        "metric_name": task.metric,
        "metric_unit": "proportion",
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": 0.0,
        "max_score": 1.0,
        "additional_details": words({k: sheet.get(k) for k in ("metric_version", "task_version", "filter", "extractor", "judge")}),
    }  # fmt: skip
    return found


def _generation(run: Run, task: TaskItems) -> dict[str, Any]:
    head = run.head
    # of one of the tasks in a ledger that knows them for whole runs only
    kwargs = task.sheet.get("gen_kwargs") or (head.get("gen_kwargs") if len(run.tasks) == 1 else None) or {}
    args = {k: kwargs[k] for k in ("temperature", "top_p", "top_k") if isinstance(kwargs.get(k), int | float)}
    if isinstance(kwargs.get("max_gen_toks"), int) and kwargs["max_gen_toks"] > 0:
        args["max_tokens"] = kwargs["max_gen_toks"]
    setting = {k: v for k, v in (head.get("setting") or {}).items() if v not in (None, {}, [])}
    told: dict[str, Any] = {
        "setting": run.setting,
        "setting_fields": orjson.dumps(setting).decode(),
        "prompt": run.prompt,
        "thoughts": switches(head) or None,
    }
    told |= {f"truncation_{k}": v for k, v in (head.get("truncation") or {}).items()}
    told |= {"chat_template_sha": head.get("chat_template_sha"), "fingerprint": run.fingerprint}
    return {"generation_args": args, "additional_details": words(told)}


def _items(
    source: Source, run: Run, task: TaskItems, ident: str, model: str, result: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of the items that have a score. Without `--samples` the texts are empty: a ledger has none."""
    found = []
    values, keys = task.headline(), {k: v for k, v in task.keys.items() if k != "documents"}
    for n in range(len(task)):
        if values[n] != values[n]:
            continue
        question, gold, answer = source.text(run, task, n) or ("", "", "")
        tokens = [finite(v[n]) for v in (task.n_prompt_tokens, task.n_out_tokens)]
        row: dict[str, Any] = {
            "schema_version": SCHEMA,
            "evaluation_id": ident,
            "model_id": model,
            "evaluation_name": result["evaluation_name"],
            "evaluation_result_id": result["evaluation_result_id"],
            "sample_id": f"{task.item[n]}" + (f"#{task.occ[n]}" if task.occ[n] else ""),
            "interaction_type": "single_turn",
            "input": {"raw": question, "reference": [gold] if gold else []},
            "output": {"raw": [answer]},
            "answer_attribution": [],
            "evaluation": {"score": float(values[n]), "is_correct": bool(values[n] >= 0.5)},
            "metadata": words(
                {
                    "cluster": task.cluster[n],
                    "truncated": bool(task.truncated[n]),
                    **{k: v[n] for k, v in keys.items()},
                }
            ),
        }
        if None not in tokens:
            used, made = (int(t or 0) for t in tokens)
            row["token_usage"] = {"input_tokens": used, "output_tokens": made, "total_tokens": used + made}
        if n in task.errors:
            row["error"] = task.errors[n]
        found.append(row)
    return found
