"""The Fréchet distance: closed forms, singular covariances, the reference implementation, merging, and its error."""

import math

import pytest
import torch
from scipy.linalg import sqrtm

from organza.metrics import frechet
from organza.metrics.frechet import Moments, frechet_distance, frechet_error, product


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def law(mean, covariance, n=2):
    """The moments of a sample that has this mean and covariance."""
    return Moments(n, mean.double(), covariance.double() * (n - 1))


def positive(d, seed=0):
    return product(draw(2 * d, d, seed=seed).T, draw(2 * d, d, seed=seed)) / d


def orthogonal(d, seed=9):
    return torch.linalg.qr(draw(d, d, seed=seed))[0]


def distance(fake, real):
    return frechet_distance(Moments.of(fake), Moments.of(real))


def definition(x, y):
    """Of two samples by the singular values of their deviations: no covariance is formed."""
    a, b = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (x.double(), y.double()))
    shift = (x.double().mean(0) - y.double().mean(0)).square().sum()
    return float(shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


def test_closed_forms():
    d = 8
    C, zero, shift = positive(d), torch.zeros(d), draw(d, seed=1)
    assert frechet_distance(law(zero, C), law(zero, C)) == pytest.approx(0, abs=1e-13)
    assert frechet_distance(law(shift, C), law(zero, C)) == pytest.approx(float(shift.square().sum()), rel=1e-12)
    s1, s2 = draw(d, seed=2).abs(), draw(d, seed=3).abs()
    found = frechet_distance(law(zero, s1.square().diag()), law(zero, s2.square().diag()))
    assert found == pytest.approx(float((s1 - s2).square().sum()), rel=1e-12)
    Q = orthogonal(d)  # covariances that commute
    found = frechet_distance(law(zero, Q @ s1.square().diag() @ Q.T), law(zero, Q @ s2.square().diag() @ Q.T))
    assert found == pytest.approx(float((s1 - s2).square().sum()), rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5, 40])
def test_covariances_that_do_not_commute(d):
    C1, C2, shift = positive(d, 1), positive(d, 2), draw(d, seed=3)
    root = torch.from_numpy(sqrtm((C1 @ C2).numpy()).real)
    expected = float(shift.square().sum() + (C1 + C2 - 2 * root).trace())
    found = frechet_distance(law(shift, C1), law(torch.zeros(d), C2))
    assert found == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(law(torch.zeros(d), C2), law(shift, C1)) == pytest.approx(found, rel=1e-12)
    Q, moved = orthogonal(d), draw(d, seed=4)  # rotating and shifting both changes nothing
    turned = frechet_distance(law(Q @ shift + moved, Q @ C1 @ Q.T), law(moved, Q @ C2 @ Q.T))
    assert turned == pytest.approx(found, rel=1e-10)


def test_covariances_of_low_rank():
    """Gaussians in subspaces: the same one, orthogonal ones, and ones at an angle."""
    d, r = 60, 7
    Q, s1, s2, zero = orthogonal(d), draw(r, seed=2).abs(), draw(r, seed=3).abs(), torch.zeros(d)

    def flat(basis, s):
        return law(zero, basis @ s.square().diag() @ basis.T)

    total = float(s1.square().sum() + s2.square().sum())
    same = frechet_distance(flat(Q[:, :r], s1), flat(Q[:, :r], s2))
    assert same == pytest.approx(float((s1 - s2).square().sum()), rel=1e-9)
    assert frechet_distance(flat(Q[:, :r], s1), flat(Q[:, r : 2 * r], s2)) == pytest.approx(total, rel=1e-9)
    angles = torch.linspace(0.1, 1.4, r, dtype=torch.float64)
    tilted = Q[:, :r] * angles.cos() + Q[:, r : 2 * r] * angles.sin()
    expected = total - 2 * float((s1 * s2 * angles.cos()).sum())
    assert frechet_distance(flat(Q[:, :r], s1), flat(tilted, s2)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 30, 50), (20, 200, 50), (2, 2, 9), (300, 300, 40)])
def test_fewer_examples_than_features(n, m, d):
    x, y = draw(n, d), 1.5 * draw(m, d, seed=1) + 0.1
    assert distance(x, y) == pytest.approx(definition(x, y), rel=1e-10)
    assert distance(x, x) == pytest.approx(0, abs=1e-11)


