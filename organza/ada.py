r"""Adaptive discriminator augmentation: T changes each image by chance p, and p follows how sure D is of the data.

A transform that is applied with a probability p below 1 leaves the law of x to be told from the law of T(x), so that G
does not learn to draw augmented images, however strong T is.  What p must be depends on the data: D that knows its
examples by heart is right about nearly all of them, so

.. math:: r_t = E[\mathrm{sign}(D(T(x)))], \qquad
          p \leftarrow \mathrm{clip}\big(p + \mathrm{sign}(r_t - r^*)\, n / N,\ 0,\ p_{max}\big)

after each n images shown to D; N images take p from 0 to 1.

References:
    Training Generative Adversarial Networks with Limited Data (Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, 2020)

Legend: B = examples in a micro-batch, C = channels, H, W = height and width in pixels, u = uniform, v = normal chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from organza.round import Draw
from organza.schedule import at

__all__ = ["ADA"]

_GROUPS = {
    "blit": ("flip", "turn", "shift"),
    "geometric": ("scale", "rotate", "stretch", "move"),
    "color": ("brightness", "contrast", "luma", "hue", "saturation"),
    "cutout": ("cutout",),
}
_KNOWN = tuple(dict.fromkeys(name for group, names in _GROUPS.items() for name in (group, *names)))


class ADA(nn.Module):
    r"""Mirrors, moves, turns, warps and recolours each image, each by a chance p that adapts; all are affine in x.

    In this order, each of each image with probability p (N(s) is a normal number of mean 0 and deviation s):

    - blit: *flip*, left to right or not; *turn*, by 0 to 3 right angles (by 0 or 2 if H != W); *shift*, by whole
      pixels up to .125 of each side;
    - geometric: *scale* by :math:`2^{N(.2)}`; *rotate* by U(-pi, pi); *stretch* the width by :math:`2^{N(.2)}` and the
      height by its inverse; rotate again; *move* by N(.125) of each side.  A rotation has the chance
      :math:`1 - \sqrt{1 - p}`, so that an image is turned with probability p;
    - color: *brightness* + N(.2), *contrast* times :math:`2^{N(.5)}`, *luma* mirrored at the plane of no grey or not,
      *hue* turned by U(-pi, pi) about the grey axis (of 3 channels alone), *saturation* times :math:`2^{N(1)}`, for
      the grey axis :math:`(1, ..., 1) / \sqrt C`; not clamped to [-1, 1];
    - cutout: 0 in a box of half of each side around a centre that is uniform over the image.

    What lies outside is the image reflected at the middle of its outermost pixels.  The warp is antialiased: twice the
    pixels by the orthogonal lowpass of the sym6 wavelet, the mean of the four nearest weighted, and back by its
    adjoint.  An image that no transform was drawn for passes as it is, bit for bit.

    Left out are the paper's image-space filtering and noise, which were of little use there, as was cutout.  Its
    colours are of 3 channels, and of 1, where these are the same; of others they are ours.  A condition y is left as it
    is.  On CUDA the warp's backward pass adds in no fixed order, so that the last bits vary from run to run.

    p begins at 0 and adapts, unless it is given.  r_t is twice :math:`P(D(T(x)) > 0)` less 1, or of relativistic
    objectives, whose zero is no border, twice :math:`P(D(T(x)) > D(T(G(z))))` less 1.  The latter is as a rule the
    larger for the same D, since both sides are told apart at once: .6 is then stricter, and p higher.  Other objectives
    without a border (Wasserstein, energies) have no r_t, and the game refuses them unless p is given.

    References:
        Training Generative Adversarial Networks with Limited Data (Karras, Aittala, Hellsten, Laine, Lehtinen, Aila,
        2020), section 3 and appendix B

    Attributes:
        probability: p as it is now, a scalar in [0, 1]; ``discriminator/augment_p`` in the log.

    Arguments:
        policy: Groups ("blit", "geometric", "color", "cutout") or single transforms of them; none is the identity.
        p: A number or a function of the images shown to D, in [0, 1]; adaptive if None.
        target: The r_t to hold, in (0, 1): the paper's .6; .2 was better in short runs of small networks (docs/log.md).
        ramp: The images shown to D over which p may go from 0 to 1: the paper's 500,000, or 100,000 for short runs.
        every: The moves of D over which r_t is a mean, and after which p moves.
        most: What p adapts to at most, in (0, 1]; above .8 the paper saw transforms in samples.

    Raises:
        ValueError: If a name is unknown, a number out of its range, or x is not (B, C, H, W).
    """

    probability: Tensor
    images: Tensor
    moves: Tensor
    signs: Tensor

    def __init__(
        self,
        policy: Sequence[str] = ("blit", "geometric", "color"),
        p: float | Callable[[int], float] | None = None,
        target: float = 0.6,
        ramp: int = 500_000,
        every: int = 4,
        most: float = 0.8,
    ) -> None:
        super().__init__()
        if isinstance(policy, str):
            raise ValueError(f"ADA(policy={policy!r}): must be a list of names, as {policy.split(',')}")
        for name in policy:
            if name not in _KNOWN:
                close = get_close_matches(str(name), _KNOWN, 1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KNOWN)}"
                raise ValueError(f"ADA(policy={list(policy)}): unknown {name!r}; {hint}")
        if not 0 < target < 1 or not 0 < most <= 1:
            raise ValueError(f"ADA(target={target}, most={most}): must lie in (0, 1) and in (0, 1], e.g. 0.6 and 0.8")
        if ramp < 1 or every < 1:
            raise ValueError(f"ADA(ramp={ramp}, every={every}): both must be 1 or more")
        self.policy = tuple(policy)
        self.p, self.target, self.ramp, self.every, self.most = p, target, ramp, every, most
        self.register_buffer("probability", torch.tensor(self._given(0)))
        self.register_buffer("images", torch.zeros((), dtype=torch.long))  # shown to D
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))  # of D since p moved
        self.register_buffer("signs", torch.zeros(()))  # the sum of r_t over these
        self._total = 0  # examples of D's turn: known anew at each look

    def forward(self, x: Tensor, y: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the images x, (B, C, H, W), each transformed by its own chance, and y as it is."""
        if x.ndim != 4:
            raise ValueError(f"ADA: got x of shape {tuple(x.shape)}, needs images (B, C, H, W)")
        self._total = draw.total
        if self.probability.device.type == "cpu" and not self.probability:  # elsewhere, to ask is to wait
            return x, y
        seen = x.float() if x.dtype.itemsize < 4 else x  # coordinates and filters need more than half precision
        for group, change in zip(_GROUPS, (_blit, _geometric, _color, _cutout), strict=True):
            chosen = [group in self.policy or name in self.policy for name in _GROUPS[group]]
            if any(chosen):
                p = torch.stack([self.probability.to(seen) * each for each in chosen])
                seen = change(seen, p, draw)  # (B, C, H, W)
        return seen.to(x.dtype), y

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Move p by the global means of D's move."""
        if "discriminator/real_logits" not in evidence:  # it was G's move alone
            return
        self.images = self.images + self._total
        if self.p is not None:
            images = int(self.images) if callable(self.p) else 0
            self.probability = torch.full_like(self.probability, self._given(images))
            return
        anchored = "discriminator/real_accuracy" in evidence
        right = evidence["discriminator/real_accuracy" if anchored else "discriminator/pairs_right"]
        moves, signs = self.moves + 1, self.signs + (2 * right - 1).to(self.signs)
        due = moves >= self.every
        step = (signs / moves - self.target).sign() * (self._total * self.every / self.ramp)
        p = (self.probability + step).clamp(0.0, self.most)
        self.probability = p.where(due, self.probability)
        self.moves, self.signs = moves.masked_fill(due, 0), signs.masked_fill(due, 0.0)

    @property
    def adaptive(self) -> bool:
        """Whether p follows how often D is right."""
        return self.p is None

    def measures(self) -> dict[str, Tensor]:
        """Return what the log says of it."""
        return {"augment_p": self.probability}

    def settings(self, images: int) -> dict[str, float]:
        """Return p as it is given after so many images, as an optimizer does; raises ValueError outside [0, 1]."""
        return {} if self.p is None else {"p": self._given(images)}

    def _given(self, images: int) -> float:
        """p as it is given at this point, or 0 to begin with."""
        p = 0.0 if self.p is None else at(self.p, images)
        if not 0 <= p <= 1:
            raise ValueError(f"ADA(p={self.p}): is {p} at image {images}, must lie in [0, 1]")
        return float(p)

    def extra_repr(self) -> str:
        names = ("p", "target", "ramp", "every", "most")
        return ", ".join([f"policy={list(self.policy)}", *(f"{name}={getattr(self, name)}" for name in names)])


