"""Money of a study's served models: an estimate before the run, what was spent after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.served.address import root_of
from ..engines.served.price import UNIT, Price
from ..engines.served.spending import Spending
from .cells import Cell

if TYPE_CHECKING:
    from .plan import Row


def price_of(cell: Cell) -> Price | None:
    """The price of a cell's model; None for engines of this machine and for models without one."""
    return Price.parse(cell.args.get("price"))


def spent(cell: Cell, answers: Path) -> float:
    """USD spent so far on a cell's model, by the journal beside the answers; nothing is created."""
    address = root_of(str(cell.args["base_url"]))
    if not Spending.place(answers, address, str(cell.args["model"])).is_file():
        return 0.0
    journal = Spending(answers, address, str(cell.args["model"]))
    try:
        return journal.spent
    finally:
        journal.close()


def priced(cells: Iterable[Cell]) -> dict[str, Cell]:
    """One cell of each model that has a price."""
    found: dict[str, Cell] = {}
    for cell in cells:
        if cell.args.get("price"):
            found.setdefault(cell.model, cell)
    return found


def said(cells: Iterable[Cell], answers: Path) -> list[str]:
    """A line for each model with a price: what it has cost, and its cap."""
    lines = []
    for name, cell in priced(cells).items():
        cap = cell.args.get("budget_usd")
        lines.append(f"spent on {name}: {spent(cell, answers):.4f} USD" + (f" of {cap:g}" if cap else ""))
    return lines


def estimate(rows: Sequence[Row], answers: Path) -> list[str]:
    """A line for each model with a price: what its cells would cost at most, every answer at full length."""
    lines = []
    for name, cell in priced(row.cell for row in rows).items():
        price = price_of(cell)
        assert price is not None
        todo = [row for row in rows if row.cell.model == name and row.state != "done"]
        prompts = price.at_most(sum(row.tokens for row in todo), 0)
        most = prompts + price.at_most(0, sum(row.items * row.most for row in todo))
        line = f"cost of {name}: {prompts:.2f} USD for prompts, at most {most:.2f} USD with every answer at full length"
        if cap := cell.args.get("budget_usd"):
            left = cap - spent(cell, answers)
            line += f"; {left:.2f} USD left of budget_usd {cap:g}"
            line += (
                ": the cap ends it before"
                if prompts > left
                else ": the cap may end it"
                if most > left
                else ""
            )
        lines.append(f"{line} (prices in {UNIT})")
    return lines