def test_dead_copied_and_tiny_features():
    """Constant features add the square of their shift, copies what they add to the definition, units do not matter."""
    x, y = draw(100, 6) @ positive(6), draw(80, 6, seed=1)
    plain = distance(x, y)
    dead = [torch.cat([z, torch.full((len(z), 2), c)], 1) for z, c in ((x, 7.7), (y, 7.7))]
    assert distance(*dead) == pytest.approx(plain, rel=1e-12)
    dead[1][:, -1] += 0.5
    assert distance(*dead) == pytest.approx(plain + 0.25, rel=1e-12)
    half = [x, y.clone()]
    half[1][:, 2] = y[0, 2]  # dead among the reals only
    assert distance(*half) == pytest.approx(definition(*half), rel=frechet.FAST)
    copied = [torch.cat([z, z[:, :3], z[:, :1] + z[:, 1:2]], 1) for z in (x, y)]
    assert distance(*copied) == pytest.approx(definition(*copied), rel=1e-9)
    units = 10.0 ** torch.tensor([0.0, -4.0, 4.0, -9.0, 0.0, 0.0])
    assert distance(x * units, y * units) == pytest.approx(definition(x * units, y * units), rel=1e-9)
    alone = torch.full((5, 3), 2.0)
    assert distance(alone, alone + 1) == 3 and frechet_error(alone, *[Moments.of(alone)] * 2) == 0


def test_covariances_near_singular(monkeypatch):
    """Where eigenvalues of the square would lose digits, singular values are taken, and where not, both agree."""
    for lowest, agreement in ((-1, 1e-12), (-5, 1e-7)):
        scale = torch.where(torch.arange(100) < 10, 1.0, 10.0**lowest)
        x, y = ((draw(400, 100, seed=seed) * scale) @ orthogonal(100) for seed in (0, 1))
        pair, expected = (Moments.of(x), Moments.of(y)), definition(x, y)
        assert frechet_distance(*pair) == pytest.approx(expected, rel=1e-9)
        with monkeypatch.context() as patch:
            patch.setattr(frechet, "FAST", math.inf)
            eigenvalues = frechet_distance(*pair)
            patch.setattr(frechet, "FAST", 0)
            singular_values = frechet_distance(*pair)
        assert singular_values == pytest.approx(expected, rel=1e-9)
        assert (abs(eigenvalues / singular_values - 1) < agreement) == (lowest == -1)


@pytest.mark.parametrize("block", [frechet.BLOCK, 8 * 16 * 100])
def test_a_large_offset_costs_no_digits(block, monkeypatch):
    """Multiples of 1/64 are exact in float32 beside 10,000."""
    monkeypatch.setattr(frechet, "BLOCK", block)
    x = (draw(1000, 16) * 64).round() / 64
    plain, shifted = Moments.of(x), Moments.of((x + 1e4).float())
    torch.testing.assert_close(shifted.mean - 1e4, plain.mean, rtol=0, atol=1e-11)
    torch.testing.assert_close(shifted.scatter, plain.scatter, rtol=0, atol=1e-12 * float(plain.scatter.max()))
    expected = torch.cov(x.T)
    torch.testing.assert_close(plain.covariance, expected, rtol=1e-12, atol=1e-14)
    assert plain.n == 1000


def test_merging_in_any_order_gives_the_whole():
    x = draw(300, 12) @ positive(12) + 100 * draw(12, seed=5)
    whole = Moments.of(x)
    halves = [Moments.of(part) for part in x.split([1, 99, 150, 50])]
    stream = Moments.of(x[:1])
    for row in x[1:]:
        stream += Moments.of(row[None])
    a, b, c, d = halves
    for merged in (a + b + c + d, d + (c + (b + a)), (d + b) + (a + c), stream):
        assert merged.n == 300
        torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-12 * float(whole.scatter.max()))


@pytest.mark.parametrize(("n", "m", "d"), [(500, 400, 16), (2000, 1000, 200), (100, 150, 3), (150, 200, 300)])
def test_the_reference_implementation(n, m, d):
    """torch-fidelity on the same features; below d examples its eigenvalues' noise shows first, as 1e-6 of traces."""
    from fidelity import torch_fidelity  # noqa: F401  (skips where it is not installed)
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    def theirs(*sides):
        found = fid_statistics_to_metric(*map(fid_features_to_statistics, sides), verbose=False)
        return found["frechet_inception_distance"]

    x, y = (draw(n, d) @ positive(d) + 0.3).relu().float(), draw(m, d, seed=1).relu().float()
    assert distance(x, y) == pytest.approx(theirs(x, y), rel=1e-6)
    assert distance(x, x) == pytest.approx(0, abs=1e-8)
    assert distance(x.double(), y.double()) == distance(x, y)
    if min(n, m) > d:
        assert distance(x, y) == pytest.approx(theirs(x.double(), y.double()), rel=1e-9)
        assert theirs(x, x) == pytest.approx(0, abs=1e-8)


def test_the_bias():
    """Two samples of N(0, I_64): 4.40, 2.24, 1.13 for n = 500, 1000, 2000, about 1/n."""
    for n, expected in ((500, 4.40), (1000, 2.24), (2000, 1.13)):
        found = [distance(draw(n, 64, seed=2 * i), draw(n, 64, seed=2 * i + 1)) for i in range(3)]
        assert sum(found) / 3 == pytest.approx(expected, rel=0.03)


