"""Parity of maps and boxes, and what of quantization compares classes alone."""

import pytest
import torch
from torch import nn

from roadworthy import quantize
from roadworthy.compress.learn import Samples, evaluate
from roadworthy.compress.methods import Mse, Pass, QDropPlus, with_iterations
from roadworthy.core.capture import capture
from roadworthy.deploy.parity import affordable, compare
from roadworthy.errors import BadInput
from roadworthy.judging_dense import suited

IMAGES = torch.zeros(6, 3, 8, 8)


def test_shares_gone_wrong_are_not_hidden_by_corners_in_pixels() -> None:
    corners, shares = 300 * torch.rand(6, 9, 4), torch.rand(6, 9, 3)
    wrong = torch.cat([corners, shares.flip(0)], 2)
    right = torch.cat([corners, shares], 2)
    assert compare(right, right, inputs=IMAGES).agreement == 1
    found = compare(right, wrong, inputs=IMAGES)
    assert found.measure == "explained"
    assert found.agreement < 0.9


def test_what_all_images_share_is_no_agreement() -> None:
    """A depth of 50 m everywhere, told apart by centimetres."""
    depths = 50 + 0.01 * torch.randn(6, 1, 4, 4)
    assert compare(depths, depths.mean(0).expand(6, -1, -1, -1), inputs=IMAGES).agreement < 0.01


def test_the_divergence_of_maps_is_over_their_classes() -> None:
    said, wanted = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    known = wanted.log_softmax(1)
    apart = (known.exp() * (known - said.log_softmax(1))).sum(1).mean()
    found = evaluate(nn.Identity(), Samples(said, said, wanted), Pass(loss="kl"))
    assert found == pytest.approx(float(apart), rel=1e-5)


@pytest.mark.parametrize("method", [QDropPlus(8, 8), Mse(8, 8, tries=2)])
def test_what_compares_classes_is_refused_for_boxes(method: Mse) -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.Flatten(2))  # [b 7 36]: seven boxes
    with pytest.raises(BadInput, match="compares classes and the model answers"):
        quantize(net, torch.rand(64, 3, 8, 8), method)


def test_the_default_method_learns_a_detector_unit_by_unit() -> None:
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.Flatten(2))
    images = torch.rand(64, 3, 8, 8)
    with pytest.warns(UserWarning, match="answers boxes: the pass over the whole network"):
        kept = suited(QDropPlus(8, 8), capture(net, images[:1]), images)
    assert [each.loss for each in kept.passes] == ["squared"]
    quantize(net, images, with_iterations(kept, 2))
    flat = nn.Sequential(nn.Conv2d(3, 7, 8), nn.Flatten())
    assert suited(QDropPlus(8, 8), capture(flat, images[:1]), images) == QDropPlus(8, 8)


def test_large_answers_are_compared_of_fewer_images() -> None:
    """21 classes of 520 by 520 places take 23 MB an image."""
    images = torch.rand(40, 3, 8, 8)
    assert len(affordable(lambda x: torch.zeros(len(x), 21, 520, 520), images)) == 23
    assert len(affordable(lambda x: torch.zeros(len(x), 2, 4096, 4096), images)) == 8
    assert len(affordable(lambda x: torch.zeros(len(x), 10), images)) == 40
