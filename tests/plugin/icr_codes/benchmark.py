"""A benchmark with gold passages: the code of a person among the codes of others."""

import json
from functools import partial

import icr_tasks as icr
from icr_tasks.storage import data_root, fingerprint, require

from . import metric  # noqa: F401  (registers the metric that is the headline here)

PASSAGES = {"512": 8, "1k": 16}
URL = "datasets/me/codes/resolve/main/codes.jsonl"
SHA256 = "9672d521dc2e370bf262419d825502ef6842c8685b88dee72d84df3405f4b703"


@icr.benchmark(
    "my_benchmark",
    title="Codes",
    units="passages",
    marks_gold=True,
    chance=None,
    metrics=["numeric", *icr.metrics.QA],
    prompts=icr.prompts.HELMET,
    source="me/codes",
    license="CC0",
    n=12,
)
class Codes:
    tasks = icr.grid(dataset=["codes"], length=PASSAGES)
    groups = [
        icr.Group(
            "icr_my_benchmark",
            "Codes",
            ["icr_my_benchmark_codes_512", "icr_my_benchmark_codes_1k"],
            "numeric",
        )
    ]

    def load(self, dataset: str, length: str, **_: object) -> icr.ItemSet:
        path = require(data_root() / "my_benchmark" / "codes.jsonl", "my_benchmark")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        items = [self.item(rows, n, length) for n in range(12)]
        return icr.ItemSet(items, 12, path.name, f"sha256:{fingerprint(path)[:16]}", len(items) == 12)

    def item(self, rows: list, n: int, length: str) -> icr.Item:
        name, code = rows[n]["name"], rows[n]["code"]
        units = partial(self.units, rows, n, PASSAGES[length])
        keys = {"length": length, "depth": float(n % 2 == 0)}
        return icr.Item(name, f"What is the code of {name}?", (code,), name, units, keys=keys)

    def units(self, rows: list, n: int, k: int) -> list[icr.Unit]:
        """k passages, the gold one first or last."""
        others = [row for row in rows if row is not rows[n]][: k - 1]
        shown = [rows[n], *others] if n % 2 else [*others, rows[n]]
        text = "The code of {name} is {code}."
        return [icr.Unit(row["name"], text.format(**row), row["name"], gold=row is rows[n]) for row in shown]

    def files(self, dataset: str, length: str | None) -> list[icr.Remote]:
        return [icr.Remote("my_benchmark/codes.jsonl", URL, sha256=SHA256)]
