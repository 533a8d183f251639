import dataclasses
import json

import cv2
import numpy as np
import pytest
import simplejpeg

from yolojax.data import pipeline
from yolojax.data.decode import ImageError
from yolojax.data.report import Report
from yolojax.ops.letterbox import crop_shape
from yolojax.records import Example

SIZES = [(40, 60), (60, 40), (30, 30), (64, 128), (17, 90)]


@dataclasses.dataclass
class ListSource:
    """Examples from a list."""

    examples: list[Example]
    class_names: tuple[str, ...] = ("a", "b", "c")
    category_ids: tuple[int, ...] = (0, 1, 2)
    report: Report = dataclasses.field(default_factory=Report)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


def make_example(image, boxes, *, size, crowd=None, labels=None, name="picture"):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(boxes)
    return Example(
        image=image,
        boxes=boxes,
        labels=np.array([1] * n if labels is None else labels, np.int32),
        crowd=np.array([False] * n if crowd is None else crowd, bool),
        areas=np.zeros(n, np.float32),
        image_id=1000,
        size=size,
        name=name,
    )


def painted(index):
    """A dark picture with one bright box, whose colour and place tell the index."""
    height, width = SIZES[index % len(SIZES)]
    image = np.full((height, width, 3), index, np.uint8)
    box = [4, 2, width - 8, height - 6]
    image[box[1] : box[3], box[0] : box[2]] = 255
    return make_example(image, [box], size=(height, width))


@pytest.fixture(scope="module")
def source():
    return ListSource([painted(index) for index in range(23)])


def train(source, keep=None, **arguments):
    settings = dict(image_size=(32, 64), batch_size=4, max_boxes=3, seed=7)
    settings |= dict(num_threads=2) | arguments
    keep = np.arange(len(source)) if keep is None else keep
    return pipeline.make_train_batches(source, keep, **settings)


def evaluation(source, keep=None, **arguments):
    settings = dict(image_size=(32, 64), batch_size=4, num_threads=2) | arguments
    keep = np.arange(len(source)) if keep is None else keep
    return pipeline.make_eval_batches(source, keep, **settings)


def rectangular(source, keep=None, **arguments):
    settings = dict(image_size=(64, 64), stride=16, batch_size=4, num_threads=2)
    keep = np.arange(len(source)) if keep is None else keep
    return pipeline.make_rectangular_batches(source, keep, **settings | arguments)


def take(batches, count):
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_batches_have_the_shapes_and_types_of_the_record(source):
    (batch,) = take(train(source), 1)
    shapes = {name: (x.shape, str(x.dtype)) for name, x in batch._asdict().items()}
    assert shapes == {
        "image": ((4, 32, 64, 3), "uint8"),
        "size": ((4, 2), "int32"),
        "boxes": ((4, 3, 4), "float32"),
        "labels": ((4, 3), "int32"),
        "valid": ((4, 3), "bool"),
        "image_id": ((4,), "int32"),
        "origin": ((4, 4), "float32"),
        "polygons": ((4, 3, 0, 4), "float32"),
        "left_out": ((4, 0, 4), "float32"),
    }


def test_an_epoch_serves_each_kept_picture_once(source):
    keep = [1, 2, 3, 5, 8, 13, 21, 22]
    batches = train(source, keep)
    assert batches.steps_per_epoch == 2
    first, second = take(batches, 2)
    assert sorted([*first.image_id, *second.image_id]) == keep


@pytest.mark.parametrize("cache", ["none", "encoded"])
def test_a_stream_restored_through_json_goes_on_as_if_never_stopped(source, cache):
    whole = take(train(source, cache=cache), 15)
    stopped = train(source, cache=cache)
    for _ in range(8):
        next(stopped)
    state = json.loads(json.dumps(stopped.get_state()))
    stopped.close()
    resumed = train(source, cache=cache)
    next(resumed)
    resumed.set_state(state)
    assert_equal(take(resumed, 7), whole[8:])


def test_start_step_skips_batches(source):
    assert_equal(take(train(source, start_step=9), 3), take(train(source), 12)[9:])


def test_number_of_threads_does_not_change_the_data(source):
    one, five = (take(train(source, num_threads=k), 8) for k in (1, 5))
    assert_equal(one, five)
    one, five = (list(evaluation(source, num_threads=k)) for k in (1, 5))
    assert_equal(one, five)


def test_pictures_come_as_often_as_a_sampler_expects(source):
    repeats = np.where(np.arange(23) < 3, 5.0, 0.0)
    batches = train(source, repeats=repeats)
    assert batches.steps_per_epoch == 4
    shown = np.concatenate([batch.image_id for batch in take(batches, 4)])
    counts = np.bincount(shown[:15], minlength=23)
    np.testing.assert_array_equal(counts, repeats)


