"""organza.schedule: end values, the published decays and the bursts of D's moves."""

import math

import pytest

from organza.schedule import Bursts, Constant, Cosine, Exponential, Linear, at

RAMPS = [kind(*ends, 1000) for kind in (Linear, Cosine) for ends in ((2e-4, 5e-5), (0.9, 0.99), (0.0, 5e6))]


def test_a_number_is_its_own_schedule():
    assert at(0.25, 10**9) == Constant(0.25)(10**9) == at(Constant(0.25), 0) == 0.25
    assert at(lambda images: images / 2, 10) == 5


@pytest.mark.parametrize("ramp", RAMPS, ids=repr)
def test_ramps_begin_and_end_where_they_say(ramp):
    assert ramp(0) == pytest.approx(ramp.start, rel=1e-15)
    assert ramp(500) == pytest.approx((ramp.start + ramp.end) / 2)
    for late in (1000, 1001, 10**9):
        assert ramp(late) == pytest.approx(ramp.end, rel=1e-15)
    values = [ramp(images) for images in range(0, 1200, 10)]
    assert values == sorted(values, reverse=ramp.start > ramp.end)
    assert (values[0] - values[50]) == pytest.approx(values[50] - values[100])


def test_a_line_may_begin_late():
    late, early = Linear(1.0, 0.0, 1000, hold=300), Linear(1.0, 0.0, 1000)
    assert late(0) == late(300) == 1.0
    assert [late(300 + images) for images in (1, 500, 1000, 5000)] == [early(images) for images in (1, 500, 1000, 5000)]


def test_cosine_is_r3gans_burn_in():
    """R3GAN's CIFAR-10 settings: lr 2e-4 -> 5e-5 over 20 Mimg; a quarter on it has fallen by (1 - cos 45) / 2."""
    lr = Cosine(2e-4, 5e-5, 20_000_000)
    assert lr(5_000_000) == pytest.approx(2e-4 - 1.5e-4 * (1 - math.sqrt(0.5)) / 2)
    t = 3_141_592 / 20_000_000
    assert lr(3_141_592) == pytest.approx(5e-5 + 1.5e-4 * math.cos(math.pi * t / 2) ** 2)


def test_exponential_is_the_decay_of_2014():
    """Division by 1.000004 at each update of 100 images halves the rate in 173,287 updates."""
    lr = Exponential(0.1, 1 / 1.000004, 100, 1e-6)
    assert lr(0) == 0.1
    assert lr(100) == pytest.approx(0.1 / 1.000004, rel=1e-15)
    assert lr(50) == pytest.approx(0.1 / math.sqrt(1.000004), rel=1e-15)  # between updates too
    assert lr(100 * 173_287) > 0.05 > lr(100 * 173_288)
    assert lr(100 * 2_878_000) > 1e-6 == lr(100 * 2_879_000)


def test_exponential_is_the_decay_of_the_conditional_net():
    """With 1.00004 (Mirza and Osindero 2014) the floor of 1e-6 is reached between updates 287,829 and 287,830."""
    lr = Exponential(0.1, 1 / 1.00004, 100, 1e-6)
    assert lr(100 * 287_828) > 1e-6 == lr(100 * 287_830) == lr(10**12)
    values = [lr(images) for images in range(0, 10**6, 10**4)]
    assert values == sorted(values, reverse=True)
    assert values[10] / values[9] == pytest.approx(values[1] / values[0])


def test_bursts_are_those_of_the_first_wgan():
    k = Bursts()
    assert [k(step) for step in (0, 24, 25, 499, 500, 501, 999, 1000)] == [100, 100, 5, 5, 100, 5, 5, 100]
    assert sum(Bursts(1, 3, 2, 4)(step) for step in range(9)) == 3 + 3 + 1 + 1 + 3 + 1 + 1 + 1 + 3


def test_equal_schedules_read_equal():
    """Two runs are compared by the text of their settings."""
    assert repr(Cosine(1, 0.1, 5)) == repr(Cosine(1, 0.1, 5)) != repr(Cosine(1, 0.2, 5))
    assert repr(Bursts(1, 2, 3, 4)) == "Bursts(k=1, burst=2, first=3, every=4)"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Linear(0, 1, 0), "images=0"),
        (lambda: Cosine(0, 1, -5), "images=-5"),
        (lambda: Exponential(1, 0.0, 5), "factor=0.0"),
        (lambda: Exponential(1, 0.5, 0), "per=0"),
        (lambda: Bursts(every=0), "every=0"),
    ],
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_exponential_by_stairs():
    lr = Exponential(1e-4, 0.5, 100, 1e-5, stairs=True)
    assert [lr(i) for i in (0, 99, 100, 199, 200, 10_000)] == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 1e-5]
    assert all(lr(i) >= Exponential(1e-4, 0.5, 100, 1e-5)(i) for i in range(500))
