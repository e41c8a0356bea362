"""Archives from elsewhere: streamed, capped, verified before anything is put in its place.

What an archive says of itself is not believed: entries are counted while they are read, an archive that
inflates beyond all text is refused, and one that cannot be read is removed with a sentence.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from ..errors import IcrError
from ..storage import replacing, replacing_folder
from .net import open_at

Place = Callable[[PurePosixPath], PurePosixPath | None]  # where an entry belongs, None: not wanted
_BLOCK = 1 << 20
LARGEST = 16 << 30  # bytes of one member of HELMET's archive; the real ones are far smaller
TEXT = 64 << 20  # bytes of one document
TOTAL = 4 << 30  # bytes of all documents of an archive
ENTRIES = 200_000
RATIO, FREE = 200, 256 << 20  # text deflates to a fifth; what inflates 200-fold after so many bytes is a bomb
# zipfile raises RuntimeError for an encrypted entry, and a kind of it for a compression or version it cannot read.
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


class _Counting:
    """Counts what passes, for the progress bar, and remembers nothing else."""

    def __init__(self, source: IO[bytes], bar: Any) -> None:
        self._source, self._bar, self.passed = source, bar, 0

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(size)
        self._bar.update(len(block))
        self.passed += len(block)
        return block


def extract(
    url: str,
    wanted: Iterable[str],
    root: Path,
    prefix: str,
    size: int | None = None,
    hashes: Mapping[str, str] | None = None,
) -> list[Path]:
    """Stream a .tar.gz and write the wanted members (paths inside the archive) below root/prefix.

    Members that exist are kept, so a run that was cut off fetches only what is missing. `hashes` are sha256 of
    members: another content never gets its name. Raises IcrError for entries that would leave the folder or
    are too large, for missing members and for a broken stream.
    """
    left = {name: _inside(root / prefix, name) for name in wanted}
    done = [path for path in left.values() if path.is_file()]
    left = {name: path for name, path in left.items() if not path.is_file()}
    if not left:
        return done
    try:
        with (
            open_at(url) as source,
            tqdm(total=size, unit="B", unit_scale=True, desc="archive", delay=1) as bar,
        ):
            counted = _Counting(source, bar)
            with tarfile.open(fileobj=counted, mode="r|gz") as archive:  # type: ignore[call-overload]
                for member in _members(archive, url, counted, LARGEST):
                    name = _clean(member.name, root / prefix)
                    path = left.get(name)
                    if path is None:
                        continue
                    if not member.isfile():
                        raise IcrError(f"{url}: {member.name} is a link or device, not a file; refused")
                    _write(archive.extractfile(member), path, (hashes or {}).get(name), f"{url}: {name}")
                    done.append(path)
                    del left[name]
                    if not left:
                        return done
    except (*_BROKEN, HTTPException, OSError) as error:
        kept = f"{len(done)} finished files are kept; run the command again for the other {len(left)}"
        away = isinstance(error, URLError) and not isinstance(
            error, HTTPError
        )  # not reached, nothing was said
        fix = (
            "; without a network: --from MIRROR, or files put in place by hand (docs/data.md)" if away else ""
        )
        raise IcrError(
            f"{url}: {error or type(error).__name__}; {kept}{fix}", exit_code=3 if away else 2
        ) from error
    raise IcrError(f"{url} has no {', '.join(sorted(left))}; {len(done)} files were written")


def _members(archive: Any, name: Any, counted: _Counting, largest: int) -> Iterator[Any]:
    """Members of a tar stream as they pass, refused before a large one is inflated."""
    for number, member in enumerate(archive):
        inflated = member.offset_data
        if number >= ENTRIES or member.size > largest:
            raise IcrError(
                f"{name}: {member.name[:80]!r} has {member.size:,} bytes; no such file is expected"
            )
        if inflated + member.size > FREE and inflated > RATIO * max(counted.passed, 1):
            raise IcrError(f"{name} inflates more than {RATIO}-fold, which no text does; refused")
        yield member


def flat(chosen: Callable[[PurePosixPath], bool]) -> Place:
    """The chosen files under their own names, without their folders."""
    return lambda path: PurePosixPath(path.name) if chosen(path) else None


def unpack(archive: Path, folder: Path, place: Place, digest: str | None) -> int:
    """Put files of a .zip or .tar.gz into `folder`, which appears or is replaced in one step; returns how
    many. `place` says where below it an entry belongs, None for what is not wanted.

    `digest` is `manifest` of the files: an archive with other contents is refused. Raises IcrError; an archive
    that cannot be read, or is not what it should be, is removed, so that it is fetched anew.
    """
    try:
        reader = _from_zip if zipfile.is_zipfile(archive) else _from_tar
        with replacing_folder(folder) as making:
            sums = reader(archive, making, place)
            if not sums:
                raise IcrError(
                    f"{archive} has none of the files that are wanted; it was removed, fetch it again"
                )
            if digest is not None and (found := manifest(sums)) != digest:
                raise IcrError(
                    f"{archive}: its {len(sums)} files are not the official ones ({found[:16]}… in place of "
                    f"{digest[:16]}…); it was removed"
                )
    except _BROKEN as error:
        archive.unlink(missing_ok=True)
        raise IcrError(
            f"{archive} cannot be read ({error or type(error).__name__}); it was removed, fetch it again"
        ) from error
    except IcrError:
        archive.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise IcrError(
            f"{archive} cannot be unpacked below {folder.parent} ({error.strerror or error}); the archive is "
            "kept, run the command again"
        ) from error
    return len(sums)


def repaired(name: str) -> str:
    """A file name whose quotes, dashes and accents an unpacker read as code page 437, as it was meant."""
    try:
        return name.encode("cp437").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return name  # was never garbled


def manifest(sums: Mapping[str, str]) -> str:
    """sha256 over the names and sha256 of files, in the order of their names."""
    return hashlib.sha256("".join(f"{name} {sums[name]}\n" for name in sorted(sums)).encode()).hexdigest()


def _from_zip(archive: Path, folder: Path, place: Place) -> dict[str, str]:
    sums: dict[str, str] = {}
    left = TOTAL
    with zipfile.ZipFile(archive) as zipped:
        if len(zipped.infolist()) > ENTRIES:
            raise IcrError(f"{archive} has {len(zipped.infolist()):,} entries; it was removed")
        for info in zipped.infolist():
            path = PurePosixPath(_clean(info.filename, folder))
            if info.is_dir() or (placed := place(path)) is None:
                continue
            made = _inside(folder, str(placed))
            with zipped.open(info) as source:
                sums[str(placed)] = _write(source, made, None, str(archive), min(TEXT, left))
            left -= made.stat().st_size
    return sums


def _from_tar(archive: Path, folder: Path, place: Place) -> dict[str, str]:
    sums: dict[str, str] = {}
    left = TOTAL
    with archive.open("rb") as raw, tqdm(disable=True) as bar:
        counted = _Counting(raw, bar)
        with tarfile.open(fileobj=counted, mode="r|gz") as tar:  # type: ignore[call-overload]
            for member in _members(tar, archive, counted, TEXT):
                path = PurePosixPath(_clean(member.name, folder))
                if member.isdir() or (placed := place(path)) is None:
                    continue
                if not member.isfile():
                    raise IcrError(f"{archive}: {member.name} is a link or device, not a file; refused")
                made = _inside(folder, str(placed))
                sums[str(placed)] = _write(tar.extractfile(member), made, None, str(archive), min(TEXT, left))
                left -= made.stat().st_size
    return sums


def _clean(name: str, folder: Path) -> str:
    _inside(folder, name)
    return str(PurePosixPath(name))


def _inside(folder: Path, name: str) -> Path:
    """The path of an archive entry, refused when it would leave the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise IcrError(f"archive entry {name!r} would be written outside {folder}; refused")
    return folder.joinpath(*pure.parts)


def _write(source: IO[bytes] | None, path: Path, sha256: str | None, what: str, most: int = LARGEST) -> str:
    """Write a member in pieces and return its sha256; it gets its name only when it is whole and the right
    one. Raises IcrError for more than `most` bytes or another hash."""
    assert source is not None  # isfile() was checked
    digest, written = hashlib.sha256(), 0
    with replacing(path) as part, part.open("wb") as sink:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > most:
                raise IcrError(f"{what}: {path.name[:80]!r} is larger than {most:,} bytes; refused")
            digest.update(block)
            sink.write(block)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise IcrError(
                f"{what}: sha256 {digest.hexdigest()[:16]}… is not the official file's {sha256[:16]}…; it was "
                "not written"
            )
    return digest.hexdigest()
