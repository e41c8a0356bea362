"""What a study shows: one sentence a comparison, tables with intervals, the domain matrix, cost, a forest
plot."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from icr_tasks.errors import IcrError
from icr_tasks.storage import write_atomic

from ...leaderboard import plots
from ...leaderboard.pairs.seeds import Pooled
from ..curves import chart, history, page
from .results import Results, equal_tokens
from .spec import START, Study

# ---- matrix --------------------------------------------------------------------------------------
# Train domain x eval domain: how each arm does on the domains it was trained on, and on those it was not.


def render_matrix(found: Results, setting: str) -> str:
    """The matrix (bold: trained on), each arm's off-diagonal mean, and contrasts with the control in and out
    of its domains."""
    from icr_tasks.leaderboard.text.names import points

    study = found.study
    names = list(study.domains)
    lines = [
        f"| trained on \\ evaluated on | {' | '.join(names)} | off-diagonal mean | − start |",
        "|---|" + "---:|" * (len(names) + 2),
    ]
    for arm in (START, *study.arms):
        trained = study.trained_on(arm) if arm != START else ()
        cells = []
        for name in names:
            one = found.pooled(
                study.control if arm == START else arm, START, setting, tuple(study.domains[name])
            )
            side = one.base if arm == START else one.new
            text = f"{points(side.mean)} ±{points(side.half())}"
            cells.append(f"**{text}**" if name in trained else text)
        cells += _off(found, setting, arm, [n for n in names if n not in trained])
        label = arm if arm == START else f"{arm} ({', '.join(trained) or 'none of these'})"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *contrasts(found, setting)])


def _off(found: Results, setting: str, arm: str, names: list[str]) -> list[str]:
    """Score over the domains the arm was not trained on, and its difference to the start."""
    from icr_tasks.leaderboard.text.names import interval, points

    if not names:
        return ["–", "–"]
    one = found.pooled(found.study.control if arm == START else arm, START, setting, _tasks(found, names))
    side = one.base if arm == START else one.new
    change = "" if arm == START else f"{points(one.delta.mean, sign=True)} {interval(one.total.ci())}"
    return [f"{points(side.mean)} ±{points(side.half())}", change]


def contrasts(found: Results, setting: str) -> list[str]:
    """Each arm against the control: in the control's domains, outside of them, and where neither was
    trained."""
    study, out = found.study, []
    home = study.trained_on(study.control)
    for arm in study.arms:
        if arm == study.control:
            continue
        seen = {*home, *study.trained_on(arm)}
        groups = {
            "Where the control was trained": [n for n in study.domains if n in home],
            "Where the control was not trained": [n for n in study.domains if n not in home],
            "Where neither was trained": [n for n in study.domains if n not in seen],
        }
        for where, names in groups.items():
            if names:
                one = found.pooled(arm, study.control, setting, _tasks(found, names))
                text = sentence(arm, study.control, one, one.total.p).removeprefix("- ")
                out.append(f"- {where} ({', '.join(names)}; N = {one.delta.clusters}): {text}")
    return out


def _tasks(found: Results, names: list[str]) -> tuple[str, ...]:
    return tuple(t for name in names for t in found.study.domains[name])


ALPHA = 0.05


def write(study: Study, begin: str, into: Path | None = None) -> str:
    """Write report.md, forest.svg (with the extra [board]) and, for GRPO, reward.svg into the study's folder;
    returns the report."""
    found = Results(study, begin)
    text = render(found)
    if study.tables:
        from . import tables

        text = f"{text}\n\n{tables.write(study, begin)}"
    write_atomic(study.out / "report.md", f"# Study: {study.name}\n\n{text}\n".encode())
    if plots.available():
        write_atomic(study.out / "forest.svg", forest(found).svg().encode())
    if drawn := rewards(found):
        write_atomic(study.out / "reward.svg", drawn.encode())
    if into:
        insert(into, study.name, text)
    picture = study.out / "forest.svg" if plots.available() else f"no forest.svg ({plots.NEEDS})"
    return f"{text}\n\n{study.out / 'report.md'}, {picture}; ledgers: {study.out / 'eval' / 'results'}"


def render(found: Results) -> str:
    """The report as Markdown, without its title."""
    study = found.study
    parts = (
        [f"**{study.question}**"] * bool(study.question)
        + [study.notes] * bool(study.notes)
        + [_conditions(found)]
    )
    for setting in found.settings():
        if len(found.settings()) > 1:
            parts.append(f"### Setting {setting}")
        parts += ["\n".join(sentences(found, setting)), spread(found, setting)]
        parts += [scores(found, setting), differences(found, setting)]
        if study.domains:
            parts.append(render_matrix(found, setting))
    return "\n\n".join([*filter(None, parts), cost(found)])


def comparisons(study: Study) -> list[tuple[str, str]]:
    """(arm, against): each arm against the control, then each against the start."""
    return [(a, study.control) for a in study.arms if a != study.control] + [(a, START) for a in study.arms]


def adjusted(found: Results, setting: str) -> dict[tuple[str, str], float]:
    """Holm's p, once over the comparisons with the control and once over those with the start."""
    from icr_tasks.leaderboard.stats import holm

    out: dict[tuple[str, str], float] = {}
    for control in (True, False):
        family = [c for c in comparisons(found.study) if (c[1] != START) == control]
        out |= zip(family, map(float, holm([found.pooled(*c, setting).total.p for c in family])), strict=True)
    return out


