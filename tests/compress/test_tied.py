"""A table of tokens that a head, or a second table, shares: both are quantized, neither suffers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from small_transformers import BART, SIZE, Tokens, inputs
from torch import nn

from roadworthy.compress.methods import Method, Mse, SmoothQuant
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import backend
from roadworthy.core.capture import capture
from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.runtimes import OrtPredictor


def masked() -> nn.Module:
    """BERT whose head is its table of words."""
    model = hf.BertForMaskedLM(hf.BertConfig(**SIZE | {"num_hidden_layers": 1}))
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    return Tokens(model)


def summaries() -> nn.Module:
    """BART, whose encoder, decoder and head share one table."""
    size = BART | {"encoder_layers": 1, "decoder_layers": 1}
    return Tokens(hf.BartForConditionalGeneration(hf.BartConfig(**size)))


@pytest.mark.parametrize(("build", "rows"), [(masked, 2), (summaries, 3)])
def test_tied_weights_are_quantized_each_by_its_own_grid(
    tmp_path: Path, build: Callable[[], nn.Module], rows: int
) -> None:
    torch.manual_seed(0)
    module, x = build().eval(), inputs("bart", batch=4)[:, :rows]
    wanted = module(x).detach()
    graph = capture(module, x)

    def quantized(method: Method) -> nn.Module:
        widths = Widths(method.weight_bits, 8)
        return compress(graph, x, Plan(method, backend("onnxruntime-cpu", 8), widths)).module

    error = (quantized(Mse(8, 8))(x) - wanted).square().mean() / wanted.var()
    assert float(error) < 5e-3
    assert torch.equal(module(x), wanted)  # the float model is left alone
    narrow = quantized(SmoothQuant(4, 8))
    snap_biases(narrow)
    export_onnx(narrow, x[:2], tmp_path / "model.onnx")
    parted = OrtPredictor(tmp_path / "model.onnx")(x) - narrow(x)
    assert float(parted.square().mean() / wanted.var()) < 1e-4
