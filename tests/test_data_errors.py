"""A record without a field its reader needs is one sentence with file and line, in every benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icr_tasks import benchmarks
from icr_tasks.benchmarks import helmet_rag
from icr_tasks.errors import IcrError

_PASSAGES = [{"psg_id": str(i), "title": "t", "text": f"passage {i}"} for i in range(20)]
KILT = {
    "id": "1",
    "question": "q?",
    "answers": ["a"],
    "ctxs": _PASSAGES,
    "positive_ctxs": _PASSAGES[:1],
    "s_pop": 9,
}
CHOICE = {"id": 3, "context": "c", "input": "Who?", "answer": ["x"], "options": ["w", "x", "y", "z"]}
LONGBENCH = dict.fromkeys(
    (
        "_id",
        "domain",
        "sub_domain",
        "difficulty",
        "length",
        "question",
        "choice_A",
        "choice_B",
        "choice_C",
        "choice_D",
        "context",
    ),
    "x",
) | {"answer": "A"}
LOONG = {
    "level": 1,
    "set": 1,
    "length": 9,
    "type": "financial",
    "language": "en",
    "question": "q",
    "instruction": "i",
    "prompt_template": "{docs}",
    "doc": ["ACME"],
    "answer": "a",
    "shuffle_doc": True,
    "id": "l1",
}


def popqa(root: Path, row: Any) -> None:
    lines(root / "helmet/data/kilt/popqa_test_1000_k20_dep6.jsonl", KILT, row)
    benchmarks.load("helmet_rag", "popqa", "4k", allow_partial=True)


def demos(root: Path, row: Any) -> None:
    lines(root / "helmet/data/kilt/popqa_test_1000_k3_dep6.jsonl", KILT, row)
    helmet_rag._demo_rows.cache_clear()
    helmet_rag.demos("popqa", "7")


def infbench(dataset: str) -> Callable[[Path, Any], None]:
    def load(root: Path, row: Any) -> None:
        names = {"mc": "choice", "qa": "qa", "sum": "sum"}
        lines(root / f"infinitebench/longbook_{names[dataset]}_eng.jsonl", CHOICE, row)
        benchmarks.load("infbench", dataset, allow_partial=True)

    return load


def longbench(root: Path, row: Any) -> None:
    path = root / "longbench_v2/data.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([LONGBENCH, row]))
    benchmarks.load("longbench_v2", "all", allow_partial=True)


def loong(root: Path, row: Any) -> None:
    folder = root / "loong/doc/financial"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "2024-ACME-j.txt").write_text("text")
    lines(root / "loong/loong.jsonl", LOONG, row)
    benchmarks.load("loong_fin", "all", allow_partial=True)


def lines(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != name}


CASES: list[tuple[Callable[[Path, Any], None], Any, str]] = [
    (popqa, KILT | {"s_pop": 0}, "jsonl:2: s_pop is 0"),
    (popqa, KILT | {"s_pop": None}, "jsonl:2: field 's_pop' is null"),
    (popqa, KILT | {"s_pop": "9"}, "jsonl:2: field 's_pop' is not a whole number or a number"),
    (popqa, without(KILT, "s_pop"), "jsonl:2: no field 's_pop'"),
    (popqa, without(KILT, "id"), "jsonl:2: field 'id' is in some rows"),
    *(
        (popqa, without(KILT, name), f"jsonl:2: no field '{name}'")
        for name in ("question", "answers", "ctxs")
    ),
    (popqa, KILT | {"answers": []}, "jsonl:2: the question or the list 'answers' is empty"),
    (popqa, KILT | {"ctxs": [{"title": "t"}] * 20}, "jsonl:2: a passage of 'ctxs' has no 'text'"),
    (demos, KILT | {"s_pop": 0}, "k3_dep6.jsonl:2: s_pop is 0"),
    (demos, without(KILT, "id"), "k3_dep6.jsonl:2: field 'id' is in some rows"),
    (demos, without(KILT, "ctxs"), "k3_dep6.jsonl:2: no field 'ctxs'"),
    (demos, KILT | {"ctxs": [{"text": "x"}]}, "k3_dep6.jsonl:2: no field 'title'"),
    (demos, KILT | {"answers": []}, "k3_dep6.jsonl:2: the list 'answers' is empty"),
    *((infbench("mc"), without(CHOICE, name), f"jsonl:2: no field '{name}'") for name in CHOICE),
    *((infbench("mc"), CHOICE | {name: None}, f"jsonl:2: field '{name}' is null") for name in CHOICE),
    (infbench("mc"), CHOICE | {"answer": []}, "jsonl:2: field 'answer' is not a list of texts"),
    (infbench("qa"), without(CHOICE, "id"), "jsonl:2: no field 'id'"),
    (infbench("qa"), without(CHOICE, "input"), "jsonl:2: no field 'input'"),
    (infbench("sum"), without(CHOICE, "answer"), "jsonl:2: no field 'answer'"),
    *((longbench, without(LONGBENCH, name), f"record 2 has no text in {name}") for name in LONGBENCH),
    (longbench, LONGBENCH | {"answer": "E"}, "record 2 .*is not A, B, C or D"),
    (longbench, "text", "record 2 is not an object"),
    *(
        (loong, without(LOONG, name), f"jsonl:2: no field '{name}'")
        for name in LOONG
        if name not in ("length", "prompt_template", "shuffle_doc")
    ),
    (loong, LOONG | {"doc": []}, "jsonl:2: field 'doc' is not a list of document names"),
    (loong, LOONG | {"doc": "ACME"}, "jsonl:2: field 'doc' is not a list"),
    (loong, LOONG | {"level": "1"}, "jsonl:2: field 'level' is not a whole number"),
    (loong, LOONG | {"doc": ["NONE"]}, "jsonl:2: Loong item l1: no document '2024-NONE.txt' or '2024-NONE-"),
]


@pytest.mark.parametrize(("load", "row", "message"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_one_sentence_with_file_and_line(
    load: Callable[[Path, Any], None], row: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    for _ in range(2):  # the second time from the cache, if anything was kept
        with pytest.raises(IcrError, match=message):
            load(tmp_path, row)


@pytest.mark.parametrize("options", [{}, {"options": None}, {"options": []}])
def test_options_belong_to_multiple_choice_alone(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ICR_DATA_DIR", str(tmp_path))
    infbench("qa")(tmp_path, {**without(CHOICE, "options"), **options, "id": 4})
