"""Groups of tasks across benchmarks: what the year's model cards report, one length of everything, a gate's
small set."""

from __future__ import annotations

from .declare import Benchmark, Group, all_benchmarks

# Reported on model cards and launch pages of 2026 (docs/benchmarks.md). NoLiMa stands apart: its licence.
YEAR_2026 = (
    "icr_mrcr",
    "icr_graphwalks",
    "icr_aa_lcr",
    "icr_longbench_pro",
    "icr_longbench_v2",
    "icr_longmemeval_s",
    "icr_browsecomp_plus",
)
# For a gate in CI: generated, so there is nothing to fetch and nothing to have been trained on; three skills that fail apart
# (find and join, no shared words, order over many passages) at a short and a middle length. Chosen by simulation:
# speed/ci_choice.py (docs/benchmarks.md).
CI = tuple(f"icr_synth_{family}_{n}" for n in ("4k", "16k") for family in ("rag", "latent", "order"))
LENGTHS = ("4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M")


def across() -> list[Group]:
    """The groups that belong to no single benchmark."""
    ours = [b for b in all_benchmarks() if b.origin == "icr_tasks"]
    found = [Group("icr_2026", "benchmarks of 2026", YEAR_2026), Group("icr_ci", "small set for a gate", CI)]
    return found + [Group(f"icr_all_{n}", f"everything at {n}", _at(ours, n)) for n in LENGTHS]


def _at(benchmarks: list[Benchmark], length: str) -> list[str]:
    """Every leaf task of a nominal length, but those whose licence has to be accepted."""
    return [
        b.task_name(t) for b in benchmarks if "accept" not in b.facts for t in b.tasks if t.length == length
    ]
