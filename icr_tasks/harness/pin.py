"""Whether the installed lm-eval is one that this package was made for; read when lm_eval is imported."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

_told: set[str] = set()  # the hook may stand twice: of an installed package and of a checkout


def outside() -> str | None:
    """One sentence where lm-eval is older or newer than this package's requirement; None where it fits."""
    from packaging.requirements import Requirement

    try:
        version = metadata.version("lm-eval")
        wanted = [
            r for text in metadata.requires("icr-tasks") or () if (r := Requirement(text)).name == "lm-eval"
        ]
    except metadata.PackageNotFoundError:
        return None  # a source tree on the path: nothing is declared
    for requirement in wanted:
        if requirement.marker is None and not requirement.specifier.contains(version, prereleases=True):
            return (
                f"icr-tasks needs lm-eval {requirement.specifier} and {version} is installed: its tasks may not be "
                f'listed or run; pip install "lm-eval{requirement.specifier}"'
            )
    return None


def warn(_module: Any) -> None:
    """Say so once a process on standard error, whether or not the tasks can still be offered."""
    if (said := outside()) is not None and said not in _told:
        _told.add(said)
        sys.stderr.write(f"warning: {said}\n")
