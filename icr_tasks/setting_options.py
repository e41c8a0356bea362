"""Options of the kinds of settings themselves, declared as data; and token counts as they are written.

An option of every `rag` setting is one entry in RAG and the code that reads `setting.params`. One that comes later is
`quiet=True`: it stands in `params` (and so in the fingerprint) only where it is given, so that older runs keep theirs.
`needs` names options one of which must stand beside it (`depth` without `rerank` means nothing); beside them it is
recorded with its default.
"""

from __future__ import annotations

from dataclasses import dataclass

from .params import Flag, Name, Param, Tokens, Whole, Word
from .params import parse_tokens as parse_tokens


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
    "decompose": Option(Flag(False), quiet=True),
    "iterate": Option(Whole(0, low=0), quiet=True),
    "asker": Option(
        Name("rules", "who says what to search for next: rules, or a served model"),
        quiet=True,
        needs=("decompose", "iterate"),
    ),
}
KV: dict[str, Option] = {"split": Option(Word(SPLITS[0], words=SPLITS, bare=True))}
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
