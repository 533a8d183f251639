import pytest

from yolojax.yaml_text import number_in, read_yaml, shown


def test_yaml_and_json_give_the_same_plain_values():
    text = 'a: [1, 2.5, "x", null, true]\nb: {c: nn.Upsample}'
    expected = {"a": [1, 2.5, "x", None, True], "b": {"c": "nn.Upsample"}}
    assert read_yaml(text, "x.yaml") == expected
    same = '{"a": [1, 2.5, "x", null, true], "b": {"c": "nn.Upsample"}}'
    assert read_yaml(same, "x.yaml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "x.yaml line 1: no readable YAML"),
        ("a: 1\n b: 2", "x.yaml line 2: no readable YAML"),
        ("a: \x07", "x.yaml: no readable YAML .*special characters"),
        ("a: 2026-02-31", "x.yaml: no readable YAML .*day is out of range"),
        ("a: 0x_", "x.yaml: no readable YAML"),
        ("a: &x [1]\nb: *x", r"x.yaml line 2: aliases \(\*x\) are not read"),
        ("a: !!set {1}", "x.yaml line 1: tags .* are not read"),
        ("[" * 30, "x.yaml line 1: nested deeper than 20"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_not_read_is_said_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        read_yaml(text, "x.yaml")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (0.5, 0.5),
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("+2.", 2.0),
        (True, None),
        ("x", None),
        ("1e", None),
        ("1" * 50, None),
        (None, None),
        ([1], None),
    ],
    ids=str,
)
def test_a_number_is_one_or_spells_one(value, expected):
    found = number_in(value)
    assert found == expected
    assert not isinstance(found, bool)


def test_values_in_messages_are_short():
    assert shown([1, "a"]) == "[1, 'a']"
    assert shown("x" * 99) == "'" + "x" * 56 + "..."
    assert shown(1 << 40_000) == "a number of thousands of digits"
