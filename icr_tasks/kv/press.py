"""kvpress presses by name (`kv:press.SnapKV@0.5` keeps half): an optional extra with an older transformers.

kvpress 0.5 pins transformers below 5.3, so it lives in its own environment, with the extras [hf,kv]. A
press runs inside the dense prefill. Only presses seen working offline are allowed; those in PRESS_MASKS
overwrite keys instead of freeing them, so their row saves no byte and says so (`frees` false, stored 100 %).
"""

from __future__ import annotations

import sys
from functools import cached_property
from importlib import import_module, metadata
from typing import Any

from ..errors import IcrError, install_hint, unknown
from ..registry import KV_METHODS
from .base import Method

# kvpress classes (NAMEPress) that pass tests/test_kv_press.py: they keep the share asked for, leave keys out, and a budget of
# everything changes nothing. Not here: those that need files of the hub (QFilter, KVzap, FastKVzip, LUKV, RestoreKV, Duo), a
# delimiter token (Finch) or eager attention (ObservedAttention), drop channels instead of tokens (ThinK), act only while
# decoding (Decoding, CAM, DMS) or by a threshold (SimLayerKV), or move keys to other positions (KeyRerotation).
PRESS_FREES = (
    "SnapKV",
    "TOVA",
    "Knorm",
    "KeyDiff",
    "StreamingLLM",
    "LagKV",
    "ExpectedAttention",
    "Random",
    "PyramidKV",
    "Cap",
    "ChunkKV",
    "Chunk",
    "Block",
    "CriticalKV",
    "CUR",
    "LeverageScore",
    "Compactor",
    "NonCausalAttn",
    "KVCompose",
    "EntropyGatedChunkKV",
    "Merging",
)
PRESS_MASKS = ("AdaKV", "CriticalAdaKV", "KVzip", "KVgrad")  # overwrite keys and free nothing
# around a scorer of their own choice: the one that the authors of each used
_WRAPS = {
    "AdaKV": "SnapKV",
    "CriticalAdaKV": "SnapKV",
    "CriticalKV": "SnapKV",
    "ChunkKV": "SnapKV",
    "Chunk": "SnapKV",
    "EntropyGatedChunkKV": "SnapKV",
    "Merging": "SnapKV",
    "Block": "KeyDiff",
}
_AWARE_ONLY = (
    "PyramidKV",
    "KVCompose",
)  # layers of several lengths, which fit no mask of a question of several tokens
_NEWEST = (5, 3)  # transformers from here on no longer passes what kvpress's hooks read (cache_position)


def frees(short: str) -> bool:
    """Whether a press drops keys (else it overwrites them). Raises IcrError for a press that is not
    allowed."""
    if short not in PRESS_FREES + PRESS_MASKS:
        raise unknown("kvpress press", short, PRESS_FREES + PRESS_MASKS)
    return short in PRESS_FREES


@KV_METHODS.register("press", budget=0.5, frees=True, names=PRESS_FREES + PRESS_MASKS)
class Press(Method):
    """A press with compression_ratio = 1 - budget; prompts are prefilled in one pass, batch 1."""

    def applies(self, n: int) -> bool:
        """The press decides; it thins any prompt."""
        return True

    @cached_property
    def press(self) -> Any:
        """The kvpress object. Raises IcrError when it cannot run in this environment."""
        kvpress = _kvpress(self.name)
        _see_masks(kvpress)
        short = self.name.removeprefix("press.")
        ratio = 1 - float(self.budget or 0)
        if (inner := _WRAPS.get(short)) is not None:
            return getattr(kvpress, f"{short}Press")(
                getattr(kvpress, f"{inner}Press")(compression_ratio=ratio)
            )
        return getattr(kvpress, f"{short}Press")(compression_ratio=ratio)

    def fits(self, layers: int, heads: int) -> None:
        """Raises IcrError where kvpress cannot run in this environment."""
        _kvpress(self.name)

    def ask(self, after: int) -> None:
        """Raises IcrError where `after` question tokens cannot follow the compression."""
        short = self.name.removeprefix("press.")
        if after and short in _AWARE_ONLY:
            raise IcrError(
                f"kv:{self.name} keeps different numbers of tokens in different layers, which kvpress cannot ask a question "
                "of; leave query-agnostic out"
            )

    def formula(self, n: int, heads: int, dim: int, item: int) -> dict[str, float]:
        """kvpress keeps int(n * (1 - ratio)) tokens; masking presses keep all."""
        kept = int(n * float(self.budget or 0)) if self.frees else n
        each = 2 * heads * dim * item
        return {"stored": each * kept, "read": each * (kept + 1), "index": 0}


def _kvpress(name: str) -> Any:
    """The package. Raises IcrError where it is not here, or does not run here."""
    version = metadata.version("transformers")
    try:
        kvpress = import_module("kvpress")
    except ImportError as error:
        raise IcrError(
            f"setting kv:{name} needs kvpress ({error}); in an environment of its own: {install_hint('hf,kv')}"
        ) from error
    if tuple(map(int, version.split(".")[:2])) >= _NEWEST:
        raise IcrError(
            f"kvpress does not run with transformers {version}: it needs one below 5.3, in an environment "
            f"of its own: {install_hint('hf,kv')}"
        )
    return kvpress


def _see_masks(kvpress: Any) -> None:
    """Let kvpress's masking reach our attention function.

    At its import kvpress wraps the attention functions that exist then; ours is not among them when kvpress
    came first, and its masks would be ignored without a word.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from .hf.attention import NAME, forward

    wrap = getattr(sys.modules.get(f"{kvpress.__name__}.attention_patch"), "attention_patch", None)
    if wrap is not None and ALL_ATTENTION_FUNCTIONS.get(NAME) is forward:
        ALL_ATTENTION_FUNCTIONS[NAME] = wrap(forward)
