"""How often a quote check lets through a true quote, and one from another passage.

    python speed/quote_check.py hotpot_dev_distractor_v1.json [--pairs 2000]

Passages are the file's paragraphs. `same` quotes are runs of words of the passage itself, `slip` the same
with one word changed, `hard` come from a distractor of the same question, `other` from any other question,
`shuffled` are the passage's own words in another order. Prints a Markdown table: shares of quotes accepted,
by length in words.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from icr_tasks.training.data.read import records
from icr_tasks.training.rewards import Options
from icr_tasks.training.rewards.match import contained
from icr_tasks.training.rewards.paper_code import similarity

LENGTHS = (3, 5, 8, 15, 23, 30)
KINDS = ("same", "slip", "hard", "other", "shuffled")
OPTIONS = Options()
CHECKS: dict[str, Callable[[str, str], bool]] = {
    "paper": lambda quote, passage: contained(quote, passage, OPTIONS),
    "paper_code": lambda quote, passage: similarity(quote, passage) >= 0.8,
}


def paragraphs(path: Path) -> list[list[str]]:
    """Paragraphs of at least 60 words, per question."""
    out = []
    for record in records(path):
        texts = [" ".join("".join(sentences).split()) for _, sentences in record["context"]]
        out.append([t for t in texts if len(t.split()) >= 60])
    return [part for part in out if len(part) >= 2]


def quote(words: list[str], length: int, r: random.Random) -> list[str]:
    """A random run of words."""
    start = r.randrange(len(words) - length + 1)
    return words[start : start + length]


def pair(questions: list[list[str]], kind: str, length: int, r: random.Random) -> tuple[str, str]:
    """(quote, passage) of a kind."""
    part = r.choice(questions)
    passage, distractor = r.sample(part, 2)
    source = {"hard": distractor, "other": r.choice(r.choice(questions))}.get(kind, passage)
    found = quote(source.split(), length, r)
    if kind == "slip":
        found[r.randrange(length)] = "something"
    if kind == "shuffled":
        r.shuffle(found)
    return " ".join(found), passage


def rates(questions: list[list[str]], pairs: int, seed: int = 0) -> dict[tuple[str, str, int], float]:
    """(check, kind, length) -> share of quotes accepted."""
    out = {}
    for length in LENGTHS:
        for kind in KINDS:
            r = random.Random(f"{seed}/{kind}/{length}")
            drawn = [pair(questions, kind, length, r) for _ in range(pairs)]
            if kind in ("hard", "other"):  # a phrase both passages have is no mistake
                drawn = [(q, p) for q, p in drawn if q not in p]
            for name, check in CHECKS.items():
                out[name, kind, length] = sum(check(q, p) for q, p in drawn) / len(drawn)
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="HotpotQA distractor file (.json, .jsonl, .gz)")
    parser.add_argument("--pairs", type=int, default=2000)
    args = parser.parse_args()
    found = rates(paragraphs(args.file), args.pairs)
    print("| check | quote | " + " | ".join(f"{n} words" for n in LENGTHS) + " |")
    print("|---" * (len(LENGTHS) + 2) + "|")
    for name in CHECKS:
        for kind in KINDS:
            cells = " | ".join(f"{100 * found[name, kind, n]:.2f} %" for n in LENGTHS)
            print(f"| {name} | {kind} | {cells} |")


if __name__ == "__main__":
    main()
