"""Charts: inline SVG in the page's own colours, drawn by matplotlib, with a title, keys and a caption in words."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "CYCLE", "GRID", "INK", "REST", "D", "G", "MORE", "REAL", "chart", "key", "short", "svg"]

# matplotlib draws in these colours, and the page replaces each by its own, light or dark.
COLOURS = {f"#0{i}fe0{i}": f"var(--{name})" for i, name in enumerate(("d", "real", "more", "g", "rest", "ink", "grid"))}
D, REAL, MORE, G, REST, INK, GRID = CYCLE = tuple(COLOURS)
WIDE = (5.0, 2.5), (0.11, 0.19, 0.86, 0.78)  # size in inches, and the axes' (left, bottom, width, height) within
SQUARE = (3.4, 3.4), (0.15, 0.14, 0.82, 0.83)


def chart(title: str, unit: str, keys: str, drawing: str, words: str) -> str:
    """Return a chart; all but the title is HTML already."""
    return f"""<figure><h3>{escape(title)} <small>{unit}</small></h3><p class="keys">{keys}</p>
{drawing}<figcaption>{words}</figcaption></figure>
"""


def key(name: str, colour: str, value: str, more: str = "") -> str:
    """Return what a colour stands for and a value of it; ``more`` is HTML already."""
    return f'<span><i style="background:{COLOURS[colour]}"></i>{escape(name)} <b>{escape(value)}</b>{more}</span>'


def short(value: float, digits: int = 3) -> str:
    """Return a number as a reader wants it: few digits, and a true minus."""
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:,.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def svg(label: str, name: str, draw: Callable[[Axes], None], square: bool = False) -> str:
    """Return a drawing as SVG.

    Arguments:
        label: What it shows, for those who do not see it.
        name: A name that no other drawing of the page has: ids are made from it.
        draw: Draws on the axes, in the keys of COLOURS.
        square: Whether it is as high as wide.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    size, box = SQUARE if square else WIDE
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a page does not depend on the settings of who made it
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name})
        figure = Figure(figsize=size, facecolor="none")
        axes = figure.add_axes(box, facecolor="none")
        axes.grid(color=GRID, linewidth=0.8)
        draw(axes)
        axes.tick_params(length=0, labelcolor=INK)
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
    kind, (width, height) = ' class="square"' * square, size
    return f'<svg role="img" aria-label="{escape(label)}"{kind} viewBox="0 0 {72 * width:g} {72 * height:g}">{body}'
