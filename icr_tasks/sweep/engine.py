"""Any lm-eval model by name, loaded once and given an answer store."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from lm_eval.api.model import LM

from .. import hub
from ..engines import answers, identity
from ..engines.answers import AnswerStore
from ..errors import unknown
from .cells import REPLICAS, Cell
from .records import Folder
from .study import SERVED

_IN_FLIGHT = {"vllm": 64}  # batches of this many requests; elsewhere few, because a kill loses one batch
_FEW = 8


def check_names(names: list[str]) -> None:
    """Raise IcrError with the nearest match for a model name that lm_eval does not know."""
    import lm_eval.models
    from lm_eval.api import registry

    from ..harness import hooks

    hooks.patch_models(lm_eval.models)
    known = list(registry.model_registry.keys())
    for name in names:
        if name not in known:
            raise unknown("model", name, known)


class StoredLM(LM):
    """An lm-eval model whose answers come from elsewhere; everything else is the model's own."""

    def __init__(self, lm: Any, answer: Callable[[Sequence[Any]], list[str]]) -> None:
        self._lm, self._answer = lm, answer  # rank, cache hook ... are the model's, so nothing of LM.__init__

    @property
    def lm(self) -> Any:
        """The model itself, by the name that lm_eval's response cache has for it: what is changed on a loaded engine
        is changed there."""
        return self._lm

    def generate_until(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[str]:
        """Answers in request order, whatever else upstream may pass."""
        return self._answer(requests)

    def loglikelihood(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """The model's own."""
        return self._lm.loglikelihood(requests, **kwargs)

    def loglikelihood_rolling(self, requests: list[Any], **kwargs: Any) -> list[float]:
        """The model's own."""
        return self._lm.loglikelihood_rolling(requests, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        """What this class does not define is the model's, also where lm_eval's base class has a default."""
        own = object.__getattribute__(self, "__dict__")
        if name.startswith("__") or name in vars(StoredLM) or name in own:
            return object.__getattribute__(self, name)
        return getattr(own["_lm"], name)


# (cell, arguments, batch size and device) -> an lm-eval model
Load = Callable[[Cell, dict[str, Any], dict[str, Any]], Any]


class Engine:
    """A loaded lm-eval model with an answer store; `lm` is what lm_eval is given: it asks the store first."""

    def __init__(self, cell: Cell, folder: Folder, part: str | None = None, load: Load | None = None) -> None:
        """Loads the model, by `load` where given; `part` names the file that its answers go to. Raises what the
        engine raises."""
        from lm_eval.api.registry import get_model

        quiet()
        check_names([cell.engine])
        auto = "auto" if "vllm" in cell.engine else 1
        loading = {"batch_size": cell.loading.get("batch_size", auto), "device": cell.loading.get("device")}
        args = {**cell.args, **_given(cell, folder)}
        if cell.engine != "vllm":
            args.pop(REPLICAS, None)  # this is one of them
        hub.engine(cell.engine, args)
        model: Any = (
            load(cell, args, loading)
            if load is not None
            else get_model(cell.engine).create_from_arg_obj(args, loading)
        )
        self.store = store_of(cell, folder, part)
        if cell.engine == SERVED:
            model.history = self.store
        self.damaged = self.store.damaged
        own = getattr(model, "stream", None)
        size = cell.in_flight or _IN_FLIGHT.get(cell.engine, _FEW)
        self.stream: answers.Stream = own if callable(own) else answers.batches(_quietly(model), size)
        self.lm = StoredLM(model, self.answer)

    def answer(
        self, requests: Sequence[Any], done: Callable[[int, bool], None] = lambda i, stored: None
    ) -> list[str]:
        """Answers in request order, from the store or the model."""
        return answers.answer(requests, self.store, self.stream, done)


def _given(cell: Cell, folder: Folder) -> dict[str, Any]:
    """What the study tells an engine of ours beside the model's arguments."""
    if cell.engine == "icr-vllm":
        return {"in_flight": cell.in_flight} if cell.in_flight else {}
    if cell.engine == SERVED:
        own = {"num_concurrent": cell.in_flight} if cell.in_flight else {}
        return {**own, **({"spent": str(folder.answers)} if cell.args.get("price") else {})}
    return {}


def store_of(cell: Cell, folder: Folder, part: str | None = None) -> AnswerStore:
    """The answer store of a cell's engine, in the study's folder."""
    args = identity.engine(cell.args)
    told = {"engine": cell.engine, "args": args, "versions": versions()}
    return AnswerStore(folder.answers, told, part)


def versions() -> dict[str, str]:
    """Versions that answers are kept apart by."""
    return {**identity.versions(), "lm_eval": metadata.version("lm_eval")}


def _quietly(model: Any) -> Callable[[list[Any]], list[str]]:
    """Its `generate_until` at the time of the call: a task may change a loaded engine."""
    if "disable_tqdm" in inspect.signature(model.generate_until).parameters:
        return lambda requests: model.generate_until(requests, disable_tqdm=True)
    return lambda requests: model.generate_until(requests)


def quiet() -> None:
    """Engines and lm_eval log only problems; the tokenizer may use all cores."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("lm_eval", "lm-eval", "vllm"):
        logging.getLogger(name).setLevel(logging.ERROR)
