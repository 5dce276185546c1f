"""organza.data.tree: a zip archive is read as the folder that it holds, and what is doubtful in it is refused."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import open_data, tree


def png(value=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 9), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, contents in files:
            made.writestr(name, contents)
    return path


def refusal(path):
    with pytest.raises(ValueError) as caught:
        open_data(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CLASSES = [("cat/10.png", png(1)), ("cat/9.png", png(0)), ("dog/a.png", png(2))]


@pytest.mark.parametrize("wrapper", ["", "photos/"])
def test_an_archive_is_the_folder_it_holds(tmp_path, wrapper):
    hidden = [("__MACOSX/cat/._9.png", b"x"), (f"{wrapper}.DS_Store", b"x"), (f"{wrapper}cat/", b"")]
    path = archive(tmp_path / "a.ZIP", [(wrapper + name, contents) for name, contents in CLASSES] + hidden)
    with zipfile.ZipFile(path) as made:
        made.extractall(tmp_path / "folder")
    data = open_data(f"{path}")
    assert data.files == ("cat/9.png", "cat/10.png", "dog/a.png") and data.labels == ("cat", "dog")
    assert data.x[:, 0, 0, 0].tolist() == [0, 1, 2] and data.y.tolist() == [0, 0, 1] and data.name == str(path)
    (tmp_path / "folder" / "__MACOSX").rename(tmp_path / "folder" / ".trash")
    unpacked = open_data(tmp_path / "folder" / wrapper)
    assert unpacked.digest == data.digest and unpacked.files == data.files
    assert open_data(f"{path}[1:3]").files == ("cat/10.png", "dog/a.png")


def test_an_archive_with_labels(tmp_path):
    files = [
        ("00000/img0.png", png(5)),
        ("00000/img1.png", png(6)),
        ("dataset.json", '{"labels": [["00000/img1.png", 2]]}'),
    ]
    data = open_data(archive(tmp_path / "a.zip", files))
    assert data.y.tolist() == [-1, 2] and data.x[:, 0, 0, 0].tolist() == [5, 6]


def test_archives_that_are_refused(tmp_path, monkeypatch):
    def said(*files):
        return refusal(archive(tmp_path / "a.zip", files))

    for name in ("../a.png", "/a.png", "a/../../b.png", "C:/a.png", "a//b.png", "a\tb.png"):
        assert "is no plain relative name" in said(("b.png", png()), (name, png())), name
    with pytest.warns(UserWarning, match="Duplicate"):
        assert "'a.png' is there twice" in said(("a.png", png()), ("a.png", png()))
    assert "a.zip holds no images" in said()
    assert f"{tmp_path / 'a.zip'}/b.png is no image" in said(("a.png", png()), ("b.png", b"hello"))
    assert "a.zip/x/b.png is no image" in said(("x/b.png", b"hello"))
    assert "b.png cannot be read as an image (it is empty" in said(("a.png", png()), ("b.png", b""))
    assert "is a folder in a folder of a class" in said(("a/b/c.png", png()), ("b/c.png", png()))
    monkeypatch.setattr(tree, "_MOST_FILES", 1)
    assert "holds more than 1 files" in said(("a.png", png()), ("b.png", png()))


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "_MOST_BYTES", 2**20)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("was unpacked"))
    path = archive(tmp_path / "a.zip", [("a.png", bytes(2**20 + 1))])
    assert "'a.png' has 1 MiB, more than the 1 that are read" in refusal(path)


def test_a_damaged_member_is_named(tmp_path):
    path = archive(tmp_path / "a.zip", [("a.png", png()), ("b.png", bytes(range(256)) * 9)])
    raw = bytearray(path.read_bytes())
    place = raw.index(b"b.png") + 20
    raw[place] ^= 255
    path.write_bytes(raw)
    assert "a.zip/b.png cannot be read as an image" in refusal(path)


def test_emoji(organza_data):
    data = open_data(organza_data / "emoji" / "google.zip")
    assert data.spec.shape == (4, 64, 64) and len(data) == 1906 and data.spec.classes == 9
    assert len(data.labels) == 9 and data.labels[0] == "activities" and not data.lossy
    assert data.files[0].startswith("activities/") and len({*data.files}) == 1906
    white = open_data(f"{organza_data / 'emoji' / 'google.zip'}[background=white]")
    assert white.spec.shape == (3, 64, 64) and torch.equal(white.y, data.y) and white.files == data.files
    clear, whole = (data.x[:, 3:] == level for level in (0, 255))
    assert bool((white.x.masked_select(clear) == 255).all())
    assert torch.equal(white.x.masked_select(whole), data.x[:, :3].masked_select(whole))


def test_a_link_to_itself(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    try:
        (folder / "b.png").symlink_to(folder / "b.png")
    except OSError:
        pytest.skip("no links here")
    assert "b.png cannot be read" in refusal(folder)
