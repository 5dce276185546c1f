r"""Pairs: how far an image made from a condition is from the true one, pixel by pixel and by what the eye compares.

Of images x (made) and t (true) with values in [0, 1], each measure is a number for each pair:

- l1: :math:`|x - t|`, the mean over pixels;
- psnr: :math:`-10 \log_{10} \overline{(x - t)^2}` in dB; what differs by less than the rounding to bytes, 1/12 of a
  squared level, counts as that, 58.92 dB;
- ssim: the mean over windows of
  :math:`\frac{(2 \mu_x \mu_t + C_1)(2 \sigma_{xt} + C_2)}{(\mu_x^2 + \mu_t^2 + C_1)(\sigma_x^2 + \sigma_t^2 + C_2)}`,
  1 for equal images;
- high_frequency: of both sets as a whole, :math:`|\log (E_x / E_t)|`, E the mean energy of the spectrum beyond half the
  Nyquist frequency: 0 if the one is as sharp as the other, wherever its details lie.

The first three reward the mean of all likely answers, which is blurred; the last does not.

References:
    Image Quality Assessment: From Error Visibility to Structural Similarity (Wang, Bovik, Sheikh, Simoncelli, 2004)
    The Perception-Distortion Tradeoff (Blau, Michaeli, 2018)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

__all__ = ["WINDOW", "high_frequency", "l1", "matched_pairs", "psnr", "ssim"]

WINDOW = 11  # pixels, the side of SSIM's window
_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03
_AT_ONCE = 256  # images
_NONE = 1e-12  # energy of the rounding of constant images; of one pixel, off by one level in 10,000 images, 1e-9


def l1(x: Tensor, t: Tensor) -> Tensor:
    """The mean absolute error of each pair of images (N, C, H, W), as bytes or in [0, 1]; (N,)."""
    return _each(lambda x, t: (x - t).abs().flatten(1).mean(1), x, t)


def psnr(x: Tensor, t: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each pair in dB, (N,); at most 58.92, the rounding to bytes."""
    least = 1 / (12 * 255**2)

    return _each(lambda x, t: -10 * (x - t).square().flatten(1).mean(1).clamp(min=least).log10(), x, t)


def ssim(x: Tensor, t: Tensor) -> Tensor:
    """The structural similarity of each pair, (N,), at most 1.

    Gaussian windows of 11 x 11, sigma 1.5, at every place where they lie within the image; K1 = .01, K2 = .03; the mean
    over windows and channels.

    Raises:
        ValueError: If a side is below 11.
    """
    if min(x.shape[2:]) < WINDOW:
        raise ValueError(f"ssim: images of {tuple(x.shape[1:])}; both sides must be {WINDOW} or more")
    place = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-place.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def mean(x: Tensor) -> Tensor:
        """The weighted means in all windows, (n C, 1, H - 10, W - 10)."""
        rows = conv2d(x.flatten(0, 1).unsqueeze(1), line.view(1, 1, -1, 1).to(x))
        return conv2d(rows, line.view(1, 1, 1, -1).to(x))

    def similarity(x: Tensor, t: Tensor) -> Tensor:
        mu_x, mu_t = mean(x), mean(t)
        var_x, var_t, both = mean(x * x) - mu_x**2, mean(t * t) - mu_t**2, mean(x * t) - mu_x * mu_t
        light = (2 * mu_x * mu_t + _K1**2) / (mu_x**2 + mu_t**2 + _K1**2)
        structure = (2 * both + _K2**2) / (var_x + var_t + _K2**2)
        alike: Tensor = (light * structure).view(len(x), -1)
        return alike.mean(1)

    return _each(similarity, x, t)


def high_frequency(x: Tensor, t: Tensor) -> float:
    r""":math:`|\log (E_x / E_t)|` of two sets of images of one size; infinite where one of them has no such details."""
    energies = [float(_each(_beyond, each, each).mean()) for each in (x, t)]
    if min(energies) < _NONE:
        return 0.0 if max(energies) < _NONE else math.inf
    return abs(math.log(energies[0] / energies[1]))


def _beyond(x: Tensor, _: Tensor) -> Tensor:
    """The energy of each image's spectrum beyond a quarter of a cycle a pixel, (n,)."""
    height, width = x.shape[2:]
    down, along = torch.fft.fftfreq(height, device=x.device), torch.fft.fftfreq(width, device=x.device)
    high = (down[:, None] ** 2 + along[None] ** 2).sqrt() > 0.25  # (H, W)
    energy: Tensor = torch.fft.fft2(x, norm="ortho").abs().square()
    return energy[..., high].flatten(1).sum(1)


@torch.no_grad()
def matched_pairs(
    discriminator: torch.nn.Module, x: Tensor, y: Tensor, seed: int = 0, batch: int = 64
) -> tuple[float, float]:
    r"""How often D finds an example more real beside its own condition than beside another's, and the standard error.

    The share of i with :math:`D(x_i, y_i) > D(x_i, y_{j(i)})`, each the mean over patches; j moves the places of a
    random order on by one, so that no example keeps its own.  1/2 is a D to which the condition says nothing.  It may
    be less: D is never shown a real example beside a foreign condition, and fakes that follow their condition more
    closely than real examples do may teach it that what does not follow is real.

    Arguments:
        discriminator: D(x, y), which returns logits or what has them as ``logits``; judged in evaluation mode.
        x: Real examples, (N, ...), at least 2, in [-1, 1].
        y: Their conditions, (N, ...), images in [-1, 1].
        seed: Of the order.
        batch: How many to judge at once.

    Raises:
        ValueError: If there are fewer than 2 pairs, or not as many conditions as examples.
    """
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"{len(x)} examples and {len(y)} conditions: give 2 or more, one for each")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(-1)
    was = discriminator.training
    discriminator.eval()

    def judged(rows: Tensor) -> Tensor:
        parts = [discriminator(a, b) for a, b in zip(x.split(batch), y[rows].split(batch), strict=True)]
        logits: list[Any] = [getattr(part, "logits", part) for part in parts]
        return torch.cat([each.reshape(len(each), -1).mean(1) for each in logits])

    share = float((judged(torch.arange(len(x))) > judged(other)).cpu().double().mean())
    discriminator.train(was)
    return share, math.sqrt(share * (1 - share) / len(x))


def _each(measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Tensor:
    """A measure of all pairs, some at once, in float64."""
    if x.shape != t.shape:
        raise ValueError(f"images of shape {tuple(x.shape)} and {tuple(t.shape)}: they must be pairs of one size")
    parts = zip(x.split(_AT_ONCE), t.split(_AT_ONCE), strict=True)
    return torch.cat([measure(_unit(a), _unit(b)) for a, b in parts])


def _unit(x: Tensor) -> Tensor:
    return x.double() / 255 if x.dtype == torch.uint8 else x.double()
