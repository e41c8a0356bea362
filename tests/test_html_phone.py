"""board.html on a phone: no picture scrolls sideways, and nothing in one is cut off."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest
from test_html import made as made
from test_html import needs_browser

PHONE = """
const places = [...d.querySelectorAll(".chart")], found = [];
for (let k = 0; k < 200 && !places.every((p) => p.dataset.drawn); k++) await new Promise((go) => setTimeout(go, 50));
const note = (p) => {
  const all = [...p.querySelectorAll("svg text")].filter((t) => t.textContent.trim()), frame = p.querySelector("svg").getBoundingClientRect();
  const out = all.filter((t) => { const box = t.getBoundingClientRect(); return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1); });
  found.push({id: p.closest("figure").id, chart: p.dataset.chart, scrolls: p.scrollWidth > p.clientWidth + 1, out: out.map((t) => t.textContent), texts: all.map((t) => t.textContent)});
};
for (const place of places) {
  note(place);
  const select = place.parentNode.querySelector("select");
  for (const option of [...(select?.options ?? [])].slice(1)) {
    select.value = option.value; place.removeAttribute("data-drawn"); select.dispatchEvent(new w.Event("change"));
    for (let k = 0; k < 100 && !place.dataset.drawn; k++) await new Promise((go) => setTimeout(go, 50));
    note(place);
  }
}
return {found, page: d.documentElement.scrollWidth, width: d.documentElement.clientWidth};
"""


@needs_browser
@pytest.mark.parametrize("width", [320, 375, 600])
def test_on_a_phone_no_picture_scrolls_sideways(made: Path, width: int) -> None:
    seen, errors = browser.visit(made / "board.html", PHONE, width=width)
    assert errors == []
    assert seen["page"] <= seen["width"] == width
    assert {"picture-choice", "picture-drop", "picture-length"} <= {f["id"] for f in seen["found"]}
    assert [f["id"] for f in seen["found"] if f["scrolls"] or f["out"]] == []
    drop = next(f for f in seen["found"] if f["id"] == "picture-drop")
    assert any("[" in text for text in drop["texts"])  # names and numbers are still there