def test_seed_decides_the_order(source):
    (first,), (second,) = (take(train(source, seed=seed), 1) for seed in (0, 1))
    assert (first.image_id != second.image_id).any()


@pytest.mark.parametrize("kind", ["train", "weighted", "evaluation", "rectangular"])
def test_hosts_batches_in_order_are_the_single_hosts_batch(source, kind):
    if kind in ("train", "weighted"):
        more = {"repeats": np.linspace(0, 3, 23)} if kind == "weighted" else {}
        whole = take(train(source, **more), 7)
        parts = [take(train(source, shard=(k, 2), **more), 7) for k in range(2)]
    else:
        make = evaluation if kind == "evaluation" else rectangular
        whole = list(make(source))
        parts = [list(make(source, shard=(k, 2))) for k in range(2)]
    joined = [
        pipeline.Batch(*(np.concatenate(both) for both in zip(a, b, strict=True)))
        for a, b in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)


def test_train_pictures_are_shrunk_to_the_top_left_and_the_rest_is_zero():
    image = np.random.default_rng(0).integers(1, 256, (96, 128, 3), np.uint8)
    source = ListSource([make_example(image, [[8, 12, 40, 60]], size=(96, 128))])
    (batch,) = take(train(source, image_size=(32, 64), batch_size=1), 1)
    # 96 x 128 fits into 32 x 64 at a third: 32 x 43, for 42.67 is rounded.
    np.testing.assert_array_equal(batch.size, [[32, 43]])
    expected = cv2.resize(image, (43, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(batch.image[0, :, :43], expected)
    assert not batch.image[0, :, 43:].any()
    x = 43 / 128
    np.testing.assert_allclose(batch.boxes[0, 0], [8 * x, 4, 40 * x, 20], rtol=1e-6)
    np.testing.assert_allclose(batch.origin, [[1 / 3, x, 0, 0]], rtol=1e-6)


def test_train_pictures_are_not_enlarged():
    source = ListSource([painted(2)])
    (batch,) = take(train(source, image_size=(96, 64), batch_size=1), 1)
    np.testing.assert_array_equal(batch.size, [[30, 30]])
    np.testing.assert_array_equal(batch.image[0, :30, :30], source[0].image)
    assert not batch.image[0, 30:].any() and not batch.image[0, :, 30:].any()


@pytest.mark.parametrize("image_size", [(64, 64), (32, 128), (192, 160)])
@pytest.mark.parametrize("kind", ["train", "evaluation", "rectangular"])
def test_paint_is_found_where_the_box_says(source, image_size, kind):
    if kind == "train":
        batches = take(train(source, image_size=image_size), 6)
    else:
        make = evaluation if kind == "evaluation" else rectangular
        batches = list(make(source, image_size=image_size))
    for batch in batches:
        for row in np.flatnonzero(batch.image_id >= 0):
            rows, columns = np.nonzero(batch.image[row, :, :, 0] > 140)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert batch.valid[row].sum() == 1
            # The published inverse adds up to half a pixel.
            atol = 1.5 if kind == "rectangular" else 1.0
            np.testing.assert_allclose(batch.boxes[row, 0], found, atol=atol)


@pytest.mark.parametrize("image_size", [(64, 64), (32, 128), (192, 160)])
@pytest.mark.parametrize("make", [evaluation, rectangular])
def test_origin_brings_boxes_back_to_the_original(source, image_size, make):
    for batch in make(source, image_size=image_size):
        for row, index in enumerate(batch.image_id):
            if index < 0:
                continue
            scale_y, scale_x, top, left = batch.origin[row]
            box = batch.boxes[row, 0] - np.array([left, top, left, top])
            back = box / np.array([scale_x, scale_y, scale_x, scale_y])
            np.testing.assert_allclose(back, source[index].boxes[0], atol=1e-3)


def test_eval_pictures_are_centred_on_grey():
    image = np.random.default_rng(0).integers(0, 256, (30, 31, 3), np.uint8)
    source = ListSource([make_example(image, [], size=(30, 31))])
    (batch,) = evaluation(source, image_size=(60, 97), batch_size=1)
    # Twice the size: 60 x 62; of 35 columns of padding, 17 are on the left.
    expected = cv2.resize(image, (62, 60), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(batch.image[0, :, 17:79], expected)
    assert (batch.image[0, :, :17] == 114).all()
    assert (batch.image[0, :, 79:] == 114).all()
    np.testing.assert_array_equal(batch.origin, [[2, 2, 0, 17]])
    np.testing.assert_array_equal(batch.size, [[60, 62]])
    assert batch.boxes.shape == (1, 1, 4) and not batch.valid.any()


def test_a_centre_crop_shows_the_middle_of_the_resized_picture():
    # 32 px are .875 of 37; a picture of 37x74 stays as it is.
    image = np.random.default_rng(0).integers(0, 256, (37, 74, 3), np.uint8)
    example = make_example(image, [[21, 2, 40, 10]], size=(37, 74))
    [batch] = evaluation(
        ListSource([example]), image_size=(32, 32), batch_size=1, place=crop_shape
    )
    np.testing.assert_array_equal(batch.image[0], image[2:34, 21:53])
    np.testing.assert_array_equal(batch.origin[0], [1, 1, -2, -21])
    np.testing.assert_array_equal(batch.boxes[0, 0], [0, 0, 19, 8])
    assert batch.size[0].tolist() == [32, 32]


def test_eval_pictures_are_shrunk_from_all_their_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)
    encoded = simplejpeg.encode_jpeg(pixels, quality=95)
    source = ListSource([make_example(encoded, [], size=(90, 150))])
    (batch,) = evaluation(source, image_size=(44, 73), batch_size=1)
    expected = cv2.resize(
        simplejpeg.decode_jpeg(encoded), (73, 44), interpolation=cv2.INTER_AREA
    )
    np.testing.assert_array_equal(batch.image[0], expected)


def test_eval_serves_the_kept_pictures_in_order_again_and_again(source):
    batches = evaluation(source, [4, 1, 9, 2, 0])
    assert len(batches) == 2
    passes = [list(batches), list(batches)]
    assert_equal(*passes)
    ids = [batch.image_id.tolist() for batch in passes[0]]
    assert ids == [[4, 1, 9, 2], [0, -1, -1, -1]]
    last = passes[0][1]
    assert not last.valid[1:].any() and (last.image[1:] == 114).all()
    np.testing.assert_array_equal(last.origin[1:], [[1, 1, 0, 0]] * 3)


def test_rectangular_batches_go_from_wide_to_tall_each_on_its_own_canvas(source):
    batches = rectangular(source)
    passes = [list(batches), list(batches)]
    assert_equal(*passes)
    *ids, padding = np.concatenate([batch.image_id for batch in passes[0]])
    assert sorted(ids) == list(range(23)) and padding == -1
    # Ratios .19, .5, .67, 1, 1.5 of the indices modulo 5.
    kinds = [kind for kind in (4, 3, 0, 2, 1) for _ in range(kind, 23, 5)]
    np.testing.assert_array_equal(np.array(ids) % 5, kinds)
    # The largest ratio of the four times 64 / 16, plus a half, rounded up: 17/90 gives
    # 2, 1/2 gives 3, 2/3 gives 4, 1 gives 5; the longer side is always 5.
    assert [batch.image.shape[1:3] for batch in passes[0]] == [
        *((32, 80), (48, 80), (64, 80), (80, 80), (80, 80), (80, 64))
    ]
    assert batches.shapes == ((32, 80), (48, 80), (64, 80), (80, 80), (80, 64))
    assert len(batches) == 6
    last = passes[0][-1]
    assert (last.image[3] == 114).all() and not last.valid[3].any()


def test_rectangular_pictures_are_as_large_as_square_ones_and_centred_on_grey(source):
    square = {
        int(index): (size, image)
        for batch in evaluation(source, image_size=(64, 64))
        for index, size, image in zip(
            batch.image_id, batch.size, batch.image, strict=True
        )
    }
    for batch in rectangular(source):
        canvas = batch.image.shape[1:3]
        for row in np.flatnonzero(batch.image_id >= 0):
            (height, width), image = square[int(batch.image_id[row])]
            np.testing.assert_array_equal(batch.size[row], (height, width))
            top, left = (canvas[0] - height) // 2, (canvas[1] - width) // 2
            # As published, half a pixel off where the padding is odd.
            halves = (canvas[0] - height) / 2, (canvas[1] - width) / 2
            np.testing.assert_array_equal(batch.origin[row, 2:], halves)
            inside = (slice(top, top + height), slice(left, left + width))
            top, left = (64 - height) // 2, (64 - width) // 2
            expected = image[top : top + height, left : left + width]
            np.testing.assert_array_equal(batch.image[row][inside], expected)
            outside = np.ones(canvas, bool)
            outside[inside] = False
            assert (batch.image[row][outside] == 114).all()


def test_rectangular_batches_of_no_picture_or_size_are_told(source):
    assert len(rectangular(source, [])) == 0
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        rectangular(source, batch_size=0)


def test_leaving_an_eval_pass_early_is_harmless(source):
    batches = evaluation(source)
    for batch in batches:
        first = batch
        break
    assert_equal([first], [next(iter(batches))])


def test_crowds_and_boxes_without_area_are_left_out():
    boxes = [
        [0, 0, 9, 9],
        [1, 1, 5, 5],
        [3, 3, 3, 8],
        [8, 2, 4, 6],
        [np.nan, 0, 4, 4],
        [0, 0, np.inf, 4],
        [2, 2, 6, 7],
    ]
    crowd = [True] + [False] * 6
    example = make_example(
        np.zeros((32, 32, 3), np.uint8),
        boxes,
        size=(32, 32),
        crowd=crowd,
        labels=[0, 1, 0, 0, 0, 0, 2],
    )
    (batch,) = take(train(ListSource([example]), batch_size=1), 1)
    np.testing.assert_array_equal(batch.valid[0], [True, True, False])
    np.testing.assert_array_equal(batch.labels[0], [1, 2, 0])
    np.testing.assert_array_equal(
        batch.boxes[0], [[1, 1, 5, 5], [2, 2, 6, 7], [0, 0, 0, 0]]
    )


def test_boxes_that_find_no_row_are_counted():
    image = np.zeros((32, 32, 3), np.uint8)
    boxes = [[k, 0, k + 2, 2] for k in range(5)]
    source = ListSource(
        [
            make_example(image, boxes, size=(32, 32)),
            make_example(image, [], size=(32, 32)),
        ]
    )
    assert pipeline.max_boxes_of(source, [0, 1]) == 5
    assert pipeline.max_boxes_of(source, [1]) == 1
    assert pipeline.max_boxes_of(source, []) == 1
    batches = train(source, batch_size=2, max_boxes=3)
    batch = next(batches)
    full = int(np.flatnonzero(batch.image_id == 0)[0])
    np.testing.assert_array_equal(batch.boxes[full, :, 0], [0, 1, 2])
    stats = batches.stats
    batches.close()
    # Only what was handed out counts, not what is prepared ahead.
    assert (stats["batches"], stats["pictures"], stats["boxes_cut"]) == (1, 2, 2)
    assert stats["decode_seconds"] > 0 and stats["wait_seconds"] > 0


def test_a_full_set_of_boxes_of_an_eval_pass_is_kept(source):
    example = make_example(
        np.zeros((32, 32, 3), np.uint8), [[0, 0, 4, 4]] * 9, size=(32, 32)
    )
    (batch,) = evaluation(ListSource([painted(0), example]), batch_size=2)
    np.testing.assert_array_equal(batch.valid.sum(axis=1), [1, 9])


def test_files_of_every_kind_become_rgb_of_the_same_size(tmp_path):
    gradient = np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1))
    colour = cv2.merge([gradient, gradient // 2, 255 - gradient])
    pictures = {
        "gray.jpg": gradient,
        "gray.png": gradient,
        "deep.png": gradient.astype(np.uint16) * 257,
        "alpha.png": cv2.merge([gradient, gradient, gradient, gradient]),
        "colour.png": colour,
    }
    examples = []
    for name, pixels in pictures.items():
        path = str(tmp_path / name)
        assert cv2.imwrite(path, pixels)
        examples.append(make_example(path, [], size=(32, 64), name=path))
    (batch,) = evaluation(ListSource(examples), batch_size=5)
    for row, name in enumerate(pictures):
        expected = colour[..., ::-1] if name == "colour.png" else gradient[..., None]
        difference = np.abs(batch.image[row].astype(int) - expected)
        assert difference.max() <= (3 if name.endswith("jpg") else 0), name


def test_a_file_that_vanished_since_the_scan_is_named(tmp_path):
    path = str(tmp_path / "gone.jpg")
    source = ListSource([make_example(path, [], size=(32, 32), name=path)])
    with pytest.raises(ImageError, match="gone.jpg: cannot be read any more .*moved"):
        take(train(source), 1)
    with pytest.raises(ImageError, match="gone.jpg: cannot be read any more"):
        list(evaluation(source))


def test_a_picture_that_is_not_of_the_size_of_its_labels_is_an_error():
    image = np.zeros((40, 30, 3), np.uint8)
    source = ListSource([make_example(image, [], size=(30, 40), name="turned.png")])
    with pytest.raises(ImageError, match="turned.png.*40x30 pixels, but 30x40"):
        take(train(source), 1)


def test_wrong_arguments_are_named(source):
    with pytest.raises(ValueError, match="no cache named 'encode'.*mean 'encoded'"):
        train(source, cache="encode")
    with pytest.raises(ValueError, match="at least 1 pictures to train on"):
        train(source, [])
    with pytest.raises(ValueError, match="num_threads must be at least 1, not 0"):
        train(source, num_threads=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        evaluation(source, batch_size=0)
