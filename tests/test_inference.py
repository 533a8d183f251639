import pytest

from tests.tiny import tiny_config
from yolojax import class_file, inference, settings
from yolojax.engine import checkpoint
from yolojax.models.detector import build_model


def test_other_classes_than_the_datas_are_shown_with_what_to_do(tmp_path):
    settings.write_config(tiny_config(), tmp_path)
    names = [f"thing{i}" for i in range(10)]
    class_file.write_classes(names, range(10), tmp_path)
    checkpoint.save_weights(tmp_path, build_model(**tiny_config()["model"]).init(0))
    with pytest.raises(ValueError) as caught:
        inference.evaluate_detector(inference.load(tmp_path), tmp_path / "out")
    digits, things = ", ".join("01234567"), ", ".join(names[:8])
    assert str(caught.value) == (
        f"the data have the classes {digits}, ... (10 in all), the network knows "
        f"{things}, ... (10 in all). Evaluate on the data that it was trained on, or "
        f"train from these weights: --config.init.weights={tmp_path}"
    )
