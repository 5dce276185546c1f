"""The report: a run as one HTML page that needs nothing else, neither a script nor the network.

The page is a function of the run folder, byte for byte: it tells no time but the log's.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

from organza.pretrained import classes, translates, use
from organza.report import curves, data, pictures, scores
from organza.run import Run, write_text

__all__ = ["planned", "write"]

HIDDEN = re.compile(r"organza|kind|recipe|joint|accumulate|generator_batch|channels_last|.*_every")  # not for the table
NAMES = {"half_life": "EMA half-life, in images", "generator_optimizer": "G’s optimizer"}
NAMES |= {"discriminator_optimizer": "D’s optimizer", "prior": "Prior of z"}
NEAREST = "Two and two are a pair: a sample, left, and the training image nearest to it, right."
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--text:#1b1f27;--ink:#5b6270;--grid:#e6e8ec;--wash:#f5f6f8;
--d:#d9580d;--g:#2b6be4;--real:#0d8a6a;--more:#8a4fd3;--rest:#7b8494;--warn:#b04400}
@media(prefers-color-scheme:dark){:root{--paper:#14161b;--text:#e8eaef;--ink:#9aa3b2;--grid:#2a2e37;--wash:#1c1f26;
--d:#ff9354;--g:#74a5ff;--real:#43c9a2;--more:#bf92f7;--rest:#9aa3b2;--warn:#ff9354}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:68.5rem;margin:0 auto;padding:2.2rem 1.2rem 4rem;overflow-wrap:anywhere}
h1{font-size:2rem;line-height:1.2;margin:0} h3{font-size:1rem;margin:0} figure{margin:0;min-width:0}
h2{font-size:1.3rem;margin:2.8rem 0 .9rem;padding-top:1.1rem;border-top:1px solid var(--grid)}
small,.facts,.note,figcaption,th{color:var(--ink);font-weight:400} small,figcaption,.keys,pre{font-size:.88rem}
.facts{margin:.3rem 0 1.6rem} figcaption{margin-top:.5rem} .pictures{display:flex;flex-wrap:wrap;gap:1.6rem 1.2rem}
img{display:block;max-width:100%;height:auto;outline:1px solid var(--grid);border-radius:4px}
.small{image-rendering:pixelated} @media(prefers-reduced-motion:reduce){.film{display:none}}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,23rem),1fr));gap:2.2rem 2.4rem}
.keys{display:flex;flex-wrap:wrap;gap:0 1.1rem;margin:.1rem 0 .4rem} .keys em{color:var(--warn);font-style:normal}
.keys i{display:inline-block;width:1rem;height:.2rem;border-radius:2px;margin-right:.4rem;vertical-align:middle}
svg{display:block;width:100%;height:auto;overflow:visible} svg *{stroke-linejoin:round} svg text{font-family:inherit}
table{border-collapse:collapse;font-size:.94rem} th{overflow-wrap:normal} details{margin-top:1rem}
th,td{text-align:left;vertical-align:top;padding:.3rem 1.4rem .3rem 0;border-bottom:1px solid var(--grid)}
pre{background:var(--wash);border-radius:6px;padding:.7rem 1rem;overflow-x:auto;overflow-wrap:normal}
.scroll{overflow-x:auto;margin:1.6rem 0} .scores{width:100%} caption{text-align:left;padding-bottom:.5rem}
.scores th,.scores td{overflow-wrap:normal;padding-right:.9rem} thead th{width:22%;font-size:.88rem}
.scores tr:first-child>*{border:0;padding-bottom:0} .scores tbody th{color:inherit}
.scores [colspan]{font-size:.88rem;color:var(--ink);padding:0 0 .5rem} .scores details{margin:0}
.scores pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0}
.flag{display:block;font-size:.88rem;color:var(--warn)} .square{max-width:21.5rem}
.bars td{overflow-wrap:normal} .bars td:nth-child(2){width:min(28vw,20rem)}
.bars i{display:block;height:.8rem;margin-top:.4rem;background:var(--real)}
.nearest{margin-top:2.2rem} .nearest figure{overflow-x:auto} .nearest img{min-width:28rem}
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
    plan, columns = run.plan, curves.columns(run.records())
    logged, aim = int(max((x[-1] for x, _ in columns.values()), default=0)), planned(plan)
    shown = max([logged, *run.checkpoints()])  # a stop saves between two lines of the log
    speed, seconds = curves.speed(*columns.pop("time", (curves.NOTHING, curves.NOTHING)))
    recipe = plan.get("recipe") or ("Your own game" if "python" in plan else "A GAN")
    name = escape(f"{recipe} on {_words(plan.get('data', 'data'))}")
    facts = [f"{shown:,} of {aim:,} images" if aim > shown else f"{shown:,} images"]
    if seconds:
        facts += [f"trained for {timedelta(seconds=round(seconds))}", f"{logged / seconds:,.0f} images a second"]
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{name} – organza</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body><main>
<h1>{name}</h1><p class="facts">{" · ".join(facts)}</p>
{pictures.samples(run.path)}{scores.section(run.path, shown) + _nearest(run.path)}
<h2>Curves</h2>
{curves.curves(columns, equilibrium, speed)}
{data.section(run.path)}<h2>The plan</h2>
{_plan(plan)}
<h2>What next</h2>
{_next(run.path.as_posix(), plan, shown, aim)}
</main></body></html>
"""
    write_text(run.path / "report.html", page)
    return run.path / "report.html"


