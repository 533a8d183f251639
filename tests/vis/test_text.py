import pytest

from yolojax.vis import text


def ascii_only(character):
    return character.isascii()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("person", "person"),
        ("café", "cafe"),
        ("cafe\u0301", "cafe"),
        ("猫 cat", "cat"),
        ("猫", "class 7"),
        ("", "class 7"),
        (" \n", "class 7"),
        ("...", "class 7"),
        ("ﬁsh ①", "fish 1"),
        ("two\nlines\tand more", "two lines and more"),
    ],
)
def test_a_font_of_ascii_shows_what_it_can_or_the_index(name, expected):
    assert text.drawable_name(name, 7, ascii_only) == expected


def test_a_font_with_all_scripts_shows_the_name_itself():
    assert text.drawable_name("猫 Лошадь", 7, lambda c: True) == "猫 Лошадь"


def test_characters_that_no_font_has_are_left_out():
    assert text.drawable_name("a\ue123b", 0) == "ab"
    assert text.drawable_name("😀", 4) == "class 4"


@pytest.mark.parametrize("label", [-1, 2, 99])
def test_a_label_without_a_name_is_shown_by_its_index(label):
    assert text.class_title(("a", "b"), label) == f"class {label}"


def test_shorten_keeps_the_ending_whole():
    def up_to(room):
        return lambda candidate: len(candidate) <= room

    assert text.shorten("zebra", up_to(10), " 0.5") == "zebra 0.5"
    assert text.shorten("rhinoceros", up_to(10), " 0.5") == "rhin.. 0.5"
    assert text.shorten("rhinoceros", up_to(5), " 0.5") == ""


@pytest.mark.parametrize("height", [10, 14, 40, 200])
def test_scale_for_height_gives_that_height(height):
    _, above, _ = text.measure("Ag0", text.scale_for_height(height))
    assert abs(above - height) <= 1
