"""Merging what views and networks find, with answers worked out by hand."""

import numpy as np
import pytest

from tests.engine.test_evaluate import KnownDetector, make_batch, raw_maps
from yolojax.engine import evaluate, merging, sharding
from yolojax.ops.views import PLAIN, View
from yolojax.records import Detections


def found(*rows):
    """Detections of one picture: rows of x1 y1 x2 y2 score label."""
    table = np.array(rows, np.float32).reshape(1, -1, 6)
    return Detections(
        boxes=table[..., :4],
        scores=table[..., 4],
        labels=table[..., 5].astype(np.int32),
        valid=table[..., 4] > 0,
    )


PARTS = [
    found([0, 0, 10, 10, 0.9, 0], [30, 0, 40, 10, 0.5, 1]),
    found([0, 0, 10, 8, 0.6, 0], [0, 0, 0, 0, 0, 0]),
]


@pytest.mark.parametrize(
    "name, expected",
    [
        # The second box is seen by one of two.
        ("wbf", [[0, 0, 10, 9.2, 0.75, 0], [30, 0, 40, 10, 0.25, 1]]),
        ("nms", [[0, 0, 10, 10, 0.9, 0], [30, 0, 40, 10, 0.5, 1]]),
    ],
)
@pytest.mark.parametrize("threshold, count", [(0.2, 2), (0.55, 1)])
def test_parts_are_merged_and_what_is_less_sure_goes(name, expected, threshold, count):
    merge = merging.make_merge(
        name, num_parts=2, score_threshold=threshold, iou_threshold=0.55
    )
    [(ids, merged)] = merging.merge_passes(
        [[(np.array([7]), part)] for part in PARTS], merge
    )
    assert ids.tolist() == [7]
    valid = merged.valid[0]
    assert valid.sum() == count
    rows = np.column_stack([merged.boxes[0], merged.scores[0], merged.labels[0]])
    np.testing.assert_allclose(rows[valid], expected[:count], atol=1e-5)


def test_views_below_the_threshold_still_count_where_scores_are_averaged():
    assert merging.part_threshold("nms", 0.3, 3) == 0.3
    np.testing.assert_allclose(merging.part_threshold("wbf", 0.3, 3), 0.1)
    with pytest.raises(ValueError, match="no merge named 'wfb'. Did you mean 'wbf'"):
        merging.part_threshold("wfb", 0.3, 3)


def test_wrong_merges_and_batches_are_refused():
    with pytest.raises(ValueError, match="an iou from 0 to 1, not 2 and 1.5"):
        merging.make_merge("wbf", num_parts=2, score_threshold=0, iou_threshold=1.5)
    passes = [[(np.array([i]), PARTS[0])] for i in range(2)]
    with pytest.raises(ValueError, match="the same pictures in each batch"):
        list(merging.merge_passes(passes, lambda parts: parts[0]))


def test_a_step_with_views_lists_what_each_of_them_shows():
    # The detector answers with the same boxes whatever it is shown.
    variables = raw_maps([[(3, 3, 2.0, 0)]])

    def find(*views):
        predict = evaluate.make_predict_step(
            KnownDetector(), sharding.make_mesh(1), max_detections=2, views=views
        )
        return predict(variables, make_batch([0]))

    once, both = find(PLAIN), find(PLAIN, View(mirrored=True))
    np.testing.assert_array_equal(both.valid, [[True, False, True, False]])
    np.testing.assert_array_equal(both.boxes[:, 0], once.boxes[:, 0])
    # From 22 to 34 of 64 pixels on the mirrored canvas; it begins at 2, 1.5 to one.
    x = np.array([64 - 34 - 2, 64 - 22 - 2]) / 1.5
    np.testing.assert_allclose(both.boxes[0, 2, [0, 2]], x, rtol=1e-5)
    np.testing.assert_allclose(both.boxes[0, 2, [1, 3]], once.boxes[0, 0, [1, 3]])
