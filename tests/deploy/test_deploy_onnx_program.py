"""What is left out of the export changes nothing in what comes out."""

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from roadworthy.deploy.onnx_program import to_onnx

OPSET = 20


class Net(nn.Module):
    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)


def settled(x: Tensor) -> Tensor:
    """Every operator that is written otherwise."""
    mask = (x > 0).to(torch.bool) & (x < 1).to("cpu", torch.bool)
    chosen = torch.max(torch.min(x, x.flip(-1)), mask.to(torch.float32) - 0.5)
    pooled = nn.functional.adaptive_avg_pool2d(chosen * x.to(torch.float32), 1)
    return pooled.reshape(x.shape[0], -1) + chosen.to(torch.float64).mean((2, 3)).float()


def decomposed(x: Tensor) -> Tensor:
    """A pool that has to be decomposed."""
    return nn.functional.adaptive_avg_pool2d(x, 2)


def in_place(x: Tensor) -> Tensor:
    """A copy that is written into: leaving it out would change `x` as well."""
    y = x.to(torch.float32, copy=True)
    y.clamp_(min=0)
    return x + y


def same_at_the_end(x: Tensor) -> Tensor:
    """The answer itself is a cast to its own type."""
    return (2 * x).to(torch.float32)


@pytest.mark.parametrize("compute", [settled, decomposed, in_place, same_at_the_end])
def test_it_computes_what_torch_computes_by_the_operators_of_the_whole_export(
    compute: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shapes = ({0: torch.export.Dim("batch")},)
    programs = [torch.export.export(Net(compute), (x,), dynamic_shapes=shapes) for _ in range(2)]
    names = {node.name for node in programs[0].graph.nodes}
    mine = to_onnx(programs[0], {}, OPSET)
    whole = torch.onnx.export(programs[1], opset_version=OPSET, verbose=False)
    assert whole is not None
    assert [node.op_type for node in mine.graph] == [node.op_type for node in whole.model.graph]
    assert mine.opset_imports == whole.model.opset_imports
    assert compute is not settled or mine.graph.outputs[0].name in names
    ir.save(mine, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    probe = torch.cat([x, x - 1, 3 * x])
    found = session.run(None, {session.get_inputs()[0].name: probe.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), compute(probe))


def test_nothing_is_traced_again_where_all_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []
    whole = torch.export.ExportedProgram.run_decompositions

    def traces(program: torch.export.ExportedProgram, *more: object) -> object:
        traced.append(program.graph_signature.user_outputs[0])
        return whole(program, *more)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", traces)
    for compute in (settled, decomposed, in_place):
        program = torch.export.export(Net(compute), (torch.randn(2, 3, 4, 4),))
        to_onnx(program, {}, OPSET)
    assert len(traced) == 2
