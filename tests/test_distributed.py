"""Several processes: they share the work, and get the same numbers as one."""

import atexit
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys_conditional import TOYS

from organza import distributed
from organza.distributed import add, agreed, first, gather, join, rank, share, spread, world
from organza.training import State

# One of two processes that judge the same samples together; rank 0 prints what it found.
PROGRAM = """
import json, sys
import torch
from torch import distributed as group
from organza import evaluation
from organza.data import open_data
from organza.distributed import gather, rank
torch.set_num_threads(1)
if sys.argv[1:]:
    group.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
parts = gather(torch.arange(3 + rank()).view(-1, 1).to(torch.uint16))
fake, against = open_data("digits[:600]"), evaluation.reference("digits[1000:]")
names = ["frechet", "neighbours", "classes"]  # kernel, which takes long, would see no more than these
scores = evaluation.evaluate(fake, against, names, "digits")
record = {score.key: [score.value, score.floor] for score in scores}
record |= {"parts": [part.flatten().tolist() for part in parts]}
print(json.dumps(record))
"""


def test_alone_everything_is_the_identity() -> None:
    assert (distributed.rank(), distributed.world(), share(7)) == (0, 1, range(7))
    x = torch.zeros(3)
    assert gather(x) == [x]
    add([x])
    join()
    assert (x.tolist(), agreed(True, False), first(lambda: (1, 2))) == ([0, 0, 0], (True, False), (1, 2))
    assert spread({"x": x})["x"] is x


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


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Which is this one."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "meet")]
    jobs = [subprocess.Popen([*command, number], stdout=subprocess.PIPE, text=True) for number in "01"]
    monkeypatch.setattr(sys, "argv", ["one"])
    exec(PROGRAM, {})  # meanwhile
    one = json.loads(capsys.readouterr().out)
    first, second = (json.loads(job.communicate(timeout=120)[0]) for job in jobs)
    assert first == second
    assert (one.pop("parts"), first.pop("parts")) == ([[0, 1, 2]], [[0, 1, 2], [0, 1, 2, 3]])
    assert one.keys() == first.keys()
    for name, found in one.items():
        assert first[name] == pytest.approx(found, rel=1e-6), name


