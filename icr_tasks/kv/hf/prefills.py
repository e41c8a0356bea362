"""Dense prefills kept on disk, so that settings which differ only after the prefill share it.

One safetensors file a prompt: keys, values and the last queries of every layer, and the logits after the last
token. The name holds what the numbers depend on (weights, dtype, versions, device, pieces, token ids). Files
are read through a memory map, checked by a checksum, and written in one step; a damaged one is computed
again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import IcrError

log = logging.getLogger("icr_tasks")
TAIL = 64  # queries kept a layer, at least: what the evictors' default window needs
_STALE = 3600.0  # seconds after which an unfinished file belongs to a dead process


@dataclass
class Prefill:
    """`cache`: keys and values a layer, (1, kv_heads, tokens, dim); `seconds`: what computing it took."""

    cache: list[tuple[Tensor, Tensor]]
    queries: list[Tensor]  # (1, heads, q, dim) a layer
    scales: list[float]
    logits: Tensor  # (1, vocabulary)
    seconds: float


class OnePrefill:
    """The prefill of the last prompt, in memory: what settings and questions that follow each other share."""

    def __init__(self) -> None:
        self._ids: tuple[int, ...] = ()
        self._found: Prefill | None = None

    def get(self, ids: Sequence[int], tail: int) -> Prefill | None:
        """The prefill of these tokens, or None: another prompt's, or with fewer last queries than `tail`."""
        found = self._found if tuple(ids) == self._ids else None
        enough = found is not None and found.queries[0].shape[2] >= min(tail, len(ids))
        return found if enough else None

    def put(self, ids: Sequence[int], found: Prefill) -> None:
        """Keep this one and forget the last."""
        self._ids, self._found = tuple(ids), found


class PrefillStore:
    """Prefills of one engine in a folder. `identity` names everything but the tokens that the numbers depend
    on.

    When the folder holds `limit_gb` (10^9 bytes) no more is added; nothing is thrown away. Raises IcrError
    when the folder cannot be made.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], limit_gb: float = 20.0) -> None:
        self.folder, self.limit = Path(folder).expanduser(), float(limit_gb) * 1e9
        self._identity = json.dumps({**identity, "torch": torch.__version__}, sort_keys=True, default=str)
        self._full = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob("*.part"):
                if time.time() - left.stat().st_mtime > _STALE:
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise IcrError(
                f"prefill_store {self.folder} cannot be used ({error.strerror}); choose another"
            ) from error

    def path(self, ids: Sequence[int]) -> Path:
        """The file of a prompt's prefill."""
        digest = hashlib.sha256((self._identity + json.dumps(list(ids))).encode())
        return self.folder / f"{digest.hexdigest()[:32]}.safetensors"

    def get(self, ids: Sequence[int], tail: int) -> Prefill | None:
        """The prefill of these tokens, or None: not there, damaged (said), or with fewer last queries than
        `tail`."""
        path = self.path(ids)
        if not path.is_file():
            return None
        try:
            return self._read(path, min(tail, len(ids)))
        except Exception as error:  # any way a file can be damaged
            log.warning("%s is damaged (%s); its prompt is computed again", path, error)
            path.unlink(missing_ok=True)
            return None

    def put(self, ids: Sequence[int], found: Prefill) -> None:
        """Keep a prefill; a full disk or folder is said once and stops the keeping, not the run."""
        if self._full:
            return
        from safetensors.torch import save_file

        tensors = {"logits": found.logits.contiguous().cpu()}
        for i, (pair, queries) in enumerate(zip(found.cache, found.queries, strict=True)):
            parts = zip(("k", "v", "q"), (*pair, queries), strict=True)
            tensors |= {f"{name}{i}": t.contiguous().cpu() for name, t in parts}
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        about = {
            "scales": json.dumps(found.scales),
            "seconds": repr(found.seconds),
            "crc": str(_checksum(tensors)),
        }
        part = self.folder / f"{os.getpid()}.part"
        try:
            if sum(f.stat().st_size for f in self.folder.iterdir()) + size > self.limit:
                raise OSError(f"it holds prefill_store_gb={self.limit / 1e9:g}")
            save_file(tensors, part, about)
            part.replace(self.path(ids))
        except Exception as error:  # safetensors has its own error for a full disk
            part.unlink(missing_ok=True)
            self._full = True
            log.warning(
                "prefill_store %s takes no more prefills (%s); the run goes on without", self.folder, error
            )

    @staticmethod
    def _read(path: Path, tail: int) -> Prefill | None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if int(about["crc"]) != _checksum(tensors):
            raise ValueError("its checksum differs")
        scales = json.loads(about["scales"])
        queries = [tensors[f"q{i}"] for i in range(len(scales))]
        if queries[0].shape[2] < tail:
            return None
        cache = [(tensors[f"k{i}"], tensors[f"v{i}"]) for i in range(len(scales))]
        return Prefill(cache, queries, scales, tensors["logits"], float(about["seconds"]))


def _checksum(tensors: dict[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total
