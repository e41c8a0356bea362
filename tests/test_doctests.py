"""The examples in public docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = (
    "icr_tasks.api",
    "icr_tasks.registry",
    "icr_tasks.params",
    "icr_tasks.settings",
    "icr_tasks.benchmarks.base",
    "icr_tasks.benchmarks.declare",
    "icr_tasks.context.retrieval",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed
