"""Linear probes: exact solutions, and what they read and are judged by."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from roadworthy.core.dense_data import VOID
from roadworthy.core.models import load_model
from roadworthy.errors import BadData, BadInput
from roadworthy.learn.backbones import backbone
from roadworthy.learn.batches import Batch, Source
from roadworthy.learn.features import network_hash
from roadworthy.learn.probe import fit_linear, linear_probe, logistic, part_of, ridge, rows_of
from roadworthy.learn.sources import source


def coloured(n: int, seed: int) -> Source:
    """Noise of two brightnesses, which are the classes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 120, (n, 3, 32, 32), generator=random)
    images += 100 * labels[:, None, None, None]
    return Source("colours", "classification", ("dark", "bright"), Batch(images.byte(), labels))


def test_ridge_is_least_squares_with_a_penalty() -> None:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=random), torch.randn(40, generator=random)
    weight, bias = ridge(x - x.mean(0), y, 0.3)
    wide = np.concatenate([(x - x.mean(0)).numpy(), np.sqrt(0.3 * 40) * np.eye(5)])
    expected = np.linalg.lstsq(wide, np.concatenate([(y - y.mean()).numpy(), np.zeros(5)]))[0]
    np.testing.assert_allclose(weight[0].numpy(), expected, atol=1e-5)
    assert bias.item() == pytest.approx(y.mean().item(), abs=1e-5)


def test_logistic_regression_ends_where_nothing_pulls() -> None:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=random), torch.arange(60) % 3
    weight, bias = (each.requires_grad_() for each in logistic(x, y, 3, 0.05))
    loss = F.cross_entropy(F.linear(x, weight, bias), y) + 0.025 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 1e-3
    assert weight.abs().max() > 0.02


def test_what_can_be_seen_is_found() -> None:
    torch.manual_seed(0)
    found = linear_probe(backbone("metanet:mn_xs@random"), coloured(40, 0), coloured(30, 1))
    assert found.verdict.value == 1.0
    assert (found.verdict.n, found.n) == (30, 40)


def test_labels_that_say_nothing_are_found_by_chance() -> None:
    torch.manual_seed(0)
    train, test = coloured(40, 0), coloured(200, 1)
    assert train.content.labels is not None
    train.content.labels.copy_(torch.randint(0, 2, (40,)))
    found = linear_probe(backbone("metanet:mn_xs@random"), train, test)
    assert found.verdict.value < 0.9


@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_cells_of_maps_are_read(task) -> None:
    torch.manual_seed(0)
    body = backbone("metanet:mn_xs@random")
    train, test = source("scenes:0-24", task, 32), source("scenes:40-46", task, 32)
    found = linear_probe(body, train, test).verdict
    assert found.n == 6
    if task == "depth":
        known = test.content.depth
        assert known is not None
        known = known[known.isfinite()]
        assert found.value < float((known - known.log().mean().exp()).square().mean().sqrt())
    else:
        assert found.value > 0.08


def test_cells_say_what_their_middle_pixel_is_and_void_says_nothing() -> None:
    masks = torch.full((1, 32, 32), VOID, dtype=torch.uint8)
    masks[0, 2, 6] = 1
    content = Batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), masks=masks)
    held = Source("set", "segmentation", ("a", "b"), content)
    x, y, image = rows_of(backbone("metanet:mn_xs@random").eval(), held, torch.Generator())
    assert (y.tolist(), image.tolist()) == ([1], [0])
    assert x.shape == (1, sum(backbone("metanet:mn_xs@random").channels))


def test_a_part_holds_every_class_and_depends_on_the_seed() -> None:
    whole = coloured(40, 0)
    parts = [part_of(whole, 0.25, seed) for seed in (0, 0, 1)]
    for part in parts:
        assert part.content.labels is not None
        assert part.content.labels.bincount().tolist() == [5, 5]
    assert parts[0].sha256 == parts[1].sha256 != parts[2].sha256
    assert len(part_of(whole, 0.001, 0)) == 2


def test_what_cannot_be_probed_is_told() -> None:
    body, few = backbone("metanet:mn_xs@random"), coloured(4, 0)
    with pytest.raises(BadData, match="4 training images"):
        linear_probe(body, few, few)
    cars = source("scenes:0-5", "detection", 32)
    with pytest.raises(BadInput, match="classification, segmentation and depth are allowed"):
        linear_probe(body, cars, cars)
    with pytest.raises(BadInput, match="one task and the same classes"):
        linear_probe(body, coloured(10, 0), cars)
    with pytest.raises(BadInput, match="fraction 0 given"):
        part_of(few, 0, 0)


def test_the_penalty_is_chosen_by_images_that_say_something() -> None:
    body, rooms = backbone("metanet:mn_xs@random"), source("scenes:0-8", "depth", 32)
    depth = rooms.content.depth
    assert depth is not None
    depth[2:] = float("nan")
    assert all(np.isfinite(list(fit_linear(body, rooms).losses.values())))
    depth[1:] = float("nan")
    with pytest.raises(BadData, match="1 of 8 training images says anything to learn"):
        fit_linear(body, rooms)


def test_all_images_are_read_and_cells_no_more_than_are_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("roadworthy.learn.probe._ROWS", 20)
    body = backbone("metanet:mn_xs@random").eval()
    assert len(rows_of(body, coloured(40, 0), torch.Generator())[0]) == 40
    depth = source("scenes:0-2", "depth", 32)
    assert len(rows_of(body, depth, torch.Generator().manual_seed(0))[0]) < 40


def test_features_belong_to_layers_and_their_code(tmp_path: Path) -> None:
    one, other = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, padding=1)
    other.load_state_dict(one.state_dict())
    assert network_hash(one) != network_hash(other)
    found: list[str] = []
    for sign in "+-":
        code = f"from torch import nn\nclass Net(nn.Module):\n forward = lambda s, x: {sign}x\n"
        (tmp_path / "net.py").write_text(f"{code}def build():\n return Net()\n")
        found.append(network_hash(load_model(f"py:{tmp_path}/net.py:build").module))
    assert found[0] != found[1]


def test_features_belong_to_buffers_too_that_no_file_holds() -> None:
    body = nn.Linear(1, 1)
    body.register_buffer("colours", torch.zeros(3), persistent=False)
    found = network_hash(body)
    body.colours += 1
    assert network_hash(body) != found
