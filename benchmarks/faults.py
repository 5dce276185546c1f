"""Kill a training again and again, at any instant: it must come to the bits of the run that was never stopped.

    python benchmarks/faults.py [--kills 100] [--seed 0] [--recipes NAME ...]

Each recipe is trained in little, with a checkpoint every 20 moves of G, once in peace and once in many lives: a process
is killed by SIGKILL, the next one resumes, until the run is done.  Every fourth kill comes at a random time of the
play, the others within the phase that has been hit least: reading data, D's move, G's move, each file of a checkpoint,
the renames, the syncs, judging, the log.  A recipe has survived its kills if the last checkpoint (weights, average,
optimizers, adaptive state), the log but for the clock, and the mark of the best are those of the run in peace, bit by
bit.  Prints one JSON object: the kills by phase, and how many were survived.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RECIPES = {
    "quick": "digits[:200]",
    "modes": "ring",
    "wgan-gp": "digits[:200]",
    "dcgan": "digits[:200]",
    "began": "digits[:200]",
    "infogan": "digits[:200]",
    "cyclegan": "digits[:100] and digits[100:200]",
}
STEPS, EVERY = 400, 20  # moves of G in a run, and from one checkpoint to the next
FILES = ("game", "ema", "evidence", "generator_optimizer", "discriminator_optimizer")
PHASES = ("start", "data", "discriminator", "generator", "judge", "log", "rename", "sync", "prune", "mark")
PHASES += ("MANIFEST.json", "state.json", *(f"{name}.safetensors" for name in FILES))


def life(folder: Path, recipe: str, phases: Path, wanted: str, wait: float) -> None:
    """Train, or go on; say in ``phases`` what is being done; and die after ``wait`` seconds of the wanted phase (of the
    play, if it is empty), if that is not negative."""
    import organza as oz
    from organza import run as of_runs
    from organza.run import Run
    from organza.training import Judge, State, fit

    place = mmap.mmap(os.open(phases, os.O_RDWR), 1)
    entries = Counter[str]()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def enter(phase: str) -> None:
        place[0] = PHASES.index(phase)
        entries[phase] += 1
        if wait >= 0 and entries[phase] == 2 and phase == wanted:
            die() if wait == 0 else threading.Timer(wait, die).start()

    def marked(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            before = place[0]
            enter(phase)
            try:
                return function(*args, **more)
            finally:
                place[0] = before

        return call

    def stream(self: State, player: Any) -> Iterator[Any]:
        enter("data")
        for batch in read(self, player):
            enter(player)
            yield batch
            enter("data")
        enter(player)

    def write(path: Path, data: bytes) -> None:
        enter(path.name if path.name in PHASES else "mark" if "best" in path.name else "log")
        written(path, data)

    read, State.stream = State.stream, stream  # type: ignore[method-assign]
    written, of_runs._write = of_runs._write, write
    os.replace = marked("rename", os.replace)
    of_runs._sync_folder = marked("sync", of_runs._sync_folder)
    Run._prune = marked("prune", Run._prune)  # type: ignore[method-assign]
    Run.log = marked("log", Run.log)  # type: ignore[method-assign]

    data = oz.open_data(RECIPES[recipe])
    plan = small(recipe, data)
    score = marked("judge", lambda model: {"mean": float(model.sample(32, seed=1, y=labels(model)).mean())})
    if wait >= 0 and not wanted:
        threading.Timer(wait, die).start()
    batch = plan.training["batch"]
    fit(plan.game(), data, plan.play(), run=folder, device="cpu", judge=Judge(score, 2 * EVERY * batch, "mean"))


def labels(model: Any) -> Any:
    """The conditions of 32 samples, if the model asks for any."""
    import torch

    image = getattr(model.generator, "condition", None)
    return None if not model.conditional else torch.zeros(32, *image) if image else torch.arange(32) % 10


def small(recipe: str, data: Any) -> Any:
    """The recipe in little."""
    from organza.decision import prepare
    from organza.recipes import reduced

    plan = reduced(prepare(data, recipe))
    batch, k = plan.training["batch"], plan.training["moves"].get("k", 1)
    k = k if isinstance(k, int) else 1
    if recipe == "cyclegan":
        plan = plan.set({"generator.width": 4, "generator.blocks": 1, "discriminator.width": 4})
    return plan.set(
        {
            "training.images": STEPS * k * batch,
            "training.save_every": EVERY * k * batch,
            "training.log_every": 10 * k * batch,
            "training.sample_every": 0,
            "training.threads": 1,
        }
    )


def started(folder: Path, recipe: str, phases: Path, wanted: str = "", wait: float = -1) -> int:
    phases.write_bytes(b"\0")
    command = [sys.executable, __file__, "--life", str(folder), recipe, str(phases), wanted, str(wait)]
    return subprocess.run(command, stderr=subprocess.PIPE, check=False).returncode


def ended(folder: Path) -> dict[str, Any]:
    """All that a run came to, without the clock."""
    last = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdecimal() else -1)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {file.name: file.read_bytes() for file in last.iterdir()}
    best = folder / "best.json"
    found["best"] = best.read_text() if best.exists() else None
    return found | {"place": last.name, "log": [{k: v for k, v in line.items() if k != "time"} for line in log]}


def killed(recipe: str, kills: int, hits: Counter[str], chance: random.Random, folder: Path) -> dict[str, Any]:
    """Train once in peace and once with so many kills."""
    phases, whole, cut = folder / "phase", folder / f"{recipe}-whole", folder / f"{recipe}-cut"
    begin = time.monotonic()
    code = started(whole, recipe, phases)
    play = max(1.0, time.monotonic() - begin - 4.0)  # seconds, about, without the start
    died, reached = 0, list(PHASES[1:])
    while died < kills and not code:
        wanted = "" if died % 4 == 3 else min(reached, key=lambda phase: (hits[phase], chance.random()))
        wait = chance.uniform(0, play / 5) if not wanted else chance.choice([0.0, chance.uniform(0, 2e-3)])
        code = started(cut, recipe, phases, wanted, wait)
        if code == 0:  # it was done before it could be killed: once more from the start
            if ended(cut) != ended(whole):
                break
            subprocess.run(["rm", "-r", str(cut)], check=True)
            reached = [phase for phase in reached if phase != wanted]
        elif code == -signal.SIGKILL:
            hits[PHASES[phases.read_bytes()[0]]] += 1
            died, code = died + 1, 0
    code = code or started(cut, recipe, phases)
    survived = code == 0 and ended(cut) == ended(whole)
    return {"recipe": recipe, "kills": died, "bit_equal": survived, "exit": code}


def main() -> None:
    if sys.argv[1:2] == ["--life"]:
        folder, recipe, phases, wanted, wait = sys.argv[2:]
        life(Path(folder), recipe, Path(phases), wanted, float(wait))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    given = parser.parse_args()
    hits, chance, found = Counter[str](), random.Random(given.seed), []
    each = -(-given.kills // len(given.recipes))
    with tempfile.TemporaryDirectory() as folder:
        for recipe in given.recipes:
            found.append(killed(recipe, each, hits, chance, Path(folder)))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    kills, survived = (sum(row["kills"] for row in found if row["bit_equal"] or all_) for all_ in (True, False))
    by_phase = {phase: hits[phase] for phase in PHASES if hits[phase]}
    print(json.dumps({"kills": kills, "survived": survived, "by_phase": by_phase, "recipes": found}, indent=1))


if __name__ == "__main__":
    main()
