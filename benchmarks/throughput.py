"""How fast is a training step: against plain PyTorch, against Keras, and against what the machine can do.

    python benchmarks/throughput.py [NAME ...] [--threads 2] [--repeats 5] [--seconds 3] [--keras PYTHON]
        [--device cuda] [--precision bfloat16]

For ``mlp`` and ``goodfellow2014`` on 28 x 28 x 1, ``dcgan`` and ``r3gan-tiny`` on 32 x 32 x 3 (batch 64): images/s of
whole steps, the same program as ``eager.py`` writes it, in a process of its own (taking turns, medians; always in
float32), in another precision also ours in float32, and the share of the floor.  The floor is the time that the step's
matrix products and convolutions take alone, each measured by itself at its shapes (the faster library), and that of the
optimizer's bytes at the bandwidth measured here.  On a GPU also ``r3gan`` on 64 x 64 x 3 (batch 256, in four
micro-batches), which has no plain program beside it; and the rate of a product of matrices of 8192, of which
``share_of_rate`` is the share.  With ``--keras``, ``mlp`` is also run by ``keras_mlp.py`` under that interpreter, which
must have Keras 3 and JAX.  Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from eager import PROGRAMS, Step, pace, settled
from torch import Tensor

from organza.data import Data, open_data
from organza.decision import decide
from organza.device import undisturbed
from organza.nn import bilinear
from organza.training import State

SHAPES = {"mlp": (1, 28, 28), "goodfellow2014": (1, 28, 28), "dcgan": (3, 32, 32), "r3gan-tiny": (3, 32, 32)}
SHAPES |= {"r3gan": (3, 64, 64)}
CHANGES: dict[str, dict[str, Any]] = {"dcgan": {"training.batch": 64}, "r3gan-tiny": {"training.batch": 64}}
CHANGES |= {"r3gan": {"training.accumulate": 4}}


def examples(shape: tuple[int, ...]) -> Data:
    """As many random images as MNIST has, as bytes; a step's speed does not depend on what they show."""
    n = 60_000 if shape[1] < 64 else 6_000
    return open_data(torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def ours(name: str, data: Data, given: argparse.Namespace, precision: str) -> State:
    changes = {"training.threads": given.threads, "precision": precision, **CHANGES.get(name, {})}
    plan = decide(data, name, images=10**9, device=given.device, changes=changes).plan
    return State(plan.game(), plan.play(), data, torch.device(given.device))


def alone(f: Callable[[], Any], times: int = 7) -> float:
    f()
    taken = []
    for _ in range(times):
        begin = settled()
        f()
        taken.append(settled() - begin)
    return median(taken)


def contractions(step: Step) -> Counter[tuple[Any, int]]:
    """The matrix products and convolutions of one step, as (form, open place)."""
    found: Counter[tuple[Any, int]] = Counter()
    kinds = (bilinear.Matrix, bilinear.Convolution)
    solves, native = {kind: kind.solve for kind in kinds}, bilinear.native

    def counting(self: Any, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        found[self, place] += 1
        return solves[type(self)](self, place, filled, bias)

    for kind in kinds:
        kind.solve = counting  # type: ignore[method-assign]
    bilinear.native = lambda x, w: False
    try:
        step()
    finally:
        for kind, solve in solves.items():
            kind.solve = solve  # type: ignore[method-assign]
        bilinear.native = native
    return found


def cost(form: Any, place: int, **kind: Any) -> float:
    """Seconds of one contraction by itself, by the faster library."""
    filled = {at: torch.randn(form.shape(at), **kind) for at in range(3) if at != place}
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


def bandwidth(device: torch.device) -> float:
    """Bytes a second of reading two and writing one, over more than any cache."""
    n = 2**25 if device.type == "cpu" else 2**28
    a, b = torch.zeros(n, device=device), torch.zeros(n, device=device)
    return 3 * 4 * n / alone(lambda: torch.add(a, b, out=a))


def rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of one large product of matrices of chance."""
    a, b = torch.randn(2, 8192, 8192, device=device, dtype=dtype)
    return 2 * 8192**3 / alone(lambda: a @ b)


def floor(state: State) -> dict[str, float]:
    kind = {"device": state.device, "dtype": getattr(torch, state.game.precision)}
    found = contractions(lambda: state.training.moves(state, state.stream))
    seconds = sum(n * cost(form, place, **kind) for (form, place), n in found.items())
    total = sum(n * flops(form, place) for (form, place), n in found.items())
    moved = 0
    for player, weights in state.weights.items():
        n = sum(weight.numel() for weight in weights)
        moments = state.rules[player].moments
        moved += 4 * n * (3 + 2 * moments) + (4 * 3 * n if player == "generator" else 0)  # and the average
    return {
        "gflop": total / 1e9,
        "seconds": seconds + moved / bandwidth(state.device),
        "gflop_per_s": total / seconds / 1e9,
    }


@contextmanager
def eager(name: str, given: argparse.Namespace) -> Iterator[Callable[[float], float]]:
    """The plain program in a process of its own, whose C library and PyTorch are as people find them."""
    program = str(Path(__file__).with_name("eager.py"))
    command = [sys.executable, program, name, str(given.threads), given.device, *map(str, SHAPES[name])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as plain:
        assert plain.stdin is not None and plain.stdout is not None

        def paced(seconds: float) -> float:
            print(seconds, file=plain.stdin, flush=True)
            return float(plain.stdout.readline())

        yield paced
        plain.stdin.close()


def used(step: Step) -> float:
    """The most memory that some steps hold, in GiB."""
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def measured(name: str, given: argparse.Namespace) -> dict[str, Any]:
    data = examples(SHAPES[name])
    state = ours(name, data, given, given.precision)
    step = partial(state.training.moves, state, state.stream)
    gib = used(step) if state.device.type == "cuda" else 0.0  # before anything else is made
    programs: dict[str, Callable[[float], float]] = {"ours": partial(pace, step)}
    if given.precision != "float32":
        exact = ours(name, data, given, "float32")
        programs["float32"] = partial(pace, partial(exact.training.moves, exact, exact.stream))
    with undisturbed(state.device, given.threads), ExitStack() as until:
        if name in PROGRAMS:
            programs["eager"] = until.enter_context(eager(name, given))
        paces: dict[str, list[float]] = {program: [] for program in programs}
        floors = []
        for played in programs.values():
            played(1.0)
        for _ in range(given.repeats):
            for program, played in programs.items():
                paces[program].append(played(given.seconds))
            floors.append(floor(state))
    batch, seconds = state.training.batch, {program: median(paces[program]) for program in programs}
    shares = [least["seconds"] / took for least, took in zip(floors, paces["ours"], strict=True)]
    found = {
        "batch": batch,
        "images_per_s": round(batch / seconds["ours"]),
        "gflop_per_step": round(floors[0]["gflop"], 2),
        "gflop_per_s_alone": round(median(least["gflop_per_s"] for least in floors)),
        "share_of_floor": round(median(shares), 3),
        "each_share_of_floor": [round(share, 3) for share in shares],
    }
    for program in [each for each in programs if each != "ours"]:
        ratios = [b / a for a, b in zip(paces["ours"], paces[program], strict=True)]
        found[f"{program}_images_per_s"] = round(batch / seconds[program])
        found[f"times_{program}"] = round(median(ratios), 2)
        found[f"each_times_{program}"] = [round(ratio, 2) for ratio in ratios]
    if state.device.type == "cuda":
        most = rate(state.device, getattr(torch, given.precision))
        found |= {"gflop_per_s_matrices": round(most / 1e9), "gib": round(gib, 1)}
        found["share_of_rate"] = round(floors[0]["gflop"] * 1e9 / seconds["ours"] / most, 3)
    if name == "mlp" and given.keras:
        program = [given.keras, str(Path(__file__).with_name("keras_mlp.py")), str(given.threads), str(given.seconds)]
        took = []
        for _ in range(given.repeats):
            done = subprocess.run(program, check=True, capture_output=True)
            with undisturbed(state.device, given.threads):
                took.append(float(done.stdout) / pace(step, given.seconds))
        found["keras_ratio"] = round(median(took), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)}; all but the last if none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--keras", help="an interpreter with Keras 3 and JAX, such as python")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of ours alone")
    given = parser.parse_args()
    for name in given.names:
        if name not in SHAPES:
            parser.error(f"{name}: there are {', '.join(SHAPES)}")
    rows = {name: measured(name, given) for name in given.names or PROGRAMS}
    device = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    said = {"device": device, "threads": given.threads, "precision": given.precision, "torch": torch.__version__}
    print(json.dumps(said | {"recipes": rows}))


if __name__ == "__main__":
    main()
