"""pass@k of rows by a scripted sampler, the rows that stay, and what length costs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl", reason="training needs trl (extra [train])")
import trainkit

from icr_tasks.errors import IcrError
from icr_tasks.training import difficulty, trainers
from icr_tasks.training.data import store


def test_rows_without_gradient_are_left_out_and_sampling_goes_on_where_it_stopped(tmp_path: Path) -> None:
    root = trainkit.make(tmp_path, n=12)
    config = trainkit.config(root, "grpo", "out")
    path = root / "data" / "train.parquet"
    rows = list(store.read(path))
    right = {r["question"]: n % 5 for n, r in enumerate(rows)}  # of 4: 0 never, 4 always
    asked: list[str] = []

    def sample(conversations, k):  # type: ignore[no-untyped-def]
        out = []
        for messages in conversations:
            row = next(r for r in rows if r["question"] in messages[-1]["content"])
            asked.append(row["id"])
            good = right[row["question"]]
            out.append([f"Answer: {row['answers'][0]}"] * good + ["Answer: Nobody Known"] * (k - good))
        return out

    found = difficulty.measure(config, path, tmp_path / "hard", 4, sample)
    assert len(asked) == 12 and {f["mean"] for f in found.values()} == {0, 0.25, 0.5, 0.75, 1}
    text = difficulty.write(path, tmp_path / "hard", found, 0.0, 1.0)
    kept = [r["id"] for r in store.read(tmp_path / "hard" / "train.parquet")]
    assert set(kept) == {r["id"] for r in rows if right[r["question"]] in (1, 2, 3)}
    means = [found[i]["mean"] for i in kept]
    assert means == sorted(means, reverse=True) and "of the groups without gradient" in text
    assert difficulty.measure(config, path, tmp_path / "hard", 4, sample) == found and len(asked) == 12
    with pytest.raises(IcrError, match="other numbers of completions"):
        difficulty.measure(config, path, tmp_path / "hard", 5, sample)
    with pytest.raises(IcrError, match="no row is left"):
        difficulty.write(path, tmp_path / "hard", {i: f | {"flat": 1.0} for i, f in found.items()}, 0.0, 1.0)


def test_length_costs_from_the_soft_limit_on() -> None:
    found = trainers.overlong(lambda **_: [1.0, 1.0, 1.0, None], 100, 20)
    assert found(completion_ids=[[0] * 80, [0] * 90, [0] * 100, [0] * 100]) == [1.0, 0.5, 0.0, None]
