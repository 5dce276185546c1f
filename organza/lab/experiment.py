"""What every experiment is made of: a bench to work at, checks of predicted against measured, and an outcome."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from organza import picture
from organza.device import seed_networks, undisturbed
from organza.game import Game
from organza.model import Model
from organza.optimizer import Optimizer
from organza.run import write_bytes
from organza.schedule import Linear
from organza.training import State, Training, fit

__all__ = [
    "Bench",
    "Check",
    "Outcome",
    "double",
    "drawn",
    "least",
    "most",
    "near",
    "number",
    "played",
    "seeded",
]

CPU = torch.device("cpu")

Item = TypeVar("Item")
Result = TypeVar("Result")
Tell = Callable[[str, int, int], None]

# The colours of all figures, told apart by the colour-blind too (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY, INK = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98", "#22262b",
)  # fmt: skip
CYCLE = (BLUE, ORANGE, GREEN, RED, PINK, SKY, GREY)


class Check(NamedTuple):
    """One row of the table: a number that was predicted to lie within bounds, and what was measured.

    Attributes:
        what: What was measured, with its unit.
        measured: The number.
        low: The least that is allowed.
        high: The most that is allowed.
        centre: The value predicted by theory, where there is one.
        planted: Whether the row is a failure that the experiment plants on purpose: where it does not occur, the
            experiment shows nothing, and fails.
    """

    what: str
    measured: float
    low: float = -math.inf
    high: float = math.inf
    centre: float | None = None
    planted: bool = False

    @property
    def passed(self) -> bool:
        return self.low <= self.measured <= self.high  # NaN fails

    @property
    def digits(self) -> int:
        """How many digits tell the measured number from the bounds."""
        if self.centre is None or not self.centre or self.high == self.centre:
            return 4
        return min(12, max(4, 1 + math.ceil(math.log10(abs(self.centre) / (self.high - self.centre)))))

    @property
    def shown(self) -> str:
        """The measured number in words."""
        return number(self.measured, self.digits)

    @property
    def predicted(self) -> str:
        """The prediction in words."""
        if self.centre is not None:
            return number(self.centre, self.digits) + f" ± {number(self.high - self.centre, 2)}"
        return f"≤ {number(self.high)}" if math.isfinite(self.high) else f"≥ {number(self.low)}"

    def json(self) -> dict[str, Any]:
        bounds = {
            name: value if math.isfinite(value) else None for name, value in (("low", self.low), ("high", self.high))
        }
        measured = self.measured if math.isfinite(self.measured) else str(self.measured)
        record = {"what": self.what, "predicted": self.predicted, "measured": measured, **bounds}
        return {**record, "planted": self.planted, "passed": self.passed}


def near(what: str, predicted: float, measured: float, tolerance: float) -> Check:
    """Check that a number is what theory says, within a tolerance."""
    return Check(what, float(measured), predicted - tolerance, predicted + tolerance, predicted)


def most(what: str, measured: float | Sequence[float], bound: float, planted: bool = False) -> Check:
    """Check that a number, or the largest of some, is at most the bound; one that is not a number fails."""
    return Check(what, float(torch.as_tensor(measured, dtype=torch.float64).max()), high=bound, planted=planted)


def least(what: str, measured: float | Sequence[float], bound: float, planted: bool = False) -> Check:
    """Check that a number, or the smallest of some, is at least the bound; one that is not a number fails."""
    return Check(what, float(torch.as_tensor(measured, dtype=torch.float64).min()), low=bound, planted=planted)


def number(value: float, digits: int = 4) -> str:
    """A number with as many digits as a reader wants."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.{digits}g}"
    return text.replace("-", "−")


@dataclass
class Outcome:
    """What an experiment found.

    Attributes:
        words: What happened and what it means, for someone who has read the paper's abstract; paragraphs.
        checks: The table of predicted against measured.
        verdict: The claim's verdict in one line: "true", "only if ..." or "false: ...".
        name: The experiment's name.
        title: Its title.
        files: The figures, in the folder.
        seconds: How long it took.
    """

    words: str
    checks: Sequence[Check]
    verdict: str
    name: str = ""
    title: str = ""
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "passed": self.passed,
            "verdict": self.verdict,
            "words": self.words,
            "checks": [check.json() for check in self.checks],
            "files": [str(path) for path in self.files],
            "seconds": round(self.seconds, 1),
        }

    def markdown(self) -> str:
        """The outcome as a page, beside its figures."""
        rows = [
            f"| {c.what.replace('|', '&#124;')}{' (planted)' if c.planted else ''} | {c.predicted} | {c.shown} | "
            f"{'pass' if c.passed else '**FAIL**'} |"
            for c in self.checks
        ]
        figures = [f"![{self.title}]({path.name})" for path in self.files]
        table = ["| | predicted | measured | |", "|---|---|---|---|", *rows]
        return "\n".join(
            [f"# {self.title}", "", *figures, "", self.words, "", f"**Verdict: {self.verdict}**", "", *table, ""]
        )


