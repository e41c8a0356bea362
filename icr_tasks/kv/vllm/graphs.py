"""A step of one generated token a row, for CUDA graphs: what the rows read stands in buffers that a recorded graph
reads, and is written there before each replay. An engine of one method has them; with kv=task a graph would hold one
setting of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import IcrError
from ..base import Method
from . import lists, paged
from .counters import CONFIG

if TYPE_CHECKING:
    from .sparse import Plan

ASKED = "cuda_graphs"  # key of the engine's state
PAGE = 16  # tokens of the pages whose extremes are kept where requests bring settings of their own


def page_kept(method: Method | None, block: int) -> int | None:
    """Tokens of the pages whose extremes a layer keeps for this method (None: each request's own), or None.

    Blocks outlive a request (prefix cache), so that pages of one size are kept from the first token on.
    """
    page = min(PAGE, block) if method is None else paged.page_of(method) if method.name == "page" else None
    return page if page and block % page == 0 and not page & (page - 1) else None


def holds(method: Method | None, block: int) -> bool:
    """Whether steps of this method can be recorded, over blocks of so many tokens."""
    if method is None or method.name not in paged.METHODS or method.name in lists.METHODS:
        return False
    return method.name != "page" or page_kept(method, block) is not None


def wanted(config: Any) -> bool:
    """Whether an engine of this VllmConfig was told to record them."""
    return bool(((getattr(config, "additional_config", None) or {}).get(CONFIG) or {}).get(ASKED))


def rows(plan: Plan, common: Any) -> list[paged.Share] | None:
    """What each row of a batch reads, or None for one with more than one token a row. A row that is no generated token (a
    prompt's last one, alone) reads all before it; one of no token reads nothing."""
    counts = common.query_start_loc_cpu.diff().tolist()
    if max(counts, default=0) > 1:
        return None
    known = getattr(common, "seq_lens_cpu_upper_bound", None)
    lengths = (common.seq_lens if known is None else known).tolist()
    page = paged.page_of(plan.method)
    found = [paged.Share(n if count else 0, 0, 0, 0, page) for n, count in zip(lengths, counts, strict=True)]
    for step in plan.steps:
        found[step.row] = paged.share(plan.method, step.prompt, step.length)
    return found


class Static:
    """The buffers of an engine of `method`, for up to `rows` sequences of up to `longest` tokens."""

    def __init__(self, method: Method, rows: int, longest: int, device: Any) -> None:
        self.method, self.page = method, paged.page_of(method)
        self.width = max(
            paged.share(method, prompt, prompt + 1).chosen
            for prompt in (longest - 1, longest // 2)
            if prompt > 0
        )
        self.longest = longest
        self.recorded: set[int] = set()  # rows of the graphs that there are
        self._buffers = torch.zeros(4, rows, dtype=torch.int32, device=device)

    def dummy(self, rows: int, table: Tensor) -> paged.Batch:
        """What a graph of so many rows is recorded with: rows of no token, which read nothing."""
        self._buffers.zero_()
        return self._batch(rows, table)

    def filled(self, shares: Sequence[paged.Share], table: Tensor) -> paged.Batch:
        """The buffers with these rows in them; nothing waits for the copy. Raises IcrError for a row above the bounds that
        graphs were recorded with."""
        over = [s for s in shares if s.chosen > self.width or s.length > self.longest]
        if over:
            raise IcrError(
                f"a step reads {over[0].chosen} pages of {over[0].length} tokens, above the {self.width} of "
                f"{self.longest} that CUDA graphs were recorded for; set enforce_eager=True"
            )
        rows = [[s.length for s in shares], [s.head for s in shares], [s.chosen for s in shares]]
        host = torch.tensor([*rows, [s.tail for s in shares]], dtype=torch.int32, device="cpu")
        if self._buffers.device.type != "cpu":
            host = host.pin_memory()
        self._buffers[:, : len(shares)].copy_(host, non_blocking=True)
        return self._batch(len(shares), table)

    def _batch(self, rows: int, table: Tensor) -> paged.Batch:
        lengths, head, chosen, tail = (buffer[:rows] for buffer in self._buffers)
        return paged.Batch(
            lengths, head, chosen, tail, table, self.width, self.longest, self.longest, self.page
        )
