"""Pictures: bytes and values are each other's inverse, and a grid puts every image where it says."""

import base64
import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from organza.picture import data_uri, draw, gif, grid, lines, opaque, points, save, to_uint8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_to_uint8_inverts_on_all_256_values(dtype):
    values = torch.arange(256)
    x = (values.double() / 127.5 - 1).to(dtype)
    assert torch.equal(to_uint8(x), values.to(torch.uint8))


def test_to_uint8_clamps_and_takes_nan_as_0():
    x = torch.tensor([[-torch.inf, -7.0, -1.0, 0.0], [1.0, 7.0, torch.inf, torch.nan]])
    assert to_uint8(x).tolist() == [[0, 0, 0, 128], [255, 255, 255, 0]]
    assert to_uint8(x).dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("n", "columns", "pad"), [(1, None, 2), (5, None, 1), (6, 2, 0), (7, 3, 3), (2, 5, 1)])
def test_grid_puts_image_i_in_row_i_over_columns(n, columns, pad, channels):
    height, width = 4, 3
    x = torch.randint(1, 256, (n, channels, height, width), dtype=torch.uint8)
    picture = grid(x, columns, pad)
    columns = columns or {1: 1, 5: 3}[n]
    rows, shown = -(-n // columns), channels if channels <= 4 else 3
    assert picture.dtype == np.uint8
    assert picture.shape == (rows * (height + pad) - pad, columns * (width + pad) - pad, shown)
    for i, image in enumerate(x):
        top, left = i // columns * (height + pad), i % columns * (width + pad)
        tile = picture[top : top + height, left : left + width]
        assert np.array_equal(tile, image[:shown].permute(1, 2, 0).numpy())
        tile[...] = 0
    assert not picture.any()  # all else is 0


def test_grid_of_floats_is_the_grid_of_their_bytes():
    x = torch.randn(6, 3, 4, 5)
    assert np.array_equal(grid(x), grid(to_uint8(x)))
    assert np.array_equal(grid(x.requires_grad_()), grid(to_uint8(x)))


@pytest.mark.parametrize(
    "x",
    [torch.zeros(3, 4, 4), torch.zeros(0, 3, 4, 4), torch.zeros(1, 0, 4, 4), torch.zeros(1, 3, 4, 4).long()],
)
def test_grid_refuses(x):
    with pytest.raises(ValueError, match=r"give \(N, C, H, W\), floats in \[-1, 1\] or uint8"):
        grid(x)


def test_grid_refuses_columns_and_pad():
    for options in ({"columns": 0}, {"pad": -1}):
        with pytest.raises(ValueError, match="columns must be at least 1 and pad at least 0"):
            grid(torch.zeros(1, 1, 2, 2), **options)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_saved_png_reads_back_and_its_bytes_are_stable(tmp_path, channels):
    picture = grid(torch.randint(0, 256, (4, channels, 8, 8), dtype=torch.uint8))
    paths = [tmp_path / "new" / "é 本" / f"{i}.png" for i in range(2)]
    for path in paths:
        save(picture, path)
    with Image.open(paths[0]) as image:
        assert image.format == "PNG" and image.mode == ["L", "LA", "RGB", "RGBA"][channels - 1]
        assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)
        save(image, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["0.png", "1.png"]


def test_data_uri_is_the_png(tmp_path):
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    save(picture, tmp_path / "a.png")
    head, body = data_uri(picture).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body, validate=True) == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((2, 2)),
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
    ],
)
def test_save_refuses_what_is_no_picture(tmp_path, picture):
    with pytest.raises(ValueError, match=r"give \(H, W\) or \(H, W, 1 to 4\) of uint8"):
        save(picture, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save(np.zeros((2, 2), np.uint8), path)
    old = path.read_bytes()
    synced = []

    def fail(*args):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="full"):
            save(np.ones((2, 2), np.uint8), path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
    assert synced and synced[0] > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_gif_has_every_frame_and_holds_the_last(tmp_path, channels):
    generator = torch.Generator().manual_seed(0)
    frames = [grid(torch.randn(4, channels, 8, 8, generator=generator)) for _ in range(5)]
    gif(frames, tmp_path / "a.gif", seconds=0.1)
    gif(frames, tmp_path / "b.gif", seconds=0.1)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 5 and film.info["loop"] == 0
        assert film.size == frames[0].shape[1::-1]
        durations = []
        for i in range(5):
            film.seek(i)
            durations.append(film.info["duration"])
            if channels == 1:
                assert np.array_equal(np.asarray(film.convert("L")), frames[i][..., 0])
    assert durations == [100, 100, 100, 100, 600]


def test_gif_refuses(tmp_path):
    a, b = np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)
    for frames, options, words in [
        ([], {}, "one size is needed"),
        ([a, b], {}, "one size is needed"),
        ([a], {"seconds": 0.0}, "0.02 to 100 are allowed"),
        ([a], {"seconds": float("nan")}, "0.02 to 100 are allowed"),
    ]:
        with pytest.raises(ValueError, match=words):
            gif(frames, tmp_path / "a.gif", **options)
    assert list(tmp_path.iterdir()) == []


