"""Where a context just fits or just does not: cuts, choices and prompts with counters that make joints cost tokens."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import tiny

from icr_tasks.benchmarks.base import Item, Prompt, Unit
from icr_tasks.context import build as building
from icr_tasks.context import fit, quality, retrieve
from icr_tasks.context import pool as pools
from icr_tasks.context.build import Builder, DoesNotFit, dumps, skipped
from icr_tasks.context.retrieval import make
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.settings import Setting

TOKENS = TokenCounter(tiny.tokenizer())  # one token a byte
PLAIN = Prompt("plain", "{context}", unit="{text}", joiner="|")


class Letters(TokenCounter):
    """A token a letter; a separator costs four tokens, but only where nothing follows it."""

    def count(self, text: str, *, special: bool = False) -> int:
        return sum(c != "|" for c in text) + 4 * text.endswith("|")

    def counts(self, texts: list[str]) -> list[int]:
        return [self.count(text) for text in texts]


LETTERS = Letters(tiny.tokenizer())


class Seams(TokenCounter):
    """A token a letter, and one more wherever two letters stand that did not stand together in the text."""

    def __init__(self, text: str, cost: int = 1) -> None:
        super().__init__(tiny.tokenizer())
        self.pairs, self.cost = {text[i : i + 2] for i in range(len(text))}, cost

    def count(self, text: str, *, special: bool = False) -> int:
        return len(text) + self.cost * sum(text[i : i + 2] not in self.pairs for i in range(len(text) - 1))


# ---- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [0, 1, 2, 5])
@pytest.mark.parametrize("budget", range(14))
def test_a_cut_gives_way_for_what_its_joint_costs(budget: int, cost: int) -> None:
    text = "abcdefghijkl"
    counter = Seams(text, cost)
    for rule in ("middle", "end"):
        found = fit.RULES[rule]([Unit("a", text)], PLAIN, budget, counter)
        size = min(budget, len(text))
        if rule == "middle" and 1 < size < len(text):  # two ends meet
            size -= cost
        head = max(size, 0) // 2 if rule == "middle" else max(size, 0)
        tail = max(size, 0) - head
        assert found.text == text[:head] + text[len(text) - tail :], rule
        assert found.kept == ([0] if budget >= len(text) else [])


@pytest.mark.parametrize("budget", range(30))
def test_whole_units_are_counted_as_they_are_sent(budget: int) -> None:
    """Each with its separator while they are chosen, exactly afterwards; nothing where none fits."""
    given = [Unit(str(i), "abcd"[i] * size) for i, size in enumerate((6, 3, 9, 2))]
    left, kept = budget, []
    for i, unit in enumerate(given):
        if len(unit.text) + 1 <= left:
            kept.append(i)
            left -= len(unit.text) + 1
    found = fit.documents(given, PLAIN, budget, TOKENS)
    if kept:
        assert found == fit.Fitted("|".join(given[i].text for i in kept), kept)
    else:
        assert found == fit.Fitted("a" * min(budget, 6), [0] if budget >= 6 else [])
    prefix = [i for n, i in enumerate(range(4)) if sum(len(u.text) + 1 for u in given[: n + 1]) <= budget]
    assert fit.passages(given, PLAIN, budget, TOKENS) == fit.Fitted(
        "|".join(given[i].text for i in prefix), prefix
    )


def test_of_a_first_document_that_is_too_long_nothing_of_the_next_is_shown() -> None:
    prompt = Prompt("p", "{context}", unit="{text}", joiner="-----")
    for budget in (6, 8, 10):
        found = fit.documents([Unit("a", "a" * 6), Unit("b", "b" * 20)], prompt, budget, TOKENS)
        assert found == fit.Fitted("a" * 6, [0])


def test_units_that_cost_more_together_are_taken_out_from_the_end() -> None:
    class Together(TokenCounter):
        """A separator between two units costs three tokens, one at the end none."""

        def count(self, text: str, *, special: bool = False) -> int:
            return len(text) + 2 * text.rstrip("|").count("|")

        def counts(self, texts: list[str]) -> list[int]:
            return [len(text) for text in texts]

    given = [Unit(c, c * 4) for c in "abc"]
    counter = Together(tiny.tokenizer())
    assert [fit.passages(given, PLAIN, n, counter).kept for n in (3, 5, 10, 11, 15, 17, 18)] == [
        [], [0], [0], [0, 1], [0, 1], [0, 1], [0, 1, 2]
    ]  # fmt: skip


# ---- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(80))
def test_a_choice_is_as_long_as_fits_once_joined(seed: int) -> None:
    """Chunks alone cost up to four tokens more than in company: one more is tried while it could fit."""
    draw = random.Random(seed)
    given = [Unit(str(i), "abcdefghijkl"[i] * draw.randint(1, 9)) for i in range(draw.randint(1, 12))]
    sizes = [len(unit.text) for unit in given]
    order = draw.sample(range(len(given)), len(given))
    k = draw.randint(1, sum(sizes) + 2)
    pool = pools.passages(given)

    def chosen() -> tuple[list[int], int, bool]:
        return retrieve._choose(pool, np.array(order), k, LETTERS, PLAIN, "score")

    if sum(sizes) <= k:
        assert chosen() == (list(range(len(given))), sum(sizes), True)
        return
    fitting = [rank for rank, i in enumerate(order) if sizes[i] + 4 <= k]
    if not fitting:
        with pytest.raises(DoesNotFit, match=f"not one passage fits {k} .* has {min(sizes) + 4}"):
            chosen()
        return
    rest = order[fitting[0] :]
    taken = rest[: max(n for n in range(len(rest) + 1) if sum(sizes[i] for i in rest[:n]) <= k)]
    assert chosen() == (taken, sum(sizes[i] for i in taken), False)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_whole_context_is_counted_only_where_it_may_fit(n: int) -> None:
    """Pieces overstate it by four tokens each, and by some sixteen times that at most."""
    given = [Unit(str(i), "x" * 9) for i in range(n)]
    slack = 4 * (n + 16)
    for pool in (pools.passages(given), pools.documents(given, TOKENS, PLAIN, 100, 0)):
        sizes = retrieve._Sizes(pool, np.arange(n), TOKENS, PLAIN)
        assert sizes.all() == [10] * n
        for k, wanted in ((10 * n, True), (10 * n - slack, True), (10 * n - slack - 1, False)):
            fresh = retrieve._Sizes(pool, np.arange(n), TOKENS, PLAIN)
            assert fresh.about(k) is wanted, (k, pool.size)


def test_a_document_of_one_chunk_has_no_neighbours() -> None:
    pool = pools.documents([Unit("a", "one")], TOKENS, PLAIN, 20, 0)
    assert retrieve.with_neighbours(pool, np.array([0]), 2).tolist() == [0]


def item(given: list[Unit], question: str = "b", **more: Any) -> Item:
    return Item("q", question, more.pop("answers", ("bbbb",)), "q", lambda: given, **more)


def rag(given: list[Unit], setting: str, prompt: Prompt, mode: str, **more: Any) -> retrieve.Selection:
    asked = item(given, **more)
    return retrieve.retrieve(asked, given, Setting.parse(setting), TOKENS, prompt, mode=mode)


@pytest.mark.parametrize("kind", ["plain", "ordered", "turns"])
def test_an_order_that_means_something_is_kept(kind: str) -> None:
    given = [Unit(c, f"{c} " * 20, turns=(("user", f"{c} " * 20),)) for c in "abcd"]
    prompt = Prompt("p", "{context}", unit="{text}", joiner="", **({} if kind == "plain" else {kind: True}))
    found = rag(given, "rag@100", prompt, "passages", question="d b")
    shown = [unit.id for unit in found.units]
    assert (
        set(shown[:2]) == {"b", "d"}
        if kind == "plain"
        else shown == sorted(shown) and set(shown) >= {"b", "d"}
    )


def test_what_a_digest_says_of_a_choice() -> None:
    """Of passages and of documents, of a part and of all."""
    given = [Unit(c, c * 40, gold=c in "bd") for c in "abcd"] + [Unit("e", " ")]
    part = rag(given, "rag@90", PLAIN, "passages", question="bbbb" * 10)
    ranked = make("bm25", Setting.parse("rag@90").params).rank(pools.passages(given), "bbbb" * 10).tolist()
    places = [rank for rank, i in enumerate(ranked, 1) if given[i] in part.units and given[i].gold]
    kept = sum(unit.gold for unit in part.units)
    assert part.digest == {
        "k": 90, "n_chunks": 5, "n_kept": len(part.units), "n_tokens": len("|".join(u.text for u in part.units)),
        "whole": False, "recall": kept / 2, "recall_by": "ids", "ranks": places, "n_gold": 2, "n_empty": 1,
    }  # fmt: skip
    assert [owner for owner, _, _ in part.spans] == [given.index(u) for u in part.units] and 1 in places
    whole = rag(given, "rag@4k", PLAIN, "passages")
    assert (whole.digest["whole"], whole.digest["n_kept"], whole.spans) == (True, 5, [])
    assert list(whole.units) == given
    text = [Unit("a", "rain " * 20 + "bbbb " + "snow " * 20), Unit("b", "")]
    cut = rag(text, "rag@60,chunk=40", PLAIN, "documents", question="bbbb")
    assert (cut.digest["n_gold"], cut.digest["n_empty"], cut.digest["recall"]) == (None, 1, 1.0)
    assert cut.digest["ranks"] == [1] and [(a, b) for _, a, b in cut.spans] and "bbbb" in cut.units[0].text
    for setting in ("rag@60,chunk=40,neighbours=1", "rag@60,chunk=40,document"):
        assert rag(text, setting, PLAIN, "documents", question="bbbb").digest["recall"] == 1.0
    with pytest.raises(DoesNotFit, match="the documents of this item are empty"):
        rag([Unit("a", " "), Unit("b", "")], "rag@60,chunk=40", PLAIN, "documents")


def test_measures_need_a_digest_for_every_item() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        quality.by_type([({}, "a")], [])
    one = {"recall": 1.0, "ranks": [1], "n_gold": None}
    assert quality.measured(one) == {"recall": 1.0, "mrr": 1.0, "ndcg": 1.0}
    assert quality.measured({**one, "ranks": [3, 2], "n_gold": 2})["mrr"] == 0.5  # type: ignore[index]
    kinds = [({"kind": k, "level": 1}, k) for k in ("a", "b")]
    assert set(quality.by_type(kinds, [one, one])) == {"all", "kind a", "kind b"}


# ---- prompts ---------------------------------------------------------------------------------------------------------


def builder(prompt: Prompt, window: int | None, gen: int = 10, **more: Any) -> Builder:
    setting = Setting.parse(more.pop("setting", "full"))
    return Builder(
        more.pop("benchmark", "helmet"),
        setting,
        prompt,
        more.pop("tokens", TOKENS),
        window,
        gen,
        None,
        **more,
    )


@pytest.mark.parametrize("frame", ["", "Q: "])
@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_window_with_room_for_a_token_shows_that_token(frame: str, room: int) -> None:
    prompt = Prompt("p", frame + "{context}", unit="{text}")
    built = builder(prompt, len(frame) + room + 10, truncation="end").build(item([Unit("a", "abcdefgh")]))
    assert built.prompt == frame + "abcdefgh"[:room]
    with pytest.raises(DoesNotFit, match=f"alone need {len(frame)} tokens"):
        builder(prompt, len(frame) + 10, truncation="end").build(item([Unit("a", "abcdefgh")]))


@pytest.mark.parametrize("extra", [1, 3, 7])
def test_what_a_rendered_prompt_is_over_is_given_back_at_once(
    extra: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame costs more around a context than around none."""

    class Around(TokenCounter):
        def count(self, text: str, *, special: bool = False) -> int:
            return len(text) + extra * (text.startswith("Q: ") and len(text) > 3)

    asked: list[int] = []
    real = fit.RULES["end"]
    monkeypatch.setitem(
        fit.RULES, "end", lambda u, p, budget, t: asked.append(budget) or real(u, p, budget, t)
    )
    prompt = Prompt("p", "Q: {context}", unit="{text}")
    more = {"tokens": Around(tiny.tokenizer()), "truncation": "end"}
    built = builder(prompt, 3 + 12 + 10, **more).build(item([Unit("a", "abcdefghijklmnopqrst")]))
    assert built.prompt == "Q: " + "abcdefghijkl"[: 12 - extra] and asked == [12, 12 - extra]
    with pytest.raises(DoesNotFit, match="not one piece of context fits: .* leave 4 for the prompt"):
        builder(prompt, 3 + 1 + 10, **more).build(item([Unit("a", "abcdefghijklmnopqrst")]))


