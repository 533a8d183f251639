import os

import pytest

from tests.data.classified import classes_of, names_of, paint
from yolojax.data.sources.csv import CsvSource


@pytest.fixture
def table(tmp_path):
    for name in "abcdefgh":
        paint(tmp_path / "pictures" / f"{name}.png", ord(name))

    def write(text, name="labels.csv", **arguments):
        (tmp_path / name).write_text(text)
        root = arguments.pop("root", str(tmp_path / "pictures"))
        arguments.setdefault("fractions", (1.0,))
        return CsvSource(csv=str(tmp_path / name), root=root, **arguments)

    return write


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,cat\nb.png,dog\nc.png,cat\n",
        "a.png,cat\nb.png,dog\nc.png,cat\n",
        "\ufeffpath;label\r\na.png; cat\r\n'b.png';dog\r\nc.png;cat".replace("'", '"'),
        "label\tfilename\ncat\ta.png\ndog\tb.png\ncat\tc.png\n",
        ",path,label,width\n0,a.png,cat,12\n1,b.png,dog,12\n2,c.png,cat,12\n",
    ],
    ids=["header", "no header", "semicolons", "turned", "index and more"],
)
def test_one_label_a_picture(table, text):
    source = table(text)
    assert source.class_names == ("cat", "dog") and not source.multi_label
    assert names_of(source) == ["a.png", "b.png", "c.png"]
    assert classes_of(source) == [("cat",), ("dog",), ("cat",)]
    assert source.report.counts == {"class with a single picture": 1}


@pytest.mark.parametrize(
    "text, options",
    [
        ("path,label,label2\na.png,sky,sea\nb.png,sea,\nc.png,,\n", {}),
        ("a.png,sky,sea\nb.png,sea\nc.png,\n", {}),
        ("image,sea,sky\na.png,1,1\nb.png,1,0\nc.png,0,0\n", {}),
        ("image,tags\na.png,sky sea\nb.png,sea\nc.png,-1\n", {"separator": " "}),
        ("id,tags\na,sky|sea\nb,sea\nc,\n", {"separator": "|", "suffix": ".png"}),
    ],
    ids=["columns", "no header", "zero and one", "separator", "suffix"],
)
def test_several_labels_a_picture(table, text, options):
    source = table(text, **options)
    assert source.class_names == ("sea", "sky") and source.multi_label
    assert classes_of(source) == [("sea", "sky"), ("sea",), ()]
    assert source[0].boxes.shape == (2, 4)
    assert source.report.notes == {"picture without a label": 1}


def test_chosen_columns(table):
    text = "path,breed,colour,age\na.png,pug,red,3\nb.png,pug,blue,4\n"
    assert table(text, columns=("breed",)).class_names == ("pug",)
    both = table(text, columns=("breed", "colour"))
    assert both.class_names == ("blue", "pug", "red") and both.multi_label
    with pytest.raises(ValueError, match="no column 'bred'. Did you mean 'breed'"):
        table(text, columns=("bred",))


def test_a_table_is_split_by_its_labels(table):
    text = "".join(f"{n}.png,{'xy'[n in 'gh']}\n" for n in "abcdefgh")
    parts = [table(text, split=s, fractions=(0.5, 0.5)) for s in ("train", "val")]
    assert [classes_of(p) for p in parts] == [[("x",)] * 3 + [("y",)]] * 2
    assert not set(names_of(parts[0])) & set(names_of(parts[1]))
    turned = "".join(reversed(text.splitlines(keepends=True)))
    again = table(turned, fractions=(0.5, 0.5))
    assert set(names_of(again)) == set(names_of(parts[0]))


def test_a_column_or_another_table_says_the_split(table, tmp_path):
    text = "path,label,split\na.png,9,train\nb.png,10,train\nc.png,9,valid\n"
    val = table(text, split="val")
    assert val.class_names == ("9", "10") and val.category_ids == (9, 10)
    assert names_of(val) == ["c.png"]
    with pytest.raises(ValueError, match=r"labels.csv line 2: split 'tra', expected"):
        table(text.replace("train", "tra"))
    table("a.png,9\nb.png,10\n", name="train.csv")
    other = {"classes_from": str(tmp_path / "train.csv"), "split": "val"}
    val = table("c.png,10\nd.png,11\n", **other)
    assert val.class_names == ("9", "10") and classes_of(val) == [("10",)]
    assert val.report.counts == {"unknown class": 1}
    assert val.report.notes == {"class without a picture": 1}


def test_what_is_wrong_is_reported_by_file_and_line(table, tmp_path):
    (tmp_path / "pictures" / "broken.png").write_bytes(b"\x89PNG")
    text = (
        "path,label,label2\n"
        "a.png,sky,sea\n"
        "\n"
        ",,\n"
        "b.png,skye,sea\n"
        "gone.png,sea\n"
        "a.png,sea,\n"
        "c.png,sea,sky,rain\n"
        ",sea,\n"
        "broken.png,sky,sea\n"
        "d.png,sky,sea\n"
    )
    source = table(text, classes=("sea", "sky"))
    assert names_of(source) == ["a.png", "d.png"]
    file = f"{tmp_path}/labels.csv"
    lines = source.report.render().splitlines()
    for expected in (
        f"  {file}:3: expected path,label; left out",
        f"  {file}:4: expected path,label; left out",
        f"  {file}:5: b.png has the label 'skye'. Did you mean 'sky'? Classes: sea, "
        "sky; left out",
        f"  {file}:6: gone.png does not exist in {tmp_path}/pictures; left out",
        f"  {file}:7: a.png stands in line 2 as well; left out",
        f"  {file}:8: 4 cells, but the header has 3; left out",
        f"  {file}:9: ',sea,'; left out",
    ):
        assert expected in lines, expected
    assert source.report.counts["unreadable picture"] == 1


