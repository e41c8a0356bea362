"""A stand-in for the xfinder package with its interface and none of its text, and the fixture that chooses
between them."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from icr_tasks.metrics import xfinder_package
from icr_tasks.metrics.xfinder_cases import ChoiceCase

OPTIONS = ("The Moon", "Mars", "Walking Georgie", "Light housework")


def case(response: str, gold: str = "B", n: int = 0) -> ChoiceCase:
    return ChoiceCase(str(n), f"Question {n}: where?", OPTIONS, gold, response)


def real_is_installed() -> bool:
    try:
        importlib.metadata.version("xfinder")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def stand_in() -> dict[str, types.ModuleType]:
    """Modules with the package's names and interface, and none of its text."""

    class Extractor:
        STOP_TOKENS = ["<STOP>", "<|END|>"]

        def __init__(
            self, model_name: str, inference_mode: str, model_path_or_url: str, temperature: float = 0
        ) -> None:
            self.model_name, self.inference_mode, self.system_prompt = model_name, inference_mode, "SYSTEM"

        def create_formatted_prompt(self, query: str) -> str:
            return templates[self.model_name].format(system=self.system_prompt, input=query)

        def _execute_api_inference(self, query: str) -> str:
            raise AssertionError("the adapter must not use the package's network code")

        def generate_output(self, question: str, llm_output: str, standard_answer_range: object) -> str:
            return self._execute_api_inference(f"Q<{question}> O<{llm_output}> R<{standard_answer_range}>")

    class Comparator:
        def compare(self, pair: tuple[Any, ...]) -> list[Any]:
            _, answer_range, extracted, correct = pair
            texts = {letter: text for letter, text in answer_range}
            return [*pair, int(extracted.lower() in (correct.lower(), texts[correct].lower()))]

    templates = {"xFinder-qwen1505": "Q5 {system} {input}:", "xFinder-llama38it": "L3 {system} {input}:"}
    modules = {
        n: types.ModuleType(n)
        for n in (
            "xfinder",
            "xfinder.helpers",
            "xfinder.modules",
            "xfinder.modules.answer_extractor",
            "xfinder.modules.answer_comparator",
        )
    }
    modules["xfinder.helpers"].PROMPT_TEMPLATE = templates  # type: ignore[attr-defined]
    extractor = modules["xfinder.modules.answer_extractor"]
    extractor.Extractor, extractor.Instruction = Extractor, "INSTRUCTION "  # type: ignore[attr-defined]
    modules["xfinder.modules"].answer_extractor = extractor  # type: ignore[attr-defined]
    modules["xfinder.modules.answer_comparator"].Comparator = Comparator  # type: ignore[attr-defined]
    return modules


@pytest.fixture(params=["stand-in", "real"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    xfinder_package.package.cache_clear()
    if request.param == "real":
        if not real_is_installed():
            pytest.skip("xfinder is not installed (pip install --no-deps xfinder)")
    else:
        for name, module in stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)
        version = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: "0" if name == "xfinder" else version(name)
        )
    yield request.param
    xfinder_package.package.cache_clear()
