from dataclasses import replace

import pytest

from roadworthy.core.images import IMAGENET
from roadworthy.noise.systems import STAGES, System, differing

OTHER = System(
    replace(
        IMAGENET,
        decode="opencv",
        resize="opencv-linear",
        geometry="squash",
        colour="bgr",
        mean=(0.5, 0.5, 0.5),
    ),
    model="ceil-mode",
    runtime="openvino-f32",
    post="half-softmax",
)


def test_a_system_is_the_sum_of_its_stages() -> None:
    system = System(IMAGENET)
    for stage in STAGES:
        system = system.with_part(stage, OTHER)
    assert system == OTHER


@pytest.mark.parametrize("stage", STAGES)
def test_one_exchanged_stage_is_the_one_that_differs(stage) -> None:
    base = System(IMAGENET)
    assert differing(base, base.with_part(stage, OTHER)) == (stage,)
    assert base.with_part(stage, base) == base


def test_plain_values_name_what_is_not_as_trained() -> None:
    assert System(IMAGENET).to_dict() == IMAGENET.to_dict()
    assert OTHER.to_dict()["runtime"] == "openvino-f32"
