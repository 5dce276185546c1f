"""The device is found or refused in one line, and the caller's generators and threads are left alone."""

import platform
import subprocess
import sys

import pytest
import torch

from organza.device import pick_device, seed_networks, undisturbed


def test_names() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        assert pick_device().type == "cpu"
    with pytest.raises(ValueError, match="must be auto, cpu, cuda or mps; did you mean cuda"):
        pick_device("cudda")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("cpu:", "cpu:x", "cpu:1", "cpu:0:0"):
        with pytest.raises(ValueError, match="there is 1 of cpu, counted from 0"):
            pick_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="not available here; available: auto, cpu"):
            pick_device("cuda:1")


@pytest.mark.parametrize(("there", "taken"), [("cuda mps", "cuda"), ("mps", "mps"), ("cuda", "cuda"), ("", "cpu")])
def test_the_fastest_there_is_is_taken(there, taken, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert pick_device().type == taken


def test_undisturbed_even_by_an_error() -> None:
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(RuntimeError), undisturbed(torch.device("cpu"), threads=1):
        assert torch.get_num_threads() == 1 and torch.backends.cudnn.deterministic
        torch.rand(3)
        raise RuntimeError
    assert torch.equal(generator, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert not torch.backends.cudnn.deterministic


def test_networks_draw_what_the_seed_says() -> None:
    cpu = torch.device("cpu")
    with undisturbed(cpu):
        seed_networks(7, cpu)
        one = torch.rand(3)
        seed_networks(7, cpu)
        assert torch.equal(one, torch.rand(3))


GLIBC = tuple(int(n) for n in platform.libc_ver()[1].split(".")[:2] if n.isdecimal())

KEPT = """
import resource
import torch
from organza.device import keep_freed

network = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
x = torch.zeros(20, 8, 256, 256)  # 40 MiB, and so is what each layer makes

def faults():
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        network(x)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin

keep_freed()
faults()
print(min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or GLIBC < (2, 35), reason="only glibc can be told, and of more than 32 MiB"
)
def test_freed_memory_is_not_handed_back() -> None:
    said = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True, timeout=100)
    assert int(said.stdout) < 3_000  # of 30,000 pages and more that glibc by itself has filled with zeros each time
