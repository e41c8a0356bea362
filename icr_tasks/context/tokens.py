"""The evaluated model's tokenizer and context window, found the way lm-eval's own arguments name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import IcrError

_NO_TOKENIZER = (
    "this task counts tokens with the evaluated model's tokenizer and found none: pass "
    '--metadata \'{"tokenizer":"MODEL_OR_FOLDER"}\' (or {"tokenizer":"none"} to count nothing and never truncate)'
)


class TokenCounter:
    """Counts and cuts text in tokens. `special` adds the tokens the engine adds when no chat template is
    used."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.name = str(getattr(tokenizer, "name_or_path", type(tokenizer).__name__))

    def count(self, text: str, *, special: bool = False) -> int:
        """Number of tokens of `text`."""
        return len(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def counts(self, texts: list[str]) -> list[int]:
        """Number of tokens of each text, in one batch."""
        if not texts:
            return []
        return [
            len(ids) for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """(start, end) character offsets of each token; needs a fast tokenizer (IcrError otherwise)."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise IcrError(f"{self.name} has no fast tokenizer; cutting text at token bounds needs one")
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]


@lru_cache(maxsize=4)
def _load(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # the hub client raises many types; all mean the same to the user
        raise IcrError(f"cannot load tokenizer {name!r}: {error}\n{_NO_TOKENIZER}") from error


def counter(metadata: Mapping[str, Any], lm: Any = None) -> TokenCounter | None:
    """Tokenizer of the running model `lm`, else of metadata's tokenizer, pretrained or model; None for
    "none"."""
    name = metadata.get("tokenizer")
    if str(name).lower() == "none" and "tokenizer" in metadata:
        return None
    if name is None and callable(getattr(lm, "tokenizer", None)):
        return TokenCounter(lm.tokenizer)
    name = name or metadata.get("pretrained") or metadata.get("model")
    if not name:
        raise IcrError(_NO_TOKENIZER)
    revision = metadata.get("tokenizer_revision") or metadata.get("revision")
    return TokenCounter(_load(str(name), revision, bool(metadata.get("trust_remote_code"))))


def window(metadata: Mapping[str, Any], lm: Any = None) -> int | None:
    """The model's context window in tokens, or None when nothing says it."""
    for key in ("max_model_len", "max_length"):
        if metadata.get(key):
            return int(metadata[key])
    if isinstance(getattr(lm, "max_length", None), int):
        return lm.max_length
    name = metadata.get("pretrained")
    if not name:
        return None
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            name, revision=metadata.get("revision"), trust_remote_code=bool(metadata.get("trust_remote_code"))
        )
    except (OSError, ValueError) as error:
        raise IcrError(
            f"cannot read the context window of {name!r} ({error}); pass max_model_len=N in --model_args"
        ) from error
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "max_position_embeddings", None)


@dataclass
class Chat:
    """Stands for an engine where prompts are built: what a task asks of a running model, its tokenizer, window and
    chat template."""

    tokenizer: Any
    max_length: int | None = None

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The rendered conversation."""
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
