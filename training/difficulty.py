"""`icr train difficulty CONFIG -o DATA2`: how often the model already answers each row, and the rows worth
training on.

icr train difficulty grpo_ao.yaml data=data -k 8 -o data-hard                          # vLLM in this process
icr train difficulty grpo_ao.yaml data=data -k 8 -o data-hard --base-url http://127.0.0.1:8000/v1

A row whose k completions all earn the same gives GRPO no gradient. Rows between --low and --high (mean reward
as a share of the best) stay, hardest last: `order: file` trains on them in that order, a curriculum by difficulty.
Interrupted? Run it again: rows that were sampled are kept in difficulty.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from icr_tasks import hub
from icr_tasks.engines.served.dialect import with_thoughts
from icr_tasks.errors import IcrError, install_hint
from icr_tasks.metrics.visible import visible
from icr_tasks.storage import write_atomic

from . import prepare
from .config import Config, load
from .data import formats, store
from .rewards import JUDGED, Row, score
from .rewards.registry import best
from .rows import Report, opened

# Conversations, completions each -> texts of each conversation.
Sample = Callable[[Sequence[list[dict[str, str]]], int], list[list[str]]]
_BATCH = 64
_DECIDES = (
    "model",
    "prompt",
    "reward",
    "max_prompt_length",
    "max_response_length",
    "truncation",
    "chat_template_kwargs",
    "seed",
)


def vllm_sampler(config: Config) -> Sample:
    """Completions by vLLM in this process, with the config's lengths and temperature; loaded when first asked."""

    @cache
    def engine() -> Any:
        from vllm import LLM

        # Not trl.vllm_max_model_length: nothing longer is asked here, and the model may take no more.
        window = config.max_prompt_length + config.max_response_length
        try:
            return LLM(model=config.model, max_model_len=window, enable_prefix_caching=True, seed=config.seed)
        except ValueError as error:
            raise IcrError(
                f"vLLM does not start {config.model} with a window of {window:,} tokens (max_prompt_length + "
                f"max_response_length): {error}"
            ) from error

    def sample(asked: Sequence[list[dict[str, str]]], k: int) -> list[list[str]]:
        llm = engine()
        from vllm import SamplingParams

        given = SamplingParams(
            n=k,
            temperature=config.trl.get("temperature", 1.0),
            max_tokens=config.max_response_length,
        )  # the engine has the seed: with one of a request vLLM's CPU worker fails where a prompt is prefilled in parts
        found = llm.chat(
            [*asked], given, use_tqdm=False, chat_template_kwargs=config.chat_template_kwargs or None
        )
        return [[o.text for o in one.outputs] for one in found]

    return sample


def served_sampler(config: Config, base_url: str, model: str) -> Sample:
    """Completions of an OpenAI-compatible server; calls run side by side."""
    from concurrent.futures import ThreadPoolExecutor

    try:
        from openai import OpenAI, OpenAIError
    except ImportError as error:
        raise IcrError(f"--base-url needs the openai client: {install_hint('judge')}") from error
    client = OpenAI(base_url=base_url, api_key="none")
    more = (
        {"extra_body": {"chat_template_kwargs": config.chat_template_kwargs}}
        if config.chat_template_kwargs
        else {}
    )

    def one(messages: list[dict[str, str]], k: int) -> list[Any]:
        temperature = config.trl.get("temperature", 1.0)
        try:
            found = client.chat.completions.create(  # type: ignore[call-overload]
                model=model,
                messages=messages,
                n=k,
                temperature=temperature,
                max_tokens=config.max_response_length,
                **more,  # type: ignore[arg-type]
            )
        except OpenAIError as error:
            raise IcrError(
                f"the server at {base_url} gave no completions of {model} ({error}); the same command goes on "
                "where it stopped"
            ) from error
        return [c.message for c in found.choices]

    replies = Replies(model == config.model)

    def sample(asked: Sequence[list[dict[str, str]]], k: int) -> list[list[str]]:
        with ThreadPoolExecutor(32) as pool:
            return replies.texts(list(pool.map(lambda m: one(m, k), asked)))

    return sample


