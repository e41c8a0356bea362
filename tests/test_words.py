"""Tokens word by word are those of the whole text, for every kind of tokenizer that is taken; others are not."""

from __future__ import annotations

import os
import random
import resource
import time
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from icr_tasks.benchmarks.base import Item
from icr_tasks.context import ahead, pool
from icr_tasks.context.retrieval import bm25
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.context.words import Words
from icr_tasks.errors import IcrError
from icr_tasks.metrics import unspaced

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
PARTS = [
    "word",
    "The",
    "don't",
    "IT'LL",
    "3",
    "20417",
    ".",
    ',"',
    "--",
    "(x)",
    "_a",
    "/",
    "漢字です",
    "naïve",
    "e\u0301",
    "🙂",
    "ΛΌΓΟΣ",
]
GAPS = [" "] * 12 + [
    "",
    "\n",
    "\n\n",
    "  ",
    " \n",
    "\r\n",
    "\t",
    "\u00a0",
    "\u3000",
    "\x1c",
    "\x0c",
    "\x85",
    "\u2028",
]


def text(seed: int, size: int) -> str:
    """Every part beside every other, between white space of every kind."""
    draw = random.Random(seed)
    out = ""
    while len(out) < size:
        out += draw.choice(PARTS) + str(draw.randrange(9)) * (draw.random() < 0.1) + draw.choice(GAPS)
    return out[:size]


def trained(
    pre: Any, normalizer: Any = None, *, model: str = "bpe", added: tuple[AddedToken, ...] = ()
) -> Any:
    """A fast tokenizer with 600 pieces learned from `text`."""
    kind = {"bpe": models.BPE, "wordpiece": models.WordPiece, "unigram": models.Unigram}[model]
    made = Tokenizer(kind() if model != "wordpiece" else models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer, made.normalizer = pre, normalizer
    common: dict[str, Any] = {"vocab_size": 600, "show_progress": False}
    if model == "bpe":
        trainer: Any = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
        made.decoder = decoders.ByteLevel()
    elif model == "wordpiece":
        trainer = trainers.WordPieceTrainer(special_tokens=["[UNK]"], **common)
    else:
        trainer = trainers.UnigramTrainer(unk_token="<unk>", special_tokens=["<unk>"], **common)
    made.train_from_iterator([text(n, 4000) for n in range(6)], trainer)
    if added:
        made.add_special_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=made)


