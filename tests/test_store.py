"""organza.data.store: a large set is decoded once, kept, mapped, and made anew whenever its source has changed."""

import json
import os
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import folder, open_data, store
from organza.lock import held


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of two classes, for which the store is used."""
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "LEAST", 1)
    for i in range(5):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        value = np.random.RandomState(i).randint(0, 256, (6, 5, 3), np.uint8)
        Image.fromarray(value).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch):
    """How many images have been decoded."""
    count, decode = [0], folder.decode

    def counted(*args):
        count[0] += 1
        decode(*args)

    monkeypatch.setattr(folder, "decode", counted)
    return lambda: count[0]


def same(one, two):
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y) and one.spec == two.spec
    assert (one.labels, one.files, one.notes, one.left_out) == (two.labels, two.files, two.notes, two.left_out)
    assert (one.name, one.lossy, one.digest) == (two.name, two.lossy, two.digest)


def test_decoded_once_and_the_same(photos, decoded, monkeypatch):
    first, second = open_data(photos), open_data(photos)
    assert decoded() == 5
    same(first, second)
    monkeypatch.setattr(store, "LEAST", 10**9)
    (store.place(str(photos), None) / "about.json").unlink()
    same(open_data(photos), second)  # in memory
    assert decoded() == 10 and "digest" not in open_data(photos).__dict__ and "digest" in second.__dict__
    assert second.but(name="x").digest == second.digest and second.rows(torch.arange(2)).digest != second.digest


def test_what_is_mapped_may_be_changed_in_memory_alone(photos):
    data = open_data(photos)
    data.x.zero_()
    assert open_data(photos).x.any()


@pytest.mark.parametrize(
    "change",
    ["touched", "added", "removed", "x is shorter", "x is other", "y is empty", "y is shorter", "about", "another way"],
)
def test_made_anew(photos, decoded, change):
    open_data(photos)
    place = store.place(str(photos), None)
    source, count = photos, 10
    if change == "touched":
        os.utime(photos / "a" / "0.png", ns=(1, 1))
    elif change == "added":
        Image.new("RGB", (5, 6)).save(photos / "a" / "9.png")
        count = 11
    elif change == "removed":
        (photos / "a" / "0.png").unlink()
        count = 9
    elif change == "x is shorter":
        (place / "x").write_bytes((place / "x").read_bytes()[:-1])
    elif change == "x is other":
        (place / "x").write_bytes(bytes(5 * 90))
    elif change == "y is empty":
        (place / "y.npy").write_bytes(b"")
    elif change == "y is shorter":
        np.save(place / "y.npy", np.zeros(4, np.int64))
    elif change == "about":
        (place / "about.json").write_text('{"stamp": [1')
    else:
        source = f"{photos}[resize=4]"
    data = open_data(source)
    assert decoded() == count and len(data) == count - 5 and data.x.any(1).any()
    same(data, open_data(source))
    assert decoded() == count


def test_a_kill_leaves_nothing_that_lies(photos, decoded, monkeypatch):
    """Cut before the last rename: the numbers are there, but nothing says what they are."""
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_data(photos)
    assert len(open_data(photos)) == 5 and decoded() == 10


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_without_a_disk_it_is_in_memory(photos, decoded, monkeypatch, trouble):
    expected = open_data(photos)
    monkeypatch.setenv("ORGANZA_CACHE", str(photos.parent / "other"))
    if trouble == "full":
        monkeypatch.setattr(store.shutil, "disk_usage", lambda _: store.shutil._ntuple_diskusage(10**9, 10**9, 10))
    else:
        (photos.parent / "other").write_text("no folder")
    same(open_data(photos), expected)
    assert decoded() == 10


def test_bad_images_are_an_error_without_leavings(photos):
    (photos / "a" / "bad.png").write_bytes((photos / "a" / "0.png").read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image"):
        open_data(photos)
    cache = photos.parent / "cache" / "data"
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [".lock"]
    data = open_data(f"{photos}[bad=skip]")
    assert len(data) == 5 and len(data.left_out) == 1 and data.y.tolist() == [0, 0, 0, 1, 1]
    same(data, open_data(f"{photos}[bad=skip]"))
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image .*\[bad=skip\] leaves them out"):
        open_data(photos)  # also of what is kept


def test_another_process_is_waited_for(photos, decoded):
    open_data(photos)
    place = store.place(str(photos), None)
    about = (place / "about.json").read_bytes()
    (place / "about.json").unlink()
    found = []
    with held(place.with_name(f".{place.name}")):  # as one that decodes it
        waiting = threading.Thread(target=lambda: found.append(open_data(photos)))
        waiting.start()
        waiting.join(0.5)
        assert not found
        (place / "about.json").write_bytes(about)
    waiting.join(20)
    assert len(found[0]) == 5 and decoded() == 5


def test_shards(tmp_path, monkeypatch, decoded):
    """Tar archives in the layout of WebDataset: read by place, labels beside, nothing unpickled."""
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "LEAST", 1)
    shards, expected = tmp_path / "shards", []
    shards.mkdir()
    for i in range(6):
        image = np.random.RandomState(i).randint(0, 256, (6, 5, 3), np.uint8)
        expected.append(image)
        files = {"png": tmp_path / "i.png", "cls": tmp_path / "i.cls", "pyd": tmp_path / "i.pyd"}
        Image.fromarray(image).save(files["png"])
        files["cls"].write_text(f"{i % 3}\n")
        files["pyd"].write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        with tarfile.open(shards / f"part-{i // 2:03}.tar", "a") as shard:
            for suffix, file in files.items():
                shard.add(file, f"{i:06}.{suffix}")
    data = open_data(shards)
    assert np.array_equal(data.x.permute(0, 2, 3, 1), expected) and data.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.notes == ("not read: 6 of .pyd",)
    same(open_data(shards), data)
    assert decoded() == 6 and open_data(shards / "part-001.tar").files == ("000002.png", "000003.png")
