"""The grammar of settings: what parses prints back, equal settings print equally, everything else is one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks.errors import IcrError
from icr_tasks.registry import KV_METHODS, RETRIEVERS
from icr_tasks.settings import KV_NATIVE, ORDERS, SPLITS, Setting

ROOT = Path(__file__).resolve().parent
AMOUNTS = ("512", "4k", "3000", "32k", "1M")
METHODS = [e.name for e in KV_METHODS.entries() if e.name != "press"]


@st.composite
def rags(draw: st.DrawFn) -> tuple[str, list[str]]:
    name = draw(st.sampled_from(list(RETRIEVERS)))
    options = [name, draw(st.sampled_from(ORDERS))]
    options += draw(st.lists(st.sampled_from(["chunk=128", "chunk=256"]), max_size=1))
    options += draw(
        st.lists(
            st.sampled_from(["overlap=16", "seed=3", "overlap=0"]), max_size=2, unique_by=lambda o: o[:4]
        )
    )
    if "embedder" in RETRIEVERS.get(name).params:
        options += draw(
            st.lists(st.sampled_from(["embedder=a/b", "instruction=off", "revision=123"]), unique=True)
        )
    return f"rag@{draw(st.sampled_from(AMOUNTS))}", options


@st.composite
def kvs(draw: st.DrawFn) -> tuple[str, list[str]]:
    name = draw(st.sampled_from(METHODS))
    budget = draw(st.sampled_from(["", "@0.05", "@1.0", "@0.5", "@1024", "@4k", "@77"]))
    options = draw(st.lists(st.sampled_from(SPLITS), max_size=1))
    knobs = [k for k in ("sink", "window", "update", "page", "size") if k in KV_METHODS.get(name).params]
    options += [f"{k}={draw(st.integers(1, 200))}" for k in knobs if draw(st.booleans())]
    return f"kv:{name}{budget}", options


@given(rags() | kvs(), st.randoms())
@settings(max_examples=300, deadline=None)
def test_what_parses_prints_back_whatever_the_order_of_options(
    drawn: tuple[str, list[str]], random: object
) -> None:
    head, options = drawn
    one = Setting.parse(",".join([head, *options]))
    random.shuffle(options)  # type: ignore[attr-defined]
    two = Setting.parse(",".join([head, *options]))
    assert one == two and str(one) == str(two)
    assert Setting.parse(str(one)) == one and str(Setting.parse(str(one))) == str(one)


@given(rags(), kvs())
@settings(max_examples=100, deadline=None)
def test_two_parts_combine(first: tuple[str, list[str]], second: tuple[str, list[str]]) -> None:
    rag, kv = (",".join([head, *options]) for head, options in (first, second))
    both = Setting.parse(f"{rag}+{kv}")
    assert both.compressed and both.kind == "rag" and str(both) == f"{Setting.parse(rag)}+{Setting.parse(kv)}"
    assert (
        both.kv == Setting.parse(kv)
        and both.params == Setting.parse(rag).params
        and both.budget == Setting.parse(rag).budget
    )
    assert Setting.parse(str(both)) == both and both.describe()["then"]["text"] == str(both.kv)


@pytest.mark.parametrize(
    ("text", "amount", "printed"),
    [
        ("kv:snapkv@1024", 1024, "kv:snapkv@1k"),
        ("kv:page@4k", 4096, "kv:page@4k"),
        ("kv:topk@0.05", 0.05, "kv:topk@0.05"),
        ("kv:topk@1.0", 1.0, "kv:topk@1.0"),
        ("kv:topk@2", 2, "kv:topk@2"),
        ("kv:topk@1M", 1 << 20, "kv:topk@1M"),
        ("kv:topk", 0.05, "kv:topk@0.05"),
        ("kv:steady", None, "kv:steady"),
    ],
)
def test_budgets_are_shares_or_tokens(text: str, amount: object, printed: str) -> None:
    found = Setting.parse(text)
    assert found.amount == amount and type(found.amount) is type(amount) and str(found) == printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fill", "Did you mean 'full'"),
        ("kv:topk@1", "whole cache or one token"),
        ("kv:topk@0", r"outside \(0, 1\]"),
        ("kv:topk@0.0", r"outside \(0, 1\]"),
        ("kv:topk@-3", "outside"),
        ("kv:topk@4g", "not a number"),
        ("kv:press.SnapKV@512", "takes a share"),
        ("kv:press", "name of a kvpress class"),
        ("kv:topk@0.05,windw=3", "Did you mean 'window'"),
        ("kv:topk@0.05,window=3,window=4", "gives window twice"),
        ("kv:fp8@0.5", "takes no parameters"),
        ("rag@4k,bm26", "Did you mean 'bm25'"),
        ("rag@4k,bm25,embedder=x", "embedder= belongs to the retrievers"),
        ("rag@4k,chunk=8k", "cannot hold one chunk"),
        ("rag@4k,seed=1,seed=2", "gives seed twice"),
        ("rag@4k,dense,bm25", "gives retriever twice"),
        ("rag", "needs a token budget"),
        ("full+kv:topk", "only rag@k and gold are combined"),
        ("rag@4k+rag@2k", "after '\\+' stands a KV method"),
        ("rag@4k+kv:topk+kv:page", "unknown|not a number|takes"),
        ("gold@all", "no parameters except @only"),
    ],
)
def test_what_does_not_parse_is_named(text: str, said: str) -> None:
    with pytest.raises(IcrError, match=said):
        Setting.parse(text)


def test_what_somebody_could_serve() -> None:
    yes = ("full", "rag@4k", "rag@4k,dense", "kv:topk", "kv:fp8", "rag@4k+kv:snapkv@0.5")
    no = ("none", "gold", "gold@only", "rag@4k,oracle", "rag@4k,random", "rag@4k,head")
    assert all(Setting.parse(text).deployable for text in yes)
    assert not any(Setting.parse(text).deployable for text in no)
    assert all(Setting.parse(f"kv:{name}").compressed for name in KV_NATIVE)


def test_settings_of_old_ledgers_print_as_they_did() -> None:
    found = set()
    for path in (ROOT / "golden").rglob("run.json"):
        found |= set(re.findall(r'"text": "([^"]+)"', path.read_text()))
    assert len(found) > 5
    for text in found:
        assert str(Setting.parse(text)) == text
