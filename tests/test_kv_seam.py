"""Both of vLLM's model runners tell the same rows; a vLLM whose names changed, and an engine on which
compressed decode would be wrong or would not happen, are refused by name."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, make_dataclass
from types import SimpleNamespace as Bag
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv.vllm import seam, sparse  # noqa: E402

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")
SIZE = 4  # tokens a block


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "current", None)


def _common(**given: Any) -> Bag:
    """Three rows: 2 tokens at the end of a prompt of 9, one generated after 6, a prompt's first 3."""
    table = torch.tensor([[7, 2, 5], [0, 3, 9], [4, 0, 0]])
    start = torch.tensor([0, 2, 3, 6], dtype=torch.int32)
    common = Bag(
        num_reqs=3,
        query_start_loc_cpu=start,
        seq_lens=torch.tensor([9, 8, 3]),
        block_table_tensor=table,
        seq_lens_cpu_upper_bound=None,
    )
    for name, value in given.items():
        setattr(common, name, value)
    return common


def _v1() -> Bag:
    batch = Bag(num_prompt_tokens_cpu_tensor=torch.tensor([9, 6, 5, 77]), req_ids=["a", "b", "c"])
    return Bag(input_batch=batch)


def _check(steps: list[sparse.Step]) -> None:
    """Only row 1 has generated: its last token stands at 2 in the batch, over 8 slots of blocks 0 and 3."""
    assert [(s.at, s.prompt, s.request) for s in steps] == [(2, 6, "b")]
    assert steps[0].slots(_common().block_table_tensor, SIZE).tolist() == [0, 1, 2, 3, 12, 13, 14, 15]


def test_v1_tells_its_rows() -> None:
    seam.tell_v1(_v1())
    _check(sparse.plan(_common()))


def test_lengths_known_on_the_host_are_taken() -> None:
    """The device's are not looked at: that would wait for it at every step."""
    seam.tell_v1(_v1())
    _check(sparse.plan(_common(seq_lens=None, seq_lens_cpu_upper_bound=torch.tensor([9, 8, 3]))))


def test_nothing_is_planned_for_a_batch_nobody_told() -> None:
    with pytest.raises(RuntimeError, match="not told the requests"):
        sparse.plan(_common())


def test_rows_told_of_a_smaller_batch_are_not_taken() -> None:
    seam.tell_v1(Bag(input_batch=Bag(num_prompt_tokens_cpu_tensor=torch.tensor([9]), req_ids=["a"])))
    with pytest.raises(RuntimeError, match="not told the requests"):
        sparse.plan(_common())


def test_a_made_up_batch_has_no_steps() -> None:
    seam.tell_nobody()
    assert sparse.plan(_common()) == []


@needs_vllm
def test_v2_tells_its_rows_through_vllms_own_objects() -> None:
    """The request table of the installed vLLM, filled in another order than the batch, and its dummy
    batch."""
    from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    class Runner(GPUModelRunner):
        def __init__(self) -> None:
            self.pcp_manager = None
            self.req_states = Bag(prompt_len=Bag(np=np.array([5, 0, 9, 0, 6], np.int32)))
            self.block_tables = Bag(
                gather_block_tables=lambda *a, **k: ("blocks",),
                compute_slot_mappings=lambda *a, **k: "slots",
                get_dummy_block_tables=lambda n: (),
                get_dummy_slot_mappings=lambda n: "none",
            )

    class Fresh(Runner):  # its own methods are wrapped, not vLLM's
        prepare_attn, prepare_dummy_attn = GPUModelRunner.prepare_attn, GPUModelRunner.prepare_dummy_attn

    seam.wrap_v2(Fresh)
    runner = Fresh()
    batch = InputBatch.make_dummy(3, 6, InputBuffers(4, 16, torch.device("cpu")))
    batch.req_ids, batch.idx_mapping_np = ["a", "b", "c"], np.array([2, 4, 0])
    assert runner.prepare_attn(batch) == (("blocks",), "slots")
    _check(sparse.plan(_common()))
    batch.num_reqs_after_padding = 5  # a CUDA graph has rows above the requests
    runner.prepare_attn(batch)
    assert seam.rows(5).prompts.tolist() == [9, 6, 5, 0, 0] and list(seam.rows(5).names) == [
        "a",
        "b",
        "c",
        "",
        "",
    ]
    assert runner.prepare_dummy_attn(batch) == ((), "none")
    assert sparse.plan(_common()) == []


