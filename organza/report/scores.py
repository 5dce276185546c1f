"""Scores: how near G's samples come to real examples, in numbers with their protocol, their error and their floor.

Scores of one protocol stand under one caption; those under two are not to be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from organza.metrics.score import BETTER, Protocol, Score
from organza.report import pictures
from organza.report.charts import INK, MORE, REAL, G, chart, key, short, svg
from organza.scores import read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MEANINGS", "section"]

Numbers = NDArray[np.float64]

GROUPS, BARS, POINTS = 6, 20, 200  # at most so many groups of scores, bars of a histogram, points of a line
# What a score says, by its key.
MEANINGS = {
    "frechet": "How far apart the features of samples and of real examples lie, each taken as Gaussian: 0 if alike.",
    "kernel": "How far apart the two sets of features lie by a kernel, without bias: if they agree, 0 up to chance.",
    "precision": "The share of samples that look real: each lies where real examples lie.",
    "recall": "The share of real examples that G could make: each lies where samples lie.",
    "density": "How thickly samples lie about real examples: 1 if the two agree, near 0 if samples lie elsewhere.",
    "coverage": "The share of real examples that have a sample near by: low if G leaves kinds out.",
    "inception-score": "High if a classifier is sure of each sample and sees many classes; real data plays no part.",
    "class-entropy": "How evenly samples spread over classes: 0 if all are of one.",
    "class-balance": "The share of the class that G neglects most, over its share in real data: 0 if G makes none.",
    "vendi": "How many different samples there are, in effect: copies of one count as one.",
    "spread": "How far samples lie from each other, over the same of real examples: 0 if all are alike.",
    "duplicates": "The share of samples that equal another to the last bit.",
    "two-sample": "How often a small network that learnt to tell samples from real examples is right: 0.5 is a guess.",
    "memorised": "The share of samples that are copies of training examples.",
    "parzen": "The log-likelihood of real examples, in nats, if samples are blurred to a density: the measure of 2014.",
    "modes": "How many of the modes of the data have a good sample: low is mode collapse.",
    "quality": "The share of samples that lie close to a mode.",
    "reverse-kl": "How unevenly samples spread over the modes: 0 if evenly.",
    "width": "How widely samples scatter about their modes, over the true width: 0 if each mode is one point.",
    "stacked-modes": "How many of the 1,000 numbers of three digits G makes, as a classifier reads them.",
    "stacked-kl": "How unevenly samples spread over the 1,000 numbers of three digits: 0 if evenly.",
    "label-accuracy": "How often a classifier sees in a sample the class that G was asked for.",
    "intra-frechet": "The Fréchet distance within a class, the mean over all classes: it sees classes mixed up.",
    "class-coverage": "The coverage of the class that G covers worst.",
    "l1": "How far a sample is from the image it should be, the mean over pixels, with values from 0 to 1.",
    "psnr": "The same in decibels, of the squares: a tenth of the mean square is 10 more.",
    "ssim": "How like a sample is to the image it should be, in the structure of small windows: 1 if equal.",
    "lpips": "How different a sample looks from the image it should be, by features people agree with: 0 if equal.",
    "high-frequency": "How far the samples' share of fine detail is from the real one's: 0 if they are as sharp.",
    "cas": "How often a classifier that learnt from samples alone is right on real examples.",
}
INTRODUCTION = """Each number compares samples with real examples. The floor is the same number for real examples that
were held out, in the place of samples: about what a perfect G would get. Numbers may be compared, here or with another
run’s, only if their protocols are the same."""
UNREADABLE = "There is no score that this version can read in scores.json; evaluate the run again."
CLASSES = """The share of each class, as a classifier sees it. Healthy: samples and real examples alike. A class with no
bar of samples is one that G does not make."""
RANKED = """The share of each class, as a classifier sees it, from the most frequent class to the rarest, in an order of
its own for each line. Healthy: both lines alike. If that of samples falls to 0 early, G makes fewer classes."""
UP_AND_RIGHT = """Up: more samples look real. Right: samples reach more of the real examples. Far up on the left are
good samples of few kinds, far down on the right all kinds badly made. A density above 1 is drawn at 1."""
RINGS = "Healthy: each dot near its ring, which is held-out real examples in the place of samples."
NEAREST = """Two and two are a pair: a sample, left, and the training image nearest to it, right. The most suspicious
pairs come first, row by row. Healthy: of the same kind, but not the same picture."""

VERDICTS = {
    "memorised": "G copies training examples",
    "no sign of it": "there is no sign that G copies training examples",
    "too few to tell": "there are too few examples to tell whether G copies",
}


def section(folder: Path, newest: int) -> str:
    """Return the section of a run folder's scores; empty if there are none.

    Arguments:
        folder: The run folder.
        newest: How many images the run has shown to D.
    """
    if not (folder / "scores.json").is_file():
        return ""
    try:
        found = read(folder)
    except (OSError, ValueError):  # no JSON: no reason to go without a report
        found = []
    groups: dict[tuple[Protocol, int | None], list[Score]] = {}
    for score in found:
        groups.setdefault((replace(score.protocol, metric=""), score.images), []).append(score)
    kept = [*groups.values()][-GROUPS:]
    kept.sort(key=lambda group: -1 if group[0].images is None else group[0].images, reverse=True)
    shown = [_group(f"scores {i}", group, newest) for i, group in enumerate(kept)]
    left = len(found) - sum(map(len, kept))
    more = f'<p class="note">{left} older scores are in scores.json.</p>' if left else ""
    words = f"<p>{INTRODUCTION}</p>" if shown else f'<p class="note">{UNREADABLE}</p>'
    return f"\n<h2>Scores</h2>\n{words}\n{''.join(shown)}{more}{_nearest(folder, found)}"


def _group(name: str, scores: list[Score], newest: int) -> str:
    """Scores of one protocol: a table, and what there is to draw."""
    shared = [flag for flag in scores[0].flags if len(scores) > 1 and all(flag in each.flags for each in scores)]
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Score", "Value", "Floor", "Better"))
    by_key = {score.key: score for score in scores}
    charts = _classes(name, by_key) + _reach(name, by_key)
    return f"""<div class="scroll"><table class="scores">
