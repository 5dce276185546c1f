"""organza.metrics.memorisation: copies are found, and what only looks like copying is not taken for it."""

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional

from organza.metrics import memorisation as module
from organza.metrics.memorisation import closeness, memorisation


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def images(n, seed=0, cells=(4, 4)):
    """Smooth random images, bytes (n, 2, 10, 12)."""
    coarse = normal(n, 2, *cells, seed=seed)
    return (functional.interpolate(coarse, (10, 12), mode="bicubic") * 60 + 128).clamp(0, 255).byte()


TRAIN, FRESH, HELD_OUT = images(1500), images(300, seed=1), images(300, seed=2)


def with_copies(change=lambda x: x, every=8):
    """Fresh images, every eighth of which is replaced by a changed training image: 38 of 300."""
    x = FRESH.clone()
    x[::every] = change(TRAIN[7 : 7 + len(x[::every])])
    return x


def moved(x):
    return torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)


def test_fresh_images_are_not_copies():
    found = memorisation(FRESH, TRAIN, HELD_OUT)
    assert found.verdict == "no sign of it" and found.p_value > 0.01 and found.share < 0.03
    assert found.fake_distance == pytest.approx(found.held_out_distance, rel=0.05)
    assert (found.n_fake, found.n_held_out, found.n_train, found.notes) == (300, 300, 1500, ())