@needs_vllm
def test_the_installed_vllm_has_every_name_of_both_runners() -> None:
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.worker.gpu import buffer_utils, input_batch, model_runner, states
    from vllm.v1.worker.gpu_input_batch import InputBatch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    v2 = (
        model_runner.GPUModelRunner,
        input_batch.InputBatch,
        states.RequestState,
        buffer_utils.UvaBackedTensor,
    )
    assert seam.missing_v2(*v2, CommonAttentionMetadata) == []
    assert seam.missing_v1(GPUModelRunner, InputBatch, CommonAttentionMetadata) == []


def _common_class(*left_out: str) -> type[Any]:
    names = ("num_reqs", "query_start_loc_cpu", "seq_lens", "block_table_tensor", "slot_mapping")
    return make_dataclass("Common", [n for n in names if n not in left_out])


class States:
    def __init__(self) -> None:
        self.prompt_len = None


class Table:
    def __init__(self) -> None:
        self.np = None


@dataclass
class Batch:
    req_ids: Any
    idx_mapping_np: Any
    num_reqs_after_padding: Any = 0


class Runner2:
    def __init__(self) -> None:
        self.req_states = None

    def prepare_attn(self, input_batch: Any) -> None: ...
    def prepare_dummy_attn(self, input_batch: Any) -> None: ...
    def load_model(self) -> None: ...


class Empty:
    pass


class Renamed(Runner2):
    def prepare_attn(self, batch: Any) -> None: ...  # type: ignore[override]


class RunnerWithoutTable(Runner2):
    def __init__(self) -> None:
        self.requests = None


def test_names_that_changed_are_named() -> None:
    good = (Runner2, Batch, States, Table, _common_class())
    assert seam.missing_v2(*good) == []
    other = make_dataclass("Batch", ["req_ids", "num_reqs_after_padding"])
    for place, bad, lacks in (
        (0, Renamed, "Renamed.prepare_attn(input_batch)"),
        (1, other, "Batch.idx_mapping_np"),
        (2, Empty, "Empty.prompt_len"),
        (3, Empty, "Empty.np"),
        (4, _common_class("seq_lens"), "Common.seq_lens"),
    ):
        changed = [*good]
        changed[place] = bad
        assert seam.missing_v2(*changed) == [lacks]
    assert "Empty.prepare_attn" in seam.missing_v2(Empty, *good[1:])
    assert seam.missing_v1(Empty, Batch, _common_class()) == [
        "Empty._build_attention_metadata",
        "Empty.load_model",
        "Batch.num_prompt_tokens_cpu_tensor",
        "Batch.req_ids",
    ]


@pytest.mark.parametrize("version", ["0.19.1", "0.29.3", "0.29.0rc1+cpu"])
def test_an_older_vllm_is_refused_by_name(version: str) -> None:
    with pytest.raises(IcrError, match=f"this is {version[:4]}"):
        seam.check_version(version)


@pytest.mark.parametrize("version", ["0.30.0", "0.32.0+cpu", "0.33.1", "1.0", "dev"])
def test_a_newer_one_is_left_to_the_self_test(version: str) -> None:
    seam.check_version(version)


def _config(backend: Any = "ICR_KV", speculative: Any = None, **parallel: Any) -> Bag:
    return Bag(
        parallel_config=Bag(**parallel),
        speculative_config=speculative,
        attention_config=Bag(backend=backend),
    )


@pytest.mark.parametrize(
    "name",
    [
        "decode_context_parallel_size",
        "prefill_context_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "nnodes",
    ],
)
def test_shards_are_refused_by_name(name: str) -> None:
    assert f"{name}=2" in (seam.refusal(_config(**{name: 2}), cpu=True) or "")
    assert seam.refusal(_config(**{name: 1}), cpu=True) is None


def test_drafts_microbatches_and_dense_backends_are_refused() -> None:
    assert "speculative_config" in (seam.refusal(_config(speculative=Bag()), cpu=True) or "")
    assert "microbatches" in (seam.refusal(_config(use_ubatching=True), cpu=True) or "")
    for backend in (None, "FLASHINFER", Bag(name="FLASH_ATTN", get_path=lambda: "vllm.v1.Flash")):
        assert "attention_backend=ICR_KV" in (seam.refusal(_config(backend), cpu=False) or "")
        assert seam.refusal(_config(backend), cpu=True) is None  # CPU_ATTN's place is taken
    assert seam.refusal(_config(Bag(name="ICR_KV")), cpu=False) is None
    assert seam.refusal(_config(), cpu=False) is None


