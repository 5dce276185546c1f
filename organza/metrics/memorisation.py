r"""Does G copy its training images?  Fakes and held-out images are asked how close they lie to the training set.

Let d_1 <= d_2 <= ... be the distances from an example to its nearest training examples.  A small d_1 alone says
little: blurry images are close to everything.  But where the training examples lie evenly, about an intrinsic
dimension m, the i log(d_{i+1} / d_i) are independent and exponential, with mean 1/m (Rényi).  So the closeness

.. math:: s = \hat m \log(d_2 / d_1), \qquad 1 / \hat m = \frac{1}{k - 2} \sum_{i=2}^{k-1} i \log(d_{i+1} / d_i)

has the law F(2, 2 (k - 2)) whatever the density and the dimension, be it among 1s, among 8s or among blurs, and is
large for a copy.  (The plain ratio d_1 / d_k is smaller the lower the dimension: a G that had collapsed to 1s would
seem to copy.)  No further use is made of that law: fakes and held-out examples are pooled, and the number of fakes
among the closest is compared with chance, the hypergeometric law.  Examples with the same nearest training example,
their twin, count once, lest the many samples of one mode pass for as many independent witnesses.

For images, d is the least over shifts of the example by some pixels.  The neighbours and their shifts are searched
for among the 64 leading principal components, where no distance is larger than it is: so a near copy is found, while a
slightly farther example may pass for a neighbour, of fakes and held-out examples alike (of MNIST's test images, 97 %
get their nearest).  The distances are then taken in full, in float32.

What it cannot see: copies beyond these shifts (mirrored, recoloured, parts), and copies of a training image that has
other near-copies in the training set (equal ones are removed).
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from organza.metrics.features import matrix, signed
from organza.metrics.neighbours import products

__all__ = ["Memorisation", "memorisation"]

LEVEL = 0.001  # p-value below which the verdict is "memorised"
LEAST_TAIL = 10  # that count as the closest, at least: 10 of 10 have p < 0.001
EDGE = 0.01  # share of held-out examples beyond the closeness that copies, where they are counted, must exceed
LEAST = 200  # examples of each side for a verdict
SUSPECTS = 16
COMPONENTS = 64  # principal components
CANDIDATES = 64  # nearest in these
SAMPLE = 1024  # training examples that these are computed from
TILE = 4096  # training examples at a time
BLOCK = 2**22  # numbers in a block


class Memorisation(NamedTuple):
    """What was found.

    Arguments:
        verdict: "memorised" if the p-value is below 0.001, else "no sign of it"; "too few to tell" if there are
            below 200 fakes or held-out examples, or if no outcome could have had such a p-value.
        p_value: Of as many fakes, or more, among the closest if fakes are as close as held-out examples.
        share: Estimate of the share of fakes that are copies, in [0, 1].
        fake_distance: Median distance from a fake to its nearest training example.
        held_out_distance: The same of held-out examples.
        suspects: Which fakes are closest, the closest first, (at most 16,).
        twins: Their nearest training examples.
        n_fake: How many fakes were looked at.
        n_held_out: How many held-out examples were looked at.
        n_train: With how many different training examples they were compared.
        notes: What else there is to say: subsets, duplicates.
    """

    verdict: Literal["memorised", "no sign of it", "too few to tell"]
    p_value: float
    share: float
    fake_distance: float
    held_out_distance: float
    suspects: Tensor
    twins: Tensor
    n_fake: int
    n_held_out: int
    n_train: int
    notes: tuple[str, ...] = ()


@torch.no_grad()
def memorisation(
    fake: Tensor,
    train: Tensor,
    held_out: Tensor,
    shifts: int = 1,
    k: int = 20,
    most: int = 2000,
    most_train: int = 60_000,
    seed: int = 0,
) -> Memorisation:
    """Test whether fakes lie closer to training examples than held-out examples do.

    Arguments:
        fake: Fakes: images (N, C, H, W) in bytes or [-1, 1], or vectors (N, d).
        train: What G was trained on, of the same shape.
        held_out: Real examples that it was not trained on, of the same shape.
        shifts: By how many pixels an image may be shifted, in both directions; its edges are repeated.
        k: Neighbours looked at, 3 or more.
        most: Fakes, and held-out examples, beyond which a random subset is looked at.
        most_train: Training examples beyond which a random subset is looked at; copies of others are then not seen.
        seed: Of the subsets.

    Raises:
        ValueError: If these are no such examples, of one shape, or fewer than k different training examples.

    References:
        Extracting Training Data from Diffusion Models (Carlini et al., 2023), who compare d_1 with the next distances
        Maximum Likelihood Estimation of Intrinsic Dimension (Levina and Bickel, 2004)
    """
    sets = {"fake": fake, "train": train, "held_out": held_out}
    if len({x.shape[1:] for x in sets.values()}) > 1:
        raise ValueError(f"got {', '.join(f'{what} {tuple(x.shape)}' for what, x in sets.items())}: shapes must agree")
    if k < 3 or shifts < 0:
        raise ValueError(f"k={k}, shifts={shifts}: k must be 3 or more, shifts 0 or more")
    generator, notes, index = torch.Generator().manual_seed(seed), [], []
    for (what, x), size in zip(sets.items(), (most, most_train, most), strict=True):
        _check(x, what)
        rows = torch.arange(len(x))
        if len(x) > size:
            rows = torch.randperm(len(x), generator=generator)[:size].sort().values
            notes.append(f"{what}: {size} of {len(x)}, a random subset (seed {seed})")
        index.append(rows)
    fake, train, held_out = (_take(x.cpu(), rows) for x, rows in zip(sets.values(), index, strict=True))
    different = _different(train)
    if len(different) < len(train):
        notes.append(f"train: {len(train) - len(different)} of {len(train)} equal earlier ones and were left out")
    if len(different) < k:
        raise ValueError(f"got {len(different)} different training examples; at least k={k} are needed")
    train, of_train, n = _take(train, different), index[1][different], len(fake)

    x, shifts = torch.cat([signed(fake), signed(held_out)]), shifts if fake.ndim == 4 else 0
    distances, near = _nearest(x, train, shifts, k, generator)
    s, twin = closeness(distances), near[:, 0]
    a, b = _once(twin[:n]), n + _once(twin[n:])
    if len(a) < n / 2:
        notes.append(f"fake: the {n} have only {len(a)} different nearest training examples, and count as so many")
    p_value, least = _chance(s[a], s[b])
    few = min(n, len(held_out)) < LEAST or least >= LEVEL
    edge = s[n:].sort(descending=True).values[int(EDGE * len(held_out))]
    found, by_chance = (float((each > edge).double().mean()) for each in (s[:n], s[n:]))
    suspects = s[:n].argsort(descending=True, stable=True)[:SUSPECTS]
    return Memorisation(
        "too few to tell" if few else "memorised" if p_value < LEVEL else "no sign of it",
        p_value,
        max(0.0, (found - by_chance) / (1 - by_chance)),
        float(distances[:n, 0].median()),
        float(distances[n:, 0].median()),
        index[0][suspects],
        of_train[twin[suspects]],
        n,
        len(held_out),
        len(train),
        tuple(notes),
    )


def closeness(distances: Tensor) -> Tensor:
    """Return s of the ascending distances to the k nearest, (n, k): (n,), infinite where d_1 = 0."""
    d = distances.double()
    spread = ((d[:, 2:] / d[:, 1:-1]).log() * torch.arange(2, d.shape[1])).mean(1)  # 1 / m
    s = ((d[:, 1] / d[:, 0]).log() / spread).nan_to_num(0.0, posinf=torch.inf)  # 0 where all distances are equal
    return s.where(d[:, 0] > 0, torch.inf)


def _once(twin: Tensor) -> Tensor:
    """Which are the first with their twin."""
    return torch.tensor(list({t: i for i, t in reversed([*enumerate(twin.tolist())])}.values()))


def _chance(fake: Tensor, held_out: Tensor) -> tuple[float, float]:
    """The p-value of the number of fakes among the closest, and the least that it could have been."""
    n, pool = len(fake), torch.cat([fake, held_out])

    def at_least(count: int, tail: int) -> float:
        ways = sum(math.comb(n, i) * math.comb(len(held_out), tail - i) for i in range(count, min(tail, n) + 1))
        return ways / math.comb(len(pool), tail)

    # How many count as the closest is a compromise: fewer show a smaller share of copies, but then one odd held-out
    # example among them spoils it.  There are enough for a verdict, if need be and if possible.
    tail = min(len(pool), max(LEAST_TAIL, round(0.4 * len(pool) ** 0.5)))
    while tail < n and at_least(tail, tail) >= LEVEL:
        tail += 1
    edge = pool.sort(descending=True).values[tail - 1]
    tail = int((pool >= edge).sum())  # more where several are equally close
    return at_least(int((fake >= edge).sum()), tail), at_least(min(tail, n), tail)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    return x if len(rows) == len(x) else x[rows]


def _check(x: Tensor, what: str) -> None:
    if x.ndim == 2:
        matrix(x, what, 1)
    elif x.ndim != 4 or not len(x) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"{what}: got {tuple(x.shape)} of {x.dtype}; images (N, C, H, W) or vectors (N, d) are needed")
    elif x.is_floating_point() and not float(x.abs().max()) <= 2:
        raise ValueError(
            f"{what}: got images with values up to {float(x.abs().max()):g}; they are in [-1, 1], or bytes"
        )


def _different(x: Tensor) -> Tensor:
    """The index of the first of each set of equal examples, ascending."""
    seen: dict[bytes, int] = {}
    for i, row in enumerate(x.flatten(1).contiguous().view(torch.uint8).numpy()):
        seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), i)
    return torch.tensor(list(seen.values()))


def _shifted(x: Tensor, shifts: int) -> Tensor:
    """x, (n, ...), shifted by up to ``shifts`` pixels, (n, (2 shifts + 1)^2, d)."""
    if not shifts:
        return x.flatten(1)[:, None]
    (h, w), wide = x.shape[2:], functional.pad(x, (shifts,) * 4, mode="replicate")
    steps = range(2 * shifts + 1)
    return torch.stack([wide[:, :, i : i + h, j : j + w].flatten(1) for i in steps for j in steps], 1)


def _axes(train: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The mean of a sample, (d,), and its leading principal axes, orthonormal, (d, p)."""
    some = signed(train[torch.randperm(len(train), generator=generator)[:SAMPLE]]).flatten(1)  # (n, d)
    centre = some.mean(0)
    some = some - centre
    leading = torch.linalg.eigh(some @ some.T).eigenvectors[:, -COMPONENTS:]  # (n, p)
    return centre, torch.linalg.qr(some.T @ leading).Q


