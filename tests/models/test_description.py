"""Descriptions that are wrong, hostile or absurd: each one clear error."""

import json
import re

import pytest

from tests.models.descriptions import DESCRIPTIONS
from yolojax.models.description import parse_activation
from yolojax.models.detector import build_model

# Rows of the neck that all changes below leave as they are.
HEAD = [[-1, 1, "Conv", [32, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]]


def content(backbone=None, head=None, **more):
    return {
        "nc": 3,
        "anchors": [[10, 20]],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]]] if backbone is None else backbone,
        "head": HEAD if head is None else head,
        **more,
    }


def build(given, **changes):
    text = given if isinstance(given, str) else json.dumps(given)
    return build_model("yaml", **{"num_classes": 0, "description": text} | changes)


def refused(given, message, **changes):
    with pytest.raises(ValueError, match=message) as caught:
        build(given, path="x.yaml", **changes)
    text = str(caught.value)
    assert text.startswith("x.yaml")
    assert len(text) < 800


def test_the_description_that_the_others_are_made_of_is_right():
    assert build(content()).strides == (2,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# empty", "expected keys and values .*, got None"),
        ("- 1\n- 2", r"expected keys and values .*, got \[1, 2\]"),
        ("nc: [1", "x.yaml line 1: no readable YAML"),
        ("a: \x00", "no readable YAML"),
        ("nc: !!python/object/apply:os.system ['true']", "tags .* are not read"),
        ("[" * 10_000, "nested deeper than 20"),
        ("x" * 300_000, "has 300,000 characters; at most 200,000 are read"),
        ("[" + "1," * 60_000 + "1]", "more than 30,000 values"),
        (
            "a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]",
            r"line 2: aliases \(\*a\) are not read",
        ),
        ("nc: " + "9" * 5000, "no readable YAML .*4300 digits"),
    ],
    ids=lambda value: value[:20],
)
def test_text_that_is_no_description_is_refused(text, message):
    refused(text, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbnoe": []}, "unknown key 'backbnoe'. Did you mean 'backbone'"),
        ({"nc": 0}, "nc must be the number of classes, 1 to 100,000, not 0"),
        ({"nc": "80"}, "nc must be the number of classes, .*, not '80'"),
        ({"nc": 10**9}, "nc must be the number of classes"),
        ({"ch": 1}, "ch is 1; pictures have 3 channels"),
        ({"depth_multiple": -1}, "depth_multiple must be a number above 0"),
        ({"depth_multiple": 1e9}, "depth_multiple must be a number above 0"),
        ({"width_multiple": "wide"}, "width_multiple must be a number .* 'wide'"),
        ({"anchors": 0}, "anchors must be rows of equally many .*; got 0"),
        ({"anchors": [[1, 2, 3]]}, "anchors must be rows of equally many"),
        ({"anchors": [[1, -2]]}, "anchors must be rows of equally many"),
        ({"anchors": [[1, 2], [1, 2, 3, 4]]}, "anchors must be rows of equally"),
        ({"anchors": [["a", "b"]]}, "anchors must be rows of equally many"),
        ({"anchors": [[1, 2]] * 2}, r"row 2 \(Detect\): takes 1 levels, .* 2 rows"),
        ({"activation": "os.system('rm')"}, "activation .* is not known; known are"),
        ({"activation": "nn.PReLU()"}, "activation 'nn.PReLU\\(\\)' is not known"),
        ({"backbone": {}}, "backbone must be a list of rows, not {}"),
        ({"head": "Detect"}, "head must be a list of rows, not 'Detect'"),
        ({"head": []}, r"head must be a list of rows, not \[\]"),
        (
            {"backbone": [[-1, 1, "Concat", [1]]] * 2001},
            "more than 400 rows",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_named(changes, message):
    refused(content(**changes), message)


def row(*given):
    """A description whose row 1 is given."""
    return content(backbone=[[-1, 1, "Conv", [16, 3, 2]], list(given)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1, 2), r"row 1: expected \[from, number, module, arguments\]"),
        ((-1, 1, 7, []), "row 1: 7 is no module's name"),
        ((-1, 1, "\ud800", []), "invalid Unicode character escape"),
        ((-1, 0, "Conv", [8]), r"row 1 \(Conv\): the number of repeats must be 1"),
        ((-1, True, "Conv", [8]), "the number of repeats must be 1 to 400, not True"),
        ((-1, 1, "Conv", 8), r"row 1 \(Conv\): the arguments must be a list"),
        ((-1, 1, "Cnov", [8]), "row 1 .*no module named 'Cnov'. Did you mean 'Conv'"),
        ((-1, 1, "os.system", ["x"]), "no module named 'os.system'. .*Choices: Conv"),
        ((1, 1, "Conv", [8]), r"row 1 \(Conv\): `from` is 1, which is a later row"),
        ((7, 1, "Conv", [8]), r"row 1 \(Conv\): `from` is 7, which is a later row"),
        ((-9, 1, "Conv", [8]), "`from` is -9, which is before the first row"),
        ((1.5, 1, "Conv", [8]), "`from` must be a row's number or a list of them"),
        (([-1] * 99, 1, "Concat", [1]), "takes 99 rows; at most 64"),
        (([-1, 0], 1, "Conv", [8]), "takes one row, `from` lists 2"),
        (([], 1, "Conv", [8]), "takes one row, `from` lists 0"),
        ((-1, 1, "Conv", []), r"row 1 \(Conv\): needs the argument channels"),
        ((-1, 1, "Conv", ["8"]), "channels must be a whole number, 1 to 65536"),
        ((-1, 1, "Conv", [10**6]), "channels must be a whole number, 1 to 65536"),
        ((-1, 1, "Conv", [8, 1, 1, 0, 1, 1, 1, 1]), "has 8 arguments; it takes"),
        ((-1, 1, "Conv", [8, 3, 99]), "stride must be a whole number, 1 to 16"),
        ((-1, 1, "Conv", [8, 3, 1, None, 3]), "3 groups do not divide 16 and 8"),
        ((-1, 1, "Conv", [8, 3, 1, None, 1, 2]), "dilation must be 1, not 2"),
        ((-1, 1, "Conv", [8, 3, 1, 0]), r"row 3 \(Detect\): levels must be"),
        ((-1, 3, "Conv", [8]), "repeated 3 times, but takes 16 channels and gives 8"),
        ((-1, 400, "Conv", [16]), "more than 400 layers up to here"),
        ((-1, 300, "C3", [65536]), "row 1 .*more than 2,147,483,648 parameters"),
        ((-1, 1, "C3", [16, 0.5]), "shortcut must be True or False, not 0.5"),
        ((-1, 1, "C3", [16, True, 1, 99]), "expansion must be a number above 0"),
        ((-1, 1, "C3TR", [8, True, 1, 0.7]), "5 channels inside; .* multiple of 4"),
        ((-1, 1, "GhostBottleneck", [32]), "16 channels come in and 32 go out"),
        ((-1, 1, "GhostBottleneck", [16, 3, 3]), "stride must be a whole number, 1"),
        ((-1, 1, "SPP", [16, [4]]), "kernels must be a list of odd numbers"),
        ((-1, 1, "SPPF", [16, 4]), "kernel must be odd, not 4"),
        ((-1, 1, "CrossConv", [16, 3, 2, 1, 1.0, True]), "cannot be added to"),
        (([-1, -2], 1, "Concat", [1]), "before the first row"),
        ((-1, 1, "Concat", [2]), "dimension must be a whole number, 1 to 1, not 2"),
        (([-1], 2, "Concat", [1]), r"row 1 \(Concat\): cannot be repeated 2 times"),
        ((-1, 1, "nn.Upsample", [None, 2, "bicubic"]), "mode must be 'nearest'"),
        ((-1, 1, "nn.Upsample", [None, 1.5]), "factor must be a whole number"),
        ((-1, 1, "nn.Upsample", [[8, 8], 2]), "size must be None"),
        ((-1, 1, "nn.Upsample", [None, 4]), "its stride is 1/2 pixels"),
        ((-1, 4, "Conv", [16, 3, 8]), "its stride is 8192 pixels; 1 to 1024"),
        ((-1, 1, "Contract", [3]), r"row 3 \(Detect\): levels must be"),
        ((-1, 1, "Expand", [3]), "3 x 3 pixels do not part 16 channels"),
        ((-1, 1, "nn.ZeroPad2d", [[1, 2]]), r"widths must be \[left, right"),
        ((-1, 60, "nn.ZeroPad2d", [63]), "that is too large"),
        ((-1, 1, "nn.ZeroPad2d", [1]), "at stride 2 .*2 pixels"),
        ((-1, 1, "nn.MaxPool2d", [2, 2, 9]), "padding must be a whole number, 0 to 1"),
        ((-1, 1, "Conv", [16, 1, 1, None, 1, "print(1)"]), "activation .* not known"),
        ((-1, 1, "Detect", ["nc", "anchors"]), "Detect must be the last row"),
        ((-1, 1, "Segment", ["nc", "anchors"]), "no module named 'Segment'"),
    ],
    ids=lambda value: re.sub(r"\W+", " ", ascii(value))[:40],
)
def test_a_wrong_row_is_named(given, message):
    refused(row(*given), message)


