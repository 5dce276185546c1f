"""Several processes: they share the work, and get the same numbers as one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from organza import distributed
from organza.distributed import gather, share

# One of two processes that judge the same samples together; rank 0 prints what it found.
PROGRAM = """
import json, sys
import torch
from torch import distributed as group
from organza import evaluation
from organza.data import open_data
from organza.distributed import gather, rank, share, world
from organza.metrics.frechet import Moments, frechet_distance
torch.set_num_threads(1)
if sys.argv[1:]:
    group.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
parts = gather(torch.arange(3 + rank()).view(-1, 1))
fake, against = open_data("digits[:600]"), evaluation.reference("digits[1000:]")
names = ["frechet", "kernel", "neighbours", "classes"]
scores = evaluation.evaluate(fake, against, names, "digits")
rows = against.real.x[share(len(against.real))].flatten(1).double()
moments = Moments.of(rows[:, ::9]).gathered()
record = {score.key: [score.value, score.floor] for score in scores}
record |= {"parts": [part.flatten().tolist() for part in parts], "mean": float(moments.mean.sum()), "n": moments.n}
print(json.dumps(record))
"""


def test_alone_everything_is_the_identity() -> None:
    assert (distributed.rank(), distributed.world(), share(7)) == (0, 1, range(7))
    x = torch.zeros(3)
    assert gather(x) == [x]


@pytest.mark.parametrize("n", [0, 1, 7, 10])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_make_the_whole(n: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: processes)
    parts = []
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        parts.append(share(n))
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, text=True)

    jobs = [start(), start(str(tmp_path / "meet"), "0"), start(str(tmp_path / "meet"), "1")]
    one, first, second = (json.loads(job.communicate(timeout=120)[0]) for job in jobs)
    assert first == second
    assert (one.pop("parts"), first.pop("parts")) == ([[0, 1, 2]], [[0, 1, 2], [0, 1, 2, 3]])
    assert one.keys() == first.keys() and one["n"] == 2000
    for name, found in one.items():
        assert first[name] == pytest.approx(found, rel=1e-6), name
