"""Several candidates gated in one call (a folder of settings): one table, one JSON, one JUnit file, one
verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from icr_tasks.storage import write_atomic, writing

from ..ledgers.ledger import slug
from ..ledgers.load import Run
from ..text import escape
from ..text.names import count, interval, plain, points
from . import reports
from .gate import INCONCLUSIVE, NOT_COMPARABLE, PASS, REGRESSED, Verdict

_MARKS = {PASS: "✅", REGRESSED: "❌", INCONCLUSIVE: "❔", NOT_COMPARABLE: "⛔"}


@dataclass(frozen=True)
class Answer:
    """One candidate's verdict, with the runs and labels that its reports name."""

    found: Verdict
    base: Run | None
    new: Run | None
    first: Verdict | None
    labels: tuple[str, str]

    @property
    def slug(self) -> str:
        """Name for a folder of its reports; those of copies of a run are the same."""
        if self.new is None:
            return slug(self.labels[1])
        return slug(f"{self.new.setting}-{self.new.prompt or 'default'}-{self.new.fingerprint[:6]}")

    @property
    def data(self) -> tuple[Verdict, Run | None, Run | None, Verdict | None]:
        """What `reports.data` takes."""
        return self.found, self.base, self.new, self.first


def folders(answers: list[Answer]) -> list[str]:
    """Folders of their reports below those of all, each its own."""
    found: list[str] = []
    for one in answers:
        same = sum(name == one.slug or name.startswith(f"{one.slug}-copy") for name in found)
        found.append(f"{one.slug}-copy{same + 1}" if same else one.slug)
    return found


def terminal(answers: list[Answer], worst: Verdict) -> str:
    """The closing line."""
    return f"→ {worst.verdict}: {_counted(answers)}"


def markdown(answers: list[Answer], worst: Verdict) -> str:
    """One table over all candidates, then each report folded."""
    lines = [f"## {_MARKS[worst.verdict]} {worst.verdict}", "", _counted(answers), ""]
    lines += ["| model | setting | prompt | base | new | Δ | interval | MDE | verdict |"]
    lines += ["|---|---|---|---:|---:|---:|---|---:|---|"]
    for one in answers:
        found, run = one.found, one.new
        who = [run.model, f"`{run.setting}`", run.prompt] if run else [one.labels[1], "", ""]
        cells = ["", "", "", "", ""]
        if found.endpoints:
            line = found.endpoints[0].line
            cells = [
                points(line.base.mean),
                points(line.new.mean),
                points(line.delta.mean, sign=True),
                interval(line.delta.ci(1 - 2 * found.alpha)),
                points(line.delta.mde(found.alpha)),
            ]
        shown = [escape.markdown(who[0]), who[1], escape.markdown(who[2]), *cells]
        lines.append(f"| {' | '.join(shown)} | {_MARKS[found.verdict]} {found.verdict} |")
    lines.append("")
    for one in answers:
        text = reports.markdown(one.found, *one.labels, one.first).replace("## ", "### ", 1)
        lines += [
            f"<details><summary>{escape.markdown(plain(one.labels[1]))}</summary>",
            "",
            text,
            "</details>",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def data(answers: list[Answer], worst: Verdict) -> dict[str, Any]:
    """gate.json of all: the worst verdict and each run's own."""
    return {
        "schema": reports.SCHEMA,
        "verdict": worst.verdict,
        "exit_code": worst.code,
        "reason": _counted(answers),
        "runs": [reports.data(*one.data) for one in answers],
    }


def write(folder: Path, answers: list[Answer], worst: Verdict) -> None:
    """gate.md, gate.json and gate.xml over all candidates; gate.md also to $GITHUB_STEP_SUMMARY."""
    text = markdown(answers, worst)
    named = zip(answers, folders(answers), strict=True)
    suites = [reports.junit(one.found, name).partition("\n")[2].rstrip() for one, name in named]
    with writing("the gate's report", "choose another folder with -o"):
        write_atomic(folder / "gate.md", text.encode())
        body = orjson.dumps(data(answers, worst), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        write_atomic(folder / "gate.json", body + b"\n")
        xml = "\n".join(
            ['<?xml version="1.0" encoding="utf-8"?>', "<testsuites>", *suites, "</testsuites>", ""]
        )
        write_atomic(folder / "gate.xml", xml.encode())
        reports.summarise(text)


def _counted(answers: list[Answer]) -> str:
    found = [one.found.verdict for one in answers]
    parts = [f"{found.count(v)} {v}" for v in (NOT_COMPARABLE, REGRESSED, INCONCLUSIVE, PASS) if v in found]
    return f"{count(len(answers))} runs: {', '.join(parts)}"
