"""The Python API: what the commands do, as functions that return objects. `import icr_tasks as icr`.

    runs = icr.evaluate("icr-hf", {"pretrained": folder}, tasks=["icr_synth_rag_512"],
                        settings=["full", "rag@256", "kv:topk@0.05"], limit=8)
    runs.to_pandas()               # one row an item
    print(icr.board(runs))         # Markdown
    icr.gate(new, baseline)        # a verdict with an exit code

Everything here ends in the same ledgers that `lm_eval` + `icr collect` write.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from . import hub
from .credentials import redact_text
from .errors import IcrError, unknown
from .leaderboard.ledgers import collect as collecting
from .leaderboard.ledgers import load as ledgers
from .leaderboard.ledgers.load import Run
from .leaderboard.pairs import reports
from .leaderboard.pairs.compare import Comparison
from .leaderboard.pairs.compare import compare as compared
from .leaderboard.pairs.gate import Verdict
from .leaderboard.pairs.gate import gate as judged
from .leaderboard.pairs.joined import pair
from .settings import Setting

if TYPE_CHECKING:
    import datasets
    import pandas

    from .leaderboard.board.build import Board

MISSING = ("error", "skip")


class EvaluationError(IcrError):
    """Some settings could not be evaluated. `results` holds what could (possibly nothing): nothing is
    lost."""

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results


@dataclass(frozen=True)
class Results(Sequence[Run]):
    """A sequence of runs, one a setting and prompt; prints as a Markdown table of headline means (x 100)."""

    runs: tuple[Run, ...]
    root: Path | None = None  # the ledgers' folder
    _keep: Any = field(
        default=None, repr=False, compare=False
    )  # a temporary folder lives as long as its results

    @overload
    def __getitem__(self, at: int) -> Run: ...
    @overload
    def __getitem__(self, at: slice) -> Results: ...
    def __getitem__(self, at: int | slice) -> Run | Results:
        return Results(self.runs[at], self.root, self._keep) if isinstance(at, slice) else self.runs[at]

    def __len__(self) -> int:
        return len(self.runs)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict an item: model, setting, prompt, task, benchmark, dataset, length, item, cluster, tokens,
        whether the context was cut, the error if there is one, and every metric under its name (0 to 1; None:
        not scored)."""
        for run in self.runs:
            for task in run.tasks.values():
                place = {
                    "model": run.model,
                    "setting": run.setting,
                    "prompt": run.prompt,
                    "task": task.name,
                    "benchmark": task.benchmark,
                    "dataset": task.sheet.get("dataset") or task.name,
                    "length": task.length,
                }
                for n in range(len(task)):
                    yield {
                        **place,
                        "item": task.item[n],
                        "cluster": task.cluster[n],
                        "n_prompt_tokens": _number(task.n_prompt_tokens[n]),
                        "n_out_tokens": _number(task.n_out_tokens[n]),
                        "truncated": bool(task.truncated[n]),
                        "error": task.errors.get(n),
                        **{name: _number(values[n]) for name, values in task.score.items()},
                        "run": run.fingerprint,
                    }

    def to_pandas(self) -> pandas.DataFrame:
        """The items as a DataFrame, one row an item (see `rows`)."""
        import pandas

        return pandas.DataFrame(list(self.rows()))

    def to_dataset(self) -> datasets.Dataset:
        """The items as a `datasets.Dataset`, one row an item (see `rows`)."""
        import datasets

        rows = list(self.rows())
        names = list(dict.fromkeys(name for row in rows for name in row))
        return datasets.Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})

    def __str__(self) -> str:
        from .leaderboard.ledgers.summary import table

        return table([(run.folder, run.head) for run in self.runs])

    def _repr_markdown_(self) -> str:
        return str(self)


def load(root: str | Path) -> Results:
    """Every run at or below a results folder. Raises IcrError where there is none, or one is damaged (file
    and line)."""
    return Results(tuple(ledgers.load(Path(root))), Path(root))


