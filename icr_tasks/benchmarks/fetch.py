"""Download the official files: selective, resumable, verified, atomic.

Files of a hub's repository come through huggingface_hub: its cache (`HF_HOME`), token, `HF_ENDPOINT`, offline
mode and resuming; the file then stands in the data folder as a link to that cache.

HELMET comes as one 11 GB archive: it is streamed, only wanted members are written, and the stream is closed
when all are found. Where a mirror serves the members unpacked (`--from`), only those files are fetched, with
HTTP ranges.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from ..errors import IcrError
from ..schema import redact_text
from ..storage import replacing, sha256

_BLOCK = 1 << 20
_TRIES = 5


@dataclass(frozen=True)
class Remote:
    """One file to have: where it goes below the data root, and where it comes from.

    `url` without a scheme is a path on the hub. `archive` (path on the hub, bytes) holds the file as a
    member, under `target` without its first folder; `url` is then its place on a mirror that serves the
    members unpacked. `unpack(file, folder)` is called with the downloaded file.
    """

    target: str
    url: str
    size: int | None = None
    sha256: str | None = None
    archive: tuple[str, int] | None = None
    unpack: Callable[[Path, Path], Any] | None = None


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub(path: str) -> str:
    """URL of a dataset file: `$HF_ENDPOINT` (default the public hub) + path."""
    return f"{_endpoint()}/{path}"


_IN_REPOSITORY = re.compile(r"(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def _from_hub(remote: Remote, target: Path) -> bool:
    """Fetch a file of a hub repository through huggingface_hub; False for any other address, and for a server
    at `$HF_ENDPOINT` that serves the files but is no hub (a plain mirror).

    Raises IcrError for a file that does not exist, is not accessible, or is not cached in offline mode.
    """
    found = _IN_REPOSITORY.fullmatch(remote.url.removeprefix(f"{_endpoint()}/"))
    if not found or not remote.url.startswith(f"{_endpoint()}/"):
        return False
    import huggingface_hub
    from huggingface_hub import errors

    kind, repository, revision, name = found.groups()
    try:
        cached = huggingface_hub.hf_hub_download(
            repository,
            name,
            repo_type=kind and kind.removesuffix("s"),
            revision=revision,
            endpoint=_endpoint(),
            library_name="icr-tasks",
        )
    except (errors.FileMetadataError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError) as error:
        causes = [error, error.__cause__]
        codes = [getattr(getattr(cause, "response", None), "status_code", None) for cause in causes]
        if any(isinstance(cause, errors.FileMetadataError) for cause in causes) or {405, 501}.intersection(
            codes
        ):
            return False  # no commit in its headers, or answers GET alone: no hub
        if isinstance(error, errors.GatedRepoError):
            raise IcrError(
                f"{remote.url}: access to {repository} must be granted on its page; then set HF_TOKEN"
            ) from error
        if isinstance(error, errors.HfHubHTTPError):
            raise IcrError(f"{remote.url}: HTTP {codes[0]}; {_said(error)}") from error
        if "offline" not in f"{error} {error.__cause__}".lower():
            raise IcrError(
                f"{remote.url}: {_said(error.__cause__ or error)}; run the command again to go on"
            ) from error
        fix = "unset HF_HUB_OFFLINE once, or fill the hub's cache (HF_HOME) on another machine"
        raise IcrError(f"{remote.url} is not in the hub's cache and offline mode is on; {fix}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise IcrError(
                f"disk full in the hub's cache; free space and run again, what was fetched of {name} is kept"
            ) from error
        raise IcrError(f"{remote.url}: {_said(error)}; run the command again to go on") from error
    except Exception as error:  # its HTTP client's own errors, whichever client that version has
        raise IcrError(f"{remote.url}: {_said(error)}; run the command again to go on") from error
    _verify(remote, Path(cached), keep=True)
    with replacing(target) as place:
        source = Path(cached).resolve()
        try:
            os.link(source, place)  # one copy on the disk
        except OSError:
            shutil.copyfile(source, place)  # another file system
    return True


def _said(error: BaseException) -> str:
    """The first line of an error, without credentials."""
    return redact_text(next(iter(str(error).strip().splitlines()), type(error).__name__))


def _open(url: str, start: int = 0) -> Any:
    """Open a URL or a local path, from byte `start`. The token is sent to the hub only and never shown."""
    if "://" not in url:
        file = open(url, "rb")  # noqa: SIM115  (the caller closes it)
        file.seek(start)
        return file
    headers = {"User-Agent": "icr-tasks"} | ({"Range": f"bytes={start}-"} if start else {})
    if (token := os.environ.get("HF_TOKEN")) and url.startswith(hub("")):
        headers["Authorization"] = f"Bearer {token}"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)


def download(remote: Remote, root: Path) -> Path:
    """Fetch one file into `root`, resuming a `.part` file. Raises IcrError after several tries or for a wrong
    hash."""
    target = root / remote.target
    if target.is_file() or _from_hub(remote, target):
        return target
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        try:
            _resume(remote, part)
            break
        except urllib.error.HTTPError as error:
            if error.code not in (429, 500, 502, 503, 504) or attempt == _TRIES - 1:
                raise IcrError(
                    f"{remote.url}: HTTP {error.code} {error.reason}; what was fetched stays in {part}"
                ) from error
        except (HTTPException, OSError) as error:
            if getattr(error, "errno", None) == 28:
                raise IcrError(
                    f"disk full at {target.parent}; {part.name} is kept, free space and run again"
                ) from error
            if attempt == _TRIES - 1:
                raise IcrError(
                    f"{remote.url}: {error}; run the command again to go on from {part}"
                ) from error
    _verify(remote, part)
    part.replace(target)
    return target


def _resume(remote: Remote, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if remote.size is not None and have >= remote.size:
        return
    with _open(remote.url, have) as source:
        if have and getattr(source, "status", 206) == 200:
            have = 0  # the server ignored the range and sends everything
        length = _length(source)
        with part.open("ab" if have else "wb") as sink, _bar(part.name, have, length) as bar:
            got = 0
            while block := source.read(_BLOCK):
                sink.write(block)
                got += len(block)
                bar.update(len(block))
    if length is not None and got < length:
        raise HTTPException(f"connection closed after {got} of {length} bytes")


def _length(source: Any) -> int | None:
    value = source.headers.get("Content-Length") if hasattr(source, "headers") else None
    return int(value) if value else None


def _bar(name: str, have: int, length: int | None) -> Any:
    total = None if length is None else have + length
    return tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name[:40], delay=1)


def _verify(remote: Remote, part: Path, *, keep: bool = False) -> None:
    """Raise IcrError for a wrong size or hash; the file is removed first, unless it is a cache's (`keep`: it
    then is what the server says it is, and only its use is refused)."""
    size = part.stat().st_size
    if keep:
        if remote.size not in (None, size):
            raise IcrError(f"{remote.url}: {size} bytes, expected {remote.size}; the server has another file")
        with part.open("rb") as file:
            if remote.sha256 is not None and (digest := sha256(file)) != remote.sha256:
                raise IcrError(
                    f"{remote.url}: sha256 {digest[:16]}… is not {remote.sha256[:16]}…; the server has "
                    "another file"
                )
        return
    if remote.size is not None and size != remote.size:
        part.unlink()
        raise IcrError(
            f"{remote.url}: {size} bytes, expected {remote.size}; the partial file was removed, run again"
        )
    if remote.sha256 is not None:
        with part.open("rb") as file:
            digest = sha256(file)
        if digest != remote.sha256:
            part.unlink()
            raise IcrError(
                f"{remote.url}: sha256 {digest[:16]}… is not {remote.sha256[:16]}…; the file was removed"
            )


class _Counting:
    """Counts what passes, for the progress bar, and remembers nothing."""

    def __init__(self, source: IO[bytes], bar: Any) -> None:
        self._source, self._bar = source, bar

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(size)
        self._bar.update(len(block))
        return block


def extract(url: str, wanted: Iterable[str], root: Path, prefix: str, size: int | None = None) -> list[Path]:
    """Stream a .tar.gz and write the wanted members (paths inside the archive) below root/prefix.

    Members that exist are kept, so a run that was cut off fetches only what is missing. Raises IcrError for
    entries that would leave the folder, for missing members and for a broken stream.
    """
    left = {name: _inside(root / prefix, name) for name in wanted}
    done = [path for path in left.values() if path.is_file()]
    left = {name: path for name, path in left.items() if not path.is_file()}
    if not left:
        return done
    try:
        with (
            _open(url) as source,
            tqdm(total=size, unit="B", unit_scale=True, desc="archive", delay=1) as bar,
            tarfile.open(fileobj=_Counting(source, bar), mode="r|gz") as archive,  # type: ignore[call-overload]
        ):
            for member in archive:
                path = left.get(_clean(member.name, root / prefix))
                if path is None:
                    continue
                if not member.isfile():
                    raise IcrError(f"{url}: {member.name} is a link or device, not a file; refused")
                _write(archive.extractfile(member), path)
                done.append(path)
                del left[_clean(member.name, root / prefix)]
                if not left:
                    return done
    except (tarfile.TarError, EOFError, HTTPException, OSError) as error:
        kept = f"{len(done)} finished files are kept; run the command again for the other {len(left)}"
        raise IcrError(f"{url}: {error}; {kept}") from error
    raise IcrError(f"{url} has no {', '.join(sorted(left))}; {len(done)} files were written")


def _clean(name: str, folder: Path) -> str:
    _inside(folder, name)
    return str(PurePosixPath(name))


def _inside(folder: Path, name: str) -> Path:
    """The path of an archive entry, refused when it would leave the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise IcrError(f"archive entry {name!r} would be written outside {folder}; refused")
    return folder.joinpath(*pure.parts)


def _write(source: IO[bytes] | None, path: Path) -> None:
    assert source is not None  # isfile() was checked
    with replacing(path) as part, part.open("wb") as sink:
        for block in _blocks(source):
            sink.write(block)


def _blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(_BLOCK):
        yield block