@needs_vllm
def test_it_is_refused_before_weights_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    loaded: list[bool] = []

    class Runner:
        def __init__(self, backend: str | None) -> None:
            self.vllm_config = _config(backend)

        def _build_attention_metadata(self) -> None: ...

        def load_model(self) -> None:
            loaded.append(True)

    seam.wrap_v1(Runner)
    with pytest.raises(IcrError, match="vLLM's own choice, which is dense"):
        Runner(None).load_model()
    assert not loaded
    Runner("ICR_KV").load_model()
    assert loaded


@pytest.mark.parametrize(
    "given",
    [
        {"attention_backend": "FLASHINFER"},
        {"decode_context_parallel_size": 2},
        {"pipeline_parallel_size": "2"},
        {"speculative_config": {"method": "ngram"}},
    ],
)
def test_icr_vllm_refuses_before_any_process_starts(given: dict[str, Any]) -> None:
    from icr_tasks.kv.vllm.state import EngineState

    with pytest.raises(IcrError, match=next(iter(given))):
        EngineState({"kv": "topk", **given})
    EngineState({"kv": "full", **given})  # a dense engine may be anything


@needs_vllm
def test_cuda_graphs_are_recorded_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.platforms import current_platform

    from icr_tasks.kv.vllm import counters, graphs
    from icr_tasks.kv.vllm.state import EngineState

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)

    def made(**given: Any) -> dict[str, Any]:
        args: dict[str, Any] = dict(given)
        EngineState(args)
        return args

    plain = made(kv="page@0.05")
    assert plain["enforce_eager"] is True and plain["attention_backend"] == "ICR_KV"
    assert "compilation_config" not in plain and not graphs.wanted(
        Bag(additional_config=plain["additional_config"])
    )
    asked = made(kv="page@0.05", enforce_eager=False)
    assert asked["compilation_config"]["cudagraph_mode"] == "FULL_DECODE_ONLY"
    assert asked["additional_config"][counters.CONFIG]["setting"] == "kv:page@0.05"
    assert graphs.wanted(Bag(additional_config=asked["additional_config"]))
    for kv in ("task", "keydiff@0.5", "page@0.05,page=12"):
        with pytest.raises(IcrError, match="leave enforce_eager out"):
            made(kv=kv, enforce_eager=False)
    assert not graphs.wanted(Bag(additional_config=None))


def test_a_step_is_one_whatever_the_groups_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of other shapes have a metadata builder each, and count into one file."""
    from icr_tasks.kv.vllm import counters

    class Base:
        def __init__(self, *args: Any) -> None: ...

        def build(self, *args: Any) -> Bag:
            return Bag()

    class Builder(sparse.Planning, Base):
        block_size = 16

    def layer(plan: Any, heads: int) -> None:
        def gather(slots: Any) -> tuple[Any, Any]:
            return torch.randn(heads, len(slots), 8), torch.randn(heads, len(slots), 8)

        impl = Bag(num_kv_heads=heads, head_size=8, scale=1.0)
        sparse.attend(impl, plan, torch.randn(1, 4, 8), torch.zeros(1, 4, 8), gather)

    monkeypatch.setattr(sparse, "_rank", lambda: 0)
    file = counters.new()
    told = {"setting": "kv:topk@0.05,sink=2,window=8", "counters": str(file)}
    config = Bag(additional_config={counters.CONFIG: told})
    groups = [(Builder(None, ["a", "b"], config), 2), (Builder(None, ["c", "d"], config), 4)]
    for step in range(5):
        rows = {"num_reqs": 1, "query_start_loc_cpu": torch.tensor([0, 1]), "num_actual_tokens": 1}
        common = Bag(**rows, seq_lens=torch.tensor([201 + step]), block_table_tensor=torch.arange(20)[None])
        seam.current = seam.Requests(np.array([200], np.int32), ["icr-1-0"])
        for builder, heads in groups:
            plan = builder.build(0, common).icr_plan
            for _ in range(2):
                layer(plan, heads)
    found = counters.of(file, "icr-1-0")
    file.unlink()
    assert (found["steps"], found["sparse_steps"]) == (5, 5)
    assert found["bytes_full"] == sum(range(201, 206)) * 2 * (2 * 2 * 8 * 4 + 2 * 4 * 8 * 4)
