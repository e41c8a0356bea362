"""What is taken from the installed `xfinder` package, at run time: prompts, stop tokens, comparator.

The package is CC BY-NC-ND, so none of its text is repeated here. Prompts are made by its own code:

- `as_released`: as version 0.2.6 asks (what the paper used);
- `as_trained`: the package's unused training instruction is put before the question again. The longer system prompt
  of the training data is not in the package; give it with `xfinder_system` if you have it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .. import hub
from ..errors import IcrError, unknown
from .judge.endpoint import Outcome
from .judge.rubrics import BadReply
from .xfinder_cases import ChoiceCase

MODES = ("as_released", "as_trained")
_TYPE = "alphabet_option"


class Package(NamedTuple):
    """The parts used."""

    extractor: type
    comparator: Any
    instruction: str
    templates: dict[str, str]
    stop: tuple[str, ...]
    version: str


@lru_cache(maxsize=1)
def package() -> Package:
    """Import xfinder. Raises IcrError with the way to install it (its own requirements pin an old torch)."""
    try:
        with warnings.catch_warnings():  # the package switches all warnings off when it is imported
            from importlib.metadata import version

            from xfinder.helpers import PROMPT_TEMPLATE
            from xfinder.modules import answer_extractor
            from xfinder.modules.answer_comparator import Comparator
    except ImportError as error:
        raise IcrError(
            f"xFinder cannot be imported ({error}); pip install --no-deps xfinder && pip install requests "
            "tenacity transformers"
        ) from error
    return Package(
        answer_extractor.Extractor,
        Comparator(),
        answer_extractor.Instruction,
        dict(PROMPT_TEMPLATE),
        tuple(answer_extractor.Extractor.STOP_TOKENS),
        version("xfinder"),
    )


def template_of(model: str, given: str | None) -> str:
    """Which of the package's prompt templates: as given, or the one whose name is in the model's, else
    llama38it."""
    names = package().templates
    if given is not None:
        if given not in names:
            raise unknown("xfinder_template", given, names)
        return given
    near = [name for name in names if name.split("-")[-1].lower() in model.lower()]
    return near[0] if near else "xFinder-llama38it"


class Prompter:
    """Builds prompts with the package's Extractor, without its network and model code."""

    def __init__(self, template: str, mode: str, system: str | None, max_chars: int) -> None:
        self._max_chars = max_chars
        made = package().extractor(
            model_name=template, inference_mode="api", model_path_or_url="", temperature=0
        )
        if system is not None:
            made.system_prompt = system
        before = package().instruction if mode == "as_trained" else ""
        # Its generate_output formats the query and hands it to this method, which would post it to a server.
        made._execute_api_inference = lambda query, *args, **kwargs: made.create_formatted_prompt(
            before + query
        )
        self._made = made

    def __call__(self, case: ChoiceCase) -> str:
        """The whole prompt. A generation over the cap keeps its beginning and end: the extractor's window is
        8k."""
        text = case.response
        if len(text) > self._max_chars:
            half = self._max_chars // 2
            text = f"{text[:half]}\n[...]\n{text[-half:]}"
        return self._made.generate_output(case.asked, text, case.range)


def same(case: ChoiceCase, extracted: str) -> bool:
    """The package's own comparison of an extraction with the right letter (which also takes the option's
    text)."""
    return bool(package().comparator.compare((_TYPE, case.range, extracted, case.gold))[-1])


# ---- xfinder local -------------------------------------------------------------------------------
# xFinder with transformers in this process: left-padded batches, greedy. Raises IcrError when it cannot be
# loaded.


def ask_locally(
    config: Any,
    stop: Sequence[str],
    prompts: Sequence[str],
    read: Callable[[str], str],
    done: Callable[[int, Outcome], None],
) -> None:
    """Answer all prompts, longest first so that a batch which does not fit fails at once; `done` as each
    finishes."""
    if not prompts:
        return
    torch, tokenizer, model = _load(config)
    ends = {tokenizer.convert_tokens_to_ids(token) for token in stop} & set(tokenizer.get_vocab().values())
    ends |= {tokenizer.eos_token_id} - {None, tokenizer.unk_token_id}
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    for start in range(0, len(order), config.batch_size):
        batch = order[start : start + config.batch_size]
        # The template writes all special tokens itself, except a beginning-of-text token where the model has
        # one.
        inputs = tokenizer([prompts[n] for n in batch], return_tensors="pt", padding=True).to(model.device)
        with torch.inference_mode():
            out = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=config.max_tokens,
                eos_token_id=sorted(ends) or None,
                pad_token_id=tokenizer.pad_token_id,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        for n, row in zip(batch, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            ended = any(token in ends for token in row)
            kept = row[: next(i for i, token in enumerate(row) if token in ends)] if ended else row
            done(
                n, _outcome(tokenizer.decode(kept, skip_special_tokens=True), ended, config.max_tokens, read)
            )


def _outcome(reply: str, ended: bool, limit: int, read: Callable[[str], str]) -> Outcome:
    try:
        if not ended:
            raise BadReply(f"cut off after {limit} tokens")
        return Outcome(read(reply), None, [reply])
    except BadReply as error:
        return Outcome(None, str(error), [reply])


def _load(config: Any) -> tuple[Any, Any, Any]:
    # A folder has one state, whatever it is labelled; of the hub the revision that is recorded is the one that is loaded.
    revision = None if Path(config.model).expanduser().is_dir() else config.revision or None
    here = hub.local(config.model, "xFinder model", revision)
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {"revision": revision, "local_files_only": here}
        tokenizer = AutoTokenizer.from_pretrained(config.model, padding_side="left", **options)
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype="auto", **options).eval()
    except (ImportError, OSError, ValueError) as error:
        raise IcrError(
            f"xFinder model {config.model!r} cannot be loaded ({error}); give a folder, or serve it and set "
            "xfinder_base_url"
        ) from error
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return torch, tokenizer, model.to(hub.device(config.device))
