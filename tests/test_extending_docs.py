"""docs/extending.md shows the package that the tests install, word for word."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_shows_the_tested_files() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    for path in [*(ROOT / "tests/plugin/icr_codes").glob("*.py"), ROOT / "tests/plugin/pyproject.toml"]:
        assert path.read_text().rstrip() in page, path.name
