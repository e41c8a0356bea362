"""Retrieval of many items in several processes; a document's questions stay in one, which indexes it once.

Only for retrievers that say so (`Retriever.forks`): those that run no model and hold no connection.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..benchmarks.base import Item
from ..errors import IcrError

_FEW = 32  # items that are not worth a second process
_WORK: list[Any] = []  # (items, select) of the pool being made: inherited by fork, where items hold functions


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    items: Sequence[Item], select: Callable[[Item], Any], workers: int | None
) -> Iterator[tuple[int, Any]]:
    """(number, select(item)) of every item, in any order; `workers` None: as many as there are cores.

    What `select` raises is raised here. IcrError when a process ends by itself.
    """
    groups: dict[Any, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(item.cluster, []).append(number)
    wanted = min(len(groups), cores() if workers is None and len(items) >= _FEW else workers or 1)
    if wanted < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from ((number, select(item)) for number, item in enumerate(items))
        return
    yield 0, select(items[0])  # what every process needs is loaded once, before they part
    groups[items[0].cluster].remove(0)
    _WORK[:] = [items, select]
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(wanted, mp_context=context, initializer=_quiet)
    whole = False
    try:
        for done in as_completed([pool.submit(_group, numbers) for numbers in groups.values()]):
            yield from done.result()
        whole = True
    except BrokenProcessPool as error:
        raise IcrError(
            "a process of the retrieval ended by itself, most likely for want of memory; use --workers 1"
        ) from error
    finally:
        # waited for where all is done, so that what they used counts as used by this command; after an error not
        pool.shutdown(wait=whole, cancel_futures=True)
        _WORK.clear()


def _group(numbers: list[int]) -> list[tuple[int, Any]]:
    items, select = _WORK
    return [(number, select(items[number])) for number in numbers]


def _quiet() -> None:
    """The tokenizer's own threads do not survive a fork; the processes are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