def _blit(x: Tensor, p: Tensor, draw: Draw) -> Tensor:
    """One look-up of pixels: flip, turn, shift."""
    H, W = x.shape[2:]
    u = _uniform(draw, 7, x)
    flip, turn, shift = (u[:, :3] < p)[..., None, None].unbind(1)  # (B, 1, 1) each
    ways = 4 if H == W else 2
    quarters = (u[:, 4, None, None] * ways).long() * (4 // ways) * turn  # (B, 1, 1)
    i, j = (
        _reflected(torch.arange(side, device=x.device).view(shape) - moved.round().long() * shift, side)
        for side, shape, moved in (
            (H, (1, -1, 1), (2 * u[:, 5, None, None] - 1) * 0.125 * H),
            (W, (1, 1, -1), (2 * u[:, 6, None, None] - 1) * 0.125 * W),
        )
    )  # (B, H, 1), (B, 1, W): where each pixel comes from
    if H == W:
        odd = quarters % 2 == 1
        i, j = j.where(odd, i), i.where(odd, j)  # (B, H, W)
    i = (H - 1 - i).where(quarters >= 2, i)
    mirrored = ((quarters == 1) | (quarters == 2)) ^ (flip & (u[:, 3, None, None] < 0.5))
    j = (W - 1 - j).where(mirrored, j)
    index = (i * W + j).flatten(1)[:, None]  # (B, 1, HW)
    return x.flatten(2).take_along_dim(index, 2).view_as(x)


def _geometric(x: Tensor, p: Tensor, draw: Draw) -> Tensor:
    """One warp: scale, rotate, stretch, rotate, move; in pixels seen from the middle, and backwards."""
    u, v = _uniform(draw, 7, x), _normal(draw, 4, x)
    scale, rotate, stretch, move = p
    rotate = 1 - (1 - rotate).sqrt()
    on = u[:, :5] < torch.stack([scale, rotate, stretch, rotate, move])  # (B, 5)
    first, last = math.pi * (2 * u[:, 5] - 1) * on[:, 1], math.pi * (2 * u[:, 6] - 1) * on[:, 3]  # (B,)
    size, wide = torch.exp2(0.2 * v[:, 0] * on[:, 0]), torch.exp2(0.2 * v[:, 1] * on[:, 2])  # (B,)
    # Of (row, column), the inverse of R(last) diag(1 / wide, wide) R(first) size.
    squeeze = torch.stack([wide, 1 / wide], 1).diag_embed()  # (B, 2, 2)
    A = _rotation(-first) @ squeeze @ _rotation(-last) / size[:, None, None]  # (B, 2, 2)
    move = 0.125 * v[:, 2:] * on[:, 4:]  # (B, 2), as shares of the sides
    some = on.any(1)
    if x.device.type != "cpu":  # to ask which is to wait
        return _warped(x, A, move).where(some[:, None, None, None], x)
    rows = some.nonzero().squeeze(1)
    return x.index_copy(0, rows, _warped(x[rows], A[rows], move[rows])) if len(rows) else x


def _warped(x: Tensor, A: Tensor, move: Tensor) -> Tensor:
    """Images whose pixels come from A (i - move), seen from the middle, with A (B, 2, 2) and move (B, 2)."""
    sides = x.shape[2:]
    ups, downs, points = zip(*(_filters(side, x.device, x.dtype) for side in sides), strict=True)
    q = [points[k] - sides[k] * move[:, k, None] for k in (0, 1)]  # (B, 2H + 10), of W
    grid = []
    for k in (1, 0):  # columns first
        found = A[:, k, 0, None, None] * q[0][:, :, None] + A[:, k, 1, None, None] * q[1][:, None]
        found = _reflected(found + (sides[k] - 1) / 2, sides[k])  # (B, 2H + 10, 2W + 10), in pixels of x
        grid.append((2 * found + _DELAY % 1) * (2 / (2 * sides[k] - 1)) - 1)
    fine = ups[0] @ x @ ups[1].T  # (B, C, 2H, 2W)
    warped: Tensor = _Sample.apply(fine, torch.stack(grid, 3))  # type: ignore[no-untyped-call]
    back: Tensor = downs[0] @ warped @ downs[1].T  # (B, C, H, W), of (B, C, 2H + 10, 2W + 10)
    return back


def _color(x: Tensor, p: Tensor, draw: Draw) -> Tensor:
    r"""One affine map of colours, with c contrast, f = -1 if luma is mirrored, s saturation, K the cross product with
    the grey axis:

    .. math:: M = c\,(f\,\tfrac1C 1 1^T + s (\cos\theta\,(I - \tfrac1C 1 1^T) + \sin\theta\,K))
    """
    C = x.shape[1]
    u, v = _uniform(draw, 7, x), _normal(draw, 3, x)
    on = (u[:, :5] < p).to(x)  # (B, 5)
    b, c = 0.2 * v[:, 0] * on[:, 0], torch.exp2(0.5 * v[:, 1] * on[:, 1])  # (B,)
    f, s = 1 - 2 * on[:, 2] * (u[:, 5] < 0.5), torch.exp2(v[:, 2] * on[:, 4] * (C > 1))  # (B,); one channel is grey
    turn = math.pi * (2 * u[:, 6] - 1) * on[:, 3] * (C == 3)  # (B,)
    ones, I = x.new_ones(C, C), torch.eye(C, device=x.device, dtype=x.dtype)
    plane = c * s * turn.cos()
    M = plane[:, None, None] * I + ((c * f - plane) / C)[:, None, None] * ones  # (B, C, C): exact if it is I
    if C == 3:
        K = (I.roll(1, 0) - I.roll(-1, 0)) / 3**0.5
        M = M + (c * s * turn.sin())[:, None, None] * K
    return (M @ x.flatten(2) + (b * c * f)[:, None, None]).view_as(x)


def _cutout(x: Tensor, p: Tensor, draw: Draw) -> Tensor:
    """A box of 0, clipped by the border."""
    u = _uniform(draw, 3, x)[..., None, None]  # (B, 3, 1, 1)
    rows, columns = (((torch.arange(side, device=x.device) + 0.5) / side).to(x) for side in x.shape[2:])
    inside = ((rows[:, None] - u[:, 1]).abs() < 0.25) & ((columns - u[:, 2]).abs() < 0.25)  # (B, H, W)
    return x.masked_fill((inside & (u[:, 0] < p))[:, None], 0.0)


def _uniform(draw: Draw, k: int, x: Tensor) -> Tensor:
    return draw(lambda n, g: torch.rand(n, k, generator=g, device=g.device)).to(x)  # (B, k)


def _normal(draw: Draw, k: int, x: Tensor) -> Tensor:
    return draw(lambda n, g: torch.randn(n, k, generator=g, device=g.device)).to(x)  # (B, k)


def _rotation(angle: Tensor) -> Tensor:
    """The matrices, (B, 2, 2), of angles (B,)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)


def _reflected(t: Tensor, side: int) -> Tensor:
    """Coordinates brought into 0 ... side - 1 by mirrors at both."""
    if side == 1:
        return torch.zeros_like(t)
    t = t.remainder(2 * side - 2)
    return torch.minimum(t, 2 * side - 2 - t)


# The lowpass of the sym6 wavelet (Daubechies, Ten Lectures on Wavelets, 1992) for a sum of the square root of 2: of its
# length the nearest to a symmetric one among those whose translates by 2 are orthonormal.
_SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_DELAY = sum(k * h for k, h in enumerate(_SYM6)) / sum(_SYM6)  # where its middle is, for slow waves


@cache
def _filters(side: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """To twice the pixels, (2S, S), and back, (S, 2S + 10); and where the latter's points lie, in pixels seen from the
    middle, (2S + 10,)."""
    first, taps = math.floor(_DELAY), len(_SYM6)
    with torch.inference_mode(False), torch.device("cpu"):
        h = torch.tensor(_SYM6, dtype=torch.float64) / 2**0.5  # a sum of 1
        up, down = torch.zeros(2 * side, side).double(), torch.zeros(side, 2 * side + taps - 2).double()
        # U[m] = 2 sum_k h[m - 2k] x[k], x reflected, from the first m that is needed; x[n] = sum_m h[m - 2n] U[m].
        tap = torch.arange(taps)
        twice = first + torch.arange(2 * side)[:, None] - tap  # 2k, where it is even
        up.scatter_add_(1, _reflected(twice // 2, side), 2 * h * (twice % 2 == 0))
        down.scatter_(1, 2 * torch.arange(side)[:, None] + tap, h.expand(side, -1))
        points = (torch.arange(2 * side + taps - 2).double() - _DELAY) / 2 - (side - 1) / 2
        return up.to(device, dtype), down.to(device, dtype), points.to(device, dtype)


class _Sample(torch.autograd.Function):
    """x between its pixels; linear in x, so that its derivatives of any order are itself and its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return grid_sample(x, grid, "bilinear", "border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(g, grid, ctx.shape), None  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """The adjoint of sampling: each value is added to the pixels that it was a mean of."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        x = g.new_empty(shape)  # its values do not matter to its own gradient
        found: Tensor = torch.ops.aten.grid_sampler_2d_backward(g, x, grid, 0, 1, True, [True, False])[0]
        return found  # bilinear (0), to the border (1), corners aligned

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(g, grid), None, None  # type: ignore[no-untyped-call]
