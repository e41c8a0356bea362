"""Document ranking: metrics by hand, attention against eager transformers, a model built to retrieve, the
command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

# Its log handler keeps the stderr of its first import, which must not be one that pytest closes after a test.
pytest.importorskip("transformers")

from icr_tasks.benchmarks.base import Unit
from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.ranking import attention, calibrated, rank, report
from icr_tasks.ranking.attention import Spans, locate
from icr_tasks.ranking.calibrated import Signal
from icr_tasks.ranking.rank import Ranked, relevance


def test_metrics_by_hand() -> None:
    scores, gold = [0.1, 0.9, 0.5, 0.2], [1, 0, 1, 0]  # order: 1, 2, 3, 0
    ideal = 1 + 1 / math.log2(3)
    assert rank.ndcg(scores, gold) == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert rank.mrr(scores, gold) == 0.5
    assert rank.recall(scores, gold, 2) == 0.5
    assert math.isnan(rank.ndcg(scores, [0, 0, 0, 0]))
    # the ideal order, not "gold first": with a grade above gold the result stays within 1
    assert rank.ndcg([3, 2, 1], [1.0, 5.0, 0.2]) < 1 == rank.ndcg([2, 3, 1], [1.0, 5.0, 0.2])


@given(st.lists(st.booleans(), min_size=1, max_size=7).filter(any))
def test_random_order_is_the_mean_over_all_orders(gold: list[bool]) -> None:
    from itertools import permutations

    flags, n = np.array(gold, float), len(gold)
    orders = [np.array(p, float) for p in permutations(range(n))] if n <= 5 else []
    if orders:
        assert rank.random_ndcg(flags, 3) == pytest.approx(np.mean([rank.ndcg(o, flags, 3) for o in orders]))
        assert rank.random_mrr(flags) == pytest.approx(np.mean([rank.mrr(o, flags) for o in orders]))
        assert rank.random_recall(flags, 2) == pytest.approx(
            np.mean([rank.recall(o, flags, 2) for o in orders])
        )


def test_graded_relevance_needs_a_grade_for_every_distractor() -> None:
    units = [Unit("a", "x", gold=True), Unit("b", "y", relevance=2.0), Unit("c", "z", relevance=4.0)]
    gold, graded = relevance(units)
    assert gold.tolist() == [1, 0, 0] and graded is not None and graded.tolist() == [1.0, 0.5, 1.0]
    assert relevance([units[0], Unit("b", "y")])[1] is None


def test_spans() -> None:
    parts = ["[DOC 0]\nalpha", "[DOC 1]\nbeta"]
    text = f"Docs: {parts[0]}\n\n{parts[1]}\n\nQuestion: who is alpha"
    spans = locate(text, parts, "who is alpha", tiny.tokenizer(), special=False)
    assert spans.counts.tolist() == [len(p) for p in parts]  # one token a byte
    assert "".join(text[i] for i in spans.question) == "who is alpha"
    with pytest.raises(IcrError, match="document 1"):
        locate(text, [parts[0], "gamma"], "who", tiny.tokenizer(), special=False)


def _spans(n: int, documents: int, question: list[int]) -> Spans:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(-1, documents), -(-n // (documents + 1)))[:n].astype(np.int32)
    owner[question] = -1
    return Spans(
        rng.integers(3, 250, n),
        owner,
        np.array(question),
        np.bincount(owner[owner >= 0], minlength=documents),
    )


def test_equals_eager_attention_also_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModel

    folder, spans = tiny.llama(tmp_path / "m"), _spans(100, 4, list(range(80, 97)))
    eager = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.inference_mode():
        weights = eager(torch.as_tensor(spans.ids[None]), output_attentions=True).attentions
    full = np.stack([w[0].double().numpy() for w in weights])  # layers, heads, query, key
    model, _ = attention.load(str(folder), dtype="float32", device="cpu")
    for chunk in (2048, 33):
        monkeypatch.setattr(attention, "_CHUNK", chunk)
        found = attention.attend(model, spans)
        for name, rows in {"question": spans.question, "last": [99]}.items():
            by_key = full[:, :, rows].mean(2)
            expected = np.stack([by_key[..., spans.document == d].sum(-1) for d in range(4)], -1)
            np.testing.assert_allclose(found[name], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama4", "gemma3"])
def test_layers_that_do_not_read_everything_are_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their masks (chunks, windows) are not the plain causal one that is measured."""
    import transformers
    from test_kv_models import build

    build(kind).save_pretrained(tmp_path / "m")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: None)
    with pytest.raises(IcrError, match="(chunked|sliding)_attention, full_attention|full_attention, sliding"):
        attention.load(str(tmp_path / "m"), dtype="float32", device="cpu")


