"""Charts, one file a shape: data in, chart out (Altair); they know nothing of boards. `Chart.svg()` is the
static picture, `Chart.spec` what board.html draws."""

from __future__ import annotations

from .chart import NEEDS, Chart, available, bundle
from .curve import Line, Point, curve
from .forest import Row, forest
from .heat import Panel, heat
from .matrix import Choice, matrix
from .pareto import Dot, pareto
from .theme import config
from .trend import Step, trend

__all__ = [
    "NEEDS",
    "Chart",
    "Choice",
    "Dot",
    "Line",
    "Panel",
    "Point",
    "Row",
    "Step",
    "available",
    "bundle",
    "config",
    "curve",
    "forest",
    "heat",
    "matrix",
    "pareto",
    "trend",
]
