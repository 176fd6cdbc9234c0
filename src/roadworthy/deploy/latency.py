"""How long a batch takes; several predictors are timed in turns, so that their ratio is fair."""

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from roadworthy.core.predict import Inputs, Predictor
from roadworthy.errors import BadInput


def latency(predictor: Predictor, example: Inputs, repeats: int = 30) -> dict[str, float]:
    """Milliseconds per call on `example`: ``median_ms``, ``p10`` and ``p90``."""
    return latencies({"one": predictor}, example, repeats)["one"]


def latencies(
    predictors: Mapping[str, Predictor], example: Inputs, repeats: int = 30
) -> dict[str, dict[str, float]]:
    """`latency` of several predictors by name, one call of each per round after a warm-up."""
    if repeats < 1:
        raise BadInput(f"{repeats} repeats given; at least 1 is allowed")
    for predictor in predictors.values():
        predictor(example)
    rounds = [[_seconds(each, example) for each in predictors.values()] for _ in range(repeats)]
    columns = np.array(rounds).T * 1e3
    return {name: _summary(column) for name, column in zip(predictors, columns, strict=True)}


def _seconds(predictor: Predictor, example: Tensor) -> float:
    start = time.perf_counter()
    predictor(example)
    return time.perf_counter() - start


def _summary(milliseconds: npt.NDArray[np.float64]) -> dict[str, float]:
    low, middle, high = np.percentile(milliseconds, [10, 50, 90])
    return {"median_ms": float(middle), "p10": float(low), "p90": float(high)}
