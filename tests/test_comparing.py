"""How a difference reads; the places that a config shows are in test_settings."""

import pytest

from yolojax.comparing import difference


@pytest.mark.parametrize(
    "before, now, text",
    [
        (1, 2, " was 1, now 2"),
        (None, "", " was nothing, now ''"),
        (" a", "a", " was ' a', now a"),
        ([1, [2, 3]], [1, [2, 4]], "[1][1] was 3, now 4"),
        ([1], [1, 2], "[1] was nothing, now 2"),
        ({"a": 1, "name": "x"}, {"a": 2, "name": "y"}, ".name was x, now y"),
        ([{"name": "x", "a": 1}], [{"name": "x"}], "[0].a was 1, now nothing"),
        ("a\n" * 50, "a\n" * 49 + "b\n", " differs in line 50: was a, now b"),
        (list(range(50)), 3, f" was {str(list(range(50)))[:80]}..., now 3"),
    ],
)
def test_the_first_place_that_differs_is_named(before, now, text):
    assert difference(before, now) == text
