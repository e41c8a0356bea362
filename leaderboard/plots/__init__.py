"""Plots as SVG text, one file a shape: deterministic bytes, own background in light and dark, no plotting
library."""

from __future__ import annotations

from .curve import Line, Point, curve
from .forest import Row, forest
from .heat import Panel, heat
from .pareto import Dot, pareto
from .trend import Step, trend

__all__ = ["Dot", "Line", "Panel", "Point", "Row", "Step", "curve", "forest", "heat", "pareto", "trend"]
