r"""What a classifier sees: are examples clear, are classes even, are conditions met?

From the logits of N examples, (N, K), or from labels in 0 to K - 1.  With the classifier's p(y | x) and the mean
p(y) of it over examples, the Inception score is

.. math:: \mathrm{IS} = \exp E_x\, \mathrm{KL}(p(y | x) \| p(y)), \qquad 1 \le \mathrm{IS} \le K.

Shares of classes, :math:`p_k`, are judged by their entropy and by their divergence from what they should be,

.. math:: H(p) = -\sum_k p_k \ln p_k \le \ln K, \qquad \mathrm{KL}(p \| q) = \sum_k p_k \ln (p_k / q_k) \ge 0.

Shares of n examples of a law q itself have a mean divergence of about (K - 1) / (2 n), and of a uniform law an
entropy as much below ln K: that is the floor.  Where q's shares are those of m examples, it is (K - 1) / 2 times
(1 / n + 1 / m).

References:
    Improved Techniques for Training GANs (Salimans et al., 2016)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from organza.metrics.features import matrix
from organza.metrics.frechet import Moments, float64, frechet_distance
from organza.metrics.kernel import Estimate

__all__ = [
    "class_divergence",
    "class_entropy",
    "class_shares",
    "inception_score",
    "intra_class_frechet",
    "label_accuracy",
    "per_class",
]


def inception_score(logits: Tensor, splits: int = 10, shuffle_seed: int | None = 2020) -> Estimate:
    """Return the mean score of parts of the examples, see the module; ``error`` is the deviation between parts.

    Arguments:
        logits: Of the classes, (N, K).
        splits: The number of parts, whose sizes differ by one at most; 1 for no parts.
        shuffle_seed: Of the order of the examples, drawn as torch-fidelity does; None for the order given.

    Raises:
        ValueError: If there are fewer examples than parts.
    """
    matrix(logits, "logits", 1)
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"logits: {n} samples for {splits} splits; take 1 to {n} splits")
    log_p = float64(logits).log_softmax(1)
    if shuffle_seed is not None:
        order = np.random.RandomState(shuffle_seed).permutation(n)
        log_p = log_p[torch.from_numpy(order).to(log_p.device)]
    scores = [_score(log_p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return Estimate(float(np.mean(scores)), float(np.std(scores)))


def _score(log_p: Tensor) -> float:
    """exp of E KL(p(y|x) || p(y)) = H(p(y)) - E H(p(y|x)), each 0 log 0 being 0."""
    p = log_p.exp()
    marginal = p.mean(0)
    divergence = float((p * log_p).sum(1).mean() - torch.xlogy(marginal, marginal).sum())
    return math.exp(max(divergence, 0.0))


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """Return the share of each class, (K,), float64, on the CPU.

    Arguments:
        labels: (N,), whole numbers from 0 to K - 1, at least one.
        classes: K.

    Raises:
        ValueError: If there is no label, or one that is no class.
    """
    _check_labels(labels, len(labels), "samples")
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        got = f"{int(labels.min())} to {int(labels.max())}" if len(labels) else "none"
        raise ValueError(f"labels: {got}; there are classes 0 to {classes - 1}")
    return torch.bincount(labels.cpu(), minlength=classes).double() / len(labels)


def class_entropy(shares: Tensor) -> float:
    """Return H(p) of shares p, (K,), in nats: from 0 (one class only) to ln K (all alike)."""
    shares = float64(shares)
    return max(-float(torch.xlogy(shares, shares).sum()), 0.0)


def class_divergence(shares: Tensor, target_shares: Tensor) -> float:
    """Return KL(p || q) in nats: 0 for equal shares, infinity where a class occurs that should not.

    Arguments:
        shares: p, (K,).
        target_shares: q, (K,).

    Raises:
        ValueError: If they differ in shape.
    """
    if shares.shape != target_shares.shape:
        raise ValueError(f"shares of {tuple(shares.shape)} and {tuple(target_shares.shape)} classes; they must agree")
    p, q = float64(shares), float64(target_shares)
    return max(float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum()), 0.0)


def label_accuracy(logits: Tensor, y: Tensor) -> Estimate:
    """Return the share of conditional samples whose class the classifier sees too, with its binomial standard error.

    Arguments:
        logits: Of the classes, of each sample, (N, K).
        y: The class that was asked for, (N,).

    Raises:
        ValueError: If they do not fit.
    """
    matrix(logits, "logits", 1)
    _check_labels(y, len(logits), "samples")
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise ValueError(f"y: {int(y.min())} to {int(y.max())}; the classifier knows 0 to {logits.shape[1] - 1}")
    share = float((logits.argmax(1) == y.to(logits.device)).double().mean())
    return Estimate(share, math.sqrt(share * (1 - share) / len(y)))


def per_class(
    function: Callable[[Tensor, Tensor], float], fake: Tensor, fake_y: Tensor, real: Tensor, real_y: Tensor
) -> dict[int, float]:
    """Return function(fakes of the class, reals of the class) of each class, in their order.

    Arguments:
        function: Two matrices of features, (n, d) and (m, d), to a number.
        fake: Features of the fakes, (N, d).
        fake_y: Their classes, (N,); those below 0 are without one, and left out.
        real: Features of the reals, (M, d).
        real_y: Their classes, (M,), likewise.

    Raises:
        ValueError: If a class has fewer than 2 on one side, there is none, or labels and features do not fit.
    """
    _check_labels(fake_y, len(matrix(fake, "fakes")), "fakes")
    _check_labels(real_y, len(matrix(real, "reals")), "reals")
    classes = [k for k in torch.cat([fake_y.cpu(), real_y.cpu()]).unique().tolist() if k >= 0]
    if not classes:
        raise ValueError("no example has a class; labels from 0 on are needed")
    found = {}
    for k in classes:
        fakes, reals = fake[(fake_y == k).to(fake.device)], real[(real_y == k).to(real.device)]
        for side, rows in (("fakes", fakes), ("reals", reals)):
            if len(rows) < 2:
                raise ValueError(f"class {k} has {len(rows)} {side}; at least 2 are needed")
        found[k] = function(fakes, reals)
    return found


def intra_class_frechet(fake: Tensor, fake_y: Tensor, real: Tensor, real_y: Tensor) -> tuple[float, dict[int, float]]:
    """Return the mean over classes of the Fréchet distance within the class, and that of each class.

    Each is biased upwards by about 1 / (number in the class): compare equal numbers only.

    References:
        cGANs with Projection Discriminator (Miyato, Koyama, 2018)

    Arguments and errors: those of :func:`per_class`.
    """
    distances = per_class(
        lambda fakes, reals: frechet_distance(Moments.of(fakes), Moments.of(reals)), fake, fake_y, real, real_y
    )
    return sum(distances.values()) / len(distances), distances


def _check_labels(labels: Tensor, n: int, what: str) -> None:
    if len(labels) != n:
        raise ValueError(f"{n} {what} and {len(labels)} labels; there must be one label an example")
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"labels: got {tuple(labels.shape)} of {labels.dtype}; integers ({n},) are needed")
