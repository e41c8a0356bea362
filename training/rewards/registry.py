"""Rewards by name and preset, and the check that a data set can feed one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from icr_tasks.errors import IcrError, unknown
from icr_tasks.metrics.visible import visible

from . import paper, paper_code
from .match import Options, Row, Scores
from .paper import JUDGED

PRESETS: dict[str, dict[str, Callable[..., list[Scores]]]] = {
    "paper": {**paper.REWARDS, paper.NAME: paper.hybrid},
    "paper_code": paper_code.REWARDS,
}
NAMES = tuple(PRESETS["paper"])
NEEDS_GOLD = ("id", "idc", "idq", "judge")


def options_of(given: Options | Mapping[str, Any] | None, preset: str) -> Options:
    """Checked options. IcrError for unknown keys, and for any option of `paper_code`, whose values are
    fixed."""
    if preset not in PRESETS:
        raise unknown("reward preset", preset, PRESETS)
    if given and preset != "paper":
        raise IcrError(f"preset {preset!r} takes no reward options; drop them, or use preset 'paper'")
    return given if isinstance(given, Options) else Options.of(given)


def suits(name: str, options: Options) -> None:
    """IcrError for options that reward `name` would not look at."""
    for term in options.weights:
        if term not in paper.PARTS.get(name, {}):
            raise IcrError(
                f"reward {name!r} has no term {term!r} to weigh (it has {', '.join(paper.PARTS.get(name, ())) or 'none'})"
            )
    for option, given, of in (("hybrid", options.hybrid, "judge"), ("rule", not options.rule, paper.NAME)):
        if given and name != of:
            raise IcrError(f"reward option {option!r} belongs to reward {of!r}, not to {name!r}")


def best(name: str, preset: str = "paper", options: Options | Mapping[str, Any] | None = None) -> float:
    """The most that reward can be under these options."""
    chosen = options_of(options, preset)
    if preset == "paper_code":
        return paper_code.BEST[name]
    if name == paper.NAME:
        return 1.0
    return sum(max(0.0, chosen.weights.get(t, 1.0)) * most for t, most in paper.PARTS[name].items())


def score(
    name: str,
    texts: Sequence[str],
    rows: Sequence[Row],
    *,
    preset: str = "paper",
    options: Options | Mapping[str, Any] | None = None,
    replies: Sequence[str | None] | None = None,
    opened: bool = False,
) -> list[Scores]:
    """One dict a completion: `reward` and its terms, NaN where a judge reply is missing or unreadable.

    `replies` are the judge's texts, for the rewards in `JUDGED` only. `opened`: the prompts ended inside a
    thought (`<think>`), so the completions begin in one. Raises IcrError for unknown names and unequal lengths.
    """
    chosen = options_of(options, preset)
    texts = [visible(text, opened).text for text in texts]  # a reward reads what the evaluation reads
    if name not in NAMES:
        raise unknown("reward", name, NAMES)
    if name not in PRESETS[preset]:
        raise IcrError(f"preset {preset!r} has no reward {name!r}; use preset 'paper'")
    suits(name, chosen)
    if len(texts) != len(rows):
        raise IcrError(f"{len(texts)} completions but {len(rows)} rows; rewards need one row a completion")
    if name not in JUDGED:
        return PRESETS[preset][name](texts, rows, chosen)
    if replies is None:
        raise IcrError(f"reward {name!r} needs the judge's replies; configure a judge (docs/rewards.md)")
    return PRESETS[preset][name](texts, rows, chosen, replies=replies)


def check(records: Iterable[Mapping[str, Any]], name: str) -> int:
    """Number of usable rows; IcrError naming the first rows a reward cannot use. Run it before anything heavy
    loads."""
    if name not in NAMES:
        raise unknown("reward", name, NAMES)
    bad: list[str] = []
    seen: set[str] = set()
    total = 0
    for number, record in enumerate(records):
        total += 1
        label = str(record.get("id") or f"number {number}")
        try:
            row = Row.of(record)
        except (IcrError, KeyError) as error:
            bad.append(f"{label}: {error if isinstance(error, IcrError) else f'no column {error}'}")
            continue
        passages = record.get("passages")
        if name in NEEDS_GOLD and not row.gold_ids:
            bad.append(f"{label}: no gold ids")
        elif (name in ("idc", "idq", "judge") or (name == paper.NAME and row.gold_ids)) and not row.gold_docs:
            bad.append(f"{label}: no gold texts")
        elif passages is not None and any(not 0 <= i < len(passages) for i in row.gold_ids):
            bad.append(f"{label}: a gold id is outside its {len(passages)} passages")
        elif passages is not None and row.gold_docs and not _gold(row, passages):
            bad.append(f"{label}: its gold texts are not the passages that its gold ids name")
        elif "question" in record and not row.question.strip():
            bad.append(f"{label}: no question")
        elif row.id and row.id in seen:
            bad.append(f"{label}: duplicate id")
        seen.add(row.id)
    if bad:
        shown = "; ".join(bad[:5])
        raise IcrError(
            f"{len(bad)} of {total} rows cannot be used for reward {name!r}: {shown}. See "
            "docs/training_data.md"
        )
    if not total:
        raise IcrError("the training data have no rows")
    return total


def _gold(row: Row, passages: Sequence[str]) -> bool:
    return [passages[i] for i in row.gold_ids] == list(row.gold_docs)
