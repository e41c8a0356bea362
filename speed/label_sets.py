"""Public label files as `icr agreement` takes them, for the tables in docs/metrics.md.

    python speed/label_sets.py DATA OUT
    for f in OUT/*.jsonl; do icr agreement $f --examples 0; done          (ratings_*: with --ratings)

DATA has openqa_eval/, refchecker/, ragchecker/ and squality/ as published, one record a line, and, where it is there,
evouna/NQ.json and TQ.json (EVOUNA of wangcunxiang/QA-Eval; answers that its people call improper are left out). Each set of yes/no
labels comes in two halves by a hash of the question, `tune` (rules may be made from it) and `held`, and OpenQA-eval
also as `long` (more than ten words). RefChecker labels claims, not answers: an answer is right where people found
every claim in the gold passage and wrong where they found none; the others are left out. RAGChecker's preferences
become two ratings a question, one for each system.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

Row = dict[str, Any]


def lines(path: Path) -> Iterator[Row]:
    """The records of a compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def half(question: str) -> str:
    """`tune` or `held`, by a hash of the question."""
    return "held" if int(hashlib.sha256(question.encode()).hexdigest(), 16) % 2 else "tune"


def openqa(data: Path) -> Iterator[tuple[str, Row]]:
    """OpenQA-eval: as it is."""
    for row in lines(data / "openqa_eval" / "nq301_human_bem_1490.jsonl.gz"):
        kept = {k: row[k] for k in ("question", "golds", "answer", "label", "system")}
        sets = ["openqa", f"openqa_{half(row['question'])}"]
        if len(row["answer"].split()) > 10:
            sets += ["openqa_long", f"openqa_long_{half(row['question'])}"]
        yield from ((name, kept) for name in sets)


def refchecker(data: Path) -> Iterator[tuple[str, Row]]:
    """RefChecker: long answers, by the labels of all their claims."""
    for row in lines(data / "refchecker" / "nq_zero_context_700.jsonl.gz"):
        said = {claim["human_label"] for claim in row["claude2_response_kg"]}
        if row["golds"] and said and (said == {"Entailment"} or "Entailment" not in said):
            kept = {"question": row["question"], "golds": row["golds"], "answer": row["response"]}
            kept |= {"label": said == {"Entailment"}, "system": row["system"]}
            yield from ((name, kept) for name in ("refchecker", f"refchecker_{half(row['question'])}"))


def evouna(data: Path) -> Iterator[tuple[str, Row]]:
    """EVOUNA: answers of five systems to NQ and TriviaQA questions; a slash stands between aliases."""
    for name in ("NQ", "TQ"):
        path = data / "evouna" / f"{name}.json"
        for row in json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ():
            if row["improper"]:
                continue
            for key in (k for k in row if k.startswith("answer_")):
                system = key.removeprefix("answer_")
                kept = {"question": row["question"], "golds": row["golden_answer"].split("/")}
                kept |= {"answer": row[key], "label": row[f"judge_{system}"], "system": system}
                yield f"evouna_{name.lower()}", kept
                yield f"evouna_{name.lower()}_{half(row['question'])}", kept


def ragchecker(data: Path) -> Iterator[tuple[str, Row]]:
    """RAGChecker: two people's preference between two long answers, as a rating of each (a positive label prefers
    the second)."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in lines(data / "ragchecker" / "human_labeled_112.jsonl.gz"):
        found.setdefault((row["dataset"], row["query_id"]), []).append(row)
    for rows in found.values():
        for aspect in ("correctness", "completeness", "overall"):
            better = mean(row[f"{aspect}_label"] for row in rows) / 2
            for model, rating in (("model1", -better), ("model2", better)):
                one = rows[0][model]
                kept = {
                    "question": rows[0]["query"],
                    "golds": [rows[0]["gt_answer"]],
                    "answer": one["response"],
                }
                yield f"ratings_ragchecker_{aspect}", kept | {"rating": rating, "system": one["model_name"]}


def squality(data: Path) -> Iterator[tuple[str, Row]]:
    """SQuALITY: long summaries, three people's mean rating; the references are the people's own answers, without
    the one that is rated."""
    stories = {
        row["metadata"]["passage_id"]: row["questions"]
        for row in lines(data / "squality" / "squality_v1-3_stories_20.jsonl.gz")
    }
    for row in lines(data / "squality" / "human_eval_20.jsonl.gz"):
        for n, answers in row["questions"].items():
            question = stories[row["passage-id"]][int(n)]
            references = [r["response_text"] for r in question["responses"]]
            for system, one in answers.items():
                golds = [r for r in references if " ".join(r.split()) != " ".join(one["response"].split())]
                for aspect, key in (
                    ("correctness", "correctness"),
                    ("coverage", "selection"),
                    ("overall", "overall"),
                ):
                    rating = mean(review[f"{key}-rating"] for review in one["reviews"])
                    kept = {"question": f"{row['passage-id']} {n}", "golds": golds, "answer": one["response"]}
                    kept |= {"rating": rating, "system": system}
                    yield f"ratings_squality_{aspect}", kept
                    if system != "human":
                        yield f"ratings_squality_{aspect}_models", kept


def main() -> None:
    """Writes one file a set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    sets: dict[str, list[Row]] = {}
    for source in (openqa, refchecker, evouna, ragchecker, squality):
        for name, row in source(args.data):
            sets.setdefault(name, []).append(row)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in sets.items():
        (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(name, len(rows))


if __name__ == "__main__":
    main()
