import unicodedata

import pytest

from yolojax.data.sources.located import NamedImages

COMPOSED = unicodedata.normalize("NFC", "é.jpg")
PARTED = unicodedata.normalize("NFD", "é.jpg")


@pytest.fixture
def images(tmp_path):
    """A function that makes empty files and finds the names; gives paths in the folder,
    and reasons."""

    def find(files, names, folder="images"):
        for file in files:
            path = tmp_path / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        home = tmp_path / folder
        places = NamedImages(home, names)
        found = [places.find(name) for name in names]
        return [
            (f.path.removeprefix(f"{home}/") if f.path else "", f.reason) for f in found
        ]

    return find


@pytest.mark.parametrize(
    "name",
    ["sub/a.jpg", "./sub//a.jpg", "sub\\a.jpg", "images/sub/a.jpg", "sub/x/../a.jpg"],
)
def test_names_are_paths_from_the_folder_or_with_its_name_before(images, name):
    assert images(["sub/a.jpg"], [name]) == [("sub/a.jpg", "")]


@pytest.mark.parametrize(
    "file, name",
    [
        ("a.jpg", "A.JPG"),
        ("IMG_1.JPG", "img_1.jpg"),
        ("a b.jpg", "a%20b.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        (COMPOSED, PARTED),
        (PARTED, COMPOSED),
        ("Sub/a.jpg", "sub\\A.jpg"),
        ("a.jpg", "Images/a.jpg"),
    ],
)
def test_another_spelling_is_found_and_said(images, file, name):
    found, reason = images([file], [name])[0]
    assert found == file
    assert reason == ("folder" if name == "Images/a.jpg" else "spelling")


def test_another_suffix_is_found_and_said(images):
    files = ["a.png", "b.jpg", "v1.2.jpg", "sub/c.webp"]
    names = ["a.jpg", "b", "v1.2", "sub/c.heic"]
    found = images(files, names)
    assert found == [(file, "suffix") for file in files]


def test_one_bare_name_in_two_folders_is_never_guessed(images):
    found = images(["cam1/1.jpg", "cam2/1.jpg"], ["cam3/1.jpg"])
    assert found[0][0] == ""
    assert found[0][1] == "2 files could be it: 'cam1/1.jpg', 'cam2/1.jpg'"


def test_a_file_that_two_names_could_be_is_neither(images):
    found = images(["1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"])
    assert (
        found
        == [("", "it could be '1.jpg', but 2 images of the file are called so")] * 2
    )


def test_a_file_of_another_name_is_not_taken_for_a_second_one(images):
    found = images(["cam1/1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"])
    assert found[0] == ("cam1/1.jpg", "")
    assert found[1][0] == ""


def test_the_only_file_of_the_only_name_is_found_in_another_folder(images):
    names = ["train2017/1.jpg", "C:\\data\\deep\\cam2\\2.png", "/gone/images/3.jpg"]
    files = ["1.jpg", "cam1/2.png", "cam2/2.png", "new/3.jpg"]
    found = images(files, names)
    assert found == [
        ("1.jpg", "folder"),
        ("cam2/2.png", "folder"),
        ("new/3.jpg", "folder"),
    ]


def test_a_name_without_a_folder_stays_in_the_folder(images):
    assert images(["sub/a.jpg"], ["a.jpg"]) == [("", "")]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "\0", "a\0.jpg", "\ud800.jpg", "a/" * 2000 + "b.jpg"]
    + ["x" * 5000, "x" * 300, "%", "%ff.jpg", "*", "=a.jpg", "sub"],
    ids=lambda name: ascii(name)[:20],
)
def test_names_that_no_file_has_are_not_found(images, name):
    assert images(["sub/a.jpg"], [name])[0][0] == ""