def split(pattern: str, *before: Any) -> Any:
    """A split by a pattern, then bytes, as Llama 3 and its kin are built."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*before, pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


TAKEN = {
    "gpt2": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2, spaces kept": lambda: trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    ),
    "llama3": lambda: trained(split(LLAMA3)),
    "qwen": lambda: trained(split(QWEN), normalizers.NFC()),
    "digits first": lambda: trained(split(LLAMA3, pre_tokenizers.Digits(individual_digits=True))),
    "bert": lambda: trained(
        pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(), model="wordpiece"
    ),
    "unigram": lambda: trained(pre_tokenizers.WhitespaceSplit(), normalizers.NFKC(), model="unigram"),
}
REFUSED = {
    "no words": lambda: trained(None, normalizers.Replace(" ", "▁")),
    "one word": lambda: trained(pre_tokenizers.Metaspace(split=False)),
    "prefix space": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "looks behind": lambda: trained(split(r"(?<=\n)\w+|\S+ \S+|\s+|\S+")),
    "sentences": lambda: trained(split(r"[^.]+\.?")),
}


@pytest.mark.parametrize("name", TAKEN)
def test_words_give_the_tokens_and_offsets_of_the_whole(name: str) -> None:
    tokenizer = TAKEN[name]()
    words, counter = Words.of(tokenizer), TokenCounter(tokenizer)
    assert words is not None
    for seed in range(12):
        shown = text(seed, 700)
        expected = tokenizer(shown, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        spans = words.spans(shown)
        assert spans is not None and [spans[i] for i in range(len(spans))] == [tuple(o) for o in expected]
        assert words.count(shown) == len(expected)
    long = text(99, 60_000)
    assert counter.count(long) == len(tokenizer.backend_tokenizer.encode(long, add_special_tokens=False))
    assert counter.counts([long, "a b", ""]) == [counter.count(long), len(tokenizer("a b")["input_ids"]), 0]


@pytest.mark.parametrize("name", REFUSED)
def test_other_tokenizers_are_read_whole(name: str) -> None:
    tokenizer = REFUSED[name]()
    assert Words.of(tokenizer) is None
    long = text(5, 60_000)
    assert TokenCounter(tokenizer).count(long) == len(tokenizer(long, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("beside", [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}])
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()])
def test_added_tokens_count_once_where_they_stand(beside: dict[str, bool], normalizer: Any) -> None:
    added = (
        AddedToken("<|im_end|>", special=True),
        AddedToken("<|im_end|>x", **beside),
        AddedToken("word word"),
    )
    tokenizer = trained(split(LLAMA3), normalizer, added=added)
    draw = random.Random(1)
    cut = [text(n, 300) for n in range(12)]
    shown = "".join(part + draw.choice([t.content for t in added] + [" <|im_end|>x "]) for part in cut)
    assert len(shown) > 2_000
    assert TokenCounter(tokenizer).count(shown) == len(
        tokenizer(shown, add_special_tokens=False)["input_ids"]
    )
    tokenizer.add_tokens(["20417"])  # from now on another tokenizer
    assert TokenCounter(tokenizer).count(shown) == len(
        tokenizer(shown, add_special_tokens=False)["input_ids"]
    )


def test_special_tokens_are_counted_once() -> None:
    from transformers.utils.logging import set_verbosity_error

    set_verbosity_error()
    tokenizer = trained(split(QWEN), added=(AddedToken("<s>", special=True),))
    from tokenizers.processors import TemplateProcessing

    number = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", number)]
    )
    long = text(3, 5_000)
    expected = len(tokenizer(long, add_special_tokens=True)["input_ids"])
    assert (
        TokenCounter(tokenizer).count(long, special=True)
        == expected
        == TokenCounter(tokenizer).count(long) + 1
    )


def test_the_words_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icr_tasks.context.words._MOST", 500)
    tokenizer = TAKEN["gpt2"]()
    words = Words.of(tokenizer)
    assert words is not None
    for n in range(20):
        long = " ".join(f"w{n}x{i}" for i in range(400)) + " " + "y" * 400
        assert words.count(long) == len(tokenizer(long)["input_ids"])
        assert len(words._known) <= 500 and max(map(len, words._known)) <= 200


def test_chunks_are_those_of_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, shown = TAKEN["llama3"](), text(7, 80_000)
    fast = pool.split(shown, TokenCounter(tokenizer), 200, 20)
    monkeypatch.setattr(Words, "of", classmethod(lambda cls, tokenizer: None))
    slow = pool.split(shown, TokenCounter(tokenizer), 200, 20)
    assert fast.total == slow.total and all((a == b).all() for a, b in zip(fast[:3], slow[:3], strict=True))


def test_bm25_reads_the_words_that_its_pattern_finds() -> None:
    stop = bm25.package()[1]
    for seed in range(6):
        for shown in (text(seed, 2000), text(seed, 2000).encode("ascii", "ignore").decode(), "", "the a of"):
            expected = [hash(w) for w in bm25._WORD.findall(unspaced.spaced(shown).lower()) if w not in stop]
            assert bm25._hash(shown).tolist() == expected


# ---- several processes -----------------------------------------------------------------------------


def items(count: int, clusters: int) -> list[Item]:
    return [Item(str(n), f"question {n}", ("x",), f"c{n % clusters}", list) for n in range(count)]


def test_processes_give_every_item_once_and_keep_a_document_together() -> None:
    here, made = os.getpid(), items(40, 5)
    found = dict(ahead.each(made, lambda item: (item.id, os.getpid()), 2))
    assert {n: name for n, (name, _) in found.items()} == {n: str(n) for n in range(40)}
    assert found[0][1] == here and here not in {pid for n, (_, pid) in found.items() if n}
    for cluster in range(5):
        assert len({found[n][1] for n in range(cluster, 40, 5) if n}) == 1


def test_what_a_process_raises_is_raised_here() -> None:
    def select(item: Item) -> int:
        if item.id == "7":
            raise IcrError("no such place; use another")
        return 0

    with pytest.raises(IcrError, match="use another"):
        dict(ahead.each(items(12, 12), select, 2))


def test_a_process_that_dies_is_named() -> None:
    def select(item: Item) -> int:
        if item.id == "7":
            os._exit(9)
        return 0

    with pytest.raises(IcrError, match="--workers 1"):
        dict(ahead.each(items(12, 12), select, 2))


def test_what_the_processes_used_counts_as_used_by_this_one() -> None:
    """They have ended, and were waited for, when the last item is there."""

    def work(item: Item) -> int:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        return os.getpid()

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = dict(ahead.each(items(6, 3), work, 2))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime >= 0.1 * 5
    for pid in set(found.values()) - {os.getpid()}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
