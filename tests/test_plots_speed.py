"""What makes drawing faster changes nothing that is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
import vl_convert
from altair.utils import schemapi
from test_plots import some

from icr_tasks.leaderboard.plots import chart, config, theme

FRAMES = [import_module(f"icr_tasks.leaderboard.plots.{name}")._drawn for name in ("curve", "heat", "matrix")]


def forget() -> None:
    for drawn in FRAMES:
        drawn.cache_clear()


@pytest.fixture(autouse=True)
def no_frames() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.mark.parametrize("shape", some("x"))
def test_one_table_of_classes_gives_the_same_chart(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, made = schemapi._FromDict, 0

    class Counted(table):  # type: ignore[misc, valid-type]
        def __init__(self, classes: object) -> None:
            nonlocal made
            made += 1
            super().__init__(classes)

    monkeypatch.setattr(schemapi, "_FromDict", Counted)
    fast = some("x")[shape]()
    few = made
    assert schemapi._FromDict is Counted and few <= 2
    monkeypatch.setattr(chart, "_table_once", nullcontext)
    forget()
    assert some("x")[shape]().spec == fast.spec and made > few + 3


@pytest.mark.parametrize("shape", some("x"))
def test_charts_of_one_frame_are_composed_once_and_the_same(shape: str) -> None:
    first = some("x")[shape]()
    composed = sum(drawn.cache_info().misses for drawn in FRAMES)
    assert composed == (shape in ("curve", "band", "heat", "matrix"))
    again = some("x")[shape]()
    assert sum(drawn.cache_info().misses for drawn in FRAMES) == composed and again.spec == first.spec
    forget()
    assert some("x")[shape]().spec == first.spec


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("shape", some("x"))
def test_a_painted_picture_is_the_one_drawn_in_the_theme(shape: str, dark: bool) -> None:
    made = some("x")[shape]()
    drawn = vl_convert.vegalite_to_svg(made.spec | {"config": config(dark)})
    painted = made.svg(dark=dark)
    assert painted.split("</desc>")[1].strip() == drawn.split(">", 1)[1].strip()
    assert not theme._BLANKS.search(painted)


def test_the_scripts_are_made_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(
        vl_convert, "javascript_bundle", lambda snippet: asked.append(snippet) or "a </script b"
    )
    make = chart.bundle.__wrapped__
    first = make()
    assert first == "(() => {a <\\/script b\n})();" == make() and len(asked) == 1
    (kept,) = (tmp_path / "icr-tasks" / "vega").iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])  # a damaged file is made again
    assert make() == first and len(asked) == 2
    assert make() == first and len(asked) == 2
