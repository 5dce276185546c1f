"""The kernel distance: unbiased, equal to its definition and to the reference implementation."""

import pytest
import torch

from organza.metrics.kernel import kernel_distance, mmd


def draw(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def by_hand(x: torch.Tensor, y: torch.Tensor, degree: int = 3) -> float:
    """The definition, pair by pair."""

    def k(a, b):
        return (sum(float(s) * float(t) for s, t in zip(a, b, strict=True)) / len(a) + 1) ** degree

    within = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (len(x) * (len(x) - 1))
    within += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (len(y) * (len(y) - 1))
    return within - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_the_definition() -> None:
    x, y = draw(7, 3, 0).double(), draw(5, 3, 1, 0.5).double()
    assert mmd(x, y) == pytest.approx(by_hand(x, y), rel=1e-12)
    for degree in (1, 2):
        assert mmd(x, y, degree) == pytest.approx(by_hand(x, y, degree), rel=1e-12)
    whole = kernel_distance(y, x[:5], subsets=2, size=5)  # the only subset there is
    assert whole == (pytest.approx(by_hand(y, x[:5]), rel=1e-12), pytest.approx(0, abs=1e-14))


def test_it_is_unbiased() -> None:
    """Of equal laws its mean over many draws is 0 within three standard errors, whatever the sizes."""
    for m, n in ((20, 20), (10, 50)):
        found = torch.tensor([mmd(draw(m, 8, 2 * i), draw(n, 8, 2 * i + 1)) for i in range(1000)], dtype=torch.float64)
        assert abs(found.mean()) < 3 * found.std() / 1000**0.5
        assert found.min() < 0 < found.max()


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(50, 6, 0), draw(41, 6, 1, 0.3)
    whole = mmd(x, y)
    monkeypatch.setattr("organza.metrics.kernel.TILE", 7)
    assert mmd(x, y) == pytest.approx(whole, rel=1e-12)


def test_a_shift_is_seen_and_order_does_not_matter() -> None:
    x, y = draw(400, 16, 0), draw(400, 16, 1, 0.5)
    assert mmd(x, y) > 10 * abs(mmd(x, draw(400, 16, 2)))
    assert mmd(x.flip(0), y) == pytest.approx(mmd(x, y), rel=1e-12)


@pytest.mark.parametrize(("d", "size", "shift"), [(64, 100, 0.2), (16, 50, 0.0), (300, 120, 1.0)])
def test_the_reference_implementation(d: int, size: int, shift: float) -> None:
    """torch-fidelity on the same features, index sets and kernel: to 1e-6, or 1e-8 near 0."""
    from fidelity import torch_fidelity  # noqa: F401  (skips where it is not installed)
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = draw(500, d, 0, shift).double(), draw(400, d, 1).double()
    theirs = kid_features_to_metric(x, y, kid_subsets=20, kid_subset_size=size, rng_seed=2020, verbose=False)
    ours = kernel_distance(x, y, subsets=20, size=size, seed=2020)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6, abs=1e-8)
    assert ours.error == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6, abs=1e-8)


def test_single_precision_is_enough_for_features() -> None:
    """All sums are of float64: features rounded to float32 change the estimate by their own rounding alone."""
    x, y = draw(300, 500, 0, 3.0), draw(300, 500, 1, 3.0)
    single, double = (kernel_distance(a, b, 5, 200) for a, b in ((x, y), (x.double(), y.double())))
    assert single == double
    assert single != kernel_distance(x, y, 5, 200, seed=1)
    assert kernel_distance(x, y, 5, 200, degree=1) != single


def test_mistakes() -> None:
    x = draw(20, 4, 0)
    with pytest.raises(ValueError, match=r"size=1000, subsets=100 of 20 fakes and 20 reals.*give a smaller size"):
        kernel_distance(x, x)
    with pytest.raises(ValueError, match="fakes have 4 features, reals 3"):
        mmd(x, x[:, :3])
    with pytest.raises(ValueError, match="reals: 1 of 20 examples hold NaN"):
        kernel_distance(x, x.masked_fill(x == x[3, 1], float("nan")), size=5)
    with pytest.raises(ValueError, match="subsets=0"):
        kernel_distance(x, x, subsets=0, size=5)
    with pytest.raises(ValueError, match="degree=0"):
        mmd(x, x, 0)
