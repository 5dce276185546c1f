"""organza.prior: the laws' moments and range, drawn from the given generator alone; truncation by theory."""

import math

import pytest
import torch

from organza import prior as module
from organza.prior import Codes, Normal, Prior, Uniform
from organza.round import Draw

PRIORS = [Normal(3), Uniform(3), Uniform(3, 0.0, 1.0), Uniform(3, -math.sqrt(3), math.sqrt(3))]
every = pytest.mark.parametrize("prior", PRIORS, ids=repr)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_prior_is_tested():
    found = {kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Prior)} - {Prior}
    assert found == {type(prior) for prior in PRIORS} | {Codes}


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


NORMAL = torch.distributions.Normal(0.0, 1.0)


@pytest.mark.parametrize("bound", [0.1, 0.5, 1.0, 2.0, 4.0])
def test_the_truncated_normal_law(bound):
    r"""On [-b, b] its variance is :math:`1 - 2 b \phi(b) / (2 \Phi(b) - 1)`, and its distribution function is known."""
    n, b = 100_000, torch.tensor(bound, dtype=torch.float64)
    z = Normal(1).truncate(Normal(1).draw(n, seeded()).double(), bound).squeeze(1)
    assert z.abs().max() <= bound
    mass = math.erf(bound / math.sqrt(2))
    variance = 1 - 2 * bound * math.exp(NORMAL.log_prob(b)) / mass
    assert z.mean() == pytest.approx(0.0, abs=5 * math.sqrt(variance / n))
    assert z.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    expected = (NORMAL.cdf(z.sort().values) - NORMAL.cdf(-b)) / mass
    found = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert (found - expected).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov, at 0.1 %


@pytest.mark.parametrize("bound", [1e-3, 0.5, 3.0, 12.0, 50.0])
def test_truncation_is_odd_monotone_and_the_map_between_the_laws(bound):
    z = torch.cat([torch.linspace(-40, 40, 9), torch.linspace(-7, 7, 57)]).double().sort().values
    made = Normal(1).truncate(z, bound)
    assert torch.equal(made, -Normal(1).truncate(-z, bound))
    assert (made.diff() >= 0).all() and made.abs().max() <= bound and (made.abs() <= z.abs() + 1e-12).all()
    near = z[z.abs() < 5]
    edge = NORMAL.cdf(torch.tensor(-bound, dtype=torch.float64))
    expected = edge + (1 - 2 * edge) * NORMAL.cdf(near)
    torch.testing.assert_close(NORMAL.cdf(Normal(1).truncate(near, bound)), expected, rtol=0, atol=1e-15)


def test_a_wide_truncation_gives_z_back():
    z = Normal(3).draw(10_000, seeded())
    assert torch.equal(Normal(3).truncate(z, math.inf), z)
    assert torch.equal(Normal(3).truncate(z, 20.0), z)
    assert not torch.equal(Normal(3).truncate(z, 3.0), z)
    assert torch.equal(Uniform(3).truncate(z, 1.0), z)


def test_a_truncated_cube_is_a_smaller_cube():
    prior, small = Uniform(3, 1.0, 5.0), Uniform(3, 2.5, 3.5)
    z = prior.draw(1000, seeded())
    torch.testing.assert_close(prior.truncate(z, 0.25), small.draw(1000, seeded()))


@every
def test_truncation_keeps_shape_type_and_device(prior, device):
    z = prior.draw(5, torch.Generator(device).manual_seed(0))
    made = prior.truncate(z, 0.5)
    assert (made.shape, made.dtype, made.device) == (z.shape, z.dtype, z.device)


@every
@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_bad_bounds(prior, bound):
    with pytest.raises(ValueError, match=f"truncation={bound}"):
        prior.truncate(torch.zeros(1, 3), bound)


def test_a_cube_cannot_be_truncated_to_more_than_itself():
    with pytest.raises(ValueError, match=r"truncation=1\.5"):
        Uniform(3).truncate(torch.zeros(1, 3), 1.5)


class Coins(Prior):
    def draw(self, n, generator):
        return torch.randint(2, (n, 3), generator=generator).float()


def test_a_prior_of_ones_own_has_no_truncation_and_projects_nothing():
    with pytest.raises(ValueError, match="Coins has no truncation"):
        Coins().truncate(torch.zeros(1, 3), 0.5)
    assert not Coins.spherical and Coins().project(z := torch.full((2, 3), 9.0)) is z


@pytest.mark.parametrize("dim", [1, 8, 512])
def test_the_normal_projection_leaves_draws_alone_and_keeps_directions(dim):
    prior = Normal(dim)
    z = prior.draw(2000, seeded())
    assert (prior.project(z) != z).any(1).float().mean() <= math.exp(-4.5)
    far = prior.project(1e6 * z)
    torch.testing.assert_close(far.norm(dim=1), torch.full((2000,), math.sqrt(dim) + 3))
    torch.testing.assert_close(far / far.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True))
    assert not prior.project(torch.zeros(2, dim)).any()


def test_the_cubes_projection_is_the_nearest_point():
    prior = Uniform(2, 0.0, 1.0)
    z = torch.tensor([[0.5, 0.25], [2.0, -1.0]])
    assert torch.equal(prior.project(z), torch.tensor([[0.5, 0.25], [1.0, 0.0]]))


