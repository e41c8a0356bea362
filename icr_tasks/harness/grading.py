"""Metrics that need another model: Loong's judge, xFinder for multiple choice, an embedder for summaries. Whole
tasks at a time, and never fatal.

`--metadata '{"judge_base_url":...,"judge_model":...}'`, `xfinder_*` or `similarity_*` switch them on. What goes
wrong here waits until the results are saved (`plugin.deferred`); without that model the metric is absent and the
sheet says why.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import IcrError
from ..metrics import summary
from ..metrics.judge.config import KEYS as JUDGE_KEYS
from ..metrics.judge.config import JudgeConfig
from ..metrics.xfinder import KEYS as XFINDER_KEYS
from ..metrics.xfinder import XFinderConfig
from . import saving

log = logging.getLogger("icr_tasks")
_KEYS = {"judge_": JUDGE_KEYS, "xfinder_": XFINDER_KEYS, "similarity_": summary.KEYS}
GRADER_KEYS = tuple(prefix + key for prefix, keys in _KEYS.items() for key in keys)


@dataclass(frozen=True, slots=True)
class Graders:
    """The configured helpers."""

    judge: JudgeConfig | None = None
    xfinder: XFinderConfig | None = None
    similarity: summary.SimilarityConfig | None = None

    @classmethod
    def parse(cls, metadata: Mapping[str, Any]) -> Graders:
        """Raises IcrError for an option that does not exist or cannot work, before anything is generated."""
        return cls(
            JudgeConfig.parse(metadata),
            XFinderConfig.parse(metadata),
            summary.SimilarityConfig.parse(metadata),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One generation: `doc` as lm-eval logs it, `fields` the item's own (instruction, gold as it came)."""

    doc: Mapping[str, Any]
    fields: Mapping[str, Any]
    text: str


@dataclass
class Grades:
    """Metrics by item id, what the data sheet records, and an error to raise after saving."""

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    sheet: dict[str, Any] = field(default_factory=dict)
    error: IcrError | None = None


def grade(scorer: str, graders: Graders, answers: Sequence[Answer], *, progress: bool = True) -> Grades:
    """Grade answers by their scorer's helper; empty where the scorer needs none."""
    grader = GRADERS.get(scorer)
    if grader is None:
        return Grades()
    try:
        return grader(graders, answers, progress)
    except IcrError as error:
        return Grades(sheet={"reasons": dict.fromkeys(METRICS[scorer], str(error))}, error=error)


def loong(graders: Graders, answers: Sequence[Answer], progress: bool = True) -> Grades:
    """Judge every answer; a judge that fails half-way gives no score at all, since half would look like
    all."""
    from ..metrics.judge import Case, Judge, metrics_of
    from ..metrics.judge.rubrics import official_rating

    config = graders.judge
    if config is None:
        return Grades(
            sheet={"reasons": dict.fromkeys(METRICS["loong"], "no judge: set judge_base_url and judge_model")}
        )
    # The official template without its documents begins with the blank lines that followed them.
    cases = [
        Case(
            f"\n\n{a.fields['instruction']}\n\n{a.doc['question']}",
            str(a.fields["gold"]),
            a.text,
            str(a.doc["id"]),
        )
        for a in answers
    ]
    judge = Judge(config, progress=progress)
    verdicts = judge.score(cases)
    scores = [metrics_of(v) for v in verdicts]
    if config.rubric == "loong":
        for verdict, found in zip(verdicts, scores, strict=True):
            if (rating := official_rating(verdict.reply or "")) is not None:
                found["judge_official"] = rating / 100
    failed = Counter(v.reason for v in verdicts if not v.ok)
    for reason, n in failed.most_common(5):
        log.warning("judge: %d of %d answers without verdict: %s", n, len(verdicts), reason)
    counts = {
        "n": len(verdicts),
        "cached": sum(v.cached for v in verdicts),
        "flagged": sum(v.flagged for v in verdicts),
    }
    judged = {**counts, "failed": dict(failed), "by": by(answers, scores, ("level", "set"))}
    return Grades(
        dict(zip((c.id for c in cases), scores, strict=True)), {"judge": config.sheet(), "judged": judged}
    )


