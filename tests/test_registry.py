"""Registries, parameters declared as data, and plugins that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from icr_tasks import plugins
from icr_tasks.errors import IcrError, unknown
from icr_tasks.params import Flag, Name, Number, Param, Tokens, Whole, Word, check_params
from icr_tasks.registry import Registry

PARAMS: dict[str, Param] = {
    "sink": Whole(4),
    "kernel": Whole(5, low=1, odd=True),
    "share": Number(0.5, low=0, high=1),
    "chunk": Tokens(2048, low=1),
    "instruction": Flag(True),
    "order": Word("score", words=("score", "document")),
    "embedder": Name("model"),
}


@pytest.fixture
def cheeses(monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    monkeypatch.setattr(plugins, "watched", [])
    monkeypatch.setattr(plugins, "_found", {})
    monkeypatch.setattr(plugins, "_failed", {})
    return Registry("cheese")


def test_values_are_parsed_in_declared_order() -> None:
    given = {
        "embedder": "a/b",
        "order": "document",
        "instruction": "off",
        "chunk": "4k",
        "share": ".25",
        "kernel": 7,
        "sink": "0",
    }
    found = check_params("kv method x", PARAMS, given)
    assert list(found.items()) == [
        ("sink", 0),
        ("kernel", 7),
        ("share", 0.25),
        ("chunk", 4096),
        ("instruction", False),
        ("order", "document"),
        ("embedder", "a/b"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sinks", 1, "Did you mean 'sink'"),
        ("sink", -1, "whole number >= 0"),
        ("sink", True, "whole number"),
        ("sink", "1.5", "whole number"),
        ("kernel", 4, "must be odd"),
        ("share", 1.01, "between 0 and 1"),
        ("share", "nan", "must be a number"),
        ("share", "inf", "must be a number"),
        ("chunk", "4g", "whole number"),
        ("instruction", "maybe", "on or off"),
        ("order", "documnt", "Did you mean 'document'"),
        ("embedder", "a,b", "without commas"),
        ("embedder", 3, "without commas"),
    ],
)
def test_a_bad_value_is_named(name: str, value: Any, said: str) -> None:
    with pytest.raises(IcrError, match=said):
        check_params("kv method x", PARAMS, {name: value})


def test_register_get_and_nearest_name(cheeses: Registry[Any]) -> None:
    @cheeses.register("gouda", params={"months": Whole(6, low=1)}, hard=True)
    def gouda() -> None: ...

    entry = cheeses.get("gouda")
    assert entry.target is gouda and entry.defaults == {"months": 6} and entry.facts == {"hard": True}
    assert list(cheeses) == ["gouda"] and "gouda" in cheeses and "brie" not in cheeses and len(cheeses) == 1
    with pytest.raises(IcrError, match="unknown cheese 'gouba'. Did you mean 'gouda'"):
        cheeses.get("gouba")
    with pytest.raises(IcrError, match="cheese gouda parameter 'month'. Did you mean 'months'"):
        entry.check({"month": 3})


def test_of_many_known_names_the_nearest_are_shown() -> None:
    """Two hundred names after the hint would hide it; a name that stands in two lists is shown once."""
    many = [f"icr_task_{n}" for n in range(200)]
    said = str(unknown("task", "icr_task_1999", many))
    assert "Did you mean 'icr_task_199'" in said and "and 192 more" in said and len(said) < 300
    assert str(unknown("task", "zzz", many)).endswith("and 170 more")
    assert str(unknown("engine", "vlm", ["vllm", "hf", "vllm"])).endswith("Known: hf, vllm")


def test_a_name_is_taken_once(cheeses: Registry[Any]) -> None:
    cheeses.add("gouda", object())
    with (
        pytest.raises(IcrError, match="registered twice, by icr-tasks itself and by other 1.0"),
        plugins.registering("other 1.0"),
    ):
        cheeses.add("gouda", object())
    with pytest.raises(IcrError, match="letters, digits"):
        cheeses.add("blue cheese", object())
    with pytest.raises(IcrError, match="declared as data"):
        cheeses.add("brie", object(), params={"months": 3})  # type: ignore[dict-item]


def test_a_plugin_that_raises_leaves_nothing_behind(cheeses: Registry[Any]) -> None:
    with pytest.raises(ZeroDivisionError), plugins.registering("broken 1.0"):
        cheeses.add("brie", object())
        raise ZeroDivisionError
    assert "brie" not in cheeses
    with plugins.registering("whole 1.0"):
        cheeses.add("brie", object())
    assert cheeses.get("brie").origin == "whole 1.0"


class Installed:
    """Entry points as installed packages would declare them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.points = folder, []  # type: ignore[var-annotated]
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(plugins, "_found", None)
        monkeypatch.setattr(metadata, "entry_points", lambda group: list(self.points))

    def add(self, name: str, source: str) -> None:
        (self.folder / f"plug_{name}.py").write_text(source)
        self.points.append(metadata.EntryPoint(name, f"plug_{name}", plugins.GROUP))
        sys.modules.pop(f"plug_{name}", None)


@pytest.fixture
def installed(cheeses: Registry[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    found = Installed(tmp_path, monkeypatch)
    found.add("good", "from icr_tasks import plugins as r\nr.watched[0].add('feta', len)\n")
    found.add(
        "typo",
        "from icr_tasks import plugins as r\nr.watched[0].add('brie', len)\nimport no_such_module\n",
    )
    return found


def test_plugins_are_imported_before_a_name_is_resolved(
    cheeses: Registry[Any], installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    assert "feta" in cheeses and cheeses.get("feta").origin == "plug_good"
    assert list(plugins.load()) == ["good"] and "no_such_module" in plugins.failed()["typo"]
    assert [r.message for r in caplog.records].count(
        "plugin 'typo' is not used: ModuleNotFoundError: No module named 'no_such_module'"
    ) == 1
    with pytest.raises(IcrError, match=r"unknown cheese 'brie'.*plugin 'typo' could not be loaded"):
        cheeses.get("brie")


def test_icr_plugins_limits_what_is_imported(
    cheeses: Registry[Any], installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICR_PLUGINS", "off")
    assert "feta" not in cheeses and plugins.load() == {} and "plug_good" not in sys.modules
    monkeypatch.setattr(plugins, "_found", None)
    monkeypatch.setenv("ICR_PLUGINS", "good,absent")
    assert "feta" in cheeses and list(plugins.load()) == ["good"]
    assert "no installed package declares it" in plugins.failed()["absent"]
    assert "typo" not in plugins.failed()


def test_the_order_does_not_depend_on_what_was_imported_first():
    """Every group and table follows it."""
    code = (
        "import sys; [__import__(m) for m in sys.argv[1:]]\n"
        "from icr_tasks import registry as r\n"
        "from icr_tasks.benchmarks.declare import all_benchmarks\n"
        "kinds = (r.METRICS, r.KV_METHODS, r.RETRIEVERS, r.ROUTES, r.VIEWS, r.EXPORTS)\n"
        "print([b.name for b in all_benchmarks()], [list(kind) for kind in kinds])\n"
    )
    late = ["icr_tasks.benchmarks.synth_order", "icr_tasks.kv.topk", "icr_tasks.leaderboard.board.views.use"]
    orders = {
        subprocess.run(
            [sys.executable, "-P", "-c", code, *first], check=True, capture_output=True, text=True
        ).stdout
        for first in ([], late, [*reversed(late)])
    }
    assert len(orders) == 1
