"""Texts that a benchmark keeps encrypted, so that no crawler reads them: the user brings the key, and what was opened
stays in memory (`Item.sealed` keeps it out of logs)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass

from ..errors import IcrError


@dataclass(frozen=True)
class Seal:
    """How the texts of `title` are opened: by the canary sentence on the `card`, in the environment's `variable`."""

    variable: str
    title: str
    card: str

    def key(self) -> str:
        """The sentence. Raises IcrError where it is not set."""
        if found := os.environ.get(self.variable):
            return found
        raise IcrError(
            f"{self.title} is encrypted: set {self.variable} to the canary sentence on the card of {self.card}"
        )

    def opened(self, text: str, key: str) -> str:
        """One field: base64 of the text, xor the repeated sha256 of the key. Raises IcrError for another key."""
        try:
            data = base64.b64decode(text, validate=True)
            pad = hashlib.sha256(key.encode()).digest()
            return bytes(b ^ pad[n % len(pad)] for n, b in enumerate(data)).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise IcrError(
                f"a field does not decrypt with the sentence in {self.variable}; copy it from the card"
            ) from error


def public(name: str) -> str:
    """What stands for a sealed name where it can be read.

    >>> public("11")
    'd-4fc82b26aecb'
    """
    return "d-" + hashlib.sha256(name.encode()).hexdigest()[:12]
