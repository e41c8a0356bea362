"""A benchmark with gold passages: the code of a person among the codes of others."""

import json
from functools import partial

import icr_tasks as icr
from icr_tasks.storage import data_root, fingerprint, require

from . import metric  # noqa: F401  (registers the metric that is the headline here)

PASSAGES = {"512": 8, "1k": 16}
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
    revision="main",
    license="CC0",
    metric_definition="the last number of the answer is the gold number",
    n=12,
    cluster="person",
)
class Codes:
    tasks = icr.grid(dataset=["codes"], length=PASSAGES)
    groups = [
        icr.Group("icr_my_benchmark", "Codes", [f"icr_my_benchmark_codes_{n}" for n in PASSAGES], "numeric")
    ]

    def load(self, dataset: str, length: str, **_: object) -> icr.ItemSet:
        path = require(data_root() / "my_benchmark" / "codes.jsonl", "my_benchmark")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        items = [
            icr.Item(
                row["name"],
                f"What is the code of {row['name']}?",
                (row["code"],),
                row["name"],
                partial(self.units, rows, n, PASSAGES[length]),
                keys={"length": length, "depth": 0.0 if n % 2 else 1.0},
            )
            for n, row in enumerate(rows[:12])
        ]
        return icr.ItemSet(items, 12, path.name, f"sha256:{fingerprint(path)[:16]}", len(items) == 12)

    def units(self, rows: list, asked: int, k: int) -> list[icr.Unit]:
        """k passages, the gold one first or last."""
        others = [row for n, row in enumerate(rows) if n != asked][: k - 1]
        shown = [rows[asked], *others] if asked % 2 else [*others, rows[asked]]
        return [
            icr.Unit(r["name"], f"The code of {r['name']} is {r['code']}.", r["name"], gold=r is rows[asked])
            for r in shown
        ]

    def files(self, dataset: str, length: str | None) -> list[icr.Remote]:
        return [
            icr.Remote(
                "my_benchmark/codes.jsonl", "datasets/me/codes/resolve/main/codes.jsonl", sha256=SHA256
            )
        ]
