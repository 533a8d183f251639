import struct

import numpy as np
import pytest

from tests.darknet import CFG, CLASSES
from tests.shared import shared
from tests.tiny import tiny_config
from yolojax import converting, inference, sizing
from yolojax.engine.warm_start import first_variables
from yolojax.models.cfg import parse_cfg, read_cfg
from yolojax.models.detector import build_model
from yolojax.trees import flatten, unflatten
from yolojax.weights.darknet import (
    Header,
    find_pair,
    names_beside,
    read_darknet,
    write_darknet,
)
from yolojax.weights.published import missing_names, read_published, write_published

HEADER = struct.pack("<3iQ", 0, 2, 5, 1000)
# Numbers of each convolution of CFG: 0, 1, 5, 9 and 14.
COUNTS = (4 * 4 + 4 * 27, 4 * 4 + 16, 8 + 8 * 2 * 9, 14 + 8 * 14, 14 + 12 * 14)
TOTAL = sum(COUNTS)


def tiny(num_classes=2):
    return build_model("darknet", num_classes=num_classes, description=CFG)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def variables(model):
    return model.init(3)


def same_bits(one, two):
    one, two = flatten(one), flatten(two)
    assert set(one) == set(two)
    for path, array in one.items():
        assert array.tobytes() == two[path].tobytes(), path


def counted(tmp_path, header=HEADER, count=TOTAL, name="x.weights"):
    """A file whose numbers are 0, 1, 2, ..."""
    path = tmp_path / name
    path.write_bytes(header + np.arange(count, dtype="<f4").tobytes())
    return path


@pytest.fixture
def pair(tmp_path, model, variables):
    """Weights with their description beside."""
    write_darknet(tmp_path / "x.weights", model, variables)
    (tmp_path / "x.cfg").write_text(CFG)
    return tmp_path / "x.weights"


def test_numbers_are_in_the_order_of_the_description(tmp_path, model):
    found = flatten(read_darknet(counted(tmp_path), model).variables)
    norm, statistics = "params/body/layer0/norm", "batch_stats/body/layer0/norm"
    assert found[f"{norm}/bias"].tolist() == [0, 1, 2, 3]
    assert found[f"{norm}/scale"].tolist() == [4, 5, 6, 7]
    assert found[f"{statistics}/mean"].tolist() == [8, 9, 10, 11]
    assert found[f"{statistics}/var"].tolist() == [12, 13, 14, 15]
    # [out, in, height, width] in the file: the last index is the fastest.
    kernel = found["params/body/layer0/conv/kernel"]
    assert kernel.shape == (3, 3, 3, 4)
    assert kernel[0, :, 0, 0].tolist() == [16, 17, 18]
    assert kernel[:, 0, 0, 0].tolist() == [16, 19, 22]
    assert kernel[0, 0, :, 0].tolist() == [16, 25, 34]
    assert kernel[0, 0, 0, :].tolist() == [16, 43, 70, 97]
    # A 1x1 kernel is a matrix [in, out]; the file has [out, in].
    start = COUNTS[0] + 16
    kernel = found["params/body/layer1/conv/kernel"]
    assert kernel[:, 0].tolist() == list(range(start, start + 4))
    # Without normalisation there are shifts and a kernel, here of two groups.
    start = sum(COUNTS[:2])
    assert found["params/body/layer5/conv/bias"][0] == start
    assert found["params/body/layer5/conv/kernel"].shape == (3, 3, 2, 8)
    start = sum(COUNTS[:3])
    assert found["params/head/layer9/bias"].tolist() == list(range(start, start + 14))
    assert found["params/head/layer9/kernel"][:2, 0].tolist() == [
        start + 14,
        start + 15,
    ]
    assert found["params/head/layer14/kernel"][-1, -1] == TOTAL - 1


