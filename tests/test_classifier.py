"""organza.metrics.classifier: chance level under equal laws, near the best accuracy under known ones, no leak."""

import math

import pytest
import torch

from organza.data import open_data
from organza.metrics import classifier
from organza.metrics.classifier import classification_accuracy, two_sample


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def bayes(shift):
    """The best accuracy for two standard normal laws whose means are shift apart: Phi(|shift| / 2)."""
    return 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))


def stripes(n, side=12, channels=1, seed=0):
    """Noisy images whose class is the stripes' direction: 0 lying, 1 standing."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=g)
    phase = torch.rand(n, 1, generator=g) * 6.28
    wave = (torch.arange(side) * 2 * math.pi / 4 + phase).sin()  # (n, side)
    x = torch.where(y[:, None, None] == 0, wave[:, :, None], wave[:, None, :])[:, None]  # (n, 1, side, side)
    x = 0.5 * x + 0.2 * torch.randn(n, channels, side, side, generator=g)
    return x.clamp(-1, 1), y


# The two-sample test.


def test_equal_laws_cannot_be_told_apart():
    """Over 20 draws: accuracies within 3 errors of 1/2 together, p-values spread over [0, 1]."""
    found = [two_sample(normal(400, 5, 2 * s), normal(400, 5, 2 * s + 1), seed=s, steps=60) for s in range(20)]
    assert {each.n_test for each in found} == {400}
    mean = sum(each.accuracy for each in found) / 20
    assert abs(mean - 0.5) < 3 * 0.5 / math.sqrt(20 * 400)
    p = sorted(each.p_value for each in found)
    steps = torch.arange(21) / 20
    gap = max(max(abs(steps[i + 1] - value), abs(steps[i] - value)) for i, value in enumerate(p))
    assert gap < 0.36  # Kolmogorov-Smirnov, n = 20: exceeded with probability 1 %
    assert p[0] > 0.001


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_a_shift_is_seen_nearly_as_well_as_possible(shift):
    """0.3 sigma in each of 10 dimensions is a distance of 0.95, where the best accuracy is 68 %."""
    fake = normal(4000, 10) + shift
    found = two_sample(fake, normal(4000, 10, seed=1))
    best = bayes(shift * math.sqrt(10))
    assert best - 0.02 - 3 * found.error < found.accuracy < best + 3 * max(found.error, 1e-3)
    assert found.p_value < 1e-30


def test_a_scale_is_seen():
    """No linear classifier could."""
    found = two_sample(1.3 * normal(4000, 10), normal(4000, 10, seed=1))
    assert found.accuracy > 0.65


def test_a_collapsed_ring():
    """Half the modes lost: whoever says fake on the remaining ones is right in 3 of 4 cases, the best there is."""
    real = open_data("ring", "test")
    fake = open_data("ring").x[open_data("ring").y < 4][:2000]
    found = two_sample(fake, real.x)
    assert abs(found.accuracy - 0.75) < 3 * found.error and found.p_value < 1e-50
    assert found.n_test == 2000  # balanced by drawing from the larger


def test_features_of_any_scale():
    """Standardised, features are seen alike in any unit; constants do no harm."""
    fake, real = normal(500, 3) + 1, normal(500, 3, seed=1)
    unit = torch.tensor([1e-6, 1.0, 1e6])

    def stretched(x):
        return torch.cat([x.double() * unit + 10, torch.full((len(x), 1), 0.1)], 1)

    plain, odd = two_sample(fake, real), two_sample(stretched(fake), stretched(real))
    assert abs(plain.accuracy - odd.accuracy) < 0.05 and odd.accuracy > 0.75


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (3, 5), (510, 1000)])
def test_the_p_value_is_a_binomial_tail(successes, n):
    exact = sum(math.comb(n, k) for k in range(successes, n + 1)) / 2**n
    assert classifier._binomial_tail(successes, n) == pytest.approx(exact, rel=1e-11)


def test_error_and_p_value_belong_to_the_accuracy():
    found = two_sample(normal(101, 2), normal(150, 2, seed=1) + 0.5)
    assert found.n_test == 102
    right = round(found.accuracy * 102)
    assert found.accuracy == right / 102 and found.p_value == classifier._binomial_tail(right, 102)
    assert found.error == math.sqrt(found.accuracy * (1 - found.accuracy) / 102)


# The classification accuracy score.


@pytest.mark.parametrize(("side", "channels"), [(12, 1), (34, 3), (5, 2)])
def test_classes_are_learned_from_images_of_any_shape(side, channels):
    found = classification_accuracy(*stripes(300, side, channels), *stripes(400, side, channels, seed=1), steps=40)
    assert found.value > 0.95
    assert found.error == math.sqrt(found.value * (1 - found.value) / 400)


def test_an_image_may_be_one_pixel():
    x, y = torch.tensor([0, 255], dtype=torch.uint8).repeat(50).view(100, 1, 1, 1), torch.arange(2).repeat(50)
    assert classification_accuracy(x, y, x, y, steps=100).value == 1


def test_labels_that_mean_nothing_teach_nothing():
    x, y = stripes(300)
    shuffled = y[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    found = classification_accuracy(x, shuffled, *stripes(1000, seed=1), steps=60)
    assert abs(found.value - 0.5) < 0.15
    assert classification_accuracy(x, 1 - y, *stripes(1000, seed=1), steps=60).value < 0.05


def test_a_class_that_is_never_shown_is_never_known():
    x, y = stripes(300)
    assert classification_accuracy(x[y == 0], y[y == 0], *(stripes(200, seed=1)), steps=20).value == pytest.approx(
        float((stripes(200, seed=1)[1] == 0).float().mean())
    )


def test_uint8_and_floats_are_the_same_images():
    (x, y), (real_x, real_y) = stripes(200), stripes(200, seed=1)
    coarse, real_coarse = (((part + 1) * 127.5).round().to(torch.uint8) for part in (x, real_x))
    found = [
        classification_accuracy(a, y, b, real_y, steps=15)
        for a in (coarse, coarse.float() / 127.5 - 1)
        for b in (real_coarse, real_coarse.double() / 127.5 - 1)
    ]
    assert len(set(found)) == 1


def test_vectors():
    fake, real = open_data("ring"), open_data("ring", "test")
    found = classification_accuracy(fake.x[:2000], fake.y[:2000], real.x, real.y)
    assert found.value > 0.99
    mixed = classification_accuracy(fake.x[:2000], fake.y[:2000] // 2 * 2, real.x, real.y)  # every second class lost
    assert abs(mixed.value - 0.5) < 0.02


@pytest.mark.slow
def test_mnist_is_learned_from_10_000_examples(organza_data):
    train, test = open_data("mnist[:10000]"), open_data("mnist", "test")
    assert classification_accuracy(train.x, train.y, test.x, test.y).value > 0.97


# Both.


def score(kind, seed):
    if kind == "two-sample":
        return two_sample(normal(100, 3), normal(100, 3, seed=1) + 0.3, seed=seed, steps=5)
    return classification_accuracy(*stripes(60), *stripes(60, seed=1), seed=seed, steps=5)


@pytest.mark.parametrize("kind", ["two-sample", "cas"])
def test_the_seed_alone_decides(kind):
    """Not the global generator, nor whether the caller has gradients on; and the generator stays as it was."""
    expected = score(kind, 3)
    assert {score(kind, seed) for seed in (4, 5, 6)} != {expected}
    torch.manual_seed(17)
    before = torch.get_rng_state()
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            assert score(kind, 3) == expected
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["two-sample", "cas"])
def test_another_default_type_does_no_harm(kind):
    torch.set_default_dtype(torch.float64)
    try:
        assert 0 <= score(kind, 0)[0] <= 1
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: two_sample(torch.zeros(9, 2), torch.zeros(9, 3)), "fake of 2 dimensions and real of 3"),
        (lambda: two_sample(torch.zeros(3, 2), torch.zeros(9, 2)), "fake: got .* at least 4"),
        (lambda: two_sample(torch.zeros(9, 2), torch.full((9, 2), math.nan)), "real: 9 of 9 examples hold NaN"),
        (lambda: two_sample(torch.zeros(9, 2), torch.zeros(9, 2), steps=0), "steps=0: the classifier must"),
    ],
)
def test_refusals_of_the_two_sample_test(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fake_x": torch.zeros(6, 1, 8, 9)}, "not of one kind"),
        ({"fake_x": torch.zeros(6, 1, 8, 8, dtype=torch.int64)}, "fake_x: got .* of torch.int64; needed are images"),
        ({"fake_x": torch.full((6, 1, 8, 8), 255.0)}, r"fake_x: floats from 255 to 255; images must lie in \[-1, 1\]"),
        ({"real_x": torch.full((6, 1, 8, 8), math.nan)}, "real_x: floats from nan to nan"),
        ({"real_x": torch.zeros(0, 1, 8, 8)}, "real_x: got"),
        ({"fake_y": torch.zeros(5, dtype=torch.long)}, "fake_y: got .* needed are 6 integers"),
        ({"real_y": torch.zeros(6)}, "real_y: got .* of torch.float32"),
        ({"fake_y": torch.tensor([0, 1, 0, 1, 0, -1])}, "fake_y: the lowest is -1; leave examples without a class out"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_refusals_of_the_classification_accuracy(change, said):
    given = {"fake_x": torch.zeros(6, 1, 8, 8), "fake_y": torch.arange(6), "real_x": torch.zeros(6, 1, 8, 8)}
    with pytest.raises(ValueError, match=said):
        classification_accuracy(**{**given, "real_y": torch.arange(6), **change})
