"""Stage 6: a language model keeps the candidates that really help to answer (paper, appendix A, second
stage).

Only candidates can be kept: an id that was not offered is ignored and counted. A candidate without a verdict
stays a distractor by default, unless it all but repeats the gold (nearness.py): the hardest distractors are
among them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from icr_tasks.benchmarks.base import fill
from icr_tasks.errors import IcrError
from icr_tasks.metrics.judge.rubrics import BadReply, visible

from . import dedupe, nearness, refine
from .config import Config
from .store import Record, count, key_of, read, write

OUTPUT = "judged.parquet"
COLUMNS = {"id": "str", "gold": "ints", "removed": "ints", "outside": "ints", "status": "str"}
_ROWS = 64  # asked together
Ask = Callable[[Sequence[str]], Sequence[str | None]]

PROMPT = """Below are a question, its answer, passages that are known to support the answer, and candidate documents.

Question: {question}
Answer: {answer}

Known supporting passages:
{gold}

Candidate documents:
{candidates}

Which candidate documents state information that is needed to answer the question? A document that is only about the same topic is not needed. Finish with one line in this form, with the ids of those documents, or "none":
Relevant documents: [DOC 1], [DOC 2]"""
_LINE = re.compile(r"^\W*relevant\s+documents?(?:\s+ids?)?\W*?:(.*)$", re.I | re.M)


def question(row: Record, candidates: Sequence[int]) -> str:
    """The judge prompt of a row; candidate n is `[DOC n]`, counted from 1."""
    offered = "\n\n".join(f"[DOC {n}]\n{row['negatives'][i]}" for n, i in enumerate(candidates, 1))
    known = "\n\n".join(row["gold_texts"])
    fields = {"question": row["question"], "answer": row["answers"][0], "gold": known, "candidates": offered}
    return fill(PROMPT, fields)


def chosen(reply: str | None, n: int) -> tuple[list[int], list[int]] | None:
    """(ids among 1..n, ids that were never offered) of the reply's last list; None when it cannot be read."""
    if reply is None:
        return None
    try:
        lines = _LINE.findall(visible(reply))
    except BadReply:
        return None
    if not lines:
        return None
    named = sorted({int(number) for number in re.findall(r"\d+", lines[-1])})
    if not named and not re.search(r"\bnone\b", lines[-1], re.I):
        return None
    return [i for i in named if 1 <= i <= n], [i for i in named if not 1 <= i <= n]


def asker(cfg: Config, store: Path | None) -> Ask:
    """The configured judge; every reply is kept in `store`, so an interrupted stage goes on where it
    stopped."""
    from ...metrics.judge.ask import Asker

    def accept(reply: str) -> None:
        if chosen(reply, 0) is None:
            raise BadReply("no line 'Relevant documents: ...'")

    judge = {"base_url": cfg.judge_base_url, "model": cfg.judge_model, "max_tokens": cfg.judge_max_tokens}
    judge |= {"api_key_env": cfg.judge_api_key_env}
    return Asker(judge, accept, kind="refine", version=key_of(PROMPT), store=store)


def _outcome(candidates: list[int], reply: str | None, unjudged: str, row: Record | None = None) -> Record:
    """gold and removed positions of one row, and why. `row` is what near duplicates are told by."""
    verdict = chosen(reply, len(candidates))
    if verdict is None:
        gold = candidates if unjudged == "gold" else []
        removed = candidates if unjudged in ("drop", "") else []
        if unjudged == "negative" and row is not None:
            removed = nearness.repeats(row, candidates)
        return {"gold": gold, "removed": removed, "outside": [], "status": "no verdict"}
    kept, outside = verdict
    return {"gold": [candidates[n - 1] for n in kept], "removed": [], "outside": outside, "status": "judged"}


def run(cfg: Config, folder: Path, ask: Ask | None = None) -> dict[str, Any]:
    """Write judged.parquet. `ask` replaces the configured judge; without either every candidate is
    unjudged."""
    if ask is None and cfg.judge_base_url:
        ask = asker(cfg, folder / "judge.sqlite")
    counts: Counter[str] = Counter()

    def rows() -> Iterator[Record]:
        columns = ["id", "question", "answers", "gold_texts", "gold_titles", "negatives", "titles"]
        pending: list[tuple[Record, list[int]]] = []
        pairs = zip(
            read(folder / dedupe.OUTPUT, columns, batch=64), read(folder / refine.OUTPUT), strict=True
        )
        for row, found in pairs:
            pending.append((row, found["candidates"]))
            if len(pending) == _ROWS:
                yield from _batch(pending, ask, cfg.unjudged, counts)
                pending = []
        yield from _batch(pending, ask, cfg.unjudged, counts)

    counts["rows"] = write(
        folder / OUTPUT, rows(), COLUMNS, about="judge", total=count(folder / dedupe.OUTPUT)
    )
    unread, asked = counts["rows no verdict"], counts["rows no verdict"] + counts["rows judged"]
    if ask is not None and asked >= 10 and unread > asked / 2:
        (folder / OUTPUT).unlink()
        raise IcrError(
            f"the judge gave no readable verdict for {unread} of {asked} rows (it should end with 'Relevant "
            "documents: ...'); "
            "use another judge_model, or raise judge_max_tokens"
        )
    return dict(counts)


def _batch(
    pending: Sequence[tuple[Record, list[int]]], ask: Ask | None, unjudged: str, counts: Counter[str]
) -> Iterator[Record]:
    asked = [(row, candidates) for row, candidates in pending if candidates]
    prompts = [question(row, candidates) for row, candidates in asked]
    replies = iter(ask(prompts) if ask and prompts else [None] * len(asked))
    for row, candidates in pending:
        if not candidates:
            yield {"id": row["id"], "gold": [], "removed": [], "outside": [], "status": "no candidates"}
            continue
        out = {"id": row["id"], **_outcome(candidates, next(replies), unjudged, row)}
        counts["candidates"] += len(candidates)
        counts["promoted"] += len(out["gold"])
        counts["removed"] += len(out["removed"])
        counts["ids never offered"] += len(out["outside"])
        counts[f"rows {out['status']}"] += 1
        yield out
