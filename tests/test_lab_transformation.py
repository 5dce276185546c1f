"""Transformation: the measures of the experiment on maps that are known, and the whole of it."""

import math

import pytest
import torch

from organza.lab import sheet, transformation
from organza.lab.experiment import Bench, double
from organza.lab.sheet import Sheet, contrast, quantiles, roughness
from organza.lab.transformation import Line, Plane, check_lines, check_planes, check_sheet, kolmogorov, lattice
from organza.theory import Gaussian, Pushforward


def test_kolmogorovs_distance():
    with double():
        q = Pushforward(lambda z: 2 * z + 1, Gaussian())
        n = 20_000
        x = (1 + 2 * torch.special.ndtri((torch.arange(n) + 0.5) / n)).double()
        assert kolmogorov(x, q) == pytest.approx(0.5 / n, rel=1e-3)
        assert kolmogorov(x + 2, q) == pytest.approx(2 * Gaussian().cdf(torch.tensor([0.5])).item() - 1, abs=1e-3)


def test_the_laws_deviation():
    x = transformation.law().sample(200_000, torch.Generator().manual_seed(0))
    assert transformation.deviation() == pytest.approx(x.std().item(), abs=0.01)


def test_the_lattice_covers_the_square():
    across, along = lattice(5, 9)
    assert across.shape == along.shape == (5, 9, 2)
    assert (across[:, :, 1].diff(dim=1) == 0).all() and (along[:, :, 0].diff(dim=1) == 0).all()


def test_quantiles_go_row_by_row_from_the_top():
    z = quantiles(4).view(4, 4, 2)
    assert (z[:, :, 0].diff(dim=1) > 0).all() and (z[:, :, 1].diff(dim=0) < 0).all()
    assert z.mean().abs() < 1e-6


def test_roughness():
    side = torch.arange(6.0)
    smooth = torch.cartesian_prod(side, side).view(36, 2, 1, 1)
    noise = torch.randn(36, 784, 1, 1, generator=torch.Generator().manual_seed(0))
    assert roughness(smooth) < 0.4
    assert roughness(noise) == pytest.approx(1, abs=0.02)


def sheet_of(labels, sure, x=None):
    return Sheet(torch.zeros(len(labels) ** 2, 1, 28, 28) if x is None else x, torch.tensor(labels), torch.tensor(sure))


def test_contrast():
    """Two regions: the columns on both sides of their border are less sure by a half."""
    labels = [[0, 0, 0, 1, 1, 1]] * 6
    sure = [[1.0, 1.0, 0.5, 0.5, 1.0, 1.0]] * 6
    assert contrast(sheet_of(labels, sure)) == pytest.approx(0.5)


def line(**changes):
    none = torch.zeros(1)
    good = Line(none, none, none, none, none, w1=0.02, mass=1.0, kolmogorov=0.002, bridge=0.007, slope=30.0)
    return good._replace(**changes)


@pytest.mark.parametrize(
    "changes", [{"w1": 0.06}, {"mass": 1.01}, {"kolmogorov": 0.02}, {"bridge": 0.001}, {"w1": math.nan}]
)
def test_one_bad_line_fails(changes):
    assert all(check.passed for check in check_lines([line(), line()], 0.0003))
    assert sum(not check.passed for check in check_lines([line(), line(**changes)], 0.0003)) == 1


def test_one_bad_plane_fails():
    none = torch.zeros(1)
    good, bad, blind = (Plane(none, none, a, c) for a, c in ((0.51, 0.63), (0.6, 0.63), (0.51, 0.51)))
    assert all(check.passed for check in check_planes([good]))
    assert [check.passed for check in check_planes([good, bad])] == [False, True]
    assert [check.passed for check in check_planes([good, blind])] == [True, False]


def test_a_sheet_of_noise_fails():
    labels = torch.randint(10, (14, 14), generator=torch.Generator().manual_seed(0))
    x = torch.randn(196, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    checks = check_sheet(Sheet(x, labels, torch.full((14, 14), 0.5)))
    assert [check.passed for check in checks][:2] == [True, False]
    assert not all(check.passed for check in checks)
    assert sheet.SIDE == 14


@pytest.mark.slow
def test_the_experiment_passes(tmp_path):
    outcome = transformation.run(Bench("transformation", tmp_path, fast=True))
    assert outcome.passed, [check for check in outcome.checks if not check.passed]
