"""Pictures: the border between values in [-1, 1] and bytes in {0, ..., 255}.

    byte = clamp(round(127.5 (x + 1)), 0, 255)        x = byte / 127.5 - 1

The first undoes the second exactly. A picture is a PIL image or a uint8 array (H, W) or (H, W, C), with C = 1
(grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA), or a uint16 array (H, W), grey. The same picture gives the same bytes of
PNG or GIF.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from organza.run import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    Array: TypeAlias = NDArray[np.uint8]
    Picture: TypeAlias = Array | Image

__all__ = ["data_uri", "draw", "gif", "grid", "lines", "opaque", "points", "render", "save", "to_uint8"]

_SHOWN = 5_000  # points of the data behind the generated ones: more only make a blot
_LINES = 16  # signals in a picture of lines
_CHANNELS = ((), (1,), (2,), (3,), (4,))


def to_uint8(x: Tensor) -> Tensor:
    """Values in [-1, 1] to bytes, any shape; values outside are clamped, and NaN becomes 0."""
    from organza.values import BYTES

    return BYTES.restore(x)


def grid(x: Tensor, columns: int | None = None, pad: int = 2) -> Array:
    """Tiles images row by row into one picture, `pad` pixels of 0 (black, or clear) between them.

    Arguments:
        x: Images (N, C, H, W), floats in [-1, 1] or uint8. Of more than 4 channels the first three are shown.
        columns: Images in a row; by default the least that makes the picture at least as wide as high.
        pad: Pixels between two images; none outside.

    Returns:
        A picture (rows (H + pad) - pad, columns (W + pad) - pad, C).

    Raises:
        ValueError: `x` is not (N, C, H, W) with N >= 1 in one of the two ranges, columns < 1 or pad < 0.
    """
    import numpy as np
    import torch

    if x.ndim != 4 or x.numel() == 0 or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise ValueError(f"got {tuple(x.shape)} of {x.dtype}; give (N, C, H, W), floats in [-1, 1] or uint8")
    n, channels, height, width = x.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    if columns < 1 or pad < 0:
        raise ValueError(f"columns = {columns}, pad = {pad}; columns must be at least 1 and pad at least 0")
    x = x[:, : 3 if channels > 4 else channels].detach()
    tiles = (x if x.dtype == torch.uint8 else to_uint8(x)).permute(0, 2, 3, 1).cpu().numpy()
    rows, h, w = math.ceil(n / columns), height + pad, width + pad
    cells = np.zeros((rows * columns, h, w, tiles.shape[-1]), np.uint8)
    cells[:n, :height, :width] = tiles
    picture = cells.reshape(rows, columns, h, w, -1).swapaxes(1, 2).reshape(rows * h, columns * w, -1)
    return np.ascontiguousarray(picture[: rows * h - pad, : columns * w - pad])


def pairs(x: Tensor, y: Tensor) -> Array:
    """Images beside others, (N, C, H, W) each, in [-1, 1] or bytes: two that belong together touch."""
    import torch

    shown = [opaque(each) for each in (x, y)]
    together = torch.cat([(each if each.dtype == torch.uint8 else to_uint8(each)).cpu() for each in shown], 3)
    return grid(together, columns=math.ceil(math.sqrt(len(x) / 2)))  # as wide as high, at two widths a pair


def opaque(x: Tensor) -> Tensor:
    """Lays images with alpha, (N, 2 or 4, H, W), bytes or floats in [-1, 1], on white: bytes (N, 1 or 3, H, W).

    Images of another number of channels are returned as they are.
    """
    import torch

    from organza.values import over

    if x.ndim != 4 or x.shape[1] not in (2, 4):
        return x
    return over(x if x.dtype == torch.uint8 else to_uint8(x), 255)


def lines(x: Tensor, real: Tensor | None = None, size: int = 512) -> Array:
    """Plots signals in rows, at most 16 of them, a line for each channel, all on the same axes.

    Arguments:
        x: Signals (N, C, L), N >= 1.
        real: The data, (M, C, L), which sets the height of the axes; by default `x` does.
        size: Side of the picture in pixels.

    Returns:
        A picture (size, size, 3).
    """
    import torch

    real = x if real is None else real
    low, high = (float(end) for end in real.aminmax())
    if not math.isfinite(high - low):  # rare, as a mask of numbers takes many times their memory
        finite = real[real.isfinite()]
        low, high = (float(end) for end in finite.aminmax()) if len(finite) else (-1.0, 1.0)
    half = 0.55 * (high - low) or 1.0
    middle, n, length = low / 2 + high / 2, min(len(x), _LINES), x.shape[2]
    side = math.ceil(math.sqrt(n))
    figure = _figure(size)
    for i, signal in enumerate(x[:n].detach().cpu().to(torch.float64).numpy()):
        box = (i % side / side, 1 - (i // side + 1) / side, 0.96 / side, 0.96 / side)
        axes = figure.add_axes(box, xlim=(0, max(1, length - 1)), ylim=(middle - half, middle + half))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.8")
        axes.plot(signal.T, linewidth=0.5)
    return render(figure)


def points(
    x: Tensor,
    real: Tensor | None = None,
    size: int = 512,
    limits: tuple[float, float, float, float] | None = None,
) -> Array:
    """Scatters points of the plane: `x` in blue over `real` in grey.

    Arguments:
        x: Generated points (N, 2).
        real: Points of the data (M, 2).
        size: Side of the picture in pixels.
        limits: (left, right, bottom, top); by default a square around `real`, else around `x`. The frames of
            a film need the same ones.

    Returns:
        A picture (size, size, 3).

    Raises:
        ValueError: `x` or `real` is not (N, 2).
    """
    layers = [(_plane(x), "tab:blue")]
    if real is not None:
        layers.insert(0, (_plane(real), "0.6"))
    left, right, bottom, top = limits or _square(layers[0][0])
    figure = _figure(size)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    for xy, colour in layers:
        axes.scatter(xy[:, 0], xy[:, 1], s=0.5, c=colour, alpha=0.6, marker="o", linewidths=0)
    return render(figure)


def render(figure: Figure) -> Array:
    """A figure of matplotlib as a picture (height, width, 3)."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), np.uint8)[..., :3].copy()


