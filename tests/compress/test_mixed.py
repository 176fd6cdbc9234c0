"""Sensitivity finds the layer that hurts; mixed precision raises it and little else."""

import pytest
import torch
from compress.small import graph, images, plan

from roadworthy.compress.engine import Run
from roadworthy.compress.methods import Mse
from roadworthy.compress.mixed import compress_within
from roadworthy.compress.quantize import compress
from roadworthy.compress.sensitivity import sensitivity
from roadworthy.errors import BadInput


def test_costs_fall_with_bits_and_come_dearest_first() -> None:
    low = sensitivity(graph(), images(), plan(Mse(), bits=2))
    high = sensitivity(graph(), images(), plan(Mse(), bits=8))
    costs = [row["kl"] for row in low]
    assert costs == sorted(costs, reverse=True)
    assert sum(costs) > 20 * sum(row["kl"] for row in high)
    assert {row["layer"] for row in low} == {"0", "2.a", "2.b", "3.a", "3.b", "6"}


def test_no_more_layers_are_raised_than_needed() -> None:
    labels = torch.full((96,), -1)
    loose = compress_within(graph(), images(), labels, plan(Mse(), bits=2), Run(), 100.0)
    assert loose.facts["raised_to_8bit"] == []
    found = compress_within(graph(), images(), labels, plan(Mse(), bits=2), Run(), 5.0)
    raised = found.facts["raised_to_8bit"]
    order = [row["layer"] for row in found.facts["sensitivity"]]
    assert 0 < len(raised) <= len(order)
    assert raised == order[: len(raised)]


def test_an_impossible_drop_is_refused() -> None:
    labels = (graph()(images()).argmax(1)).detach()
    with pytest.raises(BadInput, match="max-drop -50"):
        compress_within(graph(), images(), labels, plan(Mse(), bits=8), Run(), -50.0)


def test_compress_leaves_the_graph_alone() -> None:
    captured = graph()
    before = [b.clone() for b in captured.state_dict().values()]
    compress(captured, images(), plan())
    after = captured.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
