"""The command line: a thin shell around ``organza.api``.

Exit codes: 0 done; 2 the user's mistake, one clear line each, nothing written; 1 our mistake, with a traceback;
130 or 143 stopped by Ctrl-C or SIGTERM, with everything saved.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from organza.model import Model
    from organza.training import State

__all__ = ["app", "main"]

app = typer.Typer(
    name="organza",
    help="Train, measure, explain and ship generative adversarial networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.")]
Images = Annotated[int | None, typer.Option(min=1, help="Length of the run: images shown to D.")]
Minutes = Annotated[float | None, typer.Option(help="Length in minutes: the speed is measured, then fixes --images.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="digits, mnist, ring, grid25, ... or an .npy or .npz file.")] = "digits",
    recipe: Annotated[str, typer.Option(help="See: organza recipes.")] = "quick",
    run: Annotated[str | None, typer.Option(help="The run folder to make. [default: runs/DATA-RECIPE-NUMBER]")] = None,
    images: Images = None,
    minutes: Minutes = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything: weights, order, noise, dropout.")] = 0,
    device: Device = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the plan.")] = None,
    as_json: Json = False,
) -> None:
    """Train a GAN; with no argument, on the built-in digits, in under three minutes on two cores."""
    changes = _changes(set_ or [])
    with _playing(as_json) as watch:
        from organza import api

        watch.say(f"reading {data}")
        model = api.train(
            data,
            recipe,
            run=run,
            images=images,
            minutes=minutes,
            seed=seed,
            device=device,
            changes=changes,
            watch=watch,
        )
    watch.close(model)


@app.command()
def resume(
    run: Run,
    data: Annotated[str | None, typer.Option(help="The data, if its file has moved.")] = None,
    images: Images = None,
    minutes: Minutes = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Continue a run exactly where its last checkpoint was made."""
    with _playing(as_json) as watch:
        from organza import api

        watch.say(f"reading {run}")
        model = api.resume(run, data=data, images=images, minutes=minutes, device=device, watch=watch)
    watch.close(model)


