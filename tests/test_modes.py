"""organza.metrics.modes: perfect samplers meet ceiling, floor and width; collapsed ones are seen."""

import math

import pytest
import torch

from organza.data import held_out, open_data
from organza.data.parts import weights
from organza.data.synthetic import centres as known
from organza.metrics import modes
from organza.metrics.modes import mode_coverage, stacked_modes


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def mixture(n, centres, sigma, seed=0, weights=None):
    """A sample of the law itself, or with other weights of its modes."""
    g = torch.Generator().manual_seed(seed)
    weights = torch.ones(len(centres)) if weights is None else torch.tensor(weights)
    return centres[weights.multinomial(n, True, generator=g)] + sigma * torch.randn(n, centres.shape[1], generator=g)


def corners(d, K):
    """K centres in d dimensions, all sqrt(2) times 100 apart."""
    return 100 * torch.eye(d)[:K]


@pytest.mark.parametrize("name", ["ring", "grid25", "grid100"])
def test_a_perfect_sampler(name):
    centres, sigma = known(name)
    found = mode_coverage(open_data(name, "test").x, centres, sigma)
    n = 10_000
    assert found.captured == found.total == len(centres)
    assert found.ceiling == pytest.approx(1 - math.exp(-4.5), abs=1e-12)
    assert abs(found.quality - found.ceiling) < 4 * math.sqrt(found.ceiling * (1 - found.ceiling) / n)
    assert abs(found.width - 1) < 4 / math.sqrt(4 * n)  # the relative error of a standard deviation of 2n numbers
    # 2n KL is about chi-squared of K - 1 degrees of freedom
    freedom = len(centres) - 1
    assert abs(2 * n * (found.reverse_kl - found.kl_floor)) < 4 * math.sqrt(2 * freedom)
    assert found.counts.dtype == torch.int64 and int(found.counts.sum()) == round(found.quality * n)


@pytest.mark.parametrize(("d", "radius"), [(1, 1.0), (1, 3.0), (3, 2.0), (10, 3.0), (50, 10.0)])
def test_any_number_of_dimensions_and_any_radius(d, radius):
    n = 20_000
    found = mode_coverage(mixture(n, corners(d, 7), 0.5), corners(d, 7), 0.5, radius)
    assert abs(found.quality - found.ceiling) < 4 * math.sqrt(found.ceiling * (1 - found.ceiling) / n)
    assert abs(found.width - 1) < 4 / math.sqrt(2 * d * n * found.quality)
    assert found.total == min(d, 7) == found.captured


@pytest.mark.parametrize(("d", "ceiling"), [(1, math.erf(3 / math.sqrt(2))), (4, 1 - math.exp(-4.5) * 5.5)])
def test_ceilings_in_closed_form(d, ceiling):
    """P(|z| < 3), and for 4 degrees of freedom 1 - e^(-r/2) (1 + r/2) at r = 9."""
    assert mode_coverage(normal(5, d), corners(d, 1), 1.0).ceiling == pytest.approx(ceiling, abs=1e-12)


def test_the_squared_width_is_unbiased():
    """Also of few samples a mode, cut off early: the mean over 2,000 draws is 1."""
    centres = torch.tensor([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0]])
    squares = torch.tensor([mode_coverage(mixture(8, centres, 2.0, s), centres, 2.0, 1.5).width for s in range(2000)])
    squares = squares[squares.isfinite()].double() ** 2
    assert abs(squares.mean() - 1) < 4 * squares.std() / math.sqrt(len(squares))
    assert squares.std() > 0.1


def test_nothing_but_the_centres():
    centres, sigma = known("grid25")
    for offset in (0.0, sigma):  # one point a mode has no width, wherever it is
        found = mode_coverage(centres.repeat(100, 1) + offset, centres, sigma)
        assert found.captured == 25 and found.quality == 1 and found.reverse_kl == pytest.approx(0, abs=1e-12)
        assert found.width == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.8])
def test_narrow_modes(factor):
    centres, sigma = known("ring")
    found = mode_coverage(mixture(2500, centres, factor * sigma), centres, sigma)
    expected = factor * modes._cut(2, 3 / factor) / modes._cut(2, 3)
    assert found.width == pytest.approx(expected, rel=4 / math.sqrt(4 * 2500))


def test_wide_modes_lose_quality():
    centres, sigma = known("ring")
    found = mode_coverage(mixture(2500, centres, 3 * sigma), centres, sigma)
    share = 1 - math.exp(-0.5)
    assert abs(found.quality - share) < 4 * math.sqrt(share * (1 - share) / 2500)
    assert found.width > 1.2


