"""organza.metrics.neighbours: exact counts, ties, closed forms of equal laws, other implementations, bounds, memory."""

import math
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from organza.metrics import neighbours
from organza.metrics.neighbours import density_coverage, prdc, precision_recall


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(n, d, top, seed=0):
    return torch.randint(top, (n, d), generator=torch.Generator().manual_seed(seed)).float()


def clusters(n, d, width, seed=0, kind=torch.float32):
    """Five tight clusters far apart."""
    centres = 10 * normal(5, d, seed=99).to(kind)
    return centres[torch.arange(n) % 5] + width * normal(n, d, seed=seed).to(kind)


SETS = {  # fake, real
    "normal": (normal(150, 16), normal(170, 16, seed=1) + 0.3),
    "more than a tile": (normal(1100, 5), normal(1300, 5, seed=1)),
    "line": (normal(60, 1), normal(50, 1, seed=1)),
    "offset": (normal(150, 8) + 1e4, normal(130, 8, seed=1) + 1e4),
    "offset in doubles": (normal(90, 8).double() + 1e7, normal(80, 8, seed=1).double() + 1e7),
    "tiny": (1e-22 * normal(50, 8), 1e-22 * normal(60, 8, seed=1)),
    "huge": (1e25 * normal(50, 8), 1e25 * normal(60, 8, seed=1)),
    "far apart": (normal(50, 8), normal(60, 8, seed=1) + 1000),
    "an outlier": (torch.cat([normal(50, 8), torch.full((1, 8), 1e5)]), normal(60, 8, seed=1)),
    "tight clusters": (clusters(300, 200, 1e-2), clusters(320, 200, 1e-2, seed=1)),
    "tighter than float32": (
        clusters(200, 40, 1e-9, kind=torch.float64),
        clusters(150, 40, 1e-9, seed=1, kind=torch.float64),
    ),
    "plane grid": (integers(200, 2, 9), integers(180, 2, 9, seed=1)),
    "bits": (integers(200, 30, 2), integers(220, 30, 2, seed=1)),
    "bits about 1000": (integers(1100, 12, 2) + 1000, integers(200, 12, 2, seed=1) + 1000),
    "copies of real": (torch.cat([normal(120, 9, seed=1)[::3], normal(50, 9)]), normal(120, 9, seed=1)),
    "copies among themselves": (normal(30, 9).repeat(5, 1), normal(20, 9, seed=1).repeat(6, 1)),
    "one point": (torch.full((70, 9), 0.1), torch.full((60, 9), 0.1)),
    "half": (normal(80, 9).half(), normal(90, 9, seed=1).half()),
}
every = pytest.mark.parametrize("sets", SETS.values(), ids=SETS)


def squared(x, y):
    return (x.double()[:, None] - y.double()).square().sum(2)


def brute(fake, real, k_pr, k_dc):
    """The definitions, in float64, from all differences."""
    d = squared(real, fake)  # (M, N)
    r_real, r_fake = (squared(x, x).fill_diagonal_(-1).sort(1).values for x in (real, fake))
    inside = d < r_real[:, k_dc, None]
    return (
        (d <= r_real[:, k_pr, None]).any(0).double().mean().item(),
        (d <= r_fake[:, k_pr]).any(1).double().mean().item(),
        inside.sum().item() / (k_dc * len(fake)),
        inside.any(1).double().mean().item(),
    )


@every
@pytest.mark.parametrize("ks", [(3, 5), (4, 1)])
def test_counts_are_those_of_brute_force(sets, ks, device):
    fake, real = (x.to(device) for x in sets)
    expected, last_bit = brute(*sets, *ks), 0 if device.type == "cpu" else 4e-16  # a GPU divides otherwise
    assert prdc(fake, real, *ks) == pytest.approx(expected, rel=last_bit, abs=0)
    assert precision_recall(fake, real, ks[0]) == pytest.approx(expected[:2], rel=last_bit, abs=0)
    assert density_coverage(fake, real, ks[1]) == pytest.approx(expected[2:], rel=last_bit, abs=0)


