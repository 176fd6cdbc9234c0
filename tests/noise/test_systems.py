from dataclasses import replace

import pytest

from roadworthy.core.images import IMAGENET
from roadworthy.core.texts import TextInput
from roadworthy.errors import BadInput
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

TEXT = System(TextInput("here"))
OTHER_TEXT = System(
    TextInput("there", "slow", "lower", "left", "left", 16),
    model="ceil-mode",
    runtime="openvino-f32",
    post="half-softmax",
)
PAIRS = [(System(IMAGENET), OTHER), (TEXT, OTHER_TEXT)]


@pytest.mark.parametrize(("base", "other"), PAIRS)
def test_a_system_is_the_sum_of_its_stages(base: System, other: System) -> None:
    system = base
    for stage in STAGES:
        system = system.with_part(stage, other)
    assert system == other


@pytest.mark.parametrize(("base", "other"), PAIRS)
@pytest.mark.parametrize("stage", STAGES)
def test_one_exchanged_stage_is_the_one_that_differs(stage, base: System, other: System) -> None:
    wanted = (stage,) if stage in base.stages else ()
    assert differing(base, base.with_part(stage, other)) == wanted
    assert base.with_part(stage, base) == base


def test_a_text_is_no_image() -> None:
    assert System(IMAGENET).image == IMAGENET
    with pytest.raises(BadInput, match="reads texts"):
        _ = TEXT.image


def test_plain_values_name_what_is_not_as_trained() -> None:
    assert System(IMAGENET).to_dict() == IMAGENET.to_dict()
    assert OTHER.to_dict()["runtime"] == "openvino-f32"
