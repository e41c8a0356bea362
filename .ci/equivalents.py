"""Changes that change nothing a caller can see, and why: mutants.py draws none of them."""

from __future__ import annotations

_BLOCK = "how much is read at once"
# (module, line of code, change) -> why
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "metrics.extract",
        "return at - 1",
        "1 -> 2",
    ): "turns begin at line ends, and a line that answers has a character",
    ("metrics.extract", "return at + 1", "1 -> 2"): "beyond the text either way",
    ("metrics.extract", "return at + 1", "Add -> Sub"): "no turn begins at the end of the text",
    (
        "metrics.extract",
        "value, _ = json.JSONDecoder().raw_decode(text[start : start + 100_000])",
        "100000 -> 100001",
    ): _BLOCK,
    (
        "context.retrieval.bm25",
        "engine.scores = engine.build_index_from_ids(list(range(len(vocabulary))), rows, show_progress=False)",
        "False -> True",
    ): "a bar that is drawn",
    **{
        (
            "context.retrieve",
            'return _flat_long(text) if len(text) > 100_000 else " ".join(text.split()).lower()',
            what,
        ): "the same text, remembered or not"
        for what in ("Gt -> GtE", "100000 -> 100001", "branches exchanged")
    },
    (
        "context.retrieval.bm25",
        "return _Index(engine, vocabulary, np.zeros(0, dtype=int))",
        "0 -> 1",
    ): "the caller puts its own order there",
    (
        "context.pool",
        "_CACHE.put(name, found, 3 * found.sizes.nbytes + 200)",
        "200 -> 201",
    ): "an estimate of memory",
    ("metrics.extract", "len(answer) > 1", "Gt -> GtE"): "one character does not both open and close",
    (
        "metrics.judge.store",
        'path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False',
        "60 -> 61",
    ): "how long it waits for another process",
    ("leaderboard.ledgers.lm_eval_files", 'back, tail = 1 << 16, b""', "1 -> 2"): _BLOCK,
    ("leaderboard.ledgers.lm_eval_files", 'back, tail = 1 << 16, b""', "16 -> 17"): _BLOCK,
    ("leaderboard.ledgers.lm_eval_files", "back *= 4", "4 -> 5"): _BLOCK,
    (
        "leaderboard.ledgers.lm_eval_files",
        'with path.open("rb", buffering=1 << 18) as file:',
        "1 -> 2",
    ): _BLOCK,
    (
        "leaderboard.ledgers.lm_eval_files",
        'with path.open("rb", buffering=1 << 18) as file:',
        "18 -> 19",
    ): _BLOCK,
    ("leaderboard.ledgers.collect", "for part in ledger.batched(chosen.rows, 200):", "200 -> 201"): _BLOCK,
    ("leaderboard.ledgers.collect", "for part in ledger.batched(lines, 200):", "200 -> 201"): _BLOCK,
}