_CLOSED = "</think>"


class Replies:
    """Served answers as texts that begin where the template does, be it inside a thought: parsed or not, one text.

    A message with a field for the thought, blank or not, has a closing mark before its content. One without begins
    inside a thought only where a reply of this server showed a raw closing mark, or where the model served is the
    config's (`same`) and no reply had a parsed thought; else it is an answer.
    """

    def __init__(self, same: bool) -> None:
        self._same, self._raw, self._parsed = same, False, False

    def texts(self, found: Sequence[Sequence[Any]]) -> list[list[str]]:
        """The text of each message of a batch, whose replies are all looked at first."""
        for message in (m for messages in found for m in messages):
            if (thought := _thought(message)) is None:
                self._raw |= visible(message.content or "", opened=True).closed
            else:
                self._parsed |= bool(thought.strip())
        return [[self._text(m) for m in messages] for messages in found]

    def _text(self, message: Any) -> str:
        thought, content = _thought(message), message.content or ""
        if thought is None and (self._raw or (self._same and not self._parsed)):
            return content
        whole = with_thoughts(thought or "", content)
        return f"{_CLOSED}{content}" if whole is None or whole == content else whole


def _thought(message: Any) -> str | None:
    """What the server's parser took out; None where it has no field for it."""
    given = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    return next((str(g) for g in given if g), None if given == [None, None] else "")


def measure(config: Config, path: Path, out: Path, k: int, sample: Sample) -> dict[str, dict[str, Any]]:
    """id -> mean reward (share of the best), pass@k and spread of k completions; kept in out/difficulty.jsonl
    as they come. Rows are cut to max_prompt_length as in training; one that training leaves out is not asked.

    IcrError where the file there was sampled otherwise, and where no row can be asked.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(config.model, local_files_only=hub.local(config.model, "model"))
    begun = opened(tokenizer, config.prompt, config.chat_template_kwargs)
    kept, same = out / "difficulty.jsonl", _asked(config, path, begun)
    done = {r["id"]: r for r in map(json.loads, _whole(kept))}
    if any(r["k"] != k for r in done.values()):
        raise IcrError(f"{kept} holds other numbers of completions; use the same -k, or another -o")
    if any(r.get("asked") != same for r in done.values()):
        raise IcrError(
            f"{kept} was sampled from other data or with another model, prompt, reward, length or "
            "temperature; use another -o"
        )
    out.mkdir(parents=True, exist_ok=True)
    report = Report()
    todo = (cut for row, cut in prepare.fitted(config, path, tokenizer, report) if row["id"] not in done)
    with kept.open("a", encoding="utf-8") as file:
        while rows := list(islice(todo, _BATCH)):
            answers = sample([formats.messages(r, config.prompt) for r in rows], k)
            for row, texts in zip(rows, answers, strict=True):
                done[row["id"]] = {
                    "id": row["id"],
                    "k": k,
                    **_judged(config, row, texts, begun),
                    "asked": same,
                }
                file.write(json.dumps(done[row["id"]]) + "\n")
            file.flush()
    print(f"data: {report}", flush=True)
    if not done:
        raise IcrError(f"no row of {path} can be used: {report}")
    return done


def _whole(kept: Path) -> list[str]:
    """The file's lines; one that a kill broke off is removed from it."""
    lines = kept.read_text(encoding="utf-8").splitlines(keepends=True) if kept.is_file() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_atomic(kept, "".join(lines).encode())
    return lines


def _judged(config: Config, row: dict[str, Any], texts: list[str], begun: bool) -> dict[str, float]:
    """What the completions of one row earned; `begun`: they begin inside a thought."""
    name = config.reward["name"]
    given = {"preset": config.reward.get("preset", "paper"), "options": config.reward.get("options")}
    found = score(name, texts, [Row.of(row)] * len(texts), opened=begun, **given)
    most_of = best(name, **given)
    if most_of <= 0:
        raise IcrError(
            f"reward {name!r} with these weights is never above 0; there is no difficulty to measure"
        )
    rewards = [one["reward"] / most_of for one in found]
    most, least = max(rewards), min(rewards)
    mean = sum(rewards) / len(rewards)
    return {"mean": mean, "pass": float(most >= 1.0), "flat": float(most == least)}


