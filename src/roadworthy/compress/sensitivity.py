"""What each layer's quantization costs by itself."""

from typing import Any

import torch
from torch import Tensor, fx

from roadworthy.compress.calibrate import set_enabled
from roadworthy.compress.divergence import divergence
from roadworthy.compress.engine import Task, calibrate, prepare, whole_model
from roadworthy.compress.place import Layer
from roadworthy.compress.quantize import Plan
from roadworthy.core.padding import choices, in_batches
from roadworthy.core.predict import Inputs
from roadworthy.core.progress import track

IMAGES = 256


@torch.no_grad()
def sensitivity(graph: fx.GraphModule, images: Inputs, plan: Plan) -> list[dict[str, Any]]:
    """Rows of `layer` and `kl`, its cost at the plan's widths, dearest first.

    One layer at a time is quantized, its weight and its inputs, by calibration alone; the cost is
    the KL divergence of the logits from the float model's, averaged over the images, in nats.
    """
    task = prepare(graph, plan.backend, plan.widths, plan.blocks)
    for module in task.quantizers.modules.values():
        module.to(images.device)
    calibrate(task, images, plan.method, plan.backend)
    model, shown = whole_model(task), images[:IMAGES]
    wanted = choices(in_batches(graph, shown), shown)
    layers = task.quantizers.layers
    costs = [
        {"layer": layer.name, "kl": _cost(task, layer, model, shown, wanted)}
        for layer in track(layers, "sensitivity")
    ]
    return sorted(costs, key=lambda row: -row["kl"])


def _cost(task: Task, layer: Layer, model: fx.GraphModule, images: Tensor, wanted: Tensor) -> float:
    on = {layer.weight, *layer.inputs}
    for name, module in task.quantizers.modules.items():
        set_enabled(module, name in on)
    return divergence(wanted, choices(in_batches(model, images), images))
