"""How a training goes, shown while it goes; and how Ctrl-C and SIGTERM end it, with everything saved."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from organza.model import Model
    from organza.training import State

__all__ = ["Watch", "measuring", "playing", "unread"]

# How a line is printed: names of data hold brackets, which Rich would take for its markup.
_AS_IT_IS: Any = {"style": "dim", "highlight": False, "soft_wrap": True, "markup": False, "emoji": False}


def unread() -> None:
    """Let what is still printed go nowhere, since who read it has gone, as `| head` does."""
    with suppress(ValueError):  # it is no file
        there, nowhere = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, there)
        os.close(nowhere)


def speaker() -> bool:
    """Whether this process speaks: of several, which torchrun starts, the first does."""
    return int(os.environ.get("WORLD_SIZE") or 1) == 1 or int(os.environ.get("RANK") or 0) == 0


class Watch:
    """Shows how a training goes, and ends it when asked to: a bar on a terminal, else a plain line now and then."""

    def __init__(self, as_json: bool) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.quiet = not speaker()
        self.console = Console(stderr=True, quiet=self.quiet)
        self.bar: Any = None
        self.task: Any = None
        self.state: State | None = None
        self.signal: int | None = None
        self.handlers: dict[signal.Signals, Any] = {}
        self.begin = self.shown = time.monotonic()
        self.first = 0
        self.expected: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print a line about what is being done."""
        self.console.print(text, **_AS_IT_IS)

    def listen(self) -> None:
        """Let Ctrl-C and SIGTERM ask for a gentle end, now that there is something to save; before, they end all."""
        self.handlers = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}

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
        self.listen()
        self.expected = state.game.equilibrium()
        sizes = [sum(w.numel() for w in net.parameters()) for net in state.game.players.values()]
        self.say(
            f"G {sizes[1]:,} parameters, D {sizes[0]:,}; {state.training.images:,} images on {state.device}; "
            "in brackets: the value at equilibrium"
        )
        if self.console.is_terminal and not (self.as_json or self.quiet):
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} images"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[line]}", markup=False),
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
        elif not (self.as_json or self.quiet):
            left = max(0.0, (state.training.images - state.images) / max(speed, 1e-9))
            try:
                print(f"{state.images:,}/{state.training.images:,} images  {line}  {left:.0f} s left", flush=True)
            except BrokenPipeError:  # as if asked to stop, so that all is saved
                unread()
                self.signal = getattr(signal, "SIGPIPE", signal.SIGTERM)

    def _losses(self, latest: Mapping[str, float]) -> str:
        shown = {
            "D": "discriminator/objective",
            "G": "generator/objective",
            "D(x)": "discriminator/real_score",
            "D(G(z))": "discriminator/fake_score",
            "M": "discriminator/convergence",
        }
        values = {name: (latest[key], self.expected.get(key)) for name, key in shown.items() if key in latest}
        return "  ".join(
            f"{name} {value:.3f}" + ("" if aim is None else f" ({aim:.3f})") for name, (value, aim) in values.items()
        )

    def end(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()

    def close(self, model: Model) -> int:
        """Say where everything is and what to do next; return the exit code."""
        from organza.device import pick_device
        from organza.pretrained import use
        from organza.run import Run as Folder

        state, folder = self.state, model.run
        ended = state is not None and state.images >= state.training.images
        stopped = self.signal if self.signal and not ended else 0  # by a signal that came in time
        code = 128 + stopped if stopped else 0
        if folder is None:
            return code
        last = max((int(p.stem) for p in (folder / "samples").glob("*.png") if p.stem.isdecimal()), default=None)
        record = {
            "run": str(folder),
            "images": max(Folder(folder).checkpoints(), default=0),
            "seconds": round(time.monotonic() - self.begin, 1),
            "grid": None if last is None else str(folder / "samples" / f"{last}.png"),
            "report": str(folder / "report.html"),
            "stopped": stopped > 0,
        }
        other = state is not None and state.device != pick_device("auto")
        device = f" --device {state.device}" if state is not None and other else ""
        next_ = f"organza resume {shlex.quote(str(folder))}{device}" if stopped else use(folder, model.config or {})
        lines = [f"{name:7} {record[name]}" for name in ("grid", "report") if record[name]]
        said = f"stopped at {record['images']:,} images" if stopped else f"done: {record['images']:,} images"
        text = "\n".join([f"{said}, {record['seconds']} s", *lines, f"next    {next_}"])
        print(json.dumps(record) if self.as_json else text)
        return code


@contextmanager
def playing(as_json: bool) -> Iterator[Watch]:
    """A watch that Ctrl-C and SIGTERM end gently."""
    watch = Watch(as_json)
    try:
        yield watch
    finally:
        watch.end()
        for number, handler in watch.handlers.items():
            if handler is not None:  # else it is none of Python's
                signal.signal(number, handler)


@contextmanager
def measuring(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows what is being measured, and how much of it is done: a bar on a terminal, else a line for each thing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=not speaker())
    if not console.is_terminal or as_json:
        said: list[str] = []

        def tell(what: str, done: int, total: int) -> None:
            if not as_json and what not in said[-1:]:
                said.append(what)
                console.print(what, **_AS_IT_IS)

        yield tell
        return
    columns = (
        TextColumn("{task.description:32}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
