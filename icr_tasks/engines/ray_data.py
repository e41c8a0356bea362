"""icr-vllm's requests on many nodes: Ray Data LLM runs vLLM replicas, this process keeps what they answer.

`icr sweep --executor ray` gives this model the cells of `icr-vllm`. Prompts are built, tokenized and ordered here
as icr-vllm does, go into Ray's object store in blocks whose prompts share documents, and come back row by row into
the study's answer store. How many replicas run, what waits, and what a dead replica had in work are Ray's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.models.vllm_causallms import VLLM

from ..errors import IcrError, unknown
from ..kv.hf import models
from ..kv.vllm.state import EngineState
from ..settings import Setting
from . import identity, session, thoughts
from .vllm import IcrVLLM, config_of, switch_off

log = logging.getLogger("icr_tasks")
_OWN = ("model_source", "engine_kwargs", "concurrency", "task_type", "should_continue_on_error")
_TOKENS_A_BLOCK = 1 << 22  # 16 MB of ids


class RayVLLM(IcrVLLM):
    """`replicas` vLLM engines under Ray Data; `options` are fields of Ray's vLLMEngineProcessorConfig.

    No engine is loaded in this process, so it needs no GPU. Each stream of requests loads the replicas once.
    """

    def __init__(
        self,
        pretrained: str,
        replicas: int = 1,
        options: Mapping[str, Any] | None = None,
        in_flight: int = 64,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("data_parallel_size", None)
        self.in_flight, self.store = int(in_flight), None
        self.kv = EngineState(kwargs)
        if self.kv.asked or kwargs.get("lora_local_path"):
            what = f"kv={self.kv.asked}" if self.kv.asked else "lora_local_path"
            raise IcrError(
                f"{what} needs icr-vllm's own engine: leave --executor ray out, and use --shard i/n"
            )
        self.cache_dtype = str(kwargs.get("kv_cache_dtype", "auto"))
        self.changed = switch_off(kwargs, config_of(pretrained, kwargs.get("revision")))
        kwargs.setdefault("enable_prefix_caching", True)
        experts = {k: kwargs.pop(k) for k in ("enable_expert_parallel",) if k in kwargs}
        # Two, whatever runs: with one lm-eval would load an engine here.
        VLLM.__init__(self, pretrained, data_parallel_size=2, **kwargs)
        args = {**self.model_args, **experts}
        source = args.pop("model")
        engine = {k: v for k, v in args.items() if v is not None}
        self.config = _config(source, engine, replicas, {"batch_size": self.in_flight, **(options or {})})
        self.eos = _eos(self._config, self.tokenizer, source, args.get("revision"))

    def stream(self, requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(index, text, measured) of each request as Ray returns it, all settings in one stream."""
        settings = [session.setting_of(request) for request in requests]
        refused = session.refuse((settings[i] for i in order), self._refusal)
        yield from ((i, "", {"error": refused[settings[i]]}) for i in order if settings[i] in refused)
        yield from self._stream(requests, [i for i in order if settings[i] not in refused])

    def _refusal(self, setting: Setting | None) -> str | None:
        if setting is not None:
            try:
                models.refuse_native(setting, self._config.get_text_config(), str(self._config.model_type))
            except IcrError as error:
                return str(error)
        return self.kv.refusal(setting, self.cache_dtype)

    def _stream(self, requests: Sequence[Any], order: list[int]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """One run of Ray Data: blocks in, rows out."""
        import ray.data
        from ray.data.llm import build_processor

        asked: dict[int, tuple[dict[str, Any], list[str]]] = {}
        refused: dict[int, str] = {}
        blocks: list[Any] = [ray.put(block) for block in self._blocks(requests, order, asked, refused)]
        yield from ((i, "", self._fail(requests[i], why)) for i, why in refused.items())
        if not blocks:
            return
        device = _devices(self.model_args)
        process = build_processor(self.config, preprocess=_given(), postprocess=_kept())
        for row in process(ray.data.from_arrow_refs(blocks)).iter_rows():
            i = int(row["n"])
            if error := row.get("__inference_error__"):
                yield i, "", self._fail(requests[i], str(error))
                continue
            params, until = asked[i]
            tokens = [int(token) for token in row["tokens"]]
            text, stopped = thoughts.whole(row["text"], until, self.mark)
            timing = {
                k: round(float(row[k]), 4) for k in ("engine", "prefill", "decode") if row[k] is not None
            }
            yield (
                i,
                text,
                {
                    "timing": timing,
                    "engine_tokens": {"prompt": int(row["prompt"]), "output": len(tokens)},
                    "finish_reason": "stop" if stopped else finish(tokens, params, self.eos, self.tokenizer),
                    "device": device,
                    **({} if self.cache_dtype == "auto" else {"kv": {"setting": f"kv:{self.cache_dtype}"}}),
                },
            )

    def _blocks(
        self, requests: Sequence[Any], order: list[int], asked: dict[int, Any], refused: dict[int, str]
    ) -> Iterator[Any]:
        """Arrow tables of at most `batch_size` requests in the order given. A table's rows have the same sampling
        options, because Arrow gives every row all of them. Fills `asked` and `refused`."""
        open_blocks: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for i in order:
            try:
                ids, params, until = self.prepared(*requests[i].args)
            except (ValueError, TypeError) as error:
                refused[i] = str(error)
                continue
            asked[i] = params, until
            rows = open_blocks.setdefault(tuple(sorted(params)), [])
            rows.append({"n": i, "ids": ids, "params": params})
            full = sum(len(row["ids"]) for row in rows) > _TOKENS_A_BLOCK
            if full or len(rows) == self.config.batch_size:
                yield _table(rows)
                rows.clear()
        yield from (_table(rows) for rows in open_blocks.values() if rows)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Refused: icr_ tasks generate, and nothing else comes here."""
        raise IcrError("--executor ray generates text, it has no likelihoods")

    loglikelihood_rolling = loglikelihood  # type: ignore[assignment]

    def get_model_info(self) -> dict[str, Any]:
        """The dtype where it was named, as Ray does not tell what a replica made of "auto"."""
        dtype = str(self.model_args["dtype"])
        return {**({} if dtype == "auto" else {"model_dtype": f"torch.{dtype}"}), **(self.changed or {})}


def finish(tokens: Sequence[int], params: Mapping[str, Any], eos: set[int], tokenizer: Any) -> str:
    """`length` or `stop`, which Ray does not pass on: as long as allowed, with no end at the end."""
    if len(tokens) < params["max_tokens"] or (tokens and tokens[-1] in eos):
        return "stop"
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    return "stop" if any(stop in text for stop in params["stop"]) else "length"


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connected to Ray, or one started here, until the block ends. Raises IcrError where there is none."""
    try:
        import ray
        import ray.data.llm
    except ImportError as error:
        raise IcrError(f"--executor ray needs Ray Data LLM ({error}): pip install 'ray[data]'") from error
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=address, log_to_driver=True)
        except Exception as error:  # Ray raises plain Exceptions here
            raise IcrError(f"Ray did not start, or is not at {address!r}: {error}") from error
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _config(source: str, args: dict[str, Any], replicas: int, options: Mapping[str, Any]) -> Any:
    """Ray's configuration of the replicas. Raises IcrError for an option that Ray does not have or that is ours."""
    import ray
    from ray.data.llm import vLLMEngineProcessorConfig as Config

    known = [name for name in Config.model_fields if name not in _OWN]
    for name in options:
        if name not in known:
            raise unknown("key of `ray`", str(name), known)
    given: dict[str, Any] = {
        "log_engine_metrics": False,  # needs an exporter that only ray[llm] brings
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
        "prepare_multimodal_stage": False,
    }
    if not ray.cluster_resources().get("GPU"):
        given["placement_group_config"] = {"bundle_per_worker": {"CPU": 1}}
    return Config(
        **{**given, **options},
        model_source=source,
        engine_kwargs=args,
        concurrency=(replicas, replicas),
        should_continue_on_error=True,
    )


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows)