def evaluate(
    model: Any = "icr-hf",
    model_args: Mapping[str, Any] | str | None = None,
    *,
    tasks: Sequence[str],
    settings: Sequence[str | Setting] = ("full",),
    prompts: Sequence[str | None] = (None,),
    limit: int | None = None,
    chat: bool | None = None,
    system: str | None = None,
    gen_kwargs: Mapping[str, Any] | None = None,
    batch_size: int | str = 1,
    metadata: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
) -> Results:
    """Evaluate tasks under settings x prompts with one engine in this process; one run each.

    `model` is an engine's name as in `lm_eval --model` with its `model_args`, or a loaded
    `lm_eval.api.model.LM`. `tasks` are tasks or groups of ours. `limit` counts items a task. `chat`: use the
    chat template (default: if the model has one). `metadata` are further options of `--metadata`. `out` keeps
    lm_eval's output and the ledgers; without it they live as long as the results.

    Raises IcrError before anything is loaded for unknown names and settings, and EvaluationError, whose
    `results` hold everything that was finished, when a setting failed.
    """
    from .benchmarks import catalog
    from .harness import run as running

    names = [tasks] if isinstance(tasks, str) else list(tasks)
    leaves = tuple(dict.fromkeys(leaf for name in names for leaf in catalog.expand(name)))
    chosen = [
        Setting.parse(str(s)) for s in ([settings] if isinstance(settings, str | Setting) else settings)
    ]
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise IcrError(f"limit={limit!r}: how many items of each task, a whole number of 1 or more")
    if not leaves or not chosen:
        raise IcrError("evaluate needs at least one task and one setting")
    for name in prompts:
        for leaf in leaves if name is not None else ():
            benchmark, declared = catalog.find(leaf)
            benchmark.prompt(
                name, declared.dataset
            )  # raises for a prompt that one of the tasks does not have
    args = _arguments(model_args)
    refused = _refused(model, args, chosen, metadata or {}) if isinstance(model, str) else {}
    lm = _engine(model, args, batch_size)
    keep = None if out is not None else tempfile.TemporaryDirectory(prefix="icr-")
    root = Path(out) if out is not None else Path(keep.name)  # type: ignore[union-attr]
    label = model if isinstance(model, str) else type(model).__name__
    failed: list[str] = []
    for setting in chosen:
        if setting in refused:
            failed += [f"{setting}: {refused[setting]}"] * len(prompts)
            continue
        for prompt in prompts:
            options = {**(metadata or {}), "setting": str(setting), **({"prompt": prompt} if prompt else {})}
            cell = running.Cell(leaves, options, limit, _has_template(lm) if chat is None else chat, system)
            try:
                running.evaluate(
                    lm,
                    cell,
                    engine=label,
                    model_args=args,
                    gen_kwargs=dict(gen_kwargs or {}),
                    out=running.place_of(root / "lm_eval", cell),
                )
            except IcrError as error:
                failed.append(redact_text(f"{setting}{f', prompt {prompt}' if prompt else ''}: {error}"))
    found: list[Run] = []
    if any((root / "lm_eval").rglob("results_*.json")):
        written = collecting.collect([root / "lm_eval"], root / "results")
        order = {str(s): n for n, s in enumerate(chosen)}
        found = [ledgers.load_run(folder) for folder, _ in written]
        found.sort(key=lambda run: (order.get(run.setting, len(order)), run.prompt))
    results = Results(tuple(found), root / "results", keep)
    if failed:
        raise EvaluationError(
            f"{len(failed)} of {len(chosen) * len(prompts)} not evaluated: {'; '.join(failed)}", results
        )
    return results


def _refused(
    model: str, args: dict[str, Any], chosen: Sequence[Setting], metadata: Mapping[str, Any]
) -> dict[Setting, str]:
    """Settings that the engine's arguments or the model's configuration rule out, with the reason. Raises IcrError where
    none is left to load a model for."""
    from .engines import early
    from .harness.options import Options

    found: dict[Setting, str] = {}
    for setting in chosen:
        try:
            early.refuse(model, Options.parse({**args, **metadata, "setting": str(setting)}).setting, args)
        except IcrError as error:
            found[setting] = redact_text(str(error))
    if len(found) == len({*chosen}):
        raise IcrError(next(iter(found.values())))
    return found


def score(
    task: str, answers: Mapping[str, str] | str | Path, *, missing: str = "error", model: str | None = None
) -> dict[str, float]:
    """Mean metrics (0 to 1) of answers that came from anywhere: ids -> texts, or a predictions file.

    `missing`: "error" refuses answers for only some of the task's items, "skip" scores those that are there.
    Raises IcrError for ids that are unknown, repeated or missing.

    >>> from icr_tasks import benchmarks
    >>> item = benchmarks.load("synth", "rag", "512").items[0]
    >>> score("icr_synth_rag_512", {item.id: f"The answer is: {item.answers[0]}."}, missing="skip")["subem"]
    1.0
    """
    if missing not in MISSING:
        raise unknown("missing=", missing, MISSING)
    from .cli import score as scoring

    how: dict[str, Any] = {"allow_missing": missing == "skip", "fix": 'missing="skip" scores what is there'}
    if isinstance(answers, str | Path):
        return dict(scoring.score(task, Path(answers), model, **how)["metrics"])
    import json

    with tempfile.TemporaryDirectory(prefix="icr-") as folder:
        path = Path(folder) / "answers.jsonl"
        rows = ({"id": str(i), "prediction": text} for i, text in answers.items())
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return dict(scoring.score(task, path, **how, named="the answers")["metrics"])


