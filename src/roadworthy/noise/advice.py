"""What a sweep found, in plain words."""

from collections.abc import Sequence

from roadworthy.noise.study import AS_BASE, Row, Rung

INSTEAD = {
    "decode": "Serve with the decoder of training",
    "resize": "Serve with the resizer of training",
    "geometry": "Serve with the geometry of training",
    "colour": "Serve with the colour path of training",
    "normalise": "Serve with the mean and standard deviation of training",
    "casing": "Serve with the casing of training",
    "tokenizer": "Serve with the tokenizer of training",
    "truncation": "Cut long texts where training cut them",
    "length": "Keep as many tokens as in training",
    "padding": "Pad on the side of training",
    "model": "Check pooling and upsampling of the exported model",
    "runtime": "Check the runtime's precision",
    "post": "Finish answers as in training",
}


def advice(
    rows: Sequence[Row], rungs: Sequence[Rung], metric: str, count: int, things: str = "images"
) -> str:
    """A paragraph: the worst option, how many do nothing, what all together cost."""
    inputs = "tokens" if things == "texts" else things
    measured = [row for row in rows if row.loss is not None and row.member_of == row.option]
    felt = sorted(
        (row for row in measured if row.loss and row.loss.low > 0),
        key=lambda row: -(row.loss.value if row.loss else 0.0),
    )
    if not measured:
        return "No change was measured."
    if not felt:
        return (
            f"No single change of {len(measured)} measured costs this model anything that "
            f"{count} {things} can show."
        )
    sentences = [
        f"{INSTEAD[row.stage]}: {row.option} costs {_points(row)} of {metric}."
        for row in _one_per_stage(felt)[:3]
    ]
    calm = len(measured) - len(felt)
    same = sum(row.member_of == AS_BASE for row in rows)
    sentences.append(
        f"Of {len(measured)} different changes {calm} have no measurable cost on {count} {things}"
        + (f"; {same} more options make the very {inputs} of training." if same else ".")
    )
    if len(rungs) > 1:
        sentences.append(
            f"The worst of each stage together cost {rungs[-1].loss.value:.1f} points, "
            f"{sum(rung.alone for rung in rungs):.1f} added up one by one."
        )
    if metric == "RMSE":
        sentences.append("A point is a centimetre of RMSE.")
    return " ".join(sentences)


def _one_per_stage(rows: Sequence[Row]) -> list[Row]:
    first = {row.stage: row for row in reversed(rows)}
    return [row for row in rows if first[row.stage] is row]


def _points(row: Row) -> str:
    assert row.loss is not None
    return f"{row.loss.value:.1f} points ({row.loss.low:.1f} to {row.loss.high:.1f})"
