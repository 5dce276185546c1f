"""Are the metrics fast and right?  Side by side with torch-fidelity (Fréchet distance) and prdc (nearest neighbours).

    python benchmarks/metrics.py [--n 50000] [--dim 2048] [--neighbours 10000] [--neighbour-dims 2048 64] [--repeats 3]

Both sides get the same features: those of a random layer with rectifiers, of decaying spectrum.  They take turns, and
every call has a process of its own, for the idle threads of one library slow another down; it is measured after a
call on 200 examples.  Prints one JSON object: median seconds, their ratio (above 1: Organza is faster), the MB by
which the process grew at most once all was imported and loaded, and how far the values are apart.  A package that is
not installed is left out.
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
from importlib.util import find_spec
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
    return {"distance": value}, {"statistics": first, "distance": second}


def theirs_frechet(fake, real):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from fidelity import torch_fidelity  # noqa: F401  (makes it importable beside this build of torch)
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found, first = timed(lambda: [fid_features_to_statistics(x) for x in (fake, real)])
    value, second = timed(lambda: fid_statistics_to_metric(*found, False))
    return {"distance": value["frechet_inception_distance"]}, {"statistics": first, "distance": second}


def ours_neighbours(fake, real):
    from organza.metrics.neighbours import prdc

    value, seconds = timed(lambda: prdc(fake, real, NEAREST, NEAREST))
    return value._asdict(), {"all": seconds}


def theirs_neighbours(fake, real):
    from prdc import compute_prdc

    value, seconds = timed(lambda: compute_prdc(real.numpy(), fake.numpy(), NEAREST))
    return {name: float(each) for name, each in value.items()}, {"all": seconds}


SIDES = {
    "frechet": {"organza": ours_frechet, "torch_fidelity": theirs_frechet},
    "neighbours": {"organza": ours_neighbours, "prdc": theirs_neighbours},
}


def save(folder: str, n: int, dim: int) -> None:
    import numpy as np

    for seed, name in enumerate(("real", "fake")):
        np.save(Path(folder, f"{name}.npy"), features(n, dim, seed).numpy())


def measure(folder: str, part: str, name: str) -> dict[str, object]:
    """The value, the seconds and the growth of one call of one side."""
    import resource

    import numpy as np
    import torch

    fake, real = (torch.from_numpy(np.load(Path(folder, f"{which}.npy"))) for which in ("fake", "real"))
    SIDES[part][name](fake[:200], real[:200])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, seconds = SIDES[part][name](fake, real)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    megabytes = grown / (2**20 if sys.platform == "darwin" else 2**10)
    return {"value": value, "seconds": seconds, "megabytes": megabytes, "threads": torch.get_num_threads()}


def child(part: str, *arguments: object):
    """Run a part in a fresh process, in which OpenBLAS chooses its own kernels, else NumPy may be slowed down."""
    held = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    environment = {name: value for name, value in os.environ.items() if name not in held}
    command = [sys.executable, __file__, "--part", part, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(part: str, n: int, dim: int, repeats: int) -> dict[str, object]:
    sides = [name for name in SIDES[part] if find_spec(name) is not None]
    runs: dict[str, list] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        child("save", folder, n, dim)
        for turn in range(repeats):
            for name in sides[:: 1 if turn % 2 == 0 else -1]:
                runs[name].append(child("measure", folder, part, name))
    result: dict[str, object] = {"n": n, "dim": dim, "threads": runs[sides[0]][0]["threads"]}
    total = {name: statistics.median(sum(run["seconds"].values()) for run in found) for name, found in runs.items()}
    for name, found in runs.items():
        stages = {stage: statistics.median(run["seconds"][stage] for run in found) for stage in found[0]["seconds"]}
        result[name] = {
            "value": found[0]["value"],
            "seconds": round(total[name], 3),
            "stages": {stage: round(seconds, 3) for stage, seconds in stages.items()},
            "megabytes": round(max(run["megabytes"] for run in found), 1),
        }
    if len(sides) < 2:
        return result | {"skipped": f"{list(SIDES[part])[1]} is not installed"}
    ours, theirs = (runs[name][0]["value"] for name in sides)
    apart = max(abs(ours[key] - theirs[key]) / abs(theirs[key]) for key in ours)
    return result | {"ratio": round(total[sides[1]] / total[sides[0]], 2), "relative_difference": apart}


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
        part = {"save": save, "measure": measure}[arguments.part[0]]
        print(json.dumps(part(*json.loads(arguments.part[1]))))
        return
    result = {
        "cpus": os.cpu_count(),
        "frechet": compare("frechet", arguments.n, arguments.dim, arguments.repeats),
        "neighbours": [
            {"k": NEAREST} | compare("neighbours", arguments.neighbours, dim, arguments.repeats)
            for dim in arguments.neighbour_dims
        ],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