class Bench:
    """Where an experiment works: its folder, whether it must be quick, and a few processes to share the work.

    Arguments:
        name: The experiment's name, which begins the names of its files.
        out: The folder of its files.
        fast: Whether to take a smaller sample or fewer seeds, in about a third of the time.
        tell: Called with what is being done, how much of it is done, and of how much.
        submit: Starts function(item) in another process; None does all in this one.
    """

    def __init__(
        self,
        name: str,
        out: Path,
        fast: bool = False,
        tell: Tell | None = None,
        submit: Callable[..., Any] | None = None,
    ) -> None:
        self.name, self.out, self.fast = name, out, fast
        self.tell: Tell = tell or (lambda what, done, total: None)
        self.submit = submit
        self.files: list[Path] = []

    def map(self, what: str, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return function(item) of every item, in order, each computed with one thread, where there are processes to
        spare at the same time.

        Arguments:
            what: What is being done, for the progress.
            function: A function at the top of a module.
            items: What it is given; it and its results must survive pickling between processes.
        """
        self.tell(what, 0, len(items))
        tasks = [self.submit(alone, function, item) if self.submit else None for item in items]
        found = []
        for done, (task, item) in enumerate(zip(tasks, items, strict=True), 1):
            found.append(alone(function, item) if task is None else task.result())
            self.tell(what, done, len(items))
        return found

    @contextmanager
    def figure(
        self,
        title: str,
        rows: int = 1,
        columns: int = 1,
        size: tuple[float, float] = (10.0, 5.6),
        suffix: str = "",
        **grid: Any,
    ) -> Iterator[Any]:
        """Draw a figure on an array of axes (rows, columns), and write it as PNG.

        Arguments:
            title: What the figure shows, above all panels.
            rows: Rows of panels.
            columns: Columns of panels.
            size: Width and height in inches, of 120 pixels.
            suffix: What follows the experiment's name in the file's.
            grid: More arguments of ``Figure.subplots`` (``sharex``, ``width_ratios`` ...).
        """
        with drawn(title, rows, columns, size, **grid) as (figure, axes):
            yield axes
            pixels = picture.render(figure)  # in the style of all
        self._write(suffix, "png", lambda path: picture.save(pixels, path))

    def film(self, frames: Sequence[Any], seconds: float = 0.15) -> None:
        """Write frames, pictures of one size, as an endless GIF."""
        self._write("", "gif", lambda path: picture.gif(frames, path, seconds))

    def _write(self, suffix: str, kind: str, write: Callable[[Path], None]) -> None:
        path = self.out / f"{'-'.join(filter(None, (self.name, suffix)))}.{kind}"
        write(path)
        self.files.append(path)

    def keep(self, outcome: Outcome) -> None:
        """Write the outcome beside its figures, as a page and as JSON."""
        record = json.dumps(outcome.json(), indent=1)
        write_bytes(self.out / f"{self.name}.json", record.encode())
        write_bytes(self.out / f"{self.name}.md", outcome.markdown().encode())


@contextmanager
def drawn(title: str, rows: int, columns: int, size: tuple[float, float], **grid: Any) -> Iterator[tuple[Any, Any]]:
    """A figure in the style of all, and its axes, (rows, columns); to be rendered before the style is left."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # torch's tensors do not know NumPy 2's protocol in full; matplotlib takes them all the same.
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        matplotlib.rcdefaults()  # a figure does not depend on the settings of who makes it
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        matplotlib.rcParams["axes.prop_cycle"] = cycler(color=CYCLE)
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **grid)
        figure.suptitle(title, fontsize=14, fontweight="bold", color=INK)
        yield figure, axes


STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e6e9",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def double() -> Iterator[None]:
    """Compute in float64 meanwhile."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights of networks with a seed meanwhile, and leave torch's own chance as it was."""
    with undisturbed(CPU):
        seed_networks(seed, CPU)
        yield


def played(
    game: Game,
    data: Any,
    rule: Optimizer | tuple[Optimizer, Optimizer],
    images: int,
    watch: Callable[[State], bool | None] | None = None,
    **settings: Any,
) -> Model:
    """Play a game by `fit` as all experiments do: on the CPU, with one thread, and keeping nothing.

    Arguments:
        game: The game, trained in place.
        data: Whatever `open_data` takes.
        rule: Both players' optimizer, or G's and D's.
        images: The images shown to D.
        watch: Called with the state after every round; ends the game by returning True.
        settings: More fields of `Training`.  The half-life of G's average is, if not among them, none at first, and a
            twentieth of the run from its half on.
    """
    G, D = rule if isinstance(rule, tuple) else (rule, rule)
    usual = {"half_life": Linear(0, images / 20, images=images // 2), "threads": 1, "sample_every": 0}
    training = Training(images, generator_optimizer=G, discriminator_optimizer=D, **{**usual, **settings})
    return fit(game, data, training, device="cpu", watch=watch)


def alone(function: Callable[[Item], Result], item: Item) -> Result:
    """function(item) with one thread, which suits small networks and makes the result the same in any process."""
    with undisturbed(CPU, threads=1):
        return function(item)
