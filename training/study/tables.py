"""The tables of the paper from a study's ledgers: scores by setting (1 and 2), what compression costs (3), how
well attention ranks the documents (4)."""

from __future__ import annotations

from pathlib import Path

from ...leaderboard.board import build, render
from ...leaderboard.board.tables import Options
from .. import checkpoint
from .. import evaluate as evaluation
from .spec import Study

_VIEWS = {"board": "Tables 1 and 2", "drop": "Table 3", "ranking": "Table 4"}


def rank(study: Study, begin: str) -> None:
    """Rank the documents of `tables.rank`'s tasks with every run's last checkpoint and what they began with;
    finished ones are kept."""
    from icr_tasks.ranking import reports

    runs = [study.config(arm, seed, begin) for arm, seed in study.runs()]
    models = [(begin, "ao")] + [(str(checkpoint.latest(Path(c.output))), c.prompt) for c in runs]
    for model, prompt in models:
        out = study.out / "eval" / "results" / "ranks" / evaluation.name_of(model)
        todo = [t for t in study.tables["rank"] if not (out / f"rank_{t}.json").is_file()]
        if todo:
            for report in reports.made(model, todo, prompt=prompt, limit=study.tables.get("limit")):
                if not isinstance(report, str):
                    reports.write(report | {"model": evaluation.name_of(model)}, out)


def write(study: Study, begin: str) -> str:
    """Write the board into the study's folder; returns Tables 1 to 4 as Markdown."""
    results = study.out / "eval" / "results"
    rank(study, begin)
    build.main([str(results), "-o", str(study.out / "board")])
    parts = []
    for view, title in _VIEWS.items():
        board = build.build(results, Options(evaluation.name_of(begin)), views=[view])
        parts.append(f"### {title}\n\n{render.markdown(board.tables).strip()}")
    return "\n\n".join(parts)
