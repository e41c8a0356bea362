"""One owner a decision: what stands once is found in one file, and nowhere a second time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for folder in ("icr_tasks", "leaderboard", "training")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# What -> (how a second one would look, the files that may have it, what to use instead).
ONCE = {
    "locks": (r"\bfcntl\b", ("icr_tasks/storage.py",), "storage.lock or storage.locked"),
    "cache folder": (r"environ[^\n]*XDG_CACHE_HOME", ("icr_tasks/storage.py",), "storage.cache_root"),
    "checksum of a file": (
        r"while \w+ := \w+\.read\([^\n]*\n\s+\w+\.update",
        ("icr_tasks/storage.py",),
        "storage.sha256",
    ),
    "whole writes": (
        r"\.with_name\(f?\"\.\{\w+\.name\}",
        ("icr_tasks/storage.py",),
        "storage.replacing or storage.write_atomic",
    ),
    "reading run.json": (r"def read_head", ("icr_tasks/schema.py",), "schema.read_head"),
    "run fingerprint": (
        r"not in \(\"gen_kwargs\", \"truncation\"\)",
        ("icr_tasks/schema.py",),
        "schema.run_fingerprint",
    ),
    "secrets in addresses": (r"def redact_url", ("icr_tasks/credentials.py",), "credentials.redact_url"),
    "readers of predictions": (
        r"get\(\"prediction\", record\.get\(\"pred\"\)\)",
        ("icr_tasks/benchmarks/predictions.py",),
        "benchmarks.predictions",
    ),
    "names of InfiniteBench's own tasks": (
        r"\"longbook_\w+_eng\": [\(\"]",
        ("icr_tasks/benchmarks/predictions.py",),
        "benchmarks.predictions",
    ),
    "token lengths": (r"\"k\": 1024", ("icr_tasks/params.py",), "params.parse_tokens"),
    "units of numbers": (
        r"\(1e9, \"G\"\)|\(1024\*\*3, \"GiB\"\)",
        ("leaderboard/text/names.py",),
        "leaderboard.text.names",
    ),
    "stand-in for a tokenizer": (
        r"continue_final_message=not add_generation_prompt",
        ("icr_tasks/context/tokens.py",),
        "context.tokens.Chat",
    ),
    "reading a server's list of models": (
        r"max_context_length|/models\{query\}",
        ("icr_tasks/listing.py",),
        "icr_tasks.listing",
    ),
    "continuing the final message": (
        r"\"continue_final_message\":",
        ("icr_tasks/listing.py",),
        "icr_tasks.listing.CONTINUE",
    ),
    "whether a template thinks": (
        r"\|reasoning_content\|",
        ("icr_tasks/context/thinking.py",),
        "context.thinking.by_default",
    ),
    "a task's name with a setting": (
        r"partition\(\"::\"\)",
        ("icr_tasks/setting_options.py",),
        "settings.split_task",
    ),
    "loop over stored answers": (
        r"store is not None and \"error\" not in",
        ("icr_tasks/engines/answers.py",),
        "engines.answers.through",
    ),
    "how an extra of this package is installed": (
        r"install [\w -]*['\"\\]*(icr-tasks|\.\[)",
        ("icr_tasks/errors.py",),
        "errors.install_hint",
    ),
    "lm-eval's output folders": (
        r"class Evaluation\b|samples_\{task\}_",
        ("icr_tasks/storage.py",),
        "storage.evaluations",
    ),
}


@pytest.mark.parametrize("what", ONCE)
def test_it_stands_once(what: str) -> None:
    pattern, owners, instead = ONCE[what]
    found = [str(path) for path, text in SOURCES.items() if re.search(pattern, text)]
    assert set(found) <= set(owners), f"{what} again in {sorted(set(found) - set(owners))}; use {instead}"
    assert found, f"nothing has {what} any more: mend the pattern of this test"


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]), ids=lambda p: p.name
)
def test_no_page_installs_from_an_index(path: Path) -> None:
    """Until the package is on one: a clone, or pip's own (git+). The release list names its own first command."""
    found = re.findall(r"install (?:--?[\w-]+ )*[\"']?icr-tasks[^\n`]*", path.read_text(encoding="utf-8"))
    assert [line for line in found if " @ git+" not in line and path.name != "releasing.md"] == []


def test_the_leaderboard_stands_on_low_rooms_alone() -> None:
    allowed = {"schema", "credentials", "storage", "errors", "registry", "settings"}
    for path, text in SOURCES.items():
        if path.parts[0] == "leaderboard":
            used = set(re.findall(r"^\s*from icr_tasks\.(\w+)", text, re.M)) - {"leaderboard"}
            assert used <= allowed, f"{path} imports icr_tasks.{', '.join(sorted(used - allowed))}"
