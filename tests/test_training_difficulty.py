"""pass@k of rows by a scripted sampler, the rows that stay, and what length costs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="training needs trl (extra [train])")
import trainkit

from icr_tasks.errors import IcrError
from icr_tasks.training import difficulty, trainers
from icr_tasks.training.data import formats, store
from icr_tasks.training.rows import Order


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
    lines = (tmp_path / "hard" / "difficulty.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "hard" / "difficulty.jsonl").write_text("".join(lines[:-1]) + lines[-1][:9])  # killed here
    assert difficulty.measure(config, path, tmp_path / "hard", 4, sample) == found and len(asked) == 13
    with pytest.raises(IcrError, match="other numbers of completions"):
        difficulty.measure(config, path, tmp_path / "hard", 5, sample)
    with pytest.raises(IcrError, match="was sampled from other data or with another model"):
        difficulty.measure(replace(config, max_response_length=7), path, tmp_path / "hard", 4, sample)
    with pytest.raises(IcrError, match="no row is left"):
        difficulty.write(path, tmp_path / "hard", {i: f | {"flat": 1.0} for i, f in found.items()}, 0.0, 1.0)


def test_rows_are_asked_as_training_would_show_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut to max_prompt_length with gold kept and numbered anew; what training leaves out is not asked."""
    root = trainkit.make(tmp_path, n=6)
    path = root / "data" / "train.parquet"
    rows = list(store.read(path))
    rows[0]["passages"] = [*rows[0]["passages"], *(f"Passage {n} says nothing." for n in range(40))]
    rows[1]["question"] += " " + "really " * 900
    store.write(path, rows, store.ROW)
    config = trainkit.config(root, "grpo", "out", prompt="id", reward={"name": "id"}, max_prompt_length=300)
    asked: list[str] = []

    def sample(conversations, k):  # type: ignore[no-untyped-def]
        asked.extend(messages[-1]["content"] for messages in conversations)
        return [["nothing"] * k for _ in conversations]

    found = difficulty.measure(config, path, tmp_path / "hard", 2, sample)
    assert set(found) == {r["id"] for r in rows} - {rows[1]["id"]} and len(asked) == 5
    assert "says nothing" in asked[0] and asked[0].count("says nothing") < 40
    assert all(text in asked[0] for text in rows[0]["gold_docs"])
    assert "1 cut by" in (told := capsys.readouterr().out) and "1 left out" in told
    with pytest.raises(IcrError, match="no row of .* can be used"):
        difficulty.measure(replace(config, max_prompt_length=5), path, tmp_path / "none", 2, sample)


@pytest.mark.parametrize(
    ("reward", "passed"),
    [
        ({"name": "id", "options": {"weights": {"ids": 4.0}}}, (1.0, 0.8)),
        ({"name": "id", "options": {"weights": {"ids": 0.25}}}, (1.0, 0.2)),
        ({"name": "idc", "preset": "paper_code"}, (1.0, None)),
    ],
)
def test_shares_are_of_the_best_that_the_config_s_reward_can_be(
    reward: dict[str, Any], passed: tuple[float, float | None], tmp_path: Path
) -> None:
    root = trainkit.make(tmp_path, n=6)
    given = {"prompt": reward["name"], "reward": reward, "max_prompt_length": 2000}
    config = trainkit.config(root, "grpo", "out", **given)
    path = root / "data" / "train.parquet"
    rows = list(store.read(path))

    def sample(conversations, k):  # type: ignore[no-untyped-def]
        row = {r["question"]: r for r in rows}
        found = [next(r for q, r in row.items() if q in m[-1]["content"]) for m in conversations]
        best = [formats.target(r, reward["name"]) for r in found]
        return [
            [text, text.replace(r["answers"][0], "Nobody Known")] for text, r in zip(best, found, strict=True)
        ]

    found = difficulty.measure(config, path, tmp_path / "hard", 2, sample)
    for one in found.values():
        assert one["pass"] == passed[0] and 0 < one["mean"] < 1
        if passed[1] is not None:
            assert one["mean"] == pytest.approx((1 + passed[1]) / 2)


def test_a_window_the_model_does_not_take_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine starts when first asked, with the window of the config's lengths."""
    given: list[dict[str, Any]] = []

    def start(**arguments: Any) -> None:
        given.append(arguments)
        raise ValueError("greater than the derived max_model_len")

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=start, SamplingParams=dict))
    config = trainkit.config(trainkit.make(tmp_path), "grpo", "out", trl={"vllm_max_model_length": 34816})
    sample = difficulty.vllm_sampler(config)
    assert not given
    with pytest.raises(IcrError, match=r"with a window of 406 tokens .*greater than the derived"):
        sample([[{"role": "user", "content": "q"}]], 2)
    assert given[0]["max_model_len"] == 406 and given[0]["seed"] == config.seed


def test_length_costs_from_the_soft_limit_on() -> None:
    found = trainers.overlong(lambda **_: [1.0, 1.0, 1.0, None], 100, 20)
    assert found(completion_ids=[[0] * 80, [0] * 90, [0] * 100, [0] * 100]) == [1.0, 0.5, 0.0, None]


def test_the_file_s_order_is_one_and_the_data_folder_is_not_overwritten(tmp_path: Path) -> None:
    order = Order.make([f"r{i}" for i in range(5)], 2, 42, 2, "file", [9, 1, 8, 2, 7])
    assert order.indices == (0, 1, 2, 3) * 2
    config = trainkit.config(trainkit.make(tmp_path), "grpo", "out", order="file")
    (tmp_path / "grpo.yaml").write_text(config.dump())
    data = tmp_path / "data"
    before = store.sha256(data / "train.parquet")
    with pytest.raises(IcrError, match="would be overwritten"):
        difficulty.main([str(tmp_path / "grpo.yaml"), "-o", str(data), "--base-url", "http://127.0.0.1:9/v1"])
    assert store.sha256(data / "train.parquet") == before
