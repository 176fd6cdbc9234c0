"""roadworthy: takes a trained model to the field and proves that it still works there."""

from importlib import import_module
from typing import Any

_HOMES = {
    "quantize": "roadworthy.journey",
    "QuantizedModel": "roadworthy.journey",
    "load_quantized": "roadworthy.journey",
    "check": "roadworthy.roadtest",
    "RandomPreprocess": "roadworthy.noise.mix",
    "RandomArea": "roadworthy.noise.mix",
    "as_deployed": "roadworthy.noise.deployed",
    "Tent": "roadworthy.noise.tent",
    "MinMax": "roadworthy.compress.methods",
    "Mse": "roadworthy.compress.methods",
    "AdaRound": "roadworthy.compress.methods",
    "BRECQ": "roadworthy.compress.methods",
    "QDrop": "roadworthy.compress.methods",
    "QDropPlus": "roadworthy.compress.methods",
    "OutlierSuppression": "roadworthy.compress.methods",
    "OutlierSuppressionPlus": "roadworthy.compress.methods",
    "SmoothQuant": "roadworthy.compress.methods",
    "Auto": "roadworthy.compress.methods",
    "GammaMigration": "roadworthy.compress.suppress",
    "Smooth": "roadworthy.compress.suppress",
    "ShiftScale": "roadworthy.compress.suppress",
    "at_effort": "roadworthy.compress.methods",
    "load_model": "roadworthy.core.models",
    "LoadedModel": "roadworthy.core.models",
    "load_data": "roadworthy.core.data",
    "Dataset": "roadworthy.core.data",
    "batches": "roadworthy.core.batches",
    "Preprocess": "roadworthy.core.images",
    "Predictor": "roadworthy.core.predict",
    "TorchPredictor": "roadworthy.core.predict",
    "predict": "roadworthy.core.predict",
    "accuracy": "roadworthy.core.metrics",
    "agreement": "roadworthy.core.metrics",
    "RunRecord": "roadworthy.core.runs",
    "export_onnx": "roadworthy.deploy.export",
    "OrtPredictor": "roadworthy.deploy.runtimes",
    "write_report": "roadworthy.report",
    "RoadworthyError": "roadworthy.errors",
    "BadInput": "roadworthy.errors",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Public names, imported when first asked for: `import roadworthy` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'roadworthy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
