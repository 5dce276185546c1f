"""The programs of ``throughput.py`` as people write them in plain PyTorch.  Frozen: they do not follow the package.

    python benchmarks/eager.py NAME THREADS DEVICE SIDE...    # of an image: channels, height, width

Reads seconds from the standard input, a line each, plays so long on noise, and prints the seconds of a step.

Two networks, two Adams (or SGDs) as PyTorch makes them, a shuffling DataLoader over floats in memory, ``zero_grad``,
D on real and on fake in two passes, ``backward`` through all parameters.  The rule about noise is each recipe's own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, conv_transpose2d, softplus
from torch.utils.data import DataLoader, TensorDataset

Step = Callable[[], None]


def batches(x: Tensor, size: int, device: str) -> Iterator[Tensor]:
    loader = DataLoader(TensorDataset(x), size, shuffle=True, drop_last=True)
    while True:
        for (batch,) in loader:
            yield batch.to(device)


def bce(logits: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def mlp(x: Tensor, device: str) -> Step:
    """The lecture's program: z shared by both steps, targets .9 and 0."""

    def block(a: int, b: int, drop: float = 0.0) -> list[nn.Module]:
        return [nn.Linear(a, b), nn.LeakyReLU(0.2), *([nn.Dropout(drop)] if drop else [])]

    pixels = x[0].numel()
    G = nn.Sequential(*block(100, 256), *block(256, 512), *block(512, 1024), nn.Linear(1024, pixels), nn.Tanh())
    hidden = (*block(pixels, 1024, 0.3), *block(1024, 512, 0.3), *block(512, 256, 0.3))
    D = nn.Sequential(*hidden, nn.Linear(256, 1))
    G, D = G.to(device), D.to(device)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), 1e-7) for net in (G, D))
    data = batches(x.flatten(1), 128, device)

    def step() -> None:
        real = next(data)
        fake = G(torch.randn(len(real), 100, device=device))
        opt_d.zero_grad()
        (0.5 * (bce(D(real), 0.9) + bce(D(fake.detach()), 0.0))).backward()
        opt_d.step()
        opt_g.zero_grad()
        bce(D(fake), 1.0).backward()
        opt_g.step()

    return step


class Maxout(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.linear, self.units = nn.Linear(a, 5 * b), b

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).view(len(x), 5, self.units).max(1).values


def goodfellow2014(x: Tensor, device: str) -> Step:
    """The code of 2014: both players' gradients from one pass, then both steps; momentum."""
    pixels = x[0].numel()
    G = nn.Sequential(
        nn.Linear(100, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, pixels), nn.Sigmoid()
    )
    D = nn.Sequential(
        *(nn.Dropout(0.2), Maxout(pixels, 240), nn.Dropout(0.5), Maxout(240, 240), nn.Dropout(0.5), nn.Linear(240, 1))
    )
    G, D = G.to(device), D.to(device)
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), 0.1, momentum=0.5) for net in (G, D))
    data = batches((x.flatten(1) + 1) / 2, 100, device)

    def step() -> None:
        real = next(data)
        fake = G((2 * torch.rand(len(real), 100, device=device) - 1) * 3**0.5)
        on_real, on_fake = D(real), D(fake)
        opt_d.zero_grad()
        opt_g.zero_grad()
        g_loss = bce(on_fake, 1.0)
        slopes = torch.autograd.grad(g_loss, list(G.parameters()), retain_graph=True)
        d_loss = 0.5 * (bce(on_real, 1.0) + bce(on_fake, 0.0))
        d_loss.backward(inputs=list(D.parameters()))
        for weight, slope in zip(G.parameters(), slopes, strict=True):
            weight.grad = slope
        opt_d.step()
        opt_g.step()

    return step


