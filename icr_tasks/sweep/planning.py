"""From task names (or ledgers) and settings to a plan: what can be seen, what it costs, and the cheapest way.

    import icr_tasks as icr
    print(icr.plan("icr_helmet_rag", settings=["full", "rag@16k"], margin=0.02))

Prompt lengths are those of the task's data by the evaluated model's tokenizer, where one is named (`tokenizer`);
without one nominal where a task has a length, else of its data at four characters a token; the official numbers
where the data are not here. The variance comes from `results` where two comparable runs are there, else from the
shipped prior (`leaderboard.plan.PRIOR`: the larger of a simulated population's and those of a study of a small model).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..benchmarks import catalog
from ..context.tokens import TokenCounter, counter
from ..errors import IcrError
from ..leaderboard import plan as planned
from ..leaderboard.ledgers.load import Run, TaskItems, load
from ..leaderboard.ledgers.summary import tokens
from ..leaderboard.pairs.joined import pair
from ..leaderboard.plan import Cell, Plan, Rates, Spread
from ..leaderboard.stats import codes
from ..leaderboard.text.names import TITLES, count, deployable, listed, points
from ..settings import Setting

CHARACTERS = 4.0  # a token, where no tokenizer has counted
SAMPLE = 12  # items whose contexts are read for their length
PAIRS = 12  # pairs of runs that a variance is taken from
SHORT = 400.0  # prompt tokens of a question without context
# benchmark/dataset -> units that share (questions, books, documents), items a unit, prompt tokens where the
# task has no length
OFFICIAL: Mapping[str, tuple[int, float, float]] = {
    "helmet_rag/nq": (100, 6, 0),
    "helmet_rag/triviaqa": (100, 6, 0),
    "helmet_rag/popqa": (100, 6, 0),
    "helmet_rag/hotpotqa": (100, 3, 0),
    "infbench/mc": (58, 229 / 58, 184_000),
    "infbench/qa": (69, 351 / 69, 193_000),
    "infbench/sum": (103, 1, 172_000),
    "longbench_v2/all": (503, 1, 260_000),
    "loong_fin/all": (59, 5, 110_000),
}
OUTPUT = {"infbench/sum": 800.0, "loong_fin/all": 300.0}


@dataclass(frozen=True)
class Planned(Plan):
    """A plan that prints as Markdown."""

    names: tuple[str, ...] = ()  # benchmarks whose variances were measured
    prior_used: Mapping[str, Spread] = field(default_factory=dict)

    def __str__(self) -> str:
        return text(self)


def plan(
    tasks: str | Sequence[str] | None = None,
    settings: Sequence[str] = ("full",),
    *,
    margin: float = 0.02,
    results: str | Path | None = None,
    rates: Rates | None = None,
    alpha: float = 0.05,
    tokenizer: str | None = None,
    max_model_len: int | None = None,
) -> Planned:
    """What an evaluation of these tasks can see and costs. `margin` in score units (0.02 = 2 points);
    `results`: ledgers to take tasks (when `tasks` is None), tokens and variances from; `tokenizer`: the evaluated
    model's, a hub id or a folder, to count the tasks' data with; `max_model_len`: prompts are cut to it, as engines do.

    Raises IcrError for unknown tasks, settings that do not parse, a tokenizer that cannot be loaded, and when
    there is neither task nor ledger.
    """
    counts = counter({"tokenizer": tokenizer}) if tokenizer else None
    chosen = [str(Setting.parse(s)) for s in settings]
    runs = load(results) if results is not None else []
    notes: list[str] = []
    names = [tasks] if isinstance(tasks, str) else list(tasks or [])
    if not names and not runs:
        raise IcrError("nothing to plan: name tasks (--tasks icr_helmet_rag) or ledgers (--results results)")
    leaves = list(dict.fromkeys(leaf for name in names for leaf in catalog.expand(name)))
    guessed: set[str] = set()  # tasks whose questions are not known, only their number
    known, pilots = _measured(runs)
    known |= _whole({n: known[n] for n in pilots if n in leaves or not names}, pilots, notes, guessed)
    cells = [known.get(leaf) or _declared(leaf, notes, guessed, counts) for leaf in leaves or known]
    cells = _same_questions(cells, guessed)
    if not cells:
        raise IcrError(
            f"nothing to plan: the ledgers in {results} hold no items; name tasks (--tasks icr_helmet_rag)"
        )
    if max_model_len is not None:
        cells = [replace(cell, prompt=min(cell.prompt, float(max_model_len))) for cell in cells]
        notes.append(f"prompts: at most {count(max_model_len)} tokens")
    notes += [
        f"{s}: prompt tokens of the whole context, which are the most there can be"
        for s in chosen
        if "@only" in s
    ]
    rates = rates or Rates(given=False)
    if not rates.given:
        rates = _rates(runs, rates, notes)
    spreads = _spreads(runs, notes)
    if not spreads:
        notes.append(
            "variance: shipped prior, the larger of a simulated population's and a small model's; with "
            "--results DIR that of your runs"
        )
    made = planned.make(
        cells,
        {s: [_under(c, Setting.parse(s)) for c in cells] for s in chosen},
        margin=margin,
        prior={**planned.PRIOR, **spreads},
        rates=rates,
        alpha=alpha,
        notes=list(dict.fromkeys(notes)),
    )
    return Planned(**vars(made), names=tuple(spreads), prior_used=spreads)


def _rates(runs: Sequence[Run], base: Rates, notes: list[str]) -> Rates:
    """Measured rates of these runs where they were timed. Several models: those of the slowest, which is said."""
    found: dict[str, Rates] = {}
    for name in sorted({run.model for run in runs}):
        made = planned.measured([run.head for run in runs if run.model == name], base)
        if made is not None:
            found[name] = made
    if not found:
        return base
    slowest = min(found, key=lambda name: found[name].prefill)
    more = f", the slowest of {len(found)} models" if len(found) > 1 else ""
    notes.append(
        f"rates: measured in the ledgers of {slowest}{more}, shared prefixes and concurrency included"
    )
    return found[slowest]


def _under(cell: Cell, setting: Setting) -> Cell:
    """A cell with the prompt tokens that a setting leaves of its context."""
    if setting.kind == "none":
        return replace(cell, prompt=min(cell.prompt, SHORT))
    if setting.kind == "rag":
        return replace(cell, prompt=min(cell.prompt, float(setting.budget) + SHORT))
    if setting.kind == "route":
        return replace(cell, prompt=cell.prompt + float(setting.amount or 0))
    return cell


def _same_questions(cells: Sequence[Cell], guessed: set[str]) -> list[Cell]:
    """A dataset asks the same questions at every length: where the data of some lengths are here, the others take
    their questions, which else would count a second time."""
    there = {cell.dataset: cell for cell in cells if cell.task not in guessed}
    return [
        replace(cell, clusters=other.clusters, shared=other.shared)
        if cell.task in guessed and (other := there.get(cell.dataset))
        else cell
        for cell in cells
    ]


def _declared(leaf: str, notes: list[str], guessed: set[str], counts: TokenCounter | None = None) -> Cell:
    """A task's cell from its data, or from the official numbers where they are not on this machine (then the task is
    added to `guessed`). `counts` counts the texts of some of its items."""
    benchmark, task = catalog.find(leaf)
    place, length = f"{benchmark.name}/{task.dataset}", task.length or ""
    out = OUTPUT.get(place, 32.0)
    try:
        items = benchmark.load(task.dataset, task.length).items
    except IcrError as error:
        if place not in OFFICIAL:
            raise
        guessed.add(leaf)
        units, each, prompt = OFFICIAL[place]
        said = f"{benchmark.title}: official numbers, its data are not here"
        if not any(
            note.startswith(said) for note in notes
        ):  # one line a benchmark, with the first file that is missing
            notes.append(f"{said} ({str(error).splitlines()[0]})")
        clusters = [f"{task.dataset}{i % units}" for i in range(round(units * each))]
        return Cell(leaf, benchmark.name, place, length, clusters, tokens(length) or prompt, out)
    read = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]
    texts = [[unit.text for unit in item.units()] for item in read] if counts or not length else []
    documents = [[str(d["file"]) for d in item.fields.get("documents", ())] for item in items]
    shared = documents if all(documents) else None
    if counts is not None:
        notes.append(f"prompt tokens: the tasks' data by {counts.name}, {SAMPLE} items a task")
        prompt = float(np.mean([sum(counts.counts(parts)) for parts in texts])) + SHORT
    else:
        prompt = tokens(length) or float(np.mean([sum(map(len, t)) for t in texts])) / CHARACTERS + SHORT
    return Cell(leaf, benchmark.name, place, length, [item.cluster for item in items], prompt, out, shared)


def _whole(
    cells: Mapping[str, Cell], pilots: Mapping[str, int], notes: list[str], guessed: set[str]
) -> dict[str, Cell]:
    """Cells of which the ledgers hold a part of the items (`--limit`), with all that the task has; tokens stay those
    of the ledgers. Where nobody knows the others, the part is the plan. Either is noted."""
    found, made, kept = {}, [], []
    for name, cell in cells.items():
        said = f"{name} {count(len(cell.clusters))}/{count(pilots[name])}"
        official: set[str] = set()
        of_these: list[str] = []
        try:
            whole = _declared(name, of_these, official)
        except IcrError:
            kept.append(said)
            continue
        if len(whole.clusters) != pilots[name]:  # other data than the ledger is of
            kept.append(said)
            continue
        guessed |= official
        notes += of_these
        found[name] = replace(whole, prompt=cell.prompt or whole.prompt, output=cell.output)
        made.append(said)
    if made:
        notes.append(
            f"pilots: the ledgers hold a part of {listed(made, 3)}; tokens are theirs, questions those of all items"
        )
    if kept:
        notes.append(
            f"the ledgers hold a part of {listed(kept, 3)}, and the other items are not known here: planned "
            "for that part"
        )
    return found


def _measured(runs: Sequence[Run]) -> tuple[dict[str, Cell], dict[str, int]]:
    """Cells of the tasks in ledgers, from the run with the most items, prompts as the longest setting has them; and
    how many items those tasks have of which that run holds a part."""
    best: dict[str, TaskItems] = {}
    prompts: dict[str, float] = {}
    for run in runs:
        for name, task in run.tasks.items():
            if not len(task):
                continue
            best[name] = max((task, best.get(name, task)), key=len)
            seen = task.n_prompt_tokens[~np.isnan(task.n_prompt_tokens)]
            prompts[name] = max(prompts.get(name, 0.0), float(seen.mean()) if len(seen) else 0.0)
    found = {}
    for name, task in best.items():
        said = task.n_out_tokens[~np.isnan(task.n_out_tokens)]
        clusters = [c or f"{i}/{o}" for c, i, o in zip(task.cluster, task.item, task.occ, strict=True)]
        found[name] = Cell(
            name,
            task.benchmark,
            task.dataset,
            task.length,
            clusters,
            prompts[name] or float(tokens(task.length)),
            float(said.mean()) if len(said) else 32.0,
            task.shared,
        )
    expected = {name: int(task.sheet.get("n_expected") or 0) for name, task in best.items()}
    return found, {name: n for name, n in expected.items() if n > len(best[name])}


def undecidable(run: Run, alpha: float) -> list[str]:
    """Endpoints of a run's tasks that no candidate could be called worse in: one question or book, or too
    few."""
    ends = planned.endpoints(list(_measured([run])[0].values()), alpha=alpha)
    return [TITLES.get(end.name, end.name) for end in ends if not end.possible]


def _spreads(runs: Sequence[Run], notes: list[str]) -> dict[str, Spread]:
    """Variances by benchmark, averaged over pairs of runs of different models under one setting; where there is
    none, over pairs of deployable settings of one model, the nearest thing to a changed model that is there."""
    found, used = _changes(runs, "model")
    if used:
        notes.append(f"variance: from {used} pair{'s' if used > 1 else ''} of runs in the ledgers")
    else:
        served = [run for run in runs if deployable(run.head["setting"])]
        found, used = _changes(served, "setting")
        if used:
            notes.append(
                f"variance: from {used} pair{'s' if used > 1 else ''} of settings of one model in the ledgers, for "
                "want of two models"
            )
    return {
        name: Spread(
            *(float(np.mean([getattr(s, f) for s in many])) for f in ("question", "length", "noise"))
        )
        for name, many in found.items()
    }


def _changes(runs: Sequence[Run], axis: Literal["model", "setting"]) -> tuple[dict[str, list[Spread]], int]:
    """Spreads of each benchmark, one a pair of runs that differ in `axis` alone, and how many pairs there were."""
    found: dict[str, list[Spread]] = {}
    used = 0
    for one, two in itertools.combinations(runs, 2):
        facts = (
            (run.setting, run.prompt) if axis == "model" else (run.model, run.prompt) for run in (one, two)
        )
        if used >= PAIRS or len(set(facts)) > 1 or getattr(one, axis) == getattr(two, axis):
            continue
        joined = pair(one, two, common=True, axis=axis)
        if joined.refusals:
            continue
        used += 1
        for name in sorted(set(joined.benchmark.tolist())):
            at = joined.benchmark == name
            cell = codes([f"{d}@{n}" for d, n in zip(joined.dataset[at], joined.length[at], strict=True)])[0]
            found.setdefault(name, []).append(
                planned.spread_of(joined.change[at], codes(joined.cluster[at])[0], cell)
            )
    return found, used


# ---- output --------------------------------------------------------------------------------------


def text(made: Plan) -> str:
    """Markdown: what each endpoint can see, what each setting costs, the cheapest design for the margin."""
    rates = made.rates
    lines = ["| endpoint | items | questions or documents | MDE | |", "|---|---:|---:|---:|---|"]
    for end in made.endpoints:
        say = "" if end.possible else "no result could be called a regression"
        if end.possible and end.mde > made.margin and end.name == "suite":
            say = f"cannot settle a margin of {points(made.margin)}"
        shown = points(end.mde) if math.isfinite(end.mde) else "–"
        title = TITLES.get(end.name, end.name)
        lines.append(f"| {title} | {count(end.items)} | {count(end.questions)} | {shown} | {say} |")
    lines += ["", "| setting | prompt tokens | answer tokens | time | dollars |", "|---|---:|---:|---:|---:|"]
    for name, (prompt, output) in made.costs.items():
        dollars = rates.dollars(prompt, output)
        price = "–" if dollars is None else f"{dollars:,.2f}"
        hours = f"{rates.seconds(prompt, output) / 3600:.1f} h"
        lines.append(f"| `{name}` | {count(round(prompt))} | {count(round(output))} | {hours} | {price} |")
    lines += ["", sentence(made), ""]
    if made.choice.enough:
        whole = {c.dataset: c for c in made.cells}
        for dataset, (questions, each) in made.choice.taken.items():
            cell = whole[dataset]
            most = len(set(cell.clusters))
            lines.append(f"- {dataset}: {questions} of {most} questions or documents, {each} item(s) of each")
    lines.append(
        f"- times at {count(round(rates.prefill))} prompt and {count(round(rates.decode))} answer tokens a "
        "second"
    )
    level = f"{100 * made.alpha:g} %"
    lines.append(
        f"- MDE: smallest true difference a one-sided test at {level} finds with 80 % power, in points"
    )
    return "\n".join([*lines, *(f"- {note}" for note in made.notes)])


def sentence(made: Plan) -> str:
    """The cheapest design, or what the data can show at best."""
    choice, rates = made.choice, made.rates
    if not choice.enough:
        best = points(choice.mde) if math.isfinite(choice.mde) else "–"
        return (
            f"a margin of {points(made.margin)} is beyond these data: with every item they see {best} points"
        )
    whole = max((rates.seconds(*cost) for cost in made.costs.values()), default=0.0)
    part = rates.seconds(*planned.total(choice.cells))
    share = f"{100 * part / whole:.0f} %" if whole else "–"
    return (
        f"cheapest design that sees {points(made.margin)} points: "
        f"{count(sum(len(c.clusters) for c in choice.cells))} items, "
        f"MDE {points(choice.mde)}, {share} of the time of all items"
    )


def data(made: Plan) -> dict[str, Any]:
    """The plan as plain numbers; what is unknown is None."""
    rates = made.rates
    return {
        "schema": 1,
        "margin": made.margin,
        "endpoints": [{**vars(e), "mde": e.mde if math.isfinite(e.mde) else None} for e in made.endpoints],
        "costs": {
            name: {
                "prompt_tokens": prompt,
                "output_tokens": output,
                "seconds": rates.seconds(prompt, output),
                "dollars": rates.dollars(prompt, output),
            }
            for name, (prompt, output) in made.costs.items()
        },
        "cheapest": {
            "enough": made.choice.enough,
            "mde": made.choice.mde if math.isfinite(made.choice.mde) else None,
            "items": sum(len(c.clusters) for c in made.choice.cells),
            "take": {d: {"questions": q, "items_each": m} for d, (q, m) in made.choice.taken.items()},
        },
        "sentence": sentence(made),
        "notes": made.notes,
    }
