import io
import sys

import cv2
import numpy as np
import pytest

from tests.data.classified import classes_of
from yolojax.data import check, pipeline
from yolojax.data.decode import decode_image
from yolojax.data.sources import make_source

NEEDS = "needs the extra tfds (tensorflow-datasets), which is not installed"


def picture(number):
    """A file with an encoded picture, whose red says its number."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[..., 2] = 20 * number
    return io.BytesIO(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets", reason=NEEDS)
    folder = tmp_path_factory.mktemp("tfds")

    class Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        labels = tfds.features.ClassLabel(names=["cat", "dog"])

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": self.labels,
                "other": tfds.features.Text(),
            }
            kinds = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=kinds)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(5), "test": self._few()}

        def _few(self):
            return self._generate_examples(3)

        def _generate_examples(self, count):
            for number in range(count):
                file = picture(number) if number != 4 else io.BytesIO(b"\x89PNG\r\n")
                label = self.label_of(number)
                yield number, {"image": file, "label": label, "other": "text"}

        def label_of(self, number):
            return number % 2

    class Tiny(Base):
        pass

    class Several(Base):
        labels = tfds.features.Sequence(Base.labels)

        def label_of(self, number):
            return [[], [0], [1, 0], [1], [0]][number]

    for kind in (Tiny, Several):
        kind(data_dir=str(folder)).download_and_prepare(file_format="array_record")
    return str(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_small_data_set_is_read_without_tensorflow(data_dir):
    source = make_source("tfds", name="tiny", data_dir=data_dir)
    assert "tensorflow" not in sys.modules
    assert source.class_names == ("cat", "dog") and source.multi_label is False
    assert len(source) == 4 and source.report.counts == {"unreadable picture": 1}
    # Its records are stored in another order; red tells which one it is.
    reds = [decode_image(source[i].image)[0, 0, 0] for i in range(4)]
    assert sorted(reds) == [0, 20, 40, 60]
    assert classes_of(source) == [(("cat", "dog")[red // 20 % 2],) for red in reds]
    np.testing.assert_array_equal(source[0].boxes, np.float32([[0, 0, 12, 8]]))
    report, keep = check.scan(source)
    assert keep.tolist() == [0, 1, 2, 3] and not report.counts
    batches = pipeline.make_eval_batches(
        source, keep, image_size=(8, 16), batch_size=4, num_threads=2
    )
    (batch,) = batches
    assert batch.image[:, 4, 8, 0].tolist() == reds
    part = make_source("tfds", name="tiny", data_dir=data_dir, split="test[:67%]")
    assert len(part) == 2
    several = make_source("tfds", name="several:1.0.0", data_dir=data_dir)
    assert several.multi_label
    assert sorted(classes_of(several)) == [(), ("cat",), ("cat", "dog"), ("dog",)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "no_such_set"}, "tfds data set 'no_such_set': "),
        ({"split": "val"}, "'tiny' has no split 'val'; it has (train, test|test, tr)"),
        ({"label": "lable"}, "no class feature .* Did you mean 'label'"),
        ({"image": "label"}, "no picture feature .*'tiny' named 'label'"),
        ({"name": "mnist"}, "'mnist' is not in .*; set data_dir, or download=True"),
    ],
)
def test_data_sets_that_cannot_be_used(data_dir, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_source("tfds", **{"name": "tiny", "data_dir": data_dir, **arguments})


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'yolojax\[tfds\]'") as caught:
        make_source("tfds", name="mnist")
    assert "\n" not in str(caught.value)