def test_points_are_drawn_where_they_lie():
    limits = (0.0, 4.0, 0.0, 2.0)
    picture = points(torch.tensor([[1.0, 1.5]]), size=200, limits=limits)
    assert picture.shape == (200, 200, 3) and picture.dtype == np.uint8
    rows, columns = np.nonzero((picture != 255).any(axis=2))
    assert abs(columns.mean() - 49.5) < 1 and abs(rows.mean() - 49.5) < 1


@pytest.mark.parametrize("size", [57, 100, 512])
def test_points_picture_has_its_size(size):
    assert points(torch.zeros(1, 2), size=size).shape == (size, size, 3)


def test_points_axes_are_those_of_the_data():
    real = torch.randn(100, 2)
    a, b = points(real[:1], real), points(100 + real[:1], real)
    assert np.array_equal(b, points(torch.zeros(0, 2), real))  # the fake one lies outside
    assert not np.array_equal(a, b)
    assert np.array_equal(a, points(real[:1], real))


def test_points_take_nan_none_and_one():
    nan = torch.full((3, 2), torch.nan)
    blank = points(torch.zeros(0, 2))
    assert (blank == 255).all() and np.array_equal(points(nan), blank)
    assert not np.array_equal(points(torch.full((1, 2), 1e6)), blank)
    both = torch.cat([nan, torch.eye(2)])
    assert np.array_equal(points(both), points(torch.eye(2)))


def test_points_obey_no_settings_of_the_user():
    import matplotlib

    x, plain = torch.eye(2), points(torch.eye(2))
    with matplotlib.rc_context(
        {"figure.facecolor": "red", "patch.linewidth": 9, "lines.markersize": 30, "axes.xmargin": 0.4, "figure.dpi": 9}
    ):
        assert np.array_equal(points(x), plain)


def test_points_refuse():
    for x, real in [
        (torch.zeros(3), None),
        (torch.zeros(3, 3), None),
        (torch.zeros(3, 2), torch.zeros(2, 3)),
    ]:
        with pytest.raises(ValueError, match=r"points of the plane are \(N, 2\)"):
            points(x, real)


def test_images_with_alpha_are_laid_on_white():
    x = torch.tensor([[0, 100, 200, 255], [0, 100, 200, 0], [0, 100, 200, 51]], dtype=torch.uint8).view(3, 4, 1, 1)
    assert opaque(x).flatten(1).tolist() == [[0, 100, 200], [255, 255, 255], [204, 224, 244]]
    assert torch.equal(opaque(x.float() / 127.5 - 1), opaque(x))
    assert opaque(x[:, 2:]).flatten().tolist() == [200, 255, 244]
    assert np.array_equal(draw(x), grid(opaque(x)))
    for channels in (1, 3, 7):
        other = torch.zeros(2, channels, 4, 4)
        assert opaque(other) is other


def test_signals_are_lines():
    t = torch.linspace(0, 6, 50)
    x = torch.stack([t.sin(), t.cos()]).expand(20, 2, 50)
    picture = draw(x)
    assert picture.shape == (512, 512, 3) and np.array_equal(picture, lines(x[:16]))
    assert not np.array_equal(picture, draw(x, 9 * x))  # the axes are the data's
    one = x[:1, :1].clone()
    one[..., 3] = torch.nan
    assert lines(one).min() < 255 and lines(torch.full((2, 1, 9), torch.nan)).shape == (512, 512, 3)


def test_gray_of_16_bits_is_saved_whole(tmp_path):
    picture = np.arange(6, dtype=np.uint16).reshape(2, 3) * 13_000
    save(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), picture)


def test_draw_suits_the_data():
    images, plane = torch.zeros(5, 1, 4, 4), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(draw(images), grid(images))
    assert np.array_equal(draw(images, torch.zeros(9, 1, 4, 4)), grid(images))
    assert np.array_equal(draw(plane), points(plane))
    assert np.array_equal(draw(plane, 3 * plane), points(plane, 3 * plane))
    for other in (torch.zeros(5, 3), torch.zeros(5), torch.zeros(5, 3, 4, 2, 2)):
        assert draw(other, other) is None


def test_draw_thins_many_points_the_same_way_and_keeps_every_mode_and_the_limits():
    angle = torch.arange(100_000) % 8 * torch.pi / 4  # one mode after the other, in turns
    real = torch.stack([angle.cos(), angle.sin()], dim=1)
    real[77_777] = torch.tensor([3.0, 0.0])  # an outlier sets the limits whether it is shown or not
    picture, nothing = draw(torch.zeros(0, 2), real), torch.zeros(0, 2)
    assert np.array_equal(picture, draw(nothing, real))
    modes = torch.cat([real[:8], real[77_777:77_778]])
    away = (points(nothing, modes) != 255).any(axis=2)  # all nine places, between the same limits
    shown = (picture != 255).any(axis=2)
    assert not (shown & ~away).any() and shown.sum() >= 0.8 * away.sum()


def test_pictures_need_no_display():
    assert Image.open(io.BytesIO(base64.b64decode(data_uri(points(torch.eye(2))).split(",")[1]))).size == (
        512,
        512,
    )
