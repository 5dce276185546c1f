"""organza.data.labels: a file of labels beside the images, read exactly or refused in one line."""

import io
import json
import re
import tarfile

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


def test_a_sheet_as_windows_saves_it(folder):
    """With a mark of the byte order, and two characters at the end of each line; and "nan" may be a class's name."""
    rows = ["file,label", *(f"{name},{label}" for name, label in zip(FILES, ["nan", "cat", "1", "cat"], strict=True))]
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert open_data(folder).labels == ("1", "cat", "nan") and open_data(folder).y.tolist() == [2, 1, 0, 1]


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
        (["a1.png,0.5", "a2.png,nan"], "must be finite numbers"),
        (["a1.png,0.5", "a2.png,-inf"], "must be finite numbers"),
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


def shard(path, files):
    with tarfile.open(path, "w") as made:
        for name, contents in files:
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            made.addfile(info, io.BytesIO(contents))
    return path


def image():
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    return file.getvalue()


def test_labels_beside_images_of_a_shard(tmp_path):
    """Names agree before the first dot; an image without a label is unlabelled; what else lies there is not read."""
    files = [
        ("x/b.png", image()),
        ("x/a.left.png", image()),
        ("x/a.cls", b"7\n"),
        ("x/b.json", b"{}"),
        ("x/b.txt", b"a"),
    ]
    data = open_data(shard(tmp_path / "a.tar", files))
    assert data.files == ("a.left.png", "b.png") and data.y.tolist() == [7, -1] and data.labels == ()
    assert data.notes == ("not read: 1 of .json", "not read: 1 of .txt")
    assert open_data(shard(tmp_path / "b.tar", [*files[:2], ("x/b.txt", b"a")])).y is None
    assert open_data(shard(tmp_path / "c.tar", [("x/1.png", image()), ("y/1.png", image())])).labels == ("x", "y")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("a.cls", b"cat")], "a.cls holds 'cat': give an integer from 0"),
        ([("a.cls", b"-1")], "holds '-1'"),
        ([("b.cls", b"1")], "b.cls lies beside no image"),
        ([("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")], "is there twice"),
        ([("a.jpg", image()), ("a.cls", b"1")], "a is the name of several images"),
        ([("a.cls", b"9" * 18)], "labels must be 0 to classes - 1, fewer than"),
    ],
)
def test_labels_that_do_not_fit_a_shard(tmp_path, more, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        open_data(shard(tmp_path / "a.tar", [("a.png", image()), *more]))
