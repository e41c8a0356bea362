"""What one vLLM engine was started with, and what it measures of a request.

The state belongs to the engine (vLLM's `additional_config` carries it to the workers). `ICR_KV` is set in the
environment only while the engine starts, so that vLLM loads the backend in every process it makes; afterwards
the environment is as it was, and the next engine of this process starts from its own arguments.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import IcrError
from ...settings import Setting
from .. import choose
from ..counts import KvCounts
from . import counters, seam


class EngineState:
    """`asked`: the setting text of this engine, `task` (each request's own setting), or None (full
    attention)."""

    def __init__(self, args: dict[str, Any]) -> None:
        """Takes kv=METHOD, kv_budget= ... (else `ICR_KV`) out of an engine's arguments and puts vLLM's own
        options in, in place. Raises IcrError for a method this backend does not have, and for arguments under
        which it would not run."""
        ours = {k: args.pop(k) for k in list(args) if choose.is_ours(k)}
        found = choose.from_args(ours)
        if ours.get("kv") == choose.TASK or (not ours and os.environ.get(choose.VARIABLE) == choose.TASK):
            self.asked: str | None = choose.TASK
        elif found is None or not found.compressed:
            self.asked = None
        else:
            self.asked = choose.parse(str(found))
        self.file: Path | None = None
        if self.asked is None:
            return
        if reason := seam.refusal_of_args(args):
            raise IcrError(reason)
        self._kind = bool(args.get("enable_prefix_caching", True)), int(args.get("tensor_parallel_size") or 1)
        if self.asked != choose.TASK:
            self._settle(args, self.asked)
        self.file = counters.new()
        weakref.finalize(self, self.file.unlink, missing_ok=True)
        told: dict[str, Any] = {"setting": self.asked, "counters": str(self.file)}
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            args["enforce_eager"] = True
        else:
            args["attention_backend"] = "ICR_KV"
            told |= self._graphs(args)
        args["additional_config"] = {**(args.get("additional_config") or {}), counters.CONFIG: told}

    def _settle(self, args: dict[str, Any], asked: str) -> None:
        """Switch the prefix cache off, in place, where the method cannot use it. Raises IcrError where it was asked for."""
        from .sparse import method_of

        method, (_, ranks) = method_of(asked), self._kind
        caching = bool(args.get("enable_prefix_caching", not method.needs_queries))
        if reason := seam.refusal_of_method(method, caching, ranks):
            raise IcrError(reason)
        if method.needs_queries:
            args["enable_prefix_caching"] = False

    def _graphs(self, args: dict[str, Any]) -> dict[str, bool]:
        """What `enforce_eager` of an engine on a GPU comes to, in place: CUDA graphs only where it is given as False.
        Raises IcrError where they cannot hold what the engine runs."""
        if args.get("enforce_eager", True):
            args["enforce_eager"] = True
            return {}
        from . import graphs, sparse

        assert self.asked is not None
        one = None if self.asked == choose.TASK else sparse.method_of(self.asked)
        if not graphs.holds(one, graphs.PAGE):
            raise IcrError(
                f"CUDA graphs cannot hold {self.asked} (settings of each request, lists of each request, pages that "
                "are no power of two); leave enforce_eager out"
            )
        args.setdefault("compilation_config", {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"})
        return {graphs.ASKED: True}

    @contextmanager
    def starting(self) -> Iterator[None]:
        """The environment in which vLLM starts this engine's processes; as before afterwards."""
        file = None if self.file is None else str(self.file)
        wanted = {choose.VARIABLE: self.asked, counters.VARIABLE: file}
        before = {name: os.environ.get(name) for name in wanted}
        _set_environment(wanted)
        try:
            yield
        finally:
            _set_environment(before)

    @property
    def running(self) -> str | None:
        """The setting the workers act on now; None: full attention."""
        return (counters.told(self.file) or None) if self.asked == choose.TASK and self.file else self.asked

    def switch(self, setting: Setting | None) -> None:
        """Let the workers of an idle engine (kv=task) act on another setting.

        Raises IcrError for a method this backend does not have.
        """
        if self.asked == choose.TASK and self.file:
            kv = None if setting is None else setting.kv
            counters.tell(self.file, choose.parse(str(kv)) if kv else "")

    @staticmethod
    def check(setting: Setting) -> None:
        """Raises IcrError for a compressed setting that this backend does not have."""
        if setting.kv is not None:
            choose.parse(str(setting.kv))

    def refusal(self, setting: Setting | None, cache_dtype: str = "auto") -> str | None:
        """Why this engine cannot answer a request under this setting, or None when it can.

        `cache_dtype` is the type of the cache that the engine made.
        """
        if setting is None or (not setting.compressed and setting.kind != "full" and self.asked is None):
            return None
        kv = setting.kv
        if kv is not None and kv.method in choose.native():
            if kv.method == cache_dtype:
                return None
            return (
                f"setting {setting} needs an engine with kv_cache_dtype={kv.method}; this one has "
                f"{cache_dtype}"
            )
        if setting.kind == "full" and cache_dtype != "auto":
            return f"this engine keeps its cache as {cache_dtype}, so it cannot run full; the setting is kv:{cache_dtype}"
        if self.asked == choose.TASK:
            try:
                self.check(setting)
            except IcrError as error:
                return str(error)
            from .sparse import method_of

            return None if kv is None else seam.refusal_of_method(method_of(str(kv)), *self._kind)
        wanted = str(kv) if kv is not None else None
        if wanted == self.asked:
            return None
        return (
            f"this engine was loaded for {self.asked or 'full attention'} and cannot run {setting}; load it "
            "with "
            "kv=task, which follows each task's setting"
        )

    def measured(self, request: str, prompt: int, output: int) -> KvCounts | None:
        """The digest's `kv` field of a finished request: the keys and units of icr-hf's, as far as vLLM
        tells.

        `prompt` and `output` are its tokens. None where full attention ran: vLLM's own kernel, nothing to
        count.
        """
        found = counters.of(self.file, request) if self.file else dict.fromkeys(counters.NAMES, 0.0)
        return report(self.running, found, prompt, output)


