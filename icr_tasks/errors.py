"""One exception class: what the user did, and what to do next."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

# What a file system answers when it is full, beyond a quota, or asked for too large a file.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class IcrError(Exception):
    """A problem the user can fix. The message names the fix; `exit_code` is what the CLI returns."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def install_hint(extra: str, *others: str) -> str:
    """The command that brings an extra of this package (or one of `others`), at the end of a message:
    `pip install ".[board]"  # in a clone of icr-tasks`. The package is on no index yet; this is the only place
    that changes when it is (docs/releasing.md)."""
    either = "".join(f"or [{other}], " for other in others)
    return f'pip install ".[{extra}]"  # {either}in a clone of icr-tasks'


_SHOWN = 30  # known names in a message: of more, those nearest to what was typed, or the first


def unknown(kind: str, got: str, known: Iterable[str]) -> IcrError:
    """Error for a name that does not exist, with the nearest match. `unknown("prompt", "aoo", ["ao"])`."""
    names = sorted(set(known))
    near = difflib.get_close_matches(got, names, n=8, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = names if len(names) <= _SHOWN else near or names[:_SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return IcrError(f"unknown {kind} {got!r}.{hint} Known: {', '.join(shown)}{more}")