def equivalence(graders: Graders, answers: Sequence[Answer], progress: bool = True) -> Grades:
    """`judge_equiv` of a QA task: whether the answer says what a gold answer says. Only where a judge is
    configured."""
    from ..metrics.judge import Case, Judge
    from ..metrics.judge.equivalence import equiv_metrics, gold_text

    if graders.judge is None:
        return Grades()
    config = replace(graders.judge, rubric="equiv")
    cases = [
        Case(
            a.doc["question"],
            gold_text(a.doc["answers"]),
            a.text,
            str(a.doc["id"]),
            rule=str(a.fields.get("rule", "")),
        )
        for a in answers
    ]
    judge = Judge(config, progress=progress)
    verdicts = judge.score(cases)
    failed = Counter(v.reason for v in verdicts if not v.ok)
    for reason, n in failed.most_common(5):
        log.warning("judge: %d of %d answers without verdict: %s", n, len(verdicts), reason)
    judged = {
        "n": len(verdicts),
        "cached": sum(v.cached for v in verdicts),
        "flagged": sum(v.flagged for v in verdicts),
        "not_attempted": sum(v.criteria.get("attempted") == 0 for v in verdicts),
        "failed": dict(failed),
    }
    scores = {c.id: equiv_metrics(v) for c, v in zip(cases, verdicts, strict=True)}
    return Grades(scores, {"judge_equiv": config.sheet(), "judged": judged})


def judged(graders: Graders, answers: Sequence[Answer], progress: bool = True) -> Grades:
    """`judge_equiv` where it is the headline: without a judge the sheet says why there is none."""
    if graders.judge is None:
        return Grades(sheet={"reasons": {"judge_equiv": "no judge: set judge_base_url and judge_model"}})
    return equivalence(graders, answers, progress)


def choice(graders: Graders, answers: Sequence[Answer], progress: bool = True) -> Grades:
    """Extract every multiple-choice answer with xFinder."""
    from ..metrics.xfinder import XFinder
    from ..metrics.xfinder_cases import ChoiceCase, metrics

    if graders.xfinder is None:
        return Grades(
            sheet={
                "reasons": dict.fromkeys(
                    METRICS["longbench"], "no extractor: set xfinder_base_url and xfinder_model"
                )
            }
        )
    cases = [
        ChoiceCase(str(a.doc["id"]), a.doc["question"], tuple(a.doc["options"]), _letter(a.doc), a.text)
        for a in answers
    ]
    extractor = XFinder(graders.xfinder)
    found = extractor.extract(cases)
    scores = {case.id: metrics(extractor, case, f) for case, f in zip(cases, found, strict=True)}
    wrong = Counter(f.error for f in found if f.text is None)
    error = None
    if wrong:
        first = "; ".join(f"{n} x {reason}" for reason, n in wrong.most_common(3))
        error = IcrError(
            f"xFinder failed on {wrong.total()} of {len(cases)} answers ({first}); their accuracy is not "
            "counted",
            exit_code=3,
        )
    return Grades(scores, {"extractor": graders.xfinder.sheet(), "extracted": {"failed": dict(wrong)}}, error)


def summaries(graders: Graders, answers: Sequence[Answer], progress: bool = True) -> Grades:
    """LongBench Pro's summary score: half an embedder's similarity, half ROUGE-L. Never one half alone.

    The sheet says which embedder at which revision; with any but the official one the score is `summary_other`.
    """
    from ..context.retrieval.embedder import Embedder

    config = graders.similarity
    if config is None:
        why = f"no embedder: set similarity_model (official: {summary.OFFICIAL})"
        return Grades(sheet={"reasons": dict.fromkeys(METRICS["lbpro_sum"], why)})
    embedder = Embedder(config.model, config.revision, config.engine)
    found = summary.scores(
        [a.text for a in answers],
        [a.doc["answers"] for a in answers],
        [a.fields.get("language") == "Chinese" for a in answers],
        embedder.encode,
        "summary" if (same := summary.official(config.model, embedder.revision)) else "summary_other",
    )
    other = (
        {}
        if same
        else {"summary": f"embedder {config.model} is not {summary.OFFICIAL} at a commit of the hub"}
    )
    identity = {"model": config.model, "revision": embedder.revision, "official": same}
    sheet = {"embedder": identity, **({"reasons": other} if other else {})}
    return Grades(dict(zip((str(a.doc["id"]) for a in answers), found, strict=True)), sheet)


