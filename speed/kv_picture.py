"""The picture of docs/kv.md from the rows of docs/kv_tables.md: next tokens that stay what full attention gives, against bytes
read a step; the colour says how many bytes are stored.

    python speed/kv_picture.py            # writes docs/pictures/kv.svg (needs the extra [board])
"""

from __future__ import annotations

import re
from pathlib import Path

from icr_tasks.leaderboard import plots

DOCS = Path(__file__).resolve().parent.parent / "docs"
PICTURE = DOCS / "pictures" / "kv.svg"
_LENGTH = "4k"
_SHARE = re.compile(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)")


def dots(text: str) -> list[plots.Dot]:
    """One dot a row of the fidelity table at 4k."""
    found = []
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) != 10 or cells[0] != _LENGTH:
            continue
        mean, low, high = (100 * float(x) for x in _SHARE.fullmatch(cells[8]).groups())  # type: ignore[union-attr]
        stored = round(float(cells[3].rstrip("%")))
        name = cells[1].strip("`").removeprefix("kv:").replace(",update=256", "")
        kind = "stores everything" if stored == 100 else f"stores {stored} %"
        found.append(plots.Dot(name, kind, float(cells[5].rstrip("%")), mean, low, high))
    return found


def chart(text: str) -> plots.Chart:
    """The picture of a table's text."""
    return plots.pareto(
        "What a compressed cache keeps, at 4k tokens",
        dots(text),
        x_label="bytes read a step, % of full attention",
        y_label="next tokens as under full attention, %",
    )


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(chart((DOCS / "kv_tables.md").read_text(encoding="utf-8")).svg(), encoding="utf-8")
    print(PICTURE)
