"""Listing the files below a folder, through links."""

import os

import pytest

from tests.data.classified import classes_of, names_of, paint
from yolojax.data import media, walking
from yolojax.data.report import Report
from yolojax.data.sources.base import list_pictures
from yolojax.data.sources.filename import FilenameSource
from yolojax.data.sources.folder import FolderSource
from yolojax.data.sources.yolo import YoloSource


def make(root, *names):
    """Pictures of one pixel's worth of paint under these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        paint(root / name, 0)
    return root


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def listed(folder, report=None):
    paths = list_pictures(folder, report or Report())
    return [os.path.relpath(path, folder) for path in paths]


def test_a_link_to_a_folder_is_followed_at_any_depth(tmp_path):
    make(tmp_path, "set/a.png", "set/own/b.png", "pool/c.png", "pool/deep/d.png")
    link(tmp_path / "set/own/more", "../../pool")
    report = Report()
    assert listed(tmp_path / "set", report) == [
        "a.png",
        "own/b.png",
        "own/more/c.png",
        "own/more/deep/d.png",
    ]
    assert report.render() == ""


def test_a_link_behind_a_link_is_followed(tmp_path):
    make(tmp_path, "set/a.png", "one/b.png", "two/c.png")
    link(tmp_path / "set/x", tmp_path / "one")
    link(tmp_path / "one/y", tmp_path / "two")
    assert listed(tmp_path / "set") == ["a.png", "x/b.png", "x/y/c.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../sub", "/"])
def test_a_link_to_a_folder_that_holds_it_ends_and_is_noted(tmp_path, target):
    make(tmp_path, "val/v.png", "set/a.png", "set/sub/b.png")
    link(tmp_path / "set/sub/loop", target)
    report = Report()
    assert listed(tmp_path / "set", report) == ["a.png", "sub/b.png"]
    (entry,) = report.entries("link in a circle")
    assert entry.file == str(tmp_path / "set/sub/loop")
    assert "which holds the link; not followed" in entry.message


def test_links_that_lead_to_each_other_end(tmp_path):
    make(tmp_path, "one/a.png", "two/b.png")
    for number in range(3):
        link(tmp_path / f"one/to{number}", tmp_path / "two")
        link(tmp_path / f"two/to{number}", tmp_path / "one")
    assert listed(tmp_path / "one") == ["a.png", "to0/b.png"]


def test_a_folder_that_two_paths_lead_to_counts_once_under_its_own_name(tmp_path):
    make(tmp_path, "set/b/x.png")
    link(tmp_path / "set/a", "b")  # comes first by name
    report = Report()
    assert listed(tmp_path / "set", report) == ["b/x.png"]
    (entry,) = report.entries("folder reached twice")
    assert entry.file == str(tmp_path / "set/a")
    assert f"the same folder as {tmp_path / 'set/b'}" in entry.message
    assert report.counts == {}


def test_of_two_links_to_one_folder_outside_the_first_is_taken(tmp_path):
    make(tmp_path, "pool/x.png", "set/y.png")
    link(tmp_path / "set/q", "../pool")
    link(tmp_path / "set/p", "../pool")
    report = Report()
    assert listed(tmp_path / "set", report) == ["p/x.png", "y.png"]
    assert report.notes == {"folder reached twice": 1}


def test_links_that_lead_nowhere_are_reported(tmp_path):
    make(tmp_path, "set/a.png")
    link(tmp_path / "set/day2", "../gone")
    link(tmp_path / "set/itself", "itself")
    link(tmp_path / "set/.hidden", "gone")
    report = Report()
    assert listed(tmp_path / "set", report) == ["a.png"]
    files = [entry.file for entry in report.entries("link that leads nowhere")]
    assert files == [str(tmp_path / "set/day2"), str(tmp_path / "set/itself")]
    assert "a link to ../gone, which does not exist" in report.render()


def test_a_dead_link_called_like_a_picture_is_for_the_reader_to_report(tmp_path):
    make(tmp_path, "set/a.png")
    link(tmp_path / "set/b.PNG", "gone.png")
    assert listed(tmp_path / "set") == ["a.png", "b.PNG"]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    make(tmp_path, "set/a.png", "set/locked/b.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(walking.os, "scandir", refuse)
    report = Report()
    assert listed(tmp_path / "set", report) == ["a.png"]
    (entry,) = report.entries("folder that cannot be listed")
    assert entry.file == str(tmp_path / "set/locked")
    assert entry.message == "Permission denied; all that is in it is left out"


def test_a_class_folder_may_be_a_link(tmp_path):
    make(tmp_path, "set/cat/a.png", "set/cat/b.png", "pool/c.png", "pool/d.png")
    link(tmp_path / "set/dog", "../pool")
    source = FolderSource(root=str(tmp_path / "set"), fractions=(1.0,))
    assert classes_of(source) == [("cat",)] * 2 + [("dog",)] * 2
    assert names_of(source) == ["a.png", "b.png", "c.png", "d.png"]


def test_a_link_between_classes_leaves_each_picture_its_class(tmp_path):
    make(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    link(tmp_path / "cat/others", "../dog")
    link(tmp_path / "all", ".")
    link(tmp_path / "itself", "itself")
    source = FolderSource(root=str(tmp_path), fractions=(1.0,))
    assert source.class_names == ("cat", "dog")
    assert classes_of(source) == [("cat",)] * 2 + [("dog",)] * 2
    assert source.report.notes["link in a circle"] == 1
    assert source.report.counts["link that leads nowhere"] == 1


def test_pictures_by_their_names_are_found_through_links(tmp_path):
    make(tmp_path, "set/cat_1.png", "pool/dog_1.png", "pool/dog_2.png")
    link(tmp_path / "set/more", "../pool")
    source = FilenameSource(root=str(tmp_path / "set"), fractions=(1.0,))
    assert classes_of(source) == [("cat",), ("dog",), ("dog",)]


def media_names(source, root, **arguments):
    report = Report()
    items = media.expand_sources([str(source)], report=report, **arguments)
    return [os.path.relpath(item.path, root) for item in items], report


def test_predict_follows_links_in_folders_and_patterns(tmp_path):
    make(tmp_path, "in/a.png", "pool/b.png", "pool/deep/c.png")
    link(tmp_path / "in/more", "../pool")
    link(tmp_path / "in/more/up", tmp_path / "in")
    link(tmp_path / "in/gone", "nothing")
    folder = tmp_path / "in"
    expected = ["a.png", "more/b.png", "more/deep/c.png"]
    names, report = media_names(folder, folder, recursive=True)
    assert names == expected
    assert report.notes == {"folder reached twice": 1}
    assert report.counts == {"link that leads nowhere": 1}
    assert media_names(folder / "**", folder)[0] == expected
    assert media_names(folder / "**/*.png", folder)[0] == expected
    # Here the start is not `in`, so that the link up is no circle.
    names, _ = media_names(folder / "m*/**/*.png", folder)
    assert names == [*expected[1:], "more/up/a.png"]
    assert media_names(folder / "**/deep/**/c.*", folder)[0] == expected[2:]


def test_a_pattern_does_not_run_round_a_circle_of_links(tmp_path):
    make(tmp_path, "in/a.png", "in/sub/b.png")
    # Followed to the system's limit of 40, these would be 2 ** 40 paths.
    link(tmp_path / "in/sub/one", "..")
    link(tmp_path / "in/sub/two", "..")
    names, report = media_names(tmp_path / "in/**/*.png", tmp_path / "in")
    assert names == ["a.png", "sub/b.png"]
    assert report.notes == {"link in a circle": 2}


def test_predict_reports_a_dead_link_in_a_flat_folder(tmp_path):
    make(tmp_path, "in/a.png")
    link(tmp_path / "in/b.png", "gone.png")
    names, report = media_names(tmp_path / "in", tmp_path / "in")
    assert names == ["a.png"]
    assert report.counts == {"link that leads nowhere": 1}


def test_labels_of_a_linked_folder_may_lie_where_it_really_is(tmp_path):
    make(tmp_path, "set/images/a.png", "pool/images/b.png", "pool/images/c.png")
    link(tmp_path / "set/images/one", "../../pool/images")
    for label, name in enumerate(("set/labels/a", "pool/labels/b", "pool/labels/c")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(f"{label} .5 .5 .5 .5")
    yaml = tmp_path / "set/data.yaml"
    yaml.write_text("train: images\nnames: [x, y, z]")
    source = YoloSource(yaml=str(yaml))
    assert [e.labels.tolist() for e in source] == [[0], [1], [2]]
    # Labels under the link's own name come first.
    (tmp_path / "set/labels/one").mkdir()
    (tmp_path / "set/labels/one/b.txt").write_text("0 .5 .5 .5 .5")
    source = YoloSource(yaml=str(yaml))
    assert [e.labels.tolist() for e in source] == [[0], [0], []]
