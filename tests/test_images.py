"""organza.data.images: folders of image files, read exactly or refused in one line that names the file."""

import os
import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import Spec, open_data
from organza.data.images import FORMATS


def pixels(channels=3, height=6, width=5, seed=0):
    """Random values, (H, W, C) or (H, W)."""
    values = np.random.RandomState(seed).randint(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def write(path, image=None, **options):
    """Write an image or an array of values, by default random ones; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels() if image is None else image
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def values(path):
    """The values of the images of a folder as (N, H, W, C)."""
    return open_data(path).x.permute(0, 2, 3, 1).numpy()


def mode(path):
    with Image.open(path) as image:
        return image.mode


def refusal(path):
    with pytest.raises(ValueError) as caught:
        open_data(path)
    message = str(caught.value)
    assert "\n" not in message and "Error" not in message
    return message


# Folders.


def test_a_flat_folder(tmp_path):
    folder = tmp_path / "photos"
    for i in range(3):
        write(folder / f"{i}.png", pixels(seed=i))
    data = open_data(folder)
    expected = np.stack([pixels(seed=i) for i in range(3)])
    assert data.name == str(folder) and data.spec == Spec((3, 6, 5), 3, 0) and data.y is None and not data.lossy
    assert data.x.dtype == torch.uint8 and data.x.is_contiguous()
    assert np.array_equal(values(folder), expected)
    assert data.digest == open_data(expected).digest
    assert open_data(f"{folder}/").name == str(folder)
    assert open_data(f"{folder}/[1:3]").digest == open_data(expected[1:]).digest


def test_one_folder_a_class(tmp_path):
    for name, seeds in (("10", [0, 1]), ("9", [2]), ("b", [3, 4]), ("B", [5])):
        for seed in seeds:
            write(tmp_path / name / f"{seed}.png", pixels(seed=seed))
    data = open_data(tmp_path)
    assert data.y.tolist() == [0, 1, 1, 2, 3, 3] and data.y.dtype == torch.int64 and data.spec.classes == 4
    assert data.labels == ("9", "10", "B", "b") and data.files[:3] == ("9/2.png", "10/0.png", "10/1.png")
    assert open_data(f"{tmp_path}[1:3]").files == ("10/0.png", "10/1.png")
    assert np.array_equal(values(tmp_path), np.stack([pixels(seed=seed) for seed in (2, 0, 1, 5, 3, 4)]))


def test_names_are_in_natural_order(tmp_path):
    names = ["1.png", "2.png", "10.png", "a1b2.png", "a1b10.png", "a2.png", "a010.png", "a10.png", "b.png", "é.png"]
    for i in np.random.RandomState(0).permutation(len(names)):
        write(tmp_path / names[i], np.full((4, 4), i, np.uint8))
    assert open_data(tmp_path).x[:, 0, 0, 0].tolist() == list(range(len(names)))


def test_what_is_hidden_is_skipped(tmp_path):
    write(tmp_path / "a" / "1.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "._1.png").write_bytes(b"x")
    write(tmp_path / ".thumbnails" / "1.png")
    assert len(open_data(tmp_path)) == 1 and open_data(tmp_path).spec.classes == 1


def test_folders_that_are_refused(tmp_path):
    assert "holds no images" in refusal(tmp_path)
    (tmp_path / "a").mkdir()
    assert f"{tmp_path / 'a'} holds no images: remove it" in refusal(tmp_path)
    write(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "deep").mkdir()
    assert f"{tmp_path / 'a' / 'deep'} is a folder in a folder" in refusal(tmp_path)
    (tmp_path / "a" / "deep").rmdir()
    assert len(open_data(tmp_path)) == 1
    write(tmp_path / "2.png")
    assert "holds files (2.png) beside folders (a)" in refusal(tmp_path)


def test_a_folder_has_no_splits(tmp_path):
    write(tmp_path / "1.png")
    with pytest.raises(ValueError, match="only built-in data sets"):
        open_data(tmp_path, "test")


def test_links_are_followed_and_dead_ones_refused(tmp_path):
    write(tmp_path / "real" / "1.png")
    (tmp_path / "linked").mkdir()
    try:
        (tmp_path / "linked" / "a.png").symlink_to(tmp_path / "real" / "1.png")
        (tmp_path / "class").symlink_to(tmp_path / "linked")
    except OSError:
        pytest.skip("this system allows no links")
    assert np.array_equal(values(tmp_path / "class"), pixels()[None])
    (tmp_path / "linked" / "b.png").symlink_to(tmp_path / "nowhere")
    assert "b.png is neither a file nor a folder" in refusal(tmp_path / "linked")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "a.png is neither a file nor a folder" in refusal(tmp_path)


# Formats and pixels.


@pytest.mark.parametrize("format", FORMATS)
def test_formats_are_told_by_their_contents(tmp_path, format):
    smooth = np.linspace(60, 200, 16 * 16, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, 2)
    write(tmp_path / "no suffix.doc", smooth, format=format)
    data = open_data(tmp_path)
    lossy = format in ("JPEG", "WEBP")
    assert data.lossy == lossy
    assert np.abs(values(tmp_path)[0].astype(int) - smooth).max() <= (8 if lossy else 0)


def test_channels(tmp_path):
    """Each mode that is read becomes the channels it has, with the values it shows."""
    rgba = Image.fromarray(pixels(4))
    gray = Image.fromarray(pixels(1))
    palette = Image.fromarray(pixels()).quantize(16)
    two = gray.convert("1")
    for i, (image, expected) in enumerate(
        [
            (gray, pixels(1)[..., None]),
            (Image.fromarray(pixels(2)), pixels(2)),
            (Image.fromarray(pixels()), pixels()),
            (rgba, pixels(4)),
            (palette, np.asarray(palette.convert("RGB"))),
            (two, 255 * np.asarray(two, np.uint8)[..., None]),
        ]
    ):
        write(tmp_path / str(i) / "1.png", image)
        assert mode(tmp_path / str(i) / "1.png") == image.mode
        assert np.array_equal(values(tmp_path / str(i))[0], expected)


def test_gray_among_colours_is_colour(tmp_path):
    for channels in (1, 2):
        folder = tmp_path / str(channels)
        write(folder / "1.png", pixels(channels))
        write(folder / "2.png", pixels(channels + 2))
        gray, alpha = np.split(pixels(channels).reshape(6, 5, channels), [1], 2)
        assert np.array_equal(values(folder), [np.concatenate([gray] * 3 + [alpha], 2), pixels(channels + 2)])
    write(tmp_path / "1" / "3.png", pixels(2))  # and what has no alpha among others is opaque
    found = values(tmp_path / "1")
    assert (
        found.shape[3] == 4
        and (found[:2, ..., 3] == 255).all()
        and np.array_equal(found[2, ..., 3:], pixels(2)[..., 1:])
    )
    assert np.array_equal(found[1, ..., :3], pixels(3)) and "3 of 3" not in open_data(tmp_path / "1").notes[0]


def test_transparent_colours_become_alpha(tmp_path):
    index = np.arange(30, dtype=np.uint8).reshape(6, 5) % 4
    palette = Image.fromarray(index, "L").convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[index]
    alphas = {
        "one.png": (palette, 2, np.where(index == 2, 0, 255)),
        "one.gif": (palette, 2, np.where(index == 2, 0, 255)),
        "each.png": (palette, bytes([255, 90, 0, 7]), np.array([255, 90, 0, 7])[index]),
        "rgb.png": (Image.fromarray(colours), (255, 0, 0), np.where(index == 1, 0, 255)),
    }
    for name, (image, transparency, alpha) in alphas.items():
        write(tmp_path / name / name, image, transparency=transparency)
        found = values(tmp_path / name)[0]
        assert np.array_equal(found[..., 3], alpha)
        assert np.array_equal(found[..., :3][alpha > 0], colours[alpha > 0])
    write(tmp_path / "gray" / "1.png", Image.fromarray(index), transparency=3)
    assert np.array_equal(values(tmp_path / "gray")[0], np.stack([index, np.where(index == 3, 0, 255)], 2))


def chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def png(bits, colours, rows, after=b""):
    """A PNG file from its bits a channel, type of colours and rows of bytes; `after` stands behind the pixels."""
    header = struct.pack(
        ">IIBBBBB", len(rows[0]) * 8 // bits // {0: 1, 2: 3}[colours], len(rows), bits, colours, 0, 0, 0
    )
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + after + chunk(b"IEND", b"")


def test_pixel_formats_that_are_refused(tmp_path):
    deep = pixels(1).astype(np.uint16) * 257
    for name, image in {
        "F.tif": deep.astype(np.float32),
        "I.tif": deep.astype(np.int32),
        "LAB.tif": Image.fromarray(pixels()).convert("LAB"),
    }.items():
        write(tmp_path / name / name, image)
        said = refusal(tmp_path / name)
        assert (
            f"{name} has a pixel format that is not read ({name.partition('.')[0]}" in said
            and "8 bits a channel" in said
        )
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rgb.png").write_bytes(png(16, 2, [bytes(range(12))] * 2))
    assert mode(tmp_path / "deep" / "rgb.png") == "RGB"  # of which lower bits Pillow would drop
    assert values(tmp_path / "deep")[0, 0].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert open_data(tmp_path / "deep").notes == ("1 of 1: has colours of 16 bits: the upper 8 are read",)
    ink = Image.fromarray(pixels()).convert("CMYK")
    write(tmp_path / "ink" / "1.tif", ink)
    assert np.array_equal(values(tmp_path / "ink")[0], np.asarray(ink.convert("RGB")))
    assert "CMYK" in open_data(tmp_path / "ink").notes[0]
    (tmp_path / "shallow").mkdir()
    (tmp_path / "shallow" / "gray.png").write_bytes(png(4, 0, [b"\x0f\xf0"] * 2))
    assert values(tmp_path / "shallow")[0, 0, :, 0].tolist() == [0, 255, 255, 0]


def test_gray_of_16_bits(tmp_path):
    deep = np.random.RandomState(0).randint(0, 65536, (6, 5)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "1.png", deep)
    write(tmp_path / "2.tif", deep)
    write(tmp_path / "3.png", np.rot90(deep).copy(), exif=exif)
    data = open_data(tmp_path)
    assert data.x.dtype == torch.uint16 and data.spec.shape == (1, 6, 5)
    assert all(np.array_equal(image, deep) for image in data.x[:, 0].numpy())
    write(tmp_path / "4.png", pixels(1))  # among 8 bits it is scaled, not clipped
    data = open_data(tmp_path)
    assert data.x.dtype == torch.uint8 and np.array_equal(data.x[3, 0].numpy(), pixels(1))
    assert np.array_equal(data.x[0, 0].numpy(), np.round(deep / 257).astype(np.uint8))
    assert "3 of 1 channel, 16 bits" in data.notes[-1] and "1 of 1 channel" in data.notes[-1]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_read(tmp_path, format):
    frames = [Image.fromarray(pixels(seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "film", format, save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "film") as film:
        assert np.array_equal(values(tmp_path)[0], np.asarray(film.convert("RGB")))
    assert open_data(tmp_path).notes == ("1 of 1: has several frames: the first is read",)


# What was compressed with loss.


@pytest.mark.parametrize(
    ("options", "channels", "lossy"),
    [
        ({"format": "PNG"}, 3, False),
        ({"format": "JPEG"}, 3, True),
        ({"format": "JPEG", "quality": 100}, 1, True),
        ({"format": "WEBP"}, 3, True),
        ({"format": "WEBP"}, 4, True),  # with a chunk of alpha before the pixels
        ({"format": "WEBP", "lossless": True}, 3, False),
        ({"format": "WEBP", "lossless": True}, 4, False),
        ({"format": "WEBP", "lossless": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, 3, False),
        ({"format": "WEBP", "icc_profile": b"odd"}, 3, True),  # with a chunk of odd size before the pixels
        ({"format": "WEBP", "icc_profile": b"odd", "lossless": True}, 3, False),
        ({"format": "TIFF", "compression": "jpeg"}, 3, True),
        ({"format": "TIFF", "compression": "tiff_lzw"}, 3, False),
    ],
)
def test_loss_is_known(tmp_path, options, channels, lossy):
    write(tmp_path / "1", pixels(channels, 16, 16), **options)
    data = open_data(tmp_path)
    assert data.lossy is lossy
    assert lossy == (not np.array_equal(values(tmp_path)[0].squeeze(), pixels(channels, 16, 16)))


def test_one_lossy_file_is_enough_and_is_remembered(tmp_path):
    write(tmp_path / "1.png")
    write(tmp_path / "2.jpg")
    data = open_data(tmp_path)
    assert data.lossy and data.to("cpu").lossy and open_data(f"{tmp_path}[:1]").lossy
    assert replace(data, lossy=False).digest == data.digest  # which is of the values alone
    assert not open_data("digits").lossy and not open_data(pixels(1)[None]).lossy


# Orientation.

TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = TURNS[orientation](pixels())
    write(tmp_path / "exact" / "1.png", exif=exif)
    write(tmp_path / "exact" / "2.webp", exif=exif, lossless=True)
    write(tmp_path / "exact" / "3.tif", exif=exif)
    write(tmp_path / "exact" / "4.png", expected.copy())
    assert np.array_equal(values(tmp_path / "exact"), np.stack([expected] * 4))
    block = np.zeros((16, 32, 3), np.uint8)
    block[:8, :8] = 255  # the first corner
    write(tmp_path / "jpeg" / "1.jpg", block, exif=exif, quality=100)
    assert np.abs(values(tmp_path / "jpeg")[0].astype(int) - TURNS[orientation](block)).max() < 10


def test_an_orientation_behind_the_pixels(tmp_path):
    """Rare and allowed: applied to squares; of others the header's size would be wrong, so they are refused."""
    exif = Image.Exif()
    exif[0x0112] = 6
    behind = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "1.png").write_bytes(png(8, 0, [b"\1\2", b"\3\4"], behind))
    assert values(tmp_path)[0, ..., 0].tolist() == [[3, 1], [4, 2]]
    (tmp_path / "1.png").write_bytes(png(8, 0, [b"\1\2\3", b"\4\5\6"], behind))
    assert "1.png has 2 x 3 pixels of 1 channel, not 3 x 2" in refusal(tmp_path)


