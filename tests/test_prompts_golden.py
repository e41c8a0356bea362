"""Every prompt rendered for one fixed item, frozen by hash: a changed character is a changed benchmark (bump
the task version)."""

from __future__ import annotations

import hashlib

import pytest

from icr_tasks.benchmarks import base
from icr_tasks.benchmarks.base import Unit

FIELDS = {
    "question": "Q?",
    "demos": "DEMO\n\n",
    "instruction": "INSTRUCTION",
    "choice_a": "one",
    "choice_b": "two",
    "choice_c": "three",
    "choice_d": "four",
}
UNITS = [Unit("a", "alpha", "T1"), Unit("b", "beta", "T2")]
GOLDEN = {
    ("helmet_rag", "nq", "ao"): "089d708cccfcdcba",
    ("helmet_rag", "nq", "id"): "bda66709dd78c049",
    ("helmet_rag", "nq", "idc"): "e42b1f28e8c36818",
    ("helmet_rag", "nq", "idq"): "6b56b272b39b5e5e",
    ("helmet_rag", "nq", "judge"): "665e001b3ef7171d",
    ("helmet_rag", "nq", "ao_code"): "5bd57a456d974201",
    ("helmet_rag", "nq", "idc_code"): "4867fe3ef6a3dea5",
    ("helmet_rag", "nq", "judge_code"): "b0287e9c6d54d865",
    ("helmet_rag", "nq", "official"): "353b6449c77f5497",
    ("infbench", "mc", "paper"): "4ffec9b378ef9e88",
    ("infbench", "mc", "official"): "9a3f4605601b5965",
    ("infbench", "qa", "paper"): "817bbd33b213ec42",
    ("infbench", "qa", "official"): "75268e81d077c2bf",
    ("infbench", "sum", "paper"): "15fc8ac34b04547f",
    ("infbench", "sum", "official"): "6e6b5c506b0eb3e7",
    ("longbench_v2", "all", "paper"): "13199759e5c9ded8",
    ("longbench_v2", "all", "official"): "da20e426d25aeb1d",
    ("longbench_v2", "all", "cot"): "b775f25f59f0c9e0",
    ("loong_fin", "all", "paper"): "b467437c3b7c6147",
    ("loong_fin", "all", "official"): "15274e11a5ae7858",
}


def rendered(benchmark: str, dataset: str, name: str) -> str:
    prompt = base.get(benchmark, name, dataset)
    return "\n---\n".join(
        f"{m['role']}: {m['content']}" for m in prompt.messages(context=prompt.context(UNITS), **FIELDS)
    )


def all_prompts() -> list[tuple[str, str, str]]:
    homes = [
        ("helmet_rag", "nq"),
        ("infbench", "mc"),
        ("infbench", "qa"),
        ("infbench", "sum"),
        ("longbench_v2", "all"),
        ("loong_fin", "all"),
    ]
    return [(b, d, name) for b, d in homes for name in base.table(b, d)]


@pytest.mark.parametrize("key", all_prompts(), ids="/".join)
def test_frozen(key: tuple[str, str, str]) -> None:
    digest = hashlib.sha256(rendered(*key).encode()).hexdigest()[:16]
    assert digest == GOLDEN[key], f"{key}: {digest}\n{rendered(*key)}"


def test_table_7_and_8_lines() -> None:
    ao = rendered("helmet_rag", "nq", "ao")
    assert ao.startswith(
        "system: You are an expert in question answering.\n---\nuser: Use the given documents to write a "
        "concise"
    )
    assert "\n\n[DOC 0]\nalpha\n\n[DOC 1]\nbeta\n\nQuestion: Q?\n\n" in ao and ao.endswith(
        "Answer: <your answer>."
    )
    for name in ("id", "idc", "idq", "judge"):
        text = rendered("helmet_rag", "nq", name)
        assert "Documents: [DOC 0]\nalpha" in text and text.rstrip(".").endswith("Question: Q?")
        assert text.endswith(".") == (name != "judge")  # as printed in the paper
    mc = rendered("infbench", "mc", "paper")
    assert mc.endswith(
        'A. one\nB. two\nC. three\nD. four\n\nFormat your response as follows: "The answer is (insert '
        'answer here)".'
    )
    assert rendered("infbench", "sum", "paper").endswith("Summarize the book below.\n\nalpha\nbeta.")
    official = rendered("helmet_rag", "nq", "official")
    assert official.endswith(
        "DEMO\n\nDocument (Title: T1): alpha\n\nDocument (Title: T2): beta\n\nQuestion: "
        "Q?\n---\nassistant: Answer:"
    )
    assert "<text>\nalpha\nbeta\n</text>" in rendered("longbench_v2", "all", "official")
    assert rendered("loong_fin", "all", "official").startswith(
        "user: 《T1》\nalpha\n\n《T2》\nbeta\n\n\n\nINSTRUCTION\n\nQ?"
    )
    filing = [Unit("f", "text", "2024-HARTE HANKS INC-j", official_title="j")]
    assert base.get("loong_fin", "official").context(filing) == "《j》\ntext\n\n"
    assert base.get("loong_fin", "paper").context(filing) == "《2024-HARTE HANKS INC-j》\ntext\n"


def test_paper_and_code_differ_where_they_are_said_to() -> None:
    assert "exactly as provided" in rendered("helmet_rag", "nq", "idc_code")
    assert "exactly as provided" not in rendered("helmet_rag", "nq", "idc")
    assert "needed to answer it" in rendered("helmet_rag", "nq", "judge_code")
    assert rendered("helmet_rag", "nq", "ao_code").count("Answer: <your answer>") == 2