# Ray pickles functions of an installed module by name; made inside a function they travel whole, so the nodes need
# no icr-tasks.
def _given() -> Any:
    return lambda row: {"tokenized_prompt": row.pop("ids"), "sampling_params": row.pop("params")}


def _kept() -> Any:
    def kept(row: dict[str, Any]) -> dict[str, Any]:
        at = row.get("metrics") or {}
        first, begun, last = (
            float(at.get(f"{k}_ts") or 0.0) for k in ("first_token", "scheduled", "last_token")
        )
        return {
            "n": row["n"],
            "text": row["generated_text"],
            "tokens": row["generated_tokens"],
            "prompt": row["num_input_tokens"],
            "engine": row["time_taken_llm"],
            "prefill": first - begun if first else None,
            "decode": last - first if first else None,
        }

    return kept


def _eos(config: Any, tokenizer: Any, source: str, revision: str | None) -> set[int]:
    """Ids at which vLLM ends an answer: the tokenizer's, the model's, and those of its generation defaults."""
    from transformers import GenerationConfig

    found = [tokenizer.eos_token_id, getattr(config.get_text_config(), "eos_token_id", None)]
    try:
        found.append(GenerationConfig.from_pretrained(source, revision=revision or "main").eos_token_id)
    except OSError as error:
        log.debug("no generation defaults of %s: %s", source, error)
    return {int(i) for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids])}


def _devices(args: Mapping[str, Any]) -> str:
    """`2 x H100`: what one replica runs on, as the cluster names it."""
    import ray

    kinds = sorted(k.split(":", 1)[1] for k in ray.cluster_resources() if k.startswith("accelerator_type:"))
    return identity.devices(" or ".join(kinds) or "CPU", args)
