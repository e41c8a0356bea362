"""LLM judge: any OpenAI-compatible server, whole-task batches, stored verdicts.

from icr_tasks.metrics.judge import Case, Judge, JudgeConfig verdicts =
Judge(JudgeConfig("http://localhost:8001/v1", "my-judge")).score([Case(question, gold, response, "id")])
"""

from . import equivalence  # noqa: F401  (its rubric registers itself)
from .config import JudgeConfig
from .judge import Judge
from .rubrics import RUBRICS, BadReply, Case, JudgeUnavailable, Reading, Verdict, metrics_of

__all__ = [
    "RUBRICS",
    "BadReply",
    "Case",
    "Judge",
    "JudgeConfig",
    "JudgeUnavailable",
    "Reading",
    "Verdict",
    "metrics_of",
]