def test_a_conversation_is_sent_as_its_turns() -> None:
    """What precedes it first; the boundary is the end of its last message, also where that was said before."""
    given = [
        Unit("1", "x", turns=(("user", "hi"), ("assistant", "yes"))),
        Unit("2", "y", turns=(("user", "hi"),)),
    ]
    prompt = Prompt("talk", "{question}", turns=True, no_context="{question}")
    asked = item(given, "hi there?", fields={"opening": [["system", "be kind"]]})
    built = builder(prompt, None).build(asked)
    lines = ["System: be kind", "User: hi", "Assistant: yes", "User: hi", "User: hi there?"]
    assert built.prompt == "\n\n".join(lines)
    assert built.boundary == built.prompt.rindex("hi") + 2
    sent: list[Any] = []
    told = builder(prompt, None)
    told.template = lambda messages, **_: sent.append([m["content"] for m in messages]) or "hi"
    told.build(asked)
    assert sent[0] == ["be kind", "hi", "yes", "hi", "hi there?"]
    plain = Prompt("p", "{context}\n{question}", unit="{text}")
    assert builder(plain, None).build(asked).prompt == "x\n\ny\nhi there?"
    complete = Prompt("c", "{context}", unit="{text}", chat=False, prefill="Answer:")
    assert builder(complete, None).build(asked).prompt == "x\n\ny\nAnswer:"


