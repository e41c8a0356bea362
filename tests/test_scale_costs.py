"""Costs before and after a run: measured rates are used, the documented tables are what the script makes."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from icr_tasks.cli import main
from icr_tasks.leaderboard.plan import Rates, measured
from icr_tasks.leaderboard.text.names import plain
from icr_tasks.sweep import cells, plan, planning
from icr_tasks.sweep import study as studies

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost_table", ROOT / "speed" / "cost_table.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["cost_table"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes(script: ModuleType) -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    assert script.MARKS[0] + script.text() + script.MARKS[1] in page, (
        "run: python speed/cost_table.py --write"
    )


def test_the_formula_by_hand(script: ModuleType) -> None:
    seven = script.MODELS[0]
    flop = 2 * 6.53e9 * 1000 + 2 * 28 * 3584 * 1000**2
    assert seven.prefill(1000) == pytest.approx(flop / (989e12 * 0.45))
    assert 8 < seven.prefill(131_072) < 12  # seconds of a 128k prompt on one H100
    assert seven.prefill(131_072) > 2 * seven.prefill(65_536)
    one = script.hours(seven, script.cells("icr_infbench"), sharing=False)
    assert 2 * script.hours(seven, script.cells("icr_infbench"), sharing=True) < one
    helmet = script.cells("icr_helmet_rag")
    assert script.hours(seven, helmet, sharing=True) == script.hours(seven, helmet, sharing=False)


def test_the_working_day(script: ModuleType) -> None:
    *_, cheapest, stopped = script.working_day()
    items, seen, hours = (float(c.strip().replace(",", "")) for c in cheapest.split("|")[2:5])
    assert seen <= 3.0 and hours <= 8.0 and items < 14_081
    assert float(stopped.split("|")[4]) < hours


def test_the_page_says_what_icr_plan_prints(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command in docs/scale.md, on a machine without the benchmarks' data."""
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, block, _, prints, _ = "\n".join(script.working_day()).split("```")
    command = shlex.split(block.replace("\\\n", " "))
    assert command[0] == "icr" and main(command[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = prints.strip().splitlines()
    assert len(lines) == 3 and all(line in printed for line in lines), printed
    items = lines[2].split(": ")[1].split(" items")[0].replace(" ", ",")
    assert f"| {items} |" in "\n".join(script.working_day()[-2:])


def test_a_window_cuts_prompts_and_is_said() -> None:
    whole, cut = (planning.plan("icr_infbench_qa", max_model_len=n) for n in (None, 131_072))
    asked, most = (made.costs["full"][0] for made in (whole, cut))
    assert asked > most == 131_072 * len(cut.cells[0].clusters)
    assert "prompts: at most 131 072 tokens" in plain(str(cut)) and "at most" not in str(whole)
    same = planning.plan("icr_helmet_rag_nq_4k", max_model_len=131_072)
    assert same.costs == planning.plan("icr_helmet_rag_nq_4k").costs


def test_rates_of_earlier_runs() -> None:
    timed = {
        "seconds": {"wall": 100.0, "prefill": 300.0, "decode": 100.0},
        "tokens": {"prompt": 7500, "output": 50},
    }
    made = measured([timed, {"seconds": {}, "tokens": {}}], Rates(hour=2.0))
    assert made is not None and (made.prefill, made.decode, made.hour) == (100.0, 2.0, 2.0)
    assert made.seconds(7500, 50) == pytest.approx(100.0)
    served = {"seconds": {"wall": 50.0}, "tokens": {"prompt": 1_000_000, "output": 1000}}
    scaled = measured([served], Rates())
    assert scaled is not None and scaled.seconds(1_000_000, 1000) == pytest.approx(50.0)
    assert measured([{"seconds": {"total": 3.0}, "tokens": {"prompt": 5}}], Rates()) is None


def test_a_dry_run_takes_the_rate_of_earlier_ledgers(tmp_path: Path) -> None:
    body = {
        "models": [{"name": "m", "model": "icr-api", "model_args": {"model": "M", "base_url": "http://a/v1"}}]
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**body, "tasks": ["icr_synth_rag_512"], "prompts": ["ao"], "limit": 4}))
    found = studies.load(path, tmp_path / "out")
    [cell] = cells.matrix(found)
    ledger = tmp_path / "results" / "m" / "full" / "f" / "run.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(json.dumps({"model": {"id": "M"}, "seconds": {"wall": 2.0}, "tokens": {"prompt": 500}}))
    assert plan._earlier(tmp_path / "results", [cell]) == {"m": 250.0}
    ledger.with_name("broken").mkdir()
    ledger.write_text("{")
    assert plan._earlier(tmp_path / "results", [cell]) == {}
    assert plan._earlier(None, [cell]) == {}
