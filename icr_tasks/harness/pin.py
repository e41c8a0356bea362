"""Whether the installed lm-eval is one that this package was made for; read when lm_eval is imported."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

_told: set[str] = set()  # the hook may stand twice: of an installed package and of a checkout


def outside() -> str | None:
    """One sentence where lm-eval is older or newer than this package's requirement; None where it fits."""
    try:
        version = metadata.version("lm-eval")
        declared = metadata.requires("icr-tasks") or ()
    except metadata.PackageNotFoundError:
        return None  # a source tree on the path: nothing is declared
    if any(t.startswith("lm-eval") and plainly_fits(version, t.removeprefix("lm-eval")) for t in declared):
        return None  # the usual case; packaging takes longer to import than our whole hook
    from packaging.requirements import Requirement

    wanted = [r for text in declared if (r := Requirement(text)).name == "lm-eval"]
    for requirement in wanted:
        if requirement.marker is None and not requirement.specifier.contains(version, prereleases=True):
            return (
                f"icr-tasks needs lm-eval {requirement.specifier} and {version} is installed: its tasks may not be "
                f'listed or run; pip install "lm-eval{requirement.specifier}"'
            )
    return None


def plainly_fits(version: str, specifier: str) -> bool:
    """Whether a version of numbers lies inside bounds of numbers (>=, <); False also where that takes packaging to say."""
    at = _numbers(version)
    if at is None:
        return False
    for bound in specifier.split(","):
        least, below = bound.startswith(">="), bound.startswith("<") and not bound.startswith("<=")
        limit = _numbers(bound[2:] if least else bound[1:])
        if limit is None or not (at >= limit if least else below and at < limit):
            return False
    return True


def _numbers(version: str) -> list[int] | None:
    """1.2.0 as [1, 2]; None for anything but ASCII numbers and points."""
    parts = version.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    found = [int(part) for part in parts]
    while found and not found[-1]:
        found.pop()
    return found


def warn(_module: Any) -> None:
    """Say so once a process on standard error, whether or not the tasks can still be offered."""
    if (said := outside()) is not None and said not in _told:
        _told.add(said)
        sys.stderr.write(f"warning: {said}\n")
