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
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..credentials import redact_text
from ..errors import IcrError
from ..hub import unanswered
from ..storage import replacing, sha256
from .archives import extract as extract
from .net import endpoint, open_at, secure

_BLOCK = 1 << 20
_TRIES = 5


@dataclass(frozen=True)
class Remote:
    """One file to have: where it goes below the data root, and where it comes from.

    `about`: bytes, roughly, where `size` is not known. `url` without a scheme is a path on the hub. `archive` (path on the hub, bytes) holds the file as a
    member, under `target` without its first folder; `url` is then its place on a mirror that serves the
    members unpacked. `unpack(file, folder)` is called with the downloaded file.
    """

    target: str
    url: str
    size: int | None = None
    sha256: str | None = None
    archive: tuple[str, int] | None = None
    unpack: Callable[[Path, Path], Any] | None = None
    about: int | None = None


def hub(path: str) -> str:
    """URL of a dataset file: `$HF_ENDPOINT` (default the public hub) + path."""
    return f"{endpoint()}/{path}"


_IN_REPOSITORY = re.compile(r"(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def _from_hub(remote: Remote, target: Path) -> bool:
    """Fetch a file of a hub repository through huggingface_hub; False for any other address, and for a server
    at `$HF_ENDPOINT` that serves the files but is no hub (a plain mirror).

    Raises IcrError for a file that does not exist, is not accessible, or is not cached in offline mode.
    """
    found = _IN_REPOSITORY.fullmatch(remote.url.removeprefix(f"{endpoint()}/"))
    if not found or not remote.url.startswith(f"{endpoint()}/"):
        return False
    import huggingface_hub
    from huggingface_hub import constants, errors

    secure(remote.url)
    silent = None if constants.HF_HUB_OFFLINE else unanswered(endpoint())
    kind, repository, revision, name = found.groups()
    try:
        cached = huggingface_hub.hf_hub_download(
            repository,
            name,
            repo_type=kind and kind.removesuffix("s"),
            revision=revision,
            endpoint=endpoint(),
            library_name="icr-tasks",
            local_files_only=silent is not None,
        )
    except (errors.FileMetadataError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError) as error:
        if silent:
            raise IcrError(
                f"{remote.url} is not in the hub's cache, and the hub cannot be reached ({silent}); run the command "
                "again to go on",
                exit_code=3,
            ) from error
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
    _verify(_as_told(remote, Path(cached)), Path(cached), keep=True)
    with replacing(target) as place:
        source = Path(cached).resolve()
        try:
            os.link(source, place)  # one copy on the disk
        except OSError:
            shutil.copyfile(source, place)  # another file system
    return True


def _as_told(remote: Remote, cached: Path) -> Remote:
    """With the sha256 that the hub itself gives for a large file: its cache names the file by it."""
    named = cached.resolve().name
    told = named if re.fullmatch(r"[0-9a-f]{64}", named) else None
    return replace(remote, sha256=remote.sha256 or told)


def _said(error: BaseException) -> str:
    """The first line of an error, without credentials."""
    return redact_text(next(iter(str(error).strip().splitlines()), type(error).__name__))


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
    with open_at(remote.url, have) as source:
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
    if (wrong := _not_that(remote, part)) is not None:
        part.unlink()
        raise IcrError(f"{remote.url}: {wrong}; it was removed")
    if remote.sha256 is not None:
        with part.open("rb") as file:
            digest = sha256(file)
        if digest != remote.sha256:
            part.unlink()
            raise IcrError(
                f"{remote.url}: sha256 {digest[:16]}… is not {remote.sha256[:16]}…; the file was removed"
            )


_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml)", re.I)
_BEGINS = {".zip": b"PK", ".gz": b"\x1f\x8b"}


def _not_that(remote: Remote, part: Path) -> str | None:
    """What a file obviously is in place of what was asked for (a page that says sorry, a file cut off), for a
    source that gives neither size nor hash."""
    size = part.stat().st_size
    with part.open("rb") as file:
        first = file.read(512)
        file.seek(max(0, size - 1))
        last = file.read(1)
    if _PAGE.match(first) and not remote.target.endswith((".html", ".xml")):
        return "the server sent a web page, not the file"
    begins = _BEGINS.get(Path(remote.target).suffix)
    if begins is not None and not first.startswith(begins):
        return f"the server sent something that is no {Path(remote.target).suffix} archive"
    if remote.sha256 is None and remote.target.endswith(".jsonl") and last not in (b"\n", b"}", b""):
        return "the file is cut off"
    return None
