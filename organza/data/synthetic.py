r"""Synthetic laws in the plane, where p_data is known.

Mixtures of K equally likely Gaussians, :math:`p(x) = \frac1K \sum_k N(x; c_k, \sigma^2 I)`, with y = k:

- ``ring``: K = 8, :math:`c_k = (\cos \frac{2 \pi k}{8}, \sin \frac{2 \pi k}{8})`, :math:`\sigma` = .01;
- ``grid25``: K = 25, :math:`c \in \{-4, -2, 0, 2, 4\}^2`, :math:`\sigma` = .05;
- ``grid100``: K = 100, :math:`c \in \{-9, -7, \dots, 9\}^2`, :math:`\sigma` = .05.

Curves with Gaussian noise, :math:`x = c_y(t) + \sigma \epsilon`, both arms y = 0, 1 equally likely:

- ``spiral``: :math:`c_y(t) = (-1)^y \frac t3 (-\cos t, \sin t)`, :math:`t = 3 \pi \sqrt u`, u uniform on
  [0, 1], :math:`\sigma` = .1: one turn and a half, about equally dense along the curve;
- ``moons``: :math:`c_0(t) = (\cos t, \sin t)` and :math:`c_1(t) = (1 - \cos t, \frac12 - \sin t)`, t uniform
  on :math:`[0, \pi]`, :math:`\sigma` = .1.

Two scales of ring and grid are in use.  These are the ones of Srivastava et al., "VEEGAN: Reducing Mode
Collapse in GANs using Implicit Variational Learning", 2017, in the code of Lin et al., "PacGAN: The power of
two samples in generative adversarial networks", 2018.  (Gulrajani et al. 2017 have a ring of radius 2 and
standard deviation .02, and divide by 1.414.)  Two spirals: Lang and Witbrock, "Learning to tell two spirals
apart", 1988, with the parametrisation of Grathwohl et al., "FFJORD", 2019; two moons: Pedregosa et al.,
"Scikit-learn", 2011.
"""

from difflib import get_close_matches

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .parts import weights

__all__ = ["COUNTS", "NAMES", "centres", "draw", "mixture"]

_MIXTURES = ("ring", "grid25", "grid100")
NAMES = (*_MIXTURES, "spiral", "moons")
COUNTS = {"train": 100_000, "test": 10_000}
_STD = {"ring": 0.01, "grid25": 0.05, "grid100": 0.05, "spiral": 0.1, "moons": 0.1}
_SEED = {"train": 0, "test": 1}


def centres(name: str) -> tuple[Tensor, float]:
    """The modes of a mixture: their centres c, (K, 2) float32, in the order of the labels, and sigma.

    Raises:
        ValueError: If ``name`` is none of ring, grid25 and grid100.
    """
    if name not in _MIXTURES:
        close = get_close_matches(name, _MIXTURES, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name!r} has no modes that are known: those of ring, grid25 and grid100 are{hint}")
    return torch.from_numpy(_centres(name).astype(np.float32)), _STD[name]


def mixture(source: str) -> tuple[Tensor, float, Tensor | None] | None:
    """The centres c, (K, d), sigma and the weights, (K,), None if equal, of a law such as ``grid25[weights=1:4]``.

    None if it is no mixture, or another part of one.
    """
    name, _, part = source.partition("[")
    if name not in _MIXTURES or not (part == "" or (part.startswith("weights=") and part.count("]") == 1)):
        return None
    c, sigma = centres(name)
    return c, sigma, weights(part.rstrip("]"), len(c)) if part else None


def draw(name: str, split: str) -> tuple[Tensor, Tensor]:
    """The training (100,000) or test (10,000) sample of a law: x, (N, 2) float32, and y, (N,) int64.

    Always the same sample: ``name`` is one of `NAMES`, and ``split`` a key of `COUNTS`.
    """
    # RandomState: NumPy froze its streams (NEP 19), where those of torch and of default_rng may change.
    random = np.random.RandomState(_SEED[split])
    n = COUNTS[split]
    if name == "spiral":
        y = random.randint(2, size=n)
        t = 3 * np.pi * np.sqrt(random.uniform(size=n))
        c = np.where(y == 0, t / 3, -t / 3)[:, None] * np.stack([-np.cos(t), np.sin(t)], axis=1)  # (N, 2)
    elif name == "moons":
        y = random.randint(2, size=n)
        t = np.pi * random.uniform(size=n)
        upper = np.stack([np.cos(t), np.sin(t)], axis=1)  # (N, 2)
        c = np.where(y[:, None] == 0, upper, [1.0, 0.5] - upper)  # (N, 2)
    else:
        modes = _centres(name)
        y = random.randint(len(modes), size=n)
        c = modes[y]  # (N, 2)
    x = c + _STD[name] * random.standard_normal((n, 2))  # (N, 2)
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))


def _centres(name: str) -> NDArray[np.float64]:
    if name == "ring":
        angle = 2 * np.pi * np.arange(8) / 8
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    side = np.arange(-4.0, 5.0, 2.0) if name == "grid25" else np.arange(-9.0, 10.0, 2.0)
    first, second = np.meshgrid(side, side, indexing="ij")
    return np.stack([first.ravel(), second.ravel()], axis=1)
