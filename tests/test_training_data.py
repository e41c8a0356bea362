"""The data stages from end to end on real HotpotQA and 2WikiMultihopQA records, through the command."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
pytest.importorskip("numba", reason="refinement is compiled with numba (extra [train])")
pytest.importorskip("bm25s", reason="retrieval here is bm25 (extra [rag])")
from fake_endpoint import FakeEndpoint

from icr_tasks import benchmarks
from icr_tasks.benchmarks import synth_latent, synth_order
from icr_tasks.cli import main
from icr_tasks.training.data import formats, read, store
from icr_tasks.training.data.pipeline import STAGES
from icr_tasks.training.rewards import Row, check, score


def run(*args: object) -> int:
    return main(["train", "data", *map(str, args)])


@pytest.fixture(scope="module")
def inputs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command-line arguments: 40 HotpotQA and 40 2Wiki records, and a corpus that holds their paragraphs once
    more."""
    folder = tmp_path_factory.mktemp("inputs")
    sources = {
        "hotpotqa": list(read.records(shared_data / "hotpotqa" / "hotpotqa_train_100.jsonl.gz"))[:40],
        "2wiki": list(read.records(shared_data / "2wikimultihopqa" / "2wiki_train_500.jsonl.gz"))[:40],
    }
    articles = {}
    for name, rows in sources.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
        for record in rows:
            articles |= {title: " ".join(sentences) for title, sentences in record["context"]}
    wiki = read.records(shared_data / "2wikimultihopqa" / "2wiki_hipporag_corpus_6119.jsonl.gz")
    articles |= {r["title"]: r["text"] for r, _ in zip(wiki, range(1500), strict=False)}
    (folder / "wiki.jsonl").write_text(
        "\n".join(json.dumps({"title": t, "text": x}) for t, x in articles.items())
    )
    files = ["--hotpotqa", str(folder / "hotpotqa.jsonl"), "--2wiki", str(folder / "2wiki.jsonl")]
    return [
        *files,
        "--corpus",
        str(folder / "wiki.jsonl"),
        "--tokenizer",
        "words",
        "--top-k",
        "40",
        "--tokens",
        "3000",
    ]


