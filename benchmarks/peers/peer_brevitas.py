"""brevitas: its own layer-wise post-training pipeline, as its ImageNet example strings it together.

Weights per channel by squared error, activations asymmetric at percentile 99.9 (its default 99.999
loses at low widths). `bias-correction` ends with that; `learned-round` first learns the rounding,
layer by layer, for the example's 1000 iterations, at batch 32 instead of its 1.
"""

from __future__ import annotations

from argparse import Namespace

import torch
from _cell import Cell, Predict, answer, torch_model, torch_predict
from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize
from brevitas_examples.common.learned_round.learned_round_trainer import (
    LearnedRoundTrainer,
    get_blocks,
)
from brevitas_examples.imagenet_classification.ptq import learned_round_utils, ptq_common

Batches = list[tuple[torch.Tensor, None]]

ITERATIONS = 1000
LEARNING_RATE = 1e-2


def layer_map(weight_bits: int, act_bits: int) -> dict[object, object]:
    return ptq_common.create_quant_maps(
        dtype=torch.float32,
        bias_bit_width=None,
        weight_bit_width=weight_bits,
        weight_param_method="mse",
        weight_scale_type="float_scale",
        weight_quant_type="sym",
        weight_quant_granularity="per_channel",
        weight_narrow_range=False,
        weight_quant_format="int",
        act_quant_format="int",
        act_bit_width=act_bits,
        act_scale_type="float_scale",
        act_scale_computation_type="static",
        act_param_method="stats",
        act_quant_type="asym",
        act_quant_granularity="per_tensor",
        act_quant_percentile=99.9,
    )[1]


def learn_rounding(module: torch.nn.Module, batches: Batches) -> None:
    settings = learned_round_utils.parse_args_to_dataclass(
        Namespace(
            learned_round="hard_sigmoid",
            learned_round_iters=ITERATIONS,
            learned_round_lr=LEARNING_RATE,
            learned_round_lr_scheduler=None,
            learned_round_loss="regularised_mse",
            learned_round_batch_size=32,
        )
    )
    # Half precision, its default, is for GPUs.
    settings.training_args.use_amp = False
    LearnedRoundTrainer(config=settings).train(
        model=module,
        model_forward=learned_round_utils.vision_forward,
        block_forward=learned_round_utils.vision_block_forward,
        data_loader=batches,
        cache=learned_round_utils.CacheVision(),
        get_blocks_fn=lambda model: get_blocks(model, learned_round_utils.is_layer),
        keep_gpu=True,
    )


def quantize(cell: Cell) -> Predict:
    torch.manual_seed(cell.seed)
    images = torch.from_numpy(cell.array("cal"))
    batches: Batches = [(batch, None) for batch in images.split(128)]
    module = preprocess_for_quantize(torch_model(), merge_bn=True)
    ends = ["conv1", "linear"]
    module = layerwise_quantize(module, layer_map(cell.weight_bits, cell.act_bits), ends)
    module = layerwise_quantize(module, layer_map(8, 8))
    with torch.no_grad():
        module(images[:128])
    ptq_common.calibrate(batches, module)
    if cell.method == "learned-round":
        learn_rounding(module, batches)
    ptq_common.apply_bias_correction(batches, module)
    return torch_predict(module.eval())


if __name__ == "__main__":
    answer(quantize, "brevitas", "torch")
