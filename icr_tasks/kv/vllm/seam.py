"""Where vLLM's two model runners say which requests a batch holds: V1 (no Triton, e.g. CPUs) in its own input
batch, V2 (the default wherever Triton runs) in `req_states`, indexed by the batch.

`install` tests the names it relies on before it relies on them, wraps the runners, and makes them refuse,
before weights load, an engine on which compressed decode would be wrong or would not happen. Read against
vLLM 0.32.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import IcrError

OLDEST = (0, 30)
BACKEND = "ICR_KV"
V1 = "vllm.v1.worker.gpu_model_runner"
V2 = "vllm.v1.worker.gpu.model_runner"


@dataclass(frozen=True)
class Requests:
    """The rows of a batch: prompt lengths in tokens (0: a row that is no request) and names, in batch
    order. `counted`: tokens of the batch whose step a layer has counted, shared by all groups of layers."""

    prompts: np.ndarray
    names: Sequence[str]
    counted: set[int] = field(default_factory=set)


# of the batch being built: a runner tells just before its metadata builders run, in the same thread
current: Requests | None = None

NOBODY = Requests(np.zeros(0, np.int32), ())


def tell_v1(runner: Any) -> None:
    """Take the rows from V1's persistent batch."""
    global current
    batch = runner.input_batch
    current = Requests(batch.num_prompt_tokens_cpu_tensor.numpy(), batch.req_ids)


def tell_v2(runner: Any, input_batch: Any) -> None:
    """Take the rows of a V2 batch, which the request table holds in another order; the rows that a CUDA graph has above
    them are no requests."""
    global current
    prompts = runner.req_states.prompt_len.np[input_batch.idx_mapping_np]
    spare = max(0, input_batch.num_reqs_after_padding - len(input_batch.req_ids))
    current = Requests(np.pad(prompts, (0, spare)), [*input_batch.req_ids, *[""] * spare])


def tell_nobody() -> None:
    """The batch is made up (profiling, warm-up of kernels): no row is a request."""
    global current
    current = NOBODY


def rows(count: int) -> Requests:
    """The rows of the batch being built, `count` of them. Raises RuntimeError when no runner has told
    them."""
    if current is None or (current is not NOBODY and len(current.names) < count):
        raise RuntimeError(
            f"{BACKEND} was not told the requests of this batch: a model runner that icr-tasks does not "
            "know builds "
            "it; set VLLM_USE_V2_MODEL_RUNNER=0, or use --model icr-hf"
        )
    if current is NOBODY:
        return Requests(np.zeros(count, np.int32), [""] * count)
    return current


# ---- self-test -----------------------------------------------------------------------------------


def check_version(version: str) -> None:
    """Raises IcrError for a vLLM older than the ones this was written for."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (0, 0) < (int(found[1]), int(found[2])) < OLDEST:
        raise IcrError(
            f"compressed decode needs vllm >= {'.'.join(map(str, OLDEST))}, this is {version}; upgrade "
            "vllm, or use "
            "--model icr-hf"
        )


def missing_v1(runner: type[Any], batch: type[Any], common: type[Any]) -> list[str]:
    """What a V1 runner, its input batch and the metadata of a batch lack of the names used here."""
    lacks = _lacking(runner, ("_build_attention_metadata", "load_model"))
    lacks += _unset(batch, ("num_prompt_tokens_cpu_tensor",)) + _lacking(batch, ("req_ids",))
    return lacks + missing_common(common)


def missing_v2(
    runner: type[Any], batch: type[Any], states: type[Any], table: type[Any], common: type[Any]
) -> list[str]:
    """What a V2 runner, its batch, its request table, that table's tensors and the metadata of a batch
    lack."""
    lacks = _lacking(runner, ("prepare_attn", "prepare_dummy_attn", "load_model"))
    if not lacks and list(inspect.signature(runner.prepare_attn).parameters)[1:2] != ["input_batch"]:
        lacks.append(f"{runner.__name__}.prepare_attn(input_batch)")
    lacks += _unset(runner, ("req_states",)) + _unset(states, ("prompt_len",)) + _unset(table, ("np",))
    fields = {f.name for f in dataclasses.fields(batch)}
    used = ("req_ids", "idx_mapping_np", "num_reqs_after_padding")
    lacks += [f"{batch.__name__}.{name}" for name in used if name not in fields]
    return lacks + missing_common(common)


def missing_common(common: type[Any]) -> list[str]:
    """What vLLM's metadata of a batch lacks."""
    fields = {f.name for f in dataclasses.fields(common)}
    used = ("num_reqs", "query_start_loc_cpu", "seq_lens", "block_table_tensor", "slot_mapping")
    return [f"{common.__name__}.{name}" for name in used if name not in fields]


