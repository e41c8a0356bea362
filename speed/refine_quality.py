"""Which similarity tells evidence from distractors? Labelled pairs of real passages, and what each signal
calls a candidate.

    python speed/refine_quality.py hotpot_dev_distractor_v1.json other_corpus.jsonl [--at 0.2,0.6]

Evidence: `version` = the same article's text in the other corpus, `half` = two 100-word windows that overlap
by half, `sentence` = a gold sentence inside another passage. Distractors: `hard` = HotpotQA's own for the
same question, `random` = any two paragraphs. Prints the share of each at or above the thresholds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from icr_tasks.training.data.read import records
from icr_tasks.training.data.similarity import SIGNALS, released_mix

Pairs = list[tuple[str, str]]


def pairs(questions: list[dict], other: dict[str, str], n: int = 1000) -> dict[str, Pairs]:
    """Kind of pair -> pairs."""
    r = random.Random(0)
    texts = {t: " ".join("".join(s).split()) for q in questions for t, s in q["context"]}
    titles = list(texts)
    both = [t for t in titles if t in other and len(texts[t].split()) >= 20 and len(other[t].split()) >= 20]
    out: dict[str, Pairs] = {
        "version": [(texts[t], other[t]) for t in both],
        "half": [],
        "sentence": [],
        "hard": [],
    }
    for text in (t for t in [*texts.values(), *other.values()] if len(t.split()) >= 150):
        words = text.split()
        out["half"].append((" ".join(words[:100]), " ".join(words[50:150])))
    for q in questions:
        gold = {t for t, _ in q["supporting_facts"]}
        sentences = dict(map(tuple, q["context"]))
        for title, number in q["supporting_facts"]:
            if (
                title in sentences
                and number < len(sentences[title])
                and len(sentences[title][number].split()) >= 10
            ):
                rest = " ".join(texts[r.choice(titles)].split()[:75])
                out["sentence"].append((texts[title], f"{rest} {sentences[title][number]}"))
        out["hard"] += [
            (texts[g], texts[t]) for g in gold & texts.keys() for t, _ in q["context"] if t not in gold
        ]
    out["random"] = [(texts[a], texts[b]) for a, b in (r.sample(titles, 2) for _ in range(n))]
    return {kind: r.sample(found, min(n, len(found))) for kind, found in out.items()}


def main() -> None:
    """Print one table a threshold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("corpus", type=Path, help="title and text of the same articles in another version")
    parser.add_argument("--at", default="0.2,0.3,0.6", help="thresholds")
    args = parser.parse_args()
    labelled = pairs(list(records(args.questions)), {r["title"]: r["text"] for r in records(args.corpus)})
    signals: dict[str, Callable[[str, str], float]] = {**SIGNALS, "released_mix": released_mix}
    values = {
        (s, k): np.array([f(a, b) for a, b in p]) for s, f in signals.items() for k, p in labelled.items()
    }
    for at in (float(x) for x in args.at.split(",")):
        print(f"\n| at {at} | " + " | ".join(f"{k} ({len(p)})" for k, p in labelled.items()) + " |")
        print("|---" * (len(labelled) + 1) + "|")
        for signal in signals:
            cells = " | ".join(f"{100 * (values[signal, kind] >= at).mean():.1f} %" for kind in labelled)
            print(f"| {signal} | {cells} |")


if __name__ == "__main__":
    main()
