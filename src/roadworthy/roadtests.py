"""The road tests of several models, one after the other, and their leaderboard."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from roadworthy.core.runs import RunRecord
from roadworthy.errors import BadInput, RoadworthyError
from roadworthy.requests import NoiseRequest
from roadworthy.roadtest import noise_to_dir


def noise_each(requests: Sequence[NoiseRequest], out: Path) -> list[RunRecord]:
    """Road-test one model after the other; of several, a leaderboard is written into `out`.

    Raises:
        RoadworthyError: a model cannot be tested; said when the others are done. BadInput where
            the user can put all such models right.
    """
    from roadworthy.report import write_report

    records: list[RunRecord] = []
    done: list[Path] = []
    faults: dict[str, RoadworthyError] = {}

    with ExitStack() as kept:
        if requests[0].road.workers == "ray":
            from roadworthy.cluster import session

            kept.enter_context(session())
        for request in requests:
            try:
                records.append(noise_to_dir(request))
                done.append(request.out)
            except RoadworthyError as error:
                faults[str(request.model)] = error
    if len(requests) > 1 and done:
        write_report(done, out / "report.html")
    if faults and not done:
        raise next(iter(faults.values()))
    if faults:
        mendable = all(isinstance(error, BadInput) for error in faults.values())
        kind = BadInput if mendable else RoadworthyError
        said = "; ".join(f"{model}: {error}" for model, error in faults.items())
        raise kind(f"{said}; the other {len(done)} of {len(requests)} models are done, in {out}")
    return records
