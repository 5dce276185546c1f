r"""Small classifiers trained to measure: can one tell fake from real, and can one learn the classes from fakes?

*Classifier two-sample test.*  Fake and real in equal numbers are cut into two halves.  A classifier learns on one half
to tell them apart; its accuracy a on the m examples of the other is the statistic.  If both have the same law, every
classifier expects a = 1/2, and the number of its successes spreads no more than a binomial one, so

.. math:: p = P \big( \mathrm{Bin}(m, \tfrac12) \ge a m \big)

is the probability of doing so well by chance.  The best possible accuracy is (1 + TV) / 2, with TV the laws' total
variation distance.  A small network only approaches it: a high a proves a difference, a low one proves nothing.  What
is far finer than the spread of the data, such as the width of the modes of a ring, it does not see.

*Classification accuracy score.*  A classifier learns the labels from conditional samples of G alone, and its accuracy
on real data is the score, which falls if classes are mixed up, lack variety, or look like nothing real.  What it should
be compared with is the score of real training data in place of the samples, as many of them.

Both train in float32 with AdamW for a fixed number of steps, the learning rate falling to 0 along half a cosine.  All
chance comes from the seed and none from the global generator: on the CPU, the arguments alone decide the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from organza.metrics.features import matrix, signed
from organza.metrics.kernel import Estimate

__all__ = ["TwoSample", "classification_accuracy", "two_sample"]

_SIDE = 32  # what is larger is averaged down, so that the cost does not grow with the image


class TwoSample(NamedTuple):
    """What :func:`two_sample` found.

    Attributes:
        accuracy: a, the share of held-out examples that are told right; 1/2 for equal laws.
        error: Its standard error, sqrt(a (1 - a) / m).
        p_value: The probability of at least this accuracy if the laws are equal.
        n_test: m, the number of held-out examples, half of them real.
    """

    accuracy: float
    error: float
    p_value: float
    n_test: int


def two_sample(fake: Tensor, real: Tensor, seed: int = 0, steps: int = 500) -> TwoSample:
    """Test whether fake and real have the same law, by how well a classifier tells them apart.

    The classifier has one hidden layer of 64 rectifiers and sees each coordinate standardised by the training half.

    Arguments:
        fake: Features or vectors, (N, d), floats, N at least 4.
        real: The same of real data, (M, d).  Of the larger set, as many are drawn as the smaller has.
        seed: Decides the halves, the first weights and the batches.
        steps: How many batches of 256 it learns from.

    Raises:
        ValueError: If the arguments are not that.

    References:
        Revisiting Classifier Two-Sample Tests (Lopez-Paz, Oquab, 2017)
    """
    fake, real = (_off_mps(matrix(x, what, 4)) for x, what in ((fake, "fake"), (real, "real")))
    if fake.shape[1] != real.shape[1]:
        raise ValueError(f"fake of {fake.shape[1]} dimensions and real of {real.shape[1]}: they must be the same")
    generator = torch.Generator().manual_seed(seed)
    n = min(len(fake), len(real))
    fake, real = (x[torch.randperm(len(x), generator=generator)[:n].to(x.device)].to(fake.device) for x in (fake, real))
    half = n // 2
    known, held_out = (torch.cat(pair) for pair in ((fake[:half], real[:half]), (fake[half:], real[half:])))
    known, held_out = _standardised(known, held_out)
    y, truth = (torch.arange(2).repeat_interleave(count) for count in (half, n - half))  # 0 fake, 1 real
    with _own_chance(seed):
        network = _perceptron(fake.shape[1], 2)
        _train(network, known, y, generator, steps, batch=256, decay=2.0)
        right = _count_right(network, held_out, truth)
    m = len(held_out)
    return TwoSample(*_share(right, m), _binomial_tail(right, m), m)


def classification_accuracy(
    fake_x: Tensor, fake_y: Tensor, real_x: Tensor, real_y: Tensor, seed: int = 0, steps: int = 400
) -> Estimate:
    """Score conditional samples by how well a classifier that has seen nothing else knows real data.

    For images it is a network of three convolutions, which sees what is larger averaged down to 32 x 32; for vectors
    that of :func:`two_sample`.  The error is the standard error over real examples, sqrt(a (1 - a) / M); how the score
    varies with samples and seed is not in it.

    Arguments:
        fake_x: Conditional samples: images (N, C, H, W), uint8 or floats in [-1, 1], or vectors (N, d), floats.
        fake_y: The class that each was asked for, (N,), integers of at least 0.
        real_x: Real data of the same kind and shape, (M, ...), that G has not been trained on.
        real_y: Their labels, (M,).  What is of a class that G was never asked for counts as wrong.
        seed: Decides the first weights and the batches.
        steps: How many batches it learns from, of 100 images or 256 vectors.

    Raises:
        ValueError: If the arguments are not that.

    References:
        Classification Accuracy Score for Conditional Generative Models (Ravuri, Vinyals, 2019)
    """
    if fake_x.shape[1:] != real_x.shape[1:]:
        raise ValueError(f"fake_x of shape {tuple(fake_x.shape)} and real_x of {tuple(real_x.shape)}: not of one kind")
    images = fake_x.ndim == 4
    check = _images if images else matrix
    fake_x, real_x = (_off_mps(check(x, what)) for x, what in ((fake_x, "fake_x"), (real_x, "real_x")))
    fake_y, real_y = _labels(fake_y, len(fake_x), "fake_y"), _labels(real_y, len(real_x), "real_y")
    classes = 1 + int(torch.stack([fake_y.max(), real_y.max()]).max())
    if not images:
        fake_x, real_x = _standardised(fake_x, real_x)
    generator = torch.Generator().manual_seed(seed)
    with _own_chance(seed):
        if images:
            network = _convolutions(fake_x.shape[1], classes)
            _train(network, fake_x, fake_y, generator, steps, batch=100, decay=0.01)
        else:
            network = _perceptron(fake_x.shape[1], classes)
            _train(network, fake_x, fake_y, generator, steps, batch=256, decay=2.0)
        right = _count_right(network, real_x, real_y)
    return Estimate(*_share(right, len(real_x)))


def _perceptron(d: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, classes)).float()


def _convolutions(channels: int, classes: int) -> nn.Module:
    def layer(before: int, after: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU()]

    return nn.Sequential(
        _Look(),  # (B, C, <= 32, <= 32)
        *layer(channels, 16, 5, stride=2),  # (B, 16, <= 16, <= 16)
        *layer(16, 32, 3),
        nn.MaxPool2d(2, ceil_mode=True),  # (B, 32, <= 8, <= 8)
        *layer(32, 64, 3),
        nn.AdaptiveAvgPool2d(4),  # (B, 64, 4, 4)
        nn.Flatten(),
        nn.Linear(64 * 16, classes),
    ).float()


class _Look(nn.Module):
    """Images as floats in [-1, 1], averaged down to 32 x 32 where they are larger."""

    def forward(self, x: Tensor) -> Tensor:
        x = signed(x)
        return adaptive_avg_pool2d(x, (min(_SIDE, x.shape[2]), min(_SIDE, x.shape[3])))


def _train(
    network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, steps: int, batch: int, decay: float
) -> None:
    """Minimise the cross entropy of y given x, on x's device; the examples come in one random order after another."""
    if steps < 1:
        raise ValueError(f"steps={steps}: the classifier must learn from at least 1 batch")
    network.to(x.device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(x), generator=generator)])
        rows, order = order[:batch], order[batch:]
        optimizer.zero_grad()
        cross_entropy(network(x[rows.to(x.device)]), y[rows].to(x.device)).backward()
        optimizer.step()
        schedule.step()


