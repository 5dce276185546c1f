"""organza.prior: the laws' moments and range, drawn from the given generator alone."""

import math

import pytest
import torch

from organza import prior as module
from organza.prior import Normal, Prior, Uniform
from organza.round import Draw

PRIORS = [Normal(3), Uniform(3), Uniform(3, 0.0, 1.0), Uniform(3, -math.sqrt(3), math.sqrt(3))]
every = pytest.mark.parametrize("prior", PRIORS, ids=repr)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_prior_is_tested():
    found = {kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Prior)} - {Prior}
    assert found == {type(prior) for prior in PRIORS}


@every
def test_moments_and_range(prior):
    """The first four moments, each within 5 standard errors; coordinates and rows uncorrelated."""
    n = 100_000
    z = prior.draw(n, seeded()).double()
    assert z.shape == (n, 3)
    low, high = (-math.inf, math.inf) if isinstance(prior, Normal) else (prior.low, prior.high)
    assert low <= z.min() and z.max() <= high
    mean, variance = (0.0, 1.0) if isinstance(prior, Normal) else ((low + high) / 2, (high - low) ** 2 / 12)
    kurtosis = 3.0 if isinstance(prior, Normal) else 1.8
    w = (z - mean) / math.sqrt(variance)
    for power, moment, noise in ((1, 0.0, 1.0), (2, 1.0, kurtosis - 1), (3, 0.0, 15.0), (4, kurtosis, 96.0)):
        assert (w**power).mean(0) == pytest.approx(moment, abs=5 * math.sqrt(noise / n))
    for product in (w[:, 0] * w[:, 1], w[:, 1] * w[:, 2], w[1:, 0] * w[:-1, 0]):
        assert product.mean() == pytest.approx(0.0, abs=5 / math.sqrt(n))
    if not isinstance(prior, Normal):
        assert z.max() - z.min() > 0.999 * (high - low)


def test_the_uniform_law_of_2014_has_unit_variance():
    assert PRIORS[-1].draw(100_000, seeded()).var() == pytest.approx(1.0, abs=0.01)


@every
def test_draws_depend_on_the_given_generator_alone(prior):
    before = torch.get_rng_state()
    first = prior.draw(20, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    g = seeded(1)
    assert torch.equal(prior.draw(20, g), first)
    assert not torch.equal(prior.draw(20, g), first)
    assert not torch.equal(prior.draw(20, seeded(2)), first)


@every
def test_the_rows_of_micro_batches_make_the_whole(prior):
    whole = prior.draw(12, seeded(3))
    parts = [Draw(seeded(3), 12, slice(i, i + 4))(prior.draw) for i in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)


@every
def test_z_lies_where_its_generator_is(prior, device):
    z = prior.draw(2, torch.Generator(device).manual_seed(0))
    assert z.device.type == device.type
    assert z.dtype == torch.get_default_dtype()


def test_no_noise_at_all():
    assert Normal(0).draw(5, seeded()).shape == (5, 0)


@pytest.mark.parametrize(
    ("build", "said"), [(lambda: Normal(-1), "dim=-1"), (lambda: Uniform(2, 1.0, 1.0), "high must be above low")]
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()