DETECT = ["nc", "anchors"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD[:1], r"row 1 \(Conv\): the last row must be Detect"),
        ([[[0], 1, "Detect", [3, "anchors"]]], ""),
        ([[[0], 1, "Detect", [80, "anchors"]]], "must be the words nc and anchors"),
        ([[[0], 1, "Detect", ["nc", [[1, 2]]]]], "must be the words nc and anchors"),
        ([[[0], 2, "Detect", DETECT]], r"row 1 \(Detect\): cannot be repeated"),
        ([[[0, 0], 1, "Detect", DETECT]], "two of its inputs are at stride 2"),
        ([[[], 1, "Detect", DETECT]], "`from` is empty, and there are no nn.Conv2d"),
        (
            [[-1, 1, "nn.MaxPool2d", [3, 3]], [[1], 1, "Detect", DETECT]],
            "strides that are powers of two; row 1 gives 16 channels at stride 6",
        ),
        (
            [
                [-1, 1, "Conv", [8, 3, 2]],
                [[-1, 0], 1, "Concat", [1]],
                [[2], 1, "Detect", DETECT],
            ],
            r"row 2 \(Concat\): maps of different sizes .*8 channels at stride 4; 16",
        ),
        (
            [
                [-1, 1, "nn.Conv2d", [8, 9]],
                [-1, 1, "nn.ZeroPad2d", [4]],
                [[2], 1, "Detect", DETECT],
            ],
            r"row 1 \(nn.Conv2d\): 8 channels at stride 2 \(-8 pixels\) leave nothing",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_head_is_named(head, message):
    anchors = [[1, 2]] * len(head[-1][0]) if message.startswith("two") else [[1, 2]]
    given = content(head=head, anchors=anchors)
    if message:
        refused(given, message)
    else:
        build(given)


def test_overrides_are_checked_like_the_description():
    refused(content(), "width_multiple must be a number above 0", width=0.0)
    refused(content(), "nc must be the number of classes", num_classes=-1)
    refused(content(), "activation 'x' is not known", activation="x")
    refused(content(), "anchors of yaml must be 1 levels", anchors=(((1, 2),),) * 2)
    with pytest.raises(ValueError, match="needs path, a YOLOv5 model description"):
        build_model("yaml", num_classes=1)
    with pytest.raises(ValueError, match="nowhere.yaml: No such"):
        build_model("yaml", num_classes=1, path="nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "silu"),
        ("nn.SiLU()", "silu"),
        ("nn.LeakyReLU(0.1)", "leaky=0.1"),
        ("nn.LeakyReLU(negative_slope=0.2, inplace=True)", "leaky=0.2"),
        ("torch.nn.LeakyReLU()", "leaky=0.01"),
        ("nn.Hardswish()", "hard_swish"),
        ("nn.ReLU(inplace=True)", "relu"),
        ("mish", "mish"),
        ("leaky=0.3", "leaky=0.3"),
    ],
)
def test_an_activation_is_read_not_evaluated(text, expected):
    assert parse_activation(text) == expected


