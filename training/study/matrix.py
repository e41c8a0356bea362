"""Train domain x eval domain: how each arm does on the domains it was trained on, and on those it was not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .spec import START

if TYPE_CHECKING:
    from .results import Results


def render(found: Results, setting: str) -> str:
    """The matrix (bold: trained on), each arm's off-diagonal mean, and contrasts with the control in and out of its domains."""
    from icr_tasks.leaderboard.suite import points

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
            one = found.pooled(study.control if arm == START else arm, START, setting, tuple(study.domains[name]))
            side = one.base if arm == START else one.new
            text = f"{points(side.mean)} ±{points(side.half())}"
            cells.append(f"**{text}**" if name in trained else text)
        cells += _off(found, setting, arm, [n for n in names if n not in trained])
        label = arm if arm == START else f"{arm} ({', '.join(trained) or 'none of these'})"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *contrasts(found, setting)])


def _off(found: Results, setting: str, arm: str, names: list[str]) -> list[str]:
    """Score over the domains the arm was not trained on, and its difference to the start."""
    from icr_tasks.leaderboard.suite import interval, points

    if not names:
        return ["–", "–"]
    one = found.pooled(found.study.control if arm == START else arm, START, setting, _tasks(found, names))
    side = one.base if arm == START else one.new
    change = "" if arm == START else f"{points(one.delta.mean, sign=True)} {interval(one.total.ci())}"
    return [f"{points(side.mean)} ±{points(side.half())}", change]


def contrasts(found: Results, setting: str) -> list[str]:
    """Each arm against the control: in the control's domains, outside of them, and where neither was trained."""
    from .report import sentence

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