def test_equal_distances():
    """On the line, real at 0, 1, 3 with k = 1: radii 1, 1, 2.  A fake on a sphere is within it, but not inside."""
    real = torch.tensor([[0.0], [1.0], [3.0]])
    assert precision_recall(torch.tensor([[5.0], [5.1]]), real, 1).precision == 0.5
    assert density_coverage(torch.tensor([[5.0], [-1.0]]), real, 1) == (0, 0)
    assert density_coverage(torch.tensor([[4.9], [-1.0]]), real, 1) == (1 / 2, 1 / 3)
    # Two equal points have radius 0: a third copy is within it, and nothing is inside.
    real = torch.tensor([[0.1], [0.1], [7.0]])
    assert precision_recall(torch.tensor([[0.1], [0.2]]), real[:2], 1) == (0.5, 1)
    assert density_coverage(torch.tensor([[0.1], [0.2]]), real, 1) == (1 / 2, 1 / 3)


def test_bounds_hold_where_rounding_is_worst():
    """All products have one sign, and the difference of the norms and products is far below them."""
    for d, dtype in ((3, torch.float32), (3000, torch.float32), (3000, torch.float64)):
        x = 100 + normal(100, d).abs() + torch.linspace(0, 3, 100)[:, None]
        points = neighbours._Points(x, torch.zeros(d))
        rows = slice(0, 100)
        low = neighbours.products(points.factor(rows, dtype, left=True), points.factor(rows, dtype)).double()
        high = low + 2 * (points.slack(rows, dtype)[:, None] + points.slack(rows, dtype))
        exact = torch.stack([(row.double() - x.double()).square().sum(1) for row in x])
        assert (low <= exact).all() and (exact <= high).all()
        assert (high - low).max() < 10 * (d + 40) * torch.finfo(dtype).eps * x.double().square().sum(1).max()


def test_few_differences_are_summed(monkeypatch):
    """Of a million pairs in 64 dimensions, the k-th neighbours and the few that rounding leaves open."""
    seen, original = [], neighbours._squared

    def counting(x, y, i, j):
        seen.append(len(i))
        return original(x, y, i, j)

    monkeypatch.setattr(neighbours, "_squared", counting)
    prdc(normal(1000, 64), normal(1000, 64, seed=1))
    assert 3000 <= sum(seen) < 3100


def test_products_in_less_than_float32_are_noticed(monkeypatch):
    """TF32 and autocast round what is multiplied; nothing is then taken in float32."""
    honest = neighbours.products
    fake, real = normal(300, 64), normal(300, 64, seed=1)
    expected = prdc(fake, real)

    def rounded(a, b):
        if a.dtype == torch.float32:
            return honest(a.bfloat16().float(), b.bfloat16().float())
        return honest(a, b)

    monkeypatch.setattr(neighbours, "products", rounded)
    assert prdc(fake, real) == expected
    with torch.autocast("cpu"):
        assert prdc(fake, real) == expected


def test_products_without_onednn(monkeypatch):
    a, b = normal(50, 30), normal(70, 30, seed=1)
    exact, with_it = a.double() @ b.double().T, neighbours.products(a, b)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for found in (with_it, neighbours.products(a, b)):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)
    assert prdc(*SETS["normal"]) == brute(*SETS["normal"], 3, 5)


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.numel() * each.element_size())
        return made


def test_memory_is_that_of_a_tile():
    """Not that of all pairs, which here are 36 MB; only lists of 10 or so neighbours grow with n."""
    with Largest() as largest:
        prdc(normal(3000, 20), normal(3000, 20, seed=1))
    assert largest.bytes == 4 * neighbours.TILE**2


GROWTH = """
import resource, sys, torch
from organza.metrics.neighbours import prdc
n, d = int(sys.argv[1]), int(sys.argv[2])
fake, real = (torch.randn(n, d, generator=torch.Generator().manual_seed(s)).relu_() for s in (0, 1))
prdc(fake[:100], real[:100])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prdc(fake, real)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
"""