def _lacking(owner: type[Any], names: Sequence[str]) -> list[str]:
    return [f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name)]


def _unset(owner: type[Any], names: Sequence[str]) -> list[str]:
    """Names that no `__init__` of the class sets on self."""
    known: set[str] = set()
    for kind in owner.__mro__:
        if (init := kind.__dict__.get("__init__")) is not None and hasattr(init, "__code__"):
            known.update(init.__code__.co_names)
    return [f"{owner.__name__}.{name}" for name in names if name not in known]


# ---- what an engine must not be ------------------------------------------------------------------


SHARDS = {
    "decode_context_parallel_size": "each rank holds a part of every sequence",
    "prefill_context_parallel_size": "each rank holds a part of every prompt",
    "pipeline_parallel_size": "its counts have not been checked",
    "data_parallel_size": "engines would share one file of counts",
    "nnodes": "the other nodes' counts are out of reach",
}
WHOLE = ("auto", "float16", "bfloat16", "float32")  # cache types that the kernels read
_DRAFT = "ICR_KV does not work with a speculative_config (the draft's layers would be compressed too); leave it out"


def _sharded(sizes: Mapping[str, Any]) -> str | None:
    for name, why in SHARDS.items():
        if int(sizes.get(name) or 1) > 1:
            return f"ICR_KV does not work with {name}={sizes[name]} ({why}); set it to 1"
    return None


def refusal_of_args(args: Mapping[str, Any]) -> str | None:
    """As `refusal`, from the arguments an engine is about to be made with: before any process starts."""
    backend = args.get("attention_backend")
    if backend is not None and not is_ours(backend):
        return (
            f"attention_backend={getattr(backend, 'name', backend)} is dense and cannot run kv=; leave it "
            "out, or use "
            "kv=full"
        )
    dtype = str(args.get("kv_cache_dtype") or "auto")
    if dtype not in WHOLE:
        return f"ICR_KV does not work with kv_cache_dtype={dtype} (its kernels read 16- and 32-bit caches); leave one out"
    return _DRAFT if args.get("speculative_config") else _sharded(args)


def refusal_of_method(method: Any, prefix_caching: bool, tensor_parallel: int) -> str | None:
    """Why an engine of this kind cannot run a method, in one sentence; None when it can."""
    if method is None:
        return None
    if method.needs_queries and prefix_caching:
        return (
            f"kv:{method.name} needs enable_prefix_caching=False: it chooses by the prompt's last queries, which a "
            "prompt from the prefix cache never shows"
        )
    if method.together and tensor_parallel > 1:
        return (
            f"kv:{method.name} scores all KV heads of a layer together, of which each rank holds a part; set "
            "tensor_parallel_size=1"
        )
    return None


def refusal(config: Any, cpu: bool, method: Any = None) -> str | None:
    """Why compressed decode cannot run in an engine of this VllmConfig, in one sentence; None when it can.

    Names what would give wrong answers or wrong counts, and a dense backend that would never look at the
    method.
    """
    parallel = config.parallel_config
    sizes = {name: getattr(parallel, name, 1) for name in SHARDS}
    if found := _sharded(sizes):
        return found
    if getattr(parallel, "use_ubatching", False):
        return (
            "ICR_KV does not work with microbatches (their rows are parts of the batch); set enable_dbo=False"
        )
    if config.speculative_config is not None:
        return _DRAFT
    backend = getattr(getattr(config, "attention_config", None), "backend", None)
    if not cpu and not is_ours(backend):
        named = getattr(backend, "name", backend) or "vLLM's own choice"
        return (
            f"ICR_KV is set, but this engine's attention backend is {named}, which is dense: give "
            f"attention_backend={BACKEND}, or unset ICR_KV"
        )
    caching = getattr(getattr(config, "cache_config", None), "enable_prefix_caching", False)
    return refusal_of_method(method, bool(caching), int(getattr(parallel, "tensor_parallel_size", 1)))