def test_no_noise_at_all():
    assert Normal(0).draw(5, seeded()).shape == (5, 0)


@pytest.mark.parametrize(
    ("build", "said"), [(lambda: Normal(-1), "dim=-1"), (lambda: Uniform(2, 1.0, 1.0), "high must be above low")]
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_codes_are_even_one_hot_and_uniform():
    prior = Codes((3, 2), 2, 4)
    z = prior.draw(60_000, seeded())
    a, b, c, noise = z.split([3, 2, 2, 4], 1)
    assert z.shape == (60_000, 11) == (60_000, prior.dim)
    for code, k in ((a, 3), (b, 2)):
        assert (code.sum(1) == 1).all() and set(code.unique().tolist()) == {0.0, 1.0}
        assert code.mean(0) == pytest.approx(1 / k, abs=5 * math.sqrt((1 / k) * (1 - 1 / k) / 60_000))
    assert float(c.abs().max()) <= 1 and float(c.var()) == pytest.approx(1 / 3, abs=0.01)
    assert float(noise.var()) == pytest.approx(1, abs=0.02)
    other = Codes((3, 2), 2, 4, spread=0.5, height=3.0)
    drawn = other.draw(60_000, seeded())
    assert torch.equal(drawn[:, 7:], 0.5 * noise) and torch.equal(drawn[:, :5], 3 * z[:, :5])
    assert torch.equal(other.project(drawn), drawn) and float(other.traverse(drawn[:1], 0).max()) == 3
    joint = torch.einsum("ni,nj->ij", a, b) / 60_000
    assert joint.flatten() == pytest.approx(1 / 6, abs=0.01)  # independent of each other


def test_codes_of_the_same_size_are_independent():
    z = Codes((2,) * 3, 0, 1, height=2.0).draw(40_000, seeded())
    codes = z[:, :6].unflatten(1, (3, 2))  # (n, 3, 2)
    assert (codes.sum(2) == 2).all() and z.shape == (40_000, 7)
    corners = (codes.argmax(2) * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8) / 40_000
    assert corners.tolist() == pytest.approx([1 / 8] * 8, abs=5 * math.sqrt(7 / 64 / 40_000))


def test_codes_draw_from_the_given_generator_and_in_rows():
    prior = Codes((3,), 1, 2)
    before = torch.random.get_rng_state()
    assert torch.equal(prior.draw(6, seeded(1)), prior.draw(6, seeded(1)))
    assert torch.equal(torch.random.get_rng_state(), before)
    whole = Draw(seeded(2), 6)(prior.draw)
    assert torch.equal(Draw(seeded(2), 6, slice(2, 5))(prior.draw), whole[2:5])


def test_codes_project_to_the_law_and_leave_draws_alone():
    prior = Codes((3,), 2, 2)
    z = prior.draw(50, seeded())
    assert torch.equal(prior.project(z), z)
    moved = prior.project(z + 0.4 * torch.randn(50, prior.dim, generator=seeded(1)))
    assert (moved[:, :3].sum(1) == 1).all() and float(moved[:, 3:5].abs().max()) <= 1


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_truncation_keeps_codes_and_truncates_the_noise(spread):
    prior = Codes((3, 2), 1, 4, spread=spread, height=2.0)
    z = prior.draw(50, seeded())
    made = prior.truncate(z, 0.5)
    assert torch.equal(made[:, :6], z[:, :6]) and float(made[:, 6:].abs().max()) <= 0.5 * spread
    torch.testing.assert_close(
        made[:, 6:], spread * Normal(4).truncate(Codes((3, 2), 1, 4).draw(50, seeded())[:, 6:], 0.5)
    )
    assert torch.equal(prior.truncate(z, math.inf), z)
    with pytest.raises(ValueError, match="truncation=0"):
        prior.truncate(z, 0)


def test_a_code_is_led_through_its_values_and_all_else_is_kept():
    prior = Codes((3, 2), 2, 4)
    z = prior.draw(5, seeded())
    led = prior.traverse(z, 1)
    assert led.shape == (5, 2, 11) and led[0, :, 3:5].tolist() == [[1, 0], [0, 1]]
    assert torch.equal(led[:, 0, :3], z[:, :3]) and torch.equal(led[:, 1, 5:], z[:, 5:])
    led = prior.traverse(z, 3, steps=5)
    assert led.shape == (5, 5, 11) and led[2, :, 6].tolist() == [-2, -1, 0, 1, 2]
    assert torch.equal(led[:, 3, :6], z[:, :6]) and torch.equal(led[:, 3, 7:], z[:, 7:])
    with pytest.raises(ValueError, match="there are 4 codes"):
        prior.traverse(z, 4)
    with pytest.raises(ValueError, match="has no codes"):
        Normal(3).traverse(z, 0)


@pytest.mark.parametrize(
    "arguments", [((1,), 2, 3), ((3,), -1, 3), ((3,), 1, -1), ((3,), 1, 3, -1.0), ((3,), 1, 3, 1.0, 0.0)]
)
def test_codes_refuse_what_is_no_code(arguments):
    with pytest.raises(ValueError, match="must be 0 or more"):
        Codes(*arguments)
