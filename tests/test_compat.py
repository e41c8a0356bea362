"""`.ci/compat.py` reads names in sources: what moved is told, what is re-exported is found, nothing runs."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).resolve().parent.parent / ".ci"
pytestmark = pytest.mark.skipif(not (CI / "compat.py").is_file(), reason="no checkout")
V1 = "vllm/v1/worker/gpu_"
V2 = "vllm/v1/worker/gpu/"
VLLM = {
    "vllm/__init__.py": "import typing\nif typing.TYPE_CHECKING:\n    from vllm.entrypoints.llm import LLM\n",
    "vllm/entrypoints/llm.py": "class LLM: ...\n",
    f"{V1}model_runner.py": "class Mixin:\n    def load_model(self, x): ...\n"
    "class GPUModelRunner(Mixin):\n    def _build_attention_metadata(self, **kwargs): ...\n",
    f"{V1}input_batch.py": "class InputBatch:\n    req_ids: list\n    def __init__(self, n):\n"
    "        self.num_prompt_tokens_cpu_tensor = n\n    @property\n    def req_ids(self): ...\n",
    "vllm/v1/attention/backend.py": "from dataclasses import dataclass\n@dataclass\n"
    "class CommonAttentionMetadata:\n    num_reqs: int\n    query_start_loc_cpu: int\n    seq_lens: int\n"
    "    block_table_tensor: int\n    slot_mapping: int\n",
    f"{V2}model_runner.py": "class GPUModelRunner:\n    def __init__(self):\n        self.req_states = 1\n"
    "    def prepare_attn(self, input_batch): ...\n    def prepare_dummy_attn(self): ...\n"
    "    def load_model(self): ...\n",
    f"{V2}input_batch.py": "from dataclasses import dataclass\n@dataclass\nclass InputBatch:\n"
    "    req_ids: list\n    idx_mapping_np: int\n    num_reqs_after_padding: int\n",
    f"{V2}states.py": "class RequestState:\n    def __init__(self):\n        self.prompt_len = 1\n",
    f"{V2}buffer_utils.py": "class UvaBackedTensor:\n    def __init__(self):\n        self.np = 1\n",
}


@pytest.fixture(scope="module")
def compat() -> ModuleType:
    spec = importlib.util.spec_from_file_location("icr_compat", CI / "compat.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["icr_compat"] = module
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_names_are_found_through_re_exports_and_nothing_runs(compat: ModuleType, tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "from .a import *\nfrom .b import Old as New\nraise SystemExit('imported')\n",
        "p/a.py": "try:\n    from .c import Deep\nexcept ImportError:\n    Deep = None\nX: int = 1\n",
        "p/b/__init__.py": "from ..c import Deep as Old\n",
        "p/c.py": "class Base:\n    def one(self, a, b): ...\n"
        "class Deep(Base):\n    def __init__(self):\n        self.two = 1\n",
    }
    sources = compat.Sources(wheel(tmp_path, files))
    for name in ("Deep", "New", "X", "a", "b"):
        assert sources.find("p", name) is not None, name
    assert sources.find("p", "Gone") is None and sources.find("p.q", "Deep") is None
    module, node = sources.find("p", "New")
    assert module == "p.c" and {"one", "two", "__init__"} == set(sources.members(module, node))
    assert compat.parameters(sources.members(module, node)["one"]) == {"self", "a", "b"}


def test_a_name_that_moved_is_told(compat: ModuleType, tmp_path: Path) -> None:
    files = {
        "trl/__init__.py": "from .a import SFTConfig, SFTTrainer, GRPOConfig\n",
        "trl/a.py": "SFTConfig = SFTTrainer = GRPOConfig = 1\n",
    }
    gone, count = compat.missing({"trl": compat.Sources(wheel(tmp_path, files))})
    assert count > 3 and any("trl has no GRPOTrainer" in line for line in gone)
    assert not any("SFTTrainer" in line for line in gone)


def test_a_patched_place_that_lost_an_argument_is_told(compat: ModuleType, tmp_path: Path) -> None:
    files = {
        "lm_eval/tasks/manager.py": "class TaskManager:\n"
        "    def __init__(self, include_path, metadata): ...\n",
        "lm_eval/api/registry.py": "other = 1\n",
    }
    gone, _ = compat.patched({"lm_eval": compat.Sources(wheel(tmp_path, files))})
    assert any("TaskManager.__init__ no longer takes include_defaults" in line for line in gone)
    assert any("model_registry is gone" in line for line in gone)


def test_the_seam_is_read_in_the_sources(compat: ModuleType, tmp_path: Path) -> None:
    assert compat.seam(compat.Sources(wheel(tmp_path, VLLM)))[0] == []
    renamed = {**VLLM, f"{V2}states.py": VLLM[f"{V2}states.py"].replace("prompt_len", "prompt_lens")}
    assert compat.seam(compat.Sources(wheel(tmp_path, renamed)))[0] == [
        "compressed decode: RequestState.prompt_len is missing"
    ]
    renamed = {
        **VLLM,
        f"{V1}model_runner.py": VLLM[f"{V1}model_runner.py"].replace("_build_attention", "_make"),
    }
    [said] = compat.seam(compat.Sources(wheel(tmp_path, renamed)))[0]
    assert "_build_attention_metadata is missing" in said
    moved = {k: v for k, v in VLLM.items() if not k.endswith("buffer_utils.py")}
    assert "has no class UvaBackedTensor" in compat.seam(compat.Sources(wheel(tmp_path, moved)))[0][0]


def test_installed_patches_and_seam_fit(compat: ModuleType) -> None:
    packages = compat.installed()
    assert compat.patched(packages)[0] == [] and compat.seam(packages.get("vllm"))[0] == []


def test_docs_carry_the_table(compat: ModuleType) -> None:
    """Declared ranges and the versions that the tests run with are those of pyproject.toml and the lock."""
    text = (CI.parent / "docs" / "compat.md").read_text()
    for line in compat.table({}).splitlines()[2:]:
        assert line.rpartition(" | ")[0] in text, line