def test_the_activation_reaches_the_units_and_those_that_have_none_keep_none():
    given = content(activation="nn.LeakyReLU(0.1)", csp_activation="nn.SiLU()")
    given["backbone"] += [
        [-1, 1, "BottleneckCSP", [16]],
        [-1, 1, "Conv", [16, 1, 1, None, 1, False]],
        [-1, 1, "Conv", [16, 1, 1, None, 1, 1, "nn.ReLU()"]],
    ]
    nodes = [node.arguments for node in build(given).spec.nodes]
    assert [n.get("activation") for n in nodes[:4]] == [
        "leaky=0.1",
        "leaky=0.1",
        "linear",
        "relu",
    ]
    assert nodes[1]["joint_activation"] == "silu"


def test_depth_and_width_are_rounded_as_published():
    rows = [
        [-1, 1, "C3", [100]],
        [-1, 2, "C3", [100]],
        [-1, 5, "C3", [100]],
        [-1, 9, "C3", [100]],
        # The outputs of a raw map are not scaled: 1 anchor, 3 classes.
        [-1, 1, "Conv", [8]],
    ]
    given = content(rows, depth_multiple=0.33, width_multiple=0.5, anchors=[[10, 20]])
    nodes = [node.arguments for node in build(given).spec.nodes]
    assert [n["num_blocks"] for n in nodes[:4]] == [1, 1, 2, 3]
    assert [n["features"] for n in nodes[:5]] == [56, 56, 56, 56, 8]
    given["nc"] = 4
    nodes = [node.arguments for node in build(given).spec.nodes]
    assert nodes[4]["features"] == 8
    given["backbone"][4][3][0] = 9
    assert build(given).spec.nodes[4].arguments["features"] == 9


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s-ghost", "yolov3-tiny"])
def test_what_falls_out_of_a_description_never_leaves_without_a_clear_error(name):
    """Every value of it replaced by something else, one at a time."""
    text = json.dumps(DESCRIPTIONS[name])
    values = [None, "x", -7, 10**12, [], {}, 1e308, [[[1]]]]
    places = [m.span() for m in re.finditer(r'"[^"]*"(?!:)|-?\d+\.?\d*|\[\]', text)]
    for number, (start, stop) in enumerate(places):
        value = json.dumps(values[number % len(values)])
        try:
            build(text[:start] + value + text[stop:])
        except ValueError as error:
            assert len(str(error)) < 800