@pytest.mark.parametrize("change", [lambda x: x, moved, lambda x: x + (x < 250) * 2], ids=["exact", "moved", "changed"])
def test_copies_are_found(change):
    found = memorisation(with_copies(change), TRAIN, HELD_OUT)
    assert found.verdict == "memorised"
    assert found.share == pytest.approx(38 / 300, abs=0.03)
    assert (found.suspects % 8 == 0).all()
    assert torch.equal(found.twins, found.suspects // 8 + 7)


def test_moved_copies_are_found_by_moving():
    """In images so rough that one moved by a pixel is no nearer than any other."""
    train, fresh, held_out = (images(n, seed, (8, 10)) for n, seed in ((1500, 0), (300, 1), (300, 2)))
    twice = torch.cat([fresh[40:], moved(moved(train[:40]))])
    assert memorisation(twice, train, held_out, shifts=0).verdict == "no sign of it"
    assert memorisation(twice, train, held_out, shifts=1).verdict == "no sign of it"
    assert memorisation(twice, train, held_out, shifts=2).verdict == "memorised"


def test_bytes_and_floats_are_one():
    x = with_copies()
    found, again = memorisation(x, TRAIN, HELD_OUT), memorisation(x / 127.5 - 1, TRAIN, HELD_OUT / 127.5 - 1)
    assert (found.p_value, found.share) == (again.p_value, again.share)
    assert torch.equal(found.twins, again.twins)


def test_subsets():
    train = torch.cat([images(500, seed=5), TRAIN])
    found = memorisation(with_copies(), train, HELD_OUT, most=250, most_train=1900)
    assert (found.n_fake, found.n_held_out, found.n_train) == (250, 250, 1900)
    assert found.notes == (
        "fake: 250 of 300, a random subset (seed 0)",
        "train: 1900 of 2000, a random subset (seed 0)",
        "held_out: 250 of 300, a random subset (seed 0)",
    )
    assert (found.suspects % 8 == 0).all() and torch.equal(found.twins, found.suspects // 8 + 507)
    for seed in (0, 1):
        again = memorisation(with_copies(), train, HELD_OUT, most=250, most_train=1900, seed=seed)
        assert torch.equal(again.suspects, found.suspects) == (seed == 0)


def test_a_training_set_with_duplicates():
    """Each counts once, and the first is named: else a copy would have two neighbours as near as each other."""
    found = memorisation(with_copies(), TRAIN.repeat(3, 1, 1, 1), HELD_OUT)
    assert found.verdict == "memorised" and found.n_train == 1500
    assert found.notes == ("train: 3000 of 4500 equal earlier ones and were left out",)
    assert torch.equal(found.twins, found.suspects // 8 + 7)


def test_too_few_to_tell():
    found = memorisation(with_copies()[:199], TRAIN, HELD_OUT)
    assert found.verdict == "too few to tell" and found.p_value < 0.001
    assert memorisation(with_copies(), TRAIN, HELD_OUT[:199]).verdict == "too few to tell"


def test_one_mode_is_one_witness():
    """300 samples about one image have one twin: whatever their closeness, that may be chance, and is so called."""
    noise = 0.01 * normal(300, 2, 10, 12)
    for centre in (TRAIN[:1], FRESH[:1]):
        found = memorisation((centre / 127.5 - 1 + noise).clamp(-1, 1), TRAIN, HELD_OUT)
        assert found.verdict == "too few to tell"
        assert found.notes == ("fake: the 300 have only 1 different nearest training examples, and count as so many",)
    # Ten such modes that are all training images are no chance any more.
    ten = TRAIN[:10].repeat(30, 1, 1, 1) / 127.5 - 1 + noise
    assert memorisation(ten.clamp(-1, 1), TRAIN, HELD_OUT).verdict == "memorised"


def test_blur_is_no_copying():
    blurred = functional.avg_pool2d(FRESH.float(), 3, stride=1, padding=1, count_include_pad=False) / 127.5 - 1
    assert memorisation(blurred, TRAIN, HELD_OUT).verdict == "no sign of it"


def mixed(n, seed):
    """Vectors: a tenth on a line, the others in eight dimensions."""
    x = normal(n, 8, seed=seed)
    x[::10] = functional.pad(10 + 3 * x[::10, :1], (0, 7))
    return x


def test_collapse_to_the_low_dimensional_part_is_no_copying():
    """Where the plain ratio of distances, which is small in low dimensions, would be misled."""
    train, held_out, fake = mixed(5000, 0), mixed(800, 1), mixed(8000, 2)[::10]
    assert memorisation(fake, train, held_out).verdict == "no sign of it"
    distances, near = module._nearest(torch.cat([fake, held_out]), train, 0, 20, generator(0))
    ratio, once = distances[:, 0] / distances[:, 1:].mean(1), module._once
    assert module._chance(-ratio[:800][once(near[:800, 0])], -ratio[800:][once(near[800:, 0])])[0] < 1e-3


@pytest.mark.parametrize("d", [1, 2])
def test_the_law_of_closeness(d):
    """F(2, 2 (k - 2)) for evenly spread points, in any dimension; and s is the same for any power of the distances."""
    x = 0.5 + (torch.rand(1000, d, generator=generator(3)) - 0.5) / 2
    points = torch.rand(100_000, d, generator=generator(4)).double()
    distances = torch.stack([(row - points).norm(dim=1).topk(12, largest=False).values for row in x.double()[:400]])
    s = closeness(distances)
    assert stats.kstest(s.numpy(), stats.f(2, 20).cdf).pvalue > 0.01
    torch.testing.assert_close(closeness(distances**0.3), s)


def test_closeness_of_equal_distances():
    rows = [[0, 0, 0, 1], [0, 1, 2, 3], [1, 1, 1, 1], [1, 2, 2, 2], [1, 1, 2, 2], [1, 2, 4, 8]]
    # The last: log 2 over the mean of 2 log 2 and 3 log 2.
    assert closeness(torch.tensor(rows, dtype=torch.float64)).tolist() == [math.inf, math.inf, 0, math.inf, 0, 0.4]


def test_chance_is_hypergeometric():
    s = normal(900, seed=8)
    fake, held_out = s[:500] + 0.3, s[500:]
    p, least = module._chance(fake, held_out)
    tail = round(0.4 * 30)
    count = int((fake >= torch.cat([fake, held_out]).topk(tail).values[-1]).sum())
    assert p == pytest.approx(stats.hypergeom.sf(count - 1, 900, 500, tail), rel=1e-9)
    assert least == pytest.approx(stats.hypergeom.sf(tail - 1, 900, 500, tail), rel=1e-9)
    assert module._chance(torch.full((30,), math.inf), torch.full((70,), math.inf)) == (1.0, 1.0)


def test_chance_is_fair():
    """Under chance, p <= 0.1 at most one time in ten."""
    low = sum(module._chance(*normal(2, 300, seed=seed))[0] <= 0.1 for seed in range(400))
    assert 5 <= low <= 40 + 3 * 6


def test_near_copies_cannot_be_missed():
    """Distances among principal components are never larger, and what is found is measured in full."""
    train = normal(2000, 300, seed=1)
    x = train[:50] + 0.01 * normal(50, 300, seed=2)
    distances, index = module._nearest(x, train, 0, 20, generator(0))
    assert torch.equal(index[:, 0], torch.arange(50))
    torch.testing.assert_close(distances[:, 0], (x - train[:50]).norm(dim=1), rtol=1e-5, atol=0)
    # In as few dimensions as there are components nothing is approximate.
    train = normal(500, 20, seed=1)
    distances, index = module._nearest(x[:, :20], train, 0, 20, generator(0))
    torch.testing.assert_close(distances, torch.cdist(x[:, :20], train).sort(1).values[:, :20], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fake": FRESH[:, :1]}, r"fake \(300, 1, 10, 12\), train \(1500, 2, 10, 12\).*: shapes must agree"),
        ({"fake": FRESH.float()}, r"fake: got images with values up to 2\d\d; they are in \[-1, 1\], or bytes"),
        ({"held_out": HELD_OUT / torch.zeros(1)}, "held_out: got images with values up to nan"),
        ({"fake": FRESH.int()}, "fake: got .* of torch.int32; images"),
        ({"train": TRAIN[:19]}, "got 19 different training examples; at least k=20"),
        ({"train": TRAIN[:1].repeat(99, 1, 1, 1)}, "got 1 different training examples"),
        ({"k": 2}, "k must be 3 or more"),
        ({"shifts": -1}, "shifts 0 or more"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        memorisation(**({"fake": FRESH, "train": TRAIN, "held_out": HELD_OUT} | change))


def test_vectors_are_checked():
    with pytest.raises(ValueError, match="fake: 300 of 300 examples hold NaN"):
        memorisation(normal(300, 4) / 0 * 0, normal(300, 4), normal(300, 4))


@pytest.mark.slow
def test_power_on_mnist(organza_data):
    """Of 100 draws each: 5 % of copies among 2,000 fakes are seen, and what was not copied is not accused."""
    from organza.data import open_data

    train, test = open_data("mnist"), open_data("mnist", "test")
    (x, _), (t, label) = train.gather(torch.arange(60_000)), test.gather(torch.randperm(10_000, generator=generator(0)))
    c = x[torch.randperm(60_000, generator=generator(1))[:1000]]
    choice = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8])[torch.randint(8, (1000,), generator=generator(2))]  # not unmoved
    moved = module._shifted(c, 1)[torch.arange(1000), choice].view_as(c)
    soft = functional.avg_pool2d(functional.pad(t[:1000], (1, 1, 1, 1), value=-1.0), 3, 1)
    means = torch.stack([t[label == digit].mean(0) for digit in range(10)]).repeat(100, 1, 1, 1)
    sets = {
        "exact": c,
        "moved": moved,
        "noisy": c + 0.02 * normal(*c.shape),
        "soft": soft,
        "means": means + 0.1 * normal(*means.shape),
        "few modes": t[:30].repeat(34, 1, 1, 1)[:1000] + 0.1 * normal(1000, 1, 28, 28),
        "test": t,
    }
    measured = {}
    for name, each in sets.items():
        distances, near = module._nearest(each, x, 1, 20, generator(0))
        measured[name] = closeness(distances), near[:, 0]
    s, twin = measured.pop("test")

    def flagged(name, copies, fresh):
        """How often 2,000 fakes are accused, ``copies`` of them of a kind, against 2,000 held-out ones."""
        count = 0
        for seed in range(100):
            some, twins = (each[torch.randperm(1000, generator=generator(seed))[:copies]] for each in measured[name])
            rows = torch.randperm(9000, generator=generator(seed)) + 1000  # the first are in sets of their own
            held_out, rows = rows[:2000], rows[2000:]
            rows = rows[fresh[rows]][: 2000 - copies] if copies < 1000 else rows[:0]
            fake, twins = torch.cat([some, s[rows]]), torch.cat([twins, twin[rows]])
            found = module._chance(fake[module._once(twins)], s[held_out][module._once(twin[held_out])])
            count += found[0] < module.LEVEL
        return count

    all_of_them = torch.ones(10_000, dtype=torch.bool)
    assert flagged("exact", 0, all_of_them) <= 5
    for name in ("exact", "moved", "noisy"):
        assert flagged(name, 100, all_of_them) >= 95
    for name in ("soft", "means", "few modes"):
        assert flagged(name, 1000, all_of_them) <= 5
    for digit in (1, 8):
        assert flagged("exact", 0, label == digit) <= 5
