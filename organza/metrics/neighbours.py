r"""Do fakes lie where real examples lie, and everywhere there?  Four answers by nearest neighbours.

With r_k(x) the distance from x to its k-th nearest neighbour in its own set, x itself excluded, M real examples x_i
and N fakes y_j:

.. math::
    \text{precision} = \frac1N \sum_j 1[\exists i: \|x_i - y_j\| \le r_k(x_i)], \qquad
    \text{recall}    = \frac1M \sum_i 1[\exists j: \|x_i - y_j\| \le r_k(y_j)]

    \text{density}   = \frac1{kN} \sum_{ij} 1[\|x_i - y_j\| < r_k(x_i)], \qquad
    \text{coverage}  = \frac1M \sum_i 1[\exists j: \|x_i - y_j\| < r_k(x_i)]

If both sets come from one continuous law, E[density] = 1 and E[coverage] = 1 - prod_{i=1..k} (M - i) / (M + N - i):
a real example is uncovered if, among all the others, its k nearest are real.  Precision and recall have no such value.

The distance is the root of the sum of squared differences, taken in float64 in one fixed order, so that a point and
its copy tie, as do points on a grid of integers; counts are exact in that sense.  To be fast as well, all pairs are
first bounded tile by tile, by matrix products in float32 of a = x - m and b = y - m, m the mean.  A sum of n products,
rounded at every step, in whatever order, is off by at most n u / (1 - n u) times the sum of their absolute values, u =
2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).  The squared distance is one such
sum, -2 a.b + |a|^2 1 + 1 |b|^2, with n = d + 2; what is left of 40 is for the rounding of a, b and the norms:

.. math:: l \le \|x - y\|^2 \le l + 2 c (|a|^2 + |b|^2), \qquad c = 2 e / (1 - e), \qquad e = (d + 40) u

Only for pairs whose interval leaves a comparison open are the differences summed; where these are many (tight
clusters far apart), intervals are taken in float64 first, u = 2^-53.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from organza.metrics.features import matrix

__all__ = ["PRDC", "DensityCoverage", "PrecisionRecall", "density_coverage", "prdc", "precision_recall"]

TILE = 768  # rows and columns of a tile, which a CPU's cache holds with its operands
SPARE = 4  # neighbours listed beyond the k-th, so that rounding seldom leaves open which one that is
BLOCK = 2**18  # numbers in a block of differences
WHOLE = 2**21  # numbers in a block of whole rows of bounds
OPEN = 1 / 64  # share of open pairs in a tile from which on float64 products are cheaper than differences


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of fakes that lie among the real examples, of real examples that lie among the fakes."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, 0 or more (1 if the laws agree), and coverage, in [0, 1]."""

    density: float
    coverage: float


class PRDC(NamedTuple):
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(fake: Tensor, real: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall: are fakes like real examples, and real examples like fakes?

    Arguments:
        fake: Features y of fakes, (N, d).
        real: Features x of real examples, (M, d).
        k: Which neighbour's distance is a point's radius, 1 <= k < min(N, M).

    Raises:
        ValueError: If the features are no matrices of one width, or too few for k.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019)
    """
    return PrecisionRecall(*_measure(fake, real, k, k)[:2])


def density_coverage(fake: Tensor, real: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage: in how many neighbourhoods of real examples does a fake lie, and how many hold a fake?

    Unlike precision, density is not raised by the wide neighbourhoods of outliers in which everything lies; unlike
    recall, coverage looks at neighbourhoods of real examples alone, so stray fakes cannot widen them.

    Arguments:
        fake: Features y of fakes, (N, d).
        real: Features x of real examples, (M, d).
        k: Which neighbour's distance is a point's radius, 1 <= k < M.

    Raises:
        ValueError: If the features are no matrices of one width, or too few for k.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020)
    """
    return DensityCoverage(*_measure(fake, real, None, k)[2:])


def prdc(fake: Tensor, real: Tensor, k_pr: int = 3, k_dc: int = 5) -> PRDC:
    """:func:`precision_recall` and :func:`density_coverage` at the cost of the first.

    Arguments:
        fake: Features y of fakes, (N, d).
        real: Features x of real examples, (M, d).
        k_pr: k of precision and recall.
        k_dc: k of density and coverage.

    Raises:
        ValueError: If the features are no matrices of one width, or too few for k.
    """
    return PRDC(*_measure(fake, real, k_pr, k_dc))