@pytest.mark.slow
def test_the_process_grows_little():
    """By less than 128 MB, where all pairs in float32 would be 400 MB."""
    done = subprocess.run([sys.executable, "-c", GROWTH, "10000", "256"], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 128 * 1024


def test_torch_fidelity_says_the_same():
    from fidelity import torch_fidelity  # noqa: F401
    from torch_fidelity.metric_prc import prc_features_to_metric

    for fake, real in (
        SETS["normal"],
        SETS["more than a tile"],
        SETS["bits"],
        (normal(500, 64), normal(400, 64, seed=1)),
    ):
        for ram in (False, True):
            theirs = prc_features_to_metric(fake, real, save_cpu_ram=ram, verbose=False)
            ours = precision_recall(fake, real, 3)
            # Theirs are means in float32.
            assert ours.precision == pytest.approx(theirs["precision"], rel=1e-6)
            assert ours.recall == pytest.approx(theirs["recall"], rel=1e-6)


def expected_coverage(n, m, k):
    """Of N fakes and M real examples of one law."""
    return 1 - math.prod((m - i) / (m + n - i) for i in range(1, k + 1))


@pytest.mark.parametrize(("n", "m", "k", "d"), [(60, 80, 5, 5), (90, 40, 3, 1), (30, 30, 1, 5)])
def test_equal_laws(n, m, k, d):
    """E[density] = 1 and E[coverage] in closed form, in any dimension; within four standard errors."""
    draws = [density_coverage(normal(n, d, seed=s), normal(m, d, seed=1000 + s), k) for s in range(150)]
    found = torch.tensor(draws, dtype=torch.float64)
    error = found.std(0) / math.sqrt(len(draws))
    expected = torch.tensor([1, expected_coverage(n, m, k)], dtype=torch.float64)
    assert ((found.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.04).all()


@pytest.mark.slow
def test_published_values():
    """The table of the authors' package: one draw of N(0, I) in 1,000 dimensions, 10,000 against 10,000, k = 5."""
    draws = [prdc(normal(10_000, 1000, seed=s), normal(10_000, 1000, seed=100 + s), 5, 5) for s in range(4)]
    mean = torch.tensor(draws, dtype=torch.float64).mean(0)
    published = torch.tensor([0.4772, 0.4705, 1.0555, 0.9735], dtype=torch.float64)
    deviation = torch.tensor([0.011, 0.011, 0.042, 0.0047], dtype=torch.float64)  # of one draw, as measured over ten
    assert ((mean - published).abs() < 3 * deviation * math.sqrt(1 + 1 / 4)).all()
    expected = torch.tensor([1, expected_coverage(10_000, 10_000, 5)], dtype=torch.float64)
    assert ((mean[2:] - expected).abs() < 3 * deviation[2:] / 2).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: precision_recall(x, x[:, :2]),
            "fake .* of 3 and real .* of 2 dimensions; both must be the same",
        ),
        (lambda x: precision_recall(x[:3], x), "fake .k=3.: got .3, 3.; at least 4"),
        (lambda x: density_coverage(x, x[:5]), "real .k=5.: got .5, 3.; at least 6"),
        (lambda x: precision_recall(x, x, 0), "k=0: neighbours are counted from 1"),
        (lambda x: prdc(x, x, 3, -1), "k=-1"),
        (lambda x: prdc(x, x, 0, 5), "k=0"),
        (lambda x: prdc(x, x / 0), "real .* hold NaN"),
        (lambda x: prdc(x[0], x), "matrix"),
        (lambda x: prdc(x, x.double() * 1e200), "2.*e.200: their squares overflow"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(8, 3))


def test_one_fake_is_enough_for_density():
    """Its own radius is not needed."""
    real = normal(20, 2)
    assert density_coverage(real[:1], real, 3) == brute(real[:1].repeat(2, 1), real, 1, 3)[2:]
