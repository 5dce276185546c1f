"""Classes: the inception score and its bounds, shares, and metrics within classes."""

import math

import pytest
import torch

from organza.metrics.classes import (
    class_divergence,
    class_entropy,
    class_shares,
    inception_score,
    intra_class_frechet,
    label_accuracy,
    per_class,
)


def logits(n: int, k: int, scale: float, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_the_bounds_of_the_inception_score() -> None:
    """1 for a classifier that sees nothing, K for one that is sure and sees all classes evenly."""
    assert inception_score(torch.zeros(100, 7)).value == pytest.approx(1, abs=1e-12)
    sure = 1000.0 * torch.eye(7).repeat(20, 1)
    assert inception_score(sure, splits=1).value == pytest.approx(7, rel=1e-9)
    assert inception_score(sure[:100]).value < 7
    between = [inception_score(logits(60, 7, scale), splits=1).value for scale in (0.01, 0.3, 1.0, 3.0, 10.0)]
    assert between == sorted(between) and between[0] >= 1 and between[-1] <= 7
    one = 1000.0 * torch.eye(7)[:1].repeat(50, 1)
    assert inception_score(one).value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("n", "splits"), [(1000, 10), (1003, 10), (57, 7), (20, 20)])
def test_the_reference_implementation(n: int, splits: int) -> None:
    from fidelity import torch_fidelity  # noqa: F401  (skips where it is not installed)
    from torch_fidelity.metric_isc import isc_features_to_metric

    given = logits(n, 12, 3.0)
    for shuffle in (True, False):
        theirs = isc_features_to_metric(given, splits, shuffle, 2020)
        ours = inception_score(given, splits, 2020 if shuffle else None)
        assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
        assert ours.error == pytest.approx(theirs["inception_score_std"], rel=1e-6, abs=1e-8)


def test_shares_and_entropy() -> None:
    shares = class_shares(torch.tensor([0, 0, 3, 1]), 4)
    assert shares.tolist() == [0.5, 0.25, 0, 0.25]
    assert class_entropy(shares) == pytest.approx(1.5 * math.log(2))
    assert class_entropy(torch.full((10,), 0.1)) == pytest.approx(math.log(10))
    assert class_entropy(torch.tensor([0.0, 1.0])) == 0
    even = torch.full((4,), 0.25, dtype=torch.float64)
    assert class_divergence(shares, even) == pytest.approx(math.log(4) - class_entropy(shares))
    assert class_divergence(even, even) == 0 and class_divergence(even, shares) == math.inf


def test_the_floor_of_the_divergence() -> None:
    """A perfect sampler of n examples has about (K - 1) / (2 n)."""
    target, n = torch.arange(1.0, 11.0).double() / 55, 2000
    found = []
    for seed in range(200):
        drawn = torch.multinomial(target, n, True, generator=torch.Generator().manual_seed(seed))
        found.append(class_divergence(class_shares(drawn, 10), target))
    assert sum(found) / 200 == pytest.approx(9 / (2 * n), rel=0.15)


def test_label_accuracy() -> None:
    given, y = torch.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]], torch.tensor([0, 1, 2, 3, 1, 2, 3, 0])
    found = label_accuracy(given, y)
    assert found.value == 0.5 and found.error == pytest.approx(math.sqrt(0.25 / 8))


def test_within_classes() -> None:
    """Two classes that are far apart: each has its own squared shift, whatever lies between them."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat(3000)
    real = torch.randn(6000, 3, generator=generator) + 50.0 * y[:, None]
    shift = torch.tensor([1.0, 2.0])[y][:, None] * torch.tensor([1.0, 0, 0])
    mean, each = intra_class_frechet(real + shift, y, real, y)
    assert each == {0: pytest.approx(1, abs=1e-5), 1: pytest.approx(4, abs=1e-5)}
    assert mean == pytest.approx(2.5, abs=1e-5)
    swapped, _ = intra_class_frechet(real, 1 - y, real, y)
    assert swapped > 1000
    unlabelled = torch.where(torch.arange(6000) < 10, -1, y)
    assert per_class(lambda a, b: float(len(b)), real, y, real, unlabelled) == {0: 2995.0, 1: 2995.0}


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="logits: 5 samples for 10 splits"):
        inception_score(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="labels: 0 to 4; there are classes 0 to 3"):
        class_shares(torch.tensor([0, 4]), 4)
    with pytest.raises(ValueError, match="integers"):
        class_shares(torch.zeros(3), 4)
    with pytest.raises(ValueError, match="4 samples and 3 labels"):
        label_accuracy(torch.zeros(4, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="y: 0 to 2; the classifier knows 0 to 1"):
        label_accuracy(torch.zeros(3, 2), torch.arange(3))
    with pytest.raises(ValueError, match="they must agree"):
        class_divergence(torch.ones(1), torch.ones(2) / 2)
    x, y = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 2])
    with pytest.raises(ValueError, match="class 2 has 1 fakes; at least 2 are needed"):
        intra_class_frechet(x, y, x, y)
    with pytest.raises(ValueError, match="6 fakes and 5 labels"):
        intra_class_frechet(x, y[:5], x, y)
    with pytest.raises(ValueError, match="class 1 has 0 reals"):
        per_class(lambda a, b: 0.0, x[:5], y[:5], x[:3], y[:3])
    with pytest.raises(ValueError, match="no example has a class"):
        per_class(lambda a, b: 0.0, x, y - 9, x, y - 9)
