"""Files: where they lie, the one error for one that is not there, whole writes, locks, checksums, lm-eval's
output folders."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, Generic, TypeVar

import orjson

from .errors import NO_SPACE, IcrError

try:
    import fcntl
except ImportError:  # Windows has none
    raise IcrError(
        "icr-tasks needs Linux or macOS (file locks); on Windows run it inside WSL (docs/install.md)"
    ) from None


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/icr-tasks`, for indexes, vectors and models."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "icr-tasks"
    except RuntimeError as error:  # no HOME, and a user that no list of users has, as in many containers
        raise IcrError("there is no home folder for the cache: set XDG_CACHE_HOME (or HOME)") from error


def data_root() -> Path:
    """`$ICR_DATA_DIR` (a folder with helmet/, infinitebench/, longbench_v2/, loong/, or one that holds it as
    `replica/`), else the cache folder that `icr data fetch` fills."""
    given = os.environ.get("ICR_DATA_DIR")
    if not given:
        return cache_root() / "data"
    root = Path(given).expanduser()
    if not root.is_dir():
        raise IcrError(f"ICR_DATA_DIR={given} is not a folder")
    return root / "replica" if (root / "replica").is_dir() else root


def require(path: Path, fetch: str) -> Path:
    """`path` if it exists, else an IcrError that names the fetch command."""
    if path.is_file():
        return path
    raise IcrError(
        f"no data at {path}\n  fetch it:  icr data fetch {fetch}\n"
        "  or point ICR_DATA_DIR at a folder that has it (layout: docs/data.md)"
    )


def allow_partial(option: object) -> bool:
    """The option as given, else `ICR_ALLOW_PARTIAL`."""
    return bool(option) if option is not None else os.environ.get("ICR_ALLOW_PARTIAL", "0") not in ("", "0")


def short(path: Path, what: str, actual: int, expected: int) -> IcrError:
    """Error for a file with the wrong number of items."""
    return IcrError(
        f"{path}: {actual} {what}, the official data has {expected}. Fetch the file again, or accept it as it is with "
        "--metadata '{\"allow_partial\":true}' (the run is then marked as not official)"
    )


def fingerprint(path: Path) -> str:
    """sha256 of a file, remembered by size and modification time: large files are hashed once."""
    stat = path.stat()
    if said := noted(_note(path, stat)):
        return str(said["sha256"])
    with path.open("rb") as file:
        digest = sha256(file)
    remember(path, stat, digest)
    return digest


def remember(path: Path, stat: os.stat_result, digest: str) -> None:
    """Keep the sha256 of a file that was read whole for another reason; `stat` is from before it was read."""
    if os.path.samestat(stat, path.stat()) and _note(path, path.stat()) == (note := _note(path, stat)):
        write_atomic(note, json.dumps({"sha256": digest, "file": path.name}).encode())


def noted(note: Path) -> Any:
    """JSON that the cache keeps; None where there is none, or it is damaged (a machine that lost its power)."""
    try:
        return orjson.loads(note.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None


def _note(path: Path, stat: os.stat_result) -> Path:
    key = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:24]
    return cache_root() / "sha256" / f"{key}.json"


def sha256(file: IO[bytes]) -> str:
    """Hexadecimal digest of what is left in an open file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """`folder`, made where it is missing. What was made for it and is still empty at the end goes again."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        _make(folder)
        yield folder
    finally:
        for one in missing:  # the innermost first
            with suppress(OSError):  # not made, or something is in it
                one.rmdir()


def _make(folder: Path) -> None:
    """The folder; of the cache, whose place nobody named, an IcrError says where it can be moved to."""
    why = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE or not folder.is_relative_to(cache_root()):
            raise
        why = error.strerror
    if why or not (os.access(folder, os.W_OK) or not folder.is_relative_to(cache_root())):
        raise IcrError(
            f"the cache folder {folder} cannot be written ({why or 'no permission'}): set XDG_CACHE_HOME to one that can"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file to; it becomes `path` in one step when the block ends well.

    `path` is either old or complete, also with several writers. After an error nothing is left beside it, and no
    folder that was made for it.
    """
    path = path.resolve() if path.is_symlink() else path  # the link stays, what it names is replaced
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}")
    with making(path.parent):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to fill; it takes its place when the block ends well, an older one goes.

    After an error `folder` is as it was, and nothing is left beside it.
    """
    new_, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    shutil.rmtree(new_, ignore_errors=True)  # of a killed process that had this number
    with making(folder.parent):
        try:
            new_.mkdir()
            yield new_
            if folder.exists():  # moved aside first: it is there at every moment but one rename
                folder.rename(old)
            new_.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(new_, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write so that the file is either old or complete, also with two writers."""
    if path.exists() and not path.is_file():  # a terminal or a pipe: nothing to replace
        path.write_bytes(data)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def writing(what: Path | str, otherwise: str) -> Iterator[None]:
    """What the file system refuses inside as one IcrError: what cannot be written, why, and what to do."""
    try:
        yield
    except OSError as error:
        raise IcrError(f"cannot write {what}: {error.strerror or error}; {otherwise}") from error


_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class NoLocks(IcrError):
    """The file system has no locks (buckets, some network file systems)."""


@contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False at once when another process holds it and `wait` is False.

    The kernel frees it when the holder dies; the file stays. Raises NoLocks where there are none.
    """
    from filelock import FileLock, Timeout

    held = FileLock(path, timeout=-1 if wait else 0, mode=0o644)
    try:
        held.acquire()
    except Timeout:  # itself an OSError
        yield False
        return
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise NoLocks(
            f"the file system of {path.parent} has no locks: use a folder on a local disk"
        ) from error
    try:
        yield True
    finally:
        held.release()


@contextmanager
def locked(handle: int, *, needed: bool = True) -> Iterator[None]:
    """Hold the lock of an open file that several processes append to; where only one does it is not `needed`, and
    a file system without locks will do.

    The lock of the data file itself: an answer store is one file, and is locked at every answer.
    """
    held = True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if needed or error.errno not in _NO_LOCKS:
            raise
        held = False
    try:
        yield
    finally:  # explicitly: an engine started meanwhile as a child holds a copy of the handle
        if held:
            fcntl.flock(handle, fcntl.LOCK_UN)


# ---- lru -----------------------------------------------------------------------------------------
# A cache bounded by bytes, so that memory does not grow with the number of questions or documents.

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Least-recently-used mapping; the newest entry is always kept, even when it alone exceeds `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, now the most recent; None when absent."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: K, value: V, nbytes: int) -> None:
        """Store a value of about `nbytes`, dropping the oldest ones beyond the bound."""
        if key in self._entries:
            self.bytes -= self._entries.pop(key)[1]
        self._entries[key] = (value, nbytes)
        self.bytes += nbytes
        while self.bytes > self.max_bytes and len(self._entries) > 1:
            self.bytes -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0


# ---- lm-eval's output folders --------------------------------------------------------------------

_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl?$")


@dataclass
class Evaluation:
    """One lm_eval invocation: its results file and the samples file of each task."""

    path: Path
    results: dict[str, Any]
    samples: dict[str, Path] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """Time stamp in the file name; newer ones win."""
        found = _STAMP.search(self.path.name.replace(".json", ".jsonl"))
        return found[1] if found else ""


def evaluations(roots: list[Path], bad: list[str] | None = None) -> Iterator[Evaluation]:
    """All evaluations below the folders, oldest first.

    Raises IcrError for folders without results and for unreadable files; with a list `bad`, the latter are
    left out and their messages added to it.
    """
    paths = sorted({p for root in roots for p in _results(root)}, key=lambda p: p.name)
    if not paths:
        where = ", ".join(map(str, roots))
        raise IcrError(f"no results_*.json below {where}; run lm_eval with --output_path and --log_samples")
    for path in paths:
        try:
            yield _evaluation(path)
        except IcrError as error:
            if bad is None:
                raise
            bad.append(str(error))


def _evaluation(path: Path) -> Evaluation:
    try:  # lm_eval writes NaN for an error that is not known, as of one item; scores are those of the samples
        results = json.loads(path.read_bytes(), parse_constant=lambda name: None)
    except OSError as error:
        raise IcrError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise IcrError(f"{path}: not valid JSON ({error}); the run did not finish writing") from error
    if not isinstance(results, dict) or not isinstance(results.get("configs"), dict):
        told = results if isinstance(results, dict) else {"lm_eval_version": "something else"}
        version = told.get("lm_eval_version", "an unknown version")
        raise IcrError(
            f"{path}: no task configs, written by lm_eval {version}; run again with lm_eval 0.4.4 or newer"
        )
    found = Evaluation(path, results)
    for task in results["configs"]:
        if (sample := path.with_name(f"samples_{task}_{found.stamp}.jsonl")).is_file():
            found.samples[task] = sample
    return found


def _results(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise IcrError(f"{root} is not a folder")
    return [path for path in files_below(root) if path.match("results_*.json")]


def files_below(root: Path, *, hidden: bool = True) -> Iterator[Path]:
    """Every file at or below a folder, sorted within each folder; through symbolic links too, each folder once.
    `hidden`: also in folders whose names start with a dot. Raises IcrError for a folder that may not be read."""
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True, onerror=_unread):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            below.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        below[:] = sorted(name for name in below if hidden or not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files))


def _unread(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # gone meanwhile, or no folder
        raise IcrError(f"{error.filename} cannot be read: {error.strerror}; make it readable or move it away")


def why(raw: bytes, error: Exception, otherwise: str) -> str:
    """Python's own reader takes NaN and Infinity; JSON does not."""
    constants: list[str] = []
    try:
        json.loads(raw, parse_constant=constants.append)
    except ValueError:
        constants.clear()
    if not constants:
        return f"not valid JSON ({error}); {otherwise}"
    return "NaN or Infinity in place of a score; the metric failed, score again with icr-replay"


def lenient(raw: bytes) -> Any:
    """A JSON line that holds half of a surrogate pair in a text: Python writes and reads such, JSON has no such
    character, so it becomes the replacement character. Raises ValueError for everything else that is no JSON."""

    def no(name: str) -> Any:
        raise ValueError(name)

    read = json.loads(raw, parse_constant=no)
    return orjson.loads(json.dumps(read, ensure_ascii=False).encode("utf-8", "replace"))
