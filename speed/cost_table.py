"""What the groups cost on a 7B and a 70B model: tokens, H100 hours, dollars; and the working-day estimate.

    python speed/cost_table.py            # prints Markdown
    python speed/cost_table.py --write    # puts it into docs/scale.md between its markers

Nothing is measured here: a formula from published sizes and named assumptions. Item counts, clusters and lengths
are the official ones (`icr_tasks.sweep.planning.OFFICIAL`, the tasks' data sheets); no data are read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icr_tasks.benchmarks import catalog
from icr_tasks.leaderboard import plan
from icr_tasks.leaderboard.ledgers.summary import tokens
from icr_tasks.leaderboard.plan import Cell, Rates
from icr_tasks.leaderboard.text.names import plain
from icr_tasks.sweep import planning
from icr_tasks.sweep.planning import OFFICIAL, OUTPUT, SHORT

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
MARKS = "<!-- cost table: begin -->\n", "<!-- cost table: end -->\n"
PEAK, BANDWIDTH, MEMORY = 989e12, 3.35e12, 80e9  # one H100 SXM: bf16 FLOP/s, bytes/s, bytes
MFU, MBU, KV_ROOM = (
    0.45,
    0.6,
    0.9,
)  # assumed shares of peak compute, bandwidth, and memory for weights and cache
DOLLARS = 2.5  # assumed, an H100 hour
WINDOW = 131_072
GROUPS = ("icr_helmet_rag", "icr_infbench", "icr_longbench_v2", "icr_loong_fin")
SEQUENTIAL = (
    0.64  # share of the tokens until the gate is decided where nothing changed (docs/sweep.md, simulated)
)


@dataclass(frozen=True)
class Model:
    """Sizes as published: parameters without embeddings, layers, query width, bytes of cache a token."""

    name: str
    parameters: float
    layers: int
    width: int
    kv: int
    gpus: int

    def prefill(self, prompt: float) -> float:
        """GPU seconds of a prompt: 2 FLOP a parameter and token, and causal attention, at MFU of peak."""
        flop = 2 * self.parameters * prompt + 2 * self.layers * self.width * prompt**2
        return flop / (PEAK * MFU)

    def decode(self, prompt: float, output: float) -> float:
        """GPU seconds of an answer: weights and cache are read for each step of as many requests as fit."""
        weights = 2 * self.parameters
        room = self.gpus * MEMORY * KV_ROOM - weights
        batch = max(1.0, min(256.0, room // (prompt * self.kv)))
        step = (weights + batch * prompt * self.kv) / (self.gpus * BANDWIDTH * MBU)
        return self.gpus * step * output / batch


MODELS = (
    Model("7B (Qwen2.5-7B)", 6.53e9, 28, 28 * 128, 2 * 28 * 4 * 128 * 2, 1),
    Model("70B (Llama-3.1-70B)", 68.5e9, 80, 64 * 128, 2 * 80 * 8 * 128 * 2, 4),
)
EIGHT = Model("8B (Llama-3.1-8B)", 7.0e9, 32, 32 * 128, 2 * 32 * 8 * 128 * 2, 1)


def cells(group: str) -> list[Cell]:
    """The official tasks of a group, prompts cut to the window."""
    found = []
    for leaf in catalog.expand(group):
        benchmark, task = catalog.find(leaf)
        place, length = f"{benchmark.name}/{task.dataset}", task.length or ""
        units, each, prompt = OFFICIAL[place]
        clusters = [f"{task.dataset}{i % units}" for i in range(round(units * each))]
        size = min(float(tokens(length) if length else prompt), WINDOW)
        found.append(Cell(leaf, benchmark.name, place, length, clusters, size, OUTPUT.get(place, 32.0)))
    return found


def computed(cell: Cell) -> tuple[float, float]:
    """(whole prompts, questions on a shared prefix) of a cell: a book is prefilled once. HELMET permutes its
    passages, and Loong's questions take their filings in sets and orders of their own: nothing is counted there."""
    n, shared = len(cell.clusters), cell.benchmark == "infbench"
    whole = len(set(cell.clusters)) if shared else n
    return whole, n - whole


def hours(model: Model, part: Sequence[Cell], *, sharing: bool) -> float:
    """GPU hours of some cells."""
    seconds = 0.0
    for cell in part:
        whole, rest = computed(cell) if sharing else (len(cell.clusters), 0)
        seconds += whole * model.prefill(cell.prompt)
        # a question behind a cached prefix: its own tokens, attending to the whole prompt
        seconds += (
            rest
            * (2 * model.parameters + 4 * model.layers * model.width * cell.prompt)
            * SHORT
            / (PEAK * MFU)
        )
        seconds += len(cell.clusters) * model.decode(cell.prompt, cell.output)
    return seconds / 3600


