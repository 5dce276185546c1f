"""The lab: what the papers prove and the lectures draw, run on the very code that trains.

An experiment is one file with one function, ``run(bench) -> Outcome``.  The first line of its module's docstring is its
title; the rest is the claim, the mathematics, and the tolerances by which it passes.  Where it plants a failure (a
collapse, a vanishing gradient), it fails if that does not occur.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from difflib import get_close_matches
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from organza.lab.experiment import Bench, Check, Outcome, Tell

__all__ = ["NAMES", "Bench", "Check", "Outcome", "perform", "title"]

# In the order of the story: the theorem, the game, what goes wrong, why, and what it is for.
NAMES = (
    "optimal-discriminator",
    "convergence",
    "function-space",
    "minimax-maximin",
    "mode-collapse",
    "saturation",
    "transformation",
    "stability",
    "divergences",
    "generative-discriminative",
)


def title(name: str) -> str:
    """Return an experiment's title."""
    return (import_module(f"organza.lab.{name.replace('-', '_')}").__doc__ or "").split("\n")[0]


def perform(
    names: Sequence[str] = (), out: str | Path = "lab", fast: bool = False, processes: int = 0, tell: Tell | None = None
) -> Iterator[Outcome]:
    """Perform experiments one after the other, and yield what each found.

    Arguments:
        names: Which; all if none is given.
        out: The folder of the figures, pages and records, made if missing.
        fast: Whether to be about three times as quick, with fewer seeds and looser statistics.
        processes: How many processes share the work; 0 for one a CPU core, 1 for none but this one.
        tell: Called with what is being done, how much of it is done, and of how much.

    Raises:
        ValueError: If a name is unknown or ``out`` cannot be a folder; nothing is written then.
    """
    for name in names:
        if name not in NAMES:
            close = get_close_matches(name, NAMES, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(NAMES)}"
            raise ValueError(f"experiment {name!r} is unknown; {hint}")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be made a folder ({error.strerror}); give another") from None
    return _performed(names or NAMES, folder, fast, processes or os.cpu_count() or 1, tell)


def _performed(names: Sequence[str], out: Path, fast: bool, processes: int, tell: Tell | None) -> Iterator[Outcome]:
    with ExitStack() as stack:
        submit = None
        if processes > 1:
            # Spawned, not forked: a process forked after PyTorch's threads have started may hang.
            most = min(processes, 61) if os.name == "nt" else processes  # as many as Windows can wait for
            pool = stack.enter_context(ProcessPoolExecutor(most, mp_context=get_context("spawn")))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            submit = pool.submit
        for name in names:
            begin = time.monotonic()
            bench = Bench(name, out, fast, tell, submit)
            try:
                outcome = import_module(f"organza.lab.{name.replace('-', '_')}").run(bench)
            except ValueError as error:  # nothing that the user gave: the names and the folder are checked
                raise RuntimeError(f"the experiment {name} broke off: {error}") from error
            outcome.name, outcome.title, outcome.files = name, title(name), bench.files
            outcome.seconds = time.monotonic() - begin
            bench.keep(outcome)
            yield outcome
