"""Options of the kinds of settings themselves, declared as data; and token counts as they are written.

An option of every `rag` setting is one entry in RAG and the code that reads `setting.params`. One that comes
later is `quiet=True`: it stands in `params` (and so in the fingerprint) only where it is given, so that older
runs keep theirs. `needs` names options one of which must stand beside it (`depth` without `rerank` means
nothing); beside them it is recorded with its default.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import IcrError
from .params import Flag, Name, Param, Tokens, Whole, Word
from .params import parse_tokens as parse_tokens

if TYPE_CHECKING:
    from .registry import Entry


@dataclass(frozen=True)
class Option:
    """An option of a kind of setting; `quiet` and `needs` as above."""

    param: Param
    quiet: bool = False
    needs: tuple[str, ...] = ()


ORDERS = ("score", "document", "reverse")  # reverse: best last, next to the question
SPLITS = ("query-aware", "query-agnostic")  # whether the question is seen while the cache is built
RAG: dict[str, Option] = {
    "order": Option(Word("score", words=ORDERS, bare=True)),
    "chunk": Option(Tokens(2048, low=1)),
    "overlap": Option(Tokens(0, low=0)),
    "paper_compat": Option(Flag(False)),
    "seed": Option(Whole(0, low=0)),
    "rerank": Option(Name("", "a model that orders the best `depth` chunks anew"), quiet=True),
    "depth": Option(Whole(50, low=1, text="how many chunks a reranker reads"), quiet=True, needs=("rerank",)),
    "neighbours": Option(Whole(0, low=0), quiet=True),
    "titles": Option(Flag(False, "passages whose title the question names come first"), quiet=True),
    "decompose": Option(Flag(False), quiet=True),
    "iterate": Option(Whole(0, low=0), quiet=True),
    "asker": Option(
        Name("rules", "who says what to search for next: rules, or a served model"),
        quiet=True,
        needs=("decompose", "iterate"),
    ),
}
PREFILLS = ("dense", "xattention")  # which tiles of attention a prefill computes (icr-hf)
KV: dict[str, Option] = {
    "split": Option(Word(SPLITS[0], words=SPLITS, bare=True)),
    "prefill": Option(Word(PREFILLS[0], words=PREFILLS), quiet=True),
}
# What retrievers with an embedder share (`context.retrieval.dense` registers with them).
EMBEDDING: dict[str, Param] = {
    "embedder": Name("Qwen/Qwen3-Embedding-4B"),
    "revision": Name(""),
    "instruction": Flag(True),
}
# The order in which these were always printed; every other option follows in the order of its declaration.
PRINTED = (
    "retriever",
    "order",
    "chunk",
    "overlap",
    "instruction",
    "paper_compat",
    "seed",
    "embedder",
    "revision",
)


def show_tokens(n: int) -> str:
    """Inverse of parse_tokens in its shortest form: 4096 -> `4k`."""
    if n % 1024**2 == 0:
        return f"{n // 1024**2}M"
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)


COMPAT_RESERVE = 2048  # tokens the released code takes off k


def check_rag(merged: Mapping[str, Any], k: int) -> None:
    """Raises IcrError where values of a rag setting with k tokens contradict each other."""
    if merged["overlap"] >= merged["chunk"]:
        raise IcrError(f"rag overlap {merged['overlap']} must be smaller than chunk {merged['chunk']}")
    if merged["chunk"] > k:
        raise IcrError(
            f"rag@{show_tokens(k)} cannot hold one chunk of {merged['chunk']} tokens; use chunk={k} or less"
        )
    if merged["paper_compat"] and (k <= COMPAT_RESERVE or merged["order"] != "score"):
        raise IcrError(
            "paper_compat keeps k - 2048 tokens in score order: it needs k above 2k and no other order"
        )


def kv_budget(name: str, text: str, entry: Entry[Any], values: Mapping[str, Any]) -> int | float:
    """The budget of a KV method: a share of the prompt (a number with a point) or tokens (whole, 2 or more)."""
    whole = re.fullmatch(r"\+?\d+[kKmM]?", text)
    if whole and text.lstrip("+0") == "1":
        raise IcrError(
            f"kv budget {text} may mean the whole cache or one token; write kv:{name}@1.0, or a token count "
            "above 1"
        )
    if whole and text.strip("+0kKmM"):
        tokens = parse_tokens(text.lstrip("+"))
        if name.startswith("press."):
            raise IcrError(f"kv:{name} takes a share, e.g. kv:{name}@0.5, not {text} tokens")
        held = [knob for knob in entry.facts.get("inside", ()) if values.get(knob)]
        if tokens < (least := sum(values[knob] for knob in held)):
            raise IcrError(
                f"kv:{name}@{text} keeps fewer tokens than {' + '.join(held)} ({least}); raise the budget "
                f"or lower {held[-1]}="
            )
        return tokens
    try:
        share = float(text.rstrip("kKmM") if whole else text)
    except ValueError:
        raise IcrError(
            f"kv budget {text!r} is not a number; write the kept share, e.g. kv:{name}@0.05, or tokens, "
            f"kv:{name}@1k"
        ) from None
    if not 0 < share <= 1:
        raise IcrError(
            f"kv budget {text} is outside (0, 1]; it is the share of the cache kept or read (tokens: "
            "1024, 4k)"
        )
    return share


def digests(paths: Mapping[str, Any]) -> dict[str, str]:
    """16 hex digits of each file that is named; "" where it is not there (who reads it says so)."""
    found = {}
    for name, path in paths.items():
        if path:
            try:
                found[name] = hashlib.sha256(Path(str(path)).expanduser().read_bytes()).hexdigest()[:16]
            except OSError:
                found[name] = ""
    return found


def split_task(name: str) -> tuple[str, str | None]:
    """Task and setting of a name that carries one, for hosts that pass no options; `;` stands for `,`, at
    which lm_eval divides a list of tasks.

    >>> split_task("icr_helmet_rag_nq_32k::rag@4k;dense")
    ('icr_helmet_rag_nq_32k', 'rag@4k,dense')
    """
    task, mark, setting = name.partition("::")
    return task, setting.replace(";", ",") if mark else None
