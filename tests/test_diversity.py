"""Diversity: the effective number of samples, their spread, and copies among them."""

import math

import pytest
import torch

from organza.metrics.diversity import duplicates, mean_distance, vendi
from organza.metrics.frechet import Moments


def draw(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_effective_number() -> None:
    assert vendi(torch.eye(6)) == pytest.approx(6)
    assert vendi(torch.eye(6, 40)) == pytest.approx(6)
    assert vendi(torch.ones(9, 4)) == pytest.approx(1)
    assert vendi(3.0 * torch.eye(5).repeat(7, 1)) == pytest.approx(5)  # five clusters, of any length
    uneven = torch.cat([torch.eye(2)[:1].repeat(3, 1), torch.eye(2)[1:]])
    assert vendi(uneven) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_both_sides_of_the_gram_matrix_agree() -> None:
    """Of the N x N matrix of cosines, as the definition has it."""
    for x in (draw(30, 8), draw(8, 30)):
        rows = x / x.norm(dim=1, keepdim=True)
        values = torch.linalg.eigvalsh(rows @ rows.T / len(x)).clamp_min(1e-300)
        assert vendi(x) == pytest.approx(float((-(values * values.log()).sum()).exp()), rel=1e-9)
        assert vendi(x) <= min(x.shape) and vendi(x.flip(0)) == pytest.approx(vendi(x), rel=1e-12)


def test_the_mean_distance_is_that_of_pairs() -> None:
    x = draw(50, 3)
    pairs = [float((a - b).square().sum()) for i, a in enumerate(x) for b in x[:i]]
    assert mean_distance(Moments.of(x)) == pytest.approx(math.sqrt(sum(pairs) / len(pairs)), rel=1e-12)


def test_rows_of_zeros_are_copies_of_one() -> None:
    x = torch.eye(3, 5).repeat(2, 1)
    assert vendi(torch.cat([x, torch.zeros(2, 5)])) == pytest.approx(4)
    assert vendi(torch.zeros(7, 2)) == 1


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(50, 4)
    x[40] = x[3]
    whole = vendi(x)
    monkeypatch.setattr("organza.metrics.diversity.BLOCK", 7)
    assert vendi(x) == pytest.approx(whole, rel=1e-12) and duplicates(x) == 2 / 50


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_duplicates(dtype: torch.dtype) -> None:
    x = torch.arange(20).to(dtype).view(10, 2)
    assert duplicates(x) == 0
    x[7] = x[2]
    assert duplicates(x) == 0.2 and duplicates(x.view(10, 1, 2)) == 0.2
    x[4] = x[7]
    assert duplicates(x) == duplicates(x.flip(0)) == 0.3
    assert duplicates(x[2:3].repeat(5, 1)) == 1


def test_what_counts_as_equal() -> None:
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0 + 1e-6], [0.0, 1.2]])
    assert duplicates(x) == 0.5
    assert duplicates(torch.tensor([1, 2, 1, 3])) == 0.5


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="a matrix"):
        vendi(torch.ones(3))
    with pytest.raises(ValueError, match="1 of 2 examples hold NaN"):
        vendi(torch.tensor([[1.0, 0.0], [math.nan, 0.0]]))
    with pytest.raises(ValueError, match="at least one row"):
        duplicates(torch.ones(0, 3))
    with pytest.raises(ValueError, match="got 1 example"):
        mean_distance(Moments.of(torch.ones(1, 3)))
