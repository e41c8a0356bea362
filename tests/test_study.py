"""The study in results/: its board comes from its ledgers byte for byte, its claims from its pairs, and nothing but
scores and hashes is in the ledgers."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from icr_tasks.cli import main
from icr_tasks.leaderboard.board.build import build
from icr_tasks.leaderboard.board.tables import Options
from icr_tasks.leaderboard.ledgers import load
from icr_tasks.leaderboard.pairs import joined
from icr_tasks.leaderboard.stats import Effect, holm
from icr_tasks.sweep import cells, study

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, BOARD = ROOT / "results", ROOT / "docs" / "study.md", ROOT / "docs" / "study"
# (what is expected to be higher, than what, over which lengths)
CLAIMS = (
    ("rag@512", "rag@512,random", ("1k", "2k", "4k")),
    ("gold@only", "full", ("512", "1k", "2k", "4k")),
    ("kv:topk@0.05", "kv:page@0.05", ("2k", "4k")),
)


def run_of(setting: str) -> load.Run:
    """The run of the study under a setting and the prompt of its claims."""
    heads = {path: json.loads(path.read_text()) for path in RESULTS.rglob("run.json")}
    [folder] = [p.parent for p, h in heads.items() if (h["setting"]["text"], h["prompt"]) == (setting, "ao")]
    return load.load_run(folder)


def effect(new: str, base: str, lengths: tuple[str, ...]) -> Effect:
    """The paired difference over some lengths that both have."""
    pairs = joined.pair(run_of(base), run_of(new), common=True, axis="setting")
    assert not pairs.refusals, pairs.refusals
    at = np.isin(pairs.length, lengths) & (pairs.benchmark == "synth")
    assert set(pairs.length[at]) == set(lengths)
    return pairs.design(at).effect(pairs.new[at] - pairs.base[at], same=pairs.same[at])


def test_the_board_is_that_of_the_ledgers(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    assert main(["board", str(RESULTS), "-o", str(tmp_path)]) == 0
    made = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix in (".md", ".svg")}
    assert {p.name: p.read_bytes() for p in BOARD.iterdir()} == made


def test_the_sentence_is_on_the_page_and_in_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    found = build(RESULTS, Options()).advice
    assert [a.benchmark for a in found] == ["synth", "synth_latent", "synth"]
    assert main(["board", str(RESULTS), "--view", "use"]) == 0
    shown = capsys.readouterr().out.replace("&#64;", "@")
    for advice in found:
        assert advice.sentence in PAGE.read_text(encoding="utf-8")
        assert advice.sentence.lower() in shown.lower()


def test_the_claims_are_decided_as_the_page_says() -> None:
    found = [effect(*claim) for claim in CLAIMS]
    # one-sided: new above base
    adjusted = holm([1 - e.p_less for e in found])
    page = PAGE.read_text(encoding="utf-8")
    for (new, base, _), e, p in zip(CLAIMS, found, adjusted, strict=True):
        mean, low, high = e.in_points()
        row = next(line for line in page.splitlines() if f"`{new}` above `{base}`" in line)
        assert f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" in row.replace("−", "-"), (row, mean, low, high)
        assert f"{e.n} items, {e.clusters} questions" in row
        assert ("holds" in row) == (p < 0.05) and f"{p:.4f}" in row.replace("< 0.0001", "0.0000"), (row, p)


def test_the_page_s_comparison_is_of_what_lies_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are named so that one each is found, whatever was added to the folder."""
    monkeypatch.chdir(ROOT)
    [line] = re.findall(r"^icr (compare .*?)  ", PAGE.read_text(encoding="utf-8"), re.M)
    assert main(line.split()) == 0
    assert (
        f"{run_of('full').label}" in (said := capsys.readouterr().out) and run_of("gold@only").label in said
    )


def test_ledgers_hold_scores_and_hashes_and_no_text() -> None:
    known = {"task", "item", "occ", "cluster", "keys", "score", "n_prompt_tokens", "n_out_tokens"}
    known |= {"truncated", "gold_kept", "resp_hash", "prompt_hash", "target_hash", "error", "kv"}
    known |= {"unfinished", "retrieval"}
    size = 0
    for path in sorted(RESULTS.rglob("*")):
        assert path.is_dir() or path.name in ("study.yaml", "run.json", "items.jsonl.gz"), path
        size += path.stat().st_size if path.is_file() else 0
        if path.name == "items.jsonl.gz":
            for row in map(json.loads, gzip.decompress(path.read_bytes()).splitlines()):
                assert set(row) <= known, set(row) - known
                assert not [v for v in texts(row) if " " in v], row
    assert size + sum(p.stat().st_size for p in BOARD.iterdir()) < 2_000_000


def texts(value: Any) -> list[str]:
    """All strings in a value."""
    if isinstance(value, dict):
        return [t for v in value.values() for t in texts(v)]
    if isinstance(value, list):
        return [t for v in value for t in texts(v)]
    return [value] if isinstance(value, str) else []


def test_no_path_of_a_machine_is_in_the_results() -> None:
    for path in [*RESULTS.rglob("run.json"), *BOARD.iterdir(), RESULTS / "study.yaml"]:
        assert not re.search(r"/(?:home|root|tmp|work|Users|opt)/", path.read_text(encoding="utf-8")), path


def test_what_was_run_is_what_the_file_says() -> None:
    text = (RESULTS / "study.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)) == {"out", "prompts", "limit", "gen_kwargs", "models"}
    matrix = cells.matrix(study.load(RESULTS / "study.yaml"))
    planned = {(c.setting, c.prompt, c.task): c.limit for c in matrix if c.model.startswith("run-")}
    heads = [json.loads(path.read_text()) for path in RESULTS.rglob("run.json")]
    ran = {
        (head["setting"]["text"], head["prompt"], name): task["n_scored"]
        for head in heads
        for name, task in head["tasks"].items()
    }
    assert ran == planned
    for word in ("icr_synth_latent", "icr_synth_order", "icr_helmet_rag", "icr_synth_rag_8k", "[id]"):
        assert word in text.split("# ---- not run")[1]
