import json
import types

import pytest
from ml_collections import ConfigDict

from tests.data.classified import paint
from tests.tiny import tiny_config
from yolojax import check, command
from yolojax.data.decode import image_size


def checked(monkeypatch, capsys, **changes):
    given = types.SimpleNamespace(config=ConfigDict(tiny_config(**changes)))
    monkeypatch.setattr(command, "FLAGS", given)
    code = check.main()
    return code, capsys.readouterr().out


def test_what_a_run_reads_is_checked(monkeypatch, capsys):
    code, text = checked(monkeypatch, capsys)
    assert code == 0 and "== train ==" in text and "== val ==" in text
    # With folds val is a part of train, and data.val is not read.
    code, text = checked(monkeypatch, capsys, data__folds__count=3)
    assert code == 0 and "== train ==" in text and "== val ==" not in text
    assert "fold 0 of 3" in text and "config.data.val is not read" in text
    with pytest.raises(ValueError, match="99"):
        checked(monkeypatch, capsys, data__folds__count=99)


def test_pictures_of_val_that_are_in_train_are_an_error(monkeypatch, capsys, tmp_path):
    for part, number in (("train", 0), ("train", 1), ("val", 2)):
        for kind in ("cat", "dog"):
            path = tmp_path / part / f"{kind}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            paint(path, 20 * number + 9 * (kind == "dog"))
    given = {"source": "filename", "root": str(tmp_path)}
    changes = {
        "data__train": given,
        "data__val": {**given, "split": "val"},
        "model": {"name": "cnn5"},
        "loss__name": "cross_entropy",
    }
    code, text = checked(monkeypatch, capsys, **changes)
    assert code == 0, text
    copy = tmp_path / "val" / "cat_3.png"
    copy.write_bytes((tmp_path / "train" / "cat_0.png").read_bytes())
    code, text = checked(monkeypatch, capsys, **changes)
    assert code == 1 and "picture of another part: 1" in text


@pytest.mark.parametrize(
    "names, code", [(("dog", "cat"), 0), (("dog",), 0), (("dog", "cow"), None)]
)
def test_classes_of_val_are_matched_by_name(monkeypatch, capsys, tmp_path, names, code):
    paint(tmp_path / "a.png", 20)
    paint(tmp_path / "b.png", 90)
    height, width = image_size(tmp_path / "a.png")
    for part, own in (("a", ("cat", "dog")), ("b", names)):
        image = {"id": 1, "file_name": f"{part}.png", "height": height, "width": width}
        boxes = [
            {"id": n, "image_id": 1, "category_id": n, "bbox": [1, 1, 5 + n, 5]}
            for n in range(len(own))
        ]
        categories = [{"id": n, "name": name} for n, name in enumerate(own)]
        content = {"images": [image], "annotations": boxes, "categories": categories}
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    given = {"source": "coco", "images": str(tmp_path)}
    changes = {
        "data__train": {**given, "annotations": f"{tmp_path}/a.json"},
        "data__val": {**given, "annotations": f"{tmp_path}/b.json"},
        "model__num_classes": 0,
    }
    if code is None:
        with pytest.raises(ValueError, match="train has the classes cat, dog, val has"):
            checked(monkeypatch, capsys, **changes)
        assert "== val ==" in capsys.readouterr().out  # the reports come first
        return
    assert checked(monkeypatch, capsys, **changes)[0] == code
