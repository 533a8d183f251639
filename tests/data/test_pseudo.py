import json

import numpy as np
import pytest

from yolojax.data import pipeline
from yolojax.data.pseudo import PseudoLabelled, labels_above, with_labels
from yolojax.data.report import Report
from yolojax.data.sources.handwritten import HandwrittenSource
from yolojax.data.sources.joined import JoinedSource
from yolojax.data.weighing import WeighedBatches, weights_of_losses

FIRST = 1302  # index of the first picture without a label
KEEP = np.r_[0:8, FIRST : FIRST + 8]  # eight labelled pictures and eight without
BATCH, EPOCH = 4, 4


@pytest.fixture(scope="module")
def source():
    train = HandwrittenSource(size=8)
    joined = JoinedSource(train, HandwrittenSource(split="val", size=8))
    assert joined.num_labelled == len(train) == FIRST
    return joined


def stream(source, *, keep=KEEP, weighed=False, **options):
    batches = pipeline.make_train_batches(
        source,
        keep,
        image_size=(8, 12),
        batch_size=BATCH,
        max_boxes=2,
        seed=3,
        num_threads=1,
    )
    if weighed:
        weigh = lambda losses: weights_of_losses(losses, power=1.0)  # noqa: E731
        batches = WeighedBatches(batches, weigh, keep)
    others = keep[keep >= source.num_labelled]
    options = {"threshold": 0.9, **options}
    return PseudoLabelled(batches, others, len(source), **options)


def told(confidence, label):
    """Probabilities of ten classes."""
    rest = (1 - confidence) / 9
    return [confidence if c == label else rest for c in range(10)]


def test_labels_above_a_threshold_by_hand():
    rows = np.array([[0.5, 0.4], [0.2, 0.8], [0.7, 0.3], [np.nan, 0.9]], np.float32)
    np.testing.assert_array_equal(labels_above(rows, 0.7), [-1, 1, 0, -1])
    assert labels_above(np.zeros((0, 3)), 0.5).shape == (0,)
    assert labels_above(np.zeros((2, 3)), 0.0).dtype == np.int32


def test_joined_pictures_have_no_labels_of_their_own(source):
    first = source[source.num_labelled]
    assert first.labels.shape == (0,) and first.boxes.shape == (0, 4)
    assert first.image_id == source.num_labelled and source[5].image_id == 5
    assert len(source[5].labels) == 1 and not source.multi_label
    np.testing.assert_array_equal(source[-1].image, source[len(source) - 1].image)
    with pytest.raises(IndexError):
        source[len(source)]

    class Faulty:
        class_names, category_ids, multi_label, report = ("a",), (0,), False, Report()

        def __len__(self):
            return 0

    faulty = Faulty()
    faulty.report.add("kind", "file", None, "text")
    assert JoinedSource(source, faulty).report.counts == {"kind": 1}


def test_batches_get_the_labels_of_the_table_and_no_others(source):
    batches = stream(source)
    plain = [next(batches) for _ in range(EPOCH)]
    numbers = batches.see_probabilities(
        np.array([FIRST, FIRST + 1, 3]),
        np.array([told(0.95, 7), told(0.8, 2), told(1, 0)]),
    )
    assert numbers == {"pseudo/labelled_share": 1 / 8, "pseudo/changed_share": 1 / 8}
    batches.set_state({"next_index": 0, "pseudo_labels": ""})
    batches.see_probabilities(np.array([FIRST]), np.array([told(0.95, 7)]))
    given = [next(batches) for _ in range(EPOCH)]
    seen = 0
    for before, after in zip(plain, given, strict=True):
        assert before.image_id.tolist() == after.image_id.tolist()
        for row, index in enumerate(after.image_id):
            if index == FIRST:
                seen += 1
                assert after.valid[row].tolist() == [True, False]
                assert after.labels[row].tolist() == [7, 0]
                assert after.boxes[row].tolist() == [[0, 0, 8, 8], [0, 0, 0, 0]]
                assert not before.valid[row].any()
            elif index >= source.num_labelled:
                assert not after.valid[row].any()
            else:
                assert after.labels[row, 0] == source[index].labels[0]
                assert after.valid[row].tolist() == [True, False]
    assert seen == 1
    batches.close()


def test_a_padded_row_is_no_picture(source):
    (batch,) = pipeline.make_eval_batches(
        source, KEEP[:1], image_size=(8, 8), batch_size=2, num_threads=1
    )
    table = np.full(len(source), 5, np.int32)
    labelled = with_labels(batch, table)
    assert labelled.labels[:, 0].tolist() == [5, 0]
    assert labelled.valid.tolist() == [[True], [False]]
    assert batch.labels[0, 0] == source[0].labels[0]


def test_labels_are_refreshed_every_so_many_epochs(source):
    batches = stream(source, every_epochs=3)
    assert batches.steps_per_epoch == EPOCH
    assert [step for step in range(30) if batches.due(step)] == [12, 24]
    batches.close()


@pytest.mark.parametrize("weighed", [False, True])
def test_a_run_that_goes_on_sees_the_same_bits(source, weighed):
    straight = stream(source, weighed=weighed)
    for _ in range(EPOCH):
        next(straight)
    rows = np.arange(FIRST, FIRST + 8)
    sure = [told(0.91 if n % 2 else 0.89, n % 10) for n in rows]
    straight.see_probabilities(rows, np.array(sure))
    if weighed:
        straight.see_losses(EPOCH, np.linspace(0, 1, len(source), dtype=np.float32))
    next(straight)
    state = json.loads(json.dumps(straight.get_state()))
    again = stream(source, weighed=weighed)
    again.set_state(state)
    assert again.table.tolist() == straight.table.tolist()
    for _ in range(6):
        for a, b in zip(next(straight), next(again), strict=True):
            np.testing.assert_array_equal(a, b)
    for batches in (straight, again):
        batches.close()


def test_labels_of_other_pictures_are_refused(source):
    batches = stream(source)
    batches.see_probabilities(np.array([FIRST]), np.array([told(1.0, 1)]))
    state = batches.get_state()
    batches.table = batches.table[:-1]
    with pytest.raises(ValueError, match="of 1442 training pictures, but there are"):
        batches.set_state(state)
    batches.set_state({"next_index": 2})
    assert batches.get_state()["pseudo_labels"] == ""
    batches.close()
