"""Plots of classifiers: what they show, at the edges, and what their numbers are."""

import math

import cv2
import numpy as np
import pytest

from yolojax.metrics.classification import class_metrics
from yolojax.vis import classification, confusion, mistakes, pictures

SLOW = pytest.mark.slow
# OpenCV reads blue first.
BLUE, VERMILION = (0xB2, 0x72, 0x00), (0x00, 0x5E, 0xD5)


def read_png(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image


def share_of(image, colour):
    return (np.abs(image.astype(int) - colour).max(axis=2) < 12).mean()


def test_shares_of_neighbouring_classes_are_pooled():
    counts = np.array(
        [
            [3, 1, 0, 0, 0],
            [0, 4, 0, 0, 0],
            [0, 2, 1, 1, 0],
            [0, 0, 0, 0, 0],
            [5, 0, 0, 0, 5],
        ]
    )
    alone = confusion.pool_shares(counts, 1)
    np.testing.assert_allclose(alone[2], [0, 1 / 2, 1 / 4, 1 / 4, 0])
    assert np.isnan(alone[3]).all()
    expected = [[7 / 8, 0, 0], [1 / 2, 1 / 4, 0], [1 / 2, 0, 1 / 2]]
    np.testing.assert_allclose(confusion.pool_shares(counts, 2), expected)
    empty = confusion.pool_shares(np.zeros((4, 4), int), 2)
    assert np.isnan(empty).all()


def test_confused_pairs_come_by_their_count():
    counts = np.array([[9, 2, 0], [3, 9, 2], [0, 0, 9]])
    expected = [(1, 0, 3), (0, 1, 2), (1, 2, 2)]
    assert confusion.confused_pairs(counts, 10) == expected
    assert confusion.confused_pairs(counts, 2) == expected[:2]
    assert counts[0, 0] == 9


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=SLOW), 410])
def test_right_is_blue_and_wrong_is_vermilion(tmp_path, count):
    names = [f"class {i}" for i in range(count)]
    right = np.diag(np.full(count, 5))
    if count > 100:
        path = confusion.plot_confusion(
            np.roll(right, 7, 1), names, tmp_path / "a" / "w.png"
        )
        assert share_of(read_png(path), VERMILION) > 1e-3
        return
    good, bad = (
        read_png(confusion.plot_confusion(counts, names, tmp_path / "a.png"))
        for counts in (right, np.roll(right, 1, axis=1))
    )
    assert share_of(good, BLUE) > 2 * share_of(bad, BLUE) + 1e-3
    assert share_of(bad, VERMILION) > 2 * share_of(good, VERMILION) + 1e-3


def test_plots_without_pictures_say_so(tmp_path):
    names, none = ("$a", "猫"), np.zeros(0)
    metrics = class_metrics(np.zeros((0, 2)), np.zeros(0, int))
    part = pictures.Pictures(np.zeros(0, int), np.zeros((0, 2), int))
    output = tmp_path / "a.png"
    for path in (
        confusion.plot_confusion(np.zeros((2, 2)), names, output),
        classification.plot_reliability(none, none > 0, output),
        classification.plot_classes(metrics, np.zeros(2), names, output),
        pictures.plot_pictures({"train": part, "val": part}, names, output),
    ):
        assert read_png(path).std() > 5


def test_wilson_interval_by_hand():
    # With z^2 = 3.8416: without a hit the end is z^2 / (n + z^2).
    low, high = classification.wilson_interval(np.array([0.0, 0.5]), np.array([10, 4]))
    assert low[0] == pytest.approx(0, abs=1e-12)
    assert high[0] == pytest.approx(3.8416 / 13.8416)
    # At a half the middle stays and the reach is z / (2 sqrt(n + z^2)).
    reach = 1.96 / (2 * math.sqrt(7.8416))
    assert (low[1], high[1]) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_a_classifier_that_is_always_wrong_is_drawn_vermilion(tmp_path):
    path = tmp_path / "a.png"
    sure = np.full(30, 0.99)
    shares = []
    for right in (np.ones(30, bool), np.zeros(30, bool)):
        image = read_png(classification.plot_reliability(sure, right, path))
        shares.append((share_of(image, BLUE), share_of(image, VERMILION)))
    assert shares[0][0] > 3 * shares[1][0] and shares[1][1] > 3 * shares[0][1]


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=SLOW)])
def test_classes_and_data_are_drawn(tmp_path, count):
    labels = np.arange(80) % count
    metrics = class_metrics(np.eye(count)[labels], labels)
    names = [f"name {i}" for i in range(count)]
    predicted = np.bincount(labels, minlength=count)
    path = classification.plot_classes(metrics, predicted, names, tmp_path / "a.png")
    assert share_of(read_png(path), BLUE) > 1e-4
    sizes = np.tile([[20, 1000], [480, 640]], (40, 1))
    parts = {"train": (labels, sizes), "val": (labels[:1], sizes[:1])}
    found = {name: pictures.Pictures(*part) for name, part in parts.items()}
    path = pictures.plot_pictures(found, names, tmp_path / "b.png")
    assert read_png(path).std() > 5


def test_sheets_have_a_cell_for_each_picture():
    tall = np.full((400, 100, 3), 90, np.uint8)
    small = np.full((8, 8, 3), 30, np.uint8)
    shown = [mistakes.Shown(p, 1, 0.5, "is a") for p in (tall, small)]
    cell = mistakes.draw_verdict(shown[0], ("a", "b"))
    assert cell.shape == (200, 50, 3)
    assert mistakes.draw_verdict(shown[1], ("a", "b")).shape == (200, 200, 3)
    rows = mistakes.titled_rows([("one", shown), ("two", shown * 5)], ("a", "b"))
    sheet = mistakes.sheet_of(shown * 3, ("a", "b"))
    assert rows.shape[1] == sheet.shape[1] and rows.shape[0] > 2 * sheet.shape[0]
    # The second row is full, the first one is not.
    bottom = rows[-sheet.shape[0] :]
    assert (bottom[:, -150:] < 100).any() and (
        rows[: -sheet.shape[0], 450:] > 200
    ).all()