def planned(plan: Mapping[str, Any]) -> int:
    """The images that a run shall see by its plan; 0 where that of a game made in Python does not tell."""
    images = str(_settings(plan).get("images"))
    return int(images) if images.isdecimal() else 0


def _nearest(folder: Path) -> str:
    """The last samples beside the training images nearest to them, unless an evaluation has chosen some."""
    if (folder / "evaluation" / "nearest.png").exists():
        return ""
    shown = pictures.nearest(folder / "nearest.png", NEAREST)
    return f'<div class="nearest"><h3>Nearest training examples</h3>{shown}</div>' if shown else ""


def _settings(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan on one level; a game made in Python is known by the names of its classes."""
    settings: dict[str, Any] = {}
    for name, value in plan.items():
        inner = name in ("python", "game", "training") and isinstance(value, Mapping)
        if name == "values" and isinstance(value, Mapping):  # of many coordinates a mean and a deviation each
            value = value.get("dtype")
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


def _next(path: str, plan: Mapping[str, Any], shown: int, aim: int) -> str:
    own, run, images = "python" in plan, shlex.quote(path), 2 * max(shown, aim)
    load = f"{path!r}, generator=MyGenerator(), prior=organza.Normal(64)" if own else repr(path)
    count = classes(plan)
    labels = f"torch.arange(64) % {count}" if plan.get("labels") else f"torch.zeros(64, {count})"
    given = f"64, seed=0, y={labels}" if count else "64, seed=0"
    more = {
        "Samples in Python:": f"import organza\n{'import torch' * bool(count)}\nmodel = organza.load({load})\n"
        f"x = model.sample({given})\nmodel.restore(x)  # in the data’s own numbers"
    }
    if translates(plan.get("generator")):
        more = {"An image from each of a folder's:": use(path, plan)}
    elif not own:
        more |= {"More samples:": use(path, plan, 64)}
    if own:  # only the user's program knows its networks
        more |= {"Train on, to twice the images:": f"organza.fit(game, data, run={path!r}, images={images})"}
    elif shown < aim:
        more |= {"Train on, to the length that was planned:": f"organza resume {run}"}
    elif _spanned(plan, aim):
        data, recipe = (str(plan.get(name)) for name in ("data", "recipe"))
        words = "A longer one, anew, as the learning rate has fallen to its end (with what else was set, if anything):"
        anew = f"organza train {shlex.quote(data)} --recipe {shlex.quote(recipe)} --images {images}"
        more |= {words: f"organza.train(x, {recipe!r}, images={images})" if data == "array" else anew}
    else:
        more |= {"Train on, to twice the images:": f"organza resume {run} --images {images}"}
    return "\n".join(f"<p>{words}</p><pre>{escape(code)}</pre>" for words, code in more.items())


def _spanned(plan: Mapping[str, Any], aim: int) -> bool:
    """Whether a learning rate falls over just this run, or to 0 before, so that its end is no place to go on from."""
    training = _settings(plan)
    rules = (training.get(f"{player}_optimizer") for player in ("generator", "discriminator"))
    rates = [rule.get("lr") for rule in rules if isinstance(rule, Mapping)]
    falls = [
        (rate.get("hold", 0) + rate.get("images", 0), rate.get("end")) for rate in rates if isinstance(rate, Mapping)
    ]
    return any(last == aim or (0 < last <= aim and end == 0) for last, end in falls)
