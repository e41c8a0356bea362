"""Number words to digits: our rules beside text2digits and word2number, on short texts written by hand.

    python speed/number_words.py                    # those libraries that are installed, one table

`read`: texts whose number words become the digits a person writes; `left`: texts without a number of their own that
stay as they are (a library that turns "one of them" into "1 of them" harms).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from icr_tasks.metrics.numbers import as_digits

READ = {
    "seven": "7",
    "twelve": "12",
    "twenty one": "21",
    "forty two years": "42 years",
    "ninety nine red balloons": "99 red balloons",
    "one hundred": "100",
    "a hundred ships": "a 100 ships",
    "two hundred and five": "205",
    "three hundred forty": "340",
    "one thousand": "1000",
    "two thousand and eight": "2008",
    "five thousand three hundred": "5300",
    "nineteen eighty four": "1984",
    "nineteen forty five": "1945",
    "twenty twelve": "2012",
    "ten million": "10000000",
    "3.5 million": "3500000",
    "12 thousand": "12000",
    "one million two hundred thousand": "1200000",
    "two billion": "2000000000",
    "fourth of july": "4 of july",
    "twenty first century": "21 century",
    "the eleventh hour": "the 11 hour",
    "thirtieth": "30",
}
LEFT = (
    "a second later",
    "hundreds of ships",
    "millions of people",
    "a tent on the avenue",
    "no number here",
    "the often forgotten king",
    "someone and anyone",
    "stone",
    "5 of 7 men",
    "1234",
    "zeroed in",
)
PHRASES = {
    "one two three": "1 2 3",
    "twenty 5 cent coins": "20 5 cent coins",
    "two or three": "2 or 3",
    "seven eleven": "7 11",
}


def own(text: str) -> str:
    """Our rules."""
    return " ".join(as_digits(text.split()))


def libraries() -> dict[str, Callable[[str], str]]:
    """Ours, and each library that is installed."""
    found: dict[str, Callable[[str], str]] = {"own rules": own}
    try:
        from text2digits.text2digits import Text2Digits
    except ImportError:
        print("text2digits is not installed")
    else:
        found["text2digits"] = Text2Digits().convert
    try:
        from word2number import w2n
    except ImportError:
        print("word2number is not installed")
    else:

        def one(text: str) -> str:
            """word2number gives the number alone: it takes the place of the words it can have come from."""
            try:
                number = w2n.word_to_num(text)
            except (ValueError, IndexError):
                return text
            words = r"(?:\b(?:" + "|".join(w2n.american_number_system) + r"|and)\b\s?)+"
            return re.sub(words, f"{number:f}".rstrip("0").rstrip(".") + " ", text, count=1).strip()

        found["word2number"] = one
    return found


def main() -> None:
    """Prints the table."""
    print(
        f"| | read, of {len(READ)} | left alone, of {len(LEFT)} | apart, of {len(PHRASES)} |\n|---|---:|---:|---:|"
    )
    for name, convert in libraries().items():
        read = sum(convert(text) == digits for text, digits in READ.items())
        left = sum(convert(text) == text for text in LEFT)
        apart = sum(convert(text) == digits for text, digits in PHRASES.items())
        print(f"| {name} | {read} | {left} | {apart} |")


if __name__ == "__main__":
    main()
