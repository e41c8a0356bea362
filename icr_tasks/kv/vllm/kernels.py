"""Triton kernels of compressed decode over a paged cache: for one generated token a row, any mix of lengths.

Cache: keys (blocks, tokens a block, kv_heads, dim) and values likewise, any strides (FlashAttention's
`kv_cache.transpose(1, 2).split(dim, -1)`). A page is a run of `page` tokens inside a block, counted from the
sequence's first token; one token is a page too, so that exact top-k and lists of kept tokens take the same
kernel. A row reads pages [0, head) of its sequence, a list of its own for each KV head, and pages [tail,
end). Everything that depends on lengths is a tensor on the device and every grid is fixed by the shapes, so
that nothing waits for the device and a CUDA graph may hold the launches. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dot(left, right, UPCAST: tl.constexpr):
    """Product with float32 sums. `UPCAST` for Triton's interpreter, which cannot multiply bfloat16; the
    factors are exact in float32, so that it changes nothing but the order of sums."""
    if UPCAST:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def extremes_kernel(
    keys,
    slots,
    low,
    high,
    count,
    stride_block,
    stride_token,
    stride_head,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Grid (tokens, kv_heads). The last new token of a page takes the extremes of the page up to itself.

    What lies before it in the page belongs to the same sequence, whether written now, in an earlier chunk or
    by another request that shares the prefix; what lies behind it is left over from another sequence.
    """
    at, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + at).to(tl.int64)
    after = tl.load(slots + at + 1, mask=at + 1 < count, other=-1).to(tl.int64)
    last = (after != slot + 1) | (after // PAGE != slot // PAGE)
    if (slot >= 0) & last:
        inside = tl.arange(0, PAGE)
        dims = tl.arange(0, WIDTH)
        first = slot // PAGE * PAGE
        block, begin = first // BLOCK, first % BLOCK
        where = keys + block * stride_block + (begin + inside[:, None]) * stride_token + head * stride_head
        real = (inside[:, None] <= slot - first) & (dims[None, :] < DIM)
        found = tl.load(where + dims[None, :], mask=real, other=0.0).to(tl.float32)
        to = (slot // PAGE * HEADS + head) * DIM + dims
        tl.store(low + to, tl.min(tl.where(real, found, float("inf")), 0), mask=dims < DIM)
        tl.store(high + to, tl.max(tl.where(real, found, float("-inf")), 0), mask=dims < DIM)


@triton.jit
def bound_kernel(
    query,
    low,
    high,
    tables,
    first,
    last,
    out,
    scale,
    stride_table,
    stride_out,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
    PAGES: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid (rows, kv_heads, page tiles): the most that a key of a page could score, -inf outside [first,
    last)."""
    row, head, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, stop = tl.load(first + row), tl.load(last + row)
    pages = tile * PAGES + tl.arange(0, PAGES)
    group, dims = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (pages >= start) & (pages < stop)
    bound = tl.full([ROWS, PAGES], float("-inf"), tl.float32)
    if (tile * PAGES < stop) & (tile * PAGES + PAGES > start):
        token = pages * PAGE
        block = tl.load(tables + row.to(tl.int64) * stride_table + token // BLOCK, mask=inside, other=0).to(
            tl.int64
        )
        page = block * (BLOCK // PAGE) + token % BLOCK // PAGE
        where = (page[None, :] * HEADS + head) * DIM + dims[:, None]
        real = inside[None, :] & (dims[:, None] < DIM)
        lows = tl.load(low + where, mask=real, other=0.0)
        highs = tl.load(high + where, mask=real, other=0.0)
        heads = (row * HEADS + head) * GROUP + group
        asked = tl.load(
            query + heads[:, None] * DIM + dims[None, :],
            mask=(group[:, None] < GROUP) & (dims[None, :] < DIM),
            other=0.0,
        )
        # the larger of q * low and q * high is q * high where q is positive, q * low elsewhere
        wide = asked.to(tl.float32)
        bound = dot(tl.maximum(wide, 0.0).to(asked.dtype), highs, UPCAST)
        bound += dot(tl.minimum(wide, 0.0).to(asked.dtype), lows, UPCAST)
        bound = tl.where(inside[None, :], bound * scale, float("-inf"))
    to = ((row * HEADS + head) * GROUP + group).to(tl.int64) * stride_out
    tl.store(
        out + to[:, None] + pages[None, :],
        bound,
        mask=(group[:, None] < GROUP) & (pages[None, :] < stride_out),
    )


@triton.jit
def choose_kernel(
    bounds,
    first,
    last,
    wanted,
    out,
    count,
    stride_out,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Grid (rows, kv_heads): of the entries in [first, last), the `wanted` with the largest softmax (over all `count`)
    summed over the query group, ascending; of equal ones the first.

    A sum of probabilities is not negative, so that its bits order as whole numbers do: the least that still counts is
    found bit by bit.
    """
    row, head = tl.program_id(0), tl.program_id(1)
    start, stop, want = tl.load(first + row), tl.load(last + row), tl.load(wanted + row)
    entries = tl.arange(0, ENTRIES)
    inside = (entries >= start) & (entries < stop)
    ranked = tl.zeros([ENTRIES], tl.float32)
    for query in tl.static_range(GROUP):
        at = ((row * HEADS + head) * GROUP + query).to(tl.int64) * count
        found = tl.load(bounds + at + entries, mask=entries < count, other=float("-inf"))
        top = tl.max(found, 0)
        weights = tl.exp(found - tl.where(top == float("-inf"), 0.0, top))
        below = tl.sum(weights, 0)
        ranked += weights / tl.where(below == 0.0, 1.0, below)
    bits = tl.where(inside, ranked.to(tl.int32, bitcast=True), -1)
    least = tl.zeros([], tl.int32)
    for bit in tl.static_range(31):
        candidate = least | (1 << (30 - bit))
        least = tl.where(tl.sum((bits >= candidate).to(tl.int32), 0) >= want, candidate, least)
    above, equal = bits > least, bits == least
    spare = want - tl.sum(above.to(tl.int32), 0)
    taken = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= spare))
    place = tl.cumsum(taken.to(tl.int32), 0) - 1
    to = out + (row * HEADS + head).to(tl.int64) * stride_out
    tl.store(to + place, entries, mask=taken & (place < want))


@triton.jit
def score_kernel(
    query,
    keys,
    tables,
    lengths,
    out,
    scale,
    stride_block,
    stride_token,
    stride_head,
    stride_table,
    stride_out,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid (rows, kv_heads, token tiles): the scores of all keys of a row, -inf behind its end."""
    row, head, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    tokens = tile * TOKENS + tl.arange(0, TOKENS)
    group, dims = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = tokens < length
    scores = tl.full([ROWS, TOKENS], float("-inf"), tl.float32)
    if tile * TOKENS < length:
        block = tl.load(tables + row.to(tl.int64) * stride_table + tokens // BLOCK, mask=inside, other=0).to(
            tl.int64
        )
        where = block * stride_block + tokens % BLOCK * stride_token + head * stride_head
        found = tl.load(
            keys + where[None, :] + dims[:, None], mask=inside[None, :] & (dims[:, None] < DIM), other=0.0
        )
        heads = (row * HEADS + head) * GROUP + group
        asked = tl.load(
            query + heads[:, None] * DIM + dims[None, :],
            mask=(group[:, None] < GROUP) & (dims[None, :] < DIM),
            other=0.0,
        )
        scores = dot(asked, found.to(asked.dtype), UPCAST)
        scores = tl.where(inside[None, :], scores * scale, float("-inf"))
    to = ((row * HEADS + head) * GROUP + group).to(tl.int64) * stride_out
    tl.store(
        out + to[:, None] + tokens[None, :],
        scores,
        mask=(group[:, None] < GROUP) & (tokens[None, :] < stride_out),
    )


@triton.jit
def decode_kernel(
    query,
    keys,
    values,
    tables,
    lengths,
    heads_pages,
    chosen,
    n_chosen,
    tails,
    part_out,
    part_top,
    part_sum,
    scale,
    stride_block,
    stride_token,
    stride_head,
    stride_value_block,
    stride_value_token,
    stride_value_head,
    stride_table,
    stride_chosen,
    splits,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
    TOKENS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid (rows, kv_heads, splits): softmax attention over one part of a row's list of pages.

    Item i of the list is page i of the sequence for i < head; then the chosen ones; then those from `tail`
    on.
    """
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    n_head, n_mid, tail = tl.load(heads_pages + row), tl.load(n_chosen + row), tl.load(tails + row)
    total = (n_head + n_mid + tl.cdiv(length, PAGE) - tail) * PAGE
    share = tl.cdiv(tl.cdiv(total, splits), TOKENS) * TOKENS
    begin = split * share
    end = tl.minimum(begin + share, total)
    group, dims, lane = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, TOKENS)
    head_at = (row * HEADS + head) * GROUP + group
    real_query = (group[:, None] < GROUP) & (dims[None, :] < DIM)
    asked = tl.load(query + head_at[:, None] * DIM + dims[None, :], mask=real_query, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    below = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    row_chosen = chosen + (row * HEADS + head).to(tl.int64) * stride_chosen
    row_table = tables + row.to(tl.int64) * stride_table
    for at in range(begin, end, TOKENS):
        item = (at + lane) // PAGE
        middle = (item >= n_head) & (item < n_head + n_mid)
        picked = tl.load(row_chosen + (item - n_head), mask=middle, other=0).to(tl.int32)
        page = tl.where(item < n_head, item, tl.where(middle, picked, item - n_head - n_mid + tail))
        token = page * PAGE + (at + lane) % PAGE
        real = (at + lane < end) & (token < length)
        block = tl.load(row_table + token // BLOCK, mask=real, other=0).to(tl.int64)
        key_at = block * stride_block + token % BLOCK * stride_token + head * stride_head
        found = tl.load(
            keys + key_at[None, :] + dims[:, None], mask=real[None, :] & (dims[:, None] < DIM), other=0.0
        )
        scores = dot(asked, found.to(asked.dtype), UPCAST) * scale
        scores = tl.where(real[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing real yet
        weights, keep = tl.exp(scores - base[:, None]), tl.exp(top - base)
        value_at = block * stride_value_block + token % BLOCK * stride_value_token + head * stride_value_head
        read = tl.load(
            values + value_at[:, None] + dims[None, :], mask=real[:, None] & (dims[None, :] < DIM), other=0.0
        )
        below = below * keep + tl.sum(weights, 1)
        out = out * keep[:, None] + dot(weights.to(read.dtype), read, UPCAST)
        top = higher
    part = head_at.to(tl.int64) * splits + split
    tl.store(part_top + part, top, mask=group < GROUP)
    tl.store(part_sum + part, below, mask=group < GROUP)
    tl.store(part_out + part[:, None] * DIM + dims[None, :], out, mask=real_query)


@triton.jit
def merge_kernel(
    part_out,
    part_top,
    part_sum,
    out,
    splits,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Grid (rows * heads): the parts of one query head together."""
    at = tl.program_id(0)
    part, dims = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    real = part < splits
    start = at.to(tl.int64) * splits + part
    tops = tl.load(part_top + start, mask=real, other=float("-inf"))
    highest = tl.max(tops, 0)
    weights = tl.exp(
        tops - tl.where(highest == float("-inf"), 0.0, highest)
    )  # a padded row has no part at all
    below = tl.sum(weights * tl.load(part_sum + start, mask=real, other=0.0), 0)
    found = tl.load(
        part_out + start[:, None] * DIM + dims[None, :], mask=real[:, None] & (dims[None, :] < DIM), other=0.0
    )
    total = tl.sum(found * weights[:, None], 0) / tl.where(below == 0.0, 1.0, below)
    tl.store(out + at.to(tl.int64) * DIM + dims, total.to(out.dtype.element_ty), mask=dims < DIM)
