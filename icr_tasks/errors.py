"""One exception class: what the user did, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IcrError(Exception):
    """A problem the user can fix. The message names the fix; `exit_code` is what the CLI returns."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unknown(kind: str, got: str, known: Iterable[str]) -> IcrError:
    """Error for a name that does not exist, with the nearest match. `unknown("prompt", "aoo", ["ao"])`."""
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return IcrError(f"unknown {kind} {got!r}.{hint} Known: {', '.join(names)}")
