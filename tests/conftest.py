"""Shared fixtures. Real data is found through ICR_DATA_DIR or ../shared; tests skip with a reason
elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared() -> Path | None:
    candidates = [Path(os.environ["ICR_DATA_DIR"])] if os.environ.get("ICR_DATA_DIR") else []
    candidates += [ROOT.parent / "shared"]
    for path in candidates:
        for base in (path, path.parent):  # ICR_DATA_DIR may name the replica itself
            if (base / "replica").is_dir():
                return base
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real public data files (predictions, HotpotQA, novels ...)."""
    base = _shared()
    if base is None:
        pytest.skip("no real data: set ICR_DATA_DIR to a folder that holds replica/ and data/")
    return base / "data"


@pytest.fixture(scope="session")
def replica() -> Path:
    """Folder in the benchmarks' on-disk layout, filled with real public text."""
    base = _shared()
    if base is None:
        pytest.skip("no replica data: set ICR_DATA_DIR to a folder that holds replica/")
    return base / "replica"


@pytest.fixture(scope="session")
def official_loong(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with Loong's official questions and English filings under their official names."""
    import gzip
    import json

    root = tmp_path_factory.mktemp("official")
    folder = root / "loong" / "doc" / "financial"
    folder.mkdir(parents=True)
    source = shared_data / "loong"
    for part in sorted(source.glob("loong_financial_en_docs_*.jsonl.gz")):
        with gzip.open(part) as file:
            for record in map(json.loads, file):
                (folder / record["name"]).write_text(record["text"], encoding="utf-8", newline="")
    with gzip.open(source / "loong_1600_questions.jsonl.gz") as file:
        (root / "loong" / "loong.jsonl").write_bytes(file.read())
    return root


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated results tree of the board tests; read only."""
    import board_tree

    return board_tree.tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def board(tree: Path) -> Any:
    """Its board."""
    from icr_tasks.leaderboard.board.build import build
    from icr_tasks.leaderboard.board.tables import Options

    return build(tree, Options())


_WANTING = re.compile(r"could not import '([\w.]+)'|(?:^|\s)([\w-]+) is not installed")


def should_have_run(reason: str) -> str | None:
    """The package that a skip's reason says is absent although it is installed; None for any other reason."""
    for found in _WANTING.finditer(reason):
        name = (found[1] or found[2]).partition(".")[0].replace("-", "_")
        try:
            if importlib.util.find_spec(name) is not None:
                return name
        except (ImportError, ValueError):
            continue  # half a package: whatever is wrong with it, it cannot be found
    return None


def _skipped(session: pytest.Session) -> dict[str, str]:
    """Test or module -> why it was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter is not None else []
    return {
        r.nodeid: str(r.longrepr[2]).removeprefix("Skipped: ")
        for r in reports
        if isinstance(r.longrepr, tuple)
    }


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A test that was skipped for want of something that is installed is a test that should have run: the session
    fails."""
    if exitstatus == 0 and any(map(should_have_run, _skipped(session).values())):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Modules that were left out as a whole, and why: they leave no trace among the tests that passed. Then tests
    that should have run."""
    gone: dict[str, str] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if not isinstance(report.longrepr, tuple):
            continue
        why = str(report.longrepr[2]).removeprefix("Skipped: ")
        if "::" not in report.nodeid:
            gone[report.nodeid] = why
        if (name := should_have_run(why)) is not None:
            terminalreporter.write_line(
                f"{report.nodeid} should have run, {name} is installed: {why}", red=True
            )
    if gone:
        terminalreporter.section(f"{len(gone)} whole test modules were skipped")
        for module, why in sorted(gone.items()):
            terminalreporter.write_line(f"{module}: {why}")
