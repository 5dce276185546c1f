r"""A trained generator: what is left of the game when it is over.

A :class:`Model` is G (its moving average) with its prior; it turns a seed into samples, the same each time, walks
from sample to sample, finds the z of a given picture, and is kept in a folder that can be passed on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from organza import pretrained
from organza.device import pick_device, seed_networks, undisturbed
from organza.nearest import nearest
from organza.prior import Prior, path
from organza.round import key
from organza.values import AS_THEY_ARE, Values, signed

__all__ = ["Model", "nearest", "path"]


class Model:
    """A generator that samples.

    Arguments:
        generator: G(z), or G(z, y) if ``conditional``.
        prior: The law of z.
        conditional: Whether G takes the condition y.
        run: The folder of the run it comes from, if any.
        config: What it was made of, as JSON: the parts ``generator`` and ``prior``, by which
            :meth:`from_pretrained` makes it again, and facts of its run.
        values: How what G makes becomes numbers like those of the data; None if that is not known.
    """

    def __init__(
        self,
        generator: nn.Module,
        prior: Prior,
        conditional: bool = False,
        run: Path | None = None,
        config: Mapping[str, Any] | None = None,
        values: Values | None = None,
    ) -> None:
        self.generator = generator
        self.prior = prior
        self.conditional = conditional
        self.run = run
        self.config = config
        self.values = values

    @property
    def device(self) -> torch.device:
        """Where the generator's weights are."""
        tensors = chain(self.generator.parameters(), self.generator.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def sample(
        self,
        n: int = 64,
        seed: int = 0,
        y: Tensor | None = None,
        batch: int = 256,
        truncation: float | None = None,
    ) -> Tensor:
        """Return n samples, (n, ...), images in [-1, 1]; the same for the same seed.

        Arguments:
            n: How many, at least 1.
            seed: The seed of z.
            y: The condition of each sample, (n, ...), if the model is conditional; images as bytes or in [-1, 1].
            batch: How many to generate at once.
            truncation: How far z may lie from the middle of its law, see :meth:`Prior.truncate
                <organza.prior.Prior.truncate>`: the same samples, better and less different; none by default.

        Raises:
            ValueError: If n is below 1, y is missing or of another length, or the prior has no such truncation.
        """
        if n < 1:
            raise ValueError(f"sample(n={n}): at least 1 sample must be asked for")
        return self.generate(self._draw(n, seed, truncation), y, batch, seed)

    def across(self, y: Tensor, n: int = 8, seed: int = 0, batch: int = 256, truncation: float | None = None) -> Tensor:
        """Return the same n z under each of some conditions, (k, n, ...): what stays is the style of a z.

        Arguments:
            y: The conditions, (k, ...).
            n: How many z, at least 1.
            seed, batch, truncation: As of :meth:`sample`.

        Raises:
            ValueError: If n is below 1, the model takes no conditions, or the prior has no such truncation.
        """
        if n < 1 or not self.conditional:
            raise ValueError(f"across(n={n}): n must be 1 or more, and the model conditional")
        z = self._draw(n, seed, truncation)
        x: Tensor = self.generate(z.repeat(len(y), 1), y.repeat_interleave(n, 0), batch, seed).unflatten(0, (len(y), n))
        return x

    def traverse(self, code: int, n: int = 8, steps: int = 10, seed: int = 0, batch: int = 256) -> Tensor:
        """Return n samples, each with one code of InfoGAN led through its values and all else kept, (n, steps, ...).

        Arguments:
            code: Which code, from 0, see :meth:`Codes.traverse <organza.prior.Codes.traverse>`.
            n: How many z, at least 1.
            steps: The values of a continuous code; a categorical one goes through its categories.
            seed, batch: As of :meth:`sample`.

        Raises:
            ValueError: If the prior has no such code, or the model is conditional.
        """
        z = self.prior.traverse(self._draw(n, seed), code, steps)  # (n, steps, dim)
        x: Tensor = self.generate(z.flatten(0, 1), None, batch, seed).unflatten(0, z.shape[:2])
        return x

    def translate(self, y: Tensor, seed: int = 0, back: bool = False, noise: bool = False) -> Tensor:
        """Return the image that G makes of each, (n, C, H, W) in [-1, 1], if it goes from image to image.

        Arguments:
            y: Images, (n, C', H, W), as bytes or in [-1, 1], of any height and width that G takes.
            seed: Of z and of ``noise``.
            back: The other direction of a G that has two.
            noise: Keep dropout on and take batch norm's statistics from these images, as pix2pix does.

        Raises:
            ValueError: If G does not go from image to image, or not in two directions, or y has other channels.
        """
        ways, condition = (getattr(self.generator, name, None) for name in ("directions", "condition"))
        if not self.conditional or condition is None or (back and ways is None):
            lacks = "goes in one direction only" if condition else "makes images of noise, not of images: sample it"
            raise ValueError(f"this model {lacks}")
        if y.ndim != 4 or y.shape[1] != condition[0]:
            raise ValueError(f"images of shape {tuple(y.shape[1:])}: this model takes {condition[0]} channels")
        y = y if ways is None else torch.cat([y, y], 1)
        x = self.generate(self._draw(len(y), seed), y, 16, seed, noise)
        return x if ways is None else x.chunk(2, 1)[0 if back else 1]  # of (G_A(y), G_B(y)); G_B leads from A to B

    @torch.no_grad()
    def generate(
        self, z: Tensor, y: Tensor | None = None, batch: int = 256, seed: int = 0, noise: bool = False
    ) -> Tensor:
        """Return G(z) in evaluation mode, (n, ...), images in [-1, 1].

        Arguments:
            z: Noise, (n, dim).
            y: The condition of each, (n, ...), if the model is conditional.
            batch: How many to generate at once.
            seed: Of layers that add noise whenever they are called.
            noise: Training mode instead: with dropout and the batch's own statistics, which G does not keep.

        Raises:
            ValueError: If the model is conditional and y is missing or of another length.
        """
        y = self._conditions(y, len(z))
        with self._at_rest(noise):
            seed_networks(key(seed, "networks"), self.device)
            parts = z.to(self.device).split(batch)
            if y is None:
                return torch.cat([self.generator(part) for part in parts])
            return torch.cat([self.generator(*pair) for pair in zip(parts, y.split(batch), strict=True)])

    def restore(self, x: Tensor) -> Tensor:
        """Return samples as numbers like those of the data the model was trained on, in their type and range.

        Where that data is not known, images become bytes, and all else stays as it is.

        Arguments:
            x: What :meth:`sample`, :meth:`generate` or :meth:`interpolate` made, (n, ...).
        """
        values = self.values or (Values.integers("uint8") if x.ndim >= 4 else AS_THEY_ARE)
        return values.restore(x)

    def interpolate(
        self,
        n: int = 8,
        steps: int = 8,
        seed: int = 0,
        kind: str | None = None,
        y: Tensor | None = None,
        batch: int = 256,
    ) -> Tensor:
        """Return the ways between n pairs of samples, (n, steps, ...); both ends are samples.

        Arguments:
            n: How many pairs of independent z, at least 1.
            steps: The samples of each way, its two ends among them; at least 2.
            kind: "spherical" or "linear", see :func:`path`; spherical by default if the prior is.
            y: The condition of each pair, (n, ...), if the model is conditional.
            seed, batch: As of :meth:`sample`.

        Raises:
            ValueError: If n is below 1, steps below 2, the kind unknown, or y missing or of another length.
        """
        if n < 1:
            raise ValueError(f"interpolate(n={n}): at least 1 pair must be asked for")
        y = self._conditions(y, n)
        z = self._draw(2 * n, seed)
        kind = kind or ("spherical" if self.prior.spherical else "linear")
        z = path(z[::2], z[1::2], steps, kind).flatten(0, 1)  # (n steps, dim)
        x: Tensor = self.generate(z, None if y is None else y.repeat_interleave(steps, 0), batch, seed)
        x = x.unflatten(0, (n, steps))  # (n steps, ...) -> (n, steps, ...)
        return x

    def invert(
        self,
        x: Tensor,
        steps: int = 300,
        lr: float = 0.05,
        restarts: int = 4,
        seed: int = 0,
        y: Tensor | None = None,
        batch: int = 64,
    ) -> tuple[Tensor, Tensor]:
        r"""Return the z whose G(z) is closest to each given image, and the distance: what G can show of it.

        .. math:: \min_z \|G(z) - x\|^2

        by Adam from several draws of the prior, the best point on the way being kept.  After each step z is moved
        back to where the prior can draw it (:meth:`Prior.project <organza.prior.Prior.project>`): further out, G
        was never trained, and that it can be bent to an image there says nothing.

        Arguments:
            x: Images, (n, ...) in [-1, 1].
            steps: The steps of Adam from each start.
            lr: The length of a step in each coordinate; it falls to 0 along half a cosine.
            restarts: How many starts for each image, at least 1.
            seed: The seed of the starts.
            y: The condition of each image, (n, ...), if the model is conditional.
            batch: How many images to look for at once.

        Returns:
            z, (n, dim), and the Euclidean distance of G(z) from x, (n,), comparable with :func:`nearest`.

        Raises:
            ValueError: If restarts is below 1, steps below 0, or x or y do not fit.
        """
        if len(x) < 1 or restarts < 1 or steps < 0:
            asked = f"{len(x)} images, steps={steps}, restarts={restarts}"
            raise ValueError(f"invert: {asked}; at least 1 image, 0 steps and 1 restart are needed")
        y = self._conditions(y, len(x))
        starts = self._draw(len(x) * restarts, seed)  # (n restarts, dim)
        best, distances = [], []
        for begin in range(0, len(x), batch):
            rows, several = slice(begin, begin + batch), slice(begin * restarts, (begin + batch) * restarts)
            target = signed(x[rows].to(self.device)).repeat_interleave(restarts, 0)  # (b restarts, ...)
            given = () if y is None else (y[rows].repeat_interleave(restarts, 0),)
            z, errors = self._descend(starts[several], given, target, steps, lr, seed)
            least, winner = errors.unflatten(0, (-1, restarts)).min(1)  # (b,)
            best.append(z.unflatten(0, (-1, restarts))[torch.arange(len(least), device=z.device), winner])  # (b, dim)
            distances.append((least * x[0].numel()).sqrt())
        return torch.cat(best), torch.cat(distances)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write config.json, model.safetensors and a model card, README.md, and return the folder.

        Arguments:
            folder: Where to; made if missing, and replaced if it is such a folder already.

        Raises:
            ValueError: If something else is there.
        """
        facts = {"conditional": self.conditional, "parameters": sum(p.numel() for p in self.generator.parameters())}
        config = {"generator": None, "prior": None, **(self.config or {}), **facts}
        if self.values is not None:
            config["values"] = self.values.json()
        weights = dict(self.generator.state_dict())
        if config["prior"] is None and isinstance(self.prior, nn.Module):  # what it has learnt no config says
            weights |= {f"prior/{name}": value for name, value in self.prior.state_dict().items()}
        return pretrained.write(folder, config, weights)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        generator: nn.Module | None = None,
        prior: Prior | None = None,
        device: str = "auto",
    ) -> Model:
        """Return the model in a folder that :meth:`save_pretrained` wrote.

        Arguments:
            folder: The folder.
            generator: G itself, if it was a program's own, which no config can make again.
            prior: Its prior, likewise.
            device: "auto", "cpu", "cuda" or "mps".

        Raises:
            ValueError: If there is no such folder, a file of it is damaged, or G cannot be made or does not fit.
        """
        where = pick_device(device)
        config, weights = pretrained.read(folder)
        with undisturbed(torch.device("cpu")):  # the making of a network draws its first weights
            made = generator is None
            generator = generator or pretrained.generator(folder, config)
            prior = prior or pretrained.prior(folder, config)
            if made and not config.get("conditional"):
                pretrained.agree(folder, generator, prior)
        learnt = {name: weights.pop(name) for name in [*weights] if name.startswith("prior/")}
        if learnt and isinstance(prior, nn.Module):
            pretrained.fill(prior, {name.removeprefix("prior/"): w for name, w in learnt.items()}, str(folder))
        pretrained.fill(generator, weights, str(folder), assign=True)  # in the type they were saved in, to the last bit
        try:
            values = Values.read(config.get("values"))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        return cls(generator.to(where).eval(), prior, bool(config.get("conditional")), None, config, values)

    def _draw(self, n: int, seed: int, truncation: float | None = None) -> Tensor:
        z = self.prior.draw(n, torch.Generator(self.device).manual_seed(seed))
        return z if truncation is None else self.prior.truncate(z, truncation)

    def _conditions(self, y: Tensor | None, n: int) -> Tensor | None:
        """The n conditions where G is; None if it takes none."""
        if not self.conditional:
            return None
        if y is None or len(y) != n:
            got = "none" if y is None else str(len(y))
            raise ValueError(f"this model is conditional: it needs {n} conditions y, got {got}")
        shape = getattr(self.generator, "condition", None)
        if isinstance(shape, list | tuple) and len(shape) == 3:  # a program's own G may call anything so
            channels = shape[0] * (1 + hasattr(self.generator, "directions"))
            if y.ndim != 4 or y.shape[1] != channels:
                given = tuple(y.shape[1:])
                raise ValueError(f"conditions of shape {given}: this model takes images of {channels} channels")
        labels = y.ndim == 1 and not y.is_floating_point() and len(y) > 0
        if labels and self.device.type != "cpu":  # whose kernels do not say it: CUDA's end the program
            sizes = [getattr(module, "classes", 0) for module in self.generator.modules()]
            known = max([size for size in sizes if isinstance(size, int)], default=0)
            if known and not -1 <= int(y.min()) <= int(y.max()) < known:
                raise IndexError(f"label {int(y.max())}: the model knows 0 to {known - 1}")
        y = y.to(self.device)
        return signed(y) if y.ndim > 1 or y.is_floating_point() else y.long()  # labels may be bytes too

    @contextmanager
    def _at_rest(self, noise: bool = False) -> Iterator[None]:
        """G in evaluation mode, or with noise; its mode and the caller's default generators come back after it."""
        modes = {module: module.training for module in self.generator.modules()}
        kept = {buffer: buffer.clone() for buffer in self.generator.buffers()} if noise else {}
        self.generator.train(noise)
        try:
            with undisturbed(self.device):
                yield
        finally:
            for module, training in modes.items():
                module.training = training
            for buffer, value in kept.items():
                buffer.copy_(value)

    def _descend(
        self, z: Tensor, given: tuple[Tensor, ...], target: Tensor, steps: int, lr: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The best z that Adam finds from each start, (n, dim), and its mean squared error of a pixel, (n,)."""
        z = z.clone().requires_grad_()
        adam = torch.optim.Adam([z], lr)
        best, least = z.detach().clone(), z.new_full((len(z),), math.inf)
        with self._at_rest(), torch.enable_grad():
            for step in range(steps + 1):
                seed_networks(key(seed, "networks"), self.device)  # the same noise in G at every step
                x = self.generator(z, *given)
                if x.shape != target.shape:
                    makes, got = tuple(x.shape[1:]), tuple(target.shape[1:])
                    raise ValueError(f"invert: the images are {got}, this model makes {makes}")
                errors = (x - target).square().flatten(1).mean(1)  # (n,)
                better = errors.detach() < least
                least[better], best[better] = errors.detach()[better].to(least), z.detach()[better]
                if step == steps:
                    break
                adam.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
                adam.zero_grad()
                errors.sum().backward(inputs=[z])  # a sum: no row changes the step of another
                adam.step()
                with torch.no_grad():
                    z.copy_(self.prior.project(z))
        return best, least