def report(running: str | None, found: dict[str, float], prompt: int, output: int) -> KvCounts | None:
    """As `EngineState.measured`, from counts. What ran is told by its effect: without a counted step it was
    full attention, whatever had been asked for."""
    steps, sparse = round(found["steps"]), round(found["sparse_steps"])
    if running is None and not sparse:
        return None
    # a first token comes from the prefill: without a second one there is no step to count
    ran = running if steps or output < 2 else None
    # a step attends to the prompt and to what was generated before it, itself included
    seen = steps * prompt + steps * (steps + 1) / 2
    each = round(found["bytes_full"] / seen, 2) if seen else None
    text = ran or ("full" if not sparse else "a compressed setting")
    return {
        "setting": text,
        "method": str(Setting.parse(ran).method) if ran else "full",
        "frees": False,  # nor does an evictor here: blocks are shared
        "tokens": prompt,
        "tokens_stored": prompt,
        "fallback": bool(steps and not sparse and found["tokens_read"] >= found["tokens_full"]),
        "steps": steps,
        "sparse_steps": sparse,
        "bytes_full_per_token": each,
        "bytes_stored_per_token": each,
        "stored_fraction": 1.0,
        "index_bytes": round(found["index_bytes"] / steps) if steps else 0,
        "build_seconds": round(found["build_seconds"], 6),
        "bytes_read_per_step": round(found["bytes_read"] / steps) if steps else None,
        "read_fraction": round(found["bytes_read"] / found["bytes_full"], 6) if steps else None,
        "attended_fraction": round(found["tokens_read"] / found["tokens_full"], 6) if steps else None,
        # what a serving engine does not tell of one request
        "mass_kept": None,
        "peak_memory_bytes": None,
        "prefill_tokens_per_s": None,
        "decode_tokens_per_s": None,
    }


def _set_environment(wanted: dict[str, str | None]) -> None:
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