<caption>{_caption(scores[0], newest)}{_flags(shared)}</caption><thead><tr>{heads}</tr></thead>
{"".join(_rows(score, shared) for score in scores)}</table></div>
{f'<div class="charts">{charts}</div>' if charts else ""}
"""


def _caption(score: Score, newest: int) -> str:
    at = score.protocol
    weights = f", weights {at.weights[:8]}" if at.weights else ""
    seen = "seen value by value (" if at.features == "pixels" else f"seen by the features {at.features} ("
    text = f" of {at.real} (split: {at.split}), {seen}resize: {at.resize}, rounding: {at.rounding}{weights}); "
    text += f"seed {at.seed}, organza {at.organza}, torch {at.torch}."
    if score.images not in (None, newest):
        text += f" Measured at {score.images:,} images; the run has reached {newest:,}."
    return f"<b>{at.n_fake:,} samples against {at.n_real:,} real examples</b>{escape(text)}"


def _rows(score: Score, shared: list[str]) -> str:
    error = "" if score.error is None else f" ±\N{NO-BREAK SPACE}{short(score.error, 2)}"
    floor = "none" if score.floor is None else short(score.floor, 4)
    words = MEANINGS.get(score.key, "")
    words += f" ± is the {score.error_of}." if error and score.error_of else ""
    whole = "\n".join(f"{name}: {value}" for name, value in asdict(score.protocol).items())
    return f"""<tbody><tr><th scope="row">{escape(score.name)}</th><td><b>{short(score.value, 4)}</b>{error}</td>
