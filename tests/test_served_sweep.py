"""Studies whose models are addresses: answers, cost and cap from the file to the ledgers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_served import FakeServed

from icr_tasks.cli import main
from icr_tasks.errors import IcrError
from icr_tasks.sweep import cells
from icr_tasks.sweep import study as studies

pytest.importorskip("aiohttp")
PRICE = {"input": 1.0, "output": 10.0}


def usage(prompt: str, said: str) -> dict[str, Any]:
    return {
        "prompt_tokens": 400,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 15},
    }


def write(folder: Path, address: str, **changes: Any) -> Path:
    model = {"name": "gpt", "endpoint": address, "model": "M", "price": PRICE, "budget_usd": 5, **changes}
    body = {
        "out": str(folder / "out"),
        "models": [{k: v for k, v in model.items() if v is not None}],
        "tasks": ["icr_synth_rag_512"],
        "settings": ["full", "none"],
        "limit": 4,
        "prompts": ["ao"],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def ledgers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "out" / "results").rglob("run.json"))]


def test_from_a_study_file_to_ledgers_that_say_what_it_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServed(lambda p: "Answer: 42.", usage=usage, dialect="openai", window=None) as server:
        path = write(tmp_path, server.url)
        assert main(["sweep", str(path), "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert server.calls == 0 and re.search(r"cost of gpt: 0\.00 USD for prompts, at most 0\.17 USD", said)
        assert "5.00 USD left of budget_usd 5" in said and "USD per million tokens" in said
        assert main(["sweep", str(path)]) == 0
        each = (400 + 20 * 10) / 1e6
        assert f"spent on gpt: {8 * each:.4f} USD of 5" in capsys.readouterr().out
        runs = ledgers(tmp_path)
        assert len(runs) == 2 and all(run["model"]["id"] == "M" for run in runs)
        for run in runs:
            assert run["tokens"]["cached"] == 400 and run["usage"] == {
                "tokens_in": 1600,
                "tokens_cached": 400,
                "tokens_out": 80,
                "tokens_reasoning": 60,
                "usd": round(4 * each, 6),
            }
            assert "price" not in run["fingerprint_inputs"]["model_args"]
        calls = server.calls
        dearer = write(tmp_path, server.url, price={"input": 9.0, "output": 9.0}, in_flight=3)
        assert (
            main(["sweep", str(dearer)]) == 0 and server.calls == calls
        )  # a price makes no cell another cell


def test_a_cap_in_the_middle_keeps_answers_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServed(lambda p: "Answer: 42.", usage=usage) as server:
        path = write(tmp_path, server.url, budget_usd=0.025, in_flight=1)
        assert main(["sweep", str(path)]) == 1
        out, err = capsys.readouterr()
        assert "budget_usd=0.025" in err and "finished answers are kept" in err
        assert f"go on with: icr sweep {path}" in err
        paid = server.calls
        assert 0 < paid < 8 and float(re.search(r"spent on gpt: ([\d.]+)", out)[1]) <= 0.025  # type: ignore[index]
        assert main(["sweep", str(path)]) == 1 and server.calls == paid
        assert main(["sweep", str(write(tmp_path, server.url, budget_usd=1, in_flight=1))]) == 0
        assert server.calls == 8  # none was asked twice
        assert main(["status", str(path), "--check"]) == 0


def test_a_server_that_changes_the_model_under_its_name_fails_the_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "M-2026-01"
    with FakeServed(lambda p: "Answer: 42.", answers_as=lambda number: name) as server:
        path = write(tmp_path, server.url, price=None, budget_usd=None)
        assert main(["sweep", str(path), "--only", "full"]) == 0
        name = "M-2026-02"
        assert main(["sweep", str(path)]) == 1
        assert "as model 'M-2026-01' before and as 'M-2026-02' now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, r"models\[0\]: an `endpoint` needs `model`"),
        ({"endpoint": "localhost:8000/v1"}, "is not http"),
        ({"price": 0.1}, r"models\[0\]: price: 0.1 does not say which tokens"),
        ({"price": {"input": 0.1, "output": 0.4, "unit": "EUR"}}, "unit 'EUR' is not USD per million tokens"),
        ({"price": None}, "nothing says what tokens cost"),
        ({"budget_usd": -1}, "amount above 0 in USD"),
        ({"endpoint": None}, "`price` is for a served model"),
        ({"endpoint": "$ICR_NO_SUCH_ADDRESS/v1"}, "ICR_NO_SUCH_ADDRESS is not set"),
    ],
)
def test_a_bad_entry_is_refused_with_the_fix(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(IcrError, match=words):
        cells.matrix(studies.load(write(tmp_path, "http://127.0.0.1:9/v1", **changes)))


def test_retrieval_without_a_tokenizer_says_which_option_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServed() as server:
        path = write(tmp_path, server.url)
        path.write_text(path.read_text().replace("- none", "- rag@128"))
        assert main(["sweep", str(path), "--only", "rag@"]) == 1
        assert "setting rag@k counts tokens" in capsys.readouterr().err and server.calls == 0
