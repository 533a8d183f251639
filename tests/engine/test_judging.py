import math

import pytest

from yolojax.engine import judging
from yolojax.engine.book import UNJUDGED, Bookkeeping
from yolojax.metrics.detection import ROWS


def judges(**changes):
    given = dict(best="fitness", metric="fitness", patience=0, min_change=0.0)
    return judging.make_judges(**(given | {"evaluates": True} | changes))


def test_every_number_of_an_evaluation_is_a_metric_and_losses_are_better_low():
    assert {row[0] for row in ROWS} <= judging.METRICS.keys()
    low = {name for name, metric in judging.METRICS.items() if not metric.higher}
    assert low == {"loss", "val_loss"}
    assert judging.METRICS["val_loss"].score({"val_loss": 2.0}) == -2.0
    assert judging.METRICS["AR10"].score({"AR10": 0.5}) == 0.5
    assert math.isnan(judging.METRICS["AR10"].score({"AR1": 0.5}))


def test_fitness_is_as_published():
    assert judging.fitness({"mAP50": 0.5, "mAP50_95": 0.25}) == pytest.approx(0.275)
    assert math.isnan(judging.fitness({"mAP50": 0.5}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"best": "map50"}, r"checkpoint.best.*'map50'.*mean 'mAP50'"),
        ({"metric": "los"}, r"early_stopping.metric.*Did you mean 'loss'"),
        ({"patience": 1, "evaluates": False}, "patience needs config.data.val"),
        ({"best": "mAP50", "evaluates": False}, "checkpoint.best='mAP50' needs"),
        ({"best": "val_loss", "evaluates": False}, "checkpoint.best='val_loss' needs"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        judges(**changes)


def test_the_training_loss_needs_no_evaluation():
    judges(best="loss", metric="loss", patience=3, evaluates=False)


def test_each_judge_looks_at_its_own_numbers_only():
    judge, book = judges(metric="loss", patience=1), Bookkeeping()
    assert not judge.see(book, 2, {"loss": 1.0}, train=True)
    assert (book.best_step, book.since_best) == (0, 0)
    assert judge.see(book, 2, {"mAP50": 0.5, "mAP50_95": 0.5}, train=False)
    assert (book.best_step, book.since_best) == (2, 0)
    assert not judge.see(book, 4, {"loss": 1.0}, train=True)
    assert judge.exhausted(book)


def test_values_that_are_not_finite_are_never_better():
    judge, book = judges(best="mAP50", metric="mAP50"), Bookkeeping()
    for value in (math.nan, math.inf, -math.inf):
        assert not judge.see(book, 1, {"mAP50": value}, train=False)
    assert (book.best, book.since_best) == (UNJUDGED, 3)


def test_patience_counts_from_the_step_on_when_statistics_have_settled():
    judge, book = judges(patience=2, settled=30), Bookkeeping()
    for step, since in ((10, 0), (20, 0), (29, 0), (30, 1), (40, 2)):
        assert not judge.exhausted(book)
        judge.see(book, step, {"mAP50": 0.0, "mAP50_95": math.nan}, train=False)
        assert book.since_best == since
    assert judge.exhausted(book)
    # What training itself says is there from the first step on.
    judge, book = judges(metric="loss", patience=2, settled=30), Bookkeeping()
    for step in (10, 20, 29):
        judge.see(book, step, {"loss": 1.0}, train=True)
    assert judge.exhausted(book)


def test_books_of_older_checkpoints_are_read():
    old = {"best": 0.5, "best_step": 3, "since_best": 2, "boxes_cut": 1.0}
    book = Bookkeeping.restored(old)
    assert (book.stop_best, book.best_weights, book.pictures) == (0.5, "ema", "")


def test_an_evaluation_says_how_much_patience_is_used_up():
    judge, book = judges(patience=3, settled=20), Bookkeeping()

    def remark(step, value):
        better = judge.see(book, step, {"mAP50": value, "mAP50_95": value}, train=False)
        return judge.remark(book, step, better=better)

    assert remark(10, 0.5) == "  (best so far, patience counts from step 20)"
    assert remark(15, 0.4) == "  (patience counts from step 20)"
    assert remark(20, 0.4) == "  (patience 1/3)"
    assert remark(30, 0.6) == "  (best so far)"
    assert remark(40, 0.6) == "  (patience 1/3)"


def test_without_patience_only_the_best_is_remarked():
    judge, book = judges(), Bookkeeping()
    values = {"mAP50": 1.0, "mAP50_95": 1.0}
    for step, expected in ((1, "  (best so far)"), (2, "")):
        better = judge.see(book, step, values, train=False)
        assert judge.remark(book, step, better=better) == expected
