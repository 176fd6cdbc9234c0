"""Where the time of a long answer goes that is written token by token without a cache.

The exported file holds encoder and decoder and is asked anew for every token, both at the length of
the longer of text and answer. It is timed beside its parts in torch: the encoder, and the decoder
at its own length with the encoder's output at hand, which is what two files would compute. Random
weights: time does not depend on them.

    OMP_NUM_THREADS=1 python benchmarks/answer_speed.py
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration

from roadworthy.core.capture import capture
from roadworthy.core.generation import HfAnswers
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.runtimes import OrtPredictor


def make(width: int, layers: int) -> nn.Module:
    sizes = {"layers": layers, "attention_heads": width // 64, "ffn_dim": 4 * width}
    sides = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in sizes.items()}
    return BartForConditionalGeneration(BartConfig(vocab_size=8192, d_model=width, **sides)).eval()


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    model = make(given.width, given.layers)
    wrapped, steps = HfAnswers(model), range(1, given.answer + 1)
    example = torch.ones(1, 4, 16, dtype=torch.int64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(capture(wrapped, example), example.expand(2, -1, -1), path)
        file = OrtPredictor(path)
        print(
            "| text | file, whole answer | torch | encoder's share | decoder alone, once encoded |"
        )
        print("|---|---|---|---|---|")
        for length in given.texts:
            tokens = [torch.ones(1, 4, max(length, t), dtype=torch.int64) for t in steps]
            ids, mask = tokens[0][:, 0], tokens[0][:, 1]
            said = {"input_ids": ids, "attention_mask": mask}
            encoded = model.get_encoder()(**said)
            mine = {"encoder_outputs": encoded, "attention_mask": mask, "use_cache": False}
            forms: list[Callable[[], object]] = [
                lambda tokens=tokens: [file(each) for each in tokens],
                lambda tokens=tokens: [wrapped(each) for each in tokens],
                lambda said=said: [model.get_encoder()(**said) for _ in steps],
                lambda ids=ids, mine=mine: [
                    model(decoder_input_ids=ids[:, :1].expand(1, t), **mine) for t in steps
                ],
            ]
            best = [min(seconds(form) for _ in range(given.rounds)) for form in forms]
            whole, torch_whole, encoder, decoder = best
            once = decoder + encoder / len(steps)
            print(
                f"| {length} | {whole:.2f} s | {torch_whole:.2f} s | {encoder / torch_whole:.0%} | "
                f"{once:.2f} s, {torch_whole / once:.1f} times faster |",
                flush=True,
            )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", nargs="+", type=int, default=[32, 128, 512], help="tokens")
    parser.add_argument("--answer", type=int, default=64, help="tokens of an answer (64)")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3, help="on each side (3)")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