@app.command()
def sample(
    run: Run,
    n: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many samples.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same samples.")] = 0,
    out: Annotated[str | None, typer.Option(help="FILE.png (a grid), FILE.npz (an array) or a folder/.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw samples from a trained run."""
    target = out or str(Path(run) / f"sample-{n}-{seed}.png")
    if not target.endswith("/") and Path(target).suffix not in (".png", ".npz") and not Path(target).is_dir():
        raise ValueError(f"--out {target}: must end in .png (a grid), .npz (an array) or / (a folder of pictures)")
    from organza import api

    model = api.load(run, device=device)
    written = _write_samples(model.sample(n, seed).cpu(), target)
    _print({"out": written, "n": n, "seed": seed}, f"{n} samples: {written}", as_json)


def _write_samples(x: Any, target: str) -> str:
    """Write samples as a grid, an array or a folder of pictures; return where."""
    import numpy as np

    from organza import picture

    if target.endswith("/") or Path(target).is_dir():
        if x.ndim != 4:
            raise ValueError(f"--out {target}: a folder takes pictures, these are vectors; use FILE.npz or FILE.png")
        for i, each in enumerate(x):
            picture.save(picture.grid(each[None]), Path(target) / f"{i:06d}.png")
    elif target.endswith(".npz"):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, x=(picture.to_uint8(x) if x.ndim == 4 else x).numpy())
    else:
        drawn = picture.draw(x)
        if drawn is None:
            raise ValueError(f"--out {target}: {tuple(x.shape[1:])} is no picture; use FILE.npz")
        picture.save(drawn, target)
    return target


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print the complete plan of this one.")] = None,
    data: Annotated[str, typer.Option(help="The data the plan is made for.")] = "digits",
    as_json: Json = False,
) -> None:
    """List the recipes, or print one's reference and complete plan."""
    from organza.recipes import RECIPES
    from organza.recipes import recipe as named

    if name is None:
        lines = {each: (make.__doc__ or "").split("\n")[0] for each, make in RECIPES.items()}
        width = max(map(len, lines))
        _print(lines, "\n".join(f"{each:{width}}  {line}" for each, line in lines.items()), as_json)
        return
    make = named(name)
    from inspect import getdoc

    from organza import api
    from organza.data import open_data

    plan = api.prepare(open_data(data), name).json()
    _print(plan, f"{getdoc(make)}\n\n{json.dumps(plan, indent=2)}", as_json)


def _changes(settings: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE settings; a value is JSON where it can be read as such, else text."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {setting}: must be KEY=VALUE, e.g. --set training.batch=32")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes


def _print(record: Mapping[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(record) if as_json else text)


class _Watch:
    """Shows how a training goes, and ends it when asked to: a bar on a terminal, else a plain line now and then."""

    def __init__(self, as_json: bool) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.console = Console(stderr=True)
        self.bar: Any = None
        self.task: Any = None
        self.state: State | None = None
        self.signal: int | None = None
        self.begin = self.shown = time.monotonic()
        self.first = 0
        self.expected: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print a line about what is being done."""
        self.console.print(text, style="dim", highlight=False, soft_wrap=True)

    def stop(self, number: int, frame: object) -> None:
        """Ask for the end after this round; a second signal ends the program at once."""
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        self.say("stopping: saving first (again to stop at once)")

    def __call__(self, state: State) -> bool:
        now = time.monotonic()
        if self.state is None:
            self._start(state, now)
        every = 0.2 if self.bar is not None else 10.0
        if now - self.shown >= every or state.images >= state.training.images:
            self.shown = now
            self._show(state, now)
        return self.signal is not None

    def _start(self, state: State, now: float) -> None:
        self.state, self.begin, self.shown, self.first = state, now, now, state.images
        self.expected = state.game.equilibrium()
        sizes = [sum(w.numel() for w in net.parameters()) for net in state.game.players.values()]
        self.say(
            f"G {sizes[1]:,} parameters, D {sizes[0]:,}; {state.training.images:,} images on {state.device}; "
            "in brackets: the value at equilibrium"
        )
        if self.console.is_terminal and not self.as_json:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} images"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=state.training.images, completed=state.images, line="")
            self.bar.start()

    def _show(self, state: State, now: float) -> None:
        speed = (state.images - self.first) / max(now - self.begin, 1e-9)
        line = f"{speed:,.0f} images/s  {self._losses(state.latest)}"
        if self.bar is not None:
            self.bar.update(self.task, completed=state.images, line=line)
        elif not self.as_json:
            left = max(0.0, (state.training.images - state.images) / max(speed, 1e-9))
            print(f"{state.images:,}/{state.training.images:,} images  {line}  {left:.0f} s left", flush=True)

    def _losses(self, latest: Mapping[str, float]) -> str:
        shown = {
            "D": "discriminator/objective",
            "G": "generator/objective",
            "D(x)": "discriminator/real_score",
            "D(G(z))": "discriminator/fake_score",
        }
        values = {name: (latest[key], self.expected.get(key)) for name, key in shown.items() if key in latest}
        return "  ".join(
            f"{name} {value:.3f}" + ("" if aim is None else f" ({aim:.3f})") for name, (value, aim) in values.items()
        )

    def end(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()

    def close(self, model: Model) -> None:
        """Say where everything is and what to do next."""
        from organza.run import Run as Folder

        folder = model.run
        assert folder is not None
        last = max((int(p.stem) for p in (folder / "samples").glob("*.png")), default=None)
        record = {
            "run": str(folder),
            "images": max(Folder(folder).checkpoints(), default=0),
            "seconds": round(time.monotonic() - self.begin, 1),
            "grid": None if last is None else str(folder / "samples" / f"{last}.png"),
            "report": str(folder / "report.html"),
            "stopped": self.signal is not None,
        }
        next_ = f"organza resume {folder}" if self.signal else f"organza sample {folder} -n 100 --seed 1 --out grid.png"
        lines = [f"{name:7} {record[name]}" for name in ("grid", "report") if record[name]]
        said = f"stopped at {record['images']:,} images" if self.signal else f"done: {record['images']:,} images"
        _print(record, "\n".join([f"{said}, {record['seconds']} s", *lines, f"next    {next_}"]), self.as_json)
        if self.signal:
            raise typer.Exit(128 + self.signal)


@contextmanager
def _playing(as_json: bool) -> Iterator[_Watch]:
    """A watch that Ctrl-C and SIGTERM end gently."""
    watch = _Watch(as_json)
    before = {number: signal.signal(number, watch.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield watch
    finally:
        watch.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Run the command and exit."""
    warnings.showwarning = lambda message, *_, **__: print(f"organza: warning: {message}", file=sys.stderr)
    sys.exit(_run(app))


def _run(command: Callable[..., Any]) -> int:
    """Run the command; a user's mistake becomes one line each on standard error."""
    try:
        return int(command(prog_name="organza", standalone_mode=False) or 0)
    except ValueError as error:
        return _mistake(str(error))
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `organza` alone
            print(str(error) or error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):  # the parser's own: unknown option, missing argument, bad number
            return _mistake(error.format_message() + _typed(error.format_message()))
        if type(error).__name__ in ("Exit", "Abort"):
            return int(getattr(error, "exit_code", 1))
        raise


def _typed(message: str) -> str:
    """What was typed for the option that the parser complains of, which it does not say itself."""
    option = re.search(r"value for '(--?[\w-]+)'", message)
    words = sys.argv[1:-1]
    return f", got {sys.argv[words.index(option[1]) + 2]!r}" if option and option[1] in words else ""


def _mistake(text: str) -> int:
    lines = text.splitlines()
    if "--json" in sys.argv:
        print(json.dumps({"error": lines}))
    for line in lines:
        print(f"organza: {line}", file=sys.stderr)
    return 2