@torch.no_grad()
def _measure(fake: Tensor, real: Tensor, k_pr: int | None, k_dc: int) -> PRDC:
    """All four; without a k_pr, density and coverage only, which need no radii of fakes."""
    ks = (k_dc if k_pr is None else k_pr, k_dc)
    most, least = _counted(*ks), 1 if k_pr is None else k_pr + 1
    fake, real = _sets((f"fake (k={ks[0]})", fake, least), (f"real (k={most})", real, most + 1))
    x_radii = _squared_radii(real, ks)  # (M, 2)
    y_radii = x_radii.new_empty(len(fake), 0) if k_pr is None else _squared_radii(fake, ks[:1])
    good, (found, covered), hits = x_radii.new_zeros(len(fake)), x_radii.new_zeros(2, len(real)), 0
    centre = _mean(fake, real)
    for j, i, squared in _close(_Points(fake, centre), _Points(real, centre), y_radii, x_radii):
        good[j[squared <= x_radii[i, 0]]] = 1
        found[i[(squared[:, None] <= y_radii[j]).any(1)]] = 1
        hit = squared < x_radii[i, 1]
        covered[i[hit]] = 1
        hits += int(hit.sum())
    return PRDC(float(good.mean()), float(found.mean()), hits / (k_dc * len(fake)), float(covered.mean()))


def _counted(*ks: int) -> int:
    """The largest k."""
    if min(ks) < 1:
        raise ValueError(f"k={min(ks)}: neighbours are counted from 1")
    return max(ks)


def _sets(*named: tuple[str, Tensor, int]) -> list[Tensor]:
    """Sets of points, each with its name and the least number needed, of one width and where there is float64."""
    for what, x, least in named:
        matrix(x[:least], what, least)
        if not all(bool(x[rows].isfinite().all()) for rows in _tiles(len(x), _fitting(x))):
            matrix(x, what, least)  # says which; asked at once, the whole would be copied
    if len({x.shape[1] for _, x, _ in named}) > 1:
        got = " and ".join(f"{what} of {x.shape[1]}" for what, x, _ in named)
        raise ValueError(f"got {got} dimensions; both must be the same features")
    return [(x.cpu() if x.device.type == "mps" else x).detach() for _, x, _ in named]


