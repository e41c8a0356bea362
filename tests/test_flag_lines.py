"""A few of the generated command lines, and what is in all of them; `make faults` runs all."""

from __future__ import annotations

import itertools
import json

from flag_lines import OPTIONS, documents, lines, run

PARTS = 15


def test_no_line_of_a_part_ends_wrong() -> None:
    docs = documents()
    ends = [(line, *run(line, docs)) for line in lines()[PARTS - 1 :: PARTS]]
    wrong = [json.dumps({**dict(line.chosen), "words": said}) for line, end, said in ends if end == "wrong"]
    assert not wrong, "\n".join(wrong)
    assert {"right", "refused"} == {end for _, end, _ in ends}


def test_every_two_values_of_two_options_meet() -> None:
    every = lines()
    assert every == lines() and len(every) >= 90
    assert sum(not line.refused for line in every) > len(every) / 2
    met = {frozenset(pair) for line in every for pair in itertools.combinations(line.chosen, 2)}
    fine = {o: [v for v, (_, why) in values.items() if why is None] for o, values in OPTIONS.items()}
    for a, b in itertools.combinations(fine, 2):
        for x, y in itertools.product(fine[a], fine[b]):
            assert frozenset(((a, x), (b, y))) in met, (a, x, b, y)
    assert {pair for line in every for pair in line.chosen} == {
        (option, value) for option, values in OPTIONS.items() for value in values
    }
