"""Networks from descriptions, against what is known of the published ones."""

import functools
import json

import jax
import numpy as np
import pytest
import yaml

from tests.models.descriptions import DESCRIPTIONS, P5, Rows, pyramid, text_of
from tests.shared import shared
from yolojax.models.detector import build_model
from yolojax.trees import flatten

# What the issue and the releases' notes say; arch.json has them, too.
TOTALS = {
    "yolov5s-ghost": 3_897_605,
    "yolov5-bifpn": 46_825_853,
    "yolov5-fpn": 41_117_565,
    "yolov5-p2": 47_493_372,
    "yolov5-p7": 144_281_723,
    "yolov5-p34": 5_331_518,
    "yolov5s-transformer": 7_235_645,
    "yolov3": 61_949_149,
    "yolov3-spp": 62_998_749,
    "yolov3-tiny": 8_852_366,
}


def build(content, **changes):
    text = content if isinstance(content, str) else json.dumps(content)
    return build_model("yaml", **{"num_classes": 0, "description": text} | changes)


def counts_of(model):
    """Parameters by row, maps of a picture of 128 px, and tensors as published."""
    images = jax.ShapeDtypeStruct((1, 128, 128, 3), "float32")
    start = functools.partial(model.module.init_with_output, train=False)
    maps, variables = jax.eval_shape(start, jax.random.key(0), images)
    counts = {}
    for path, leaf in flatten(variables["params"]).items():
        node = "/".join(path.split("/")[:2])
        number = int(model.spec.prefixes[node].split(".")[1])
        counts[number] = counts.get(number, 0) + leaf.size
    means = [p for p in flatten(variables["batch_stats"]) if p.endswith("/mean")]
    # The original has a counter beside every mean, and the anchors.
    return counts, maps, len(flatten(variables)) + len(means) + 1


def test_every_published_description_is_swept():
    published = json.loads(shared("golden", "arch.json").read_text())
    assert {f"{name}.yaml" for name in DESCRIPTIONS} == set(published)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_layers_are_the_published_ones(name):
    published = json.loads(shared("golden", "arch.json").read_text())[f"{name}.yaml"]
    model = build(DESCRIPTIONS[name])
    counts, maps, num_tensors = counts_of(model)
    assert counts == {row[0]: row[3] for row in published["layers"] if row[3]}
    assert sum(counts.values()) == published["params"]
    assert published["params"] == TOTALS.get(name, published["params"])
    assert list(model.strides) == published["stride"]
    cells = sum(int(np.prod(m.shape[1:4])) for m in maps)
    assert [1, cells, maps[0].shape[-1]] == published["out_shape"]
    assert num_tensors == published["n_tensors"]
    if isinstance(DESCRIPTIONS[name]["anchors"], list):
        sizes = model.anchors / np.float32(model.strides)[:, None, None]
        np.testing.assert_allclose(sizes, published["anchors_grid"], rtol=1e-6)
    else:
        assert model.anchors.shape[:2] == np.shape(published["anchors_grid"])[:2]


def unit(inputs, outputs, size=1):
    """Parameters of a convolution and its normalisation."""
    return inputs * outputs * size**2 + 2 * outputs


def stage(inputs, outputs, blocks, normed):
    """Those of a C3 or of a BottleneckCSP."""
    half = outputs // 2
    inner = blocks * (unit(half, half) + unit(half, half, 3))
    if normed:
        plain = inputs * half + half * half
        return unit(inputs, half) + plain + 4 * half + inner + unit(outputs, outputs)
    return 2 * unit(inputs, half) + inner + unit(outputs, outputs)


@pytest.mark.parametrize(
    ("module", "total"), [("C3", 7_276_605), ("BottleneckCSP", 7_468_157)]
)
def test_the_older_networks_have_the_parameters_of_their_releases(module, total):
    """YOLOv5-s of v4.0 and v5.0 (C3), and of v2.0 to v3.1 (BottleneckCSP)."""
    normed = module == "BottleneckCSP"
    c = [32, 64, 128, 256, 512]
    by_hand = unit(12, c[0], 3)
    for i, blocks in enumerate((1, 3, 3)):
        by_hand += unit(c[i], c[i + 1], 3)
        by_hand += stage(c[i + 1], c[i + 1], blocks, normed)
    by_hand += unit(256, 512, 3) + unit(512, 256) + unit(4 * 256, 512)
    by_hand += stage(512, 512, 1, normed)
    by_hand += unit(512, 256) + stage(512, 256, 1, normed)
    by_hand += unit(256, 128) + stage(256, 128, 1, normed)
    by_hand += unit(128, 128, 3) + stage(256, 256, 1, normed)
    by_hand += unit(256, 256, 3) + stage(512, 512, 1, normed)
    by_hand += sum(255 * (inputs + 1) for inputs in (128, 256, 512))
    assert by_hand == total
    model = build(pyramid("s", stage=module, focus=True))
    counts, maps, _ = counts_of(model)
    assert sum(counts.values()) == total
    assert [m.shape for m in maps] == [(1, s, s, 3, 85) for s in (16, 8, 4)]