def played(name: str) -> dict[str, torch.Tensor] | str:
    """All that three rounds of a toy come to, each batch in four parts; or why that cannot be."""
    torch.manual_seed(rank())  # a program's own networks may begin otherwise in each process: rank 0's count
    toy = TOYS[name]()
    training = replace(toy.training, accumulate=4 // world())
    try:
        state = State(toy.game, training, toy.data, torch.device("cpu"))
    except ValueError as error:
        return str(error)
    for _ in range(3):
        state.training.moves(state, state.stream)
    state.agree()
    log = {f"log.{name}": torch.tensor(value) for name, value in state.means().items()}
    return {
        f"{g}.{n}": x.clone().contiguous() for g, tensors in state.tensors().items() for n, x in tensors.items()
    } | log


def spoil(how: str) -> None:
    """Break what the processes owe each other."""
    from organza.training import state

    if how == "nothing is added":
        state.add = lambda tensors: None
    elif how == "the mean instead of the sum":
        whole = state.add
        state.add = lambda tensors: (whole(tensors), torch._foreach_div_(list(tensors), world()))
    elif how == "each has the first rows":
        state.rank = lambda: 0
    elif how == "noise of its own":
        beside = state.Draw.__call__
        state.Draw.__call__ = lambda self, sample: beside(self, lambda n, g: sample(n, g).roll(rank(), 0))
    elif how == "reals and fakes of other pairs":
        order = state.Order.indices
        state.Order.indices = lambda self, *place: order(self, *place).roll(rank(), 0)
    elif how == "the penalty is not averaged":
        whole_loss = state.Game.loss

        def loss(self, round, player):
            more = [
                weight * x.mean() for name, (weight, x) in self.losses(round, player).items() if name != "objective"
            ]
            return whole_loss(self, round, player) + (1 - round.draw.share) * sum(more)

        if world() > 1:
            state.Game.loss = loss


def kept(folder: Path, names: list[str]) -> dict[str, str]:
    """Write what these toys come to; return why others cannot be played."""
    refused = {}
    for name in names:
        try:
            found = played(name)
        except RuntimeError as error:
            found = str(error)
        if isinstance(found, str):
            refused[name] = found
        else:
            save_file(found, folder / f"{name}-{rank()}-{world()}.safetensors")
    return refused


def ended() -> None:
    """Fail if a thread of the group has outlived it: see join."""
    threads = [each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in threads):
        print(f"threads that outlived the group: {threads}", file=sys.stderr, flush=True)
        os._exit(1)


def main(folder: Path, how: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    atexit.register(ended)  # what is registered first is called last
    join()
    spoil(how)
    refused = kept(folder, names)
    said = spread({"x": torch.arange(3.0)} if rank() == 0 else {})["x"]
    assert said.tolist() == [0, 1, 2]
    assert agreed(rank() == 1, False) == (world() == 2, False)
    assert first(lambda: {"rank": rank()}) == {"rank": 0}
    with pytest.raises(ValueError, match="one"):  # on every rank
        first(lambda: int("one"))
    print(json.dumps(refused))


def start(*words: str, processes: int = 2) -> list[dict[str, str]]:
    """What each of so many processes prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    command = [sys.executable, __file__, *words]
    jobs = [
        subprocess.Popen(command, env={**os.environ, **meet, "RANK": str(i)}, stdout=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    said = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * processes
    return [json.loads(each) for each in said]


def apart(folder: Path, name: str, one: str, other: str) -> float:
    """The largest difference of two ends."""
    ends = [load_file(folder / f"{name}-{which}.safetensors") for which in (one, other)]
    assert ends[0].keys() == ends[1].keys()
    return max(float((x.double() - ends[1][n].double()).abs().max()) for n, x in ends[0].items() if x.numel())


def test_two_processes_train_as_one(tmp_path: Path, float64) -> None:
    """Every toy: 2 processes with two micro-batches each are one with four, which is one with the whole batch (see
    test_seam) unless the toy says why it is not."""
    first, second = start(str(tmp_path), "", *TOYS)
    assert first == second and sorted(first) == ["consensus", "unrolled"]
    assert first["unrolled"] == "moves=Unrolled: needs the whole batch in one process, there are 2"
    assert kept(tmp_path, [*TOYS]) == {}  # in this process, which is one
    for name in TOYS.keys() - first.keys():
        assert apart(tmp_path, name, "0-2", "1-2") == 0, name
        batch_norm = TOYS[name]().varies == "batch statistics"
        if not batch_norm:  # whose running means are those of rank 0's micro-batches
            assert apart(tmp_path, name, "0-2", "0-1") < 1e-12, name


MUTANTS = ["nothing is added", "the mean instead of the sum", "each has the first rows", "noise of its own"]
MUTANTS += ["reals and fakes of other pairs", "the penalty is not averaged"]


@pytest.mark.slow
@pytest.mark.parametrize("how", MUTANTS)
def test_each_fault_in_sharing_is_found(how: str, tmp_path: Path) -> None:
    names = ["accumulation", "wgan-gp", "rpgan"]
    first, _ = start(str(tmp_path), how, *names)
    assert start(str(tmp_path), "", *names, processes=1) == [{}]
    if how == "nothing is added":  # each then goes its own way, which no checkpoint may hold
        assert all("weights differ" in first[name] for name in names)
    for name in names:
        assert "weights differ" in first.get(name, "") or apart(tmp_path, name, "0-2", "0-1") > 1e-6, name


@pytest.mark.parametrize(
    ("gpus", "processes", "nccl", "backend", "chosen"),
    [
        (0, 2, True, "gloo", None),
        (2, 2, True, "cpu:gloo,cuda:nccl", 1),
        (2, 2, False, "gloo", 1),
        (1, 2, True, "gloo", 0),
        (4, 8, True, "gloo", 1),
    ],
)
def test_each_process_has_a_gpu_or_shares_one(gpus, processes, nccl, backend, chosen, monkeypatch):
    """Over NCCL where there are enough; NCCL refuses two processes on one GPU."""
    asked = {}
    names = {"WORLD_SIZE": "16", "MASTER_ADDR": "here", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": str(processes)}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: asked.update(gpu=index))
    monkeypatch.setattr(distributed.group, "init_process_group", lambda backend: asked.update(backend=backend))
    monkeypatch.setattr(distributed.group, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(atexit, "register", lambda what: None)
    distributed.join()
    assert asked == ({"backend": backend} if chosen is None else {"backend": backend, "gpu": chosen})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