def board(runs: Results | Run | Sequence[Run] | str | Path, **options: Any) -> Board:
    """The board of runs or of a results folder; prints as Markdown. Limited runs rank among themselves.

    `options`: `base` (model to show drops against), `sort` (a column), `views` (names), `partial` (rank
    limited runs like complete ones; default: where all are limited).
    """
    from .leaderboard.board.build import build
    from .leaderboard.board.tables import Options

    if unused := set(options) - {"base", "sort", "views", "partial"}:
        raise unknown("board option", sorted(unused)[0], ("base", "sort", "views", "partial"))
    chosen = (
        list(load(runs)) if isinstance(runs, str | Path) else [runs] if isinstance(runs, Run) else list(runs)
    )
    if not chosen:
        raise IcrError("no run to show")
    partial = options.get("partial")
    if partial is None:
        partial = not any(task.complete for run in chosen for task in run.tasks.values())
    root = Path(runs) if isinstance(runs, str | Path) else chosen[0].folder
    made = Options(options.get("base"), options.get("sort"))
    return build(root, made, views=options.get("views"), partial=bool(partial), runs=chosen)


@dataclass(frozen=True)
class Compared(Comparison):
    """A comparison (`lines`: suite and benchmarks, `cells`, `flips`, `n`, `clusters`) that prints as
    Markdown."""

    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Gated(Verdict):
    """A verdict (`verdict`, `reason`, `endpoints`, `code` = exit code) that prints as Markdown."""

    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


def compare(a: Run | str | Path, b: Run | str | Path, **options: Any) -> Compared:
    """Two runs item by item: differences b - a (0 to 1) with intervals, p and smallest detectable difference.

    `options` as in `leaderboard.pairs.joined.pair` (common, allow, metric). Raises IcrError when they may not
    be compared, with the reasons.
    """
    base, new = _run(a), _run(b)
    joined = pair(base, new, **options)
    if joined.refusals:
        raise IcrError("not comparable: " + "; ".join(str(r) for r in joined.refusals))
    return Compared(**vars(compared(joined)), text=reports.render(joined, base, new))


def gate(new: Run | str | Path, baseline: Run | str | Path, **options: Any) -> Gated:
    """PASS, REGRESSED, INCONCLUSIVE or NOT COMPARABLE.

    `options` as in `leaderboard.pairs.gate.gate` (margin, benchmark_margin, margins, alpha, strict), in score
    units, and as in `leaderboard.pairs.joined.pair` (common: limited runs on the items both have; allow,
    metric).
    """
    base, candidate = _run(baseline), _run(new)
    joining = {name: options.pop(name) for name in ("common", "allow", "metric", "axis") if name in options}
    joining.setdefault("axis", "checkpoint")
    found = judged(pair(base, candidate, whole=not joining.get("common"), **joining), **options)
    return Gated(**vars(found), text=reports.markdown(found, base.label, candidate.label))


# -- helpers -----------------------------------------------------------------------------------------------


def _run(run: Run | str | Path) -> Run:
    if isinstance(run, Run):
        return run
    found = load(run)
    if len(found) != 1:
        raise IcrError(f"{run} holds {len(found)} runs; name the folder of one")
    return found[0]


def _number(value: float) -> float | None:
    return None if value != value else float(value)


def _arguments(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(given, str):
        from lm_eval.utils import simple_parse_args_string

        return dict(simple_parse_args_string(given))
    return dict(given or {})


def _engine(model: Any, args: dict[str, Any], batch_size: int | str) -> Any:
    from lm_eval.api.model import LM

    if isinstance(model, LM):
        return model
    import lm_eval.models as models
    from lm_eval.api.registry import get_model

    from .harness import hooks

    hooks.patch_models(models)
    try:
        kind = get_model(str(model))
    except (ValueError, KeyError) as error:
        raise IcrError(f"no engine {model!r}: {error}") from error
    hub.engine(str(model), args)
    return kind.create_from_arg_obj(
        dict(args), {"batch_size": batch_size, "max_batch_size": None, "device": None}
    )


def _has_template(lm: Any) -> bool:
    """True where the engine can apply a chat template: a tokenizer that has one, or a chat API."""
    tokenizer = getattr(lm, "tokenizer", None)
    return bool(getattr(tokenizer, "chat_template", None)) or "chat" in type(lm).__name__.lower()
