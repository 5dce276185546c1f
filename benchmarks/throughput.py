"""How fast is a training step: against plain PyTorch, against Keras, and against what the machine can do.

    python benchmarks/throughput.py [NAME ...] [--threads 2] [--repeats 5] [--seconds 3] [--keras PYTHON]

For ``mlp`` and ``goodfellow2014`` on 28 x 28 x 1, ``dcgan`` and ``r3gan-tiny`` on 32 x 32 x 3 (batch 64): images/s of
whole steps, the same program as ``eager.py`` writes it (the two take turns, medians), and the share of the floor.  The
floor is the time that the step's matrix products and convolutions take alone, each measured by itself at its shapes
(the faster library), and that of the optimizer's bytes at the bandwidth measured here.  With ``--keras``, ``mlp`` is
also run by ``keras_mlp.py`` under that interpreter, which must have Keras 3 and JAX.  Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from eager import PROGRAMS, Step
from torch import Tensor

from organza.data import Data, open_data
from organza.decision import decide
from organza.device import undisturbed
from organza.nn import bilinear
from organza.training import State

SHAPES = {"mlp": (1, 28, 28), "goodfellow2014": (1, 28, 28), "dcgan": (3, 32, 32), "r3gan-tiny": (3, 32, 32)}
CHANGES: dict[str, dict[str, Any]] = {"dcgan": {"training.batch": 64}, "r3gan-tiny": {"training.batch": 64}}


def examples(shape: tuple[int, ...]) -> Data:
    """As many random images as MNIST has, as bytes; a step's speed does not depend on what they show."""
    x = torch.randint(0, 256, (60_000, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return open_data(x)


def ours(name: str, data: Data, threads: int) -> State:
    changes = {"training.threads": threads, **CHANGES.get(name, {})}
    plan = decide(data, name, images=10**9, device="cpu", changes=changes).plan
    return State(plan.game(), plan.play(), data, torch.device("cpu"))


def pace(step: Step, seconds: float) -> float:
    """Seconds of a step: the mean over at least so many seconds."""
    step()
    begin, steps = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        step()
        steps += 1
    return passed / steps


def alone(f: Callable[[], Any], times: int = 7) -> float:
    f()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        f()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def contractions(step: Step) -> Counter[tuple[Any, int]]:
    """The matrix products and convolutions of one step, as (form, open place)."""
    found: Counter[tuple[Any, int]] = Counter()
    kinds = (bilinear.Matrix, bilinear.Convolution)
    solves = {kind: kind.solve for kind in kinds}

    def counting(self: Any, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        found[self, place] += 1
        return solves[type(self)](self, place, filled, bias)

    for kind in kinds:
        kind.solve = counting  # type: ignore[method-assign]
    try:
        step()
    finally:
        for kind, solve in solves.items():
            kind.solve = solve  # type: ignore[method-assign]
    return found


def cost(form: Any, place: int) -> float:
    """Seconds of one contraction by itself, by the faster library."""
    filled = {at: torch.randn(form.shape(at)) for at in range(3) if at != place}
    if isinstance(form, bilinear.Matrix):
        a, b = {
            bilinear.Y: lambda: (filled[0], filled[1]),
            bilinear.X: lambda: (filled[2], filled[1].t()),
            bilinear.W: lambda: (filled[2].t(), filled[0].t()),
        }[place]()
        return min(alone(lambda: a @ b.t()), alone(lambda: form.solve(place, filled, None)))
    filled = {at: t.contiguous(memory_format=torch.channels_last) for at, t in filled.items()}
    return alone(lambda: form.solve(place, filled, None))


def flops(form: Any, place: int) -> float:
    if isinstance(form, bilinear.Matrix):
        return 2.0 * form.batch * form.fan_in * form.fan_out
    _, per_group, height, width = form.w
    batch, channels, *sides = form.shape(bilinear.Y)
    return 2.0 * batch * channels * sides[0] * sides[1] * per_group * height * width


def bandwidth() -> float:
    """Bytes a second of reading two and writing one, over more than any cache."""
    a, b = torch.zeros(2**25), torch.zeros(2**25)
    return 3 * 4 * 2**25 / alone(lambda: torch.add(a, b, out=a))


def floor(state: State) -> dict[str, float]:
    found = contractions(lambda: state.training.moves(state, state.stream))
    seconds = sum(n * cost(form, place) for (form, place), n in found.items())
    total = sum(n * flops(form, place) for (form, place), n in found.items())
    moved = 0
    for player, weights in state.weights.items():
        n = sum(weight.numel() for weight in weights)
        moments = state.rules[player].moments
        moved += 4 * n * (3 + 2 * moments) + (4 * 3 * n if player == "generator" else 0)  # and the average
    return {"gflop": total / 1e9, "seconds": seconds + moved / bandwidth(), "gflop_per_s": total / seconds / 1e9}


def measured(name: str, threads: int, repeats: int, seconds: float, keras: str | None) -> dict[str, Any]:
    data = examples(SHAPES[name])
    state = ours(name, data, threads)
    plain = PROGRAMS[name](data.x.float() / 127.5 - 1)

    def step() -> None:
        state.training.moves(state, state.stream)

    with undisturbed(state.device, threads):
        pace(step, 1.0)
        pairs = [(pace(step, seconds), pace(plain, seconds)) for _ in range(repeats)]
        least = floor(state)
    batch, a, b = state.training.batch, median(p[0] for p in pairs), median(p[1] for p in pairs)
    found = {
        "batch": batch,
        "images_per_s": round(batch / a),
        "eager_images_per_s": round(batch / b),
        "ratio": round(median(y / x for x, y in pairs), 2),
        "ratios": [round(y / x, 2) for x, y in pairs],
        "gflop_per_step": round(least["gflop"], 2),
        "gflop_per_s_alone": round(least["gflop_per_s"]),
        "share_of_floor": round(least["seconds"] / a, 3),
    }
    if name == "mlp" and keras:
        program = str(Path(__file__).with_name("keras_mlp.py"))
        took = []
        for _ in range(repeats):
            done = subprocess.run([keras, program, str(threads), str(seconds)], check=True, capture_output=True)
            with undisturbed(state.device, threads):
                took.append(float(done.stdout) / pace(step, seconds))
        found["keras_ratio"] = round(median(took), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}; all if none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--keras", help="an interpreter with Keras 3 and JAX, such as python")
    given = parser.parse_args()
    for name in given.names:
        if name not in PROGRAMS:
            parser.error(f"{name}: there are {', '.join(PROGRAMS)}")
    settings = (given.threads, given.repeats, given.seconds, given.keras)
    rows = {name: measured(name, *settings) for name in given.names or PROGRAMS}
    print(json.dumps({"threads": given.threads, "torch": torch.__version__, "recipes": rows}))


if __name__ == "__main__":
    main()
