import pytest

from yolojax.data.json_fields import (
    load_object,
    read_id,
    read_number,
    read_truth,
    repeated_key,
    shown,
)


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1 ", "1."])
def test_whole_numbers_are_the_same_id_in_every_form(value):
    found = read_id(value)
    assert found == 1 and type(found) is int


@pytest.mark.parametrize(
    "value, expected",
    [
        (0, 0),
        ("-3", -3),
        ("-0.0", 0),
        ("007", "007"),
        ("a 1", "a 1"),
        ("1.5", "1.5"),
        ("1e3", "1e3"),
        ("٣", "٣"),
        ("9" * 30, "9" * 30),
        (1.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        (None, None),
        ("", None),
        ([1], None),
    ],
)
def test_other_texts_stay_and_other_values_are_no_id(value, expected):
    assert read_id(value) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        (3, 3.0),
        (2.5, 2.5),
        ("10", 10.0),
        ("-1.5e1", -15.0),
        (".5", 0.5),
        (10**400, float("inf")),
        (-(10**400), float("-inf")),
        ("1_0", None),
        ("nan", None),
        ("10,5", None),
        ("", None),
        ("1" * 100, None),
        (True, None),
        (None, None),
        ([1], None),
    ],
)
def test_numbers_may_be_quoted(value, expected):
    assert read_number(value) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        (0, False),
        (1, True),
        (0.0, False),
        (1.0, True),
        ("0", False),
        ("1", True),
        ("False", False),
        ("TRUE", True),
        ("0.0", False),
        ("", False),
        (None, False),
        (True, True),
        (False, False),
        (2, None),
        (0.5, None),
        ("maybe", None),
        ([], None),
        ({}, None),
        (float("nan"), None),
    ],
)
def test_truth_values_come_in_many_forms(value, expected):
    assert read_truth(value) is expected


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "mark"])
def test_a_key_that_stands_twice_with_other_values_is_known(tmp_path, mark):
    file = tmp_path / "a.json"
    file.write_bytes(mark + b'{"a": {"x": 1, "x": 2, "y": 3, "y": 3}, "b": 1, "b": 1}')
    content = load_object(file, "an object")
    assert repeated_key(content["a"], ("y", "x")) == "x"
    assert repeated_key(content["a"], ("y",)) == ""
    # 1 and true are equal to Python, and different in JSON.
    file.write_bytes(b'{"a": 1, "a": true}')
    assert repeated_key(load_object(file, "an object"), ("a",)) == "a"
    assert repeated_key(content, ("a", "b")) == ""


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' * 100_000, "nested too deep"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b'{"a": "\xe4"}', "is not JSON"),
        (b"1" * 5000, "is not JSON"),
        (b"null", "holds null; expected an object of ours"),
        (b'"a"', "holds a text; expected an object of ours"),
        (b"true", "holds a truth value; expected"),
        (b"NaN", "holds a number; expected"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_object_is_an_error_of_one_line(tmp_path, content, message):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json.* {message}") as error:
        load_object(file, "an object of ours")
    assert "\n" not in str(error.value)


def test_long_values_are_cut_for_a_message():
    assert shown("a.jpg") == "'a.jpg'"
    for value in ("x" * 10**6, ["x" * 10**6] * 100, {str(n): [[n]] for n in range(99)}):
        assert len(shown(value)) < 700