def test_no_more_than_fifty_dropped_passages_are_named() -> None:
    given = [Unit(f"u{i}", "x" * 4) for i in range(60)]
    built = builder(Prompt("p", "{context}", unit="{text}", joiner="|"), 5 * 3 + 10).build(item(given))
    assert built.digest["n_units_kept"] == 3 and built.digest["dropped"] == [f"u{i}" for i in range(3, 53)]


def test_gold_stands_at_the_end_of_the_prompt() -> None:
    given = [Unit(str(i), f"t{i}", gold=i in (0, 2)) for i in range(3)]
    prompt = Prompt("p", "{context}\nQ", unit="<{i}>{text}", joiner="|")
    told = builder(prompt, None, setting="gold", benchmark="helmet_rag").build(item(given))
    assert told.prompt == "<0>t0|<1>t1|<2>t2\nQ\n\nRelevant documents:\n<0>t0\n\n<2>t2\n\n"
    only = builder(prompt, None, setting="gold@only", benchmark="helmet_rag").build(item(given))
    assert (
        only.prompt == "<0>t0|<1>t2\nQ" and only.digest["gold_ids"] == [0, 1] and only.digest["n_gold"] == 2
    )


def test_options_and_fields_fill_the_prompt() -> None:
    prompt = Prompt(
        "p", "{context} {choice_a}{choice_b}{choice_c}{choice_d} {instruction}{demos}{rule}", unit="{text}"
    )
    asked = item([Unit("a", "x")], options=("1", "2", "3"), fields={"rule": "r", "list": [1]})
    assert builder(prompt, None).build(asked).prompt == "x 123{choice_d} r"
    five = item([Unit("a", "x")], options=("1", "2", "3", "4", "5"), fields={"instruction": "i", "rule": "r"})
    told = builder(prompt, None)
    told.demos = lambda item: f"d{item.id}"
    assert told.build(five).prompt == "x 1234 idqr"


def test_a_template_may_give_messages_that_know_their_text() -> None:
    """lm-eval's JsonChatStr: the engine gets the messages, the text is counted and hashed."""

    class Chat:
        prompt = "user: x Who?"

    for rendered in (Chat(), Chat.prompt):
        made = builder(Prompt("p", "{context} {question}", unit="{text}"), None)
        made.template = lambda messages, rendered=rendered, **_: rendered
        built = made.build(item([Unit("a", "x")], "Who?"))
        assert built.prompt is rendered and built.digest["head"] == Chat.prompt
        assert (built.digest["n_chars"], built.digest["n_prompt_tokens"]) == (12, 12)
        assert built.boundary == len("user: x")


def test_digests_are_texts_in_one_order() -> None:
    assert dumps({"b": "é", "a": 1}) == '{"a": 1, "b": "é"}'
    assert skipped("too long") == {
        "icr": 1, "sha256": None, "truncated": False, "n_prompt_tokens": None, "error": "too long"
    }  # fmt: skip
    assert (building.GOLD_INTRO, builder(PLAIN, None).overflow) == ("Relevant documents:\n", "truncate")