def dcgan(x: Tensor, device: str) -> Step:
    """DCGAN at 32 x 32: 256-128-64 maps, batch norm, batch 64, fresh noise for G."""
    channels = x.shape[1]
    G = nn.Sequential(
        *(nn.Linear(100, 256 * 16, bias=False), nn.Unflatten(1, (256, 4, 4)), nn.BatchNorm2d(256), nn.ReLU(True)),
        *(nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(True)),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)),
        *(nn.ConvTranspose2d(64, channels, 4, 2, 1), nn.Tanh()),
    )
    D = nn.Sequential(
        *(nn.Conv2d(channels, 64, 4, 2, 1), nn.LeakyReLU(0.2, True)),
        *(nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, True)),
        *(nn.Conv2d(128, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.LeakyReLU(0.2, True)),
        *(nn.Flatten(), nn.Linear(256 * 16, 1)),
    )
    G, D = G.to(device), D.to(device)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (G, D))
    data = batches(x, 64, device)

    def noise() -> Tensor:
        return 2 * torch.rand(64, 100, device=device) - 1

    def step() -> None:
        real = next(data)
        opt_d.zero_grad()
        (bce(D(real), 1.0) + bce(D(G(noise()).detach()), 0.0)).backward()
        opt_d.step()
        opt_g.zero_grad()
        bce(D(G(noise())), 1.0).backward()
        opt_g.step()

    return step


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.mix = nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width // 16)
        self.reduce = nn.Conv2d(2 * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.leaky_relu(self.expand(x), 0.2)
        return x + self.reduce(nn.functional.leaky_relu(self.mix(h), 0.2))


class Resample(nn.Module):
    """Twice or half the side by the filter [1, 2, 1]."""

    kernel: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        line = torch.tensor([0.5, 1.0, 0.5])
        self.register_buffer("kernel", torch.outer(line, line))
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        kernel = self.kernel.expand(c, 1, 3, 3)
        if self.up:
            return conv_transpose2d(x, kernel, stride=2, groups=c)[..., : 2 * x.shape[2], : 2 * x.shape[3]]
        return conv2d(x, kernel / 4, stride=2, padding=1, groups=c)


class Modulated(nn.Module):
    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.basis, self.linear = nn.Parameter(torch.randn(width, 4, 4)), nn.Linear(latent, width, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.basis * self.linear(z)[:, :, None, None]


def r3gan(x: Tensor, device: str) -> Step:
    """R3GAN's networks with maps of 64, 64, 32 and 16 channels at 32 x 32, RpGAN + R1 + R2, batch 64."""
    widths, channels, gamma = (64, 64, 32, 16), x.shape[1], 1.0

    def stage(width: int) -> list[nn.Module]:
        return [Block(width), Block(width)]

    up: list[nn.Module] = [Modulated(64, widths[0]), *stage(widths[0])]
    for a, b in pairwise(widths):
        up += [nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity(), Resample(True), *stage(b)]
    down: list[nn.Module] = [nn.Conv2d(channels, widths[-1], 1, bias=False), *stage(widths[-1])]
    for a, b in pairwise(widths[::-1]):
        down += [Resample(False), nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity(), *stage(b)]
    G = nn.Sequential(*up, nn.Conv2d(widths[-1], channels, 1, bias=False))
    end = nn.Conv2d(widths[0], widths[0], 4, groups=widths[0], bias=False)
    D = nn.Sequential(*down, end, nn.Flatten(), nn.Linear(widths[0], 1, bias=False))
    G, D = G.to(device), D.to(device)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.0, 0.9)) for net in (G, D))
    data = batches(x, 64, device)

    def slope(logits: Tensor, at: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(logits.sum(), at, create_graph=True)
        return g.square().sum((1, 2, 3)).mean()

    def step() -> None:
        real, fake = next(data).requires_grad_(), G(torch.randn(64, 64, device=device)).detach().requires_grad_()
        on_real, on_fake = D(real), D(fake)
        opt_d.zero_grad()
        penalty = slope(on_real, real) + slope(on_fake, fake)
        (softplus(on_fake - on_real).mean() + gamma / 2 * penalty).backward()
        opt_d.step()
        opt_g.zero_grad()
        softplus(D(next(data)) - D(G(torch.randn(64, 64, device=device)))).mean().backward()
        opt_g.step()

    return step


PROGRAMS: dict[str, Callable[[Tensor, str], Step]] = {
    "mlp": mlp,
    "goodfellow2014": goodfellow2014,
    "dcgan": dcgan,
    "r3gan-tiny": r3gan,
}


def pace(step: Step, seconds: float) -> float:
    """Seconds of a step: the mean over at least so many seconds."""
    step()
    begin, steps, ahead = settled(), 0, 1
    while (passed := settled() - begin) < seconds:
        for _ in range(ahead):
            step()
        steps += ahead
        ahead = 1 + round(0.1 * steps)  # a GPU is not waited for after each
    return passed / steps


def settled() -> float:
    """The time by the clock, when all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    name, threads, device, *sides = sys.argv[1:]
    torch.set_num_threads(int(threads))
    step = PROGRAMS[name](torch.rand(60_000, *map(int, sides)) * 2 - 1, device)
    for line in sys.stdin:
        print(pace(step, float(line)), flush=True)


if __name__ == "__main__":
    main()
