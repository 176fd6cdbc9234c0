"""What is timed beside the stage loop computes as the loop does."""

import runpy
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from roadworthy.learn.backbones import backbone
from roadworthy.learn.sources import source

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "learn_speed.py"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_all_arms_compute_in_the_precision_that_is_asked_for(
    precision: str, dtype: torch.dtype
) -> None:
    arms = runpy.run_path(str(SCRIPT))
    found: list[torch.dtype] = []

    def squares(said: Sequence[Tensor]) -> Tensor:
        found.extend(each.dtype for each in said)
        return torch.stack([each.float().square().mean() for each in said]).sum()

    given = Namespace(device="cpu", precision=precision)
    arms["bare"].__globals__.update(given=given, squares=squares)
    body, images = backbone("metanet:mn_xs@random"), torch.randn(2, 3, 32, 32)
    arms["bare"](body, "classification", images, 1)
    arms["with_head"](body, source("scenes:0-2", "classification", 32), images, 1)
    assert found == [dtype, dtype]