<td>{floor}</td><td>{BETTER[score.best]}</td></tr>
<tr><td colspan="4">{escape(words.strip())}{_flags([flag for flag in score.flags if flag not in shared])}
<details><summary>Protocol: {escape(score.protocol.metric)}</summary><pre>{escape(whole)}</pre></details>
</td></tr></tbody>
"""


def _flags(flags: list[str]) -> str:
    return "".join(f'<span class="flag">{escape(flag)}</span>' for flag in flags)


def _classes(name: str, scores: Mapping[str, Score]) -> str:
    """The histogram of classes, or of very many the line of their shares."""
    details = scores["class-entropy"].details if "class-entropy" in scores else {}
    shares, real = _numbers(details.get("shares")), _numbers(details.get("real_shares"))
    if not len(shares) or len(shares) != len(real):
        return ""
    keys = ""
    for who, colour, values in (("samples", G, shares), ("real examples", REAL, real)):
        keys += key(who, colour, f"{(values > 0).sum():,} of {len(values):,} classes")
    words = CLASSES if len(shares) <= BARS else RANKED
    divergence, chance = _number(details, "divergence"), _number(details, "divergence_floor")
    if divergence is not None and chance is not None:
        words += f" Kullback-Leibler divergence {short(divergence)} nats, where chance alone gives {short(chance)}."
    draw = _draw_bars if len(shares) <= BARS else _draw_ranked
    drawing = svg("Share of each class", f"{name} classes", lambda axes: draw(axes, shares, real))
    return chart("Classes", "share of each", keys, drawing, words)


def _draw_bars(axes: Axes, shares: Numbers, real: Numbers) -> None:
    places = np.arange(len(shares))
    axes.bar(places - 0.2, shares, 0.36, color=G)
    axes.bar(places + 0.2, real, 0.36, color=REAL)
    axes.set_xticks(places)
    axes.set_xlabel("class", color=INK)
    axes.grid(visible=False, axis="x")
    _per_cent(axes)


def _draw_ranked(axes: Axes, shares: Numbers, real: Numbers) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    ranks = np.unique(np.geomspace(1, len(shares), POINTS).round().astype(int))
    for values, colour in ((real, REAL), (shares, G)):
        axes.plot(ranks, np.sort(values)[::-1][ranks - 1], color=colour, linewidth=1.5, clip_on=False)
    axes.set(xscale="log", xlim=(1, len(shares)))
    axes.xaxis.set(minor_locator=NullLocator(), major_formatter=FuncFormatter(lambda x, _: short(x)))
    axes.set_xlabel("rank of the class, the most frequent first", color=INK)
    _per_cent(axes)


def _per_cent(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(0, None)
    axes.set_axisbelow(True)
    axes.yaxis.set(major_locator=MaxNLocator(4), major_formatter=FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))


def _reach(name: str, scores: Mapping[str, Score]) -> str:
    """The plane of precision over recall and of density over coverage."""
    pairs = [("recall", "precision", G), ("coverage", "density", MORE)]
    there = [(scores[x], scores[y], colour) for x, y, colour in pairs if x in scores and y in scores]
    there = [(x, y, colour) for x, y, colour in there if _place(x.value, y.value)]
    if not there:
        return ""
    keys, words = "", UP_AND_RIGHT
    for x, y, colour in there:
        more = ""
        if ring := _place(x.floor, y.floor):
            more, words = f" <small>ring {short(ring[0])}, {short(ring[1])}</small>", f"{UP_AND_RIGHT} {RINGS}"
        keys += key(f"{x.key}, {y.key}", colour, f"{short(x.value)}, {short(y.value)}", more)
    label = "Precision over recall, density over coverage"
    drawing = svg(label, f"{name} reach", lambda axes: _draw_reach(axes, there), square=True)
    return chart("Fidelity and variety", "each from 0 to 1", keys, drawing, words)


def _draw_reach(axes: Axes, there: list[tuple[Score, Score, str]]) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    for x, y, colour in there:
        if dot := _place(x.value, y.value):
            axes.errorbar(*dot, y.error, x.error, color=colour, linewidth=1.2)
            axes.plot(*dot, "o", color=colour, markersize=7, clip_on=False)
        if ring := _place(x.floor, y.floor):
            (line,) = axes.plot(*ring, "o", color=colour, markersize=11, clip_on=False)
            line.set(markerfacecolor="none", markeredgewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set(major_locator=MultipleLocator(0.2), major_formatter=FuncFormatter(lambda share, _: short(share)))
    axes.tick_params(pad=7)  # the two zeros do not touch
    axes.set_xlabel(", ".join(x.key for x, *_ in there), color=INK)
    axes.set_ylabel(", ".join(y.key for _, y, _ in there), color=INK)


def _place(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Where a pair of numbers is drawn, within the plane; None if they are not known."""
    if x is None or y is None or not math.isfinite(x + y):
        return None
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)


def _nearest(folder: Path, scores: list[Score]) -> str:
    """Samples beside the training examples nearest to them, and whether they are copies."""
    shown = pictures.nearest(folder / "evaluation" / "nearest.png", NEAREST)
    found = [score.details for score in scores if score.key == "memorised"][-1:]
    words = "".join(f"<p>{escape(_verdict(details))}</p>" for details in found)
    return f'<div class="nearest"><h3>Nearest training examples</h3>{words}{shown}</div>' if words or shown else ""


def _verdict(details: Mapping[str, Any]) -> str:
    verdict = str(details.get("verdict"))
    words = f"Verdict: {VERDICTS.get(verdict, verdict)}."
    p, fake, held = (_number(details, name) for name in ("p_value", "median_distance", "median_distance_held_out"))
    if p is not None:
        words += f" With probability {short(p)} chance alone makes samples of a G that copies nothing look so close."
    if fake is not None and held is not None:
        words += f" The median distance to the nearest training example is {short(fake)} for samples and"
        words += f" {short(held)} for held-out examples; less for samples is no proof: blurs lie close to everything."
    return words


def _number(details: Mapping[str, Any], name: str) -> float | None:
    value = details.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(values: Any) -> Numbers:
    """A list of finite numbers as an array; empty if it is none."""
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    return found if found.ndim == 1 and np.isfinite(found).all() else np.zeros(0)
