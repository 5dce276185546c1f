"""The report: a run as one HTML page that needs nothing else, neither a script nor the network.

The page is a function of the run folder, byte for byte: it tells no time but the log's.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from organza import picture
from organza.run import Run, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["write"]

T = TypeVar("T")
Numbers = NDArray[np.float64]
Columns = dict[str, tuple[Numbers, Numbers]]  # {column of the log: (images, values)}
Line = tuple[str, str, Numbers, Numbers, float | None]  # name, colour, images, values, value at equilibrium if known

# At most so many, that a page stays below 3 MB: points of a line, frames of the film, charts of one column each.
POINTS, FRAMES, CHARTS = 1000, 40, 12
SIDE, GRID_BYTES, FILM_BYTES = 512, 750_000, 1_200_000
# matplotlib draws in these colours, and the page replaces each by its own, light or dark.
COLOURS = {f"#0{i}fe0{i}": f"var(--{name})" for i, name in enumerate(("d", "real", "more", "g", "rest", "ink", "grid"))}
D, REAL, MORE, G, REST, INK, GRID = CYCLE = tuple(COLOURS)
# Columns with charts of their own.
USUAL = re.compile(r"images|steps|time|.*/objective|.*/gradient|.*/(real|fake)_(logits|score|accuracy)")
HIDDEN = re.compile(r"organza|kind|recipe|joint|accumulate|generator_batch|channels_last|.*_every")  # not for the table
NAMES = {"half_life": "EMA half-life, in images", "generator_optimizer": "G’s optimizer"}
NAMES |= {"discriminator_optimizer": "D’s optimizer", "prior": "Prior of z"}
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
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--text:#1b1f27;--ink:#5b6270;--grid:#e6e8ec;--wash:#f5f6f8;
--d:#d9580d;--g:#2b6be4;--real:#0d8a6a;--more:#8a4fd3;--rest:#7b8494}
@media(prefers-color-scheme:dark){:root{--paper:#14161b;--text:#e8eaef;--ink:#9aa3b2;--grid:#2a2e37;--wash:#1c1f26;
--d:#ff9354;--g:#74a5ff;--real:#43c9a2;--more:#bf92f7;--rest:#9aa3b2}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:68.5rem;margin:0 auto;padding:2.2rem 1.2rem 4rem;overflow-wrap:anywhere}
h1{font-size:2rem;line-height:1.2;margin:0} h3{font-size:1rem;margin:0} figure{margin:0;min-width:0}
h2{font-size:1.3rem;margin:2.8rem 0 .9rem;padding-top:1.1rem;border-top:1px solid var(--grid)}
small,.facts,.note,figcaption,th{color:var(--ink);font-weight:400} small,figcaption,.keys,pre{font-size:.88rem}
.facts{margin:.3rem 0 1.6rem} figcaption{margin-top:.5rem} .pictures{display:flex;flex-wrap:wrap;gap:1.6rem 1.2rem}
img{display:block;max-width:100%;height:auto;outline:1px solid var(--grid);border-radius:4px}
.small{image-rendering:pixelated}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,23rem),1fr));gap:2.2rem 2.4rem}
.keys{display:flex;flex-wrap:wrap;gap:0 1.1rem;margin:.1rem 0 .4rem} .keys em{color:var(--d);font-style:normal}
.keys i{display:inline-block;width:1rem;height:.2rem;border-radius:2px;margin-right:.4rem;vertical-align:middle}
svg{display:block;width:100%;height:auto;overflow:visible} svg *{stroke-linejoin:round} svg text{font-family:inherit}
table{border-collapse:collapse;font-size:.94rem} th{overflow-wrap:normal} details{margin-top:1rem}
th,td{text-align:left;vertical-align:top;padding:.3rem 1.4rem .3rem 0;border-bottom:1px solid var(--grid)}
pre{background:var(--wash);border-radius:6px;padding:.7rem 1rem;overflow-x:auto;overflow-wrap:normal}
"""


