"""Shards: the same division everywhere, ledgers of one process whatever was killed or late, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.cli import main
from icr_tasks.engines.answers import AnswerStore
from icr_tasks.errors import IcrError
from icr_tasks.harness import run
from icr_tasks.sweep import records, shards
from icr_tasks.sweep import study as studies
from icr_tasks.sweep.shards import Shard

N = 8
TOY = {"name": "toy", "model": "counting", "model_args": {"pretrained": "counting", "tokenizer": "none"}}
OTHER = {**TOY, "name": "another", "model_args": {**TOY["model_args"], "pretrained": "another"}}


def study(folder: Path, **changes: Any) -> Path:
    body = {
        "imports": ["sweep_models"],
        "models": [{**TOY, "in_flight": 1}],
        "prompts": ["ao"],
        "settings": ["full"],
        "tasks": ["icr_synth_rag_512"],
        "limit": 20,
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def shard(path: Path, out: Path, i: int, n: int = N, before: Any = lambda: None) -> int:
    log = out.with_name(f"{out.name}.{i}of{n}.log")
    return faults.child(path, out, "--shard", f"{i}/{n}", before=before, log=log)


@pytest.fixture(scope="module", autouse=True)
def ready() -> None:
    import sweep_models  # noqa: F401  (before the forks)

    run.environment()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COUNTING_LOG", str(tmp_path / "calls"))

    def read() -> list[str]:
        path = tmp_path / "calls"
        return [line.split()[-1] for line in path.read_text().splitlines()] if path.exists() else []

    return read


def test_eight_shards_two_killed_one_late_are_one_run(
    tmp_path: Path, calls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path, one, out = study(tmp_path), tmp_path / "one", tmp_path / "out"
    assert faults.finish(faults.child(path, one)) == 0
    asked = len(calls())
    deaths = {2: faults.Death(4, True), 5: faults.Death(7, False)}
    started = {
        i: shard(path, out, i, before=deaths[i].install if i in deaths else lambda: None) for i in range(1, N)
    }
    ends = {i: faults.finish(pid) for i, pid in started.items()}
    assert ends == {i: -signal.SIGKILL if i in deaths else 0 for i in started}
    assert not list((out / "results").glob("**/run.json")), "nothing is scored before all have answered"
    assert main(["status", str(path), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 partial of 1 cells" in said and "shard 2/8, 5/8, 8/8 not finished" in said
    assert f"icr sweep {path} -o {out} --shard 2/8" in said
    assert main(["sweep", str(path), "-o", str(out), "--merge"]) == 1
    assert f"1 cells wait for shard 8/8: icr sweep {path} -o {out} --shard 8/8" in capsys.readouterr().err
    for i in (2, 5, N):  # the killed ones again, then the late one, which joins
        assert faults.finish(shard(path, out, i)) == 0
    assert faults.ledgers(out) == faults.ledgers(one)
    assert all(s.state == "done" for s in records.states(studies.load(path, out)))
    made = Counter(calls()[asked:])
    assert set(made) == set(calls()[:asked]) and sum(made.values()) <= asked + len(deaths)
    assert len(list((out / "answers").glob("*of8.jsonl"))) == N


def test_shards_with_folders_of_their_own_are_merged(tmp_path: Path, calls: Any) -> None:
    path, one = study(tmp_path, limit=6), tmp_path / "one"
    assert faults.finish(faults.child(path, one)) == 0
    folders = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    assert [faults.finish(shard(path, f, i, 3)) for i, f in enumerate(folders, 1)] == [0, 0, 0]
    asked = len(calls())
    home = tmp_path / "home"
    assert main(["sweep", "--merge", str(path), *map(str, folders[:2]), "-o", str(home)]) == 1
    assert main(["sweep", str(path), "-o", str(home), "--merge", *map(str, folders)]) == 0
    assert faults.ledgers(home) == faults.ledgers(one) and len(calls()) == asked
    before = {p.name: p.read_bytes() for p in (home / "answers").iterdir()}
    assert main(["sweep", str(path), "-o", str(home), "--merge", *map(str, folders)]) == 0  # again: no change
    assert {p.name: p.read_bytes() for p in (home / "answers").iterdir()} == before


def test_an_answer_given_twice_and_otherwise_is_said_and_the_first_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, home, other = study(tmp_path, limit=6), tmp_path / "home", tmp_path / "other"
    assert main(["sweep", str(path), "-o", str(home), "--shard", "1/2"]) == 0
    assert main(["sweep", str(path), "-o", str(other), "--shard", "1/2"]) == 0
    [theirs] = (other / "answers").glob("*.jsonl")
    lines = [json.loads(line) for line in theirs.read_bytes().splitlines()]
    told = [{k: v for k, v in {**line, "text": "another"}.items() if k != "sum"} for line in lines]
    theirs.write_text("".join(json.dumps(line) + "\n" for line in told))
    [mine] = (home / "answers").glob("*.jsonl")
    before = mine.read_bytes()
    assert main(["sweep", str(path), "-o", str(home), "--merge", str(other)]) == 1  # 2/2 is missing
    said = capsys.readouterr().err
    assert (
        f"{len(lines)} requests were answered there and elsewhere, not alike; the first answer stands" in said
    )
    assert mine.read_bytes() == before


def test_what_does_not_belong_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = study(tmp_path, settings=["none"], limit=3), tmp_path / "out"

    def refused(*more: str, at: Path = path) -> str:
        assert main(["sweep", str(at), "-o", str(out), *more]) == 2
        return capsys.readouterr().err

    assert main(["sweep", str(path), "-o", str(out), "--shard", "1/2"]) == 0
    assert "divides the study otherwise than 1/3, so their items overlap" in refused("--shard", "1/3")
    folder = records.Folder(out)
    with folder.lock("shard-2of2", wait=False):
        pid = shard(path, out, 2, 2)
        assert faults.finish(pid) == 2
    assert "another process works on shard 2/2" in out.with_name("out.2of2.log").read_text()
    study(tmp_path, settings=["none"], limit=4)
    assert (
        "was made with an older study file (what differs: toy / none / ao / icr_synth_rag_512); remove"
        in refused("--shard", "2/2")
    )
    assert "older study file" in refused("--merge")
    study(tmp_path, models=[OTHER], settings=["none"], limit=3)
    assert "is of another study (study.yaml); give this one a folder of its own" in refused("--shard", "2/2")
    study(tmp_path, models=[{**TOY, "name": "renamed"}], settings=["none"], limit=3)
    assert main(["status", str(path), "-o", str(out)]) == 0  # a label is no part of an answer
    assert f"icr sweep {path} -o {out} --shard 2/2" in capsys.readouterr().out
    study(tmp_path, settings=["none"], limit=3)
    head = out / "shards" / "1of2.json"
    told = json.loads(head.read_text())
    head.write_text(json.dumps({**told, "versions": {**told["versions"], "vllm": "0.1"}}))
    assert "ran under other versions (vllm 0.1 there and" in refused("--shard", "2/2")
    head.write_text(json.dumps(told))
    assert main(["sweep", str(path), "-o", str(out), "--shard", "2/2"]) == 0
    # The same cells under another label are the same study, and what was scored is history: it may be divided anew.
    study(tmp_path, models=[{**TOY, "name": "renamed"}], settings=["none"], limit=3)
    assert main(["sweep", str(path), "-o", str(out), "--shard", "2/2"]) == 0
    study(tmp_path, settings=["none"], limit=3)
    assert main(["sweep", str(path), "-o", str(out), "--shard", "1/3"]) == 0
    assert sorted(p.name for p in (out / "shards").glob("*.json")) == ["1of3.json"]


@pytest.mark.parametrize(
    ("theirs", "which", "versions", "words"),
    [
        ({}, "2/3", {}, "so their items overlap"),
        ({"limit": 4}, "2/2", {}, "was made with an older study file"),
        ({"models": [OTHER]}, "2/2", {}, "is of another study"),
        ({}, "2/2", {"lm_eval": "0.1"}, "ran under other versions (lm_eval 0.1 there and"),
    ],
)
def test_folders_that_do_not_belong_together_are_not_merged(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    theirs: dict[str, Any],
    which: str,
    versions: dict[str, str],
    words: str,
) -> None:
    """The folders of two machines that divided otherwise, had an older file, another study of the same name, or
    other versions: refused by name, with nothing taken over."""
    own = {"settings": ["none"], "limit": 3}
    one, two, home = (tmp_path / name for name in ("one", "two", "home"))
    path = study(tmp_path, **{**own, **theirs})
    assert main(["sweep", str(path), "-o", str(two), "--shard", which]) == 0
    study(tmp_path, **own)
    assert main(["sweep", str(path), "-o", str(one), "--shard", "1/2"]) == 0
    if versions:
        [head] = (two / "shards").glob("*.json")
        told = json.loads(head.read_text())
        head.write_text(json.dumps({**told, "versions": {**told["versions"], **versions}}))
    capsys.readouterr()
    assert main(["sweep", str(path), "-o", str(home), "--merge", str(one), str(two)]) == 2
    assert words in (said := capsys.readouterr().err) and "two" in said
    assert not list(home.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shard", "0/8"], "i from 1 to n"),
        (["--shard", "9/8"], "i from 1 to n"),
        (["--shard", "a/b"], "i from 1 to n"),
        (["--shard", "1/1000000000000"], "n at most 10,000"),
        (["--shard", "3"], "write i/n"),
        (["--shard", "1/2", "--merge"], "--shard and --merge exclude each other"),
        (["--shard", "1/2", "--executor", "slurm"], "--shard and --executor exclude each other"),
        (["--merge", "--dry-run"], "--merge and --dry-run exclude each other"),
        (["--merge"], "holds no shard"),
        (["--merge", "nowhere"], "nowhere holds no shard"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str) -> None:
    assert main(["sweep", str(study(tmp_path)), "-o", str(tmp_path / "out"), *more]) == 2
    assert words in capsys.readouterr().err


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12)), unique=True),
    st.integers(1, 12),
    st.randoms(),
)
def test_a_division_is_whole_even_and_the_same_in_any_order(
    pairs: list[tuple[int, int]], n: int, rng: Any
) -> None:
    items = [(("task", f"i{i}-{d}"), f"book{d}") for i, d in pairs]
    found = shards.divide(items, n)
    shuffled = list(items)
    rng.shuffle(shuffled)
    assert shards.divide(shuffled, n) == found
    assert set(found) == {place for place, _ in items} and set(found.values()) <= set(range(1, n + 1))
    share = -(-len(items) // n)
    sizes = Counter(document for _, document in items)
    for document, size in sizes.items():
        if size <= share:  # a document that fits into a share is read by one shard
            assert len({found[place] for place, d in items if d == document}) == 1
    loads = Counter(found.values())
    assert max(loads.values(), default=0) - min((loads[i + 1] for i in range(n)), default=0) <= max(
        min(share, max(sizes.values(), default=0)), 1
    )


def test_parts_of_a_store_write_apart_and_read_together(tmp_path: Path) -> None:
    one, two = (AnswerStore(tmp_path, {"m": 1}, name) for name in ("1of2", "2of2"))
    one.put("a", {"text": "A"})
    two.put("b", {"text": "B"})
    two.put("a", {"text": "other"})
    for store in (one, two):
        store.refresh()
    assert one.get("b") == {"key": "b", "text": "B"} and one.get("a") == {"key": "a", "text": "A"}
    with two.path.open("ab") as file:  # a line in the making is left alone
        file.write(b'{"key":"c"')
    whole = AnswerStore(tmp_path, {"m": 1})
    assert whole.keys() == {"a", "b"} and whole.damaged == 0
    assert whole.get("a") == {"key": "a", "text": "A"}  # the first file by name
    assert two.path.read_bytes().endswith(b'{"key":"c"')


def test_data_parallel_replicas_share_the_items(
    tmp_path: Path, calls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {**TOY, "model_args": {**TOY["model_args"], "data_parallel_size": 2}}
    path, out = study(tmp_path, models=[model], limit=6), tmp_path / "out"
    shutil.copy(Path(__file__).with_name("sweep_models.py"), tmp_path)
    assert main(["sweep", str(path), "-o", str(out)]) == 0
    assert [s.state for s in records.states(studies.load(path, out))] == ["done"]
    processes = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(calls()) == 6 == len(set(calls())) and len(set(processes)) == 2
    again = study(tmp_path, models=[model], limit=5)
    assert main(["sweep", str(again), "-o", str(out), "--shard", "1/2"]) == 2
    assert "leave it out and take 2 times as many shards" in capsys.readouterr().err


def test_a_file_system_without_locks_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bucket = study(tmp_path, limit=4), tmp_path / "bucket"

    def none(*given: Any) -> None:
        raise OSError(errno.ENOTSUP, "no locks")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", none)
        assert main(["sweep", str(path), "-o", str(bucket), "--shard", "1/2"]) == 0
        assert main(["sweep", str(path), "-o", str(bucket), "--shard", "2/2"]) == 0
        assert "has no locks: use a folder on a local disk" in capsys.readouterr().err
    assert not list((bucket / "results").glob("**/run.json"))
    home = tmp_path / "home"
    assert main(["sweep", str(path), "-o", str(home), "--merge", str(bucket)]) == 0
    assert [s.state for s in records.states(studies.load(path, home))] == ["done"]


def test_names() -> None:
    assert str(Shard.parse(" 3/8 ")) == "3/8" and Shard(3, 8).name == "3of8"
    with pytest.raises(IcrError, match="from 1 to n"):
        Shard.parse("1/0")
    assert os.sep not in Shard(3, 8).name
    many = [Shard(i, 500) for i in range(1, 500)]
    assert shards.listed(many[:2]) == "1/500, 2/500"
    assert shards.listed(many).endswith("8/500 and 491 more")


def test_a_damaged_answer_does_not_keep_a_whole_one_from_being_merged(tmp_path: Path) -> None:
    """Its line is valid JSON with a checksum that is not its own: no store reads it."""
    from icr_tasks.sweep.sharding import _copy

    good, bad = AnswerStore(tmp_path / "a", {"m": 1}), AnswerStore(tmp_path / "b", {"m": 1})
    for store in (good, bad):
        store.put("k", {"text": "right"})
    bad.path.write_bytes(bad.path.read_bytes().replace(b"right", b"wrong"))
    assert _copy(good.path, bad.path) == 0
    merged = AnswerStore(tmp_path / "b", {"m": 1})
    assert merged.get("k") == {"key": "k", "text": "right"} and merged.damaged == 1
