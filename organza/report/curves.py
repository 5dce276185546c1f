"""Curves: what the log tells of a training, each line with its last value and what a healthy one looks like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from organza.metrics.catalogue import KEYS
from organza.metrics.score import BETTER
from organza.report.charts import CYCLE, INK, MORE, REAL, REST, D, G, chart, key, short, svg
from organza.report.scores import MEANINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["columns", "curves", "speed"]

Numbers = NDArray[np.float64]
Columns = dict[str, tuple[Numbers, Numbers]]  # {column of the log: (images, values)}
Line = tuple[str, str, Numbers, Numbers, float | None]  # name, colour, images, values, value at equilibrium if known

POINTS, CHARTS = 600, 12  # at most so many points of a line, and charts of one column each
# Columns with charts of their own.
USUAL = re.compile(r"images|steps|time|.*/objective|.*/gradient|.*/(real|fake)_(logits|score|accuracy)|.*/pairs_right")
NOTHING = np.zeros(0)
LOSSES = """Each player lowers its own loss, so neither can fall for long unless the other loses ground. Healthy: both
settle and stay level. D’s sinking while G’s climbs means that D tells the fakes too easily and G may stop learning."""
CHANCES = """D(x) is the mean chance of being real that D gives to data, D(G(z)) that of samples. Healthy: D(x) a little
above D(G(z)), both far from 1 and 0. Lines that cling to 1 and 0 leave G little to learn from."""
LOGITS = """D(x) is the mean logit that D gives to data, D(G(z)) that of samples. Healthy: a small and steady gap, D(x)
above. A gap that keeps growing means that D tells the two apart more and more easily."""
RIGHT = """How often D is right, on data and on samples. Healthy: well below 1, both alike. At 1 for long, D is sure and
G’s gradient may vanish; near 0 on one side, D calls everything the same."""
SLOPES = """The norm of each player’s gradient, as its step takes it. Healthy: neither dies nor explodes. G’s falling
towards 0 while D is always right is the vanishing gradient."""
TERMS = """What enters the losses beside the objective. Healthy: level or falling. A penalty that climbs without end
says that D grows steeper, which often comes before divergence."""
SPEED = "Images shown to D in a second, by the log’s clock; pauses are left out. Healthy: level. A dip is other work."
EQUILIBRIUM = "Dashed: the value at equilibrium, where G’s samples cannot be told from data."


def columns(records: Iterable[Mapping[str, Any]]) -> Columns:
    """Return the numbers of the log; what is not finite is NaN."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.items():
            if "images" in record and (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
                found.setdefault(name, []).append((record["images"], float(value)))
    columns = {name: np.array(pairs, np.float64).T for name, pairs in found.items()}
    return {name: (x, np.where(np.isfinite(y), y, np.nan)) for name, (x, y) in columns.items()}


def speed(images: Numbers, times: Numbers) -> tuple[tuple[Numbers, Numbers], float]:
    """Return images a second at each record, and the seconds in all, both without pauses (from a stop to a resume)."""
    dx, dt = np.diff(images), np.diff(times)
    dx, dt, at = (each[(dx > 0) & (dt > 0)] for each in (dx, dt, images[1:]))
    if not len(at):
        return (at, at), 0.0
    each = dt / dx  # seconds an image
    padded = np.pad(each, 10, constant_values=float(np.median(each)))
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 21), axis=1)  # near by: machines may change
    kept = each <= 10 * usual
    untimed = usual[0] * (images[-1] - dx.sum()) + (usual * dx)[~kept].sum()  # before the first record; in pauses
    return (at[kept], (dx / dt)[kept]), float(dt[kept].sum() + untimed)


