"""icr publish: a static folder whose links all lead somewhere, refused where icr check finds a problem."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import board_tree
import browser
import pytest
import yaml

from icr_tasks.cli import COMMANDS, main
from icr_tasks.schema import run_fingerprint

HOSTILE = "<script>alert(1)</script>|`\"'&{{js}}"


def run(root: Path, model: str, setting: str = "full", datasets: tuple[str, ...] = ("nq",)) -> Path:
    """A run in which `icr check` finds nothing."""

    def change(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        head["fingerprint"] = run_fingerprint(head["fingerprint_inputs"])

    return board_tree.run(root, model, setting, datasets=datasets, change=change)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "results"
    for setting in ("full", "rag@4k"):
        run(root, "org/a", setting, ("nq", "mc"))
    run(root, HOSTILE)
    return root


@pytest.fixture(scope="module")
def site(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("site")
    assert main(["publish", str(results), "--to", str(to)]) == 0
    return to


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = [*site.glob("*.html"), *(site / "runs").glob("*.html")]
    assert len(pages) == 2 + 1 + 3 and (site / ".nojekyll").exists()
    for page in pages:
        text = page.read_text()
        links = re.findall(r'<a href="([^"]*)"', text)
        assert links
        for link in links:
            if link.startswith("#"):
                assert f'id="{link[1:]}"' in text, link
            else:
                assert (page.parent / link).is_file(), link
        assert HOSTILE not in text


def test_a_page_of_a_run_says_what_ran_and_what_it_scored(site: Path, results: Path) -> None:
    [page] = [p for p in (site / "runs").glob("org_a-*.html") if "rag@4k" in p.read_text()]
    text = page.read_text()
    mean = board_tree.scores(results, "org/a", "rag@4k", "icr_helmet_rag_nq_4k").values()
    assert f"{100 * sum(mean) / len(mean):.1f} ±" in text and "60 of 60" in text and "bfloat16" in text


def test_data_are_there(site: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    items = pandas.read_parquet(site / "data" / "items.parquet")
    assert set(items["model"]) == {"org/a", HOSTILE}
    assert len(json.loads((site / "board.json").read_text())["rows"]) == 3


def test_the_next_call_says_what_changed_and_removes_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    root, to = tmp_path / "r", tmp_path / "site"
    gone = run(root, "org/gone")
    run(root, "org/stays")
    assert main(["publish", str(root), "--to", str(to)]) == 0
    assert capsys.readouterr().out == ""
    (to / "CNAME").write_text("board.example.org\n")
    shutil.rmtree(gone.parent.parent)
    run(root, "org/new")
    assert main(["publish", str(root), "--to", str(to)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [s for s in said if s.startswith("new: org/new")] and [
        s for s in said if s.startswith("gone: org/gone")
    ]
    pages = [p.name for p in (to / "runs").iterdir()]
    assert not any("gone" in p for p in pages) and any("new" in p for p in pages) and (to / "CNAME").exists()
    assert "gone" in (to / "changes.md").read_text()
    assert main(["publish", str(root), "--to", str(to)]) == 0 and capsys.readouterr().out == ""


def test_a_tree_with_a_problem_is_not_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "r", "org/a")
    head = json.loads((folder / "run.json").read_text())
    head["tasks"]["icr_helmet_rag_nq_4k"]["n_scored"] = 7
    (folder / "run.json").write_text(json.dumps(head))
    assert main(["check", str(tmp_path / "r")]) == 1
    capsys.readouterr()
    assert main(["publish", str(tmp_path / "r"), "--to", str(tmp_path / "site")]) == 2
    assert "icr check" in capsys.readouterr().err and not (tmp_path / "site").exists()


def test_a_file_is_no_site(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert main(["publish", str(results), "--to", str(tmp_path / "README.md")]) == 2
    said = capsys.readouterr().err
    assert "is a file; name a folder" in said and "delete" not in said
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_page_of_somebody_else_is_not_replaced(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.html").write_text("mine")
    assert main(["publish", str(results), "--to", str(tmp_path)]) == 2
    assert "index.html is not of an earlier call" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    (tmp_path / "index.html").unlink()
    for _ in range(2):  # its own it replaces
        assert main(["publish", str(results), "--to", str(tmp_path)]) == 0


def test_the_workflows_of_the_docs_are_whole() -> None:
    """Two YAML files: one tests a pull request with icr check, the other publishes; their icr commands are real."""
    text = (Path(__file__).parent.parent / "docs" / "publish.md").read_text(encoding="utf-8")
    flows = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    assert len(flows) == 2
    commands = [
        step["run"]
        for flow in flows
        for job in flow["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    ours = [command.split() for command in commands if command.startswith("icr ")]
    assert [words[1] for words in ours] == ["check", "board", "publish"] and all(
        w[1] in COMMANDS for w in ours
    )
    assert all("timeout-minutes" in job for flow in flows for job in flow["jobs"].values())
    assert not re.search(r"secrets\.", text)


@pytest.mark.skipif(browser.binary() is None, reason="no Chromium on PATH (CHROMIUM names another)")
def test_the_site_opens_in_a_browser(site: Path) -> None:
    script = "return {tables: d.querySelectorAll('table').length, links: [...d.querySelectorAll('nav a')].map((a) => a.textContent)};"
    found, errors = browser.visit(site / "index.html", script)
    assert errors == [] and found["tables"] > 3 and "Runs" in found["links"]
    for page in (site / "runs").glob("*.html"):
        if not page.name.startswith("harness"):
            found, errors = browser.visit(page, script)
            assert errors == [] and found["tables"] == 1
