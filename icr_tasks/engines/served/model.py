"""`--model icr-api`: a model behind an OpenAI-compatible address.

    lm_eval --model icr-api --model_args model=M,base_url=http://localhost:8000/v1,store=answers/ \
        --apply_chat_template --tasks icr_helmet_rag_nq_32k

Differences from `--model local-chat-completions`: each answer is stored as it finishes (`store=`) and never
paid for twice; one refused prompt fails one item; prices and a hard cap (`price=`, `budget_usd=`); all stop
strings count; thoughts that a server's parser takes out are kept; what a server refuses to be told is left
out, and recorded; a prompt that the server cut, or another model under the same name, is an error.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import queue
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM
from tqdm import tqdm

from ...credentials import redact_text
from ...errors import IcrError, unknown
from ...listing import CONTINUE, Listing
from .. import answers, identity, session
from ..answers import AnswerStore
from . import price as prices
from .address import key_of, server_of
from .client import Ask, Client
from .dialect import Dialect, Reply
from .fleet import Fleet, addresses, document_of
from .listing import listing_of
from .spending import BudgetReached, Spending

log = logging.getLogger("icr_tasks")
# A prompt was cut where the server read less than _READ of a count by the model's own tokenizer, or as many tokens of it
# as of _SAME others that are longer or shorter: its window. Of another tokenizer's count, or a guess from characters: less
# than half, and fewer tokens than this many characters each.
_READ, _CUT, _CHARACTERS, _SAME = 0.8, 2, 10, 2
# What lm_eval adds, and what tells the task which tokenizer counts.
_IGNORED = (
    *("batch_size", "max_batch_size", "device", "pretrained", "tokenizer", "tokenizer_revision", "revision"),
    *("tokenizer_backend", "tokenized_requests", "trust_remote_code", "max_gen_toks", "eos_string"),
)


class ModelChanged(IcrError):
    """Another model answers under the same name as before."""


class IcrAPI(LM):
    """A served model. `base_url` ends in /v1 (or names /chat/completions); prompts with a chat template go to
    /chat/completions, others to /completions. `price` in USD per million tokens, `budget_usd` the cap."""

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        *,
        store: str | None = None,
        num_concurrent: int = 16,
        timeout: float = 600.0,
        max_retries: int = 6,
        max_length: int | None = None,
        price: Mapping[str, float] | None = None,
        budget_usd: float | None = None,
        spent: str | None = None,
        fleet: Sequence[str] | str | None = None,
        api_key: str | None = None,
        api_key_env: str | None = None,
        header: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        seed: int | None = None,
        think_end_token: str | None = None,
        on_model_change: str = "refuse",
        verify_certificate: bool = True,
        **rest: Any,
    ) -> None:
        super().__init__()
        known = [n for n in inspect.signature(IcrAPI.__init__).parameters if n not in ("self", "rest")]
        for name in rest:
            if name not in _IGNORED:
                raise unknown("argument of icr-api", name, (*known, *_IGNORED))
        model = model or rest.get("pretrained")
        if not model or not base_url:
            raise IcrError("icr-api needs model=NAME and base_url=http://HOST:PORT/v1")
        if on_model_change not in ("refuse", "record"):
            raise unknown("on_model_change", on_model_change, ("refuse", "record"))
        self.model, self.on_model_change = str(model), on_model_change
        self.price = prices.Price.parse(price)
        limit = prices.budget(budget_usd, self.price)
        if limit is not None and not (store or spent):
            raise IcrError(
                "budget_usd needs store=FOLDER: finished answers, and what was spent, are kept there"
            )
        own = {"extra": extra, "seed": seed, "header": header}
        servers = []
        for address in (base_url, *addresses(fleet)):
            server = server_of(self.model, address, key_of(api_key, api_key_env, address), own)
            server.concurrency, server.timeout = max(int(num_concurrent), 1), float(timeout)
            server.retries, server.verify = int(max_retries), bool(verify_certificate)
            server.think_end = think_end_token
            servers.append(server)
        self.server, self.fleet = servers[0], Fleet(servers)
        self.listing: Listing = listing_of(self.fleet)
        self.max_length = int(max_length) if max_length else self.listing.window
        self.dialect = Dialect(
            "max_completion_tokens" if "api.openai.com" in self.server.root else "max_tokens"
        )
        self.spending = Spending(spent or store, self.server.shown, self.model, limit)
        self.seen: dict[str, int] = {}  # names and builds that answered
        self._own = {n for n in (self.model, self.listing.root, self.listing.weights) if n}
        self._ceilings: dict[int, set[int]] = {}  # tokens read of prompts that seem cut -> their own counts
        self._doubted = False  # whether counts that may be another tokenizer's were said
        self.answers_as: str | None = None
        self.history: AnswerStore | None = None  # of a sweep, which stores for this model
        same = {
            "model": self.model,
            "base_url": self.server.shown,
            "extra": extra,
            "seed": seed,
            "end": think_end_token,
        }
        self.store = AnswerStore(store, identity.engine({**same, "engine": "icr-api"})) if store else None

    # -- what lm_eval and our tasks ask of a model ---------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        """The model's name: its server has the template."""
        return self.model

    def chat_template(self, chat_template: bool | str = False) -> str:
        """None that this side knows: the server renders messages."""
        return ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> Any:
        """The messages as lm_eval's JsonChatStr."""
        from lm_eval.models.api_models import JsonChatStr

        return JsonChatStr(json.dumps(chat_history, ensure_ascii=False))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers in request order; a refused prompt gives "" and its reason in what is recorded with it."""
        with tqdm(total=len(requests), desc="icr-api", disable=disable_tqdm) as bar:
            try:
                return answers.answer(requests, self.store, self.stream, lambda index, stored: bar.update())
            except BudgetReached as error:
                raise BudgetReached(f"{error}{_command()}") from None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Refused: served models tell no likelihoods of a prompt."""
        raise IcrError(
            "icr-api generates only; tasks that score likelihoods need --model vllm or local-completions"
        )

    loglikelihood_rolling = loglikelihood  # type: ignore[assignment]

    def get_model_info(self) -> dict[str, Any]:
        """What answered and how it was asked, for the results file."""
        told: dict[str, Any] = {
            "served": {"answered_as": dict(self.seen), **self.listing.record(), **self.dialect.record()}
        }
        if by_server := self.fleet.record():
            told["served"]["fleet"] = by_server
        if self.price is not None:
            told["price"] = self.price.record()
            told["spent_usd"] = round(self.spending.spent, 6)
        return told

    # -- answers -------------------------------------------------------------------------------------------

    def stream(self, requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(index, text, measured) of each request as it finishes; asked in a thread of its own, so that a
        notebook's loop is not in the way."""
        settings = [session.setting_of(requests[i]) for i in order]
        session.refuse(settings, _refusal)
        done: queue.SimpleQueue[tuple[int, Reply | None, dict[str, Any]] | BaseException | None] = (
            queue.SimpleQueue()
        )
        trusted = bool(self.store or self.history)  # a store without answers is false
        client = Client(
            self.server, self.dialect, self.price, self.spending, self._known, self.fleet, trusted
        )
        running: dict[str, Any] = {}

        async def ask() -> None:
            running["loop"], running["task"] = asyncio.get_running_loop(), asyncio.current_task()
            await client.run(iter(order), lambda i: self._ask(requests[i]), lambda *one: done.put(one))

        def work() -> None:
            try:
                asyncio.run(ask())
                done.put(None)
            except BaseException as error:  # handed to the caller's thread
                done.put(error)

        thread = threading.Thread(target=work, name="icr-api", daemon=True)
        thread.start()
        try:
            while (one := done.get()) is not None:
                if isinstance(one, BaseException):
                    raise one
                i, reply, found = one
                yield i, *self._measured(requests[i], reply, found)
        finally:
            if thread.is_alive() and running:  # interrupted, or the caller cannot store
                with suppress(RuntimeError):  # the loop is closed: all was answered, the thread is ending
                    running["loop"].call_soon_threadsafe(running["task"].cancel)
            thread.join()

    def _ask(self, request: Any) -> Ask:
        prompt, kwargs = request.args
        document = document_of(request, answers.text_of(prompt))
        if isinstance(prompt, str):
            return Ask(prompt, kwargs, document=document)
        messages = json.loads(prompt.prompt)
        if messages[-1]["role"] != "assistant":
            return Ask(messages, kwargs, document=document)
        if not self.listing.continues:
            raise IcrError(
                f"the prompt begins the answer itself, which {self.server.shown} is not known to "
                "continue; take another "
                "prompt, setting gold@only instead of gold, or a vLLM or SGLang server"
            )
        return Ask(messages, kwargs, CONTINUE, document)

    def _measured(
        self, request: Any, reply: Reply | None, found: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        if reply is None:
            log.warning("%s doc %s: %s", request.task_name, request.doc_id, found["error"])
            return "", found
        found["finish_reason"] = reply.finish
        found["served"] = {
            k: v for k, v in (("model", reply.model), ("build", reply.build)) if v
        } | self.dialect.record()
        if error := self._cut(request, reply.usage.prompt):
            found["error"] = error
            log.warning("%s doc %s: %s", request.task_name, request.doc_id, found["error"])
            return "", found
        return reply.text or "", found

    def _cut(self, request: Any, read: int | None) -> str | None:
        """What to say where the server read less of a prompt than was sent; None where nothing says so."""
        text, size = answers.text_of(request.args[0]), getattr(request, "size", 0)
        tokenizer = getattr(request, "counted_by", None)
        if not read:
            return None
        said = f"it read {read} tokens of a prompt of {len(text)} characters (about {size} tokens)"
        cut = read * _CUT < size and read * _CHARACTERS < len(text)
        if tokenizer is not None:
            # Messages were counted as JSON, where a line break or a quote is two characters and up to two tokens more.
            least = size if isinstance(request.args[0], str) else size - 2 * text.count("\\")
            short = read < _READ * least
            if short:
                self._ceilings.setdefault(read, set()).add(size)
            if tokenizer in self._own or len(self._ceilings.get(read, ())) > _SAME:
                cut = cut or short
            elif short and not cut and not self._doubted:
                self._doubted = True
                log.warning(
                    "%s: %s: %s by the tokenizer %s; if that is the model's own, the server cuts prompts (Ollama: "
                    "num_ctx)",
                    *(self.server.shown, request.task_name, said, tokenizer),
                )
        if not cut:
            return None
        return f"server: {said}: it cuts prompts; raise its window (Ollama: num_ctx) or pass max_length="

    def _known(self, reply: Reply) -> None:
        """Note who answered. Raises ModelChanged where the server says another model than before; a reply that names
        none tells nothing."""
        if (name := reply.model) is None:
            return
        label = f"{name} ({reply.build})" if reply.build else name
        self.seen[label] = self.seen.get(label, 0) + 1
        before = self.answers_as or self._before()
        if before is None:
            asked, said = (n.rpartition("/")[2].lower() for n in (self.model, name))
            if not (said.startswith(asked) or asked.startswith(said)):
                log.warning("%s answers as model %r, not %r", self.server.shown, name, self.model)
        elif name != before and self.on_model_change == "refuse":
            raise ModelChanged(
                f"{self.server.shown} answered as model {before!r} before and as {name!r} now: these are "
                "not answers of "
                "one model; name the version in model=, take another store=, or pass on_model_change=record"
            )
        self.answers_as = name

    def _before(self) -> str | None:
        """The model that gave the stored answers."""
        if (store := self.store or self.history) is None:
            return None
        told = (((store.get(key) or {}).get("served") or {}).get("model") for key in sorted(store.keys()))
        return next((str(model) for model in told if model), None)


def _command() -> str:
    """The command of this process, without credentials, where it is one that can be run again."""
    name = Path(sys.argv[0]).name
    if name not in ("lm_eval", "lm-eval", "icr"):
        return ""
    return ":\n  " + redact_text(shlex.join([name, *sys.argv[1:]]))


def _refusal(setting: Any) -> str | None:
    if setting is not None and setting.compressed:
        return (
            f"setting {setting} changes the KV cache, which a served model does not let us do; use icr-vllm "
            "or icr-hf"
        )
    return None
