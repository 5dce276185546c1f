r"""The judge of handwritten digits: a small classifier of our own, whose weights are part of the package.

    x -> conv 5 (24) -> pool 2 -> conv 3 (48) -> conv 3 (64) -> pool 2 -> conv 3 (64) -> linear: phi(x) in R^64
      -> rectifier -> linear: logits of the classes 0 to 9

All convolutions keep the size and end in a rectifier.  ``scripts/train_judge.py`` trained it on MNIST's 60,000
training images, folded its batch norms into the weights, and scaled phi to a mean variance of 1 over them; no generator
is ever trained by it.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

__all__ = ["CLASSES", "SHA256", "WEIGHTS", "DigitsNet", "network"]

WEIGHTS = Path(__file__).with_name("digits.safetensors")
SHA256 = "6e4e3b18bd1dc5fc56ab955b07ca61f8f8ee8b275dae5ff47fe2b9580223c9bf"
CLASSES = 10


class DigitsNet(nn.Module):
    """Classifier of images 1 x 28 x 28 in [-1, 1].

    Arguments:
        norm: Whether there is a batch norm behind every convolution, as in training; see :meth:`folded`.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()

        def conv(before: int, after: int, kernel: int) -> list[nn.Module]:
            layers: list[nn.Module] = [nn.Conv2d(before, after, kernel, padding=kernel // 2)]
            return [*layers, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]

        self.body = nn.Sequential(
            *conv(1, 24, 5),  # (B, 24, 28, 28)
            nn.MaxPool2d(2),
            *conv(24, 48, 3),  # (B, 48, 14, 14)
            *conv(48, 64, 3),  # (B, 64, 14, 14)
            nn.MaxPool2d(2),
            *conv(64, 64, 3),  # (B, 64, 7, 7)
            nn.Flatten(),
        )
        self.embed = nn.Linear(64 * 49, 64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, (B, 64), and the logits, (B, 10)."""
        features = self.embed(self.body(x))
        return features, self.head(features.relu())

    def folded(self) -> DigitsNet:
        """Return the same function, as in evaluation mode, without its batch norms."""
        plain = DigitsNet()
        target = iter([each for each in plain.body if isinstance(each, nn.Conv2d)])
        for conv, norm in pairwise(self.body):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                folded = torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval())
                next(target).load_state_dict(folded.state_dict())
        plain.embed.load_state_dict(self.embed.state_dict())
        plain.head.load_state_dict(self.head.state_dict())
        return plain.eval()


def network() -> DigitsNet:
    """Return the trained classifier, on the CPU, in evaluation mode.

    Raises:
        ValueError: If the file of weights is not the one of this version.
    """
    found = WEIGHTS.read_bytes()
    if hashlib.sha256(found).hexdigest() != SHA256:
        raise ValueError(f"{WEIGHTS} is not the file of this version (SHA-256 {SHA256}): install organza again")
    made = DigitsNet()
    made.load_state_dict(load(found))  # kept in half precision, computed in single
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.8 times as fast on a CPU
    return made.eval().requires_grad_(False)