def curves(columns: Columns, levels: Mapping[str, float], speed: tuple[Numbers, Numbers]) -> str:
    """Return the charts of the log.

    Arguments:
        columns: The numbers of the log.
        levels: By column, its value at equilibrium; only what is known.
        speed: Images, and images a second at each.
    """

    def lines(*keys: tuple[str, str, str]) -> list[Line]:
        return [(name, colour, *columns[k], levels.get(k)) for k, name, colour in keys if k in columns]

    losses = lines(("discriminator/objective", "D", D), ("generator/objective", "G", G))
    scores = lines(("discriminator/real_score", "D(x)", REAL), ("discriminator/fake_score", "D(G(z))", G))
    values = np.concatenate([NOTHING, *(y for *_, y, _ in scores)])
    logits = columns.get("discriminator/real_logits", (NOTHING, NOTHING))[1]
    plain = bool(scores) and np.array_equal(scores[0][3], logits, equal_nan=True)  # the score is the logit itself
    chance = not plain and not (values < 0).any() and not (values > 1).any()
    said = ("chance of being real", CHANCES, (0, 1)) if chance else ("logits: more is more real", LOGITS, None)
    right = lines(
        ("discriminator/real_accuracy", "data", REAL),
        ("discriminator/fake_accuracy", "samples", G),
        ("discriminator/pairs_right", "pairs", MORE),
    )
    slopes = lines(("discriminator/gradient", "D", D), ("generator/gradient", "G", G))
    rest = sorted(column for column in columns if not USUAL.fullmatch(column))
    terms = [each.split("/", 1) for each in rest if each.startswith(("discriminator/", "generator/"))]
    named = [(f"{who}/{term}", f"{who[0].upper()}’s {term}", CYCLE[i % 5]) for i, (who, term) in enumerate(terms)]
    alone = [each for each in rest if not each.startswith(("discriminator/", "generator/"))]
    charts = [
        _chart("Losses", losses, "without penalties", LOSSES),
        _chart("What D says", scores, *said),
        _chart("D is right", [(*line[:4], 0.5) for line in right], "share of its verdicts", RIGHT, (0, 1)),
        _chart("Gradients", slopes, "norms", SLOPES, (0, None)),
        _chart("Penalties and other terms", lines(*named), "before their weights", TERMS),
        *(_measured(column, lines((column, column, MORE))) for column in alone[:CHARTS]),
        _chart("Speed", [("images a second", REST, *speed, None)], "", SPEED, (0, None)),
    ]
    left = f'<p class="note">{len(alone) - CHARTS} more columns are in log.jsonl.</p>' if len(alone) > CHARTS else ""
    none = '<p class="note">There are no curves in the log yet.</p>'
    return f'<div class="charts">{"".join(charts)}</div>{left}' if any(charts) else none


def _measured(column: str, lines: list[Line]) -> str:
    """The chart of a column of its own, with what is known of it if it is a metric's."""
    better = f": {BETTER[KEYS[column][1]]}" if column in KEYS else ""
    return _chart(column, lines, f"measured on the way{better}", MEANINGS.get(column, ""))


def _chart(
    title: str, lines: list[Line], unit: str, words: str = "", limits: tuple[float, float | None] | None = None
) -> str:
    lines = [line for line in lines if np.isfinite(line[3]).any()]
    if not lines:
        return ""
    words = " ".join([words] + [EQUILIBRIUM] * any(level is not None for *_, level in lines))
    keys = ""
    for name, colour, images, values, level in lines:
        bad = ~np.isfinite(values)
        more = f" <small>dashed {short(level)}</small>" if level is not None else ""
        more += f" <em>not finite at {images[bad][0]:,.0f} images</em>" if bad.any() else ""
        keys += key(name, colour, short(values[~bad][-1]), more)
    drawing = svg(f"{title} over images", title, lambda axes: _draw(axes, lines, limits))
    return chart(title, unit, keys, drawing, words)


def _draw(axes: Axes, lines: list[Line], limits: tuple[float, float | None] | None) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    levels = [level for *_, level in lines]
    for _, colour, images, values, level in lines:
        dots = "o" if len(images) <= 12 else ""
        axes.plot(*_thin(images, values), color=colour, linewidth=1.5, marker=dots, markersize=4, clip_on=False)
        if level is not None:
            shade = INK if levels.count(level) > 1 else colour
            axes.axhline(level, color=shade, linewidth=1.1, linestyle=(0, (5, 4)))
    axes.set(xlim=(0, max(images[-1] for _, _, images, _, _ in lines) or 1), ylim=limits)
    axes.set_xlabel("images shown to D", color=INK)
    axes.xaxis.set(major_locator=MaxNLocator(6), major_formatter=EngFormatter(sep=""))
    axes.yaxis.set(major_locator=MaxNLocator(5), major_formatter=FuncFormatter(lambda y, _: short(y)))


def _thin(images: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """At most POINTS points, with every peak and valley: the ends, and the extremes of each bin."""
    if len(images) <= POINTS:
        return images, values
    bins = np.array_split(np.arange(len(images)), POINTS // 2 - 1)
    extremes = [part[find(values[part])] for part in bins for find in (np.argmin, np.argmax)]  # a NaN is both
    index = np.unique([0, *extremes, len(images) - 1])
    return images[index], values[index]