def sentence(arm: str, against: str, result: Pooled, p: float) -> str:
    """The verdict in words: better, worse, or not distinguishable and what would have been seen; none where
    too few seeds were run to know their luck."""
    from icr_tasks.leaderboard.text.names import interval, points
    from icr_tasks.leaderboard.text.printed import settled

    if result.identical == 1.0:
        return f"- {arm} gave **the same answers** as {against}, to the byte and under every seed: no effect to compare."
    bounds, seeds = result.total.ci(1 - ALPHA), len(result.each)
    shown = f"{points(result.delta.mean, sign=True)} points {interval(bounds)}, p = {p:.2g}"
    shown += (
        f", same sign in {result.agree} of {seeds} seeds"
        if seeds > 1
        else ", one seed" + (": its luck is not covered" if not result.decided else "")
    )
    if not result.decided:
        return f"- {arm} against {against} is **undecided**, too few seeds: {shown}."
    low, high = map(settled, bounds)
    if settled(p) < ALPHA and (low > 0 or high < 0):
        return f"- {arm} is significantly **{'better' if result.delta.mean > 0 else 'worse'}** than {against}: {shown}."
    unseen = f"true differences below about {points(result.total.mde())} points would mostly go unseen"
    return f"- {arm} is **not distinguishable** from {against}: {shown}; {unseen}."


def sentences(found: Results, setting: str) -> list[str]:
    """One sentence a comparison."""
    p = adjusted(found, setting)
    return [sentence(*c, found.pooled(*c, setting), p[c]) for c in comparisons(found.study)]


def spread(found: Results, setting: str) -> str:
    """How far the differences spread from seed to seed, pooled over arms: what a later study may give as its
    `seed_spread`. Empty with one seed."""
    from icr_tasks.leaderboard.text.names import points

    if len(found.study.seeds) < 2:
        return ""
    parts = []
    for against in dict.fromkeys(c[1] for c in comparisons(found.study)):
        if prior := found.prior(against, setting):
            parts.append(f"with {against} {points(math.sqrt(prior[0]))} points (df {prior[1]})")
    if not parts:
        return ""
    given = found.study.seed_spread
    source = f", with the {given['points']} points of {given['from']} in them" if given else ""
    return (
        f"Standard deviation of a difference from seed to seed, pooled over arms: {', '.join(parts)}{source}."
    )