def _letter(doc: Mapping[str, Any]) -> str:
    """The right letter; InfiniteBench's gold is an option's text."""
    options, gold = list(doc["options"]), doc["answers"][0]
    return "ABCD"[options.index(gold)] if gold in options else gold


def by(
    answers: Sequence[Answer], scores: Sequence[Mapping[str, float]], keys: Iterable[str]
) -> dict[str, Any]:
    """{key: {value: {"n", metric: mean}}}; a metric's mean is over the items that have it."""
    out: dict[str, Any] = {}
    for key in keys:
        groups: dict[str, list[Mapping[str, float]]] = {}
        for answer, score in zip(answers, scores, strict=True):
            groups.setdefault(str(answer.doc["keys"].get(key)), []).append(score)
        out[key] = {value: {"n": len(rows), **means(rows)} for value, rows in sorted(groups.items())}
    return out


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: sum(r[n] for r in rows if n in r) / sum(n in r for r in rows) for n in names}


GRADERS: dict[str, Callable[[Graders, Sequence[Answer], bool], Grades]] = {
    "loong": loong,
    "qa": equivalence,
    "infbench_qa": equivalence,
    "qa_judged": judged,
    "infbench_mc": choice,
    "longbench": choice,
    "lbpro_sum": summaries,
}
_XFINDER = ("acc_xfinder", "acc_xfinder_cmp", "no_valid_answer_rate", "extract_error_rate")
METRICS: dict[str, tuple[str, ...]] = {
    "loong": ("judge", "judge_zero", "judge_official", "perfect", "judge_parsed", "judge_failed"),
    "qa": ("judge_equiv",),
    "infbench_qa": ("judge_equiv",),
    "qa_judged": ("judge_equiv",),
    "infbench_mc": _XFINDER,
    "longbench": _XFINDER,
    "lbpro_sum": ("summary", "summary_cosine", "summary_rouge"),
}


# ---- graded --------------------------------------------------------------------------------------
# How a task hands its answers to the graders, and what it tells the user when one of them failed.

if TYPE_CHECKING:
    from .task import ICRTask

log = logging.getLogger("icr_tasks")
_HIDDEN = "***"


def run(task: ICRTask) -> dict[str, dict[str, float]]:
    """Metrics by item id from judge, extractor or embedder. Never raises IcrError: it is raised after everything is
    saved."""
    answers = [Answer(doc, fields, text) for doc, fields, text in task.answered()]
    if not answers:
        return {}
    grades = grade(task.sheet["scorer"], task.options.graders, answers)
    task.sheet.update(grades.sheet)
    if grades.error is not None:
        log.error("%s: %s", task.config.task, grades.error)
        saving.add(grades.error, advice(task), str(task.config.task))
    elif (reasons := grades.sheet.get("reasons", {})) and (headline := reasons.get(task.sheet["metric"])):
        log.warning("%s: no %s (%s)", task.config.task, task.sheet["metric"], headline)
    return grades.metrics


def advice(task: ICRTask) -> Callable[[str | None], str]:
    """The command that continues from the logged answers; what was judged already is not asked again."""
    metadata, name = dict(task.config.metadata), str(task.config.task)
    kept = {k: v for k, v in metadata.items() if k in _KEPT or (k.startswith(_OURS) and v != _HIDDEN)}
    hidden = [k for k, v in metadata.items() if k.startswith(_OURS) and _HIDDEN in str(v)]
    limit = task.limit

    def say(folder: str | None) -> str:
        samples = metadata.get("samples") or folder
        if samples is None:
            return "The answers were not logged: run again with --log_samples --output_path DIR, then grade by icr-replay."
        command = ["lm_eval", "--tasks", name, "--model", "icr-replay", "--model_args", f"samples={samples}"]
        command += [
            "--metadata",
            json.dumps(kept),
            "--log_samples",
            "--output_path",
            f"{folder or samples}-graded",
        ]
        command += ["--limit", str(limit)] if limit is not None else []
        note = f" (with {', '.join(hidden)} as before, not shown here)" if hidden else ""
        return f"When it works again, continue with{note}:\n  {shlex.join(command)}"

    return say


_OURS = tuple(_KEYS)
_KEPT = ("allow_partial", "questions_file")
