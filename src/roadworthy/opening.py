"""What a model argument names, opened: a spec, ``onnx:FILE`` or a folder that `quantize` wrote."""

from pathlib import Path
from typing import Any, get_args

from roadworthy.core.generation import Bounds
from roadworthy.core.hf import Words, says_words
from roadworthy.core.inputs import Stages, preprocess_from, stages_from
from roadworthy.core.models import check_onnx, check_says, load_model
from roadworthy.core.predict import Predictor, TorchPredictor
from roadworthy.core.runs import RunRecord
from roadworthy.core.specs import HfSpec, onnx_file, parse_model_spec
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadModel


def answered_by(model: str) -> Words | None:
    """Whether a model answers by texts or passages, by what lies beside it; it is not loaded."""
    path = onnx_file(model)
    if path is not None:
        told = _told_beside(path).get("says")
        return told if told in get_args(Words) else None
    spec = parse_model_spec(model)
    return says_words(spec.name) if isinstance(spec, HfSpec) else None


def open_predictor(
    model: str, preprocess: str | None, device: str = "cpu"
) -> tuple[Predictor, Stages]:
    """A predictor and its preprocessing.

    Raises:
        BadModel: it cannot be loaded, or labels cannot judge what it answers.
    """
    path = onnx_file(model)
    if path is not None:
        chosen = preprocess_from(preprocess, recorded_preprocess(check_onnx(path)))
        return _runtime(path), chosen
    loaded = load_model(model).scoring()
    return TorchPredictor(loaded.module, model, device), loaded.chosen(preprocess)


def open_finder(
    model: str, preprocess: str | None, device: str = "cpu"
) -> tuple[Predictor, TextInput]:
    """A predictor that finds answers in a context, and its preprocessing."""
    path = onnx_file(model)
    if path is None:
        loaded = load_model(model)
        predictor, chosen = TorchPredictor(loaded.module, model, device), loaded.chosen(preprocess)
    else:
        predictor = _runtime(path)
        chosen = preprocess_from(preprocess, _stages(_told_beside(path)))
    assert isinstance(chosen, TextInput)
    return predictor, chosen


def open_writer(
    model: str, preprocess: str | None, device: str = "cpu"
) -> tuple[Predictor, TextInput, Bounds]:
    """A predictor that answers texts by texts, its preprocessing, where its answers begin and end.

    Raises:
        BadModel: it cannot be loaded, or its folder does not tell the latter.
    """
    path = onnx_file(model)
    if path is None:
        loaded = load_model(model)
        predictor, chosen = TorchPredictor(loaded.module, model, device), loaded.chosen(preprocess)
        bounds = loaded.answers.bounds if loaded.answers else None
    else:
        told = _told_beside(path)
        predictor, chosen = _runtime(path), preprocess_from(preprocess, _stages(told))
        bounds = Bounds.from_dict(told["answers"]) if "answers" in told else None
    if bounds is None or not isinstance(chosen, TextInput):
        raise BadModel(f"{model} does not tell how its answers begin and end; quantize it again")
    return predictor, chosen, bounds


def recorded_preprocess(path: Path) -> Stages | None:
    """The preprocessing that `quantize` recorded beside a model.onnx; BadModel where labels cannot
    judge what that answers."""
    told = _told_beside(path)
    check_says(told.get("says", "scores"), path.parent)
    return _stages(told)


def _runtime(path: Path) -> Predictor:
    from roadworthy.deploy.runtimes import OrtPredictor

    return OrtPredictor(check_onnx(path))


def _told_beside(path: Path) -> dict[str, Any]:
    """What `quantize` recorded of a model.onnx that it wrote."""
    if not (path.parent / "run.json").is_file():
        return {}
    config: object = RunRecord.load(path.parent).config
    return config if isinstance(config, dict) else {}


def _stages(told: dict[str, Any]) -> Stages | None:
    stages = told.get("preprocess")
    return stages_from(stages) if isinstance(stages, dict) else None
