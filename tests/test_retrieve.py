"""rag@k: what is shown depends on the question, stays within k tokens, and is the whole context when that
fits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks import benchmarks
from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Item, Unit
from icr_tasks.context import pool
from icr_tasks.context.build import Builder, DoesNotFit
from icr_tasks.context.retrieve import answers, contains
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting
from icr_tasks.storage import Lru

TOKENS = TokenCounter(tiny.tokenizer())  # one token a byte
NAMES = ("Ada", "Bea", "Cleo", "Dora", "Edna", "Fay", "Gwen", "Hope")


def story(n: int = 8, filler: int = 40) -> str:
    return " ".join(
        f"{name} keeps a {name.lower()}bird. " + "rain fell again " * filler for name in NAMES[:n]
    )


def book(text: str, question: str = "What does Gwen keep?", **more: Any) -> Item:
    return Item("b-0", question, ("gwenbird",), "b", lambda: [Unit("b", text)], **more)


def passages(n: int = 30, gold: int = 17, question: str = "what is the colour of item 17?") -> Item:
    units = [
        Unit(f"p{i}", f"item {i} has colour shade{i} " + "x" * (i % 7), gold=i == gold) for i in range(n)
    ]
    return Item("q-0", question, (f"shade{gold}",), "q", lambda: units)


def builder(
    setting: str, benchmark: str = "infbench", dataset: str = "qa", prompt: str | None = None
) -> Builder:
    return Builder(
        benchmark, Setting.parse(setting), base.get(benchmark, prompt, dataset), TOKENS, None, 16, None
    )


def shown(built: Any) -> str:
    return built.prompt.split("answer the question.\n\n")[1].split("\n\nQuestion:")[0]


def test_the_prompt_changes_with_the_question() -> None:
    text = story()
    for name in NAMES:
        built = builder("rag@1k,chunk=512").build(book(text, f"What does {name} keep?"))
        assert f"{name.lower()}bird" in shown(built)
    first, second = (
        builder("rag@1k,chunk=512").build(book(text, q)).prompt
        for q in ("What of Ada Bea?", "What of Hope Gwen?")
    )
    assert first.split("Question:")[0] != second.split("Question:")[0]


@pytest.mark.parametrize("retriever", ["bm25", "random", "head"])
@pytest.mark.parametrize("k", [512, 700, 1024, 2048, 3000, 4096])
@pytest.mark.parametrize("order", ["score", "document"])
def test_tokens_are_within_k_and_less_than_a_chunk_is_left(retriever: str, k: int, order: str) -> None:
    setting = Setting.parse(f"rag@{k},{retriever},chunk=256,{order}")
    built = builder(str(setting)).build(book(story()))
    found = built.digest["retrieval"]
    assert found["n_tokens"] == TOKENS.count(shown(built)) == built.digest["n_context_tokens"]
    assert k - 256 < found["n_tokens"] <= k
    assert not built.digest["truncated"] and 0 < found["n_kept"] < found["n_chunks"]


@settings(max_examples=60, deadline=None)
@given(
    st.text(min_size=1, max_size=900),
    st.integers(64, 900),
    st.integers(0, 20),
    st.sampled_from(["bm25", "random"]),
)
def test_any_text_and_budget(text: str, k: int, overlap: int, retriever: str) -> None:
    setting = f"rag@{k},{retriever},chunk={max(k // 3, 24)},overlap={overlap}"
    try:
        built = builder(setting).build(book(text))
    except DoesNotFit:
        assert not text.strip()
        return
    found = built.digest["retrieval"]
    assert found["n_tokens"] <= k
    assert found["whole"] == (len(text.encode()) <= k)
    if found["whole"]:
        assert text in built.prompt
    else:
        assert k - found["n_tokens"] < max(k // 3, 24)


def test_a_short_document_is_left_as_it_is() -> None:
    item = book(story(3))
    for setting in ("rag@1M", "rag@1M,document", "rag@1M,random", "rag@1M,chunk=100,overlap=20"):
        assert builder(setting).build(item).prompt == builder("full").build(item).prompt
    passage = passages()
    for prompt in ("ao", "id"):
        full, rag = (builder(s, "helmet_rag", "nq", prompt).build(passage) for s in ("full", "rag@64k"))
        assert full.prompt == rag.prompt and full.digest["gold_ids"] == rag.digest["gold_ids"]


def test_document_order_restores_position_and_score_order_does_not() -> None:
    text = story()
    question = "Hope hopebird, then Ada?"
    by_score = shown(builder("rag@1k,chunk=512").build(book(text, question)))
    by_place = shown(builder("rag@1k,chunk=512,document").build(book(text, question)))
    assert by_score.index("hopebird") < by_score.index("adabird")
    best_last = shown(builder("rag@1k,chunk=512,reverse").build(book(text, question)))
    assert best_last.split("\n") == by_score.split("\n")[::-1]
    assert by_place.index("hopebird") > by_place.index("adabird")


def test_passages_stay_whole_and_gold_is_counted() -> None:
    units = list(passages().units())
    built = builder("rag@256", "helmet_rag", "nq", "id").build(passages())
    digest, found = built.digest, built.digest["retrieval"]
    kept = [u for u in units if u.text + "\n\n" in built.prompt]
    assert len(kept) == found["n_kept"] < 30 and found["recall"] == 1.0 and found["recall_by"] == "ids"
    assert (digest["n_gold"], digest["gold_kept"]) == (1, 1)
    assert f"[DOC {digest['gold_ids'][0]}]\nitem 17 " in built.prompt
    missed = builder("rag@256,head", "helmet_rag", "nq", "id").build(passages()).digest
    assert (missed["n_gold"], missed["gold_kept"], missed["retrieval"]["recall"]) == (1, 0, 0.0)
    oracle = builder("rag@64,oracle", "helmet_rag", "nq", "id").build(passages()).digest
    assert oracle["gold_ids"] == [0]


def test_the_order_of_passages_does_not_change_what_is_retrieved() -> None:
    units = list(passages().units())
    again = Item("q-1", passages().question, ("shade17",), "q", lambda: units[::-1])
    for retriever in ("bm25", "random"):
        setting = f"rag@256,{retriever}"
        first, second = (
            builder(setting, "helmet_rag", "nq", "ao").build(i).prompt for i in (passages(), again)
        )
        assert first == second


def test_documents_keep_their_names_and_empty_ones_are_counted() -> None:
    units = [Unit("1", story(4), "ACME CORP"), Unit("2", "", "EMPTY INC"), Unit("3", story(8), "ZETA LTD")]
    item = Item(
        "l-0",
        "What does Hope keep at ZETA LTD?",
        ("hopebird",),
        "l",
        lambda: units,
        fields={"instruction": ""},
    )
    built = builder("rag@2k,chunk=512", "loong_fin").build(item)
    found = built.digest["retrieval"]
    assert built.prompt.count("《ZETA LTD》") + built.prompt.count("《ACME CORP》") == found["n_kept"] >= 3
    assert "hopebird" in built.prompt and "EMPTY INC" not in built.prompt and found["n_empty"] == 1
    assert 2048 - 512 < found["n_tokens"] <= 2048
    with pytest.raises(DoesNotFit, match="are empty"):
        builder("rag@2k", "loong_fin").build(Item("l-1", "q", ("a",), "l", lambda: units[1:2]))


def test_paper_compat_cuts_the_last_chunk_at_k_minus_2048() -> None:
    text = story(8, filler=120)
    built = builder("rag@6k,bm25,paper_compat").build(book(text))
    assert built.digest["retrieval"]["n_tokens"] == 4096
    context = shown(built)
    assert "gwenbird" in context.split("\n")[0] and len(context.split("\n")[0]) == 2048
    assert len(context.split("\n")) == 2 and len(context.split("\n")[1]) == 4096 - 2048 - 1
    assert built.digest["retrieval"]["n_kept"] == 2
    short = builder("rag@1M,bm25,paper_compat").build(book(text))
    assert (
        short.prompt != builder("full").build(book(text)).prompt
    )  # the paper re-orders even a book that fits
    assert short.digest["retrieval"]["whole"] is False and short.digest["retrieval"]["ranks"] is None


def test_controls() -> None:
    head = shown(builder("rag@1k,head,chunk=512").build(book(story())))
    assert story().startswith(head.split("\n")[0])
    random = [shown(builder(f"rag@1k,random,chunk=512,seed={s}").build(book(story()))) for s in (0, 0, 1)]
    assert random[0] == random[1] != random[2]
    with pytest.raises(IcrError, match="needs gold passages"):
        builder("rag@1k,oracle").build(book(story()))


def test_a_document_is_tokenized_and_indexed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from icr_tasks.context.retrieval import bm25

    text, calls, built = story(8, filler=50), [], []
    real, index = TokenCounter.offsets, bm25._build
    monkeypatch.setattr(bm25, "_build", lambda groups: built.append(1) or index(groups))
    monkeypatch.setattr(TokenCounter, "offsets", lambda self, t: calls.append(len(t)) or real(self, t))
    for n in range(5):
        builder("rag@1k").build(book(text, f"What does {NAMES[n]} keep?"))
    assert calls == [len(text)] and built == [1]


def test_the_cache_is_bounded_by_bytes() -> None:
    cache: Lru[int, str] = Lru(100)
    for n in range(10):
        cache.put(n, str(n), 30)
    assert len(cache) == 3 and cache.get(9) == "9" and cache.get(6) is None
    cache.put(10, "large", 500)  # the newest stays even when it alone is too large
    assert cache.get(10) == "large" and len(cache) == 1


def test_chunks_partition_the_text_between_words() -> None:
    text = story()
    cut = pool.split(text, TOKENS, 100)
    assert "".join(text[a:b] for a, b in zip(cut.starts, cut.stops, strict=True)) == text
    assert max(cut.sizes) <= 100 and all(text[a - 1].isspace() or text[a].isspace() for a in cut.starts[1:])
    over = pool.split(text, TOKENS, 100, 30)
    assert all(b > a for a, b in zip(over.starts[1:], over.stops[:-1], strict=True))
    raw = pool.split(text, TOKENS, 100, snap=False)
    assert set(raw.sizes[:-1]) == {100} and len(raw.sizes) == math.ceil(len(text) / 100)


def test_bad_input() -> None:
    for text, match in (
        ("rag@512,chunk=1024", "cannot hold one chunk"),
        ("rag@2k,paper_compat", "above 2k"),
        ("rag@4k,embedder=x,bm25", "belongs to the retrievers"),
        ("rag@4k,bm26", "Did you mean 'bm25'"),
        ("rag@4k,overlap=4k", "must be smaller than chunk"),
    ):
        with pytest.raises(IcrError, match=match):
            Setting.parse(text)
    with pytest.raises(IcrError, match="no room beside its document name"):
        builder("rag@16,chunk=8", "loong_fin").build(
            Item("l", "q", ("a",), "l", lambda: [Unit("1", "text " * 50, "N")])
        )
    with pytest.raises(DoesNotFit, match="not one passage fits 16"):
        builder("rag@16", "helmet_rag", "nq", "ao").build(passages())
    long_question = book(story(), "why " * 2000)
    with pytest.raises(DoesNotFit, match="alone need"):
        Builder(
            "infbench", Setting.parse("rag@1k"), base.get("infbench", None, "qa"), TOKENS, 4096, 16, None
        ).build(long_question)
    assert (
        builder("rag@1k").build(book(story(), "?!")).digest["retrieval"]["n_kept"]
    )  # no word to search by: the head


@pytest.mark.parametrize(
    "text",
    [
        "rag@32k,document",
        "rag@512,hybrid,embedder=minilm",
        "rag@4k,paper_compat",
        "rag@4k,bm25,paper_compat",
        "rag@1M,dense,instruction=off,revision=123456",
        "rag@4k,random,chunk=1024,overlap=128,seed=3",
    ],
)
def test_settings_round_trip(text: str) -> None:
    setting = Setting.parse(text)
    assert Setting.parse(str(setting)) == setting and str(Setting.parse(str(setting))) == str(setting)


def test_metadata_embedder_is_written_into_the_setting() -> None:
    from icr_tasks.harness.options import Options

    assert (
        str(Options.parse({"setting": "rag@4k", "embedder": "minilm"}).setting)
        == "rag@4k,dense,embedder=minilm"
    )
    assert str(Options.parse({"setting": "full", "embedder": "minilm"}).setting) == "full"


def test_answers_are_found_as_words() -> None:
    assert contains("He lived\nin St.  Louis.", ["st. louis"]) and not contains("unknown", ["no"])
    assert contains("cost $12.5 million", ["$12.5"]) and not contains("1999", ["199"])
    letter = Item("x", "q", ("B",), "x", list, options=("red", "blue", "green", "tan"))
    assert answers(letter) == ["blue"]


def _recalls(items: list[Item], benchmark: str, dataset: str, k: str, retriever: str) -> float:
    run = builder(f"rag@{k},{retriever}", benchmark, dataset)
    return sum(run.build(i).digest["retrieval"]["recall"] or 0.0 for i in items) / len(items)


def test_retrieval_beats_its_controls_on_synth() -> None:
    items = list(benchmarks.load("synth", "rag", "4k", n=16).items)
    bm25, head, random, oracle = (
        _recalls(items, "synth", "rag", "2k", r) for r in ("bm25", "head", "random", "oracle")
    )
    assert oracle == 1.0 and bm25 >= 0.65 and bm25 >= max(head, random) + 0.3


def test_retrieval_beats_its_controls_on_wikipedia(replica: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    found = benchmarks.load("helmet_rag", "hotpotqa", "8k", allow_partial=True).items
    items = list({i.cluster: i for i in found}.values())[:16]
    bm25, head, random = (
        _recalls(items, "helmet_rag", "hotpotqa", "4k", r) for r in ("bm25", "head", "random")
    )
    assert bm25 >= max(head, random) + 0.3
