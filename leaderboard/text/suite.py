"""The name of the suite that an average is over, and the sentence that stands below a table with it."""

from __future__ import annotations

from collections.abc import Iterable

from .names import SUITE, SUITE_VERSION, SUITES, title


def version(benchmarks: Iterable[str]) -> str | None:
    """The name of a suite of these benchmarks: "1", "1 (2 of 4)" where some were not run, "1 + theirs" with a
    benchmark that declares itself part of it; None where they are no suite (one alone, or none declared).

    >>> version(["helmet_rag", "infbench", "longbench_v2", "loong_fin"])
    '1'
    >>> version(["helmet_rag", "loong_fin"]), version(["synth", "mrcr"])
    ('1 (2 of 4)', None)
    """
    there = list(dict.fromkeys(benchmarks))
    declared = SUITES[SUITE_VERSION]
    own = [b for b in there if b in declared]
    others = [b for b in there if b not in declared and b in SUITE]
    if len(there) < 2 or not (own or others):
        return None
    part = "" if len(own) == len(declared) else f" ({len(own)} of {len(declared)})"
    return SUITE_VERSION + part + "".join(f" + {b}" for b in others)


def sentence(benchmarks: Iterable[str]) -> str | None:
    """What the average is over; None where there is no suite."""
    there = list(dict.fromkeys(benchmarks))
    name = version(there)
    return name and f"suite {name}: {', '.join(map(title, there))}; every dataset weighs the same."