@pytest.fixture(scope="module")
def made(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert run(*inputs, "-o", folder) == 0
    return folder


def rows(folder: Path) -> list[store.Record]:
    return [r for name in ("train", "dev") for r in store.read(folder / f"{name}.parquet")]


def test_rows_are_complete_and_rewardable(made: Path) -> None:
    found = rows(made)
    assert len(found) == 80 and sum(1 for _ in store.read(made / "dev.parquet")) == 4
    for name, best in (("ao", 1), ("id", 2), ("idc", 3), ("idq", 3)):
        assert check(found, name) == 80
        targets = [formats.target(r, name) for r in found]
        earned = [s["reward"] for s in score(name, targets, [Row.of(r) for r in found])]
        assert sum(e == best for e in earned) >= 78, name  # quotes of five words at least
    for row in found:
        assert row["n_tokens"] <= 3000 and len(row["passages"]) > 10
        asked = formats.messages(row, "id")[-1]["content"]
        assert all(f"[DOC {i}]\n{d}" in asked for i, d in zip(row["gold_ids"], row["gold_docs"], strict=True))


def test_the_corpus_copies_of_the_gold_are_gone(made: Path) -> None:
    counts = store.Manifest.load(made).stages["dedupe"]["counts"]
    assert counts["dropped: repeats gold"] > 60
    for row in rows(made):
        gold = set(row["gold_docs"])
        assert not any(d in gold for i, d in enumerate(row["passages"]) if i not in row["gold_ids"])


def test_a_second_run_does_nothing_and_a_change_only_what_follows(
    made: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in made.glob("*.parquet")}
    digest = store.Manifest.load(made).hash()
    assert run(*inputs, "-o", made) == 0
    assert capsys.readouterr().out.count("as before") == len(STAGES)
    assert {p.name: p.stat().st_mtime_ns for p in made.glob("*.parquet")} == before
    (made / "packed.parquet").unlink()
    assert run(*inputs, "-o", made) == 0
    assert (
        capsys.readouterr().out.count("as before") == len(STAGES) - 1
    )  # the same bytes again: nothing after it
    assert store.Manifest.load(made).hash() == digest
    assert run(*inputs, "--threshold", 0.5, "-o", made, "--until", "refine") == 0
    out = capsys.readouterr().out
    assert out.count("as before") == 4 and out.splitlines()[-1].startswith("refine")
    assert run(*inputs, "-o", made) == 0
    assert store.Manifest.load(made).hash() == digest


def test_manifest_and_report_add_up(made: Path) -> None:
    body = json.loads((made / "manifest.json").read_text())
    for entry in body["stages"].values():
        for name, file in entry["files"].items():
            assert store.sha256(made / name) == file["sha256"]
            assert sum(1 for _ in store.read(made / name)) == file["rows"]
    report = json.loads((made / "report.json").read_text())
    assert report["rows"] == 80 and report["gold positions"]["p_uniform"] > 0.001
    assert sum(report["gold positions"]["bins"]) == sum(len(r["gold_ids"]) for r in rows(made))
    assert 0.35 < report["P(gold longer than another passage)"] < 0.65
    assert "| refine |" in (made / "report.md").read_text()


def test_stages_can_be_looked_at(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--show", "dedupe", "-o", made, "--rows", 1) == 0
    out = capsys.readouterr().out
    assert "pool.parquet: 80 rows" in out and "negatives: [" in out
    assert run("--show", "dedup", "-o", made) == 2
    assert "Did you mean 'dedupe'" in capsys.readouterr().err


def test_the_judge_decides_and_an_interrupted_stage_goes_on(
    made: Path, inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="the judge client needs openai (extra [judge])")
    judged = [*inputs, "--threshold", 0.05, "--judge-model", "m", "-o", tmp_path]
    asked_before_the_fault = 5

    def fault(prompt: str, nth: int):  # type: ignore[no-untyped-def]
        return (401, "{}", {}) if server.calls > asked_before_the_fault else None

    with FakeEndpoint(lambda prompt: "Relevant documents: [DOC 1], [DOC 99]", fault=fault) as server:
        address = server.url.replace("http://", "http://me:hunter22@")
        assert run(*judged, "--judge-base-url", address) == 3
        assert "refuses the key" in capsys.readouterr().err and not (tmp_path / "judged.parquet").exists()
        server.fault = lambda prompt, nth: None
        # calls run side by side, so the store says which replies arrived before the fault
        with sqlite3.connect(tmp_path / "judge.sqlite") as kept:
            (arrived,) = kept.execute(
                "SELECT COUNT(DISTINCT key) FROM replies WHERE status = 'ok'"
            ).fetchone()
        assert arrived > 0
        server.prompts.clear()
        assert run(*judged, "--judge-base-url", address) == 0
        asked_again = len(set(server.prompts))
        with sqlite3.connect(tmp_path / "judge.sqlite") as kept:
            (total,) = kept.execute("SELECT COUNT(DISTINCT key) FROM replies WHERE status = 'ok'").fetchone()
        assert asked_again == total - arrived
    counts = store.Manifest.load(tmp_path).stages["judge"]["counts"]
    offered = counts["rows judged"]
    assert counts["promoted"] == counts["ids never offered"] == offered > 20
    found = rows(tmp_path)
    assert sum(len(r["gold_ids"]) - len(r["original_ids"]) for r in found) == offered
    assert "hunter22" not in (tmp_path / "manifest.json").read_text()


def test_modes_of_the_paper_and_its_code(inputs: list[str], tmp_path: Path) -> None:
    small = [*inputs, "--top-k", 15, "--until", "split"]
    assert (
        run(*small, "--mode", "paper", "--unjudged", "drop", "--tokens", 9000, "-o", tmp_path / "paper") == 0
    )
    stages = store.Manifest.load(tmp_path / "paper").stages
    assert stages["refine"]["counts"]["candidates"] > 0.6 * 80 * 10  # character F1 promotes nearly everything
    assert (
        run(*small, "--mode", "paper_code", "--tokens", 9000, "--min-tokens", 0, "-o", tmp_path / "code") == 0
    )
    packed = list(store.read(tmp_path / "code" / "packed.parquet"))
    sets = [r["dataset"] for r in packed]
    assert sets == sorted(sets, reverse=True)  # HotpotQA first, then 2Wiki
    gold = [len(d.split()) for r in packed for d in r["gold_docs"][: len(r["original_ids"])]]
    rest = [len(p.split()) for r in packed for i, p in enumerate(r["passages"]) if i not in r["gold_ids"]]
    assert sum(gold) / len(gold) < sum(rest) / len(rest)  # sentences among passages: length gives them away


def test_bad_input_ends_with_one_line(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("treshold: 0.3\n")
    for args, message in (
        (["--config", tmp_path / "c.yaml"], "Did you mean 'threshold'"),
        ([*inputs, "--hotpotqa", "missing.json"], "no file missing.json"),
        ([*inputs, "--judge-base-url", "http://x/v1"], "judge_model is missing"),
        ([*inputs, "--tokenizer", tmp_path / "none"], "cannot load tokenizer"),
        ([*inputs, "--corpus", "missing"], "no corpus file missing"),
        ([*inputs, "--until", "refin"], "Did you mean 'refine'"),
        (["--synth", 10, "--length", "3k"], "unknown synth length"),
        (["--synth", 10, "--domain", "biografy"], "Did you mean 'biography'"),
        (["--synth", 10, "--family", "latnt", "--length", "1k"], "Did you mean 'latent'"),
        (["--synth", 10, "--family", "order", "--length", "1k"], "unknown synth length"),
        (["--synth", 10, "--family", "latent", "--domain", "arts"], "only the family rag has domains"),
        ([*inputs, "--tokens", 100], "no row is left after packing"),
    ):
        assert run(*args, "-o", tmp_path / "o") == 2, args
        err = capsys.readouterr().err
        said = err[err.index("icr: error: ") :]  # a slow machine shows progress before
        assert message in said and "Traceback" not in err, err
        assert (
            "packing" in message or not (tmp_path / "o" / "hits.parquet").exists()
        )  # before anything takes long


def test_synth_rows_share_no_name_with_the_test_split(tmp_path: Path) -> None:
    assert run("--synth", 60, "--length", "512,1k", "-o", tmp_path) == 0
    found = rows(tmp_path)
    assert len(found) == 60 and {len(r["passages"]) for r in found} == {2, 5}
    assert check(found, "idc") == 60
    digest = store.Manifest.load(tmp_path).hash()
    assert run("--synth", 60, "--length", "512,1k", "-o", tmp_path) == 0
    assert store.Manifest.load(tmp_path).hash() == digest
    assert run("--synth", 60, "--length", "512,1k", "--seed", 1, "-o", tmp_path) == 0
    assert store.Manifest.load(tmp_path).hash() != digest


def test_synth_rows_of_the_other_families(tmp_path: Path) -> None:
    assert run("--synth", 40, "--length", "4k", "--family", "latent,order", "-o", tmp_path) == 0
    found = rows(tmp_path)
    assert {r["dataset"] for r in found} == {"synth_latent", "synth_order"} and len(found) == 40
    for name in ("latent", "order"):
        test = {i.answers[0] for i in benchmarks.load(f"synth_{name}", "all", "4k").items}
        mine = {r["answers"][0] for r in found if r["dataset"] == f"synth_{name}"}
        assert not {a for a in test & mine if not a.isdigit()}  # no name of one stands in the other
    for row in found:
        gold = [row["passages"][i] for i in row["gold_ids"]]
        solve = synth_order.solve if row["dataset"] == "synth_order" else synth_latent.solve
        assert solve(row["question"], gold) == row["answers"][0]


def test_two_processes_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with store.alone(tmp_path):
        assert run("--synth", 10, "-o", tmp_path) == 2
    assert "another `icr train data`" in capsys.readouterr().err
