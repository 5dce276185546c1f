"""Are the metrics fast and right?  Side by side with torch-fidelity (Fréchet distance) and prdc (nearest neighbours).

    python benchmarks/metrics.py [--n 50000] [--dim 2048] [--neighbours 10000] [--neighbour-dims 2048 64] [--repeats 3]

Both sides get the same features: those of a random layer with rectifiers, of decaying spectrum.  Every part runs in a
process of its own, the two sides in alternating order, and peak memory is measured in a fresh process for each side,
above what it held with the features loaded.  Prints one JSON object: median seconds, their ratio (above 1: Organza is
faster), and how far the values are apart.  A side that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NEAREST = 5


def features(n: int, dim: int, seed: int):
    """x = max(0, (z s) W + e + 1/4), with s_i = i^(-1/2): (n, dim), float32."""
    import torch

    g = torch.Generator().manual_seed(seed)
    rank = min(dim, 512)
    W = torch.randn(rank, dim, generator=torch.Generator().manual_seed(0)) / 2
    scale = torch.arange(1, rank + 1) ** -0.5 * (1 + 0.05 * seed)
    x = torch.empty(n, dim)
    for part in x.split(5000):
        noise = 0.1 * torch.randn(len(part), dim, generator=g)
        part.copy_((torch.randn(len(part), rank, generator=g) * scale @ W + noise + 0.25).relu_())
    return x


def timed(call):
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def ours_frechet(fake, real):
    from organza.metrics.frechet import Moments, frechet_distance

    moments, first = timed(lambda: [Moments.of(x) for x in (fake, real)])
    value, second = timed(lambda: frechet_distance(*moments))
    return value, first, second


def theirs_frechet(fake, real):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from fidelity import torch_fidelity  # noqa: F401  (makes it importable beside this build of torch)
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found, first = timed(lambda: [fid_features_to_statistics(x) for x in (fake, real)])
    value, second = timed(lambda: fid_statistics_to_metric(*found, False))
    return value["frechet_inception_distance"], first, second


def frechet(n: int, dim: int, repeats: int) -> dict[str, object]:
    fake, real = features(n, dim, 1), features(n, dim, 0)
    sides = {"organza": ours_frechet}
    if installed("torch_fidelity"):
        sides["torch-fidelity"] = theirs_frechet
    runs = alternating(sides, (fake, real), repeats)
    result: dict[str, object] = {"n": n, "dim": dim, "threads": threads()}
    for name, found in runs.items():
        middle = [statistics.median(run[i] for run in found) for i in (1, 2)]
        total = statistics.median(run[1] + run[2] for run in found)
        result[name] = {
            "value": found[0][0],
            "seconds": round(total, 2),
            "statistics": round(middle[0], 2),
            "distance": round(middle[1], 2),
        }
    if len(runs) < 2:
        return result | {"skipped": "torch-fidelity is not installed"}
    a, b = result["organza"], result["torch-fidelity"]
    return result | {"ratio": ratio(b, a), "relative_difference": abs(a["value"] - b["value"]) / b["value"]}


def ours_neighbours(fake, real):
    from organza.metrics.neighbours import prdc

    return prdc(fake, real, NEAREST, NEAREST)


def theirs_neighbours(fake, real):
    from prdc import compute_prdc

    found = compute_prdc(real.numpy(), fake.numpy(), NEAREST)
    return tuple(float(found[name]) for name in ("precision", "recall", "density", "coverage"))


NEIGHBOURS = {"organza": ours_neighbours, "prdc": theirs_neighbours}


def neighbours(folder: str, repeats: int) -> dict[str, object]:
    sides = {name: side for name, side in NEIGHBOURS.items() if installed("prdc") or name == "organza"}
    timing = {name: (lambda *sets, side=side: timed(lambda: side(*sets))) for name, side in sides.items()}
    runs = alternating(timing, loaded(folder), repeats)
    result: dict[str, object] = {"k": NEAREST, "threads": threads()}
    for name, found in runs.items():
        seconds = statistics.median(run[1] for run in found)
        result[name] = {"value": list(found[0][0]), "seconds": round(seconds, 2)}
    if len(runs) < 2:
        return result | {"skipped": "prdc is not installed"}
    a, b = result["organza"], result["prdc"]
    apart = max(abs(x - y) for x, y in zip(a["value"], b["value"], strict=True))
    return result | {"ratio": ratio(b, a), "largest_difference": apart}


def memory(folder: str, name: str) -> float:
    """The MB by which a process grows at its peak, once everything is loaded and imported."""
    import resource

    fake, real = loaded(folder)
    NEIGHBOURS[name](fake[:100], real[:100])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    NEIGHBOURS[name](fake, real)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit, 1)


def save(folder: str, n: int, dim: int) -> None:
    import numpy as np

    for seed, name in enumerate(("real", "fake")):
        np.save(Path(folder, f"{name}.npy"), features(n, dim, seed).numpy())


def loaded(folder: str):
    import numpy as np
    import torch

    return [torch.from_numpy(np.load(Path(folder, f"{name}.npy"))) for name in ("fake", "real")]


def alternating(sides, sets, repeats: int):
    """{name: what each call returned}, each side in turn going first, after a small call to warm up."""
    for side in sides.values():
        side(*(x[:200] for x in sets))
    runs: dict[str, list] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            runs[name].append(sides[name](*sets))
    return runs


def ratio(theirs, ours) -> float:
    return round(theirs["seconds"] / ours["seconds"], 2)


def threads() -> int:
    import torch

    return torch.get_num_threads()


def installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


PARTS = {"frechet": frechet, "save": save, "neighbours": neighbours, "memory": memory}


def child(part: str, *arguments: object):
    """Run a part in a fresh process; OpenBLAS chooses its own kernels there, else NumPy may be slowed down."""
    held = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    environment = {name: value for name, value in os.environ.items() if name not in held}
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, json.dumps(arguments)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=50_000, help="examples a side of the Fréchet distance")
    parser.add_argument("--dim", type=int, default=2048, help="features of each")
    parser.add_argument("--neighbours", type=int, default=10_000, help="examples a side of the nearest neighbours")
    parser.add_argument("--neighbour-dims", type=int, nargs="+", default=[2048, 64], help="features of each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part[0]](*json.loads(arguments.part[1]))))
        return
    result: dict[str, object] = {
        "cpus": os.cpu_count(),
        "frechet": child("frechet", arguments.n, arguments.dim, arguments.repeats),
        "neighbours": [],
    }
    for dim in arguments.neighbour_dims:
        with tempfile.TemporaryDirectory() as folder:
            child("save", folder, arguments.neighbours, dim)
            found = {"n": arguments.neighbours, "dim": dim} | child("neighbours", folder, arguments.repeats)
            for side in NEIGHBOURS.keys() & found.keys():
                found[side]["peak_megabytes"] = child("memory", folder, side)
            result["neighbours"].append(found)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
