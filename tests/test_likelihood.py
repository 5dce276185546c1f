"""organza.metrics.likelihood: the Parzen-window log-likelihood against closed forms and brute force."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal

from organza.metrics import likelihood
from organza.metrics.likelihood import parzen, parzen_log_likelihood


def uniform(n, d, seed=0, dtype=torch.float64):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def direct(centres, x, sigma):
    """The definition, from differences, in NumPy."""
    squared = np.square(x.double().numpy()[:, None] - centres.double().numpy()[None]).sum(2)
    kernel = np.logaddexp.reduce(-0.5 * squared / sigma**2, axis=1) - math.log(len(centres))
    return torch.from_numpy(kernel - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi)))


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(likelihood, "_TILE", (7, 5))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_one_centre_is_a_gaussian(sigma):
    mu, x = uniform(1, 12), uniform(30, 12, seed=1)
    law = Independent(Normal(mu[0], torch.full_like(mu[0], sigma)), 1)
    torch.testing.assert_close(parzen_log_likelihood(mu, x, sigma), law.log_prob(x), rtol=1e-12, atol=1e-12)


def test_two_centres_by_hand():
    """At the first of two centres with distance a: log((1 + exp(-a^2 / 2 sigma^2)) / 2) - log(sigma sqrt(2 pi))."""
    centres = torch.tensor([[0.0], [3.0]])
    value = float(parzen_log_likelihood(centres, torch.zeros(1, 1), 2.0))
    assert value == pytest.approx(math.log((1 + math.exp(-9 / 8)) / 2) - math.log(2 * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_formula_with_differences(dtype):
    centres, x = uniform(60, 40, dtype=dtype), uniform(50, 40, seed=1, dtype=dtype)
    centres[:10] = x[:10] + 1e-6  # where |x|^2 + |mu|^2 - 2 x.mu cancels
    for sigma in (0.01, 0.1, 1.0):
        torch.testing.assert_close(
            parzen_log_likelihood(centres, x, sigma), direct(centres, x, sigma), rtol=1e-11, atol=1e-8
        )


def test_far_from_the_origin_it_is_as_exact():
    centres, x = uniform(20, 5) + 2.0**20, uniform(20, 5, seed=1) + 2.0**20
    exact = direct(centres, x, 0.1)
    torch.testing.assert_close(parzen_log_likelihood(centres, x, 0.1), exact, rtol=1e-9, atol=1e-9)


def test_far_from_every_centre_it_is_finite():
    centres = uniform(20, 784)
    value = parzen_log_likelihood(centres, uniform(3, 784, seed=1) + 50, 0.1)
    torch.testing.assert_close(value, direct(centres, uniform(3, 784, seed=1) + 50, 0.1), rtol=1e-12, atol=0)


def test_it_is_a_density():
    """On a line, exp of it integrates to 1."""
    line = torch.linspace(-5, 6, 20_001, dtype=torch.float64)[:, None]
    density = parzen_log_likelihood(uniform(40, 1), line, 0.3).exp()
    assert float(density.sum()) * 11 / 20_000 == pytest.approx(1, abs=1e-12)


def test_the_scale_of_x_is_part_of_the_score():
    """p(ax) of scaled data is p(x) / a^d: log-likelihoods differ by d log a."""
    centres, x = uniform(30, 6), uniform(20, 6, seed=1)
    scaled = parzen_log_likelihood(255 * centres, 255 * x, 255 * 0.2)
    torch.testing.assert_close(scaled, parzen_log_likelihood(centres, x, 0.2) - 6 * math.log(255))


def test_tiles_do_not_matter(small_tiles, monkeypatch):
    centres, x = uniform(23, 6), uniform(29, 6, seed=1)
    tiled = parzen_log_likelihood(centres, x, 0.3)
    scores = parzen(centres, x, x)
    monkeypatch.undo()
    torch.testing.assert_close(tiled, parzen_log_likelihood(centres, x, 0.3), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(scores.valid_means, parzen(centres, x, x).valid_means, rtol=1e-13, atol=1e-13)


def test_chunks_of_x_and_the_order_of_centres_do_not_matter(small_tiles):
    centres, x = uniform(23, 6), uniform(29, 6, seed=1)
    whole = parzen_log_likelihood(centres, x, 0.3)
    parts = torch.cat([parzen_log_likelihood(centres.flip(0), part, 0.3) for part in x.split(10)])
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-13)


def test_the_protocol_of_2014():
    centres, valid, test = uniform(200, 8), uniform(150, 8, seed=1), uniform(90, 8, seed=2)
    score = parzen(centres, valid, test)
    assert score.sigmas == tuple(np.logspace(-1, 0, num=10).tolist())
    means = [float(direct(centres, valid, sigma).mean()) for sigma in score.sigmas]
    assert score.valid_means == pytest.approx(means, rel=1e-12)
    assert score.sigma == score.sigmas[int(np.argmax(means))] and not score.edge
    scores = direct(centres, test, score.sigma).numpy()
    assert score.value == pytest.approx(scores.mean(), rel=1e-12)
    assert score.error == pytest.approx(scores.std() / np.sqrt(90), rel=1e-10)  # ddof 0


def test_the_first_rows_choose_sigma():
    centres, test = uniform(50, 3), uniform(20, 3, seed=2)
    valid = torch.cat([uniform(1000, 3, seed=1), 100 * uniform(500, 3, seed=3)])  # the rest would choose the widest
    assert parzen(centres, valid, test).valid_means == parzen(centres, valid[:1000], test).valid_means
    assert parzen(centres, valid, test).sigma < parzen(centres, valid, test, limit=None).sigma == 1.0
    assert parzen(centres, valid, test, limit=7).valid_means == parzen(centres, valid[:7], test).valid_means


def test_a_width_at_the_end_of_the_grid_is_flagged():
    centres, valid, test = uniform(50, 3), uniform(40, 3, seed=1), uniform(20, 3, seed=2)
    best = parzen(centres, valid, test)
    assert not best.edge
    for grid in ([best.sigma, 5.0], [0.001, best.sigma], [best.sigma]):
        score = parzen(centres, valid, test, grid)
        assert score.edge and score.value == pytest.approx(best.value)


def test_centroids_beat_the_truth():
    """The warning of Theis et al., in small: the centre of a Gaussian scores above samples of it."""
    g = torch.Generator().manual_seed(0)
    truth, valid, test = (torch.randn(n, 20, generator=g) for n in (500, 200, 500))
    grid = np.logspace(-1, 1, 30)
    assert parzen(torch.zeros(1, 20), valid, test, grid).value > parzen(truth, valid, test, grid).value + 1


def test_the_arguments_are_left_as_they_are():
    centres, x = uniform(5, 3), uniform(4, 3, seed=1)
    before = centres.clone(), x.clone()
    parzen(centres, x, x)
    assert torch.equal(centres, before[0]) and torch.equal(x, before[1])


def test_memory_is_bounded_by_a_tile(monkeypatch):
    """However many pairs there are, the distances of one block at a time exist, each pair once."""
    blocks = []
    measure = likelihood._squared_distances
    monkeypatch.setattr(likelihood, "_squared_distances", lambda x, mu: blocks.append(measure(x, mu)) or blocks[-1])
    parzen_log_likelihood(uniform(20_000, 1), uniform(1_100, 1, seed=1), 0.3)
    assert sum(block.numel() for block in blocks) == 20_000 * 1_100
    assert max(block.numel() for block in blocks) <= 2**22


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"centres": torch.zeros(5, 3, dtype=torch.uint8)}, "centres: got"),
        ({"centres": torch.zeros(5, 4)}, "centres of 4 dimensions and x of 3"),
        ({"test": torch.zeros(1, 3)}, "test: got"),
        ({"test": torch.tensor([[0.0, 1, 2], [0, math.nan, 0]])}, "test: 1 of 2 examples hold NaN"),
        ({"valid": torch.zeros(2, 1, 3)}, "valid: got"),
        ({"valid": torch.zeros(0, 3)}, "valid: got"),
        ({"sigmas": []}, "sigmas: got none"),
        ({"sigmas": [0.1, 0.0]}, "sigma=0.0: the width"),
        ({"sigmas": [math.nan]}, "sigma=nan: the width"),
        ({"sigmas": [math.inf]}, "sigma=inf: the width"),
        ({"limit": 0}, "limit=0: at least 1"),
    ],
)
def test_refusals(change, said):
    given = {"centres": torch.zeros(5, 3), "valid": torch.zeros(4, 3), "test": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=said):
        parzen(**{**given, **change})
