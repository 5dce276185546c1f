"""organza.ema: the half-life identity, the limits and independence of the batch size."""

import pytest
import torch
from torch import nn

from organza.ema import average, averaged


def network(fill):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(fill)
        net[1].running_mean.fill_(10 * fill)
        net[1].num_batches_tracked.fill_(int(fill))
    return net


def weights(net):
    return torch.cat([w.detach().flatten() for w in net.parameters()])


def test_the_copy_is_apart_and_at_rest():
    net = network(3.0)
    mean = averaged(net)
    assert net.training and not any(module.training for module in mean.modules())
    assert all(w.requires_grad for w in net.parameters()) and not any(w.requires_grad for w in mean.parameters())
    with torch.no_grad():
        net[0].weight.zero_()
    assert torch.equal(weights(mean), torch.full_like(weights(mean), 3.0))


def test_the_decay_of_r3gan():
    """A half-life of 5 Mimg at batch 512 is a decay of .9999 a step, to within 5e-5 of its distance from 1."""
    mean = averaged(network(1.0))
    average(mean, network(0.0), 512, 5e6)
    decay = weights(mean)[0].item()
    assert decay == pytest.approx(0.5 ** (512 / 5e6), rel=1e-15)
    assert decay == pytest.approx(0.9999, abs=5e-5)


@pytest.mark.parametrize("cuts", [(1000,), (500, 500), (100,) * 10, (1, 998, 1)])
def test_a_half_life_halves_whatever_the_batches(cuts):
    """Towards a G that stays, an old weight counts 1/2 after the half-life, in steps of any size."""
    mean = averaged(network(5.0))
    for images in cuts:
        average(mean, network(1.0), images, 1000)
    torch.testing.assert_close(weights(mean), torch.full_like(weights(mean), 3.0), rtol=1e-13, atol=0)


def test_the_average_converges_to_a_g_that_stays():
    net, mean = network(1.0), averaged(network(9.0))
    for _ in range(60):
        average(mean, net, 1000, 1000)
    assert torch.equal(weights(mean), weights(net))


def test_half_life_zero_copies_and_no_images_change_nothing():
    net, mean = network(1 / 3), averaged(network(7.7))
    before = weights(mean).clone()
    average(mean, net, 0, 1000)
    assert torch.equal(weights(mean), before)
    average(mean, net, 64, 0)
    assert torch.equal(weights(mean), weights(net))


def test_buffers_are_copied():
    net, mean = network(4.0), averaged(network(0.0))
    average(mean, net, 1, 1e9)
    assert (mean[1].running_mean == 40.0).all()
    assert mean[1].num_batches_tracked == 4
    assert mean[1].num_batches_tracked.dtype == torch.int64