def test_written_and_read_again_every_bit_is_the_same(tmp_path, model, variables):
    write_darknet(tmp_path / "one.weights", model, variables, Header(seen=77))
    found = read_darknet(tmp_path / "one.weights", model)
    same_bits(found.variables, variables)
    assert found.header == Header((0, 2, 5), 77)
    assert (found.ends, found.not_finite) == ("", 0)
    write_darknet(tmp_path / "two.weights", model, found.variables, found.header)
    one, two = (tmp_path / f"{name}.weights" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size == 20 + 4 * TOTAL


def test_the_published_file_is_written_again_byte_for_byte(tmp_path):
    path = shared("weights", "yolo-fastest-1.1.weights")
    found = read_published(path)
    header = found.contents.description["header"]
    assert header == Header((0, 2, 5), 14_231_680)
    write_darknet(tmp_path / "x.weights", found.model, found.variables, header)
    assert (tmp_path / "x.weights").read_bytes() == path.read_bytes()
    assert found.settings["image_size"] == (320, 320)
    assert found.class_names[79] == "class79"


@pytest.mark.parametrize(
    "version, seen_bytes",
    [((0, 1, 0), 4), ((0, 2, 0), 8), ((0, 2, 5), 8), ((1, 0, 0), 8), ((1001, 2, 0), 4)],
)
def test_headers_of_every_version(tmp_path, model, version, seen_bytes):
    seen = (12345).to_bytes(seen_bytes, "little")
    path = counted(tmp_path, struct.pack("<3i", *version) + seen)
    found = read_darknet(path, model)
    assert found.header == Header(version, 12345)
    assert found.header.packed() == path.read_bytes()[: 12 + seen_bytes]
    first = flatten(found.variables)["params/body/layer0/norm/bias"]
    assert first.tolist() == [0, 1, 2, 3]


def test_numbers_that_are_none_are_counted_and_kept(tmp_path, model, variables):
    changed = dict(flatten(variables))
    bad = np.array([np.nan, np.inf, 1, -np.inf], np.float32)
    changed["params/body/layer0/norm/bias"] = bad
    write_darknet(tmp_path / "x.weights", model, unflatten(changed))
    (tmp_path / "x.cfg").write_text(CFG)
    found = read_darknet(tmp_path / "x.weights", model)
    assert found.not_finite == 3
    same_bits(found.variables, unflatten(changed))
    table = converting.convert(tmp_path / "x.weights", tmp_path / "run")
    assert "not finite  3 numbers" in table


def test_the_first_part_of_a_network_starts_a_training(tmp_path, model):
    path = counted(tmp_path, count=sum(COUNTS[:3]), name="x.conv.5")
    found = read_darknet(path, model, partial=True)
    assert found.ends == "layer 5"
    assert not any("head" in name for name in flatten(found.variables))
    with pytest.raises(ValueError, match="it ends after layer 5; it has .*init.weigh"):
        read_darknet(path, model)
    start = first_variables(model, seed=0, weights=str(path))
    given, fresh = flatten(start.variables), flatten(model.init(0))
    assert given["params/body/layer0/norm/bias"].tolist() == [0, 1, 2, 3]
    for name in ("bias", "kernel"):
        path_ = f"params/head/layer9/{name}"
        np.testing.assert_array_equal(given[path_], fresh[path_])
    assert "12 of 16 arrays taken, 4 fresh" in start.notes[0]
    assert start.notes[1].endswith(
        "x.conv.5 ends after layer 5; later layers are fresh"
    )
    cut = counted(tmp_path, count=sum(COUNTS[:3]) - 1, name="y.conv.5")
    with pytest.raises(
        ValueError, match="it ends in layer 5 .*143 of 144 numbers of i.*cut off or bel"
    ):
        first_variables(model, seed=0, weights=str(cut))


def test_a_training_starts_from_a_file_with_its_description(pair, model, variables):
    start = first_variables(model, seed=9, weights=str(pair))
    same_bits(start.variables, variables)
    other = first_variables(tiny(5), seed=9, weights=str(pair))
    assert "2 classes in the weights, 5 classes here" in " ".join(other.notes)
    kept = flatten(other.variables)["params/body/layer5/conv/kernel"]
    same = flatten(variables)["params/body/layer5/conv/kernel"]
    np.testing.assert_array_equal(kept, same)


def test_a_converted_file_fits_the_table_of_the_same_network(tmp_path):
    table = build_model("yolov3-tiny", num_classes=1)
    first = table.init(0)
    write_published(tmp_path / "mine.weights", table, first, ["ball"])
    again = read_published(tmp_path / "mine.cfg")
    assert again.arguments["name"] == "darknet"
    assert again.class_names == ("ball",)
    same_bits(again.variables, first)
    start = first_variables(table, seed=5, weights=str(tmp_path / "mine.weights"))
    same_bits(start.variables, first)


def test_the_description_is_found_beside_or_named(pair, tmp_path):
    cfg = tmp_path / "x.cfg"
    assert find_pair(pair) == (pair, cfg)
    assert find_pair(cfg) == (pair, cfg)
    for saved in ("x_final", "x_best", "x_last", "x_10000"):
        path = pair.rename(tmp_path / f"{saved}.weights")
        assert find_pair(path) == (path, cfg)
        pair = path
    other = cfg.rename(tmp_path / "other.cfg")
    assert find_pair(pair, other) == (pair, other)
    assert find_pair(pair, "yolov4") == (pair, "yolov4")
    with pytest.raises(ValueError, match="no description of its network beside it, in"):
        find_pair(pair)
    with pytest.raises(ValueError, match="other.cfg: no weights beside it, in other.w"):
        find_pair(other)
    with pytest.raises(ValueError, match="no description at yolov5n: .*Did you mean"):
        find_pair(pair, "yolov5n")
    with pytest.raises(ValueError, match="no weights at nowhere.weights: there is no"):
        find_pair("nowhere.weights")
    published = pair.rename(tmp_path / "yolov4-tiny.weights")
    assert find_pair(published) == (published, "yolov4-tiny")


def test_class_names_come_from_a_file_with_as_many_lines(tmp_path):
    weights = tmp_path / "x.weights"
    assert names_beside(weights, 2) is None
    (tmp_path / "coco.names").write_text("a\nb\nc\n")
    assert names_beside(weights, 2) is None
    (tmp_path / "voc.names").write_bytes(b"one\r\ntw\xf6 \r\n\r\n")
    assert names_beside(weights, 2) == ("one", "tw\ufffd")
    (tmp_path / "other.names").write_text("x\ny")
    assert names_beside(weights, 2) is None
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert names_beside(weights, 2) == ("cat", "dog")
    (tmp_path / "x.names").write_text("red\nblue\n")
    assert names_beside(weights, 2) == ("red", "blue")
    (tmp_path / "x.names").write_text("red\n")
    assert names_beside(weights, 2) == ("cat", "dog")


def test_convert_both_ways(pair, variables, tmp_path):
    (tmp_path / "x.names").write_text("cat\ndog\n")
    table = converting.convert(pair, tmp_path / "run")
    rows = dict(line.split(maxsplit=1) for line in table.splitlines()[:10])
    assert rows["missing"] == rows["unused"] == rows["mis-shaped"] == "0"
    assert rows["model"] == f"darknet ({tmp_path / 'x.cfg'}, 16 layers)"
    assert rows["classes"] == "2: cat, dog"
    assert rows["darknet"] == "version 0.2.5, trained on 0 pictures"
    assert 'c.loss.name = "yolov4"' in table
    assert "c.loss.arguments = dict(ignore_threshold=.7, match_threshold=1)" in table
    assert "# without a key here: obj_normalizer=1, .4" in table
    assert "c.loss.box = 0.75" in table
    loaded = inference.load(tmp_path / "run")
    same_bits(loaded.variables, variables)
    assert loaded.settings["image_size"] == (64, 64)
    # A run does not hang on the file that it was made from.
    (tmp_path / "x.cfg").unlink()
    same_bits(inference.load(tmp_path / "run").variables, variables)
    said = converting.export(tmp_path / "run", tmp_path / "y.weights")
    assert said.splitlines()[1:] == [
        f"written: {tmp_path / 'y.cfg'}",
        f"written: {tmp_path / 'y.names'}",
        "the header counts pictures seen from 0 again",
    ]
    assert (tmp_path / "y.weights").read_bytes() == pair.read_bytes()
    assert parse_cfg(read_cfg(tmp_path / "y.cfg")) == parse_cfg(CFG)
    assert (tmp_path / "y.names").read_text() == "cat\ndog\n"
    converting.export(tmp_path / "y.weights", tmp_path / "z.weights")
    assert (tmp_path / "z.weights").read_bytes() == pair.read_bytes()
    with pytest.raises(ValueError, match="Darknet networks are written as .weights on"):
        converting.export(tmp_path / "run", tmp_path / "y.safetensors")


def test_without_class_names_it_says_how_to_give_them(pair, tmp_path):
    table = converting.convert(pair, tmp_path / "run")
    line = "no class names: put x.names (2 lines) beside the weights"
    assert line in table.splitlines()
    assert missing_names(pair, tiny(), ("class0", "class1")) == line
    assert missing_names(pair, tiny(), ("cat", "dog")) == ""
    # The names of a run do not come from a file beside it.
    assert missing_names(tmp_path / "run", tiny(), ("class0", "class1")) == ""
    said = converting.export(pair, tmp_path / "y.weights")
    assert said.splitlines()[1:] == [
        f"written: {tmp_path / 'y.cfg'}",
        f"not written: {tmp_path / 'y.names'}, as the classes have no names; put them "
        "there, one a line (2 lines)",
        "the header counts pictures seen from 0 again",
    ]
    assert not (tmp_path / "y.names").exists()
    # Nothing in the file says who wrote it.
    with pytest.raises(ValueError, match=r"y\.weights is there already, and yolojax"):
        converting.export(pair, tmp_path / "y.weights")
    (tmp_path / "y.weights").unlink()
    said = converting.export(pair, tmp_path / "y.weights")
    assert f"there already: {tmp_path / 'y.cfg'}" in said.splitlines()


def test_what_lies_beside_is_not_overwritten(pair, variables, model):
    cfg, names = pair.with_suffix(".cfg"), pair.with_suffix(".names")
    before = pair.read_bytes()
    write_published(pair, model, variables, ["a", "b"])
    assert cfg.read_text() == CFG
    with pytest.raises(ValueError, match=r"x\.names has other classes; give another"):
        write_published(pair, model, variables, ["a", "c"])
    names.unlink()
    five = tiny(5)
    with pytest.raises(ValueError, match=r"x\.cfg describes another network; give an"):
        write_published(pair, five, five.init(0), list("abcde"))
    assert pair.read_bytes() == before
    assert not names.exists()


def test_a_yolov5_is_not_written_as_weights(tmp_path):
    model = build_model("yolov5n", num_classes=1, width=0.125)
    with pytest.raises(ValueError, match="only a Darknet network can be .* take .saf"):
        write_published(tmp_path / "x.weights", model, model.init(0), ["a"])


def test_info_shows_how_the_network_was_trained():
    model = {"name": "darknet", "num_classes": 2, "description": CFG}
    text = sizing.describe_model(tiny_config(model=model))
    assert 'c.loss.name = "yolov4"' in text
    lines = sizing.describe_training(build_model("yolov4", num_classes=80))
    assert [line.strip() for line in lines[2:]] == [
        'c.loss.name = "yolov4"',
        "c.loss.box = 0.07",
        "c.loss.objectness = 1",
        "c.loss.classes = 1.0",
        "c.loss.arguments = dict(ignore_threshold=0.7, match_threshold=0.213)",
    ]
    lines = sizing.describe_training(build_model("yolov3", num_classes=80))
    assert [line.strip() for line in lines[2:]] == [
        'c.loss.name = "yolov3"',
        *(f"c.loss.{key} = 1" for key in ("box", "objectness", "classes")),
        "c.loss.arguments = dict(ignore_threshold=0.7, match_threshold=1)",
    ]
    assert sizing.describe_training(build_model("yolov5n", num_classes=1)) == []


def test_info_shows_no_argument_that_the_loss_does_not_take():
    text = CFG.replace("iou_loss=ciou", "objectness_smooth=1")
    lines = sizing.describe_training(
        build_model("darknet", num_classes=CLASSES, description=text)
    )
    assert lines[2].strip() == 'c.loss.name = "yolov3"'
    assert not any("arguments" in line and "smooth" in line for line in lines)
    assert "objectness_smooth=1" in lines[-1]
