"""`icr agreement` on a small table of our own: numbers against an independent computation, formats, bad
input."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_tasks.cli.agreement import main, read
from icr_tasks.cli.labels import read_labels
from icr_tasks.errors import IcrError
from icr_tasks.metrics.agreement import Labelled, calls, disagreements, kappa, measure

TABLE = Path(__file__).parent / "agreement_labels.jsonl"


def test_the_metrics_differ_where_they_should() -> None:
    rows = read(TABLE)
    found = measure(rows)
    assert len(rows) == 24 and sum(r.human for r in rows) == 11
    wrong = {name: {r.answer for r in disagreements(rows, name)} for name in found}
    # plain SubEM takes "no" in "known", "4" in "14", "art" in "party"; the word-safe one does not
    for text in ("Answer: It is not known", "Answer: 14", "Answer: a party"):
        assert text in wrong["subem"] and text not in wrong["subem_word"]
    # the whole text mentions the gold answer, the final answer is another one
    assert "It was not Jane Austen; the answer is: Mary Shelley" in wrong["subem_raw"] - wrong["subem"]
    assert "Answer: July 20, 1969" in wrong["em"] - wrong["subem_word"]
    assert found["subem_word"]["accuracy"] > found["subem"]["accuracy"] > found["subem_raw"]["accuracy"]
    assert found["subem_word"]["kappa"] > found["subem"]["kappa"]
    for m in found.values():
        assert m["accuracy_ci"][0] <= m["accuracy"] <= m["accuracy_ci"][1]
        assert m["false_yes"] + m["false_no"] == round((1 - m["accuracy"]) * 24)


def test_a_false_yes_that_states_a_gold_is_counted_apart() -> None:
    rows = [
        Labelled("a", ("20%",), "It is 20 %.", False),  # a gold that the people reject
        Labelled("b", ("3 May 1990",), "On May 3, 1990.", False),  # the date rule's own
        Labelled("c", ("Paris",), "Rome", False),
        Labelled("d", ("Paris",), "Paris", True),
    ]
    found = measure(rows, draws=10)["subem_norm"]
    assert (found["false_yes"], found["false_yes_stated"]) == (2, 1)


def test_f1_threshold_moves_the_call() -> None:
    row = Labelled("q", ("atmospheric pressure",), "Answer: the pressure of the air", True)
    assert calls(0.3)["f1"](row) and not calls(0.9)["f1"](row)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_kappa_is_cohens(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(v) for v in zip(*pairs, strict=True))
    n = len(a)
    po = sum(x == y for x, y in pairs) / n
    pe = sum((a == v).sum() * (b == v).sum() for v in (True, False)) / n**2
    if pe == 1:
        assert math.isnan(kappa(a, b))
    else:
        assert kappa(a, b) == pytest.approx((po - pe) / (1 - pe), abs=1e-12)


def test_intervals_count_questions_not_answers() -> None:
    """Fifty equal answers to each of four questions tell no more than one answer each."""
    base = [Labelled(f"q{i}", ("x",), "Answer: x" if i < 2 else "Answer: y", i % 2 == 0) for i in range(4)]
    one, many = measure(base)["em"], measure(base * 50)["em"]
    assert one["accuracy"] == many["accuracy"] and one["accuracy_ci"] == many["accuracy_ci"]


def test_prints_table_and_examples_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TABLE), "--examples", "1"]) == 0
    out = capsys.readouterr().out
    assert "24 answers to 11 questions, 11 called correct by humans" in out and "| subem_word |" in out
    assert "subem says right, human says wrong:" in out and "It is not known" in out
    assert main([str(TABLE), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 24 and set(found["metrics"]) == {
        "subem",
        "subem_norm",
        "subem_raw",
        "subem_word",
        "em",
        "f1",
    }
    assert found["disagreements"]["subem"][0]["question"]


def test_csv_tsv_and_other_names_give_the_same(tmp_path: Path) -> None:
    rows = read(TABLE)
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        path = tmp_path / f"t.{suffix}"
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["input", "golden_answers", "pred", "human_label"])
            for n, r in enumerate(rows):
                golds = json.dumps(r.golds) if n % 2 else " | ".join(r.golds)
                writer.writerow([r.question, golds, r.answer, "Correct" if r.human else "incorrect"])
        assert read(path) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows"),
        ("[1]", "expected a JSON object"),
        ("{", ":1: not valid JSON"),
        ('{"question":"q"}', "no golds"),
        ('{"question":"q","golds":[],"answer":"a","label":1}', "gold answers must be"),
        ('{"question":"q","golds":["x"],"answer":"a","label":"maybe"}', "neither yes nor no"),
        ('{"question":"q","golds":["x"],"answer":3,"label":1}', "must be a text"),
        ('{"question":"q","golds":{"a":1},"answer":"a","label":1}', "gold answers must be"),
    ],
)
def test_bad_files_name_the_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(IcrError, match=says):
        main([str(path)])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(IcrError, match="cannot read"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "t.csv").write_bytes(b"question,golds\n\xff\xfe")
    with pytest.raises(IcrError, match="UTF-8|no answer"):
        read(tmp_path / "t.csv")


@given(st.text(max_size=40), st.lists(st.text(max_size=10), min_size=1, max_size=3), st.booleans())
def test_any_row_can_be_measured(answer: str, golds: list[str], human: bool) -> None:
    found = measure([Labelled("q", tuple(golds), answer, human)], draws=10)
    assert all(m["accuracy"] in (0.0, 1.0) for m in found.values())


def _long(tmp_path: Path) -> list[dict[str, object]]:
    rows = read(TABLE)
    return [
        {
            "Question": r.question,
            "Gold": list(r.golds),
            "ANSWER": r.answer,
            "Label": r.human,
            "Model": f"m{n % 3}",
        }
        for n, r in enumerate(rows)
    ]


def test_json_arrays_compressed_files_and_names_in_any_case(tmp_path: Path) -> None:
    rows = _long(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    for name in ("a.json", "a.jsonl.gz"):
        found = read_labels(tmp_path / name)
        assert [(r.question, r.golds, r.answer, r.human) for r in found.rows] == [
            (r.question, r.golds, r.answer, r.human) for r in read(TABLE)
        ]
        assert found.rows[4].systems == ("m1",) and not found.skipped


def test_columns_separator_and_a_table_by_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"q": r["Question"], "g": "/".join(r["Gold"]), "a": r["ANSWER"], "l": r["Label"], "who": r["Model"]}  # type: ignore[arg-type]
        for r in _long(tmp_path)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    command = [str(path), "--columns", "question=q,golds=g,answer=a,label=l,system=who", "--separator", "/"]
    assert main([*command, "--by", "system", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["headline"] == "subem" and set(found["systems"]) == {"m0", "m1", "m2"}
    assert sum(row["n"] for row in found["systems"].values()) == 24
    assert all(0 <= wrong <= total <= 3 for wrong, total in found["out_of_order"].values())
    assert main([*command, "--by", "system", "--examples", "0"]) == 0
    assert "| pairs out of order |" in capsys.readouterr().out
    with pytest.raises(IcrError, match="no golds|nobody"):
        main([str(path), "--columns", "question=nobody"])
    with pytest.raises(IcrError, match="names no system"):
        main([str(TABLE), "--by", "system"])


def test_wide_files_have_one_pair_of_columns_a_system(tmp_path: Path) -> None:
    rows = [
        {
            "question": "q1",
            "golden_answer": "x|y",
            "answer_fid": "x",
            "judge_fid": True,
            "answer_gpt": "z",
            "judge_gpt": False,
        },
        {
            "question": "q2",
            "golden_answer": "k",
            "answer_fid": "z",
            "judge_fid": None,
            "answer_gpt": "k",
            "judge_gpt": True,
        },
    ]
    path = tmp_path / "w.json"
    path.write_text(json.dumps(rows))
    found = read_labels(path)
    assert [(r.systems, r.answer, r.human) for r in found.rows] == [
        (("fid",), "x", True),
        (("gpt",), "z", False),
        (("gpt",), "k", True),
    ]
    assert found.skipped == {"null label": 1}


def test_what_cannot_be_used_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"question": "q", "golds": ["x"], "answer": "x", "label": 1}
    odd = [{**good, "label": v} for v in (None, "", "maybe", "so so")] + [
        {**good, "answer": v} for v in (None, 3, ["x"])
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [good, *odd, {**good, "answer": "x" * 1_000_000}]))
    with path.open("a") as file:
        file.write('{"question":"q","golds":["x"],"answer":"\\ud800 x","label":"yes"}\n')
    found = read_labels(path)
    assert len(found.rows) == 3 and sum(found.skipped.values()) == 7
    assert found.skipped["label 'maybe' is neither yes nor no"] == 1 and found.skipped["null label"] == 2
    assert found.skipped["answer is a list and must be a text"] == 1
    assert main([str(path)]) == 0
    assert "1 left out: label 'so so' is neither yes nor no" in capsys.readouterr().out


def test_ratings_count_pairs_in_the_peoples_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two references: the better answer shares more words in one question, fewer in the other."""
    texts = {"a": ("red green blue", 5), "b": ("red one two", 1), "c": ("red one", None), "d": (7, 3)}
    rows = [
        {
            "question": q,
            "golds": ["red green blue"],
            "answer": text,
            "rating": sign * r if r else r,
            "system": k,
        }
        for q, sign in (("q1", 1), ("q2", -1), ("q3", 1))
        for k, (text, r) in texts.items()
    ]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main([str(path), "--ratings", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 6 and found["skipped"] == {
        "rating is no number": 3,
        "answer is a number and must be a text": 3,
    }
    assert found["metrics"]["rougeL"] == {
        "pairs": 3,
        "in_order": pytest.approx(2 / 3),
        "in_order_ci": [0.0, 1.0],
    }
    assert found["metrics"]["words"]["in_order"] == 0.5  # as many words each: ties
    assert main([str(path), "--ratings"]) == 0
    assert "| rougeL | 3 | 66.7 |" in capsys.readouterr().out
    with pytest.raises(IcrError, match="by system"):
        main([str(path), "--ratings", "--by", "system"])


def test_the_gain_over_the_headline_is_paired() -> None:
    rows = read(TABLE)
    found = measure(rows)
    assert found["subem"]["kappa_gain"] == 0.0 and found["subem"]["kappa_gain_ci"] == [0.0, 0.0]
    gain = found["subem_word"]["kappa"] - found["subem"]["kappa"]
    assert found["subem_word"]["kappa_gain"] == pytest.approx(gain)
    assert found["subem_word"]["kappa_gain_ci"][0] <= gain <= found["subem_word"]["kappa_gain_ci"][1]


def test_ratings_are_no_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ratings 1 to 5 those of 1 counted as correct answers, and the rest was left out."""
    path = tmp_path / "r.jsonl"
    rows = [{"question": "q", "golds": ["a"], "answer": "a", "rating": n} for n in (1, 5, "4.5")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        IcrError, match=r"r\.jsonl:2: label 5 is a number and neither 0 nor 1; .* --ratings` reads"
    ):
        main([str(path)])
    assert main([str(path), "--ratings"]) == 0 and "3 rated answers" in capsys.readouterr().out
    path.write_text(
        "".join(json.dumps({**row, "rating": "1.00"}) + "\n" for row in rows) + json.dumps({**rows[0]})
    )
    assert read_labels(path).skipped == {"label '1.00' is neither yes nor no": 3}


@pytest.mark.parametrize("damage", ["cut", "bits"])
def test_a_damaged_gzip_is_one_sentence(tmp_path: Path, damage: str) -> None:
    raw = bytearray(gzip.compress(b"".join(b'{"n": %d}\n' % n for n in range(999))))
    if damage == "bits":
        raw[20:40] = bytes(20)
    (tmp_path / "r.jsonl.gz").write_bytes(raw[:-50] if damage == "cut" else raw)
    with pytest.raises(IcrError, match=r"cannot read .*r\.jsonl\.gz: "):
        read_labels(tmp_path / "r.jsonl.gz")


def test_a_separator_of_lines_in_an_answer_ends_no_row(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("question,golds,answer,label\nq1,a,a\u2028b,1\nq2,a,c,0\n")
    assert [row.answer for row in read_labels(tmp_path / "u.csv").rows] == ["a\u2028b", "c"]
