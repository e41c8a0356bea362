"""Attention that each document receives, by layer and head, computed next to the model's own sdpa pass.

The weights are the real ones: after RoPE, causal, normalised over all earlier tokens. Only the rows of the
query tokens are ever materialised, one KV head and a few rows at a time, so that a 32k prompt needs little
more memory than its prefill.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import hub
from ..errors import IcrError

# ---- spans ---------------------------------------------------------------------------------------
# Which tokens of a prompt belong to which document, to the question, and to the end.


@dataclass(frozen=True)
class Spans:
    """`ids` (S,) token ids; `document` (S,) document number of each token, -1 elsewhere; `question` its token
    positions.

    `counts` (D,) tokens of each document.
    """

    ids: np.ndarray
    document: np.ndarray
    question: np.ndarray
    counts: np.ndarray


def locate(text: str, parts: Sequence[str], question: str, tokenizer: Any, *, special: bool) -> Spans:
    """Find `parts` in order in the rendered prompt, and the question's last occurrence outside them.

    A token belongs to the document its first character stands in. Raises IcrError when a part is not in the
    text.
    """
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    starts = np.array([a for a, _ in encoded["offset_mapping"]], np.int64)
    ends = np.array([b for _, b in encoded["offset_mapping"]], np.int64)
    bounds, at = [], 0
    for number, part in enumerate(parts):
        begin = text.find(part, at)
        if begin < 0:
            raise IcrError(
                f"document {number} is not in the prompt as it was rendered; a chat template changed the text"
            )
        at = begin + len(part)
        bounds.append((begin, at))
    document = np.full(len(starts), -1, np.int32)
    real = ends > starts  # special tokens have empty spans
    for number, (begin, end) in enumerate(bounds):
        document[(starts >= begin) & (starts < end) & real] = number
    counts = np.bincount(document[document >= 0], minlength=len(parts))
    if (counts == 0).any():
        raise IcrError(f"document {int(np.argmin(counts))} has no token of its own; it is empty")
    asked = text.find(question, at) if question else -1
    if asked < 0:
        asked = text.rfind(question, 0, bounds[0][0]) if question and bounds else -1
    inside = (
        (starts >= asked) & (starts < asked + len(question)) & real if asked >= 0 else np.zeros_like(real)
    )
    return Spans(np.array(encoded["input_ids"], np.int64), document, np.flatnonzero(inside), counts)


NAME = "icr_rank"
_ROWS = 64  # query rows of one block
_CHUNK = 2048  # prompt tokens of one prefill step


@dataclass
class Capture:
    """Sums for one prompt. `queries` maps a name to the token positions whose attention is averaged.

    `sums[name]` is (layers, heads, documents): attention mass on a document, mean over the query tokens.
    """

    spans: Spans
    queries: dict[str, np.ndarray]
    sums: dict[str, dict[int, Any]] = field(default_factory=dict)
    start: int = 0  # position of the first token of the current prefill step

    def add(self, layer: int, query: Any, key: Any, scaling: float) -> None:
        """`query` (1, heads, q, d) of this step, `key` (1, kv_heads, s, d) of everything so far, both after
        RoPE."""
        import torch

        _, heads, n, _ = query.shape
        kv_heads, seen = key.shape[1], key.shape[2]
        owner = torch.as_tensor(self.spans.document[:seen].astype(np.int64), device=key.device)
        inside = owner >= 0
        documents = len(self.spans.counts)
        for name, positions in self.queries.items():
            rows = positions[(positions >= self.start) & (positions < self.start + n)]
            if not len(rows):
                continue
            total = self.sums.setdefault(name, {}).setdefault(
                layer, torch.zeros(heads, documents, dtype=torch.float64)
            )
            for block in np.array_split(rows, -(-len(rows) // _ROWS)):
                at = torch.as_tensor(block, device=key.device)
                future = torch.arange(seen, device=key.device)[None] > at[:, None]
                for kv in range(kv_heads):
                    group = slice(kv * heads // kv_heads, (kv + 1) * heads // kv_heads)
                    logits = query[0, group][:, at - self.start].float() @ key[0, kv].float().T * scaling
                    weights = logits.masked_fill_(future, float("-inf")).softmax(-1).sum(1)
                    mass = torch.zeros(weights.shape[0], documents, device=key.device)
                    mass.index_add_(1, owner[inside], weights[:, inside])
                    total[group] += mass.double().cpu() / len(positions)

    def result(self) -> dict[str, np.ndarray]:
        """name -> (layers, heads, documents) float64."""
        return {name: np.stack([by[i].numpy() for i in sorted(by)]) for name, by in self.sums.items()}


_active: Capture | None = None


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **kw: Any,
) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    for name in ("softcap", "s_aux", "sliding_window"):
        if kw.get(name) is not None:
            raise IcrError(
                f"{type(module).__name__} uses {name}: its attention is not a plain causal softmax; not "
                "supported"
            )
    if _active is not None:
        _active.add(module.layer_idx, query, key, scaling if scaling is not None else query.shape[-1] ** -0.5)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kw)


def load(
    name: str, *, revision: str | None = None, dtype: str = "auto", device: str | None = None
) -> tuple[Any, Any]:
    """(model without its output layer, tokenizer) with the capturing attention switched on.

    Raises IcrError for models with layers that do not read every earlier token (windows, chunks, linear ones).
    """
    here = hub.local(name, "model", revision)
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, AutoModel, AutoTokenizer
    from transformers.masking_utils import sdpa_mask

    from ..kv.hf import models  # brings torch and transformers

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    device = hub.device(device)
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise IcrError(
            f"dtype {dtype!r}: PyTorch knows no such type; write auto, float32, bfloat16 or float16"
        )
    try:
        model = AutoModel.from_pretrained(
            name, revision=revision, dtype=dtype, attn_implementation=NAME, local_files_only=here
        )
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, local_files_only=here)
    except (OSError, ValueError) as error:
        raise IcrError(f"cannot load {name!r}: {error}") from error
    kinds = set(models.layer_types(model.config))
    if kinds != {"full_attention"}:
        raise IcrError(
            f"{name} has {', '.join(sorted(kinds))} layers; ranking needs full attention in every layer"
        )
    return model.to(device).eval(), tokenizer


@contextmanager
def _capturing(capture: Capture) -> Iterator[None]:
    global _active
    _active = capture
    try:
        yield
    finally:
        _active = None


def attend(model: Any, spans: Spans, last: int = 1) -> dict[str, np.ndarray]:
    """Run the prompt once; attention from the `question` tokens and from the `last` tokens to each
    document."""
    import torch
    from transformers import DynamicCache

    from ..kv.hf import models  # brings torch and transformers

    n = len(spans.ids)
    step = n if models.one_piece(model.config) else _CHUNK
    queries = {"question": spans.question, "last": np.arange(n - last, n)}
    capture = Capture(spans, {k: v for k, v in queries.items() if len(v)})
    cache = DynamicCache(config=model.config)
    with _capturing(capture), torch.inference_mode():
        for start in range(0, n, step):
            capture.start = start
            ids = torch.as_tensor(spans.ids[None, start : start + step], device=model.device)
            model(input_ids=ids, past_key_values=cache, use_cache=True)
    return capture.result()


# ---- paper code ----------------------------------------------------------------------------------
# The document score of the paper's released analysis code, for comparison only.

_PAPER_ROWS = 256


def scores(model: Any, spans: Spans) -> np.ndarray:
    """(documents,) float64. Quadratic in the prompt length. Raises IcrError for models without q_proj and
    k_proj."""
    import torch

    hidden: list[Any] = []
    layers = getattr(model, "layers", None)
    if layers is None or not hasattr(layers[0].self_attn, "q_proj"):
        raise IcrError(f"definition paper_code needs q_proj and k_proj; {type(model).__name__} has none")
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, a, k: hidden.append(a[0] if a else k["hidden_states"]), with_kwargs=True
        )
        for layer in layers
    ]
    try:
        with torch.inference_mode():
            model(input_ids=torch.as_tensor(spans.ids[None], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    total = torch.zeros(len(spans.ids), dtype=torch.float64)
    with torch.inference_mode():
        for layer, states in zip(layers, hidden, strict=True):
            total += _layer(layer.self_attn, states[0]) / len(layers)
    inside = spans.document >= 0
    return np.bincount(spans.document[inside], weights=total.numpy()[inside], minlength=len(spans.counts))


def _layer(attention: Any, states: Any) -> Any:
    """(tokens,) column sums of the pseudo-attention, mean over heads."""
    import torch

    d = attention.head_dim
    query, key = (
        attention.q_proj(states).unflatten(-1, (-1, d)),
        attention.k_proj(states).unflatten(-1, (-1, d)),
    )
    share = query.shape[1] // key.shape[1]
    total = torch.zeros(states.shape[0], dtype=torch.float64)
    for head in range(query.shape[1]):
        keys = key[:, head // share].float()
        for rows in query[:, head].float().split(_PAPER_ROWS):
            total += (rows @ keys.T * d**-0.5).softmax(-1).sum(0).double().cpu() / query.shape[1]
    return total