def first_release():
    """YOLOv5-s as v1.0 lists it: the head's convolutions are rows of their own."""
    rows = Rows()
    rows.add("Focus", 64, 3)
    for channels, times in ((128, 3), (256, 9), (512, 9)):
        rows.add("Conv", channels, 3, 2)
        kind = "Bottleneck" if channels == 128 else "BottleneckCSP"
        rows.add(kind, channels, times=times)
    rows.add("Conv", 1024, 3, 2)
    rows.add("SPP", 1024, [5, 9, 13])
    rows.add("BottleneckCSP", 1024, times=6)
    outputs = "na * (nc + 5)"
    rows.add("BottleneckCSP", 1024, False, times=3)
    rows.add("nn.Conv2d", outputs, 1, 1, 0)
    for channels, past in ((512, 6), (256, 4)):
        rows.add("nn.Upsample", None, 2, "nearest", source=-2)
        rows.add("Concat", 1, source=[-1, past])
        rows.add("Conv", channels, 1, 1)
        rows.add("BottleneckCSP", channels, False, times=3)
        rows.add("nn.Conv2d", outputs, 1, 1, 0)
    return rows.description("s", 10, [])


def test_the_first_release_ends_with_rows_of_convolutions():
    model = build(first_release(), num_classes=2)
    assert model.strides == (8, 16, 32)
    assert model.anchors[0, 0].tolist() == [10, 13]
    assert [model.spec.prefixes[f"head/level{n}"] for n in (3, 4, 5)] == [
        "model.21",
        "model.16",
        "model.11",
    ]
    counts, maps, _ = counts_of(model)
    assert [m.shape for m in maps] == [(1, s, s, 3, 7) for s in (16, 8, 4)]
    assert (counts[21], counts[16], counts[11]) == (21 * 129, 21 * 257, 21 * 513)


def test_a_yaml_file_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({**DESCRIPTIONS["yolov5n"], "nc": 7}))
    for changes in ({"path": str(path)}, {"description": path.read_text()}):
        model = build_model("yaml", num_classes=0, **changes)
        assert model.num_classes == 7
        assert model.feature_info == ((64, 8), (128, 16), (256, 32))
        again = build(model.spec.text)
        assert [n.arguments for n in again.spec.nodes] == [
            n.arguments for n in model.spec.nodes
        ]


def test_classes_sizes_activation_and_anchors_are_overridden():
    anchors = (((1, 2), (3, 4)),) * 3
    model = build(
        text_of("yolov5n"),
        num_classes=4,
        width=0.5,
        depth=1.0,
        activation="nn.ReLU(inplace=True)",
        anchors=anchors,
    )
    nodes = {node.name: node.arguments for node in model.spec.nodes}
    assert nodes["layer4"]["features"] == 128
    assert nodes["layer4"]["num_blocks"] == 6
    assert nodes["layer0"]["activation"] == "relu"
    assert nodes["level3"] == {"num_anchors": 2, "num_classes": 4}
    np.testing.assert_array_equal(model.anchors, np.float32(anchors))
    again = build(model.spec.text)
    assert (again.num_classes, again.anchors.shape) == (4, (3, 2, 2))


def test_levels_come_finest_first_with_the_anchors_of_their_size():
    content = pyramid("n")
    rows = content["head"][-1]
    given = build(content)
    rows[0] = rows[0][::-1]
    turned = build(content)
    assert turned.strides == (8, 16, 32)
    # Sizes that rise while strides fall are turned round, as published.
    np.testing.assert_array_equal(turned.anchors, given.anchors)
    assert turned.spec.prefixes["head/level3"] == "model.24.m.2"
    content["anchors"] = content["anchors"][::-1]
    np.testing.assert_array_equal(build(content).anchors, given.anchors)


def test_anchors_that_are_only_counted_are_the_published_or_spread_evenly():
    model = build({**pyramid("n"), "anchors": 3})
    np.testing.assert_array_equal(model.anchors, build(pyramid("n")).anchors)
    model = build(pyramid("n", P5, coarsest=4, anchors=2))
    assert model.anchors.shape == (2, 2, 2)
    # 2 * 4 ** (1/4) and 2 * 4 ** (3/4) strides.
    np.testing.assert_allclose(model.anchors[0, :, 0], [16 * 2**0.5, 32 * 2**0.5])
    np.testing.assert_allclose(model.anchors[1], 2 * model.anchors[0])


@pytest.mark.parametrize("sources", [[3, 2, 4], [4, 3, 2], [3, 5, 2, 4]], ids=str)
def test_its_text_gives_the_same_network_with_anchors_of_ones_own(sources):
    rows = "".join("  - [-1, 1, Conv, [8, 3, 2]]\n" for _ in range(6))
    text = f"nc: 2\nbackbone:\n{rows}head: [[{sources}, 1, Detect, [nc, anchors]]]"
    anchors = [[[2.0**level, 9.0]] for level in range(3, 3 + len(sources))]
    model = build_model("yaml", num_classes=2, description=text, anchors=anchors)
    assert model.anchors.tolist() == anchors
    again = build_model("yaml", num_classes=2, description=model.spec.text)
    assert again.anchors.tolist() == anchors
