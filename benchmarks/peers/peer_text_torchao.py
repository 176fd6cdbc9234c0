"""torchao on a text model. Three ways are its PT2E with the X86 inductor quantizer, weights per
channel, which computes linear layers in integers once inductor compiles it: `pt2e-x86` with static
ranges by histogram, `pt2e-x86-embeddings` with its embedding quantizer besides (a step per token),
`pt2e-dynamic` with ranges as they come, which its guide advises for BERT. `intx`: 4-bit weights in
groups of 32, activations to 8 bits token by token.

Embeddings stay in floating point but where said. Fewer than 8 bits are clipped int8 codes, the only
way the tool has for them. Judged as exported; raced as compiled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from _cell import Cell
from _texts import NAMES, Predict, answer, calibration, torch_predict
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import ComposableQuantizer, Quantizer
from torchao.quantization.pt2e.quantizer.embedding_quantizer import EmbeddingQuantizer
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)


class Logits(torch.nn.Module):
    """The classifier's tensor alone, tokens by position."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification

        load = AutoModelForSequenceClassification.from_pretrained
        self.model = load(cell.work / "model").eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits


EXAMPLE = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in NAMES)


def sizes() -> tuple[dict[int, torch.export.Dim], ...]:
    """Any number of texts of any length."""
    one = {0: torch.export.Dim("batch", max=256), 1: torch.export.Dim("tokens", max=128)}
    return (one,) * 3


def exported(module: torch.nn.Module) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module, EXAMPLE, dynamic_shapes=sizes())


def shown(module: torch.nn.Module, cell: Cell) -> None:
    """The calibration texts go through it."""
    with torch.no_grad():
        for text in calibration(cell):
            module(*(torch.from_numpy(text[name]) for name in NAMES))


def quantizer(cell: Cell) -> Quantizer:
    base = get_default_x86_inductor_quantization_config(is_dynamic=cell.method == "pt2e-dynamic")
    half = 1 << (cell.weight_bits - 1)
    acts = replace(base.input_activation, quant_min=0, quant_max=(1 << cell.act_bits) - 1)
    weight = replace(base.weight, quant_min=-half, quant_max=half - 1)
    made = X86InductorQuantizer()
    made.set_global(replace(base, input_activation=acts, output_activation=acts, weight=weight))
    if cell.method == "pt2e-x86-embeddings":
        return ComposableQuantizer([EmbeddingQuantizer(), made])
    return made


def pt2e(cell: Cell, model: torch.nn.Module) -> torch.nn.Module:
    prepared = prepare_pt2e(exported(model).module(), quantizer(cell))
    shown(prepared, cell)  # the dynamic way needs it too: weights are observed in passing
    return move_exported_model_to_eval(convert_pt2e(prepared))


def intx(model: torch.nn.Module) -> torch.nn.Module:
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    )
    quantize_(model, config)
    return model


def quantize(cell: Cell, folder: Path) -> None:
    model = Logits(cell)
    if cell.method == "intx":
        torch.save(intx(model), folder / "model.pt")
    else:
        torch.export.save(exported(pt2e(cell, model)), folder / "model.pt2")


def read(folder: Path) -> torch.nn.Module:
    if (folder / "model.pt").exists():
        return torch.load(folder / "model.pt", weights_only=False)
    return torch.export.load(folder / "model.pt2").module()


def load(folder: Path) -> Predict:
    return torch_predict(read(folder))


def compiled(folder: Path) -> Predict:
    """By inductor, weights folded in as its guide says."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    return torch_predict(torch.compile(read(folder)))


if __name__ == "__main__":
    answer(quantize, load, ("torchao", "torch", "transformers"), compiled)
