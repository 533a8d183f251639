import pytest

from yolojax.models.specs import YOLOV5, CspSpec


def test_widths_round_up_to_a_multiple_of_eight():
    spec = CspSpec(depth=1.0, width=0.13)
    assert spec.stage_features == (16, 24, 40, 72, 136)


@pytest.mark.parametrize(
    "name, blocks",
    [
        ("yolov5n", (1, 2, 3, 1)),
        ("yolov5m", (2, 4, 6, 2)),
        ("yolov5l", (3, 6, 9, 3)),
        ("yolov5x", (4, 8, 12, 4)),
        ("yolov5x6", (4, 8, 12, 4, 4)),
    ],
)
def test_depths_are_the_published_ones(name, blocks):
    assert YOLOV5[name].stage_blocks == blocks
    assert YOLOV5[name].neck_stage_blocks == blocks[0]


def test_no_stage_loses_its_last_block():
    spec = CspSpec(depth=0.01, width=1.0)
    assert spec.stage_blocks == (1, 1, 1, 1)


def test_strides_follow_from_the_levels():
    assert YOLOV5["yolov5n"].strides == (8, 16, 32)
    assert YOLOV5["yolov5n6"].strides == (8, 16, 32, 64)
