"""What is said of a run that goes on: its data, and what more epochs do to it."""

import ast

import numpy as np
import pytest

from tests.tiny import tiny_config
from yolojax import experiment, resuming, settings
from yolojax.data import identity
from yolojax.data.identity import Item, Part
from yolojax.engine.book import Bookkeeping

LINEAR = {
    "data__val": {},
    "epochs": 10,
    "optim__learning_rate": 0.1,
    "optim__final_ratio": 0.01,
    "optim__warmup_epochs": 0.0,
    "augment__close_mosaic_epochs": 2,
}


def test_more_epochs_are_told_with_the_rates_that_they_bring():
    # 24 images in batches of 8: 3 steps an epoch.
    before = tiny_config(**LINEAR)
    book = Bookkeeping()
    run = experiment.build(settings.with_changes(before, {"epochs": 20}))
    text = resuming.note_course(before, run, book, 30)
    # 1 - 9/10 * .99 = .109; 1 - 10/20 * .99 = .505; 1 - 19/20 * .99 = .0595.
    assert text.splitlines() == [
        "changed from step 30 on: config.epochs was 10, now 20",
        "the linear schedule is laid over 20 epochs instead of 10: the learning rate "
        "goes from 0.0109 to 0.0505 here and ends at 0.00595",
        "mosaic and mixing, off since step 24, are on again until step 54",
        "the moving average of the weights and the optimiser go on",
    ]
    assert book.changes == [{"step": 30, "what": "config.epochs was 10, now 20"}]
    assert resuming.note_course(run.settings, run, book, 30) == ""


@pytest.mark.parametrize(
    "changed, reason, key",
    [
        ({}, "steps", "epochs=20"),
        ({"max_steps": 9}, "steps", "max_steps=18"),
        ({"max_steps": 20}, "steps", "max_steps=30"),
        ({"max_hours": 0.5}, "max_hours", "max_hours=1.0"),
        (
            {"early_stopping__patience": 4, "early_stopping__metric": "loss"},
            "patience",
            "early_stopping.patience=8",
        ),
        ({"stages": ({"epochs": 4}, {"epochs": 2})}, "steps", "epochs=12"),
    ],
)
def test_a_run_that_has_ended_tells_the_command_that_goes_on(
    changed, reason, key, tmp_path
):
    run = experiment.build(tiny_config(**LINEAR | changed))
    place = tmp_path / "a run"
    found = resuming.ended(run, place, run.total_steps, reason)
    assert f"{place} is finished; " in found
    command = f"python -m yolojax.train --workdir '{place}' --config.{key}"
    assert found.splitlines()[0].endswith(command)
    # As the command does it.
    name, _, value = key.partition("=")
    given = {name: ast.literal_eval(value)}
    after = settings.with_changes(run.settings, given)
    settings.write_config(run.settings, place)
    settings.check_config(after, place)


def test_schedules_that_go_by_evaluations_and_means_of_the_end_are_told():
    given = LINEAR | {
        "optim__schedule": "reduce_on_plateau",
        "data__val": tiny_config()["data"]["val"],
        "swa__epochs": 3,
        "ema__name": "none",
    }
    before = tiny_config(**given)
    run = experiment.build(settings.with_changes(before, {"epochs": 12}))
    lines = resuming.note_course(before, run, Bookkeeping(), 6).splitlines()
    assert lines[1:] == [
        "the reduce_on_plateau schedule goes by evaluations, and goes on",
        "SWA takes the last 3 epochs, from epoch 9 on",
    ]


def part(label):
    return Part(("cat",), (Item("/a/x.png", "1 1 f", label, "train"),))


def test_changed_data_are_refused_or_noted(tmp_path):
    before, now = {"train": part("1")}, {"train": part("2")}
    identity.write_parts(tmp_path, before, {})
    saved = identity.digests_of(before)

    def check(parts, allowed, **known):
        book = Bookkeeping(pictures="text", **{"data": saved, **known})
        return book, resuming.check_data(parts, tmp_path, book, 7, allowed=allowed)

    assert check(before, False)[1] == ""
    message = "trained for 7 steps on other data. config.data.train: 1 image with other"
    with pytest.raises(ValueError, match=message):
        check(now, False)
    book, note = check(now, True)
    assert "from step 7 on it is a different run" in note and "x.png" in note
    assert book.pictures == "" and book.changes[0]["step"] == 7
    # A checkpoint of an older version.
    book, note = check(now, False, data={})
    assert "whether they are the same is not checked" in note
    assert book.pictures == "text"
    # A list that was lost: the digest still tells.
    (tmp_path / identity.FILE).unlink()
    with pytest.raises(ValueError, match="data.json does not tell what changed"):
        check(now, False)


def test_a_changed_val_set_keeps_what_is_known_of_the_training_images(tmp_path):
    before = {"train": part("1"), "val": part("1")}
    now = {"train": part("1"), "val": part("2")}
    saved = identity.digests_of(before)
    book = Bookkeeping(pictures="text", data=saved)
    assert resuming.check_data(now, tmp_path, book, 3, allowed=True)
    assert book.pictures == "text"
    state = {"next_index": 3, "losses": "a", "pseudo_labels": "b"}
    assert resuming.stream_state(state, saved, now) == state
    assert resuming.stream_state(state, {}, now) == state
    other = {"train": part("3"), "val": part("1")}
    assert resuming.stream_state(state, saved, other) == {"next_index": 3}


def test_a_fold_is_known_by_what_it_holds_out(tmp_path):
    def parts(index):
        folds = {"count": 3, "index": index, "kind": "plain"}
        run = experiment.build(tiny_config(data__val={}, data__folds=folds))
        return resuming.parts_of(run, tmp_path)["train"]

    one = parts(0)
    uses = [item.use for item in one.items]
    assert (uses.count("train"), uses.count("val")) == (16, 8)
    assert one.digest != parts(1).digest
    assert one.digest == parts(0).digest
    assert np.array_equal(one.items, parts(0).items)


def test_a_command_for_fewer_steps_than_were_made_names_both(tmp_path):
    run = experiment.build(tiny_config(**LINEAR))
    found = resuming.beyond(run, tmp_path / "a run", run.total_steps + 6)
    steps = f"{run.total_steps + 6} steps, more than the {run.total_steps} of this"
    assert steps in found and "config.epochs=10" in found
    assert found.endswith(f"yolojax.train --workdir '{tmp_path / 'a run'}'")
