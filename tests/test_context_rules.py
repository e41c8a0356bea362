"""Rules of context building, each against a few lines written again here: cuts, numbering, system text,
recall, pieces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tiny

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Prompt, Unit
from icr_tasks.context import fit, pool, quality
from icr_tasks.context.build import Builder
from icr_tasks.context.retrieval import make
from icr_tasks.context.retrieve import recall
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.settings import Setting

TOKENS = TokenCounter(tiny.tokenizer())  # one token a byte
PLAIN = Prompt("plain", "{context}", unit="{text}", joiner="|")


def units(*sizes: int) -> list[Unit]:
    return [Unit(str(i), "abcdefghij"[i] * size, gold=i == 2) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("budget", [10, 11, 25, 40])
def test_documents_skips_what_is_too_long_and_passages_stops_there(budget: int) -> None:
    given = units(4, 30, 4, 3)
    left, kept = budget, []
    for i, unit in enumerate(given):
        if len(unit.text) + 1 <= left:
            kept.append(i)
            left -= len(unit.text) + 1
    assert fit.documents(given, PLAIN, budget, TOKENS).kept == kept
    prefix = next(n for n in range(4, -1, -1) if sum(len(u.text) + 1 for u in given[:n]) <= budget)
    assert fit.passages(given, PLAIN, budget, TOKENS).kept == list(range(prefix))


@pytest.mark.parametrize("budget", [2, 7, 10, 19])
def test_middle_keeps_half_and_half_and_end_the_beginning(budget: int) -> None:
    given = [Unit("a", "".join(chr(97 + i % 26) for i in range(60)))]
    text = given[0].text
    head = budget // 2
    assert fit.middle(given, PLAIN, budget, TOKENS).text == text[:head] + text[60 - (budget - head) :]
    assert fit.end(given, PLAIN, budget, TOKENS).text == text[:budget]


@pytest.mark.parametrize("budget", range(1, 23))
def test_a_passage_that_is_cut_is_not_kept(budget: int) -> None:
    given = units(6, 6, 6)
    context = PLAIN.context(given)
    for rule, shown in (
        ("end", set(range(budget))),
        ("middle", {*range(budget // 2), *range(len(context) - (budget - budget // 2), len(context))}),
    ):
        spans = [range(7 * i, 7 * i + 6) for i in range(3)]
        expected = [i for i, span in enumerate(spans) if budget >= len(context) or set(span) <= shown]
        assert fit.RULES[rule](given, PLAIN, budget, TOKENS).kept == expected, rule


def builder(benchmark: str, prompt: str | None, window: int | None, **more: Any) -> Builder:
    template = more.pop("template", None)
    dataset = "nq" if benchmark == "helmet_rag" else "qa"
    return Builder(
        benchmark,
        Setting.parse(more.pop("setting", "full")),
        base.get(benchmark, prompt, dataset),
        TOKENS,
        window,
        8,
        template,
        **more,
    )


def passages(n: int = 8, gold: tuple[int, ...] = (5,)) -> Item:
    given = [Unit(f"p{i}", f"passage number {i} " + "x" * 40, gold=i in gold) for i in range(n)]
    return Item("1", "which?", ("5",), "c", lambda: given)


def test_gold_ids_name_what_the_prompt_shows() -> None:
    """After any cut, [DOC i] of every gold id is followed by a gold passage, and no other gold stands in the
    prompt."""
    for rule in ("passages", "documents", "end", "middle"):
        for window in (720, 780, 850, 930, 5000):
            for gold in ((0,), (1, 6), (5,), (7,)):
                built = builder("helmet_rag", "id", window, truncation=rule).build(passages(gold=gold))
                whole = {
                    i for i in range(8) if f"passage number {i} " + "x" * 40 in built.prompt and i in gold
                }
                found = built.digest["gold_ids"]
                assert len(found) == len(whole) == built.digest["gold_kept"], (rule, window, gold)
                for number in found:
                    text = built.prompt.split(f"[DOC {number}]\n")[1]
                    assert any(text.startswith(f"passage number {i} ") for i in gold), (rule, window, gold)


def test_a_system_instruction_stands_before_ours() -> None:
    seen: list[Any] = []

    def template(messages: list[dict[str, str]], **_: Any) -> str:
        seen.append([dict(m) for m in messages])
        return "".join(m["role"] + ":" + m["content"] for m in messages)

    for name in base.table("helmet_rag", "nq"):
        prompt = base.get("helmet_rag", name, "nq")
        seen.clear()
        if not prompt.chat:
            continue
        builder("helmet_rag", name, None, system="BE BRIEF", template=template).build(passages())
        first = seen[0][0]
        ours = f"\n\n{prompt.system}" if prompt.system else ""
        assert first == {"role": "system", "content": "BE BRIEF" + ours}
        assert [m["role"] for m in seen[0]].count("system") == 1


def test_special_tokens_count_only_where_the_engine_adds_them() -> None:
    class Counting(TokenCounter):
        def count(self, text: str, *, special: bool = False) -> int:
            return super().count(text) + 7 * special

    for template, extra in ((None, 7), (lambda messages, **_: "".join(m["content"] for m in messages), 0)):
        made = builder("infbench", None, None, template=template)
        made.tokens = Counting(tiny.tokenizer())
        item = Item("1", "why?", ("x",), "b", lambda: [Unit("b", "text " * 10)])
        built = made.build(item)
        assert built.digest["n_prompt_tokens"] == len(built.prompt.encode()) + extra


def test_recall_is_the_share_of_the_gold() -> None:
    given = [Unit(str(i), f"t{i}", gold=i < 3) for i in range(6)]
    item = Item("1", "q", ("t",), "c", lambda: given)
    for kept in ([], [0], [1, 4], [0, 1, 2], [3, 4]):
        share = len({0, 1, 2} & set(kept)) / 3
        assert recall(item, given, [given[i] for i in kept], True) == (share, "ids")
    assert recall(item, given[3:], given[3:], True) == (None, None)


def test_random_differs_by_question_and_by_seed_and_repeats() -> None:
    shared = pool.passages([Unit(str(i), f"text {i}") for i in range(40)])
    orders = {
        (seed, q): tuple(make("random", {"seed": seed}).rank(shared, q).tolist())
        for seed in (0, 1)
        for q in ("a?", "b?", "c?")
    }
    assert len(set(orders.values())) == 6
    assert orders[0, "a?"] == tuple(make("random", {"seed": 0}).rank(shared, "a?").tolist())


def test_measures_by_hand() -> None:
    digest = {"recall": 2 / 3, "ranks": [2, 5], "n_gold": 3}
    found = quality.measured(digest)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx(
        {"recall": 2 / 3, "mrr": 0.5, "ndcg": (1 / math.log2(3) + 1 / math.log2(6)) / ideal}
    )
    assert quality.measured({"recall": 0.0, "ranks": [], "n_gold": None}) == {
        "recall": 0.0,
        "mrr": 0.0,
        "ndcg": 0.0,
    }
    assert quality.measured({"recall": None, "ranks": None}) is None
    every = quality.by_type([({"kind": "hop"}, 1), ({"kind": "single"}, 2), ({}, 3)], [digest] * 3)
    assert {name: len(rows) for name, rows in every.items()} == {"all": 3, "kind hop": 1, "kind single": 1}


def test_the_best_piece_scores_a_chunk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.context.retrieval import embedder

    def by_letter(texts: list[str]) -> np.ndarray:
        return np.array([[t.count("z") + 1e-3, t.count("y") + 1e-3, 1.0] for t in texts], dtype=np.float32)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(embedder.ENGINES, "letters", lambda *_: by_letter)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "sentence_bert_config.json").write_text('{"max_seq_length": 10}')
    (tmp_path / "m" / "model.safetensors").write_bytes(b"letters")
    found = make("dense", Setting.parse(f"rag@4k,embedder={tmp_path / 'm'}").params, {"engine": "letters"})
    text = "a" * 25 + " " + "z" * 25 + " " + "y" * 25
    shared = pool.passages([Unit("a", text), Unit("b", "a" * 25)])
    pieces = found.embedder.reading.split([text])[0]
    vectors = by_letter(pieces) / np.linalg.norm(by_letter(pieces), axis=1, keepdims=True)
    query = by_letter(["zz"])[0] / np.linalg.norm(by_letter(["zz"])[0])
    assert len(pieces) >= 3
    assert found.scores(shared, "zz")[0] == pytest.approx(float((vectors @ query).max()), abs=2e-3)