def draw(x: Tensor, real: Tensor | None = None, columns: int | None = None) -> Array | None:
    """The picture that suits what was generated: images, points of the plane, lines of signals, or None.

    Arguments:
        x: Images (N, C, H, W) in [-1, 1], a grid of which, those with alpha on white, is drawn; or, in the numbers of
            the data, points (N, 2) or signals (N, C, L); or anything else, of which there is no picture.
        real: The data, (M, ...). Points are drawn over it, signals between its limits, so that pictures of one run
            agree; of very many points a fixed choice is shown. Images have no use for it.
        columns: Images in a row, see `grid`.
    """
    import torch

    if x.ndim == 4:
        return grid(opaque(x), columns)
    if x.ndim == 3:
        return lines(x, real)
    if x.ndim != 2 or x.shape[1] != 2:
        return None
    if real is None:
        return points(x)
    limits = _square(_plane(real))
    if len(real) > _SHOWN:
        # Chosen by chance, fixed: every k-th point could miss a mode of data that is laid out in turns.
        real = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:_SHOWN]]
    return points(x, real, limits=limits)


def save(picture: Picture, path: str | os.PathLike[str]) -> None:
    """Writes a PNG at once (a reader sees the old file or the new one), making the folders it needs."""
    _write(path, _png(picture))


def gif(frames: Sequence[Picture], path: str | os.PathLike[str], seconds: float = 0.25) -> None:
    """Writes an endless film of frames of one size, each shown for `seconds`, the last six times as long.

    GIF counts in hundredths of a second and holds 256 colours a frame; equal neighbours become one frame.

    Raises:
        ValueError: There is no frame, sizes differ, or `seconds` is below 0.02 (which viewers do not obey).
    """
    images = [_image(frame) for frame in frames]
    if len({image.size for image in images}) != 1:
        raise ValueError(f"frames of sizes {sorted({image.size for image in images})}; one size is needed")
    if not 0.02 <= seconds <= 100:
        raise ValueError(f"seconds = {seconds}; 0.02 to 100 are allowed")
    shown = 10 * round(100 * seconds)
    durations = [shown] * (len(images) - 1) + [6 * shown]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    _write(path, buffer.getvalue())


def data_uri(picture: Picture) -> str:
    """The picture as "data:image/png;base64,...", to stand inside a page."""
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")


def _image(picture: Picture) -> Image:
    import numpy as np
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    array = np.asarray(picture)
    if array.dtype == np.uint16 and array.ndim == 2:
        return Image.fromarray(array)
    if array.dtype != np.uint8 or array.ndim < 2 or array.shape[2:] not in _CHANNELS:
        raise ValueError(f"got {array.shape} of {array.dtype}; give (H, W) or (H, W, 1 to 4) of uint8")
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def _png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    _image(picture).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _figure(size: int) -> Figure:
    """A white figure of so many pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(1, 1), dpi=size, facecolor="white")


def _plane(x: Tensor) -> NDArray[Any]:
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"got {tuple(x.shape)}; points of the plane are (N, 2)")
    xy: NDArray[Any] = x.detach().cpu().double().numpy()
    return xy


def _square(xy: NDArray[Any]) -> tuple[float, float, float, float]:
    import numpy as np

    xy = xy[np.isfinite(xy).all(axis=1)]
    if len(xy) == 0:
        return -1.0, 1.0, -1.0, 1.0
    low, high = xy.min(axis=0), xy.max(axis=0)
    (cx, cy), half = (low + high) / 2, 0.6 * float((high - low).max()) or 1.0
    return float(cx - half), float(cx + half), float(cy - half), float(cy + half)


def _write(path: str | os.PathLike[str], data: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
