"""What a config's network is made of, before there are data."""

import pytest

from tests.tiny import tiny_config
from yolojax import sizing


def test_a_classifier_has_the_strides_of_its_stages():
    settings = tiny_config(
        image_size=(16, 16),
        model={"name": "cnn5", "num_classes": 10},
        loss={"name": "cross_entropy"},
        augment__policy=(),
    )
    lines = sizing.describe_model(settings).splitlines()
    sizes = {line.split()[0]: line.split()[1] for line in lines if "/" in line}
    # 3x3 kernels with bias, and a scale and an offset of the normalisation
    assert sizes["backbone/block0"] == f"{9 * 3 * 32 + 32 + 2 * 32}"
    assert sizes["backbone/block1"] == f"{9 * 32 * 64 + 64 + 2 * 64:,}"
    assert "strides 2, 4, 8, 10 classes" in lines[-2]
    assert "GFLOP for a picture of 16 x 16 px" in lines[-1]


def test_the_number_of_classes_may_be_that_of_the_data(tmp_path):
    settings = tiny_config(model__num_classes=0)
    assert ", 10 classes" in sizing.describe_model(settings)
    settings["data"]["train"] = {"source": "folder", "root": str(tmp_path / "none")}
    with pytest.raises(ValueError, match="no folder .*\n.*num_classes is 0, so that"):
        sizing.describe_model(settings)
