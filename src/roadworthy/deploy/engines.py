"""MNN, ncnn and LiteRT from an ONNX file on, as a child process opens them.

Each converts a copy of the file by its own tool first: onnx2tf writes over the file that it reads,
pnnx puts ten others beside it. Nothing here may import torch: the process starts in a third of a
second without it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
"""``[b c h w]``."""
Run = Callable[[Images], list[NDArray[np.float32]]]
Precision = Literal["f32", "f16", "default"]


def mnn(
    path: str, names: tuple[str, list[str]], size: list[int], threads: int, precision: Precision
) -> tuple[Run, dict[str, Any]]:
    """MNN in high precision, or in its normal one, which halves where the CPU can.

    Args:
        path: ONNX file.
        names: of its input and of its outputs.
        size: channels, height and width of an image.
        threads: to compute on.
        precision: float32, or what the library does by itself.
    """
    expr: Any = import_module("MNN.expr")
    # The command of the same tool reports to its makers; the function behind it does not.
    convert: Any = import_module("_tools").mnnconvert
    mode = "High" if precision == "f32" else "Normal"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.mnn"
        source = _copied(path, folder)
        convert(["", "-f", "ONNX", "--modelFile", source, "--MNNModel", str(file)])
        if not file.is_file():
            raise RuntimeError("MNN's converter wrote no model")
        net = import_module("MNN.nn").load_module_from_file(
            str(file),
            [names[0]],
            names[1],
            backend=expr.Backend.CPU,
            precision_mode=getattr(expr.PrecisionMode, mode),
            thread_num=threads,
        )

    def run(images: Images) -> list[NDArray[np.float32]]:
        x = expr.placeholder(list(images.shape), expr.NCHW)
        x.write(images)
        found = net.forward([x])
        if len(found) != len(names[1]):
            raise RuntimeError("MNN cannot compute the outputs")
        return [np.array(expr.convert(y, expr.NCHW).read(), np.float32) for y in found]

    return run, {"precision": "float32", "precision_mode": mode.lower()}


def ncnn(
    path: str, names: tuple[str, list[str]], size: list[int], threads: int, precision: Precision
) -> tuple[Run, dict[str, Any]]:
    """ncnn in float32, or as pnnx and ncnn do it: halved weights, halved maps where the CPU can.

    Arguments as of `mnn`. There is no batch in ncnn: images run one by one.
    """
    net: Any = import_module("ncnn").Net()
    net.opt.num_threads = threads
    halved = precision == "default"
    flags = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
    for flag in () if halved else flags:
        setattr(net.opt, flag, False)
    with TemporaryDirectory() as folder:
        shape = ",".join(map(str, [1, *size]))
        arguments = [_copied(path, folder), f"inputshape=[{shape}]f32", f"fp16={int(halved)}"]
        _told([str(_pnnx()), *arguments], folder)
        stem = str(Path(folder) / "model.ncnn")
        if net.load_param(f"{stem}.param") or net.load_model(f"{stem}.bin"):
            raise RuntimeError("ncnn cannot load what pnnx made of the file")
    inputs, outputs = net.input_names(), sorted(net.output_names(), key=lambda o: int(o[3:]))
    mat: Any = import_module("ncnn").Mat

    def one(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        extractor = net.create_extractor()
        # A copy: in the array's own memory ReLU works in place, and reading its answer crashes.
        extractor.input(inputs[0], mat(np.ascontiguousarray(image)).clone())
        found = [extractor.extract(output) for output in outputs]
        if any(code for code, _ in found):
            raise RuntimeError("ncnn cannot compute an output")
        return [np.array(y, np.float32)[None] for _, y in found]

    own = {flag: bool(getattr(net.opt, flag)) for flag in flags}
    return _one_by_one(one), {"precision": "float16" if halved else "float32", **own}


def litert(
    path: str, names: tuple[str, list[str]], size: list[int], threads: int, precision: Precision
) -> tuple[Run, dict[str, Any]]:
    """LiteRT with XNNPACK, on the float16 file of onnx2tf for ``f16``, else on its float32 one.

    Arguments as of `mnn`. The converter is a command of its own, since no environment holds both
    it and this package.
    """
    kind = "float16" if precision == "f16" else "float32"
    library: Any = import_module("ai_edge_litert.interpreter")
    command = shutil.which("onnx2tf")
    if command is None:
        raise RuntimeError("onnx2tf is not on the PATH")
    # What it calls in its turn lies where it lies itself.
    path_of_tools = f"{Path(command).resolve().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with TemporaryDirectory() as folder:
        shape = f"{names[0]}:{','.join(map(str, [1, *size]))}"
        arguments = ["-i", _copied(path, folder), "-o", folder, "-ois", shape, "-kat", names[0]]
        _told([command, *arguments], folder, {**os.environ, "PATH": path_of_tools})
        file = next(Path(folder).glob(f"*_{kind}.tflite"))
        net = library.Interpreter(model_content=file.read_bytes(), num_threads=threads)
    net.allocate_tensors()
    given, *_ = net.get_input_details()
    places = [detail["index"] for detail in net.get_output_details()]

    def one(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        fits = image.shape == tuple(given["shape"][1:])
        laid = image if fits else image.transpose(1, 2, 0)
        net.set_tensor(given["index"], np.ascontiguousarray(laid[None], given["dtype"]))
        net.invoke()
        return [np.array(net.get_tensor(place), np.float32) for place in places]

    return _one_by_one(one), {"precision": kind, "delegate": "XNNPACK"}


def _one_by_one(one: Run) -> Run:
    def run(images: Images) -> list[NDArray[np.float32]]:
        answers = [one(image) for image in images]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    return run


def _copied(path: str, folder: str) -> str:
    return str(shutil.copyfile(path, Path(folder) / "model.onnx"))


def _told(command: list[str], folder: str, environment: dict[str, str] | None = None) -> None:
    """Run a converter; what it prints goes where this process prints."""
    done = subprocess.run(command, cwd=folder, stdout=2, env=environment, check=False)
    if done.returncode:
        name = Path(command[0]).stem
        raise RuntimeError(f"{name} ended with exit code {done.returncode}")


def _pnnx() -> Path:
    """The program inside the package, which itself would import torch."""
    spec = find_spec("pnnx")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("pnnx is not installed")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder / ("pnnx.exe" if os.name == "nt" else "pnnx")
