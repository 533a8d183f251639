import pytest
import yaml

from yolojax import yaml_text
from yolojax.yaml_text import number_in, read_yaml, read_yaml_words, shown


@pytest.fixture(params=["libyaml", "python"])
def parser(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("this PyYAML was built without libyaml")


def test_values_are_those_of_the_safe_loader(parser):
    text = (
        "a: [yes, 012, 0x1F, 1_000, 12:30, 1e3, 1.5e+3, .inf, ~, null, '1', \"no\"]\n"
        "b: {2020-01-01: 2020-01-01 10:00:00, 3: off}\nc:\nd: |\n  x\n  y\n"
    )
    assert read_yaml(text, "x.yaml") == yaml.safe_load(text)
    assert read_yaml("", "x.yaml") is None


@pytest.mark.parametrize(
    "text",
    [
        "names: [yes, No, on, 012, null, ~, 12:30, 1_000, 0x1F, 1e3, 2020-01-01, .inf]",
        "names:\n- yes\n- No\n- on\n- 012\n- null\n- ~\n- 12:30\n- 1_000\n- 0x1F\n"
        "- 1e3\n- 2020-01-01\n- .inf",
        "names: ['yes', \"No\", on, '012', 'null', \"~\", '12:30', 1_000, 0x1F, 1e3, "
        "'2020-01-01', .inf]",
    ],
    ids=["flow", "block", "quoted"],
)
def test_words_are_the_text_that_stands_there(parser, text):
    expected = "yes No on 012 null ~ 12:30 1_000 0x1F 1e3 2020-01-01 .inf"
    assert read_yaml_words(text, "x.yaml") == {"names": expected.split()}


def test_words_are_kept_in_keys_too_and_what_is_left_out_is_empty(parser):
    text = "{0: no, 01: =, null: , yes: <<}"
    expected = {"0": "no", "01": "=", "null": "", "yes": "<<"}
    assert read_yaml_words(text, "x.yaml") == expected


def test_names_of_20_000_classes_are_read_as_words():
    lines = [f"  {number}: some class {number}" for number in range(20_000)]
    names = read_yaml_words("names:\n" + "\n".join(lines), "x.yaml")["names"]
    assert len(names) == 20_000 and names["19999"] == "some class 19999"


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"x.yaml line 2: aliases \(\*a0\) are not read"),
        ("a: {b: 1}\nc:\n  <<: {d: 1}", "x.yaml line 3: merge keys"),
        (
            "a: 1\nb: 2\n'a': 3",
            "line 3: the key 'a' stands there twice, first in line 1",
        ),
        ("a: 1\n---\nb: 1", "x.yaml line 2: a second document begins"),
        ("{[a]: 1}", "x.yaml line 1: a key must be a word or a number"),
        ("{{a: b}: 1}", "x.yaml line 1: a key must be a word or a number"),
        ("names: " + "[" * 20_000, "x.yaml line 1: .*nested deeper than 20"),
        ("- " * 20_000, "x.yaml line 1: .*nested deeper than 20"),
        ("? " * 20_000, "x.yaml line 1: .*nested deeper than 20"),
        ("a: \x1b[31m", "line 1 has '.x1b'"),
        ("a: !!python/object/apply:os.system [ls]", "tags .* are not read"),
    ],
    ids=lambda value: value[:12],
)
@pytest.mark.parametrize("read", [read_yaml, read_yaml_words])
def test_hostile_text_is_one_line(parser, read, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(text, "x.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["a: " + "1:" * 90_000 + "1", "a: " + "1:" * 90_000 + "1.5"],
    ids=["whole", "fraction"],
)
def test_a_long_time_of_day_is_a_text_and_takes_no_time(text):
    assert read_yaml(text, "x.yaml") == {"a": text[3:]}


def test_limits_of_length_and_number(parser):
    with pytest.raises(ValueError, match="x.yaml has 1,000,001 characters; at most 1,"):
        read_yaml_words("x" * 1_000_001, "x.yaml")
    with pytest.raises(ValueError, match="x.yaml line 1: more than 30,000 values"):
        read_yaml("[" + "1," * 60_000 + "1]", "x.yaml")


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