def test_the_error_in_one_dimension():
    """(m1 - m2)^2 + (s1 - s2)^2 has, to first order, the variance [4 (m1 - m2)^2 + 2 (s1 - s2)^2] s1^2 / n."""
    n, s1, s2, shift = 200_000, 1.5, 0.5, 0.7
    x = s1 * draw(n, 1) + shift
    fake, real = Moments.of(x), law(torch.zeros(1), torch.tensor([[s2**2]]))
    expected = math.sqrt((4 * shift**2 + 2 * (s1 - s2) ** 2) * s1**2 / n)
    assert frechet_error(x, fake, real) == pytest.approx(expected, rel=0.01)


def test_the_error_is_that_of_repeated_draws():
    d, n, repeats = 5, 400, 400
    C, real = positive(d, 1), law(torch.zeros(d), positive(d, 2))
    L = torch.linalg.cholesky(C)
    samples = [draw(n, d, seed=i) @ L.T + 0.4 for i in range(repeats)]
    pairs = [(x, Moments.of(x)) for x in samples]
    distances = torch.tensor([frechet_distance(m, real) for _, m in pairs])
    errors = torch.tensor([frechet_error(x, m, real) for x, m in pairs[:50]])
    # The deviation of 400 draws is itself known to 3.5 %.
    assert float(errors.mean()) == pytest.approx(float(distances.std()), rel=0.1)
    x = samples[0]
    generator = torch.Generator().manual_seed(0)
    bootstrap = [Moments.of(x[torch.randint(n, (n,), generator=generator)]) for _ in range(400)]
    resampled = torch.tensor([frechet_distance(m, real) for m in bootstrap]).std()
    assert float(errors[0]) == pytest.approx(float(resampled), rel=0.1)
    # The jackknife leaves each example out, the infinitesimal one takes the derivative: equal but for terms in 1/n.
    left_out = [frechet_distance(Moments.of(torch.cat([x[:i], x[i + 1 :]])), real) for i in range(n)]
    jackknife = torch.tensor(left_out).std() * (n - 1) / math.sqrt(n)
    assert float(errors[0]) == pytest.approx(float(jackknife), rel=0.02)


def test_the_error_of_singular_covariances():
    """Dead features and rotations change nothing; at equality it vanishes to first order; of n < d it is finite."""
    x, y = draw(300, 5) @ positive(5) + 0.3, draw(200, 5, seed=1)
    fake, real = Moments.of(x), Moments.of(y)
    plain = frechet_error(x, fake, real)
    dead = [torch.cat([z, torch.full((len(z), 1), 3.0)], 1) @ orthogonal(6) for z in (x, y)]
    assert frechet_error(dead[0], Moments.of(dead[0]), Moments.of(dead[1])) == pytest.approx(plain, rel=1e-6)
    half = frechet_error(x[:150], fake, real)  # some of the features do, for the error of all
    assert half == pytest.approx(plain, rel=0.2) and half != plain
    assert frechet_error(x, fake, fake) < 1e-12
    few = draw(20, 50)
    assert 0 < frechet_error(few, Moments.of(few), Moments.of(draw(30, 50, seed=1))) < 10


def test_the_error_of_a_collapsed_generator(monkeypatch):
    """Of a thousand features nearly all are dead: LAPACK is not asked for their eigenvalues, which it may not find."""
    asked, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda C: asked.append(len(C)) or eigh(C))
    x, y = draw(300, 5), draw(200, 5, seed=1)
    wide = [torch.zeros(len(z), 1000, dtype=torch.float64).index_copy(1, torch.arange(5) * 7, z) for z in (x, y)]
    error = frechet_error(wide[0], Moments.of(wide[0]), Moments.of(wide[1]))
    assert error == pytest.approx(frechet_error(x, Moments.of(x), Moments.of(y)), rel=1e-12)
    assert max(asked) == 5
    gone = torch.ones(20, 1000, dtype=torch.float64)  # all are
    assert frechet_error(gone, Moments.of(gone), Moments.of(wide[1])) == 0


def test_mistakes():
    x = draw(10, 3)
    with pytest.raises(ValueError, match="a matrix"):
        Moments.of(x[:, 0])
    with pytest.raises(ValueError, match="a matrix"):
        Moments.of(torch.ones(3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 1 examples"):
        Moments.of(x[:0])
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="features: 1 of 10 examples hold NaN or infinity, first 3"):
            Moments.of(torch.where(x == x[3, 1], bad, x))
    with pytest.raises(ValueError, match="cannot be merged"):
        Moments.of(x) + Moments.of(x[:, :2])
    with pytest.raises(ValueError, match="real: got 1 example; a covariance needs at least 2"):
        frechet_distance(Moments.of(x), Moments.of(x[:1]))
    with pytest.raises(ValueError, match="fakes have 3 features, reals 2"):
        frechet_distance(Moments.of(x), Moments.of(x[:, :2]))
    with pytest.raises(ValueError, match="2 columns, the moments have 3"):
        frechet_error(x[:, :2], Moments.of(x), Moments.of(x))