def _count_right(network: nn.Module, x: Tensor, y: Tensor) -> int:
    device = next(network.eval().parameters()).device
    with torch.no_grad():
        found = torch.cat([network(part.to(device)).argmax(1) for part in x.split(500)])
    return int((found.cpu() == y).sum())


@contextmanager
def _own_chance(seed: int) -> Iterator[None]:
    """Initialise networks by the seed and leave the global generator as it was; gradients flow whoever calls."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # of the CPU only: torch.manual_seed would touch every device
        yield


def _standardised(known: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, float32, in units of the standard deviation of the first about its mean; constants become 0."""
    known, other = known.double(), other.double().to(known.device)
    mean, std = known.mean(0), known.std(0)
    std[std <= 1e-12 * mean.abs()] = math.inf  # rounding alone
    return ((known - mean) / std).float(), ((other - mean) / std).float()


def _share(right: int, count: int) -> tuple[float, float]:
    share = right / count
    return share, math.sqrt(share * (1 - share) / count)


def _binomial_tail(successes: int, n: int) -> float:
    """Return P(Bin(n, 1/2) >= successes)."""
    k = torch.arange(successes, n + 1, dtype=torch.float64)
    log_choose = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return min(1.0, float(torch.logsumexp(log_choose - n * math.log(2), 0).exp()))


def _off_mps(x: Tensor) -> Tensor:
    return x.cpu() if x.device.type == "mps" else x  # no float64 there, nor pooling from 7 to 4


def _images(x: Tensor, what: str) -> Tensor:
    if not x.numel() or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"{what}: got {tuple(x.shape)} of {x.dtype}; needed are images (N, C, H, W), uint8 or floats")
    if x.dtype != torch.uint8:
        low, high = (float(end) for end in x.aminmax())  # NaN passes through both
        if not (low >= -1 and high <= 1):
            raise ValueError(f"{what}: floats from {low:g} to {high:g}; images must lie in [-1, 1], or be uint8")
    return x


def _labels(y: Tensor, count: int, what: str) -> Tensor:
    if y.shape != (count,) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"{what}: got {tuple(y.shape)} of {y.dtype}; needed are {count} integers, one an example")
    if int(y.min()) < 0:
        raise ValueError(f"{what}: the lowest is {int(y.min())}; leave examples without a class out")
    return y.cpu().long()
