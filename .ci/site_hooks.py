"""Hooks of mkdocs.yml: the notebook as a page, and no page that cannot be reached."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    """Notebooks become Markdown pages of the same name. Nothing is executed: a test runs them (tests/test_notebook.py)."""
    for file in list(files):
        if not file.src_uri.endswith(".ipynb"):
            continue
        text = page(json.loads(Path(file.abs_src_path).read_text(encoding="utf-8")))
        files.remove(file)
        files.append(
            File.generated(config, str(PurePosixPath(file.src_uri).with_suffix(".md")), content=text)
        )
    return files


def page(notebook: dict[str, Any]) -> str:
    """The cells of a notebook (nbformat 4) as Markdown: text as it is, code fenced, text outputs below their cell.

    ValueError for a kind of cell or output that has no form here, so that none is left out silently.
    """
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                text = output.get("text") or output.get("data", {}).get("text/plain")
                if text is None:
                    raise ValueError(f"an output of kind {output.get('output_type')!r} has no text")
                parts.append(f"```text\n{''.join(text)}\n```")
        else:
            raise ValueError(f"a cell of kind {cell['cell_type']!r} cannot be shown")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to a notebook lead to its page; in the repository they lead to the notebook."""
    return re.sub(r"\]\(((?!\w+://)[^)\s]+)\.ipynb\)", r"](\1.md)", markdown)


def on_config(config: Any) -> Any:
    """The navigation names a notebook by its own file; a page that it does not name stands under "More"."""
    docs = Path(config["docs_dir"])
    config["nav"] = nav = [_renamed(part) for part in config["nav"]]
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if left := sorted(there - set(_pages(nav))):
        nav.append({"More": left})
    return config


def _renamed(part: Any) -> Any:
    if isinstance(part, list):
        return [_renamed(p) for p in part]
    if isinstance(part, dict):
        return {key: _renamed(value) for key, value in part.items()}
    return re.sub(r"\.ipynb$", ".md", part)


def _pages(part: Any) -> Iterator[str]:
    """Every file that a navigation names."""
    if isinstance(part, str):
        yield part
    for below in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _pages(below)
