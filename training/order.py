"""The order in which rows are trained on, over all epochs, decided once and written down.

TRL's sampler restarts its shuffle when a run is resumed: in epoch 2 it replays epoch 1's order. So the order of all epochs
is laid out in advance, the trainer sees one long epoch without shuffling, and a resumed run only has to skip.
A curriculum is an order too: `growing` puts short prompts first. `bucketed` lets prompts of like length share a step, which
saves padding, in random order of the steps.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icr_tasks.data.roots import write_atomic
from icr_tasks.errors import IcrError

ORDERS = ("shuffled", "growing", "bucketed")


@dataclass(frozen=True)
class Order:
    """Row numbers in training order. `digest` names the order together with the rows it is about."""

    indices: tuple[int, ...]
    digest: str

    @classmethod
    def make(
        cls,
        ids: Sequence[str],
        epochs: int,
        seed: int,
        block: int = 1,
        kind: str = "shuffled",
        sizes: Sequence[int] = (),
    ) -> Order:
        """Each epoch a new shuffle, cut to whole blocks (rollouts), as verl drops the rest of an epoch.

        `sizes`, the length of each row's prompt, is what the kinds `growing` and `bucketed` go by; equal ones stay shuffled.

        Raises IcrError for duplicate ids and when an epoch has not one whole block.
        """
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise IcrError(f"row id {twice!r} occurs twice in the training data")
        size = len(ids) // block * block
        if not size:
            raise IcrError(
                f"{len(ids)} rows do not fill one rollout of {block} prompts; use more rows or a smaller batch"
            )
        out: list[int] = []
        for epoch in range(epochs):
            rows, r = list(range(len(ids))), random.Random(f"{seed}/{epoch}")
            r.shuffle(rows)
            rows = rows[:size] if kind == "shuffled" else sorted(rows[:size], key=sizes.__getitem__)
            if kind == "bucketed":
                blocks = [rows[i : i + block] for i in range(0, size, block)]
                r.shuffle(blocks)
                rows = [row for one in blocks for row in one]
            out += rows
        body = json.dumps([list(ids), out]).encode()
        return cls(tuple(out), hashlib.sha256(body).hexdigest()[:16])

    def settle(self, folder: Path) -> None:
        """Write `order.json`, or check that a continued run has the order it began with (IcrError otherwise)."""
        path = folder / "order.json"
        if path.is_file():
            before = json.loads(path.read_text())["digest"]
            if before != self.digest:
                raise IcrError(
                    f"{folder}: the data or their order changed since the run began ({before}, now {self.digest}); "
                    "restore them, or train into a new output folder"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"digest": self.digest, "indices": self.indices}).encode())
