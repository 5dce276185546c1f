"""organza.theory.density: densities integrate to one, samples follow them, and a change of variables is one."""

import math

import pytest
import torch
from torch import tensor

from organza.data.synthetic import draw
from organza.prior import Normal, Uniform
from organza.theory import Gaussian, Mixture, Pushforward, Spiral, grid, integrate, law_of, ring
from organza.theory import Uniform as UniformLaw

ON_THE_LINE = [
    Gaussian(1.0, 0.5),
    UniformLaw(-1.0, 3.0),
    Mixture([Gaussian(-2, 0.3), UniformLaw(0, 1), Gaussian(4, 1)], [1, 2, 5]),
    Pushforward(lambda z: 2 * z - 1, Gaussian()),
    Pushforward(lambda z: z + 0.4 * torch.sin(2 * z), Gaussian()),
    Pushforward(torch.exp, Gaussian(0, 0.5)),
    Pushforward(torch.tanh, UniformLaw(-1, 2)),
]
IN_THE_PLANE = [
    Gaussian([0.5, -1.0], 0.7),
    UniformLaw([-1.0, 0.0], [1.0, 0.5]),
    ring(weights=[1, 2, 3, 4, 4, 3, 2, 1]),
    grid(2),
    Mixture([Gaussian([0.0, 0.0]), UniformLaw([0.0, 0.0], [2.0, 2.0])]),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("law", ON_THE_LINE)
def test_the_slope_of_the_cdf_is_the_density(law):
    u = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    x = law.quantile(u)  # (25, 1)
    torch.testing.assert_close(law.cdf(x), u, rtol=0, atol=1e-9)
    h = 1e-6
    slope = (law.cdf(x + h) - law.cdf(x - h)) / (2 * h)
    torch.testing.assert_close(slope, law.log_prob(x).exp(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("law", ON_THE_LINE)
def test_samples_follow_the_cdf(law):
    """Kolmogorov and Smirnov: sqrt(n) sup |F_n - F| exceeds 1.95 once in a thousand."""
    n = 20_000
    x, _ = law.sample(n, generator()).sort(0)
    below = torch.arange(n, dtype=torch.float64) / n
    F = law.cdf(x)
    assert math.sqrt(n) * max((F - below).abs().max(), (F - below - 1 / n).abs().max()) < 1.95


@pytest.mark.parametrize("law", [*ON_THE_LINE[:3], *IN_THE_PLANE[:4]])
def test_densities_integrate_to_one(law):
    found = integrate(lambda x: law.log_prob(x).exp(), law.box[0] - 0.1, law.box[1] + 0.1, law.scale, 1e-6)
    assert abs(found.value - 1) <= found.error + 1e-12
    assert found.error < (2e-3 if law.dim == 2 and isinstance(law, UniformLaw) else 1e-6)  # edges of the plane are hard


@pytest.mark.parametrize("law", IN_THE_PLANE)
def test_samples_of_the_plane_follow_the_density(law):
    """The mean log-density of samples is minus the entropy, which the density alone gives."""
    x = law.sample(20_000, generator())
    log_p = law.log_prob(x)

    def entropy(x):
        log_p = law.log_prob(x)
        return torch.where(log_p > -math.inf, log_p.exp() * log_p, 0.0)

    expected = integrate(entropy, law.box[0], law.box[1], law.scale, 1e-5).value
    assert log_p.mean().item() == pytest.approx(expected, abs=5 * log_p.std().item() / math.sqrt(len(x)) + 1e-4)


@pytest.mark.parametrize(("name", "law"), [("ring", ring()), ("grid25", grid()), ("spiral", Spiral())])
def test_the_laws_are_those_of_the_built_in_data(name, law):
    """Data and samples of the law have the same log-densities: the same mean and quantiles."""
    data, _ = draw(name, "test")
    real = law.log_prob(data.double()).sort().values
    fake = law.log_prob(law.sample(len(data), generator())).sort().values
    steps = slice(500, -500, 500)
    torch.testing.assert_close(real[steps], fake[steps], rtol=0, atol=0.25)
    assert abs(real.mean() - fake.mean()) < 5 * real.std() / math.sqrt(len(data) / 2)


def test_the_spirals_density_is_its_integral():
    law = Spiral()
    u = torch.rand(400_000, generator=generator(), dtype=torch.float64).sqrt()
    centre = torch.cat([law._arm(u), -law._arm(u)])
    x = tensor([[0.5, 0.5], [1.5, 0.0], [0.0, -2.0]], dtype=torch.float64)
    for point in x:
        values = torch.exp(-(centre - point).square().sum(1) / (2 * 0.01)) / (2 * math.pi * 0.01)
        error = 5 * values.std() / math.sqrt(len(values))
        assert abs(values.mean() - law.log_prob(point).exp()) < error


def test_a_change_of_variables_is_exact():
    x = torch.linspace(-3, 5, 41, dtype=torch.float64)[:, None]
    affine = Pushforward(lambda z: 2 * z + 1, Gaussian())
    torch.testing.assert_close(affine.log_prob(x), Gaussian(1, 2).log_prob(x), rtol=0, atol=1e-9)
    logs = Pushforward(torch.exp, Gaussian())
    y = torch.linspace(0.2, 5, 25, dtype=torch.float64)[:, None]
    torch.testing.assert_close(logs.log_prob(y), Gaussian().log_prob(y.log()) - y.log()[:, 0], rtol=0, atol=1e-8)


def test_a_map_that_turns_adds_up_all_its_roots():
    """x = z^2 has the chi-squared law with one degree of freedom."""
    law = Pushforward(torch.square, Gaussian(), nodes=4098)
    x = torch.linspace(0.1, 6, 30, dtype=torch.float64)[:, None]
    expected = torch.exp(-x[:, 0] / 2) / (2 * math.pi * x[:, 0]).sqrt()
    torch.testing.assert_close(law.log_prob(x).exp(), expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(law.cdf(x), torch.erf((x[:, 0] / 2).sqrt()), rtol=1e-9, atol=0)
    row, z, rises = law.roots(x[:1, 0])
    assert row.tolist() == [0, 0] and rises.tolist() == [False, True]
    torch.testing.assert_close(z, x[0].sqrt() * tensor([-1.0, 1.0]), rtol=0, atol=1e-12)


def test_no_density_outside():
    assert UniformLaw(0, 1).log_prob(tensor([[2.0]])) == -math.inf
    assert Pushforward(torch.tanh, Gaussian()).log_prob(tensor([[2.0]])) == -math.inf


def test_law_of_a_prior():
    z = tensor([[0.3]], dtype=torch.float64)
    assert law_of(Normal(1)).log_prob(z) == Gaussian().log_prob(z)
    assert law_of(Uniform(2, 0, 4)).log_prob(tensor([[1.0, 1.0]])).item() == pytest.approx(-math.log(16))
    with pytest.raises(ValueError, match="1 or 2 dimensions"):
        law_of(Normal(3))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Gaussian(0, 0), "sigma=0"),
        (lambda: Gaussian([0, 0, 0]), "one or two dimensions"),
        (lambda: UniformLaw(1, 1), "high must be above low"),
        (lambda: Mixture([]), "one or more"),
        (lambda: Mixture([Gaussian(), Gaussian([0, 0])]), "of the same"),
        (lambda: Mixture([Gaussian(), Gaussian(1)], [1, -1]), "at least 0"),
        (lambda: Mixture([Gaussian()], [0]), "at least 0"),
        (lambda: Spiral(0), "above 0"),
        (lambda: Pushforward(torch.tanh, Gaussian([0, 0])), "2 dimensions"),
        (lambda: ring().cdf(tensor([[0.0, 0.0]])), "have one"),
    ],
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()