def write(run: Run, equilibrium: Mapping[str, float] = {}) -> Path:
    """Writes report.html into the run folder and, where there are two pictures or more, progress.gif.

    Arguments:
        run: The run, finished or not.
        equilibrium: By column of the log ("generator/objective"), its value where G's samples cannot be told from
            data; only what is known.

    Returns:
        The path of the page.

    Raises:
        ValueError: The plan or the log is damaged.
    """
    plan, columns = run.plan, _columns(run.records())
    shown = int(max((x[-1] for x, _ in columns.values()), default=0))
    goal = str(_settings(plan).get("images"))
    aim = int(goal) if goal.isdecimal() else 0
    speed, seconds = _speed(*columns.pop("time", (NOTHING, NOTHING)))
    recipe = plan.get("recipe") or ("Your own game" if "python" in plan else "A GAN")
    name = escape(f"{recipe} on {_words(plan.get('data', 'data'))}")
    facts = [f"{shown:,} of {aim:,} images" if aim > shown else f"{shown:,} images"]
    if seconds:
        facts += [f"trained for {timedelta(seconds=round(seconds))}", f"{shown / seconds:,.0f} images a second"]
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{name} – organza</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body><main>
<h1>{name}</h1><p class="facts">{" · ".join(facts)}</p>
{_pictures(run.path)}
<h2>Curves</h2>
{_curves(columns, equilibrium, speed)}
<h2>The plan</h2>
{_plan(plan)}
<h2>What next</h2>
{_next(str(run.path), 2 * max(shown, aim), "python" in plan)}
</main></body></html>
"""
    write_text(run.path / "report.html", page)
    return run.path / "report.html"


def _columns(records: Iterable[Mapping[str, Any]]) -> Columns:
    """The numbers of the log; what is not finite is NaN."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.items():
            if "images" in record and (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
                found.setdefault(name, []).append((record["images"], float(value)))
    columns = {name: np.array(pairs, np.float64).T for name, pairs in found.items()}
    return {name: (x, np.where(np.isfinite(y), y, np.nan)) for name, (x, y) in columns.items()}


def _speed(images: Numbers, times: Numbers) -> tuple[tuple[Numbers, Numbers], float]:
    """Images a second at each record, and the seconds in all, both without pauses (from a stop to a resume)."""
    dx, dt = np.diff(images), np.diff(times)
    dx, dt, at = (each[(dx > 0) & (dt > 0)] for each in (dx, dt, images[1:]))
    if not len(at):
        return (at, at), 0.0
    usual = float(np.median(dt / dx))
    kept = dt / dx <= 10 * usual
    untimed = images[-1] - dx[kept].sum()  # before the first record, and around pauses
    return (at[kept], (dx / dt)[kept]), float(dt[kept].sum() + usual * untimed)


def _short(value: float) -> str:
    return (f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}").replace("-", "−")


def _pictures(folder: Path) -> str:
    paths = sorted((int(path.stem), path) for path in (folder / "samples").glob("*.png") if path.stem.isdecimal())
    opened = [(images, image) for images, path in _evenly(paths, FRAMES) if (image := _open(path)) is not None]
    if not opened:
        return '<p class="note">There are no pictures of samples in this run.</p>'
    newest, grid = opened[-1][0], opened[-1][1].copy()
    film = [(images, image) for images, image in opened if image.size == grid.size]
    while (over := len(uri := picture.data_uri(grid)) * 3 / 4 / GRID_BYTES) > 1:
        grid.thumbnail((int(grid.width / over**0.5), int(grid.height / over**0.5)))
    shown = [(uri, grid, f"G’s samples after {newest:,} images.")]
    if len(film) > 1:
        path = folder / "progress.gif"
        count, frame = _film([image for _, image in film], path)
        uri = "data:image/gif;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        text = f"The same z in {count} pictures, from {film[0][0]:,} to {newest:,} images (progress.gif)."
        shown.append((uri, frame, text))
    figures = ""
    for uri, image, text in shown:
        scale = max(1, SIDE // max(image.size))  # whole, so that all pixels are of one size
        size = f'class="{"small" * (scale > 1)}" width="{scale * image.width}" height="{scale * image.height}"'
        figures += f'<figure><img src="{uri}" alt="{text}" {size}><figcaption>{text}</figcaption></figure>'
    return f'<div class="pictures">{figures}</div>'


def _open(path: Path) -> Image | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert(image.mode if image.mode in ("L", "RGB", "RGBA") else "RGBA")
    except OSError:  # no picture; no reason to go without a report
        return None


def _film(images: list[Image], path: Path) -> tuple[int, Image]:
    """Writes a film of FILM_BYTES at most, with fewer frames or else smaller ones; how many, and the last one."""
    count, side = len(images), min(SIDE, max(images[0].size))
    while True:
        frames = [image.copy() for image in _evenly(images, count)]
        for frame in frames:
            frame.thumbnail((side, side))
        picture.gif(frames, path)
        over = path.stat().st_size / FILM_BYTES
        if over <= 1 or side <= 64:
            return count, frames[-1]
        count, side = (max(12, int(count / over)), side) if count > 12 else (count, int(side / over**0.5))


def _evenly(items: list[T], most: int) -> list[T]:
    """At most so many of the items, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in chosen]


def _curves(columns: Columns, levels: Mapping[str, float], speed: tuple[Numbers, Numbers]) -> str:
    def lines(*keys: tuple[str, str, str]) -> list[Line]:
        return [(name, colour, *columns[k], levels.get(k)) for k, name, colour in keys if k in columns]

    losses = lines(("discriminator/objective", "D", D), ("generator/objective", "G", G))
    scores = lines(("discriminator/real_score", "D(x)", REAL), ("discriminator/fake_score", "D(G(z))", G))
    values = np.concatenate([NOTHING, *(y for *_, y, _ in scores)])
    logits = columns.get("discriminator/real_logits", (NOTHING, NOTHING))[1]
    plain = bool(scores) and np.array_equal(scores[0][3], logits, equal_nan=True)  # the score is the logit itself
    chance = not plain and not (values < 0).any() and not (values > 1).any()
    said = ("chance of being real", CHANCES, (0, 1)) if chance else ("logits: more is more real", LOGITS, None)
    right = lines(("discriminator/real_accuracy", "data", REAL), ("discriminator/fake_accuracy", "samples", G))
    slopes = lines(("discriminator/gradient", "D", D), ("generator/gradient", "G", G))
    rest = sorted(key for key in columns if not USUAL.fullmatch(key))
    terms = [key.split("/", 1) for key in rest if key.startswith(("discriminator/", "generator/"))]
    named = [(f"{who}/{term}", f"{who[0].upper()}’s {term}", CYCLE[i % 5]) for i, (who, term) in enumerate(terms)]
    alone = [key for key in rest if not key.startswith(("discriminator/", "generator/"))]
    charts = [
        _chart("Losses", losses, "without penalties", LOSSES),
        _chart("What D says", scores, *said),
        _chart("D is right", [(*line[:4], 0.5) for line in right], "share of its verdicts", RIGHT, (0, 1)),
        _chart("Gradients", slopes, "norms", SLOPES, (0, None)),
        _chart("Penalties and other terms", lines(*named), "before their weights", TERMS),
        *(_chart(key, lines((key, key, MORE)), "measured on the way") for key in alone[:CHARTS]),
        _chart("Speed", [("images a second", REST, *speed, None)], "", SPEED, (0, None)),
    ]
    left = f'<p class="note">{len(alone) - CHARTS} more columns are in log.jsonl.</p>' if len(alone) > CHARTS else ""
    none = '<p class="note">There are no curves in the log yet.</p>'
    return f'<div class="charts">{"".join(charts)}</div>{left}' if any(charts) else none


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
        keys += f'<span><i style="background:{COLOURS[colour]}"></i>{escape(name)} <b>{_short(values[~bad][-1])}</b>'
        keys += f" <small>dashed {_short(level)}</small>" if level is not None else ""
        keys += f" <em>not finite at {images[bad][0]:,.0f} images</em></span>" if bad.any() else "</span>"
    return f"""<figure><h3>{escape(title)} <small>{unit}</small></h3><p class="keys">{keys}</p>
{_svg(title, lines, limits)}<figcaption>{words}</figcaption></figure>
"""


def _svg(title: str, lines: list[Line], limits: tuple[float, float | None] | None) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a page does not depend on the settings of who made it
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": title})
        figure = Figure(figsize=(5, 2.5), facecolor="none")
        axes = figure.add_axes((0.11, 0.19, 0.86, 0.78), facecolor="none")
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
        axes.yaxis.set(major_locator=MaxNLocator(5), major_formatter=FuncFormatter(lambda y, _: _short(y)))
        axes.tick_params(length=0, labelcolor=INK)
        axes.grid(color=GRID, linewidth=0.8)
        axes.spines[:].set_visible(False)
        file = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # The page names fonts and colours; ids, but those of clips, would clash with the next chart's.
    body = file.getvalue().split("<svg")[1].partition(">")[2]
    body = re.sub(r"<metadata.*?</metadata>|<style.*?</style>|font-family: [^;]*;", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for drawn, shown in COLOURS.items():
        body = body.replace(drawn, shown)
    return f'<svg role="img" aria-label="{escape(title)} over images" viewBox="0 0 360 180">{body}'


def _thin(images: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """At most POINTS points, with every peak and valley: the ends, and the extremes of each bin."""
    if len(images) <= POINTS:
        return images, values
    bins = np.array_split(np.arange(len(images)), POINTS // 2 - 1)
    extremes = [part[find(values[part])] for part in bins for find in (np.argmin, np.argmax)]  # a NaN is both
    index = np.unique([0, *extremes, len(images) - 1])
    return images[index], values[index]


def _settings(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan on one level; a game made in Python is known by the names of its classes."""
    settings: dict[str, Any] = {}
    for name, value in plan.items():
        inner = name in ("python", "game", "training") and isinstance(value, Mapping)
        settings |= _settings(value) if inner else {name: value}
    return settings


def _plan(plan: Mapping[str, Any]) -> str:
    rows = ""
    for name, value in _settings(plan).items():
        if not (value is None or value is False or value == [] or HIDDEN.fullmatch(name)):
            name = NAMES.get(name, name.replace("_", " ").capitalize())
            rows += f'<tr><th scope="row">{escape(name)}</th><td>{escape(_words(value))}</td></tr>\n'
    text = escape(json.dumps(plan, indent=2, ensure_ascii=False))
    return f"<table>{rows}</table><details><summary>All of plan.json</summary><pre>{text}</pre></details>"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = {name: _words(each) for name, each in value.items() if name != "kind" and each is not None}
        kind, inner = str(value.get("kind", "")), ", ".join(f"{name} {each}" for name, each in rest.items())
        if rest.keys() == {"start", "end", "images"}:
            return f"{rest['start']} → {rest['end']} over {rest['images']} images ({kind.lower()})"
        return f"{kind} ({inner})" if inner else kind
    if isinstance(value, list):
        text = ", ".join(map(_words, value))
        return f"({text})" if value and isinstance(value[0], int | float) else text
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value == round(value) and abs(value) >= 10_000 else f"{value:g}"
    return str(value)


def _next(path: str, images: int, own: bool) -> str:
    run, name = shlex.quote(path), repr(path)
    load = (
        f"import organza\n\nmodel = organza.load({name}{', generator=MyGenerator(), prior=organza.Normal(64)' * own})\n"
    )
    more = {"Samples in Python:": load + "model.sample(64, seed=0)  # 64 images in [-1, 1]"}
    if own:  # only the user's program knows its networks
        more |= {"Train on, to twice the images:": f"organza.fit(game, data, run={name}, images={images})"}
    else:
        more |= {"Samples as a picture:": f"organza sample {run} -n 64 --seed 1 --out grid.png"}
        more |= {"Train on, to twice the images:": f"organza resume {run} --images {images}"}
    return "\n".join(f"<p>{words}</p><pre>{escape(code)}</pre>" for words, code in more.items())
