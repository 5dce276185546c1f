"""organza.data.labels: a file of labels beside the images, read exactly or refused in one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import open_data

FILES = ("a1.png", "a2.png", "a10.png", "deep/er/b.png")


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(FILES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(path)
    return tmp_path


def csv(folder, *rows, name="labels.csv"):
    (folder / name).write_text("\r\n".join(rows), encoding="utf-8-sig")
    return folder


def dataset(folder, labels):
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def refusal(folder):
    with pytest.raises(ValueError) as caught:
        open_data(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_integers_are_classes(folder):
    data = open_data(csv(folder, "deep\\er\\b.png,2", "./a1.png,0", "a2.png, 1", "a10.png,-1"))
    assert data.files == FILES and data.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert data.y.tolist() == [0, 1, -1, 2] and data.y.dtype == torch.int64 and data.labels == ()


def test_texts_are_names_of_classes_in_natural_order(folder):
    data = open_data(
        csv(folder, "file,label", "a1.png,class 10", "a2.png,class 9", "a10.png,B", "deep/er/b.png,class 9")
    )
    assert data.labels == ("B", "class 9", "class 10") and data.y.tolist() == [2, 1, 0, 1]
    assert data.spec.classes == 3


def test_numbers_are_conditions(folder):
    rows = ["name,smiling,age", *(f"{name},{i % 2},{i}.5" for i, name in enumerate(FILES))]
    data = open_data(csv(folder, *rows, name="celebs.CSV"))
    assert data.y.tolist() == [[0, 0.5], [1, 1.5], [0, 2.5], [1, 3.5]] and data.spec.condition == (2,)
    (folder / "celebs.CSV").unlink()
    one = open_data(csv(folder, *(f"{name},{i}.5" for i, name in enumerate(FILES))))
    assert one.y.shape == (4, 1) and one.y.dtype == torch.float32 and one.spec.classes == 0


def test_of_integers_alone_some_may_be_missing(folder):
    assert open_data(csv(folder, "a2.png,3")).y.tolist() == [-1, 3, -1, -1]
    assert "has no label for a1.png: add it" in refusal(csv(folder, "a2.png,cat"))
    assert "has no label for a1.png" in refusal(csv(folder, "a2.png,1,0"))


def test_dataset_json(folder):
    def label(*labels):
        return open_data(dataset(folder, [[name, each] for name, each in zip(FILES, labels, strict=True)]))

    assert label(0, 3, None, 1).y.tolist() == [0, 3, -1, 1]
    assert label("b", "a", "b", "c").labels == ("a", "b", "c")
    assert label([0, 1], [1, 1], [0.5, 0], [1, 0]).y.tolist() == [[0, 1], [1, 1], [0.5, 0], [1, 0]]
    assert label(None, None, None, None).y is None
    assert open_data(dataset(folder, None)).y is None
    assert "mixes labels of several kinds" in refusal(
        dataset(folder, [[name, [name, 1][i % 2]] for i, name in enumerate(FILES)])
    )
    assert "lists of 1 to 2 numbers" in refusal(
        dataset(folder, [[name, [1] * (1 + i % 2)] for i, name in enumerate(FILES)])
    )
    assert "must be a pair" in refusal(dataset(folder, [["a1.png"]]))
    assert "the label of a1.png must be" in refusal(dataset(folder, [["a1.png", {"x": 1}]]))
    (folder / "dataset.json").write_text("{")
    assert "dataset.json is not JSON" in refusal(folder)
    (folder / "dataset.json").write_text("[]")
    assert 'must be {"labels"' in refusal(folder)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a1.png,0", "a9.png,1"], "labels.csv names a9.png, which is not there: add the image"),
        (["a1.png,0", "a1.png,1"], "names a1.png twice"),
        (["a1.png,-2"], "the lowest is -2"),
        (["a1.png"], "must have a file name, a comma and a label"),
        (["a1.png,1,2", "a2.png,1"], "the row 'a2.png,1' must have 3 columns"),
        (["a1.png,1", "a2.png,"], "no empty ones"),
        (["a1.png,1,x"], "must be finite numbers"),
        (["a1.png,1,nan"], "must be finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(folder, rows, said):
    assert said in refusal(csv(folder, *rows))


def test_one_file_of_labels_beside_images(folder):
    csv(folder, "a1.png,0", name="b.csv")
    assert "holds 2 files of labels (b.csv, dataset.json): leave one" in refusal(dataset(folder, None))
    (folder / "dataset.json").unlink()
    (folder / "notes.txt").write_text("hello")
    assert "notes.txt is no image" in refusal(folder)
    (folder / "notes.txt").unlink()
    (folder / "b.csv").write_bytes(b"\xff\xfe\x00")
    assert "b.csv is no text in UTF-8" in refusal(folder)


def test_labels_without_images(tmp_path):
    assert "holds no images beside labels.csv" in refusal(csv(tmp_path, "a.png,1"))
