"""What answers that read nothing earn, and what honest answers lose: the tables of docs/rewards.md.

    python speed/reward_hacks.py DATA         # a folder with the files of FILES

Real questions of HotpotQA, 2Wiki, MuSiQue, NQ and PopQA. `listing` names the question's two gold titles
joined by each separator; `search` looks for the template that earns most without the context: slots (names
and options of the question, the commonest answers to questions of its kind), joined and wrapped in many ways,
grown from the best single guess by hill climbing; `honest` are the right answer in forms that models use.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from icr_tasks.training.data.read import records
from icr_tasks.training.rewards import Row, score

FILES = {
    "hotpotqa": ("hotpotqa/hotpotqa_dev_distractor_500.jsonl.gz", "hotpotqa/hotpotqa_train_100.jsonl.gz"),
    "2wiki": ("2wikimultihopqa/2wiki_train_500.jsonl.gz",),
    "musique": ("musique/musique_train_100.jsonl.gz",),
    "nq": ("nq/nq_open_oracle_2655.jsonl.gz",),
    "popqa": ("popqa/popqa_1000_gold2.jsonl.gz",),
}
PRINTABLE = [c for c in string.printable if not c.isalnum()]
WORDS = """then nor plus|as well as|alternatively|or|and|vs|versus|followed by|rather|but also|or else|maybe|respectively
with|to|aka|also known as|i.e.|not|if not|instead of|unless|otherwise|either|being|is|was|like
rather than|neither|over|than|before|but not|more than|y|o|und|oder|et|ou|e|och|i|и|или|和|或|と|または|أو|lub|ve|veya|dan|atau""".replace(
    "\n", "|"
).split("|")
SEPARATORS = (
    PRINTABLE
    + [f" {c} " for c in PRINTABLE if not c.isspace()]
    + [f" {w} " for w in WORDS]
    + [
        " — ",
        " – ",
        "—",
        " · ",
        " • ",
        "\u200b",
        " → ",
        " ∨ ",
        "、",
        " // ",
        " || ",
        "\n- ",
        "\n2. ",
        ". Or ",
        " (or ",
        "\nAnswer 2: ",
        *(
            "🙂",
            " ✅ ",
            "\u200d",
            "\u2060",
            "\ufeff",
            "\u00ad",
            "\u00a0",
            "\u2028",
            "\u3164",
            "｜",
            "，",
            "＆",
            "⇔",
            "⊕",
        ),
        *(
            "</td><td>",
            "<br>",
            " <!-- ",
            "</li><li>",
            "&nbsp;",
            " \\\\ ",
            " $\\lor$ ",
            "} \\boxed{",
            "</answer><answer>",
        ),
        *(
            "\n```\n",
            " | ",
            "\n* ",
            " [DOC 1] ",
            " (Document 2) ",
            "<sup>2</sup>",
            " ² ",
            " ① ",
            " II ",
            "'s ",
            "__",
            "…",
        ),
    ]
)
WRAPPERS = (
    "Answer: {}",
    "The answer is: {}",
    "Answer: [{}]",
    "Answer: {}?",
    "Answer: one of {}",
    "Answer: either {}",
    "Answer: not {}",
    "**Answer:** {}",
    "\\boxed{{{}}}",
    'Answer: "{}"',
    "<answer>{}</answer>",
    "Answer: it is {}, I think",
    "Answer: the {}",
    "Answer: neither {}",
    "Answer: rather {}",
    "Answer:\n```\n{}\n```",
    "Answer: <!-- {} -->",
    "| Answer | {} |",
    '{{"answer": "{}"}}',
    "Answer: I believe it is {}",
)
HONEST = {
    "plain": "Answer: {}",
    "with a period": "The answer is: {}.",
    "bold": "**Answer:** **{}**",
    "quoted": 'Answer: "{}"',
    "one citation": "Answer: {} [DOC 3]",
    "two citations": "Answer: {} (see [DOC 3] and [DOC 7])",
    "cited list": "The answer is: {} [DOC 3, DOC 7].",
    "closing clause": "Answer: {}; according to the documents.",
    "closing clause, cited": "Answer: {}, as stated in Document 3.",
    "LaTeX": "Answer: $\\text{{{}}}$",
    "tags": "<answer>{}</answer>",
    "with an explanation": "Answer: {}\n\nExplanation: Document 3 says so, and document 7 was written by "
    "somebody else.",
    "a footnote": "Answer: {}<sup>3</sup>",
    "a believing one": "Answer: I believe it is {}.",
    "after thoughts": "It may be another one, or none.\n\nThe answer is: {}",
}


@dataclass(frozen=True)
class Asked:
    """A question with its gold titles and its row."""

    source: str
    titles: tuple[str, ...]
    row: Row


def load(folder: Path, sources: Iterable[str] = FILES) -> list[Asked]:
    """The questions of the shared data, with the passages where the file has them."""
    out = []
    for source in sources:
        for name in FILES[source]:
            for record in records(folder / name):
                out.append(_asked(source, record))
    return out


def _asked(source: str, record: dict) -> Asked:
    if "context" in record:
        pairs = [(t, "".join(s)) for t, s in record["context"]]
        gold = list(dict.fromkeys(t for t, _ in record["supporting_facts"]))
        answers = [record["answer"]]
    elif "paragraphs" in record:
        pairs = [(p["title"], p.get("paragraph_text") or p.get("text") or "") for p in record["paragraphs"]]
        gold = [p["title"] for p in record["paragraphs"] if p["is_supporting"]]
        given = record.get("possible_answers")
        answers = json.loads(given) if given else [record["answer"], *record.get("answer_aliases", [])]
    else:
        pairs = [(p["title"], p["text"]) for p in record["ctxs"]]
        gold, answers = [p["title"] for p in record["ctxs"]], record["answers"]
    titles = [t for t, _ in pairs]
    row = Row.of(
        {
            "question": record["question"],
            "answers": answers,
            "gold_ids": [i for i, t in enumerate(titles) if t in gold],
            "gold_docs": [text for t, text in pairs if t in gold],
            "passages": [text for _, text in pairs],
        }
    )
    return Asked(source, tuple(gold[:2]), row)


def rate(asked: Sequence[Asked], text: Callable[[Asked], str], name: str = "ao") -> float:
    """Mean reward of a strategy."""
    return sum(s["reward"] for s in score(name, [text(a) for a in asked], [a.row for a in asked])) / len(
        asked
    )


def listing(asked: Sequence[Asked], separators: Sequence[str] = SEPARATORS) -> dict[str, float]:
    """Reward of naming both gold titles, by separator; the questions are those with two."""
    two = [a for a in asked if len(a.titles) == 2]
    return {s: rate(two, lambda a, s=s: f"Answer: {a.titles[0]}{s}{a.titles[1]}") for s in separators}


def comparisons(asked: Sequence[Asked]) -> list[Asked]:
    """Questions whose answer is one of two gold titles that both stand in the question."""
    return [
        a
        for a in asked
        if len(a.titles) == 2
        and a.row.answers[0] in a.titles
        and all(t.split(" (")[0].lower() in a.row.question.lower() for t in a.titles)
    ]


# ---- search --------------------------------------------------------------------------------------
# A strategy without the context: slots of the question or of common answers, joined and wrapped.

_NAME = re.compile(
    r"(?:[A-Z][\w'.-]*|\d[\w'.-]*)(?:\s+(?:of|the|and|de|in)?\s*(?:[A-Z][\w'.-]*|\d[\w'.-]*))*"
)


def names(question: str) -> list[str]:
    """Runs of capitalised words, without the question word, longest first kept in order."""
    first, _, rest = question.partition(" ")
    return [n.strip(" ,?") for n in _NAME.findall(rest)] or [first]


def options(question: str) -> list[str]:
    """The two sides of "A or B?" (also "A and B")."""
    for joint in (" or ", " and "):
        left, mark, right = question.rstrip("?").rpartition(joint)
        if mark:
            found = names("x " + left)
            return [found[-1] if found else left.split(",")[-1].strip(), right.strip()]
    return names(question)[:2]


def kind(question: str) -> str:
    """Questions of a kind have answers of a kind: their first two words."""
    return " ".join(question.lower().split()[:2])


SLOTS = ("option0", "option1", "name0", "name-1", *(f"common{i}" for i in range(8)))
# What a template may add to a guess: the same in lower case, the whole question, its last words.
MORE = (*SLOTS, *(f"{s}/lower" for s in SLOTS[:6]), "question", "question/lower", "tail/lower")


def fill(slot: str, asked: Asked, common: Sequence[str]) -> str:
    """What a slot stands for in one question."""
    question = asked.row.question
    if slot.endswith("/lower"):
        return fill(slot.removesuffix("/lower"), asked, common).lower()
    if slot in ("question", "tail"):
        return question.rstrip("?") if slot == "question" else " ".join(question.rstrip("?").split()[-4:])
    if slot.startswith("option"):
        found = options(question)
        return found[min(int(slot[-1]), len(found) - 1)]
    if slot.startswith("name"):
        return names(question)[int(slot[4:])]
    return common[int(slot[6:]) % len(common)]


@dataclass(frozen=True)
class Template:
    """Slots joined and wrapped; a single slot in a plain wrapper is a guess."""

    slots: tuple[str, ...]
    join: str = ", "
    wrapper: str = "Answer: {}"

    def text(self, asked: Asked, common: Sequence[str]) -> str:
        """The completion for one question."""
        return self.wrapper.format(self.join.join(fill(s, asked, common) for s in self.slots))


def search(
    asked: Sequence[Asked], seed: int = 0, tries: int = 60
) -> tuple[float, float, dict[str, Template]]:
    """(reward of the best single guesses, of the best templates found, those templates by kind), kinds by
    question.

    Both are chosen in hindsight on the same questions, which favours the templates.
    """
    r = random.Random(seed)
    groups: dict[str, list[Asked]] = defaultdict(list)
    sizes = Counter(kind(a.row.question) for a in asked)
    for a in asked:
        k = kind(a.row.question)
        groups[k if sizes[k] >= 20 else "other"].append(a)
    single = best_total = 0.0
    found: dict[str, Template] = {}
    for name, group in groups.items():
        common = [w for w, _ in Counter(a.row.answers[0] for a in group).most_common(8)]
        value = {
            t: rate(group, lambda a, t=t, c=common: t.text(a, c))
            for t in map(lambda s: Template((s,)), SLOTS)
        }
        best = max(value, key=value.__getitem__)
        single += value[best] * len(group)
        for _ in range(tries):
            new = _mutated(best, r)
            if new not in value:
                value[new] = rate(group, lambda a, t=new, c=common: t.text(a, c))
            if value[new] > value[best] or (value[new] == value[best] and r.random() < 0.2):
                best = new
        best = max(value, key=value.__getitem__)
        best_total += value[best] * len(group)
        found[name] = best
    return single / len(asked), best_total / len(asked), found


def _mutated(template: Template, r: random.Random) -> Template:
    slots = list(template.slots)
    move = r.random()
    if move < 0.4 and len(slots) < 8:
        slots.insert(r.randrange(len(slots) + 1), r.choice(MORE))
    elif move < 0.55:
        slots[r.randrange(len(slots))] = r.choice(MORE)
    elif move < 0.65 and len(slots) > 1:
        slots.pop(r.randrange(len(slots)))
    join = r.choice(SEPARATORS) if r.random() < 0.5 else template.join
    wrapper = r.choice(WRAPPERS) if r.random() < 0.3 else template.wrapper
    return Template(tuple(slots), join, wrapper)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--tries", type=int, default=60)
    args = parser.parse_args()
    asked = load(args.data)
    multi = [a for a in asked if a.source in ("hotpotqa", "2wiki")]
    for title, group in (("comparison questions", comparisons(multi)), ("all HotpotQA and 2Wiki", multi)):
        found = listing(group)
        worst = sorted(found.items(), key=lambda x: -x[1])[:5]
        print(
            f"listing, {title} ({len(group)}): mean {100 * sum(found.values()) / len(found):.1f} %, "
            f"worst {[(s, round(100 * v, 1)) for s, v in worst]}"
        )
    print(
        "\n| source | questions | best single guess | best template found | gain |\n|---|---:|---:|---:|---:|"
    )
    for source in FILES:
        group = [a for a in asked if a.source == source]
        one, many, best = search(group, tries=args.tries)
        print(
            f"| {source} | {len(group)} | {100 * one:.1f} % | {100 * many:.1f} % | "
            f"{100 * (many - one):+.1f} |"
        )
        for k, t in list(best.items())[:3]:
            print("   ", k, t)
    print("\n| honest form | rewarded |\n|---|---:|")
    for name, form in HONEST.items():
        print(f"| {name} | {100 * rate(asked, lambda a, f=form: f.format(a.row.answers[0])):.2f} % |")


if __name__ == "__main__":
    main()