def _asked(config: Config, path: Path, begun: bool) -> str:
    """Names all that the completions of a row and their rewards depend on."""
    parts = [getattr(config, name) for name in _DECIDES]
    parts += [config.trl.get("temperature", 1.0), store.sha256(path), *(["opened"] if begun else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def chosen(path: Path, found: dict[str, dict[str, Any]], low: float, high: float) -> Iterator[dict[str, Any]]:
    """Rows with low <= mean <= high whose completions differed, easiest first."""
    keep = [i for i, r in found.items() if low <= r["mean"] <= high and not r["flat"]]
    order = {i: n for n, i in enumerate(sorted(keep, key=lambda i: (-found[i]["mean"], i)))}
    rows = {r["id"]: r for r in store.read(path) if r["id"] in order}
    yield from (rows[i] for i in sorted(rows, key=order.__getitem__))


def main(argv: list[str]) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(
        prog="icr train difficulty", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a GRPO config, its own or one that ships")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("-k", type=int, default=8, help="completions a row (default 8)")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder for the chosen rows and difficulty.jsonl"
    )
    parser.add_argument(
        "--low", type=float, default=0.0, help="least mean reward, as a share of the best (default 0)"
    )
    parser.add_argument("--high", type=float, default=1.0, help="greatest mean reward (default 1)")
    parser.add_argument(
        "--base-url", default="", help="an OpenAI-compatible server instead of vLLM in this process"
    )
    parser.add_argument("--served-model", default="", help="the model's name there (default: the config's)")
    args = parser.parse_intermixed_args(argv)
    config = load(args.config, args.overrides)
    if config.kind != "grpo" or config.reward["name"] in JUDGED:
        raise IcrError(
            "difficulty is measured with a GRPO config whose reward asks no judge: ao, id, idc or idq"
        )
    if args.k < 2 or not 0 <= args.low <= args.high <= 1:
        raise IcrError("-k must be at least 2, and 0 <= --low <= --high <= 1")
    path, _ = prepare.check(config, launched=False)
    store.elsewhere(args.out, path.parent)
    sample = (
        served_sampler(config, args.base_url, args.served_model or config.model)
        if args.base_url
        else vllm_sampler(config)
    )
    found = measure(config, path, args.out, args.k, sample)
    print(write(path, args.out, found, args.low, args.high))
    return 0


def write(path: Path, out: Path, found: dict[str, dict[str, Any]], low: float, high: float) -> str:
    """Write the chosen rows (and the dev set as it is); returns what was found, in words. IcrError when none
    is left."""
    flat = sum(r["flat"] for r in found.values()) / len(found)
    passed = sum(r["pass"] for r in found.values()) / len(found)
    mean = sum(r["mean"] for r in found.values()) / len(found)
    count = store.write(out / "train.parquet", chosen(path, found, low, high), store.ROW)
    k = next(iter(found.values()))["k"]
    text = (
        f"{len(found):,} rows: mean reward {mean:.1%} of the best, pass@{k:.0f} {passed:.1%}; {flat:.1%} of "
        "the groups without "
        f"gradient; {count:,} rows kept in {out}"
    )
    if not count:
        (out / "train.parquet").unlink()
        raise IcrError(
            f"{text}: no row is left; widen --low and --high, warm the model up, or use other data"
        )
    dev = path.parent / "dev.parquet"
    files = {"train.parquet": count}
    if dev.is_file():
        files["dev.parquet"] = store.write(out / "dev.parquet", store.read(dev), store.ROW)
    options = {"low": low, "high": high, "source": store.sha256(path)}
    store.Manifest.load(out).record(
        "difficulty", store.key_of(options), files, options=options, counts={"kept": count}
    )
    return text
