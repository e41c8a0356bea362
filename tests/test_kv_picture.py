"""The picture of docs/kv.md is that of the table beside it."""

from __future__ import annotations

import html
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "speed"))
pytest.importorskip("altair", reason="pictures need the extra [board]")

import kv_picture  # noqa: E402


def test_the_picture_is_that_of_the_table() -> None:
    text = (ROOT / "docs" / "kv_tables.md").read_text(encoding="utf-8")
    assert len(kv_picture.dots(text)) > 15
    drawn = html.unescape(kv_picture.PICTURE.read_text(encoding="utf-8"))
    assert kv_picture.chart(text).words in drawn, "run python speed/kv_picture.py"
    assert "pictures/kv.svg" in (ROOT / "docs" / "kv.md").read_text(encoding="utf-8")
