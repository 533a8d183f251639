"""Damaged and hostile Darknet files: each ends in one clear error, without memory."""

import os
import struct
import tracemalloc

import numpy as np
import pytest

from tests.darknet import CFG
from yolojax import inference
from yolojax.engine.warm_start import first_variables
from yolojax.models import cfg as cfg_module
from yolojax.models.cfg import parse_cfg
from yolojax.models.darknet_graph import darknet_spec
from yolojax.models.detector import build_model
from yolojax.weights.darknet import read_darknet
from yolojax.weights.published import read_published

NET = "[net]\nwidth=64\nheight=64\n"
CONV = "[convolutional]\nfilters=4\nactivation=linear\n"
BIG = "[convolutional]\nfilters=65536\nactivation=linear\n"
HEAD = "[convolutional]\nfilters=7\nactivation=linear\n"
YOLO = "[yolo]\nanchors=4,6\nclasses=2\n"
TAIL = HEAD + YOLO


def conv(**options):
    values = {"filters": 4, "activation": "linear"} | options
    return "[convolutional]\n" + "".join(f"{k}={v}\n" for k, v in values.items())


# Each with what its message must hold.
TEXTS = {
    "nothing": ("", "no \\[net\\] section: there is no section at all"),
    "comments": ("# one\n; two\n", "there is no section at all"),
    "binary": ("\x00\x01[net]", "a binary file, where lines of"),
    "no_net": (CONV + TAIL, "line 1: the first section is \\[convolutional\\], where"),
    "two_nets": (NET + NET + TAIL, "line 4: a second \\[net\\] section"),
    "before": ("width=3\n" + NET, "line 1: 'width=3' stands before any section"),
    "no_equals": (NET + "channels", "line 4: 'channels' is neither \\[section\\] nor"),
    "no_key": (NET + "=3", "line 4: '=3' is neither"),
    "no_bracket": (NET + "[yolo\n", "line 4: '\\[yolo' is no \\[section\\]"),
    "no_name": (NET + "[]\n", "line 4: '\\[\\]' is no \\[section\\]"),
    "only_net": (NET, "no \\[yolo\\] section: .* its layers are none"),
    "classifier": (
        NET + CONV + "[avgpool]\n[softmax]\n",
        "no \\[yolo\\] section: .* convolutional, avgpool, softmax",
    ),
    "many_sections": (NET + "[a]\n" * 10**6, "line 603: more than 600 sections"),
    "unknown": (NET + "[convolutionl]\n", "layers of this kind .* Did you mean 'con"),
    "region": (NET + CONV + "[region]\n", "line 7, \\[region\\]: layers of this kind"),
    "local": (NET + "[local]\n", "\\[local\\]: layers of this kind are not supported"),
    "control": (NET + "[\x1b[2J]\n", "x1b\\[2J\\]: layers of this kind are not"),
    "grey": (NET + "channels=1\n" + TAIL, "channels=1 is not 3, the only value"),
    "wide": (NET.replace("64", "10000", 1) + TAIL, "width=10000 is not a whole number"),
    "route_far_back": (
        NET + CONV + "[route]\nlayers=-2\n" + TAIL,
        "line 7, \\[route\\]: it names layer -1, but it is layer 1 itself and can take",
    ),
    "route_self": (NET + CONV + "[route]\nlayers=1\n" + TAIL, "it names layer 1, but"),
    "route_ahead": (NET + CONV + "[route]\nlayers=-1,9\n" + TAIL, "names layer 9, but"),
    "route_huge": (NET + CONV + f"[route]\nlayers={10**17}\n" + TAIL, "names layer 10"),
    "route_first": (NET + "[route]\nlayers=-1\n" + TAIL, "layer 0 itself and can take"),
    "route_nothing": (
        NET + CONV + "[route]\n" + TAIL,
        "\\[route\\]: layers= is missing",
    ),
    "route_words": (NET + CONV + "[route]\nlayers=a,b\n" + TAIL, "layers=a,b is not a"),
    "route_sizes": (
        NET + CONV + conv(stride=2) + "[route]\nlayers=-1,-2\n" + TAIL,
        "different sizes: 4 channels, 1/2 of the picture \\+0 px, and 4 channels, 1 of",
    ),
    "route_groups": (
        NET + CONV + "[route]\nlayers=-1\ngroups=3\n" + TAIL,
        "groups=3 does not divide the 4 channels",
    ),
    "route_group": (
        NET + CONV + "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n" + TAIL,
        "group_id=2 is not a whole number from 0 to 1",
    ),
    "route_doubling": (
        NET + CONV + "[route]\nlayers=-1,-1\n" * 500 + TAIL,
        "its map has 131072 channels; at most 65536",
    ),
    "route_from_yolo": (
        NET + CONV + TAIL + "[route]\nlayers=-1\n",
        "layer 2 \\(line 10, \\[yolo\\]\\) gives detections, which no other layer can",
    ),
    "conv_after_yolo": (NET + CONV + TAIL + CONV, "gives detections, which no other"),
    "shortcut_shape": (
        NET
        + CONV
        + conv(filters=8)
        + "[shortcut]\nfrom=-2\nactivation=linear\n"
        + TAIL,
        "only maps of one shape are added, not 8 channels, .* and 4 channels",
    ),
    "shortcut_size": (
        NET + CONV + conv(stride=2) + "[shortcut]\nfrom=-2\nactivation=linear\n" + TAIL,
        "only maps of one shape are added, not 4 channels, 1/2 .* and 4 channels, 1 of",
    ),
    "shortcut_self": (
        NET + CONV + "[shortcut]\nfrom=1\nactivation=linear\n" + TAIL,
        "it names layer 1, but it is layer 1",
    ),
    "shortcut_weights": (
        NET + CONV + CONV + "[shortcut]\nfrom=-2\nweights_type=per_channel\n" + TAIL,
        "weights_type=per_channel is not supported",
    ),
    "filters_zero": (NET + conv(filters=0) + TAIL, "filters=0 is not a whole number"),
    "filters_below": (
        NET + conv(filters=-4) + TAIL,
        "filters=-4 is not a whole number",
    ),
    "filters_huge": (NET + conv(filters=2**31) + TAIL, "filters=2147483648 is not"),
    "filters_digits": (NET + conv(filters="9" * 10**5) + TAIL, "filters=99999999"),
    "filters_word": (NET + conv(filters="many") + TAIL, "filters=many is not a whole"),
    "filters_missing": (NET + "[convolutional]\nsize=3\n", "filters= is missing"),
    "size_huge": (NET + conv(size=10**6) + TAIL, "size=1000000 is not a whole number"),
    "size_zero": (NET + conv(size=0) + TAIL, "size=0 is not a whole number from 1"),
    "stride_zero": (NET + conv(stride=0) + TAIL, "stride=0 is not a whole number"),
    "strides_differ": (NET + conv(stride_x=2) + TAIL, "stride_x=2 and stride_y=1 diff"),
    "groups": (NET + conv(groups=3) + TAIL, "groups=3 must divide both the 3 chan"),
    "groups_of_input": (NET + conv(groups=2) + TAIL, "groups=2 must divide both the 3"),
    "dilation": (NET + conv(dilation=2) + TAIL, "dilation=2 is not 1, the only value"),
    "xnor": (NET + conv(xnor=1) + TAIL, "xnor=1 is not supported"),
    "activation": (NET + conv(activation="leeky") + TAIL, "Did you mean 'leaky'"),
    "typing_error": (
        NET + conv(filtres=4) + TAIL,
        "called 'filtres'. Did you mean 'fil",
    ),
    "parameters": (
        NET + BIG + BIG + TAIL,
        "4,295,.* parameters; at most 1,073,741,824",
    ),
    "map_empty": (
        NET + conv(size=9) + conv(size=9, padding=8) + TAIL,
        "line 4, .*: its map is empty for a picture of 1 px; it has 4 channels, 1 of",
    ),
    "window_huge": (NET + "[maxpool]\nsize=1000\n" + TAIL, "size=1000 is not a whole"),
    "window_outside": (
        NET + "[maxpool]\nsize=3\npadding=5\n" + TAIL,
        "padding=5 is not a whole number from 0 to 4",
    ),
    "upsample": (NET + "[upsample]\nstride=4\n" * 99 + TAIL, "16 times as wide as the"),
    "upsample_below": (
        NET + "[upsample]\nstride=-2\n" + TAIL,
        "stride=-2 is not a whol",
    ),
    "downsample": (NET + conv(stride=100) * 9 + TAIL, "multiples of 1,000,000,000,000"),
    "yolo_first": (
        NET + YOLO,
        "line 4, \\[yolo\\]: it must follow a \\[convolutional\\]",
    ),
    "yolo_after_pool": (
        NET + "[maxpool]\n" + YOLO,
        "it must follow a \\[convolutional",
    ),
    "yolo_twice": (NET + TAIL + YOLO, "line 10, \\[yolo\\]: it must follow"),
    "yolo_uneven": (
        NET + conv(size=2, stride=2) + conv(size=2) + TAIL,
        "line 16, \\[yolo\\]: its cells must divide .* channels, 1/2 of the picture -1",
    ),
    "same_stride": (
        NET + CONV + TAIL + "[route]\nlayers=0\n" + TAIL,
        "a second \\[yolo\\] with stride 1; the first: line 10, \\[yolo\\]",
    ),
    "filters_wrong": (
        NET + conv(filters=8) + YOLO,
        "filters=8, but the \\[yolo\\] after it needs 7: 1 anchors of 5 \\+ 2",
    ),
    "head_normalized": (
        NET + conv(filters=7, batch_normalize=1) + YOLO,
        "before \\[yolo\\] there must be a convolution of size=1, stride=1, without",
    ),
    "head_spatial": (NET + conv(filters=7, size=3, pad=1) + YOLO, "must be a convolut"),
    "head_padded": (NET + conv(filters=7, padding=1) + YOLO, "must be a convolution"),
    "mask_outside": (
        NET + HEAD + YOLO + "mask=1\n",
        "mask=1 names anchors that are not there; there are 0 to 0",
    ),
    "mask_below": (
        NET + HEAD + YOLO + "mask=-1\n",
        "mask=-1 names anchors that are no",
    ),
    "mask_huge": (NET + HEAD + YOLO + f"mask={10**17}\n", "mask=1000000000000"),
    "num": (NET + HEAD + YOLO + "num=9\n", "num=9, but anchors= has 1 pairs"),
    "anchors_odd": (
        NET + HEAD + "[yolo]\nclasses=2\nanchors=4,6,8\n",
        "anchors= must be pairs of a width and a height above 0",
    ),
    "anchors_zero": (NET + HEAD + "[yolo]\nclasses=2\nanchors=0,6\n", "must be pairs"),
    "anchors_none": (NET + HEAD + "[yolo]\nclasses=2\n", "anchors= must be pairs"),
    "anchors_nan": (
        NET + HEAD + "[yolo]\nclasses=2\nanchors=nan,6\n",
        "anchors=nan,6 is not a list of numbers",
    ),
    "classes_none": (NET + HEAD + "[yolo]\nanchors=4,6\n", "classes= is missing"),
    "classes_huge": (
        NET + HEAD + YOLO.replace("=2", "=99999999"),
        "classes=99999999 is",
    ),
    "classes_differ": (
        CFG.replace("classes=2", "classes=3", 1).replace("filters=14", "filters=16", 1),
        "all \\[yolo\\] must have the same number of classes; here 3, but 2",
    ),
    "scale": (NET + HEAD + YOLO + "scale_x_y=0\n", "scale_x_y=0 is not a number from"),
    "new_coords": (NET + HEAD + YOLO + "new_coords=7\n", "new_coords=7 is not a whole"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_description_is_one_clear_error(name):
    text, message = TEXTS[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            darknet_spec(parse_cfg(text))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    shown = str(error.value)
    assert len(shown) < 500 and shown.isprintable()
    # The longest text alone has 4 MB and 10^6 lines.
    assert peak < 2e6 + 40 * len(text)


def test_a_text_without_end_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setattr(cfg_module, "MAX_CHARACTERS", 1000)
    with pytest.raises(ValueError, match="1,001 characters; a network description has"):
        parse_cfg("#" * 1001)
    (tmp_path / "x.cfg").write_text("#" * 5000)
    with pytest.raises(ValueError, match=r"x\.cfg: 5,000 bytes; at most 1,000"):
        build_model("darknet", num_classes=1, path=str(tmp_path / "x.cfg"))


@pytest.fixture(scope="module")
def model():
    return build_model("darknet", num_classes=2, description=CFG)


HEADER = struct.pack("<3iQ", 0, 2, 5, 0)
# Convolutions 0, 1, 5, 9 and 14 have so many numbers; the first begins with four
# arrays of 4, the third with one of 8.
COUNTS = (124, 32, 152, 126, 182)
NUMBERS = np.zeros(sum(COUNTS), "<f4").tobytes()
FILES = {
    "empty": (b"", "0 bytes, which is not even a header"),
    "part_of_header": (HEADER[:7], "7 bytes, which is not even a header"),
    "no_seen": (HEADER[:12], "it ends in its header, after 12 bytes"),
    "half_seen": (HEADER[:16], "it ends in its header, after 16 bytes"),
    "old_header": (struct.pack("<3ih", 0, 1, 0, 0), "ends in its header, after 14 byt"),
    "header_only": (HEADER, "it ends after its header; it has 0 numbers"),
    "in_number": (HEADER + NUMBERS[:-3], "it ends within a number"),
    "in_bias": (
        HEADER + NUMBERS[:8],
        "ends in layer 0 .* after 2 of 4 numbers of its b",
    ),
    "in_scale": (HEADER + NUMBERS[:20], "after 1 of 4 numbers of its scale"),
    "in_mean": (HEADER + NUMBERS[:44], "after 3 of 4 numbers of its mean"),
    "in_var": (HEADER + NUMBERS[:48], "after 0 of 4 numbers of its var"),
    "in_kernel": (
        HEADER + NUMBERS[:400],
        "layer 0 \\(line 8, \\[convolutional\\]\\), after 84 of 108 numbers of",
    ),
    "in_biased": (
        HEADER + NUMBERS[: 4 * 160],
        "layer 5 .* after 4 of 8 numbers of its",
    ),
    "in_head": (
        HEADER + NUMBERS[: 4 * 320],
        "layer 9 .* after 12 of 14 numbers of its b",
    ),
    "at_border": (
        HEADER + NUMBERS[: 4 * 156],
        "it ends after layer 1; it has 156 numbe",
    ),
    "last_number": (
        HEADER + NUMBERS[:-4],
        "layer 14 .* after 167 of 168 numbers of its",
    ),
    "one_more": (
        HEADER + NUMBERS + bytes(4),
        "1 numbers are left over; it has 617 num",
    ),
    "byte_more": (HEADER + NUMBERS + b"x", "it ends within a number"),
    "twice": (HEADER + 2 * NUMBERS, "616 numbers are left over; .* the right .cfg"),
    "other_header": (
        struct.pack("<3iI", 0, 1, 0, 0) + NUMBERS + bytes(4),
        "1 numbers are left over; .* \\(version 0.1.0\\)",
    ),
    "text": (
        b"a page that says: not found\n" * 9,
        "numbers after the header \\(version",
    ),
    "zip": (b"PK\x03\x04" + bytes(4000), "numbers are left over"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_weights_are_one_clear_error(name, model, tmp_path):
    content, message = FILES[name]
    path = tmp_path / "x.weights"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_darknet(path, model)
    assert str(error.value).startswith(str(path))
    (tmp_path / "x.cfg").write_text(CFG)
    with pytest.raises(ValueError, match=message):
        read_published(path)


def test_a_file_of_another_size_is_not_read(model, tmp_path):
    path = tmp_path / "x.weights"
    with path.open("wb") as file:
        file.write(HEADER)
        file.truncate(2**40)  # a hole, which takes no room
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="numbers are left over"):
            read_darknet(path, model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e7


def test_memory_stays_below_twice_the_numbers(tmp_path):
    text = NET + conv(filters=1024) + conv(filters=1024, size=1) + TAIL
    model = build_model("darknet", num_classes=2, description=text)
    count = 1024 * 4 + 1024 * 1025 + 7 * 1025
    path = tmp_path / "x.weights"
    path.write_bytes(HEADER + bytes(4 * count))
    model.shapes()
    tracemalloc.start()
    try:
        read_darknet(path, model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside the numbers there is what tracing the network leaves behind.
    assert peak < 2 * 4 * count + 4e6


def test_a_bad_description_beside_weights_is_named(tmp_path):
    (tmp_path / "x.weights").write_bytes(HEADER + NUMBERS)
    (tmp_path / "x.cfg").write_bytes(b"\x7fELF\x00\x01")
    with pytest.raises(ValueError, match=r"x\.cfg: a binary file, where lines of"):
        read_published(tmp_path / "x.weights")
    (tmp_path / "x.cfg").write_text(NET + conv(filters=2**40) + TAIL)
    with pytest.raises(
        ValueError, match=r"x\.cfg: line 4, \[convolutional\]: filters="
    ):
        read_published(tmp_path / "x.cfg")


def test_a_folder_is_no_file(model, tmp_path):
    (tmp_path / "x.weights").mkdir()
    with pytest.raises(
        ValueError, match=r"x\.weights: not a regular file but a folder"
    ):
        read_darknet(tmp_path / "x.weights", model)
    with pytest.raises(ValueError, match="not a regular file but a folder"):
        read_published(tmp_path / "x.weights")


def test_a_header_of_a_file_with_a_hole_is_compared_before_it_is_read(model, tmp_path):
    path = tmp_path / "x.weights"
    with path.open("wb") as file:
        file.write(HEADER)
        file.truncate(2**34)
    tracemalloc.start()
    with pytest.raises(ValueError, match="x.weights: .* numbers are left over"):
        read_darknet(path, model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


@pytest.mark.parametrize("suffix", [".weights", ".pt", ".safetensors", ""])
def test_a_named_pipe_is_no_file_of_weights(suffix, model, tmp_path):
    """Whatever reads it, and it is never waited for."""
    path = tmp_path / f"x{suffix}"
    os.mkfifo(path)
    for read in (
        read_published,
        inference.load,
        lambda p: first_variables(model, seed=0, weights=str(p)),
    ):
        with pytest.raises(ValueError, match="not a regular file but a named pipe"):
            read(path)


def test_a_description_that_is_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "x.weights").write_bytes(HEADER + NUMBERS)
    os.mkfifo(tmp_path / "x.cfg")
    with pytest.raises(ValueError, match="no description of its network"):
        read_published(tmp_path / "x.weights")
