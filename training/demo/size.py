"""How much the demonstration does: in full, and in the reduced run for CI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much the demonstration does. `passages`: of a training prompt, in turn; `items`: of each task;
    `warm`: demonstrations."""

    seeds: int
    rewards: tuple[str, ...]
    base_steps: int
    base_passages: int
    warm: int
    steps: int
    prompts: int
    passages: tuple[int, ...]
    tasks: tuple[str, ...]
    items: int = 100
    settings: tuple[str, ...] = ("full", "rag@48,bm25", "kv:snapkv@0.3,window=8")


FULL = Size(
    seeds=3,
    rewards=("ao", "id"),
    base_steps=300,
    base_passages=24,
    warm=1440,
    steps=44,
    prompts=12,
    passages=(
        6,
        8,
        10,
        12,
        14,
        16,
        18,
        20,
        22,
        24,
    ),  # with 12 alone, ID answers 12 passages perfectly and forgets 8 and 24
    tasks=("icr_synth_short_256", "icr_synth_short_512"),
)
QUICK = Size(
    seeds=1,
    rewards=("ao",),
    base_steps=220,
    base_passages=12,
    warm=720,
    steps=56,
    prompts=10,
    passages=(6, 8, 10, 12),
    tasks=("icr_synth_short_256",),
)
