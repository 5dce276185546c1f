"""Generative and discriminative: the law, the measures, the linear probe, and the whole experiment."""

import math

import pytest
import torch

from organza.lab import probe
from organza.lab.experiment import Bench
from organza.lab.generative_discriminative import (
    CLASSIFIER,
    FAR,
    GIVEN,
    HEAPS,
    JOINT,
    P_Y,
    PLAIN,
    Job,
    LabelledD,
    LabelledG,
    View,
    auc,
    check_views,
    draw,
    law_joint,
    outliers,
    run,
)
from organza.lab.probe import DISCRIMINATOR, LABELS, PIXELS, RANDOM, Probe


def test_the_law_and_its_bayes_rule():
    """Of points in which Bayes' rule says p(y=1|x) = a, the share a is of class 1."""
    x, y = draw(40_000, 0)
    assert y.double().mean().item() == pytest.approx(P_Y[1], abs=0.01)
    told = law_joint(x).softmax(1)[:, 1]
    for low in (0.1, 0.3, 0.5, 0.7):
        here = (told > low) & (told < low + 0.2)
        error = 4 / math.sqrt(4 * int(here.sum()))
        assert y[here].double().mean().item() == pytest.approx(told[here].mean().item(), abs=error)


def test_outliers_are_far_from_every_heap():
    x = outliers(200, 0)
    assert len(x) == 200
    for mean, sigma, _ in (heap for heaps in HEAPS for heap in heaps):
        assert (x - torch.tensor(mean)).norm(dim=1).min() > FAR * sigma


def test_auc():
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert (auc(high, low), auc(low, high), auc(low, low)) == (1.0, 0.0, 0.5)


def test_labels_reach_both_players():
    z, x = torch.zeros(3, 2), torch.zeros(3, 2)
    labels = torch.tensor([0, 1, 1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        G, D = LabelledG(), LabelledD()
    z = torch.zeros(3, next(w.shape[1] for w in G.parameters() if w.ndim == 2) - 2)
    made, said = G(z, labels), D(x, labels)
    torch.testing.assert_close(made[1], made[2])
    torch.testing.assert_close(said[1], said[2])
    assert (made[0] - made[1]).abs().max() > 1e-3 and (said[0] - said[1]).abs() > 1e-3


def view(what, accuracy=0.95, auc=1.0, best=0.96):
    y = (torch.arange(1000) < 1000 * P_Y[1]).long()
    return View(Job(what, 0, 1), accuracy, best, auc, torch.zeros(1000, 2), y, torch.empty(0))


def views(**changes):
    made = {CLASSIFIER: {"auc": 0.2}, GIVEN: {}, JOINT: {}, PLAIN: {"accuracy": math.nan}}
    names = {"classifier": CLASSIFIER, "given": GIVEN, "joint": JOINT, "plain": PLAIN}
    for name, change in changes.items():
        made[names[name]] |= change
    return [view(what, **change) for what, change in made.items()]


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier": {"accuracy": 0.9}},
        {"given": {"accuracy": 0.9}},
        {"joint": {"accuracy": math.nan}},
        {"plain": {"auc": 0.8}},
        {"classifier": {"auc": 0.6}},
    ],
)
def test_one_bad_view_fails(changes):
    assert all(check.passed for check in check_views(views()))
    assert sum(not check.passed for check in check_views(views(**changes))) == 1


def test_the_probe_checks_can_fail():
    def of(d, random, pixels):
        accuracy = {DISCRIMINATOR: d, RANDOM: random, PIXELS: pixels}
        return Probe({name: dict.fromkeys(LABELS, value) for name, value in accuracy.items()}, torch.zeros(1))

    assert all(check.passed for check in probe.check([of(0.92, 0.85, 0.91)]))
    assert not all(check.passed for check in probe.check([of(0.92, 0.915, 0.91)]))
    assert not all(check.passed for check in probe.check([of(0.9, 0.85, 0.91)]))
    assert not all(check.passed for check in probe.check([of(0.7, 0.5, 0.6)]))


def test_the_linear_classifier_learns_what_is_linear():
    x = torch.randn(600, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    assert probe.linear(x[:500], y[:500], x[500:], y[500:], 250, 2, 0) > 0.88
    noise = torch.randint(4, (600,), generator=torch.Generator().manual_seed(1))
    assert probe.linear(x[:500], noise[:500], x[500:], noise[500:], 250, 2, 0) < 0.45


@pytest.mark.slow
def test_the_experiment_passes(tmp_path):
    outcome = run(Bench("generative-discriminative", tmp_path, fast=True))
    assert outcome.passed, [check for check in outcome.checks if not check.passed]
