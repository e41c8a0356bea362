"""Rerankers, late interaction and learned sparse retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from retrievekit import TEXTS, Server, cache, minilm, passages, stage, url  # noqa: F401  (cache and url are fixtures)

from icr_tasks.context.retrieval import rerank
from icr_tasks.errors import IcrError
from icr_tasks.settings import Setting

# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "rag@4k,dense,rerank=Qwen/Qwen3-Reranker-0.6B,depth=20",
        "rag@4k,iterate=2",
        "rag@4k,decompose,iterate=1,asker=Qwen/Qwen3-4B",
        "rag@4k,late",
        "rag@4k,sparse,embedder=naver/splade-cocondenser",
        "rag@4k,document,neighbours=1",
    ],
)
def test_settings_print_back(text: str) -> None:
    setting = Setting.parse(text)
    assert str(setting) == text and Setting.parse(str(setting)) == setting


def test_a_setting_without_stages_is_described_as_before() -> None:
    assert set(Setting.parse("rag@4k").params) == {
        "retriever",
        "order",
        "chunk",
        "overlap",
        "paper_compat",
        "seed",
    }
    assert Setting.parse("rag@4k,rerank=x").params["depth"] == 50
    assert str(Setting.parse("rag@4k,iterate=0")) == "rag@4k"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rag@4k,rerank", "rerank needs a value"),
        ("rag@4k,depth=10", "give rerank=... as well"),
        ("rag@4k,asker=x", "give decompose=... or iterate=... as well"),
        ("rag@4k,iterate=-1", "whole number"),
        ("rag@4k,rerank=x,depth=0", "whole number"),
        ("rag@4k,iterat=2", "Did you mean 'iterate'"),
    ],
)
def test_bad_settings(text: str, match: str) -> None:
    with pytest.raises(IcrError, match=match):
        Setting.parse(text)


# ---- rerank ----------------------------------------------------------------------------------------------------------


def cross_encoder(place: Path, labels: Sequence[str] = ("score",), window: int = 64) -> Path:
    """A tiny random cross-encoder with the words of MiniLM."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    tokenizer.model_max_length = window
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=window,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():  # a random head says almost the same of every text
        model.classifier.weight *= 200
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def logits(place: Path, query: str, text: str) -> list[float]:
    """By transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(place),
        AutoModelForSequenceClassification.from_pretrained(place),
    )
    with torch.inference_mode():
        return model(**tokenizer(query, text, return_tensors="pt", truncation=True)).logits[0].tolist()


def test_the_first_chunks_are_ordered_by_the_cross_encoder_and_the_rest_stays(tmp_path: Path) -> None:
    place, query = cross_encoder(tmp_path / "ce"), "harbour rain log"
    plain = stage("rag@4k").rank(passages(), query).tolist()
    by_hand = sorted(range(5), key=lambda i: -logits(place, query, TEXTS[i])[0])
    assert by_hand != plain
    for depth in (1, 3, 4, 5, 50):
        found = stage(f"rag@4k,rerank={place},depth={depth}")
        head = sorted(plain[:depth], key=by_hand.index)
        assert found.rank(passages(), query).tolist() == head + plain[depth:]
    said = found.describe()
    assert said["reranker"] == str(place) and said["reranker_revision"].startswith("sha-")
    assert found.rank(passages(), "  ").tolist() == stage("rag@4k").rank(passages(), "  ").tolist()


@pytest.mark.parametrize(
    "labels", [("relevant", "irrelevant"), ("irrelevant", "relevant"), ("no", "maybe", "yes")]
)
def test_the_label_that_means_relevant_is_used(labels: tuple[str, ...], tmp_path: Path) -> None:
    place, query = cross_encoder(tmp_path / "ce", labels), "harbour rain log"
    column = next(i for i, label in enumerate(labels) if label in ("relevant", "yes"))
    order = stage(f"rag@4k,rerank={place}").rank(passages(), query).tolist()
    assert order == sorted(range(5), key=lambda i: -logits(place, query, TEXTS[i])[column])


def test_labels_that_do_not_say_which_is_relevant_are_refused(tmp_path: Path) -> None:
    place = cross_encoder(tmp_path / "ce", ("LABEL_0", "LABEL_1"))
    with pytest.raises(IcrError, match="one of them must be called relevant"):
        stage(f"rag@4k,rerank={place}").rank(passages(), "rain")


def test_a_reranker_reads_long_chunks_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, seen = cross_encoder(tmp_path / "ce"), []
    monkeypatch.setattr(
        rerank,
        "_load",
        lambda *a: lambda q, texts: seen.extend((q, t) for t in texts) or [float("log" in t) for t in texts],
    )
    monkeypatch.setattr(rerank._load, "cache_clear", lambda: None, raising=False)
    long = ["rain on the harbour " * 60, "rain on the roof " * 60 + "and a log", "sun " * 100]
    order = stage(f"rag@4k,rerank={place}").rank(passages(long), "rain on a harbour " * 40)
    assert order[0] == 1
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place)
    assert max(len(tokenizer(q, t)["input_ids"]) for q, t in seen) <= 64
    monkeypatch.undo()


def test_a_model_that_says_yes_or_no(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = tiny.llama(tmp_path / "lm")
    with pytest.raises(IcrError, match="'yes' and 'no' are not words"):
        stage(f"rag@4k,rerank={place}").rank(passages(), "rain")
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForCausalLM.from_pretrained(place)
    tokenizer.add_tokens(["yes", "no"])
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "judge")
    model.save_pretrained(tmp_path / "judge")
    score = rerank._load(str(tmp_path / "judge"), None, "1", "cpu")("rain", list(TEXTS))

    def by_hand(text: str) -> float:
        prompt = rerank._YES_NO.replace("{query}", "rain").replace("{text}", text)
        out = model(**tokenizer(prompt, return_tensors="pt", add_special_tokens=False)).logits[0, -1].detach()
        yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        return float(out.log_softmax(-1)[yes] - out.log_softmax(-1)[no])

    assert score == pytest.approx([by_hand(text) for text in TEXTS], abs=1e-5) and len(set(score)) == 5
    order = stage(f"rag@4k,rerank={tmp_path / 'judge'}").rank(passages(), "rain").tolist()
    assert order == sorted(range(5), key=lambda i: -score[i])


def test_a_served_reranker(url: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = stage("rag@4k,rerank=served", {"rerank_url": url})
    assert found.rank(passages(), "rain").tolist() == sorted(range(5), key=lambda i: -TEXTS[i].count("r"))
    monkeypatch.setattr(Server, "short", True)
    with pytest.raises(IcrError, match="gave 2 scores for 5 texts"):
        found.rank(passages(), "harbour")


# ---- late and sparse -------------------------------------------------------------------------------------------------


def test_late_interaction_equals_a_loop(tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    if not hasattr(st, "MultiVectorEncoder"):
        pytest.skip("sentence-transformers < 6 has no MultiVectorEncoder")
    import torch

    torch.manual_seed(0)
    model = st.MultiVectorEncoder(str(minilm()), device="cpu")
    model.save(str(tmp_path / "late"))
    found = stage(f"rag@4k,late,embedder={tmp_path / 'late'}")
    query = "medicine from a doctor"
    rows = model.encode_query([query])[0]
    expected = []
    for text in TEXTS:
        document = model.encode_document([text])[0]
        expected.append(sum(max(float(np.dot(q, d)) for d in np.asarray(document)) for q in np.asarray(rows)))
    assert found.scores(passages(), query) == pytest.approx(expected, abs=1e-3)
    assert found.rank(passages(), query)[0] in (0, 3)
    long = ["rain fell on the harbour " * 200 + "a doctor gives medicine", "rain fell on the harbour " * 200]
    assert found.rank(passages(long), query)[0] == 0
    assert found.notes(passages(long), query)["n_pieces"] > 4


def test_learned_sparse_equals_a_dot_product(tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "mlm")
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path / "mlm")
    model = st.SparseEncoder(str(tmp_path / "mlm"), device="cpu")
    model.save(str(tmp_path / "sparse"))
    found = stage(f"rag@4k,sparse,embedder={tmp_path / 'sparse'}")
    query = model.encode_query(["rain"], convert_to_tensor=True).to_dense()[0]
    documents = model.encode_document(list(TEXTS), convert_to_tensor=True).to_dense()
    assert found.scores(passages(), "rain") == pytest.approx((documents @ query).tolist(), rel=1e-3)
    assert found.describe()["revision"].startswith("sha-")
    with pytest.raises(IcrError, match="no such folder"):
        stage("rag@4k,sparse,embedder=/nowhere/at/all").scores(passages(), "rain")