def test_one_mode():
    centres, sigma = known("ring")
    found = mode_coverage(centres[3] + sigma * normal(2500, 2), centres, sigma)
    assert found.captured == 1 and found.reverse_kl == pytest.approx(math.log(8), abs=1e-12)
    assert found.counts.nonzero().tolist() == [[3]]
    assert abs(found.width - 1) < 0.05 and found.kl_floor == pytest.approx(7 / (2 * int(found.counts[3])))


def test_an_uneven_histogram_by_hand():
    """Weights 1/2, 1/4, 1/4 of 4 modes: log 4 - (log 2) 3/2 = (log 2) / 2; what is far away does not count."""
    centres = corners(4, 4)
    x = torch.cat([centres[[0, 0, 1, 2]], centres[[3]] + 3.0])
    found = mode_coverage(x, centres, 1.0)
    assert found.counts.tolist() == [2, 1, 1, 0] and found.captured == 3 and found.quality == 0.8
    assert found.reverse_kl == pytest.approx(math.log(2) / 2) and found.kl_floor == 3 / 8


def test_weights_of_modes_by_hand():
    """Shares 1/2, 1/4, 1/4 of modes that should have 1/2, 3/8, 1/8: (log 2 - log 3/2) / 4; any scale of weights."""
    centres = corners(3, 3)
    found = mode_coverage(centres[[0, 0, 1, 2]], centres, 1.0, weights=torch.tensor([4.0, 3.0, 1.0]))
    assert found.reverse_kl == pytest.approx((math.log(2) - math.log(1.5)) / 4) and found.kl_floor == 2 / 8


def test_a_perfect_sampler_of_weighted_modes():
    centres, sigma = known("grid25")
    data = open_data("grid25[weights=1:4]", "test")
    w = weights("weights=1:4", 25)
    assert w.sum() == pytest.approx(1) and w[-1] / w[0] == pytest.approx(4) and w[12] / w[0] == pytest.approx(2.5)
    assert abs(len(data) - 6_250) < 4 * 50  # 5/8 of 10,000
    found = mode_coverage(data.x, centres, sigma, weights=w)
    assert abs(2 * len(data) * (found.reverse_kl - found.kl_floor)) < 4 * math.sqrt(2 * 24)
    assert mode_coverage(data.x, centres, sigma).reverse_kl > 20 * found.kl_floor
    assert held_out("grid25[:500][weights=1:4]") == "grid25[weights=1:4]"
    spaced = held_out("grid25[ weights = 1:4 ]")
    assert spaced is not None and open_data(spaced, "test").name == data.name


@pytest.mark.parametrize("part", ["weights=0:1", "weights=1", "weights=1:x", "weights=:"])
def test_what_weights_are(part):
    with pytest.raises(ValueError, match=r"needed are the first and the last class's weight, above 0"):
        open_data(f"ring[{part}]")


def test_weights_need_classes():
    with pytest.raises(ValueError, match="every example needs a label of a class"):
        open_data("digits[joint][weights=1:4]")


def test_the_border_is_outside():
    found = mode_coverage(torch.tensor([[2.9999], [3.0], [-3.0]]), torch.zeros(1, 1), 1.0)
    assert found.counts.tolist() == [1]


def test_the_floor_is_what_an_even_sampler_expects():
    found = [mode_coverage(mixture(500, corners(9, 9), 1.0, s), corners(9, 9), 1.0, 6.0) for s in range(200)]
    kl = torch.tensor([each.reverse_kl - each.kl_floor for each in found])
    assert abs(kl.mean()) < 4 * kl.std() / math.sqrt(200) and abs(kl.mean()) < 0.1 * found[0].kl_floor


def test_no_sample_of_quality():
    found = mode_coverage(torch.full((10, 2), 50.0), *known("ring"))
    assert found.captured == 0 and found.quality == 0 and found.counts.tolist() == [0] * 8
    assert math.isnan(found.reverse_kl) and math.isnan(found.kl_floor) and math.isnan(found.width)


def test_a_mode_of_one_sample_has_no_width():
    centres, sigma = known("ring")
    assert math.isnan(mode_coverage(centres, centres, sigma).width)
    pair = torch.cat([centres, centres[:1] + torch.tensor([[sigma, 0.0]])])  # deviations +- sigma/2 in one of 2 axes
    expected = math.sqrt(0.5 / 2) / modes._cut(2, 3)
    assert mode_coverage(pair, centres, sigma).width == pytest.approx(expected, rel=1e-5)