def scores(found: Results, setting: str) -> str:
    """Held-out score x 100 of the start and each arm (mean of seeds) with half of the 95 % interval over
    questions."""
    from icr_tasks.leaderboard.text.names import points

    study, tasks = found.study, [str(t) for t in found.study.evaluate["tasks"]]
    first = {t: found.pooled(study.control, START, setting, (t,)).delta for t in tasks}
    everything = found.pooled(study.control, START, setting).delta
    heads = [f"{t.removeprefix('icr_')} (N = {first[t].clusters})" for t in tasks]
    heads += [f"all (N = {everything.n}, {everything.clusters} questions)"] * (len(tasks) > 1)
    lines = [f"| score | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for arm in (START, *study.arms):
        cells = []
        for chosen in [(t,) for t in tasks] + [()] * (len(tasks) > 1):
            one = found.pooled(study.control if arm == START else arm, START, setting, chosen)
            side = one.base if arm == START else one.new
            cells.append(f"{points(side.mean)} ±{points(side.half())}")
        lines.append(f"| {arm}{' (control)' * (arm == study.control)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(found: Results, setting: str) -> str:
    """Every comparison over all tasks and on each task."""
    from icr_tasks.leaderboard.text.names import interval, points

    tasks, p = [str(t) for t in found.study.evaluate["tasks"]], adjusted(found, setting)
    lines = [
        "| difference | on | Δ | 95 % CI, questions | 95 % CI, questions and seeds | p | p, Holm | each "
        "seed |",
        "|---|---|---:|---|---|---:|---:|---|",
    ]
    for arm, against in comparisons(found.study):
        chosen: list[tuple[str, ...]] = [()]
        chosen += [(t,) for t in tasks] if len(tasks) > 1 and against != START else []
        for of in chosen:
            one = found.pooled(arm, against, setting, of)
            each = ", ".join(points(d, sign=True) for d in one.each)
            holm = f"{p[arm, against]:.2g}" if not of else ""
            on = of[0].removeprefix("icr_") if of else "all"
            lines.append(
                f"| {arm} − {against} | {on} | {points(one.delta.mean, sign=True)} | "
                f"{interval(one.delta.ci())} | "
                f"{interval(one.total.ci())} | {one.total.p:.2g} | {holm} | {each} |"
            )
    return "\n".join(lines)


def cost(found: Results) -> str:
    """Steps, tokens and seconds of each arm, whether they are equal, and how often a judge was asked, where
    one was."""
    costs = {arm: found.cost(arm) for arm in found.study.arms}
    judged = any(c.asked is not None for c in costs.values())
    lines = [
        "| cost of a run | steps | tokens | CPU s | wall s | reward, last quarter |"
        + " completions judged |" * judged,
        "|---|---:|---:|---:|---:|---:|" + "---:|" * judged,
    ]
    for arm, c in costs.items():
        reward = f"{c.reward:.2f}" if c.reward is not None else "–"
        share = f" {100 * (c.asked or 0):.0f} % |" * judged
        lines.append(
            f"| {arm} | {c.steps:.0f} | {c.tokens:,.0f} | {c.cpu:.0f} | {c.wall:.0f} | {reward} |{share}"
        )
    return "\n".join(lines) + f"\n\n{equal_tokens(costs)} Numbers are means over seeds."


def forest(found: Results) -> plots.Chart:
    """Every comparison over all tasks with its interval over questions and seeds."""
    rows = []
    for setting in found.settings():
        for arm, against in comparisons(found.study):
            total = found.pooled(arm, against, setting).total
            name = f"{arm} - {against}" + f", {setting}" * (len(found.settings()) > 1)
            rows.append(plots.Row(name, *total.in_points()))
    return plots.forest(
        f"Study: {found.study.name}",
        rows,
        x_label="difference in points, 95 % interval over questions and seeds",
    )


def rewards(found: Results) -> str:
    """Training reward by step: mean over seeds, band from the lowest to the highest; empty for SFT."""
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for arm in found.study.arms:
        seeds = [
            {r["step"]: r["reward"] for r in history(found.folder(arm, s).parent) if "reward" in r}
            for s in found.study.seeds
        ]
        steps = sorted(set.intersection(*(set(s) for s in seeds)))
        lines[arm] = [(x, sum(s[x] for s in seeds) / len(seeds)) for x in steps]
        bands[arm] = [(x, min(s[x] for s in seeds), max(s[x] for s in seeds)) for x in steps]
    drawn = chart(f"{found.study.name}: training reward", lines, bands=bands)
    return page([drawn]) if drawn else ""


def insert(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- study: name -->` and `<!-- end study -->`. IcrError when the marks
    are not there."""
    body, marks = path.read_text(encoding="utf-8"), (f"<!-- study: {name} -->\n", "<!-- end study -->")
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.S)
    if not pattern.search(body):
        raise IcrError(f"{path} has no lines {marks[0].strip()} and {marks[1]}")
    write_atomic(path, pattern.sub(lambda _: f"{marks[0]}{text}\n{marks[1]}", body, count=1).encode())


def _conditions(found: Results) -> str:
    study: Study = found.study
    seeds: Sequence[int] = study.seeds
    base = Path(study.base).name or study.base
    given = study.evaluate
    limit = f", at most {given['limit']} items a task" if given.get("limit") else ""
    prior = study.seed_spread
    spread = (
        f" Seeds' spread given: {prior['points']} points, df {prior['df']} ({prior['from']})."
        if prior
        else ""
    )
    return (
        f"Base `{base}`, {'with a common start, ' if study.start else ''}control `{study.control}`, "
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)} an arm; evaluated by "
        f"`{given.get('engine', 'icr-vllm')}` under "
        f"{', '.join(found.settings())}{limit}. Scores are means over seeds; p and verdicts cover questions "
        f"and seeds.{spread}"
    )
