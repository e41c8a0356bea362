"""The official files of a benchmark on the hub: repository, revision, checksums; where they lie, what is read from
them, and whether they are all there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .. import storage
from . import flat, lines
from .base import Item, ItemSet
from .fetch import Remote

Keep = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Pinned:
    """Files of one revision. `sha256` is by path in the repository; they lie in `folder` below the data folder,
    without the folders of the repository. `fetch` is what stands behind `icr data fetch`."""

    repository: str
    revision: str
    license: str
    sha256: Mapping[str, str]
    folder: str
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes, where they are known
    about: int | None = None  # bytes of all files, roughly, where they are not
    options: str = ""  # of `icr data fetch`

    @property
    def facts(self) -> dict[str, str]:
        """What every data sheet says of the source."""
        return {"source": self.repository, "revision": self.revision, "license": self.license}

    def target(self, path: str) -> str:
        """Where a file of the repository lies below the data folder."""
        return f"{self.folder}/{PurePosixPath(path).name}"

    def remotes(self, *paths: str, unpack: Callable[[Path, Path], Any] | None = None) -> list[Remote]:
        """These files; all without a name. `unpack` is called with each that is a zip archive."""
        base = f"datasets/{self.repository}/resolve/{self.revision}"
        return [
            Remote(
                self.target(path),
                f"{base}/{path}",
                size=self.sizes.get(path),
                sha256=self.sha256[path],
                unpack=unpack if path.endswith(".zip") else None,
                about=self.about and self.about // len(self.sha256),
            )
            for path in paths or self.sha256
        ]

    def all(self, dataset: str, length: str | None) -> list[Remote]:
        """All files, whatever is asked for (`files` of a benchmark whose files hold everything)."""
        return self.remotes()

    def records(self, path: str, fields: lines.Fields, keep: Keep) -> flat.Records:
        """Records of one file, as `flat.load` reads them."""
        return flat.load(
            self.target(path), f"{self.folder} {self.options}".strip(), fields, keep, f"{self.folder}-1"
        )

    def items(
        self,
        items: Sequence[Item],
        found: Sequence[flat.Records],
        expected: int,
        allow_partial: object,
        *,
        count: int | None = None,
        what: str = "questions",
        name: str | None = None,
    ) -> ItemSet:
        """The items of these files, official where `count` of `what` (default: the items) is `expected` and every
        checksum is right. IcrError for another count, unless partial data are allowed. Where something else
        than the items is counted (a file of several tasks), their own official count is not known."""
        n_expected, count = (expected, len(items)) if count is None else (len(items), count)
        place = found[0].source if len(found) == 1 else found[0].source.parent
        if count != expected and not storage.allow_partial(allow_partial):
            raise storage.short(place, what, count, expected)
        notes = flat.other(found, self.sha256.values(), self.revision)
        sums = "+".join(f.sha256[:16] for f in found)
        whole = count == expected and not notes
        return ItemSet(items, n_expected, name or found[0].source.name, f"sha256:{sums}", whole, notes)
