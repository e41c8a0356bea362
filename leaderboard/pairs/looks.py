"""Many checkpoints against one baseline: how much alpha each look may spend.

Every look at a new checkpoint is another chance of a false alarm, and all share the baseline. The shares of
`spent` add up to 1 over any number of looks, so the chance of ever calling an unchanged checkpoint REGRESSED
stays below alpha (union bound, whatever the dependence). Half of it goes by 1 / (k (k + 1)), which favours
early looks; 40 % is spread over `PLANNED` looks, which keeps late ones able to see something; the rest serves
all looks beyond.
"""

from __future__ import annotations

from dataclasses import replace

from ..text.printed import settled
from .gate import INCONCLUSIVE, REGRESSED, Endpoint, Verdict, concluded, undecidable

PLANNED = 50


def spent(look: int, alpha: float) -> float:
    """The level at which look number `look` (from 1) may call a regression."""
    share = 0.5 / (look * (look + 1))
    share += 0.4 / PLANNED if look <= PLANNED else 0.1 * PLANNED / (look * (look - 1))
    return alpha * share


def at_level(found: Verdict, level: float, why: str) -> Verdict:
    """The verdict when a regression needs a p below `level`; what was REGRESSED only at alpha becomes
    INCONCLUSIVE and says `why`."""
    ends = [
        _undecided(end, why)
        if end.verdict == REGRESSED and not settled(end.line.adjusted) < settled(level)
        else end
        for end in found.endpoints
    ]
    said = [note for note in undecidable(found.endpoints, level) if note not in found.notes]
    known = {end.line.title for end in found.endpoints if end.best >= found.alpha}  # said at alpha already
    notes = [*found.notes, *(note for note in said if note.partition(": ")[0] not in known)]
    return concluded(replace(found, notes=notes), ends)


def confirmed(found: Verdict, again: Verdict | None) -> Verdict:
    """The verdict when a regression must be seen in a second evaluation too (`again`, of the same checkpoint;
    None: it is still to be made)."""
    seen = {end.line.name for end in again.endpoints if end.verdict == REGRESSED} if again else set()
    why = "not confirmed by the second evaluation" if again else "to be confirmed"
    ends = [
        _undecided(end, why) if end.verdict == REGRESSED and end.line.name not in seen else end
        for end in found.endpoints
    ]
    return concluded(found, ends)


def _undecided(end: Endpoint, why: str) -> Endpoint:
    return replace(end, verdict=INCONCLUSIVE, remark=why)