def is_ours(backend: Any) -> bool:
    """Whether an attention backend, by name or as vLLM's enumeration has it, is this package's."""
    if backend is None:
        return False
    if isinstance(backend, str):
        return backend.upper() == BACKEND
    path = getattr(backend, "get_path", None)
    try:
        return backend.name == BACKEND or bool(path and str(path()).startswith(f"{__package__}."))
    except ValueError:  # an entry that nothing is registered for
        return False


def guard(load: Callable[..., Any]) -> Callable[..., Any]:
    """A runner's `load_model` that refuses first."""

    @functools.wraps(load)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm.platforms import current_platform

        from .sparse import asked_of

        if reason := refusal(self.vllm_config, current_platform.is_cpu(), asked_of(self.vllm_config)):
            raise IcrError(reason)
        return load(self, *args, **kwargs)

    return load_model


# ---- wrapping ------------------------------------------------------------------------------------


def wrap_v1(runner: type[Any]) -> None:
    """Let a V1 runner tell its rows before it builds attention metadata."""
    build = runner._build_attention_metadata

    @functools.wraps(build)
    def with_rows(self: Any, *args: Any, **kwargs: Any) -> Any:
        tell_v1(self)
        return build(self, *args, **kwargs)

    runner._build_attention_metadata = with_rows
    runner.load_model = guard(runner.load_model)


def wrap_v2(runner: type[Any]) -> None:
    """Let a V2 runner tell its rows before `prepare_attn`, and say nobody for made-up batches."""
    real, dummy = runner.prepare_attn, runner.prepare_dummy_attn

    @functools.wraps(real)
    def with_rows(self: Any, input_batch: Any, *args: Any, **kwargs: Any) -> Any:
        tell_v2(self, input_batch)
        return real(self, input_batch, *args, **kwargs)

    @functools.wraps(dummy)
    def without_rows(self: Any, *args: Any, **kwargs: Any) -> Any:
        tell_nobody()
        return dummy(self, *args, **kwargs)

    runner.prepare_attn, runner.prepare_dummy_attn = with_rows, without_rows
    runner.load_model = guard(runner.load_model)


def install(v2: bool) -> None:
    """Test this vLLM's names and wrap its runners (V2 where Triton runs). Raises IcrError when one has
    changed."""
    import vllm

    check_version(vllm.__version__)
    try:
        lacks = _install_v1() + (_install_v2() if v2 else [])
    except ImportError as error:
        lacks = [str(error)]
    if lacks:
        raise IcrError(
            f"vllm {vllm.__version__} has changed what compressed decode reads "
            f"({', '.join(sorted(set(lacks)))} is "
            "missing); use vllm 0.32, or --model icr-hf"
        )


def _install_v1() -> list[str]:
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu_input_batch import InputBatch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    if lacks := missing_v1(GPUModelRunner, InputBatch, CommonAttentionMetadata):
        return lacks
    wrap_v1(GPUModelRunner)
    cpu: Any = CPUModelRunner
    if "load_model" in cpu.__dict__:  # it has its own
        cpu.load_model = guard(cpu.load_model)
    return []


def _install_v2() -> list[str]:
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.worker.gpu.buffer_utils import UvaBackedTensor
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner
    from vllm.v1.worker.gpu.states import RequestState

    if lacks := missing_v2(
        GPUModelRunner, InputBatch, RequestState, UvaBackedTensor, CommonAttentionMetadata
    ):
        return lacks
    wrap_v2(GPUModelRunner)
    return []