def test_paper_code_grows_with_length_and_sees_the_future(tmp_path: Path) -> None:
    model, _ = attention.load(str(tiny.llama(tmp_path / "m")), dtype="float32", device="cpu")
    spans = _spans(60, 3, [])
    uneven = Spans(
        spans.ids, np.array([0] * 40 + [1] * 10 + [2] * 10, np.int32), spans.question, np.array([40, 10, 10])
    )
    scores = attention.scores(model, uneven)
    assert scores[0] > 3 * max(scores[1:])
    assert scores.sum() == pytest.approx(
        60, rel=1e-4
    )  # every query spends one unit on all keys, later ones included


def _retriever(folder: Path, texts: list[str]) -> Path:
    """A one-layer Llama built by hand: each token attends to equal tokens (identity queries and keys, hardly
    any RoPE)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words = sorted({w for t in texts for w, _ in split.pre_tokenize_str(t)})
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    raw.pre_tokenizer = split
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>").save_pretrained(folder)
    dim = 256
    config = LlamaConfig(
        vocab_size=len(words) + 1,
        hidden_size=dim,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e30},
    )
    torch.manual_seed(0)
    model = LlamaModel(config)
    with torch.no_grad():
        rare = torch.ones(len(words) + 1, 1)
        model.embed_tokens.weight.copy_(torch.randn(len(words) + 1, dim) * rare)
        attention_layer = model.layers[0].self_attn
        for projection in (attention_layer.q_proj, attention_layer.k_proj):
            projection.weight.copy_(torch.eye(dim) * 0.8)
    model.save_pretrained(folder)
    return folder


def test_a_model_built_to_retrieve_ranks_gold_far_above_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from icr_tasks import benchmarks

    items = benchmarks.load("synth", "rag", "1k").items[:24]
    texts = [u.text for i in items for u in i.units()] + [i.question for i in items]
    folder = _retriever(tmp_path / "m", texts)
    done = main(
        [
            "rank",
            "--model",
            str(folder),
            "--tasks",
            "icr_synth_rag_1k",
            "--limit",
            "24",
            "--no-chat-template",
            "--definition",
            "attention,calibrated,paper_code",
            "--dtype",
            "float32",
            "-o",
            str(tmp_path / "out"),
        ]
    )
    assert done == 0
    found = json.loads((tmp_path / "out" / "rank_icr_synth_rag_1k.json").read_text())
    methods: dict[str, Any] = found["methods"]
    best = methods["attention/question/token"]["ndcg@10"]
    for name in ("calibrated/sum", "calibrated/token", "calibrated/heads"):
        assert methods[name]["ndcg@10"]["low"] > methods["random"]["ndcg@10"]["high"], name
    assert len(found["retrieval_heads"]) == 2
    assert found["n_items"] == 24 and best["low"] > methods["random"]["ndcg@10"]["high"]
    assert "| random |" in capsys.readouterr().out


def _ranked(i: int, ndcg: float) -> Ranked:
    return Ranked(str(i), f"q{i // 2}", 5, 10, {"a": {"ndcg@10": ndcg}}, np.zeros((1, 2)), 0.0)


def test_correlation_with_the_task_score() -> None:
    items = [_ranked(i, (i % 7) / 7) for i in range(40)]
    found = report.correlation(items, "a", {str(i): float(i % 7 > 3) for i in range(40)})
    assert found["n"] == 40 and found["low"] > 0.5 and found["low"] <= found["spearman"] <= found["high"]
    with pytest.raises(IcrError, match="only 0"):
        report.correlation(items, "a", {})


def test_table_shows_the_correlation_of_every_order_that_varies() -> None:
    items = [_ranked(i, (i % 7) / 7) for i in range(40)]
    for item in items:
        item.rows["position"] = {"ndcg@10": 0.5}  # the same for every item: nothing to correlate
    scores = {str(i): float(i % 7 > 3) for i in range(40)}
    found = {
        "model": "m",
        "task": "t",
        "prompt": "ao",
        "n_items": 40,
        "n_left_out": 0,
        "documents": 5.0,
        "tokens": 10.0,
        "methods": report.summary(items),
        "correlation": {m: report.correlation(items, m, scores) for m in ("a", "position")},
        "peak_memory": {},
        "seconds": 1.0,
    }
    shown = report.table(found)
    rows = {line.split(" | ")[0]: line for line in shown.splitlines() if line.startswith("| ")}
    value = found["correlation"]["a"]
    assert rows["| a"].endswith(f"| {value['spearman']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}] |")
    assert rows["| position"].endswith("| – |") and rows["| ranked by"].endswith("| rho, task score |")
    assert "rho" not in report.table({**found, "correlation": {}})


def test_head_is_not_judged_on_the_items_it_was_chosen_on() -> None:
    rng = np.random.default_rng(0)
    items = [Ranked(str(i), f"q{i}", 5, 9, {}, rng.random((8, 32)), 0.0) for i in range(40)]
    best = report.best_head(items)
    assert best is not None and abs(best["ndcg@10"] - 0.5) < 0.1  # noise stays noise
    assert np.mean([i.by_head for i in items], 0).max() > 0.6  # which a naive maximum would report


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--definition", "atention"], "attention"),
        (["--tasks", "icr_infbench_mc", "--allow-partial"], "gold"),
        (["--model", "nowhere/at-all"], "is no folder"),
        (["--tasks", "icr_synth_rag_51"], "Did you mean 'icr_synth_rag_512'"),
    ],
)
def test_bad_input(
    args: list[str],
    words: str,
    tmp_path: Path,
    replica: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ICR_DATA_DIR", str(replica))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = [] if "--model" in args else ["--model", str(tiny.llama(tmp_path / "m"))]
    tasks = [] if "--tasks" in args else ["--tasks", "icr_synth_rag_512"]
    assert main(["rank", *model, *tasks, "--limit", "2", *args]) != 0
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def _signal(gold: int, strong: int, bias: float = 0.0) -> Signal:
    """Two layers of two heads over four documents; head `strong` looks at the gold, the others at document 3."""
    mass = np.zeros((2, 2, 4))
    mass[:, :, 3] = bias
    mass[strong // 2, strong % 2, gold] = 0.5
    return Signal(mass, np.full(4, 10), np.eye(4)[gold], None)


def test_retrieval_heads_are_chosen_on_other_questions() -> None:
    signals = [_signal(i % 3, 2, bias=0.2) for i in range(8)]
    clusters = [f"q{i}" for i in range(8)]
    found = calibrated.held_out(clusters, signals)
    assert found is not None
    assert all(chosen[0] == (1, 0) for chosen in found[1])
    assert calibrated.choose(signals, 1) == [(1, 0)]
    alone = calibrated.by_heads(signals[1], [(1, 0)])
    assert alone.argmax() == 1
    # the half with another strong head does not choose its own
    mixed = [_signal(i % 3, 2 if i % 2 else 1) for i in range(8)]
    _, chosen = calibrated.held_out(clusters, mixed) or ([], [])
    assert [c[0] for c in chosen] == [(1, 0), (0, 1)]
    assert calibrated.held_out(clusters[:3], signals[:3]) is None


def test_calibration_takes_away_what_any_question_gives() -> None:
    """A document that attracts attention whatever is asked loses it; by hand on two heads' sums."""
    asked, plain = np.array([[[0.5, 0.4]]]), np.array([[[0.45, 0.1]]])
    signal = Signal(asked - plain, np.array([10, 5]), np.array([0.0, 1.0]), None)
    found = calibrated.scores(signal)
    assert found["calibrated/sum"].round(9).tolist() == [0.05, 0.3]
    assert found["calibrated/token"].round(9).tolist() == [0.005, 0.06]


def test_a_question_before_the_documents_is_no_ranking() -> None:
    text = "who is alpha? [DOC 0]\nalpha [DOC 1]\nbeta"
    spans = locate(text, ["[DOC 0]\nalpha", "[DOC 1]\nbeta"], "who is alpha", tiny.tokenizer(), special=False)
    assert rank._before(spans)
    assert not rank._before(locate(text + " who", ["[DOC 0]\nalpha"], "who", tiny.tokenizer(), special=False))
