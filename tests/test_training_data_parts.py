"""Parts of the data stages: formats of the official files, windows, exact search, the judge's reply,
packing."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="training data are parquet files (extra [train])")
from icr_tasks.benchmarks import base
from icr_tasks.errors import IcrError
from icr_tasks.training.data import corpus, formats, judge, pack, read, retrieve, store
from icr_tasks.training.data.config import config

RECORD = {
    "_id": "x1",
    "question": "Who?",
    "answer": "Ann",
    "type": "bridge",
    "supporting_facts": [["A", 1], ["B", 0], ["B", 7]],
    "context": [["A", ["One two.", " Three four."]], ["B", ["Five six."]], ["C", ["Seven."]]],
}
COLUMNS = {
    **RECORD,
    "id": RECORD["_id"],
    "_id": None,
    "supporting_facts": {"title": ["A", "B", "B"], "sent_id": [1, 0, 7]},
    "context": {
        "title": ["A", "B", "C"],
        "sentences": [["One two.", " Three four."], ["Five six."], ["Seven."]],
    },
}


def run_read(tmp_path: Path, rows: list[dict], **options: object) -> tuple[dict, list[dict]]:
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    counts = read.run(config({"hotpotqa": str(path), **options}), tmp_path)
    return counts, list(store.read(tmp_path / read.OUTPUT))


@pytest.mark.parametrize("record", [RECORD, COLUMNS])
def test_official_and_hub_form_give_the_same_gold(record: dict) -> None:
    assert read.gold(record, "passage") == [("A", "One two. Three four."), ("B", "Five six.")]
    assert read.gold(record, "sentence") == [("A", "Three four."), ("B", "Five six.")]
    assert read.gold({**RECORD, "supporting_facts": [["Z", 0]]}, "passage") == []


def test_json_list_and_gzip_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([RECORD, RECORD]))
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps(RECORD) + "\n")
    assert len(list(read.records(tmp_path / "a.json"))) == 2
    assert next(read.records(tmp_path / "a.jsonl.gz"))["_id"] == "x1"
    (tmp_path / "cut.json").write_text("[{")
    with pytest.raises(IcrError, match="cannot be read as JSON"):
        list(read.records(tmp_path / "cut.json"))
    odd = tmp_path / "odd.jsonl"
    for text, says in (
        ('{"id": 1}\n\n{"id": \n', "line 3: Expecting value"),
        ('{"id": 1}\n\n"x"\n', "line 3 is no record"),
        ('[{"id": 1}, 2]', "record 2 is no record"),
    ):
        odd.write_text(text)
        with pytest.raises(IcrError, match=says):
            list(read.records(odd))


def test_windows_hold_the_sentences_within_the_size() -> None:
    r = random.Random(0)
    for _ in range(200):
        sentences = [[f"w{i}.{j}" for j in range(r.randint(1, 40))] for i in range(r.randint(1, 12))]
        numbers = r.sample(range(len(sentences)), r.randint(1, min(3, len(sentences))))
        found = read.windows(sentences, numbers, 60)
        total = sum(map(len, sentences))
        assert all(len(text.split()) == min(60, total) for text in found)
        assert all(any(" ".join(sentences[n]) in text for text in found) for n in numbers)


def test_unusable_records_are_counted_not_trained_on(tmp_path: Path) -> None:
    rows = [
        RECORD,
        RECORD,
        {**RECORD, "_id": "x2", "answer": " "},
        {**RECORD, "_id": "x3", "supporting_facts": [["Z", 0]]},
        {**RECORD, "_id": "x4", "question": "held out?"},
    ]
    (tmp_path / "held.jsonl").write_text(json.dumps({"question": "Held out"}))
    counts, kept = run_read(tmp_path, rows, exclude=str(tmp_path / "held.jsonl"))
    assert counts == {
        "hotpotqa kept": 1,
        "hotpotqa dropped: duplicate id": 1,
        "hotpotqa dropped: no answer": 1,
        "hotpotqa dropped: no gold in its context": 1,
        "hotpotqa dropped: excluded question": 1,
        "rows": 1,
    }
    assert kept[0]["id"] == "hotpotqa-x1" and kept[0]["gold_texts"] == ["One two. Three four.", "Five six."]
    with pytest.raises(IcrError, match="lacks 'context'"):
        run_read(tmp_path, [{"_id": "1", "question": "?", "answer": "a", "supporting_facts": []}])
    with pytest.raises(IcrError, match="nothing to read"):
        read.run(config({}), tmp_path)


def test_config_refuses_what_does_not_exist() -> None:
    assert (
        config({"mode": "paper_code"}).top_k == 480 and config({"mode": "paper_code", "top_k": 7}).top_k == 7
    )
    assert config({"2wiki": "f", "judge-base-url": "u"}).twowiki == "f"
    for given, message in (
        ({"tresholds": 1}, "Did you mean 'threshold'"),
        ({"mode": "papers"}, "Did you mean 'paper'"),
        ({"top_k": "many"}, "must be int"),
        ({"threshold": 2}, "lies in"),
        ({"mix": 1}, "true or false"),
        ({"min_tokens": 9, "tokens": 8}, "no row would be left"),
        ({"keep": "al"}, "unknown keep"),
        ({"per_dataset": -1}, "per_dataset=-1 must be at least 0"),  # a slice would drop the last row
        ({"promote": -1}, "promote=-1"),
        ({"keychain": -1}, "keychain=-1"),
        ({"top_k": 7.5}, "must be a whole number"),
        ({"top_k": True}, "must be a whole number"),
    ):
        with pytest.raises(IcrError, match=message):
            config(given)


def test_passages_and_random_access(tmp_path: Path) -> None:
    text = " ".join(f"w{i}" for i in range(215))
    assert [len(p.split()) for p in corpus.passages(text, 100, 10)] == [100, 100, 15]
    assert len(list(corpus.passages(text, 100, 16))) == 2
    mixed = (
        "a cafe\u0301 \u6f22\u5b57。 b"  # the words of other scripts are found without looking at each sign
    )
    assert corpus._pieces(mixed) == [" a", " cafe\u0301", " \u6f22", "\u5b57。", " b"]
    assert (
        corpus._pieces(" b\u00e9  c\n") == [" b\u00e9", " c"]
        and corpus.size("b\u00e9 c") == 2
        and corpus.size(mixed) == 5
    )
    (tmp_path / "wiki.jsonl").write_text(
        "\n".join(json.dumps({"title": str(i), "text": f"{i} " + text}) for i in range(40))
    )
    counts = corpus.run(config({"corpus": str(tmp_path / "wiki.jsonl")}), tmp_path)
    texts = corpus.Texts(tmp_path)
    assert len(texts) == counts["rows"] == 120
    assert texts[3].startswith("1 w0") and texts.many([5, 0]) == [texts[5], texts[0]]
    with pytest.raises(IcrError, match="no corpus file"):
        corpus.files("missing.parquet")


@pytest.mark.parametrize("k", [1, 5, 40, 97])
def test_block_wise_search_is_exact(tmp_path: Path, k: int) -> None:
    r = np.random.default_rng(0)
    vectors = r.integers(-2, 3, (97, 6)).astype(np.float16)  # small integers: many ties
    queries = r.integers(-2, 3, (11, 6)).astype(np.float32)
    paths = []
    for n, part in enumerate(np.array_split(vectors, 3)):
        paths.append(tmp_path / f"{n}.npy")
        np.save(paths[-1], part)
    whole = queries @ vectors.astype(np.float32).T
    best = np.argsort(-whole, axis=1, kind="stable")[:, :k]
    for rows in (7, 13, 1000):
        scores, ids = retrieve.search(queries, paths, k, rows=rows)
        assert (ids == best).all()
        assert (scores == np.take_along_axis(whole, best, 1)).all()


def test_a_damaged_shard_is_encoded_again(tmp_path: Path) -> None:
    class Fake:
        calls = 0

        def prompt(self, side: str) -> str:
            return ""

        def encode(self, texts: list[str]) -> np.ndarray:
            self.calls += 1
            return np.array([[len(t), 1.0] for t in texts])

    texts, fake = [f"{'x' * i}" for i in range(25)], Fake()
    make = lambda: retrieve.shards(tmp_path, 25, lambda a, b: texts[a:b], fake, size=10)  # noqa: E731
    assert len(make()) == 3 and fake.calls == 3
    make()
    assert fake.calls == 3
    shard = tmp_path / "00001.npy"
    shard.write_bytes(shard.read_bytes()[:-20])
    make()
    assert fake.calls == 4


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Relevant documents: [DOC 2], [DOC 1]", ([1, 2], [])),
        ("<think>Relevant documents: [DOC 3]</think>\n**Relevant documents:** none", ([], [])),
        ("Relevant documents: [DOC 1], [DOC 1], [DOC 9], [DOC 0]", ([1], [0, 9])),
        ("Relevant documents: [DOC 1]\nor rather\nRelevant documents IDs: [DOC 2]", ([2], [])),
        ("[DOC 1] is relevant", None),
        ("<think>Relevant documents: [DOC 1]", None),
        ("Relevant documents:", None),
        ("", None),
        (None, None),
    ],
)
def test_only_offered_candidates_can_be_promoted(reply: str | None, expected: object) -> None:
    assert judge.chosen(reply, 3) == expected


def test_candidates_without_verdict_are_neither_gold_nor_negative() -> None:
    assert judge._outcome([4, 7], None, "drop") == {
        "gold": [],
        "removed": [4, 7],
        "outside": [],
        "status": "no verdict",
    }
    assert judge._outcome([4, 7], "x", "gold")["gold"] == [4, 7]
    assert judge._outcome([4, 7], None, "negative")["removed"] == []
    assert judge._outcome([4, 7], "Relevant documents: [DOC 2], [DOC 5]", "drop") == {
        "gold": [7],
        "removed": [],
        "outside": [5],
        "status": "judged",
    }


def pool(n: int = 60) -> dict:
    texts = [" ".join([f"neg{i}"] * 30) for i in range(n)]
    return {
        "id": "r",
        "dataset": "hotpotqa",
        "question": "Who?",
        "answers": ["Ann"],
        "gold_titles": ["A"],
        "gold_texts": ["gold one " * 10, "gold two " * 10],
        "negatives": texts,
        "pids": list(range(n)),
    }


def test_packing_keeps_gold_fills_the_budget_in_rank_order() -> None:
    packer = pack.Packer(config({"tokenizer": "words", "tokens": 1600}))
    row, outcome = packer.pack(pool(), {"gold": [5], "removed": [0]})
    assert outcome == "kept" and row is not None and 1600 - 45 < row["n_tokens"] <= 1600
    assert pack.problem(row) is None
    assert {row["passages"][i] for i in row["gold_ids"]} == {*pool()["gold_texts"], pool()["negatives"][5]}
    assert {row["passages"][i] for i in row["original_ids"]} == set(pool()["gold_texts"])
    ranks = sorted(int(p.split()[0][3:]) for p in row["passages"] if p.startswith("neg"))
    assert 0 not in ranks and ranks == list(range(1, len(ranks) + 1))
    assert row["n_dropped"] == 58 - (len(row["passages"]) - 3)
    for name in formats.FORMATS:
        assert packer.tokens.counts([pack.rendered(packer.tokens, row, name)])[0] <= 1600
    assert (
        packer.pack(pool(), {"gold": [], "removed": []})[0]
        == packer.pack(pool(), {"gold": [], "removed": []})[0]
    )


def test_packing_says_why_a_row_goes() -> None:
    nothing = {"gold": [], "removed": []}
    assert (
        pack.Packer(config({"tokenizer": "words", "tokens": 200})).pack(pool(), nothing)[1]
        == "dropped: gold does not fit"
    )
    whole = {"tokenizer": "words", "keep": "filter"}
    assert (
        pack.Packer(config({**whole, "tokens": 1600})).pack(pool(), nothing)[1] == "dropped: over the budget"
    )
    assert len(pack.Packer(config({**whole, "tokens": 9000})).pack(pool(), nothing)[0]["passages"]) == 62
    least = {**whole, "tokens": 9000, "min_tokens": 8000}
    assert pack.Packer(config(least)).pack(pool(), nothing)[1] == "dropped: under the minimum"


def test_prompts_are_the_evaluation_objects() -> None:
    row = {"passages": ["one", "two"], "question": "Q?"}
    for name in (*formats.FORMATS, "ao_code"):
        form = base.get("helmet_rag", name)
        assert formats.prompt(name) is form
        asked = formats.messages(row, name)
        assert (
            asked[-1]["content"]
            == form.messages(context="[DOC 0]\none\n\n[DOC 1]\ntwo", question="Q?")[-1]["content"]
        )
    with pytest.raises(IcrError, match="needs a teacher"):
        formats.target({**row, "answers": ["a"], "gold_ids": [], "gold_docs": []}, "judge")


def test_interrupted_writes_leave_no_file(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield {"id": "a"}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.write(tmp_path / "x.parquet", rows(), {"id": "str"})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(IcrError, match="not a readable parquet"):
        list(store.read(tmp_path / "x.parquet"))
