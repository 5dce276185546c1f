"""Mode collapse: what the arms share, how modes are counted, and the whole experiment."""

import pytest
import torch

from organza.lab.experiment import Bench
from organza.lab.mode_collapse import (
    ARMS,
    DIGITS,
    PACKED,
    PLAIN,
    RELATIVISTIC,
    RING,
    UNROLLED,
    Digits,
    Item,
    Packed,
    Path,
    arm,
    holds,
    kept,
    on_ring,
    run,
    verify,
)


def sizes(network):
    return [tuple(weight.shape) for weight in network.parameters()]


def test_each_cure_changes_only_what_it_claims():
    plain, moves = arm(PLAIN, RING)
    for name in ARMS[1:]:
        game, others = arm(name, RING)
        assert sizes(game.generator) == sizes(plain.generator)
        assert (sizes(game.discriminator) == sizes(plain.discriminator)) == (name != PACKED)
        assert (type(game.objective) is type(plain.objective)) == (name != RELATIVISTIC)
        assert bool(game.terms) == (name == RELATIVISTIC)
        assert (type(others) is type(moves)) == (name != UNROLLED)


def test_a_pack_has_one_logit():
    D = Packed(torch.nn.Flatten(), 2)
    x = torch.arange(12.0).view(6, 2)
    assert D(x).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_holding_is_the_least_of_the_last_fifth():
    assert holds([0] * 8 + [8, 8]) == 8
    assert holds([8] * 9 + [7]) == 7
    assert holds([3]) == 3


def test_kept_classes():
    assert kept([980, 20, 0]) == 2
    assert kept([981, 19, 0]) == 1


def paths(plain=1, cure=8, radius=1.0, spread=0.2):
    x = torch.zeros(1, 2)
    ends = {name: plain if name == PLAIN else cure for name in ARMS}
    return [
        Path(Item(name, seed, 10), [5, 10], [end, end], 0.5, x, radius, spread)
        for name, end in ends.items()
        for seed in (0, 1)
    ]


def digits(plain, cured, mean=-0.8, spread=0.1):
    return [
        Digits(Item(name, 0, 1), counts, torch.zeros(1), mean, spread)
        for name, counts in ((PLAIN, plain), (RELATIVISTIC, cured))
    ]


def test_the_checks_can_fail():
    even, ones = [100] * 10, [0, 950, 50, 0, 0, 0, 0, 0, 0, 0]
    assert all(check.passed for check in verify(paths(), digits(ones, even)))

    def failed(*args):
        return [check.what for check in verify(*args) if not check.passed]

    assert len(failed(paths(plain=7), digits(ones, even))) == 1  # the planted collapse did not occur
    assert len(failed(paths(radius=0.3), digits(ones, even))) == 1  # G learnt nothing
    assert len(failed(paths(radius=9.0), digits(ones, even))) == 1  # or flew off
    assert len(failed(paths(spread=0.9), digits(ones, even))) == 1
    assert (
        len(failed(paths(), digits(ones, even, mean=0.0))) == len(failed(paths(), digits(ones, even, spread=1.0))) == 1
    )
    assert len(failed(paths(cure=7), digits(ones, even))) == 3
    assert len(failed(paths(), digits(even, even))) == 1
    assert len(failed(paths(), digits(ones, ones))) == 1


def test_a_run_is_repeatable():
    first, again = (on_ring(Item(PLAIN, 3, 30)) for _ in range(2))
    assert torch.equal(first.x, again.x) and first.moves == [30]
    assert not torch.equal(first.x, on_ring(Item(PLAIN, 4, 30)).x)
    assert DIGITS.shape == (1, 28, 28)


@pytest.mark.slow
def test_the_experiment_passes(tmp_path):
    outcome = run(Bench("mode-collapse", tmp_path, fast=True))
    assert outcome.passed, [check for check in outcome.checks if not check.passed]
