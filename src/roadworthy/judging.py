"""What a quantized model is worth on data that nothing was learned from."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, fx

from roadworthy.core.answers import dense_shape
from roadworthy.core.batches import batches, join
from roadworthy.core.data import Dataset, check_labels, load_data
from roadworthy.core.embeddings import cosines
from roadworthy.core.extract import whole
from roadworthy.core.inputs import Stages
from roadworthy.core.metrics import Difference, correct, paired_bootstrap
from roadworthy.core.models import LoadedModel
from roadworthy.core.padding import choices, in_batches
from roadworthy.core.predict import TorchPredictor
from roadworthy.core.scores import correlations, counts, score
from roadworthy.core.spans import passages
from roadworthy.core.texts import TextInput
from roadworthy.deploy.integer import IntegerPredictor
from roadworthy.deploy.runtimes import OrtPredictor
from roadworthy.judging_answers import compared, judged_by_answers, references
from roadworthy.judging_dense import Seen, judged, seeing_set
from roadworthy.judging_spans import asking_set
from roadworthy.judging_spans import compared as spans_compared
from roadworthy.requests import QuantizeRequest


def judging_set(
    spec: str | None, graph: fx.GraphModule, model: LoadedModel
) -> Dataset | Seen | None:
    """The evaluation data, known to fit the model before anything is learned.

    Embeddings and texts are compared with the float model's where nobody tells them.
    """
    if model.answers is not None:
        return None if spec is None else judged_by_answers(spec)
    if model.says == "spans":
        return None if spec is None else asking_set(spec)
    placed = dense_shape(graph)
    if spec is None:
        return None
    if placed is not None:
        height, width = whole(graph).entry.meta["val"].shape[-2:]
        return seeing_set(spec, placed, (int(height), int(width)))
    if model.embeds:
        return load_data(spec)
    dataset = load_data(spec).labelled()
    check_labels(dataset, int(whole(graph).exit.meta["val"].shape[1]))
    return dataset


def judge(
    request: QuantizeRequest,
    dataset: Dataset | Seen | None,
    loaded: LoadedModel,
    module: fx.GraphModule,
    preprocess: Stages,
    out: Path,
) -> dict[str, Any]:
    """Accuracy of the float, the simulated and the deployed model on the evaluation data; of
    embeddings their cosine to those of the float model, which needs no labels; the metric of the
    data where these are no classes."""
    if dataset is None:
        return {"data": {}}
    low = {"simulated": IntegerPredictor(module), "deployed": OrtPredictor(out / "model.onnx")}
    if isinstance(dataset, Seen):
        found, skipped = judged(request, dataset, preprocess, loaded.module, low)
        return found | {"data": {"eval": identity(dataset.dataset, skipped)}}
    parts = batches(dataset, preprocess, 64, request.data.skip_bad, "judging")
    inputs, labels = join(parts)
    answering, texts = loaded.answers, inputs
    if answering is not None:
        inputs = answering.generated(texts)
    forms = {"float": TorchPredictor(loaded.module, "float"), **low}
    answers = {name: in_batches(form, inputs) for name, form in forms.items()}
    known = {"data": {"eval": identity(dataset, len(parts.skipped))}}
    if loaded.embeds:
        return {n: _closeness(answers["float"], a) for n, a in answers.items()} | known
    fp, shipped = answers["float"], answers["deployed"]
    found: dict[str, Any] = {"against_float": against_float(fp, shipped)}
    if answering is not None and isinstance(preprocess, TextInput):
        wanted = references(dataset, parts.skipped)
        spoken = {name: forms[name] for name in ("float", "deployed")}
        found |= compared(spoken, answering.bounds, preprocess, texts, wanted, request.seed)
    elif loaded.says == "spans" and isinstance(preprocess, TextInput):
        asked = passages(dataset, preprocess, parts.skipped)
        chosen = {name: choices(a, texts) for name, a in answers.items()}
        found |= spans_compared(chosen, asked, request.seed)
        found["against_float"]["agreement"] = found.pop("same_answers")
    else:
        scored = partial(score, told=labels, texts=dataset.task == "text", seed=request.seed)
        found |= {name: scored(a).to_dict() for name, a in answers.items()}
        found["change"] = _change(fp, shipped, labels, request.seed)._asdict()
    return found | known


def against_float(fp: Float[Tensor, "n k"], low: Float[Tensor, "n k"]) -> dict[str, float]:
    """Share of equal classes, and mean squared error of the logits over their variance: finer than
    accuracy, which hides answers that become right by chance. One number has no class, but a
    correlation.

    >>> import torch
    >>> fp = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    >>> against_float(fp, fp / 2)
    {'agreement': 1.0, 'logit_error': 0.25}
    """
    spread = (fp - fp.mean(0)).square().mean().clamp(min=1e-30)
    error = {"logit_error": float((fp - low).square().mean() / spread)}
    if fp.shape[1] == 1:
        once = counts(len(fp), 0, 0)
        return {"correlation": float(correlations(low[:, 0], fp[:, 0], once)[0]), **error}
    return {"agreement": float((fp.argmax(1) == low.argmax(1)).double().mean()), **error}


def _closeness(fp: Float[Tensor, "n k"], low: Float[Tensor, "n k"]) -> dict[str, Any]:
    """Mean cosine to the float model's embeddings, and that of the worst hundredth."""
    found = cosines(fp, low)
    mean, tail = float(found.mean()), float(found.quantile(0.01))
    return {"metric": "cosine", "value": mean, "percentile_1": tail}


def _change(
    fp: Float[Tensor, "n k"], low: Float[Tensor, "n k"], told: Tensor, seed: int
) -> Difference:
    """What is won of accuracy, or of the correlation where one number is answered."""
    if fp.shape[1] > 1:
        return paired_bootstrap(correct(fp, told), correct(low, told), seed)
    counted = counts(len(told), seed)
    gain = correlations(low[:, 0], told, counted) - correlations(fp[:, 0], told, counted)
    return Difference(float(gain[0]), *map(float, np.quantile(gain[1:], [0.025, 0.975])))


def identity(dataset: Dataset, skipped: int) -> dict[str, Any]:
    """What a record says of data."""
    return {
        "spec": dataset.spec,
        "sha256": dataset.sha256,
        "n": len(dataset) - skipped,
        "skipped": skipped,
    }
