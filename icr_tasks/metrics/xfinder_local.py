"""xFinder with transformers in this process: left-padded batches, greedy. Raises IcrError when it cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import IcrError
from .judge.endpoint import Outcome
from .judge.rubrics import BadReply


def ask_locally(
    config: Any,
    stop: Sequence[str],
    prompts: Sequence[str],
    read: Callable[[str], str],
    done: Callable[[int, Outcome], None],
) -> None:
    """Answer all prompts, longest first so that a batch which does not fit fails at once; `done` as each finishes."""
    if not prompts:
        return
    torch, tokenizer, model = _load(config)
    ends = {tokenizer.convert_tokens_to_ids(token) for token in stop} & set(tokenizer.get_vocab().values())
    ends |= {tokenizer.eos_token_id} - {None, tokenizer.unk_token_id}
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    for start in range(0, len(order), config.batch_size):
        batch = order[start : start + config.batch_size]
        # The template writes all special tokens itself, except a beginning-of-text token where the model has one.
        inputs = tokenizer([prompts[n] for n in batch], return_tensors="pt", padding=True).to(model.device)
        with torch.inference_mode():
            out = model.generate(
                **inputs, do_sample=False, max_new_tokens=config.max_tokens, eos_token_id=sorted(ends) or None,
                pad_token_id=tokenizer.pad_token_id, temperature=None, top_p=None, top_k=None,
            )  # fmt: skip
        for n, row in zip(batch, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            ended = any(token in ends for token in row)
            kept = row[: next(i for i, token in enumerate(row) if token in ends)] if ended else row
            done(n, _outcome(tokenizer.decode(kept, skip_special_tokens=True), ended, config.max_tokens, read))


def _outcome(reply: str, ended: bool, limit: int, read: Callable[[str], str]) -> Outcome:
    try:
        if not ended:
            raise BadReply(f"cut off after {limit} tokens")
        return Outcome(read(reply), None, [reply])
    except BadReply as error:
        return Outcome(None, str(error), [reply])


def _load(config: Any) -> tuple[Any, Any, Any]:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(config.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype="auto").eval()
    except (ImportError, OSError, ValueError) as error:
        raise IcrError(
            f"xFinder model {config.model!r} cannot be loaded ({error}); give a folder, or serve it and set xfinder_base_url"
        ) from error
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return torch, tokenizer, model.to(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