def rag(part: Sequence[Cell], budget: int) -> list[Cell]:
    """The same cells under rag@budget."""
    from dataclasses import replace

    return [replace(c, prompt=min(c.prompt, budget + SHORT)) for c in part]


def table() -> list[str]:
    """A line a group and setting."""
    head = ["group", "setting", "items", "prompt tokens", "computed"]
    for model in MODELS:
        head += [f"{model.name.split()[0]}: H100 h", "$"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for group in GROUPS:
        for setting in ("full", "rag@16k"):
            part = cells(group) if setting == "full" else rag(cells(group), 16_384)
            sharing = setting == "full"  # another question retrieves other passages
            asked = sum(len(c.clusters) * c.prompt for c in part)
            new = sum(
                (w * c.prompt + r * SHORT) if sharing else len(c.clusters) * c.prompt
                for c in part
                for w, r in [computed(c)]
            )
            row = [f"`{group}`", f"`{setting}`", f"{sum(len(c.clusters) for c in part):,}"]
            row += [f"{asked / 1e6:,.0f} M", f"{new / 1e6:,.0f} M"]
            for model in MODELS:
                spent = hours(model, part, sharing=sharing)
                row += [f"{spent:,.1f}", f"{spent * DOLLARS:,.0f}"]
            lines.append("| " + " | ".join(row) + " |")
    return lines


def rates(model: Model, part: Sequence[Cell]) -> Rates:
    """Prompt and answer tokens a second over all of it, in whole numbers, as `icr plan` is told them."""
    n = [len(cell.clusters) for cell in part]
    asked = sum(k * c.prompt for k, c in zip(n, part, strict=True))
    said = sum(k * c.output for k, c in zip(n, part, strict=True))
    prefill = sum(k * model.prefill(c.prompt) for k, c in zip(n, part, strict=True))
    decode = sum(k * model.decode(c.prompt, c.output) for k, c in zip(n, part, strict=True))
    return Rates(prefill=round(asked / prefill), decode=round(said / decode), hour=DOLLARS)


def command(speed: Rates, margin: float) -> str:
    """What prints the design below, where the benchmarks' data are not at hand."""
    return (
        f"icr plan --tasks {','.join(GROUPS)} --settings full --margin {100 * margin:g} \\\n"
        f"  --max-model-len {WINDOW} --prefill {speed.prefill:g} --decode {speed.decode:g} --dollars-per-hour {DOLLARS:g}"
    )


def working_day(margin: float = 0.03) -> list[str]:
    """What the suite average at this margin costs an 8B: what `icr plan` prints, then sharing and stopping."""
    suite = [c for group in GROUPS for c in cells(group)]
    speed = rates(EIGHT, suite)
    made = plan.make(suite, {"full": suite}, margin=margin, prior=plan.PRIOR, rates=speed)
    choice = made.choice
    steps = [
        ("every item, nothing shared", suite, False, 1.0),
        ("every item, shared prefixes", suite, True, 1.0),
        (f"the cheapest design with an MDE of {100 * margin:g} points (`icr plan`)", choice.cells, True, 1.0),
        ("and stopped when the gate is decided (`--until-gate`)", choice.cells, True, SEQUENTIAL),
    ]
    printed = map(plain, planning.text(made).splitlines())
    said = [line for line in printed if line.startswith(("| suite", "| `full`", "cheapest"))]
    lines = ["```", command(speed, margin), "```", "", "prints, among others:", "", "```", *said, "```", ""]
    lines += ["| design | items | MDE, points | H100 h | $ |", "|---|---:|---:|---:|---:|"]
    for name, part, sharing, share in steps:
        spent = share * hours(EIGHT, part, sharing=sharing)
        seen = 100 * plan.mde(part, plan.PRIOR)
        n = sum(len(c.clusters) for c in part)
        lines.append(f"| {name} | {n:,} | {seen:.1f} | {spent:,.1f} | {spent * DOLLARS:,.0f} |")
    return lines


def text() -> str:
    """The block of docs/scale.md."""
    return "\n".join(
        ["", *table(), "", f"The verdict on {EIGHT.name}, `full` to 128k:", "", *working_day(), "", ""]
    )


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    made = text()
    if not parser.parse_args().write:
        print(made)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(before + MARKS[0] + made + MARKS[1] + after, encoding="utf-8")


if __name__ == "__main__":
    main()
