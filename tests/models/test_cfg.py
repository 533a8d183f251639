import pytest

from tests.darknet import CFG
from tests.shared import shared
from yolojax.models import cfg
from yolojax.models.cfg import Section, format_cfg, parse_cfg


def layer(**options):
    return Section("convolutional", options, line=7)


def test_sections_keys_and_lines_of_a_text():
    text = "[net]\nwidth=64\n\n[conv]\n filters = 8 \n\tpad=1\n[yolo]\n"
    net, conv, yolo = parse_cfg(text)
    assert (net.kind, net.options, net.line) == ("net", {"width": "64"}, 1)
    assert (conv.kind, conv.line) == ("convolutional", 4)
    assert conv.options == {"filters": "8", "pad": "1"}
    assert (yolo.kind, yolo.options, yolo.where) == ("yolo", {}, "line 7, [yolo]")


def test_blanks_comments_line_ends_and_short_names_count_nowhere():
    plain = "[net]\nwidth=64\n[convolutional]\nanchors=1,2,3,4\n[maxpool]\n[avgpool]\n"
    other = (
        "\ufeff# a comment\r\n[ network ]\r\n; another\r\n\r\nwidth = 64 # px\r\n"
        "[conv]\r\n anchors = 1,2,  3, 4;last\r\n[max]\r\n[avg]"
    )
    assert parse_cfg(other) == parse_cfg(plain)


def test_the_same_value_twice_is_no_contradiction():
    assert parse_cfg("[net]\n[yolo]\nnum=3\nnum = 3")[1].options == {"num": "3"}
    with pytest.raises(ValueError, match="line 4: 'num' is '3' and '4' in one section"):
        parse_cfg("[net]\n[yolo]\nnum=3\nnum=4")


def test_the_first_value_counts_in_net_as_in_darknet():
    assert parse_cfg("[net]\nbatch=64\nbatch=1")[0].options["batch"] == "64"


def test_written_sections_are_read_again():
    sections = parse_cfg(CFG)
    assert parse_cfg(format_cfg(sections)) == sections
    assert len(sections) == 17


def test_a_published_file_has_its_layers():
    sections = parse_cfg(cfg.read_cfg(shared("weights", "yolo-fastest-1.1.cfg")))
    kinds = [section.kind for section in sections]
    assert kinds[0] == "net"
    assert (kinds.count("convolutional"), kinds.count("dropout")) == (84, 18)
    assert [i - 1 for i, kind in enumerate(kinds) if kind == "yolo"] == [121, 130]


def test_values_of_options():
    section = layer(a="-3", b="+.5e1", c="1,-2,3,", d="1.,.5", e="leaky")
    assert cfg.whole(section, "a", low=-3, high=3) == -3
    assert cfg.whole(section, "missing", 5, low=0, high=9) == 5
    assert cfg.number(section, "b", low=0, high=9) == 5.0
    assert cfg.number(section, "missing", 0.5, low=0, high=9) == 0.5
    assert cfg.wholes(section, "c") == (1, -2, 3)
    assert cfg.numbers(section, "d") == (1.0, 0.5)
    assert cfg.wholes(section, "missing") == cfg.numbers(section, "missing") == ()
    assert cfg.word(section, "e", ("leaky", "mish")) == "leaky"


@pytest.mark.parametrize(
    "read, message",
    [
        (lambda s: cfg.whole(s, "half", low=0, high=9), "half=1.5 is not a whole num"),
        (lambda s: cfg.whole(s, "nine", low=0, high=8), "whole number from 0 to 8"),
        (lambda s: cfg.whole(s, "nine", low=1, high=1), "is not 1, the only value"),
        (lambda s: cfg.whole(s, "huge", low=0, high=9), "huge=99999999999999999999"),
        (lambda s: cfg.whole(s, "hal", low=0, high=9), "hal= is missing. Did you mean"),
        (lambda s: cfg.number(s, "word", low=0, high=9), "word=inf is not a number"),
        (lambda s: cfg.number(s, "nine", low=0, high=1), "nine=9 is not a number from"),
        (lambda s: cfg.wholes(s, "list"), "list=1,x is not a list of whole numbers"),
        (lambda s: cfg.numbers(s, "far"), "far=1e999 is not a list of finite numbers"),
        (lambda s: cfg.word(s, "name", ("leaky", "mish")), "Did you mean 'leaky'"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(read, message):
    options = {"half": "1.5", "nine": "9", "huge": "9" * 4000, "word": "inf"}
    section = layer(**options, list="1,x", far="1e999", name="leeky")
    with pytest.raises(ValueError, match=r"line 7, \[convolutional\]: ") as error:
        read(section)
    assert message in str(error.value)
    assert len(str(error.value)) < 200


def test_a_file_that_is_not_there_and_one_too_large(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="x.cfg: No such file"):
        cfg.read_cfg(tmp_path / "x.cfg")
    monkeypatch.setattr(cfg, "MAX_CHARACTERS", 10)
    (tmp_path / "y.cfg").write_text("[net]\nwidth=64")
    with pytest.raises(ValueError, match="y.cfg: 14 bytes; at most 10 are read"):
        cfg.read_cfg(tmp_path / "y.cfg")


def test_comments_in_another_encoding_do_no_harm(tmp_path):
    (tmp_path / "x.cfg").write_bytes(b"[net]\n# gr\xf6\xdfe\nwidth=64")
    assert parse_cfg(cfg.read_cfg(tmp_path / "x.cfg"))[0].options == {"width": "64"}
