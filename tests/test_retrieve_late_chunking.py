"""Late chunking against a loop over plain transformers, its windows, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from retrievekit import cache, minilm, passages, stage  # noqa: F401

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Unit
from icr_tasks.context import pool as pools
from icr_tasks.context.retrieval import engines, late_chunking
from icr_tasks.context.retrieval.reading import of_folder
from icr_tasks.context.tokens import TokenCounter
from icr_tasks.errors import IcrError

SETTING = "rag@512,chunk=64,late_chunking,embedder=minilm"


def documents(*texts: str, size: int = 24, overlap: int = 0, title: str = "") -> pools.Pool:
    units = [Unit(str(n), text, title) for n, text in enumerate(texts)]
    return pools.documents(
        units, TokenCounter(tiny.tokenizer()), base.get("infbench", None, "qa"), size, overlap
    )


@pytest.mark.parametrize(("overlap", "title"), [(0, ""), (6, ""), (0, "Cities of Europe")])
def test_a_document_that_is_read_at_once_equals_a_loop(overlap: int, title: str) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    folder = minilm()
    text = "Berlin is the capital of Germany. Its walls fell in 1989, which nobody had foreseen. It is a city of parks."
    found = documents(text, size=16, overlap=overlap, title=title)
    assert len(found) > 2
    got = stage(SETTING).scores(found, "How many parks does Berlin have?")

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ahead = f"{title}\n" if title else ""

    def read(whole: str) -> tuple[Any, list[tuple[int, int]]]:
        made = tokenizer(whole, return_tensors="pt", return_offsets_mapping=True)
        offsets = [tuple(pair) for pair in made.pop("offset_mapping")[0].tolist()]
        with torch.no_grad():
            return model(**made).last_hidden_state[0], offsets

    asked = read("How many parks does Berlin have?")[0].mean(dim=0)
    vectors, offsets = read(ahead + text)
    for i in range(len(found)):
        low, high = found.start[i] + len(ahead), found.stop[i] + len(ahead)
        inside = [n for n, (a, b) in enumerate(offsets) if b > a and low <= b - 1 < high]
        wanted = torch.cosine_similarity(vectors[inside].mean(dim=0), asked, dim=0)
        assert got[i] == pytest.approx(float(wanted), abs=2e-3)  # kept as float16


def test_equal_sentences_are_told_apart_by_what_stands_before_them() -> None:
    same = "The city has more than three million inhabitants and many parks along its river."
    about = (
        "{} is the capital of {}. Its government sits there and so does its parliament, as everybody knows."
    )
    texts = [
        f"{about.format(*of)} {same}"
        for of in (("Paris", "France"), ("Berlin", "Germany"), ("Rome", "Italy"))
    ]
    found = documents(*texts, size=30)
    second = [
        next(i for i in range(len(found)) if found.owner[i] == n and "inhabitants" in found.text(i))
        for n in range(3)
    ]
    assert len({found.text(i).strip() for i in second}) == 1
    late = stage(SETTING).scores(found, "How many inhabitants does Berlin have?")[second]
    plain = stage(SETTING.replace("late_chunking", "dense")).scores(
        found, "How many inhabitants does Berlin have?"
    )[second]
    assert np.argmax(late) == 1 and late[1] - np.delete(late, 1).max() > 0.05
    assert np.ptp(plain) < 1e-3


def test_every_token_of_a_long_document_counts_once() -> None:
    model = engines.load({"device": "cpu"}, str(minilm()), None).model
    read = of_folder(minilm())
    words = [f"{word}{n}" for n in range(200) for word in ("harbour", "physician", "goal")]
    text, ahead = " ".join(words), "Title\n"
    windows = list(late_chunking._tokens(model, read, ahead, text))
    assert len(windows) > 5
    own = np.concatenate([places[places >= at] for at, places, _ in windows])
    offsets = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)[
        "offset_mapping"
    ]
    assert own.tolist() == [stop - 1 for _, stop in offsets]
    shares = [float(np.mean(places < at)) for at, places, _ in windows[1:]]
    assert min(shares) > 0.1 and windows[0][0] == 0 and (windows[0][1] >= 0).all()


def test_a_long_document_is_read_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = documents(" ".join(f"harbour{n} physician{n}" for n in range(300)), "", size=64)
    retriever = stage(SETTING)
    retriever.prepare([found], ["Which harbour?"])
    monkeypatch.setattr(late_chunking, "_tokens", lambda *args: pytest.fail("read again"))
    scores = stage(SETTING).scores(found, "Which harbour?")
    assert np.isfinite(scores).all() and len(np.unique(scores)) == len(found)
    notes = retriever.notes(found, "Which harbour?")
    assert (notes["reads"], notes["context_before"], notes["n_truncated"]) == (256, 64, 0)
    assert retriever.describe()["embedder"] == "minilm"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(IcrError, match="needs documents cut into chunks"):
        stage(SETTING).scores(passages(), "q")
    with pytest.raises(IcrError, match="leave embed_engine and embed_url out"):
        engines.ENGINES["bag"] = lambda place, revision, options: lambda texts: np.ones((len(texts), 384))
        try:
            stage(SETTING, {"engine": "bag"}).scores(documents("one two three"), "q")
        finally:
            del engines.ENGINES["bag"]
    folder = tmp_path / "cls"
    shutil.copytree(minilm(), folder)
    path = folder / "1_Pooling" / "config.json"
    said = {key: False for key in json.loads(path.read_text()) if key.startswith("pooling_mode")}
    path.write_text(json.dumps({"word_embedding_dimension": 384, **said, "pooling_mode_cls_token": True}))
    with pytest.raises(IcrError, match="pools by"):
        stage(SETTING.replace("minilm", str(folder))).scores(documents("one two three"), "q")
