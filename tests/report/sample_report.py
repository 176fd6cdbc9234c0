"""A run.json as `quantize` writes it, made here from seeded noise."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

Run = dict[str, Any]
NAMES = ["conv1", *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in range(3) for c in (1, 2))]


def histogram(name: str, rng: np.random.Generator) -> Run:
    weights = rng.laplace(0, 0.08, 9216)
    step = 0.06
    quantized = np.clip(np.round(weights / step), -8, 7) * step
    edges = np.linspace(-0.55, 0.55, 121)
    before, _ = np.histogram(weights, edges)
    after, _ = np.histogram(quantized, edges)
    return {
        "layer": name,
        "edges": edges.tolist(),
        "float_counts": before.tolist(),
        "quantized_counts": after.tolist(),
    }


def layer(name: str, bits: int, rng: np.random.Generator) -> Run:
    return {
        "name": name,
        "op": "conv2d" if name != "fc" else "linear",
        "weight_bits": bits,
        "act_bits": bits,
        "scheme": "symmetric, per channel",
        "weight_sqnr_db": float(rng.normal(19 if bits == 4 else 43, 1.5)),
        "numel": int(rng.integers(400, 36_864)),
    }


def unit(name: str, rng: np.random.Generator) -> Run:
    first = float(10 ** rng.normal(-0.5, 0.4))
    return {
        "name": name,
        "layers": [f"{name}.conv1", f"{name}.conv2"],
        "loss_first": first,
        "loss_last": first * float(rng.uniform(0.1, 0.5)),
        "seconds": 7.5,
        "sqnr_db": 21.0,
    }


def sample_run(seed: int = 0) -> Run:
    """A W4A4 QDrop run on ResNet-20 with every key that a report knows."""
    rng = np.random.default_rng(seed)
    all_names = [*NAMES, "fc"]
    return {
        "command": ["roadworthy", "quantize", "py:benchmarks/resnet_cifar.py:resnet20", "--seed 0"],
        "config": {
            "model": "py:benchmarks/resnet_cifar.py:resnet20",
            "data": "npz:lossless.npz?x=xcal&y=ycal",
            "bits": "w4a4",
            "method": "qdrop",
            "effort": "standard",
            "backend": "onnxruntime-cpu",
        },
        "versions": {"roadworthy": "0.1.0", "torch": "2.15.0", "onnxruntime": "1.32.0"},
        "host": {"cpu": "x86_64", "threads": 2, "platform": "Linux"},
        "seed": 7,
        "data": {
            "calibration": {"sha256": "3f" * 32, "n": 1024},
            "eval": {"sha256": "a1" * 32, "n": 1017},
        },
        "float": {"metric": "top1", "value": 0.9164},
        "simulated": {"metric": "top1", "value": 0.9125, "ci": [0.894, 0.929]},
        "deployed": {"metric": "top1", "value": 0.9115},
        "change": {"delta": -0.0049, "low": -0.0128, "high": 0.0029},
        "parity": {"agreement": 0.9990, "max_abs": 0.31, "mean_abs": 0.0042, "n": 1017},
        "units": [unit(f"layer{s}.{b}", rng) for s in (1, 2, 3) for b in range(3)],
        "layers": [layer(n, 8 if n in {"conv1", "fc"} else 4, rng) for n in all_names],
        "sensitivity": [{"layer": n, "kl": float(rng.gamma(1.0, 0.2))} for n in NAMES],
        "float_ops": ["aten.add.Tensor", "aten.add.Tensor", "aten.mean.dim", "aten.relu.default"],
        "kernels": {"integer": 19, "float": 2, "pairs": 3, "ops": {"QLinearConv": 19, "Conv": 2}},
        "files": {"float_onnx_bytes": 1_090_000, "quantized_onnx_bytes": 294_000},
        "latency": {
            "float_ms": 2.31,
            "quantized_ms": 0.745,
            "settings": {"runtime": "onnxruntime 1.32.0", "threads": 2},
        },
        "seconds": 142.6,
        "peak_memory_mb": 1180.0,
        "weight_histograms": [histogram(n, rng) for n in ("conv1", "layer2.0.conv1", "fc")],
    }


def picture(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(data, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