@pytest.mark.parametrize(
    "text, arguments, message",
    [
        ("", {}, "labels.csv is empty; expected lines of path,label"),
        ("\n\n", {}, "labels.csv is empty"),
        ("a.png,x\n", {"csv": "none.csv"}, r"no table at .*none.csv; .*set config"),
        ("a.png,x\n", {"root": "/none"}, "no folder /none; "),
        ("gone.png,x\n", {}, "not one picture can be used:\n(.*\n)*missing picture: 1"),
        ("path,label\n", {}, "not one picture can be used"),
        ("a.png,x\n", {"classes": ("y",)}, "not one picture(.*\n)*unknown class: 1"),
        ("a.png,x\n", {"split": "test"}, "leave nothing for split 'test'"),
        ("a.png,'x\n".replace("'", '"') + "y" * 200_000, {}, "labels.csv line "),
    ],
    ids=range(9),
)
def test_tables_that_cannot_be_used(table, tmp_path, text, arguments, message):
    if name := arguments.pop("csv", ""):
        with pytest.raises(ValueError, match=message):
            CsvSource(csv=str(tmp_path / name))
        return
    with pytest.raises(ValueError, match=message):
        table(text, **arguments)


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"a.png,\xff\xfe\n")
    with pytest.raises(ValueError, match="labels.csv cannot be read as UTF-8 text"):
        CsvSource(csv=str(tmp_path / "labels.csv"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_in_the_encodings_that_windows_writes(tmp_path, encoding, end):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png")
    lines = ["file;label", "a.png;Löwe", "'b.png';x".replace("'", '"'), ""]
    (tmp_path / "t.csv").write_bytes(end.join(lines).encode(encoding))
    source = CsvSource(csv=str(tmp_path / "t.csv"), fractions=(1,))
    assert classes_of(source) == [("Löwe",), ("x",)]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.png,x\nb.png," + "y" * 140_000, "t.csv line 2: field larger than .*131072"),
        ('a.png,x\nb.png,"y\n' + "z\n" * 90_000, "t.csv line 2: field larger than"),
        ("z" * 50_000_000, "t.csv line 1: field larger than field limit"),
    ],
    ids=["a long cell", "a quote that does not close", "50 million characters"],
)
def test_a_cell_that_is_too_long_is_one_line(tmp_path, text, message):
    paint(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        CsvSource(csv=str(tmp_path / "t.csv"), fractions=(1,))
    assert len(str(caught.value)) < 300


def test_long_cells_and_zero_bytes_are_short_in_the_report(tmp_path):
    paint(tmp_path / "a.png")
    rows = ["a.png,x", "z" * 100_000 + ",x", "b\0.png,x", "," + "q" * 100_000]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    source = CsvSource(csv=str(tmp_path / "t.csv"), fractions=(1,))
    assert names_of(source) == ["a.png"]
    assert source.report.counts == {"missing picture": 2, "row without a path": 1}
    assert len(source.report.render()) < 2000


def test_a_table_that_is_a_pipe_or_too_large_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="no table at .*pipe.csv"):
        CsvSource(csv=str(tmp_path / "pipe.csv"))
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(ValueError, match="1,000,000,000 bytes; at most"):
        CsvSource(csv=str(tmp_path / "large.csv"))


def test_names_as_other_systems_write_them(table, tmp_path):
    paint(tmp_path / "pictures" / "sub" / "caf\u00e9.png")
    source = table("sub\\cafe\u0301.png,caf\u00e9\na.png,cafe\u0301\n")
    assert names_of(source) == ["caf\u00e9.png", "a.png"]
    assert classes_of(source) == [("caf\u00e9",)] * 2


def test_rows_with_a_mark_that_is_neither_0_nor_1_are_reported(table):
    text = "path,cat,dog\na.png,1,0\nb.png,0,2\nc.png,x,1\nd.png,1\ne.png,,1\n"
    source = table(text, fractions=(1.0,))
    assert names_of(source) == ["a.png", "e.png"]
    said = source.report.render()
    assert "csv:3: expected 0 or 1 for dog; came '2'; left out" in said
    assert "csv:4: expected 0 or 1 for cat; came 'x'; left out" in said
    assert "csv:5: no cell for dog, expected 0 or 1; left out" in said


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quote_that_does_not_close_is_said_with_its_line(table, end):
    text = end.join(["path,label", "a.png,cat", '"b.png,cat', "c.png,dog", ""])
    with pytest.raises(ValueError, match="line 3: a quote that opens here does not"):
        table(text)


def test_val_with_a_table_of_its_own_may_lack_classes(table, tmp_path):
    train = "path,label\na.png,cat\nb.png,cat\nc.png,dog\nd.png,dog\n"
    (tmp_path / "train.csv").write_text(train)
    val = table("path,label\ne.png,cat\n", classes_from=str(tmp_path / "train.csv"))
    assert val.report.counts == {}
    assert val.report.notes == {"class without a picture": 1}
