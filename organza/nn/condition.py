r"""The condition y in a network: labels, sets of labels and plain numbers alike enter as one vector e(y).

For K classes :math:`e(y) \in R^K` is the y-th unit vector, and 0 for the label -1, unlabelled; a vector y (several
labels as 0 and 1, or numbers) is its own e(y).  A learnt embedding of y is then a linear map of e(y), and that of
several labels the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from organza.nn.bilinear import Linear
from organza.nn.layers import one_of
from organza.nn.mask import rectify
from organza.round import Verdict

__all__ = ["ConditionalBatchNorm2d", "Head", "beside", "planes", "vector"]

CONDITIONS = ("concat", "projection", "auxiliary", "one-more")


def vector(y: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """Return e(y), (B, classes), in the type of ``like``.

    Arguments:
        y: Labels, (B,), from 0 to classes - 1 or -1, or vectors, (B, classes).
        classes: K.
        like: A tensor of the type wanted.

    Raises:
        ValueError: If y is missing or of another shape.
    """
    if y is None:
        raise ValueError("this network is conditional: it needs a label or condition y for each example")
    if y.ndim == 1 and not y.is_floating_point():
        return one_hot(y + 1, classes + 1)[:, 1:].to(like.dtype)
    if y.shape[1:] != (classes,):
        raise ValueError(
            f"conditions y of shape {tuple(y.shape)}: this network takes labels, or {classes} numbers each"
        )
    return y.to(like.dtype)


def beside(x: Tensor, y: Tensor | None, classes: int) -> Tensor:
    """Return x, (B, d), with e(y) beside it, (B, d + classes); x alone where there are no classes."""
    return torch.cat([x, vector(y, classes, x)], 1) if classes else x


def planes(x: Tensor, y: Tensor | None, classes: int) -> Tensor:
    """Return x, (B, C, H, W), with e(y) as constant planes, (B, C + classes, H, W); x alone without classes."""
    if not classes:
        return x
    e = vector(y, classes, x)[:, :, None, None]  # (B, K, 1, 1)
    return torch.cat([x, e.expand(-1, -1, *x.shape[2:])], 1)


class ConditionalBatchNorm2d(nn.Module):
    r"""Batch norm whose scale and shift depend on y: :math:`(1 + W_g e(y)) \hat h + W_b e(y)`, both W zero at first.

    References:
        A Learned Representation for Artistic Style (Dumoulin, Shlens, Kudlur, 2017)
        Modulating early visual processing by language (de Vries et al., 2017)

    Arguments:
        channels: The channels of h.
        classes: K.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.classes = classes
        self.embed = nn.Parameter(torch.zeros(classes, 2 * channels))

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        scale, shift = (vector(y, self.classes, h) @ self.embed)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1)
        h = self.norm(h)
        return torch.addcmul(h + shift, h, scale)  # (B, C, H, W)


class Head(nn.Module):
    r"""The end of a discriminator: from features h, (B, F), and the condition y to what D says of them.

    The logit is :math:`\psi(h) = \langle b, h \rangle + a`, and with K = ``classes`` above 0, by ``condition``:

    - "concat": :math:`\psi(h)`; y has entered beside x (Mirza and Osindero, 2014);
    - "projection": :math:`\psi(h) + \langle W e(y) + c, h \rangle`, c no more than another b;
    - "auxiliary": :math:`\psi(h)`, and K logits of classes as the head "classes" (AC-GAN);
    - "one-more": K logits :math:`l` of classes, and one of "fake" which is 0: D's logit is
      :math:`\log \sum_k e^{l_k}`, so that :math:`D(x) = \sum_k e^{l_k} / (\sum_k e^{l_k} + 1)` (semi-supervised).

    With ``codes`` a hidden layer of 128 units reads the codes of InfoGAN from h, as the head "codes".  With
    ``components`` another tells those of a mixture apart, as the head "components", whose gradient stops at h: D sees
    what it would without.  Where there are heads, h itself is the head "features".

    References:
        cGANs with Projection Discriminator (Miyato and Koyama, 2018)
        Conditional Image Synthesis with Auxiliary Classifier GANs (Odena, Olah, Shlens, 2017)
        Improved Techniques for Training GANs (Salimans et al., 2016), section 5
        InfoGAN (Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel, 2016)

    Arguments:
        features: F.
        classes: K, 0 for none.
        condition: How y enters, if there are classes.
        codes: The numbers of InfoGAN's codes, 0 for none.
        components: Those of a :class:`~organza.mixture.Mixture` to tell apart, 0 for none.
        linear: Makes a linear map from F numbers to others.

    Raises:
        ValueError: If the condition is unknown.
    """

    def __init__(
        self,
        features: int,
        classes: int = 0,
        condition: str = "concat",
        codes: int = 0,
        components: int = 0,
        linear: Callable[[int, int], nn.Module] = Linear,
    ) -> None:
        super().__init__()
        one_of("condition", condition, CONDITIONS)
        self.classes, self.condition = classes, condition if classes else "concat"
        self.logit = linear(features, 1) if self.condition != "one-more" else None
        self.embed = linear(classes, features) if self.condition == "projection" else None
        self.label = linear(features, classes) if self.condition in ("auxiliary", "one-more") else None
        self.codes, self.components = (
            nn.ModuleList((linear(features, 128), linear(128, n))) if n else None for n in (codes, components)
        )

    def forward(self, h: Tensor, y: Tensor | None = None) -> Tensor | Verdict:
        heads: dict[str, Tensor] = {}
        if self.label is not None:
            heads["classes"] = self.label(h)  # (B, K)
        if self.codes is not None:
            heads["codes"] = _read(self.codes, h)  # (B, codes)
        if self.components is not None:
            heads["components"] = _read(self.components, h.detach())  # (B, components)
        logits: Tensor = heads["classes"].logsumexp(1) if self.logit is None else self.logit(h).squeeze(1)  # (B,)
        if self.embed is not None:
            logits = logits + (self.embed(vector(y, self.classes, h)) * h).sum(1)
        return Verdict(logits, {**heads, "features": h}) if heads else logits


def _read(layers: nn.ModuleList, h: Tensor) -> Tensor:
    """What two layers say of h, (B, F)."""
    said: Tensor = layers[1](rectify(layers[0](h), 0.2))
    return said
