"""The grammar of settings: what parses prints back, equal settings print equally, everything else is one
sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icr_tasks import schema
from icr_tasks.errors import IcrError
from icr_tasks.harness.options import Options
from icr_tasks.kv import choose, make
from icr_tasks.params import Flag, Whole, Word
from icr_tasks.registry import KV_METHODS, RETRIEVERS, ROUTES
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
    budget = draw(st.sampled_from(["", "@0.05", "@1.0", "@0.5", "@1024", "@4k", "@777"]))
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
        ("kv:snapkv@1024", 1024, "kv:snapkv@1024"),
        ("kv:snapkv@1k", 1024, "kv:snapkv@1024"),
        ("kv:snapkv@2048", 2048, "kv:snapkv@2k"),
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
        ("full+kv:topk", "only rag@k or gold and one kv:METHOD"),
        ("rag@4k+rag@2k", "only rag@k or gold and one kv:METHOD"),
        ("rag@4k+kv:topk+kv:page", "only rag@k or gold and one kv:METHOD"),
        ("kv:topk+rag@4k", "only rag@k or gold and one kv:METHOD"),
        ("rag@4k+kw:topk", "Did you mean 'kv'"),
        ("rag@4k,,bm25", "single commas"),
        ("rag@4k@2k", "cannot be read"),
        ("rag@4k,chunk", "chunk needs a value"),
        ("rag@4k,embedder=", "embedder= has no value"),
        ("kv:snapkv@32", r"fewer tokens than window \(64\)"),
        ("kv:streaming@4", r"fewer tokens than sink \+ window \(5\)"),
        ("kv:steady@67", r"fewer tokens than sink \+ window \(68\)"),
        ("kv:topk@01", "whole cache or one token"),
        ("kv:topk@0k", "outside"),
        ("kv:topk@nan", "outside"),
        ("kv:native@0.5", "takes no parameters"),
        ("kv:topk,split", "split needs a value"),
        ("kv:topk,query-awre", "query-aware"),
        ("route", "needs a name and a token budget"),
        ("route:self", "needs a name and a token budget"),
        ("route:sefl@4k", "Did you mean 'self'"),
        ("route:self@4k,hybird", "Did you mean 'hybrid'"),
        ("route:self@512,chunk=1k", "cannot hold one chunk"),
        ("", "unknown setting"),
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


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("rag@1024", "rag@1k"),
        ("rag:dense@4k", "rag@4k,dense"),
        ("rag@4k,embedder=a/b", "rag@4k,dense,embedder=a/b"),
        (
            "rag@4k,hybrid,seed=3,instruction=off,revision=1",
            "rag@4k,hybrid,instruction=off,seed=3,revision=1",
        ),
        ("rag@4k,paper_compat,instruction=on", "rag@4k,instruction,paper_compat"),
        ("rag@4k,dense,paper_compat", "rag@4k,paper_compat"),
        ("rag@4k,bm25,paper_compat", "rag@4k,bm25,paper_compat"),
        ("rag@4k,chunk=1k,reverse", "rag@4k,reverse,chunk=1024"),
        ("kv:cluster@0.05,estimation=0,update=256", "kv:cluster@0.05,update=256,estimation=0.0"),
        ("kv:topk@1e-3", "kv:topk@0.001"),
        ("kv:press.AdaKV", "kv:press.AdaKV@0.5"),
    ],
)
def test_what_users_wrote_prints_as_before(text: str, printed: str) -> None:
    assert str(Setting.parse(text)) == printed


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("full", "4e9730c5eca5"),
        ("gold@only", "eb216ee88013"),
        ("rag@32k", "ff5cf4514ac0"),
        ("rag@512,chunk=64", "8a6dd482f324"),
        ("rag@4k,bm25,paper_compat", "386a74135f0b"),
        ("rag@4k,dense,revision=12", "cefb5282eb48"),
        ("kv:cluster,build=naive", "b61a44794995"),
        ("kv:steady", "214f0abcd004"),
        ("kv:press.SnapKV@0.5,query-agnostic", "68ace9edb360"),
        ("kv:fp8", "26b145ee3739"),
    ],
)
def test_what_is_recorded_of_a_setting_stays_so_that_old_fingerprints_do(text: str, hashed: str) -> None:
    recorded = schema.run_fingerprint({"setting": Setting.parse(text).describe()})
    assert recorded == hashed


@given(st.text(alphabet="fulragkv:topk@0.5,=+d1k bm25-_éé\n٣", max_size=24))
@settings(max_examples=400, deadline=None)
def test_whatever_is_typed_parses_to_a_fixed_point_or_is_named_in_one_line(text: str) -> None:
    try:
        found = Setting.parse(text)
    except IcrError as error:
        assert str(error) and "Traceback" not in str(error)
    else:
        assert Setting.parse(str(found)) == found


def test_a_models_name_may_have_a_plus() -> None:
    found = Setting.parse("rag@4k,dense,embedder=/models/c++/a+b+kv:topk@0.5")
    assert found.params["embedder"] == "/models/c++/a+b" and str(found.kv) == "kv:topk@0.5"
    assert Setting.parse(str(found)) == found


def test_a_model_that_compresses_by_design_is_run_as_it_is() -> None:
    found = Setting.parse("kv:native")
    assert (str(found), found.compressed, found.kv, found.deployable) == ("kv:native", False, None, True)
    assert str(Options.parse({"setting": "kv:native"}).setting) == "kv:native"
    assert str(Options.parse({"kv": "native"}).setting) == "kv:native"
    assert "error" not in choose.verify(found, {"kv": {"setting": "full", "steps": 3, "sparse_steps": 0}})
    with pytest.raises(IcrError, match="contradicts kv_cache_dtype"):
        Options.parse({"setting": "kv:native", "kv_cache_dtype": "fp8"})


def test_parts_of_a_combined_setting_and_where_they_are_used() -> None:
    found = Setting.parse("rag@4k,document+kv:topk@0.05,window=8")
    assert (str(found.rag), str(found.context), str(found.kv)) == (
        "rag@4k,document",
        "rag@4k,document",
        "kv:topk@0.05,window=8",
    )
    gold = Setting.parse("gold@only+kv:topk")
    assert gold.rag is None and str(gold.context) == "gold@only" and not gold.deployable
    served = Options.parse({"setting": "rag@4k+kv:topk", "embedder": "a/b"}).setting
    assert str(served) == "rag@4k,dense,embedder=a/b+kv:topk@0.05"
    fp8 = Options.parse({"setting": "rag@4k+kv:fp8", "kv_cache_dtype": "fp8"}).setting
    assert "error" not in choose.verify(fp8, {"kv": {"setting": "kv:fp8"}})
    assert "ran full" in choose.verify(found, {"kv": {"setting": "full"}})["error"]


@pytest.fixture
def foreign() -> Iterator[None]:
    """Retrievers, a KV method and a route that are not ours."""
    added = (
        (RETRIEVERS, "document", {"mode": Word("fast", words=("fast", "slow", "bm25"), bare=True)}, {}),
        (RETRIEVERS, "blind", {"dense": Flag(False)}, {"reference": True}),
        (KV_METHODS, "thin", {"every": Whole(0), "by": Word("a", words=("a", "b"), bare=True)}, {}),
        (ROUTES, "ask", {"tries": Whole(1, low=1)}, {}),
    )
    for registry, name, params, facts in added:
        if registry is KV_METHODS:
            facts = {"frees": True, "budget": 0.5, "inside": (), "quiet": ("every",)}
        registry.add(name, object(), params=params, **facts)
    yield
    for registry, name, _, _ in added:
        del registry.known[name]


@pytest.mark.usefixtures("foreign")
def test_names_and_parameters_of_others_are_written_like_ours() -> None:
    for text in (
        "rag@4k,retriever=document",  # the bare word is an order
        "rag@4k,retriever=document,slow",
        "rag@4k,retriever=document,mode=bm25",  # the bare word is a retriever
        "rag@4k,blind,dense=on",
        "rag@4k,rerank=a/b,depth=20",
        "kv:thin@0.5,b",
        "kv:thin@100,every=8",
        "route:ask@4k,tries=2",
        "route:self@4k,hybrid,iterate=2",
    ):
        assert str(Setting.parse(text)) == text
    assert str(Setting.parse("route:ask@4k,tries=1")) == "route:ask@4k"
    assert not Setting.parse("rag@4k,blind").deployable and Setting.parse("route:ask@4k").deployable
    with pytest.raises(IcrError, match="give rerank=... as well"):
        Setting.parse("rag@4k,depth=20")
    with pytest.raises(IcrError, match="route:ask parameter 'trees'. Did you mean 'tries'"):
        Setting.parse("route:ask@4k,trees=2")


@pytest.mark.usefixtures("foreign")
def test_options_that_came_later_are_recorded_only_where_they_are_given() -> None:
    assert not {"rerank", "depth"} & set(Setting.parse("rag@4k").params)
    assert Setting.parse("rag@4k,rerank=m").params["depth"] == 50
    assert (
        "every" not in Setting.parse("kv:thin").params
        and Setting.parse("kv:thin,every=2").params["every"] == 2
    )


def test_budgets_mean_the_same_in_every_method() -> None:
    pytest.importorskip("torch")
    for name in METHODS:
        if name == "kivi":  # keeps every token
            with pytest.raises(IcrError, match="takes no budget"):
                make(name, 0.5)
            continue
        if name == "duo":  # keeps whole heads
            with pytest.raises(IcrError, match="takes the share of heads"):
                make(name, 1024)
            continue
        share, tokens = make(name, 0.5), make(name, 1024)
        assert share.share(4096) == 2048 and tokens.share(4096) == 1024 and tokens.share(600) == 600