def _nearest(x: Tensor, train: Tensor, shifts: int, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The distances from each x, shifted, to the k nearest training examples, ascending, and which these are."""
    d, count, kinds = x[0].numel(), min(len(train), max(CANDIDATES, 2 * k)), (2 * shifts + 1) ** 2
    centre, axes = _axes(train, generator)
    e = torch.cat([(signed(part).flatten(1) - centre) @ axes for part in train.split(max(1, BLOCK // d))])  # (M, p)
    norms, e = e.square().sum(1), functional.pad(e, (0, 1), value=1.0)
    found = []
    for part in x.split(min(128, max(1, BLOCK // (d * max(count, kinds))))):
        moved = _shifted(part, shifts)  # (n, kinds, d)
        z = (moved - centre) @ axes
        z = torch.cat([-2 * z, z.square().sum(2, keepdim=True)], 2)  # its product with (e, 1) is |z - e|^2 - |e|^2
        best, index = e.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64)
        for start in range(0, len(train), TILE):
            stop = min(start + TILE, len(train))
            tile = products(z.flatten(0, 1), e[start:stop]).unflatten(0, z.shape[:2]).amin(1) + norms[start:stop]
            best = torch.cat([best, tile], 1)
            index = torch.cat([index, torch.arange(start, stop).expand(len(part), -1)], 1)
            best, order = best.topk(min(count, best.shape[1]), largest=False, sorted=False)
            index = index.gather(1, order)
        nearest = (z @ e[index].transpose(1, 2)).argmin(1)  # which shift, (n, count)
        moved = moved.gather(1, nearest[..., None].expand(-1, -1, d))  # (n, count, d)
        distances, order = (moved - signed(train[index]).flatten(2)).norm(dim=2).topk(k, largest=False)
        found.append((distances, index.gather(1, order)))
    return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])
