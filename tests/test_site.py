"""The docs site builds strictly without git and without network, shows everything, and asks nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import icr_tasks

ROOT = Path(__file__).resolve().parent.parent
# Any look-up of a name other than this machine's ends the build: a site that needs the network would fail here.
OFFLINE = """
import socket
def refuse(*names, **_):
    raise RuntimeError(f"the build asks the network: {names[:2]}")
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = lambda self, address: refuse(address)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy without git, with a home without caches."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    tree, home = folder / "tree", folder / "home"
    home.mkdir()
    for name in ("docs", ".ci", "icr_tasks", "leaderboard", "training"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tree / name)
    (folder / "sitecustomize.py").write_text(OFFLINE, encoding="utf-8")
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(folder), "NO_MKDOCS_2_WARNING": "1"}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-d",
        str(folder / "built"),
    ]  # -q would hide what strict counts
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "built"


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    docs = ROOT / "docs"
    wanted = {
        p.relative_to(docs).with_suffix(".html") for p in docs.rglob("*") if p.suffix in (".md", ".ipynb")
    }
    built = {p.relative_to(site) for p in site.rglob("*.html")}
    assert wanted <= built, wanted - built
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in wanted:  # the navigation reaches every page from the first one
        assert f'href="{page.as_posix()}"' in home or page.name == "index.html", page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(https?:)?//[^\"' >]+", text)
        linked = re.findall(
            r"<link[^>]*rel=[\"']?(?:stylesheet|preconnect|icon)[^>]*href=[\"']?https?://", text
        )
        assert not loaded and not linked, path
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?https?://", path.read_text(encoding="utf-8")), path


def test_the_reference_holds_every_public_name(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    modules = {"kv", "metrics", "prompts"}  # rooms whose parts extending.md shows
    for name in set(icr_tasks.__all__) - modules:
        if not name.startswith("_") and callable(getattr(icr_tasks, name)):
            assert re.search(rf">\s*icr\.{name}\s*<", text), name
    assert "language-pycon" in text or 'class="gp"' in text  # examples are code, not quotations
    assert "<blockquote>" not in text


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """That is what `strict` is for: shown on a site of one page with this site's own validation."""
    pytest.importorskip("mkdocs")
    import yaml

    lines = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    validation = yaml.safe_load(re.search(r"^validation:\n(?:  .*\n)+", lines, re.M).group())  # type: ignore[union-attr]
    for number, (wrong, said) in enumerate(
        (("[x](nowhere.md)", "nowhere.md"), ("[x](index.md#nothing)", "#nothing"))
    ):
        folder = tmp_path / str(number)
        (folder / "docs").mkdir(parents=True)
        (folder / "docs/index.md").write_text(f"# A\n\n{wrong}\n")
        config = {"site_name": "x", "theme": "material", "plugins": [], "nav": ["index.md"], **validation}
        (folder / "mkdocs.yml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and said in done.stderr, done.stderr


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / ".ci" / "site_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_notebook_is_shown_whole(hooks: ModuleType, site: Path) -> None:
    notebook = json.loads((ROOT / "docs/python.ipynb").read_text(encoding="utf-8"))
    text = hooks.page(notebook)
    for cell in notebook["cells"]:
        assert "".join(cell["source"]) in text
    cells = [{"cell_type": "code", "source": ["1 + 1"], "outputs": [{"data": {"text/plain": ["2"]}}]}]
    assert hooks.page({"cells": cells}) == "```python\n1 + 1\n```\n\n```text\n2\n```\n"
    cells[0]["outputs"] = [{"output_type": "display_data", "data": {"image/png": "x"}}]
    with pytest.raises(ValueError, match="display_data"):
        hooks.page({"cells": cells})
    with pytest.raises(ValueError, match="'raw'"):
        hooks.page({"cells": [{"cell_type": "raw", "source": []}]})


def test_study_files_that_the_paper_page_shows_are_accepted(tmp_path: Path) -> None:
    from icr_tasks.sweep import study

    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/paper.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 4
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        assert study.load(path).models


def test_a_page_that_the_navigation_forgets_can_be_reached(hooks: ModuleType, tmp_path: Path) -> None:
    for name in ("index.md", "a/deep.md", "new.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# X\n")
    nav = [{"Home": "index.md"}, {"A": ["a/deep.md", {"Book": "book.ipynb"}]}]
    done = hooks.on_config({"docs_dir": str(tmp_path), "nav": nav})["nav"]
    assert done == [{"Home": "index.md"}, {"A": ["a/deep.md", {"Book": "book.md"}]}, {"More": ["new.md"]}]
