"""W8A8 file against its own fp32 file on onnxruntime, timed in turns in one process.

    OMP_NUM_THREADS=1 python benchmarks/deploy_speed.py [--repeats 30] [--threads 1]

Weights are random: only shapes matter for speed. The processor is printed with the ratios, since
the integer kernels of x86 depend on it (AVX2 alone, or VNNI).
"""

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from roadworthy.compress.methods import MinMax
from roadworthy.compress.place import Widths
from roadworthy.compress.quantize import Plan, compress
from roadworthy.core.backends import ONNXRUNTIME_CPU
from roadworthy.core.capture import capture
from roadworthy.core.predict import TorchPredictor
from roadworthy.deploy.bias import snap_biases
from roadworthy.deploy.export import export_onnx
from roadworthy.deploy.latency import latencies
from roadworthy.deploy.parity import parity
from roadworthy.deploy.runtimes import OpenVinoPredictor, OrtPredictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bits", type=int, default=8)
    arguments = parser.parse_args()
    print(processor(), f"threads {arguments.threads}", sep=", ")
    for build in (resnet18, mobilenet_v2):
        compare(build.__name__, settled(build()), arguments)


def settled(module: nn.Module) -> nn.Module:
    """Random weights with BatchNorm statistics that fit them."""
    torch.manual_seed(0)
    with torch.no_grad():
        module.train()(torch.randn(8, 3, 224, 224))
    return module.eval()


def compare(name: str, module: nn.Module, arguments: argparse.Namespace) -> None:
    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    bits = arguments.bits
    plan = Plan(MinMax(bits, bits), ONNXRUNTIME_CPU, Widths(bits, bits))
    quantized = compress(capture(module, images), images, plan).module
    snap_biases(quantized)
    with TemporaryDirectory() as folder:
        files = {"fp32": Path(folder, "fp32.onnx"), "quantized": Path(folder, "quantized.onnx")}
        export_onnx(module, images, files["fp32"])
        export_onnx(quantized, images, files["quantized"])
        runners = {
            f"{runtime} {kind}": make(path, arguments.threads)
            for runtime, make in (("onnxruntime", OrtPredictor), ("openvino", OpenVinoPredictor))
            for kind, path in files.items()
        }
        found = parity(TorchPredictor(quantized), runners["onnxruntime quantized"], [images])
        times = latencies(runners, images[:1], arguments.repeats)
        sizes = {kind: path.stat().st_size / 1e6 for kind, path in files.items()}
    print(f"{name}: {sizes['fp32']:.1f} MB -> {sizes['quantized']:.1f} MB, {found}")
    for runtime in ("onnxruntime", "openvino"):
        slow, fast = (times[f"{runtime} {kind}"]["median_ms"] for kind in files)
        ratio = f"{slow / fast:.2f}x"
        print(f"  {runtime}: fp32 {slow:.2f} ms, w{bits}a{bits} {fast:.2f} ms, {ratio}")


def processor() -> str:
    """Name of the processor and whether it has VNNI."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    vnni = "with VNNI" if "vnni" in text else "without VNNI"
    return f"{name.group(1) if name else 'unknown processor'} ({vnni})"


if __name__ == "__main__":
    main()
