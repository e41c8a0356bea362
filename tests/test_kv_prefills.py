"""Prefills shared between settings: the same answers as without, and nothing wrong is ever reused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import tiny  # noqa: E402

from icr_tasks.errors import IcrError  # noqa: E402
from icr_tasks.kv.hf import decode, same_logits  # noqa: E402
from icr_tasks.kv.hf.prefills import PrefillStore  # noqa: E402

TEXT = "The river Ilessdell runs through Dorovgate. " * 6
SETTINGS: list[dict[str, Any]] = [
    {"kv": "full"},
    {"kv": "topk", "kv_window": 16},
    {"kv": "page", "kv_window": 16},
    {"kv": "steady"},
    {"kv": "cluster", "kv_update": 32},
    {"kv": "snapkv", "kv_window": 16},
    {"kv": "snapkv", "kv_window": 100},
    {"kv": "keydiff"},
    {"kv": "snapkv", "kv_window": 16, "kv_split": "query-agnostic"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


def ask(folder: Path, text: str = TEXT, **args: Any) -> tuple[str, dict[str, Any]]:
    from icr_tasks.engines.hf import IcrHF
    from icr_tasks.harness.instance import PromptInstance

    gen = {"until": [], "do_sample": False, "max_gen_toks": 8}
    request = PromptInstance(
        doc={},
        prompt=text,
        gen_kwargs=gen,
        digest="{}",
        task="t",
        doc_id=0,
        repeats=1,
        boundary=len(text) - 20,
    )
    engine = IcrHF(str(folder), dtype="float32", device="cpu", **args)
    (answer,) = engine.generate_until([request], disable_tqdm=True)
    return answer, request.found


def test_every_setting_answers_as_without_sharing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, original = [], decode._prefill
    monkeypatch.setattr(decode, "_prefill", lambda *args: ran.append(1) or original(*args))
    monkeypatch.setattr(same_logits, "identity", lambda *args: None)  # its prefill is none of ours
    reused = []
    for args in SETTINGS:
        alone, measured = ask(folder, **args)
        before = len(ran)
        shared, found = ask(folder, **args, prefill_store=str(tmp_path))
        assert shared == alone, args
        same = (
            "steps",
            "sparse_steps",
            "bytes_read_per_step",
            "bytes_stored_per_token",
            "tokens_stored",
            "mass_kept",
        )
        assert {k: found["kv"][k] for k in same} == {k: measured["kv"][k] for k in same}, args
        assert found["kv"]["prefill_reused"] == (len(ran) == before)
        assert "prefill_reused" not in measured["kv"]
        reused.append(found["kv"]["prefill_reused"])
    # a window of 100 needs more queries than were kept; a context without its question is another prompt
    assert reused == [False, True, True, True, True, True, False, True, False]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_batch_decodes_prompts_that_were_prefilled_alone(folder: Path, tmp_path: Path) -> None:
    from icr_tasks.engines.hf import IcrHF
    from icr_tasks.harness.instance import PromptInstance

    texts = [TEXT, TEXT[:200], TEXT + "Which river?"]
    gen = {"until": [], "do_sample": False, "max_gen_toks": 8}
    asked = [
        PromptInstance(doc={}, prompt=t, gen_kwargs=gen, digest="{}", task="t", doc_id=0, repeats=1)
        for t in texts
    ]
    ask(folder, text=texts[1], prefill_store=str(tmp_path))
    for args in SETTINGS[:-1]:
        alone = [ask(folder, text=t, **args)[0] for t in texts]
        engine = IcrHF(
            str(folder), dtype="float32", device="cpu", batch_size=3, prefill_store=str(tmp_path), **args
        )
        assert engine.generate_until(asked, disable_tqdm=True) == alone, args
        reused = [r.found["kv"]["prefill_reused"] for r in asked]
        assert (
            reused == [args != SETTINGS[0], args.get("kv_window") != 100, args != SETTINGS[0]]
            or args.get("kv_window") == 100
        )


def test_reused_seconds_are_those_of_the_run_that_computed_it(folder: Path, tmp_path: Path) -> None:
    _, first = ask(folder, kv="full", prefill_store=str(tmp_path))
    _, again = ask(folder, kv="topk", prefill_store=str(tmp_path))
    assert not first["kv"]["prefill_reused"]
    assert again["kv"]["prefill_reused"]
    assert again["timing"]["prefill"] == first["timing"]["prefill"]
    assert again["kv"]["prefill_tokens_per_s"] == first["kv"]["prefill_tokens_per_s"]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "other"])
def test_a_damaged_file_is_computed_again(
    folder: Path, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer, _ = ask(folder, kv="topk", prefill_store=str(tmp_path))
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    bad = bytearray(good)
    bad[-5] ^= 1
    path.write_bytes({"flip": bytes(bad), "cut": good[:-100], "empty": b"", "other": b"x" * 1000}[harm])
    with caplog.at_level(logging.WARNING, "icr_tasks"):
        again, found = ask(folder, kv="topk", prefill_store=str(tmp_path))
    assert again == answer
    assert not found["kv"]["prefill_reused"]
    assert "is damaged" in caplog.text
    assert path.stat().st_size == len(good)
    assert ask(folder, kv="topk", prefill_store=str(tmp_path))[1]["kv"]["prefill_reused"]


def test_other_weights_other_pieces_other_text_share_nothing(folder: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    other = tiny.llama(tmp_path / "other", seed=1)
    for args in (
        {"folder": folder},
        {"folder": other},
        {"folder": folder, "prefill_chunk": 32},
        {"folder": folder, "text": TEXT + "!"},
    ):
        assert not ask(**args, prefill_store=store)[1]["kv"]["prefill_reused"]
    assert ask(folder, prefill_store=store, batch_size=4)[1]["kv"]["prefill_reused"]


def test_a_full_folder_stops_the_keeping_not_the_run(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "icr_tasks"):
        _, found = ask(folder, kv="topk", prefill_store=str(tmp_path), prefill_store_gb=1e-6)
    assert "takes no more prefills" in caplog.text
    assert not found["kv"]["prefill_reused"]
    assert not list(tmp_path.iterdir())


def test_bad_folders_and_models_without_a_name(folder: Path, tmp_path: Path) -> None:
    from icr_tasks.engines.hf import IcrHF

    (tmp_path / "file").write_text("x")
    with pytest.raises(IcrError, match="choose another"):
        PrefillStore(tmp_path / "file", {})
    built = IcrHF(str(folder), dtype="float32", device="cpu")
    with pytest.raises(IcrError, match="tells weights apart"):
        IcrHF(built.model, tokenizer=built.tokenizer, prefill_store=str(tmp_path))


def test_a_name_on_the_hub_whose_branch_moved_is_another_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores keep the two apart; what a run is called stays."""
    from huggingface_hub import constants

    from icr_tasks.engines import identity
    from icr_tasks.engines.hf import IcrHF

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    args, at = {"pretrained": "org/tiny", "peft": "org/tuned"}, tmp_path / "models--org--tiny"
    assert identity.stored(args) == identity.engine(args), "nothing is known of what is not here"
    (at / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        (at / "snapshots" / commit).mkdir(parents=True)
        (at / "snapshots" / commit / "config.json").write_text("{}")
        (at / "refs" / "main").write_text(commit)
        assert identity.stored(args) == {**identity.engine(args), "commits": {"pretrained": commit}}
    assert identity.engine(args) == args
    old = {**args, "revision": "a" * 40}
    assert identity.stored(old)["commits"] == {"pretrained": "a" * 40}
    local = {"pretrained": str(folder)}
    assert identity.stored(local) == identity.engine(local)

    def place(commit: str) -> Path:
        monkeypatch.setattr(identity, "commit", lambda *_: commit)
        return IcrHF(str(folder), device="cpu", prefill_store=str(tmp_path / "p")).prefills.path([1, 2])

    assert place("a") != place("b")
