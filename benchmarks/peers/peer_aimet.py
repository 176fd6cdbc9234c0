"""aimet-onnx: AdaRound at its default number of iterations, weights per channel and symmetric."""

from __future__ import annotations

import numpy as np
import onnx
from _cell import Cell, Predict, answer
from aimet_onnx import QuantizationSimModel, apply_adaround
from aimet_onnx.common.defs import qtype


def feeds(name: str, images: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{name: images[i : i + 64]} for i in range(0, len(images), 64)]


def eight_bit_ends(sim: QuantizationSimModel, graph: onnx.GraphProto) -> None:
    """Weights of the first and last layer, the image, the last layer's input and the logits."""
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    first, last = layers[0], layers[-1]
    names = (first.input[0], first.input[1], last.input[0], last.input[1], last.output[0])
    for name in names:
        sim.qc_quantize_op_dict[name].set_bitwidth(8)


def quantize(cell: Cell) -> Predict:
    model = onnx.load(cell.onnx)
    name = model.graph.input[0].name
    sim = QuantizationSimModel(
        model,
        param_type=qtype.int(cell.weight_bits),
        activation_type=qtype.int(cell.act_bits),
        quant_scheme="tf_enhanced",
        config_file="default",
        session_options_kwargs={"intra_op_num_threads": 1},
    )
    eight_bit_ends(sim, model.graph)
    batches = feeds(name, cell.array("cal"))
    if cell.method == "adaround":
        apply_adaround(sim, batches, num_iterations=200)
    sim.compute_encodings(batches)
    return lambda images: sim.session.run(None, {name: images})[0]


if __name__ == "__main__":
    answer(quantize, "aimet-onnx", "torch")
