"""What each ingredient of outlier suppression gives: "Ablation" of docs/outlier-suppression.md.

Every row is one plan, calibrated and judged as outlier_figures.py does it, and shares its finished
cells. Names of that script mean what they mean there; the rest is below. BERT's norms are all read
by a residual branch, so that smoothing without the branch's factor changes nothing: `squared`.

    python benchmarks/suppression_ablation.py --columns w6a6 --seeds 0 1
    python benchmarks/suppression_ablation.py --columns w6a6 --seeds 0 --inflate 5
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

from outlier_figures import METHODS, Cell, arguments, quantized, study
from torch import Tensor, fx

from roadworthy.compress import thresholds
from roadworthy.compress.engine import Run
from roadworthy.compress.methods import Method, Mse, OutlierSuppressionPlus, SmoothQuant
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.compress.suppress import GammaMigration, ShiftScale
from roadworthy.core.backends import ACADEMIC


def _searched(w: int, a: int, exponent: float) -> Method:
    """Activations by least error, weights as the methods that suppress have them."""
    return Mse(w, a, SmoothQuant(w, a).weight_range, act_exponent=exponent)


ROWS: dict[str, Callable[[int, int], Method]] = {
    "error-2.4": lambda w, a: _searched(w, a, 2.4),
    "squared": lambda w, a: _searched(w, a, 2.0),
    "migrate": lambda w, a: replace(METHODS["minmax"](w, a), suppress=GammaMigration()),
    # One threshold is the largest channel's reach: nothing is scaled.
    "shift-only": lambda w, a: OutlierSuppressionPlus(w, a, suppress=ShiftScale(1)),
    "scale-only": OutlierSuppressionPlus,
    "smoothquant-1-tables-8": METHODS["smoothquant-1"],
}
SHARED = (
    *("minmax", "clip", "migrate-clip", "outlier-suppression", "faster-fine", "migrate-mse-2"),
    *("smoothquant", "smoothquant-1", "outlier-suppression-plus"),
)


def main() -> None:
    study(arguments([*SHARED, *ROWS]), quantized_row)


def quantized_row(graph: fx.GraphModule, samples: Tensor, cell: Cell) -> fx.GraphModule:
    """By a row of this script, or by a method of outlier_figures.py."""
    if cell.name not in ROWS:
        return quantized(graph, samples, cell)
    kept = ("first",) if cell.name.endswith("tables-8") else ()
    plan = Plan(ROWS[cell.name](*cell.bits), ACADEMIC, Widths(*cell.bits, kept))
    unmoved = patch.object(thresholds, "shiftable", return_value={})
    with unmoved if cell.name == "scale-only" else nullcontext():
        return compress(graph, samples, plan, Run(cell.seed)).module


if __name__ == "__main__":
    main()