class _Points:
    """Points x, (N, d), about a centre m, (d,), which is in float32, so that a = x - m is rounded once."""

    def __init__(self, x: Tensor, centre: Tensor) -> None:
        self.x, self.centre = x, centre
        self.norms = x.new_empty(len(x), dtype=torch.float64)  # |a|^2
        for rows in _tiles(len(x), _fitting(x)):
            self.norms[rows] = _sum((x[rows].double() - centre.double()).square_())
        if not bool(self.norms.isfinite().all()):
            raise ValueError(f"features of up to {float(x.abs().max()):.3g}: their squares overflow; scale them down")
        self._memory: dict[tuple[torch.dtype, bool], Tensor] = {}

    def slack(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """c |a|^2 in float64, and a little more against underflow."""
        d, info = self.x.shape[1], torch.finfo(dtype)
        e = (d + 40) * info.eps / 2
        return 2 * e / (1 - e) * self.norms[rows] + 4 * d * info.tiny

    def factor(self, rows: slice | Tensor, dtype: torch.dtype, left: bool = False) -> Tensor:
        """(-2 a, |a|^2 - slack, 1) or (b, 1, |b|^2 - slack), (n, d + 2): the products of such rows are the bounds l.

        It is overwritten by the next call: large memory that comes and goes lets the process grow.
        """
        norm, d = self.norms[rows] - self.slack(rows, dtype), self.x.shape[1]
        memory = self._memory.get((dtype, left))
        if memory is None or len(memory) < len(norm):
            memory = self.norms.new_empty(max(len(norm), min(TILE, len(self.x))), d + 2, dtype=dtype)
            self._memory[dtype, left] = memory
        made = memory[: len(norm)]
        wide = torch.promote_types(self.x.dtype, dtype)
        torch.sub(self.x[rows].to(wide), self.centre.to(wide), out=made[:, :d])
        if left:
            made[:, :d] *= -2
        made[:, d:] = 1
        made[:, d if left else d + 1] = norm
        return made


def _tiles(n: int, size: int = TILE) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _fitting(x: Tensor) -> int:
    """How many rows make a block."""
    return max(1, BLOCK // x.shape[1])


def _mean(*sets: Tensor) -> Tensor:
    """The mean over all rows, (d,), in float32."""
    total = sets[0].new_zeros(sets[0].shape[1], dtype=torch.float64)
    for x in sets:
        for rows in _tiles(len(x), _fitting(x)):
            total += x[rows].double().sum(0)
    return (total / sum(map(len, sets))).float()


def _sum(v: Tensor) -> Tensor:
    """The sums of the rows, (n,), by adding halves: in an order that depends on nothing but d.  Overwrites v."""
    while (d := v.shape[1]) > 1:
        half = (d + 1) // 2
        v[:, : d - half] += v[:, half:]
        v = v[:, :half]
    return v[:, 0].clone()


def _squared(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """The squared distances of the pairs x[i], y[j] in float64, from their differences."""
    a, b = x.new_empty(2, min(_fitting(x), len(i)), x.shape[1], dtype=torch.float64)  # the same memory for all blocks
    squared = torch.empty(len(i), dtype=torch.float64, device=x.device)
    for p in _tiles(len(i), _fitting(x)):
        n = p.stop - p.start
        squared[p] = _sum(a[:n].copy_(x[i[p]]).sub_(b[:n].copy_(y[j[p]])).square_())
    return squared


def products(a: Tensor, b: Tensor) -> Tensor:
    """a b^T, of (n, d) and (m, d)."""
    # On an AMD processor (Zen 5) oneDNN is twice as fast as MKL, which `a @ b.T` would take; the operator has no public
    # name, and functional.linear, which has, would copy a and b first.
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    if onednn is not None and a.device.type == "cpu" and a.dtype == torch.float32:
        made: Tensor = onednn(a, b, None, "none", [], "")
        return made
    return a @ b.T


def _dtypes(*sets: _Points) -> tuple[torch.dtype, ...]:
    """What to take products in: float32 first, where it cannot overflow nor is replaced by less (TF32, autocast)."""
    (_, d), device, info = sets[0].x.shape, sets[0].x.device, torch.finfo(torch.float32)
    probe = torch.zeros(TILE, d + 2, device=device)
    probe[:, 0] = 1 + 2**-20
    kept = bool((products(probe, probe.sign()) == probe[0, 0]).all())
    fits = max(float(points.norms.max()) for points in sets) < info.max / 16 and (d + 40) * info.eps < 0.5
    return (torch.float32, torch.float64) if kept and fits else (torch.float64,)


def _merge(best: tuple[Tensor, Tensor], rows: slice, tile: Tensor, first: int) -> None:
    """Put into each row's list of smallest bounds (and their columns) what a tile from column ``first`` has to add."""
    count = best[0].shape[1]
    values, index = tile.topk(min(count, tile.shape[1]), dim=1, largest=False, sorted=False)
    values, index = torch.cat([best[0][rows], values], 1), torch.cat([best[1][rows], index + first], 1)
    best[0][rows], order = values.topk(count, dim=1, largest=False, sorted=False)
    best[1][rows] = index.gather(1, order)


def _list(x: _Points, i: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For each x[i] the ``count`` smallest of the bounds to all x, and which these are, (len(i), count)."""
    values = torch.full((len(i), count), torch.inf, dtype=dtype, device=i.device)
    best = values, torch.zeros_like(values, dtype=torch.int64)
    whole = len(i) == len(x.x)  # then the tiles below the diagonal are those above it, mirrored
    for rows in _tiles(len(i)):
        left = x.factor(rows if whole else i[rows], dtype, left=True)
        for columns in _tiles(len(x.x)):
            if whole and columns.start < rows.start:
                continue
            tile = products(left, x.factor(columns, dtype))
            _merge(best, rows, tile, columns.start)
            if whole and columns.start > rows.start:
                _merge(best, columns, tile.T.contiguous(), rows.start)
    return best


def _settled(x: _Points, i: Tensor, j: Tensor, low: Tensor, dtype: torch.dtype, ranks: Sequence[int]) -> Tensor:
    """The squared distances of the given ranks from each x[i], (n, ranks); of rank 0 is the point itself.

    j, (n, m), are the candidates of each i, and low are their bounds l, taken in ``dtype``.
    """
    low = low.to(torch.float64, copy=True)  # the caller's are bounds still
    high = low + 2 * (x.slack(i, dtype)[:, None] + x.slack(slice(None), dtype)[j])
    # The distance of a rank lies between the bounds of this rank; candidates that cannot be it are rightly below or
    # above by their bound.
    least, most = (bound.topk(max(ranks) + 1, largest=False).values[:, [*ranks]] for bound in (low, high))
    ask = torch.zeros_like(low, dtype=torch.bool)
    for r in range(len(ranks)):
        ask |= (low <= most[:, r : r + 1]) & (high >= least[:, r : r + 1])
    row, column = ask.nonzero(as_tuple=True)
    low[row, column] = _squared(x.x, x.x, i[row], j[row, column])
    return low.topk(max(ranks) + 1, largest=False).values[:, [*ranks]]


def _squared_radii(x: Tensor, ks: Sequence[int]) -> Tensor:
    """The squared distances from each point to its k-th nearest neighbours, itself excluded, (n, len(ks)), float64."""
    points, n = _Points(x, _mean(x)), len(x)
    squared, i = points.norms.new_empty(n, len(ks)), torch.arange(n, device=x.device)
    for dtype in _dtypes(points):
        low, j = _list(points, i, min(max(ks) + 1 + SPARE, n), dtype)
        squared[i] = _settled(points, i, j, low, dtype, ks)
        i = i[squared[i].amax(1) > low.amax(1).double().clamp(min=0)]  # else what is not listed is no nearer
        if low.shape[1] == n or not len(i):
            return squared
    for rows in i.split(max(1, WHOLE // n)):
        left = points.factor(rows, dtype, left=True)
        low = torch.cat([products(left, points.factor(columns, dtype)) for columns in _tiles(n)], 1)  # (rows, n)
        j = torch.arange(n, device=rows.device).expand(low.shape)
        squared[rows] = _settled(points, rows, j, low, dtype, ks)
    return squared


def _close(y: _Points, x: _Points, y_radii: Tensor, x_radii: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tile by tile all pairs j, i, and some more, that lie within a radius of y_j or x_i, (N, .) and (M, .), squared.

    With each pair comes a number that compares with each of these radii as the squared distance does.
    """
    dtypes = _dtypes(y, x)
    # Rounded up, so that no pair is lost.
    y_reach, x_reach = (functional.pad(r, (0, 1)).amax(1) * (1 + 2**-20) for r in (y_radii, x_radii))
    for rows in _tiles(len(y.x)):
        left = {dtypes[0]: y.factor(rows, dtypes[0], left=True)}
        for columns in _tiles(len(x.x)):
            for dtype in dtypes:
                if dtype not in left:
                    left[dtype] = y.factor(rows, dtype, left=True)
                tile = products(left[dtype], x.factor(columns, dtype))
                near = (tile <= x_reach[columns].to(dtype)).logical_or_(tile <= y_reach[rows, None].to(dtype))
                j, i = near.nonzero(as_tuple=True)
                low, radii = tile[j, i].double()[:, None], torch.cat([y_radii[rows][j], x_radii[columns][i]], 1)
                high = low + 2 * (y.slack(rows, dtype)[j] + x.slack(columns, dtype)[i])[:, None]
                unclear = ((low <= radii) & (radii <= high)).any(1)
                if int(unclear.sum()) <= OPEN * tile.numel():
                    break
            j, i, squared = j + rows.start, i + columns.start, high[:, 0]
            squared[unclear] = _squared(y.x, x.x, j[unclear], i[unclear])
            yield j, i, squared
