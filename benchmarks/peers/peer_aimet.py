"""aimet-onnx: weights per channel and symmetric, ranges by its `tf_enhanced` scheme.

`adaround` runs AdaRound at the tool's default of 10000 iterations a layer, `adaround-500` at 500.
It does not look at activation quantizers, so columns of equal weight width share its result, and
each carries its whole cost.
"""

from __future__ import annotations

import time

import numpy as np
import onnx
from _cell import Cell, Predict, answer, peak_megabytes
from aimet_onnx import QuantizationSimModel, apply_adaround
from aimet_onnx.common.defs import qtype

Batches = list[dict[str, np.ndarray]]

ITERATIONS = {"adaround": 10_000, "adaround-500": 500}


def eight_bit_ends(sim: QuantizationSimModel, graph: onnx.GraphProto) -> None:
    """Weights of the first and last layer, the image, the last layer's input and the logits."""
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    first, last = layers[0], layers[-1]
    names = (first.input[0], first.input[1], last.input[0], last.input[1], last.output[0])
    for name in names:
        sim.qc_quantize_op_dict[name].set_bitwidth(8)


def simulate(cell: Cell, model: onnx.ModelProto) -> QuantizationSimModel:
    sim = QuantizationSimModel(
        model,
        param_type=qtype.int(cell.weight_bits),
        activation_type=qtype.int(cell.act_bits),
        quant_scheme="tf_enhanced",
        session_options_kwargs={"intra_op_num_threads": 1},
    )
    eight_bit_ends(sim, model.graph)
    return sim


def adaround(cell: Cell, sim: QuantizationSimModel, batches: Batches) -> None:
    """Round the weights, or take over what a column of the same weight width has rounded."""
    kept = cell.work / f"aimet-{cell.method}-w{cell.weight_bits}.npz"
    tensors = {
        tensor.name: tensor
        for tensor in sim.model.model.graph.initializer
        if tensor.name.endswith(".weight")
    }
    if kept.exists():
        with np.load(kept) as store:
            cell.reused.update(
                {name: float(store[name]) for name in ("wall_s", "cpu_s", "peak_mb")}
            )
            sim._compute_param_encodings(overwrite=False)
            for name, tensor in tensors.items():
                tensor.raw_data = store[name].tobytes()
                sim.qc_quantize_op_dict[name].freeze_encodings()
        sim._rebuild_session()
        return
    wall, cpu = time.perf_counter(), time.process_time()
    apply_adaround(sim, batches, ITERATIONS[cell.method])
    cost = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    cost["peak_mb"] = peak_megabytes()
    rounded = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    np.savez(kept, **rounded, **cost)


def quantize(cell: Cell) -> Predict:
    model = onnx.load(cell.onnx)
    name = model.graph.input[0].name
    images = cell.array("cal")
    batches = [{name: images[i : i + 64]} for i in range(0, len(images), 64)]
    sim = simulate(cell, model)
    if cell.method in ITERATIONS:
        adaround(cell, sim, batches)
    sim.compute_encodings(batches)
    return lambda given: sim.session.run(None, {name: given})[0]


if __name__ == "__main__":
    answer(quantize, "aimet-onnx", "torch")