# Refusals.


def damaged(name, tmp_path):
    """A folder with a good image and a bad one, called so."""
    write(tmp_path / "1.png", pixels(3, 64, 64))
    good = write(tmp_path / "good.png", pixels(3, 64, 64)).read_bytes()
    jpeg = write(tmp_path / "good.jpg", pixels(3, 64, 64)).read_bytes()
    (tmp_path / "good.png").unlink()
    (tmp_path / "good.jpg").unlink()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 255
    contents = {
        "empty.png": b"",
        "text.png": b"hello",
        "start.png": good[:20],
        "half.png": good[: len(good) // 2],
        "flipped.png": bytes(flipped),
        "half.jpg": jpeg[: len(jpeg) // 2],
        "page.ps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n",
        "portable.ppm": b"P6 64 64 255 " + bytes(64 * 64 * 3),
    }
    (tmp_path / name).write_bytes(contents[name])
    return refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty.png", "it is empty, 0 bytes"),
        ("text.png", "is no image of PNG, JPEG"),
        ("start.png", "cannot be read|is no image"),
        ("half.png", "cannot be read as an image .*truncated"),
        ("flipped.png", "cannot be read as an image"),
        ("half.jpg", "cannot be read as an image .*truncated"),
        ("page.ps", "is no image of"),
        ("portable.ppm", "is no image of"),
    ],
)
def test_what_is_damaged_or_no_image_is_named(tmp_path, name, said):
    message = damaged(name, tmp_path)
    assert str(tmp_path / name) in message and re.search(said, message)


@pytest.mark.parametrize("side", [11, 40])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch, side):
    """Pillow warns above its limit and raises above twice that; both are refused."""
    write(tmp_path / "bomb.png", pixels(3, side, side))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    assert "bomb.png cannot be read as an image" in refusal(tmp_path) and "exceeds limit" in refusal(tmp_path)
