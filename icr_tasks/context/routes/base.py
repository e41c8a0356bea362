"""What every route is: a sentence that goes before the first prompt, and a decision about the first
answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Route(ABC):
    """`params` are the setting's parameters. One object a task; it keeps nothing between two items."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    @property
    @abstractmethod
    def asks(self) -> str:
        """The sentence before the prompt of the first step; the second step has none."""

    @abstractmethod
    def goes_on(self, answer: str, *, marker: bool) -> bool:
        """Whether the first answer, as it is visible, sends this item on to the whole context.

        `marker`: the prompt asks for a formal one ("The answer is ...").
        """
