"""organza.data.folder: how a folder is read: sizes made alike, bad files left out, and all that is unusual said."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from test_images import refusal, write

from organza.data import folder, open_data, store
from organza.data.folder import How


def pixels(width=8, height=8, channels=3, seed=0):
    values = np.random.RandomState(seed).randint(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


# Sizes.


def test_resizing_takes_the_middle_and_averages(tmp_path):
    """Of a wide image, the middle square; from 16 to 2 each pixel is the mean over its 8 x 8, not a sample."""
    left, right = np.zeros((16, 8, 3), np.uint8), np.full((16, 8, 3), 255, np.uint8)
    checks = np.kron(np.indices((8, 8)).sum(0) % 2 * 255, np.ones((2, 2)))[..., None].repeat(3, 2).astype(np.uint8)
    write(tmp_path / "a.png", np.concatenate([left, checks, right], 1))
    write(tmp_path / "b.png", checks.repeat(3, 0)[16:32])
    data = open_data(f"{tmp_path}[resize=2]")
    assert data.x.shape == (2, 3, 2, 2) and data.name == f"{tmp_path}[resize=2]"
    assert (data.x[0].float() - 127.5).abs().max() < 20  # neither of the black and white at its sides, nor aliased
    tall = write(tmp_path / "tall" / "a.png", np.concatenate([left, checks, right], 1).transpose(1, 0, 2))
    assert np.array_equal(open_data(f"{tall.parent}[resize=2]").x[0], data.x[0].transpose(1, 2))


def test_resizing_to_its_own_size_changes_nothing(tmp_path):
    write(tmp_path / "a.png", pixels(12, 8))
    write(tmp_path / "b.png", pixels(12, 8, seed=1))
    assert torch.equal(open_data(f"{tmp_path}[resize=12x8]").x, open_data(tmp_path).x)
    assert open_data(f"{tmp_path}[resize=6x4][:1]").spec.shape == (3, 4, 6)


def test_colours_are_weighed_by_alpha(tmp_path):
    """What is transparent lends no colour to its neighbours: else every edge gets a rim of it."""
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, :4] = [255, 0, 0, 255]
    image[:, 4:] = [0, 255, 0, 0]
    write(tmp_path / "a.png", image)
    x = open_data(f"{tmp_path}[resize=3]").x[0]
    assert (x[0][x[3] > 0] == 255).all() and (x[1][x[3] > 0] == 0).all() and 0 < x[3, 0, 1] < 255


def test_gray_of_16_bits_is_resized(tmp_path):
    write(tmp_path / "a.png", np.full((8, 8), 40_000, np.uint16))
    data = open_data(f"{tmp_path}[resize=4]")
    assert data.x.dtype == torch.uint16 and set(data.x.int().flatten().tolist()) == {40_000}


def test_a_large_jpeg_is_decoded_smaller_but_looks_the_same(tmp_path):
    smooth = np.asarray(Image.fromarray(pixels(8, 6)).resize((1024, 768), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "j" / "a.jpg", smooth, quality=95, exif=exif)
    write(tmp_path / "p" / "a.png", np.rot90(smooth, -1).copy())
    j, p = (open_data(f"{tmp_path / kind}[resize=32x40]") for kind in "jp")
    assert (j.x.float() - p.x.float()).abs().mean() < 1.5 and j.lossy
    assert any("turned" in note for note in j.notes) and p.notes == ()


def test_what_is_enlarged_is_said(tmp_path):
    write(tmp_path / "a.png", pixels(4, 4))
    write(tmp_path / "b.png", pixels(9, 9))
    assert open_data(f"{tmp_path}[resize=8]").notes == ("1 of 2: is smaller and was enlarged",)


def test_all_images_are_alike(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.png", pixels(5, 6, 4) if i == 3 else pixels(9, 6) if i == 4 else pixels(5, 6))
    said = refusal(tmp_path)
    assert f"{tmp_path / '4.png'} has 9 x 6 pixels, but most have 5 x 6; there are 2 sizes among 5 images" in said
    (tmp_path / "4.png").unlink()
    assert open_data(tmp_path).spec.shape == (4, 6, 5)
    assert "3 of 3 channels and 1 of 4 channels" in open_data(tmp_path).notes[0]


# Bad files.


def bad_folder(folder):
    """Six files of which two are good."""
    write(folder / "1.png", pixels(seed=1))
    write(folder / "2.png", pixels(seed=2))
    (folder / "empty.png").write_bytes(b"")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    good = write(folder / "half.png", pixels(64, 64)).read_bytes()
    (folder / "half.png").write_bytes(good[: len(good) // 2])  # whose header is sound
    (folder / "notes.txt").write_text("hello")
    return folder


def test_bad_files_are_an_error_or_left_out(tmp_path):
    bad_folder(tmp_path)
    said = refusal(tmp_path)
    assert (
        "empty.png" in said and "3 of 6 files cannot be read; --bad-images skip, or [bad=skip] leaves them out" in said
    )
    assert "64 x 64" in refusal(f"{tmp_path}[bad=skip]")  # the broken one, which differs
    data = open_data(f"{tmp_path}[bad=skip][resize=8]")
    assert data.files == ("1.png", "2.png") and np.array_equal(data.x[1].permute(1, 2, 0), pixels(seed=2))
    assert [line.split("/")[-1].split()[0] for line in data.left_out] == [
        "empty.png",
        "film.mp4",
        "notes.txt",
        "half.png",
    ]
    assert "truncated" in data.left_out[-1]
    assert open_data(f"{tmp_path}[resize=8][bad=skip]").digest == data.digest


def test_bad_files_of_classes(tmp_path):
    for name in ("cat", "dog"):
        bad_folder(tmp_path / name)
    (tmp_path / "read.me").write_text("hello")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "dog" / "deeper").mkdir()
    assert "holds files (read.me) beside folders" in refusal(tmp_path)
    data = open_data(f"{tmp_path}[bad=skip][resize=8]")
    assert data.labels == ("cat", "dog") and data.y.tolist() == [0, 0, 1, 1] and len(data.left_out) == 11
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.png").write_bytes(b"x")
    assert "no image of the class owl can be read" in refusal(f"{tmp_path}[bad=skip][resize=8]")


@pytest.mark.parametrize("least", [1, 10**9])
def test_nothing_good_behind_sound_headers(tmp_path, monkeypatch, least):
    monkeypatch.setattr(store, "LEAST", least)
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path / "cache"))
    whole = write(tmp_path / "a" / "1.png", pixels(64, 64)).read_bytes()
    for name in ("1.png", "2.png"):
        (tmp_path / "a" / name).write_bytes(whole[: len(whole) // 2])
    assert "none of its images can be read; the first: " in refusal(f"{tmp_path / 'a'}[bad=skip]")


def test_nothing_good_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    assert "none of its 1 files is an image" in refusal(f"{tmp_path}[bad=skip]")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("resize=0", "1 to 4096"),
        ("resize=8x", "[resize=96x64]"),
        ("resize=99999", "1 to 4096"),
        ("bad=keep", "[bad=skip]"),
    ],
)
def test_what_is_no_way_to_read(tmp_path, part, said):
    write(tmp_path / "a.png", pixels())
    assert said in refusal(f"{tmp_path}[{part}]")


def test_only_folders_are_read_in_a_way():
    assert "are for folders and archives" in refusal("digits[resize=8]")
    assert How().asked("stacked") is None and How().asked("[labels=8]") is None


def test_a_name_that_lies_is_said(tmp_path):
    write(tmp_path / "a.png", pixels(), format="JPEG")
    assert open_data(tmp_path).notes == ("1 of 1: is called by another format than it has",)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    write(tmp_path / "a.png", pixels())
    try:
        (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this disk takes no such name")
    assert "no text in UTF-8; rename it" in refusal(tmp_path)


def test_images_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    write(tmp_path / "1.png", pixels())

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    assert "1 images, 8 x 8 pixels of 3 channels, do not fit into memory" in refusal(tmp_path)


def test_large_images_are_decoded_a_few_at_once(tmp_path, monkeypatch):
    """What is held beside the data is bounded in bytes, whatever an image takes; and nothing is lost between chunks."""
    for i in range(9):
        write(tmp_path / f"{i}.png", pixels(seed=i))
    held = []
    empty = np.empty

    def counted(shape, *args):
        held.append(shape)
        return empty(shape, *args)

    monkeypatch.setattr(folder, "_BYTES", 1)
    monkeypatch.setattr(folder.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(np, "empty", counted)
    data = open_data(tmp_path)
    assert np.array_equal(data.x.permute(0, 2, 3, 1), np.stack([pixels(seed=i) for i in range(9)]))
    assert sorted(shape[0] for shape in held if shape[1:] == (3, 8, 8)) == [1, 2, 2, 2, 2, 9]
