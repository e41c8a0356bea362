"""lm_eval's own flags on our tasks: each works as its users expect, or is refused in a sentence.

`before_loading` sees the command line before a model is loaded; the others are called where a task meets what
was asked for, so that they hold for `simple_evaluate` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import hub
from ..benchmarks import base, catalog
from ..engines import early
from ..errors import IcrError, unknown
from ..settings import Setting, split_task
from . import forms
from .asked import Asked
from .options import Options, host_options

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
CHECKED = ("cache_requests", "check_integrity", "limit", "samples")  # lm_eval's options that are looked at
_STOPS = ("until", "stop", "stop_sequences", "stop_strings")
_STORES = ("icr-api", "icr-hf", "icr-vllm")  # engines with a store of their own
_SEVERAL = ("n", "best_of", "num_return_sequences", "num_beams")


def generation(given: Mapping[str, Any]) -> dict[str, Any]:
    """--gen_kwargs under one name for each thing: `max_gen_toks`, `until`, and `do_sample` beside `temperature`.

    Raises IcrError for what contradicts itself, or asks for more than one answer.

    >>> generation({"max_tokens": 64, "temperature": 0.6})
    {'temperature': 0.6, 'max_gen_toks': 64, 'do_sample': True}
    """
    found = {name: value for name, value in given.items() if name not in (*LENGTHS, *_STOPS)}
    lengths = {name: given[name] for name in LENGTHS if given.get(name) is not None}
    if len(set(map(str, lengths.values()))) > 1:
        said = " and ".join(f"{name}={value}" for name, value in lengths.items())
        raise IcrError(f"--gen_kwargs has {said}; give one of them")
    if lengths:
        name, value = next(iter(lengths.items()))
        found["max_gen_toks"] = _positive(name, value)
    if "max_length" in found:
        raise IcrError(
            f"--gen_kwargs max_length={found['max_length']} counts prompt and answer together; give "
            "max_gen_toks=N for the answer"
        )
    for name in _STOPS:
        if given.get(name) is not None:
            value = given[name]
            found["until"] = list(value) if isinstance(value, list | tuple) else [str(value)]
    for name in _SEVERAL:
        if str(found.get(name, 1)) not in ("1", "None"):
            raise IcrError(
                f"--gen_kwargs {name}={found[name]}: icr_ tasks score one answer an item; leave it out"
            )
    return _sampling(found)


def _sampling(found: dict[str, Any]) -> dict[str, Any]:
    try:
        warm = float(found.get("temperature") or 0) > 0
    except (TypeError, ValueError):
        raise IcrError(f"--gen_kwargs temperature={found['temperature']}: give a number") from None
    sampled = found.get("do_sample")
    if isinstance(sampled, str):
        sampled = found["do_sample"] = sampled.lower() in ("true", "1", "yes")
    if sampled is None and warm:
        found["do_sample"] = True  # a temperature is asked for, not to be ignored
    elif sampled is not None and bool(sampled) != warm and "temperature" in found or sampled and not warm:
        raise IcrError(
            f"--gen_kwargs do_sample={sampled} and temperature={found.get('temperature', 0)} contradict each "
            "other; give temperature=0.6 to sample, or neither"
        )
    return found


def _positive(name: str, value: Any) -> int:
    try:
        number = int(value)
        whole = number == float(value) and number > 0
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise IcrError(f"--gen_kwargs {name}={value}: give a whole number of tokens above 0")
    return number


def items(limit: int | float | None, samples: list[int] | None, n: int, task: str) -> None:
    """--limit and --samples choose items that exist. lm-eval labels samples in the order given and runs them in
    that of the data: they are put in order, in the list itself. Raises IcrError."""
    if limit is not None and limit <= 0:
        raise IcrError(f"--limit {limit} leaves no item; give a count (10) or a share (0.1)")
    if samples is None:
        return
    wrong = [i for i in samples if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < n]
    if wrong or not samples:
        raise IcrError(f"--samples: {task} has items 0 to {n - 1}, not {wrong[0] if wrong else 'none'}")
    samples[:] = sorted(set(samples))


def examples(number: Any) -> None:
    """--num_fewshot: our prompts show no examples of other items. Raises IcrError."""
    if number not in (None, 0):
        raise IcrError(f"--num_fewshot {number}: icr_ tasks show no examples of other items; leave it out")


def requests_cache(cached: Any) -> None:
    """--cache_requests. Raises IcrError."""
    if cached:
        raise IcrError(
            "--cache_requests re-uses prompts made for another setting; leave it out for icr_ tasks"
        )


def answers_cache(use_cache: str | None, setting: Setting, engine: str = "") -> None:
    """--use_cache keeps texts, and nothing of what was measured with them: that a compression ran, that an item
    failed (its empty text would score 0), that an answer was cut. Raises IcrError."""
    if use_cache and engine in _STORES:
        raise IcrError(
            f"--use_cache forgets which items failed and why an answer ended: give store=FOLDER in --model_args, "
            f"which {engine} keeps answers in"
        )
    if use_cache and setting.compressed:
        raise IcrError(
            f"--use_cache keeps no measurements, without which setting {setting} cannot be shown to have run: "
            "leave it out, and give store=FOLDER in --model_args of icr-hf or icr-vllm"
        )


def before_loading(
    names: Sequence[Any], metadata: Mapping[str, Any], asked: Asked, config: Mapping[str, Any]
) -> None:
    """All that the command line alone shows to be impossible; `names` are the tasks, others than ours ignored.

    `config` holds the options CHECKED. Raises IcrError.
    """
    tasks = list(_leaves(names))
    if not tasks:
        return
    examples(asked.num_fewshot)
    requests_cache(config.get("cache_requests"))
    if config.get("check_integrity"):
        raise IcrError(
            "--check_integrity runs test files that lm_eval's wheel does not hold; leave it out (icr_ tasks "
            "compare counts and hashes of their data when they read them)"
        )
    items(config.get("limit"), None, 0, "")
    if strange := [name for name in config.get("samples") or {} if name not in (*tasks, *names)]:
        raise unknown("task in --samples", str(strange[0]), tasks)
    early.greedy(asked.engine, generation(asked.gen_kwargs))
    hub.engine(asked.engine, asked.model_args)
    Options.parse(metadata)
    if "samples" in metadata:  # a replay builds no prompts
        return
    known: set[Setting] = set()
    for task in tasks:
        name = split_task(task)[0]
        options = Options.parse({**host_options(task, metadata), **metadata})
        setting = options.setting
        answers_cache(asked.use_cache, setting, asked.engine)
        sheet = catalog.sheet_of(name)
        prompt = base.get(sheet["benchmark"], options.prompt or sheet.get("prompt"), sheet["dataset"])
        others = tuple(base.table(sheet["benchmark"], sheet["dataset"]).values())
        form = forms.Form(prompt, setting, metadata, others)
        forms.check(form, asked.engine, None, bool(asked.template))
        if setting not in known:
            early.refuse(asked.engine, setting, {**_trusted(metadata), **asked.model_args})
            known.add(setting)


def _trusted(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """lm_eval's own option that a configuration is read with."""
    return {k: metadata[k] for k in ("trust_remote_code",) if k in metadata}


def _leaves(names: Iterable[Any]) -> Iterable[str]:
    groups, leaves = catalog.groups(), catalog.leaves()
    for name in names:
        if not isinstance(name, str):
            continue
        if split_task(name)[0] in leaves:
            yield name
        elif name in groups:
            yield from catalog.expand(name)
