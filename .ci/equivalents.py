"""Changes that change nothing a caller can see, and why: mutants.py draws none of them."""

from __future__ import annotations

_BLOCK = "how much is read at once"
_GUESS = "a first guess, which exact counts correct"
_FAR = "nothing that matters is that long"
_ORDER = "torch need not sort what is a set"
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
    ("context.retrieve", "_BATCH = 32", "32 -> 33"): "how many are counted at once",
    ("context.retrieve", "while n > k and taken:", "Gt -> GtE"): _GUESS,
    ("context.retrieve", "taken += 1", "1 -> 2"): _GUESS,
    (
        "context.retrieve",
        "return chosen, tokens.count(prompt.context([pool.unit(i) for i in chosen])) if chosen else 0",
        "0 -> 1",
    ): "not read where nothing is chosen",
    (
        "context.build",
        "over = (self._count(rendered) or 0) - limit",
        "0 -> 1",
    ): "a prompt that is over the limit has tokens",
    (
        "context.retrieval.bm25",
        "vocabulary, rows = np.zeros(1, dtype=np.int64), [[0] for _ in rows]",
        "1 -> 2",
    ): "a vocabulary that no question has a word of",
    (
        "context.retrieval.bm25",
        '_SEPARATED = {n: " " for n in range(128) if not _WORD.match(chr(n))}  # what `_WORD` leaves out, as spaces',
        "128 -> 129",
    ): "only ASCII texts are divided by it",
    ("kv.topk", "found = scores.topk(k, dim=-1, sorted=False).indices", "False -> True"): _ORDER,
    (
        "kv.page",
        "best = rank(bound).topk(count, dim=-1, sorted=False).indices",
        "False -> True",
    ): _ORDER,
    (
        "leaderboard.ledgers.lm_eval_files",
        "if back >= size:",
        "GtE -> Gt",
    ): "the whole file is read once more",
    (
        "leaderboard.ledgers.lm_eval_files",
        "file.seek(max(0, size - back))",
        "0 -> 1",
    ): "the first line is known",
    ("leaderboard.ledgers.lm_eval_files", "size = file.seek(0, 2)", "0 -> 1"): "the first line is known",
    ("leaderboard.ledgers.lm_eval_files", "counted = False", "False -> True"): "set at the first row",
    (
        "leaderboard.ledgers.merge",
        'order = {"complete": 2, "partial": 1}',
        "2 -> 3",
    ): "more than 1 either way",
    **{
        (
            "metrics.extract",
            "head, tail = line[max(0, end.start() - 39) : end.start() + 1], line[end.end() : end.end() + 2_000]",
            what,
        ): _FAR
        for what in ("39 -> 40", "2000 -> 2001")
    },
    **{
        ("metrics.extract", line, "1 -> 2"): "a pair of marks around nothing is nothing either way"
        for line in ("len(answer) > 1", "if len(answer) > 1 and _QUOTES.get(answer[0]) == answer[-1]:")
    },
    ("context.fit", "while size > 0:", "Gt -> GtE"): "a cut of no token is empty either way",
}
