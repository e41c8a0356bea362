"""Whether models can be had by name, and where they run: the hub is asked once a process whether it answers.

Its client tries each file five times, half a minute a file and several files a model, before it says that there is no
network; and then it reads its cache, if that has the model.
"""

from __future__ import annotations

import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import IcrError

# Engines that load a model, and their arguments that name one.
_LOADING = ("hf", "hf-auto", "huggingface", "vllm", "sglang", "icr-hf", "icr-vllm")
_NAMED = ("pretrained", "tokenizer", "peft")
_SECONDS, _TRIES = 5.0, 2
_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "adapter_config.json", "modules.json")
log = logging.getLogger("icr_tasks")


def checked(asked: str | None) -> str | None:
    """A device as asked, for a library that chooses one itself where nobody asks. Raises IcrError as `device`."""
    return device(asked) if asked else None


def device(asked: str | None) -> str:
    """Where a model runs: as asked, else on a GPU where there is one. Raises IcrError for a device that is not
    here."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not asked:
        return "cuda" if gpus else "cpu"
    try:
        wanted = torch.device(asked)
    except RuntimeError as error:
        raise IcrError(
            f"device {asked!r}: PyTorch knows no such device; write cpu, cuda or cuda:1"
        ) from error
    if wanted.type == "cuda" and (wanted.index or 0) >= gpus:
        here = f"the last GPU here is cuda:{gpus - 1}" if gpus else "PyTorch sees no GPU here (`icr doctor`)"
        raise IcrError(f"device {asked!r}: {here}; name another, or leave it out")
    return asked


def local(name: str, what: str, revision: str | None = None) -> bool:
    """`local_files_only` for a library that loads `name`: whether to read folders and the hub's cache alone.

    True where the hub is switched off (HF_HUB_OFFLINE) or does not answer. `what` is "tokenizer", "embedder" ...
    Raises IcrError, with exit code 3 where the hub does not answer, for a name that is then nowhere to be had.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if Path(name).expanduser().exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False  # no name of the hub's: the library says so
    off = _off()
    silent = None if off else unanswered(constants.ENDPOINT)
    if not off and silent is None:
        return False
    found = [huggingface_hub.try_to_load_from_cache(name, file, revision=revision) for file in _FILES]
    if any(isinstance(place, str) for place in found):
        return True
    at = f"{name!r}" + (f" at {revision}" if revision else "")
    if off:
        raise IcrError(
            f"{what} {at} is no folder, and not in the hub's cache, while HF_HUB_OFFLINE is set: give a folder, or "
            "unset it once"
        )
    raise IcrError(
        f"{what} {at} is no folder, and not in the hub's cache, and the hub cannot be reached ({silent}): give a "
        "folder, or fill the cache (HF_HOME) where there is a network",
        exit_code=3,
    )


def engine(name: str, arguments: Mapping[str, Any]) -> None:
    """The models that an engine's arguments name. Raises IcrError as `local`, before anything is loaded."""
    if name not in _LOADING:
        return
    for argument in _NAMED:
        model = arguments.get(argument)
        revision = arguments.get("revision") if argument == "pretrained" else None
        if isinstance(model, str) and local(model, argument, revision) and not _off():
            log.warning("HF_HUB_OFFLINE=1 spares %s minutes of asking for the files of %s", name, model)


def silent() -> bool:
    """Whether the hub is switched off or does not answer."""
    from huggingface_hub import constants

    return _off() or unanswered(constants.ENDPOINT) is not None


def _off() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@lru_cache(maxsize=4)
def unanswered(address: str) -> str | None:
    """Why nothing answers at `address`; None where something does, whatever it says."""
    reason = ""
    for trial in range(_TRIES):
        time.sleep(float(trial))
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                return None
        except urllib.error.HTTPError:
            return None  # an answer
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLError):
                return None  # the hub's client may trust other certificates
            reason = f"{address}: {cause}"
    log.warning("the hub cannot be reached (%s): what its cache has is used", reason)
    return reason