def test_tiles_do_not_matter(monkeypatch):
    centres, sigma = known("grid25")
    x = mixture(300, centres, sigma)
    whole = mode_coverage(x, centres, sigma)
    monkeypatch.setattr(modes, "_TILE", 60)
    tiled = mode_coverage(x, centres, sigma)
    assert whole[:-1] == tiled[:-1] and torch.equal(whole.counts, tiled.counts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.tensor([[0.0, 0.0], [math.nan, 0.0]])}, "x: 1 of 2 examples hold NaN"),
        ({"x": torch.zeros(0, 2)}, "x: got"),
        ({"x": torch.zeros(3, 3)}, "x of 3 dimensions and centres of 2"),
        ({"centres": torch.zeros(0, 2)}, "centres: got"),
        ({"centres": torch.zeros(2, 2)}, "centres 0 apart"),
        ({"radius": 5.1}, "centres 1 apart with sigma=0.1 and radius=5.1: modes may not overlap"),
        ({"radius": 0.0}, "radius=0.0: must be finite and above 0"),
        ({"sigma": -1.0}, "sigma=-1.0: must be"),
        ({"sigma": math.nan}, "sigma=nan: must be"),
        ({"x": torch.zeros(3, 1200), "centres": torch.zeros(1, 1200)}, r"give sqrt\(d\) \+ 3 = 37.6"),
    ],
)
def test_refusals(change, said):
    given = {"x": torch.zeros(3, 2), "centres": torch.tensor([[0.0, 0.0], [0.0, 1.0]]), "sigma": 0.1}
    with pytest.raises(ValueError, match=said):
        mode_coverage(**{**given, **change})


# Stacked digits.


def digits(n, seed=0, p=None):
    weights = torch.ones(10) if p is None else torch.tensor(p)
    return weights.multinomial(3 * n, True, generator=torch.Generator().manual_seed(seed)).view(n, 3)


def test_every_stacked_mode_once():
    every = torch.cartesian_prod(*[torch.arange(10)] * 3)
    found = stacked_modes(every.repeat(2, 1))
    assert found.modes == 1000 and found.kl == pytest.approx(0, abs=1e-12) and found.floor == 999 / 4000
    assert stacked_modes(every[:500].to(torch.uint8)).modes == 500
    assert stacked_modes(every[:500]).kl == pytest.approx(math.log(2))


def test_one_stacked_mode():
    found = stacked_modes(torch.tensor([[3, 0, 9]] * 50))
    assert found.modes == 1 and found.kl == pytest.approx(6.908, abs=1e-3) == math.log(1000)


def test_channels_are_told_apart():
    assert stacked_modes(torch.tensor([[1, 2, 3], [3, 2, 1], [2, 1, 3], [1, 2, 3]])).modes == 3


@pytest.mark.parametrize(("n", "floor"), [(26_000, 0.0192), (25_600, 0.0195), (50_000, 0.0100)])
def test_the_floor_of_stacked_digits(n, floor):
    """What perfectly even samplers score, up to the second order in 1 / n, which the floor leaves out."""
    found = [stacked_modes(digits(n, seed)) for seed in range(20)]
    assert found[0].floor == pytest.approx(floor, abs=5e-5)
    kl = torch.tensor([each.kl for each in found])
    assert kl.mean() == pytest.approx(found[0].floor, rel=0.02)
    assert all(each.modes == 1000 for each in found)


def test_uneven_digits_score_above_the_floor():
    """With independent channels, KL is three times that of one digit, plus the floor."""
    p = torch.tensor([0.19, 0.01, *[0.1] * 8])
    expected = 3 * float((p * (10 * p).log()).sum())
    found = stacked_modes(digits(26_000, p=p.tolist()))
    assert found.kl == pytest.approx(expected + found.floor, rel=0.05)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.zeros(5, 2, dtype=torch.long), r"labels of shape \(5, 2\)"),
        (torch.zeros(0, 3, dtype=torch.long), r"labels of shape \(0, 3\)"),
        (torch.zeros(5, 3), "labels of torch.float32"),
        (torch.zeros(5, 3, dtype=torch.bool), "labels of torch.bool"),
        (torch.tensor([[0, 1, 10]]), "labels from 0 to 10"),
        (torch.tensor([[0, 1, -1]]), "labels from -1 to 1"),
    ],
)
def test_refused_labels(labels, said):
    with pytest.raises(ValueError, match=said):
        stacked_modes(labels)
