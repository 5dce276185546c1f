"""Options, fixtures and the closed network that all tests share."""

import functools
import gc
import ipaddress
import os
import socket
import sys
from pathlib import Path

import pytest

# Set before matplotlib is imported anywhere, and inherited by the commands that tests start.
os.environ["MPLBACKEND"] = "Agg"
# The networks of tests are so small that a second thread only waits; the commands that tests start inherit it too.
os.environ["OMP_NUM_THREADS"] = "1"


class OutsideConnection(RuntimeError):
    """A test tried to reach another machine."""


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device to run on: cpu, cuda, mps (default: cpu)")
    parser.addoption("--dtype", default="float32", help="floating-point type to run with (default: float32)")


# The files that take longest, with which the processes begin, so that they end together.
LONG = ("torchrun", "distributed", "evaluation", "cli", "recipes", "seam", "report_browser", "docs", "every_value")
LONG += ("translate", "faults", "auto", "fuzz", "hostile", "fast_step", "classifier", "ada", "unet", "neighbours")


def pytest_collection_modifyitems(items):
    names = [f"test_{name}" for name in LONG]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def pytest_collection_finish():
    """What is imported and collected stays to the end: no collection of garbage need look at it again."""
    gc.freeze()


@functools.cache
def command():
    """The command line, which typer would make anew at each call."""
    import typer

    from organza import cli

    return typer.main.get_command(cli.app)


@pytest.fixture(scope="session")
def device(request):
    import torch

    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def as_trained(device):
    """What `fit` plays in: on a GPU, kernels that add up in a fixed order."""
    from organza.device import undisturbed

    with undisturbed(device):
        yield


@pytest.fixture(scope="session")
def dtype(request):
    import torch

    name = request.config.getoption("--dtype")
    found = getattr(torch, name, None)
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise pytest.UsageError(f"--dtype {name}: not a floating-point type of torch; try float32 or float64")
    return found


@pytest.fixture(scope="session")
def organza_data():
    """The folder of test data sets too large for the repository (MNIST, emoji)."""
    if "ORGANZA_DATA" not in os.environ:
        pytest.skip("ORGANZA_DATA is not set: it names the folder that holds the test data sets")
    folder = Path(os.environ["ORGANZA_DATA"])
    if not folder.is_dir():
        raise pytest.UsageError(f"ORGANZA_DATA={folder}: no such folder")
    return folder


@pytest.fixture
def float64():
    """Numbers of 64 bits, so that what is left is no rounding."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def organza(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; returns (exit code, standard output, standard error)."""
    from organza import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("organza.cli.shell.app", command())

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["organza", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@functools.cache
def once(make, *words):
    return make(*words)


def anew(make):
    """The same, made once a process; who asks gets tensors of their own."""
    return lambda *words: tuple(each.clone() for each in once(make, *words))


@pytest.fixture(scope="module", autouse=True)
def lightly(request):
    """Digits are unpacked and laws drawn once, except where just these are tested."""
    from organza.data import source, synthetic

    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.startswith("test_data"):
            patch.setitem(source._DIGITS, "digits", anew(source._DIGITS["digits"]))
            patch.setattr(synthetic, "draw", anew(synthetic.draw))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """No test cuts the power: test_run looks that fsync is asked, of what and when, and has the real one too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Features of real data are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORGANZA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def is_local(host):
    """Whether a host name or address is this machine. None and "" mean so to the socket functions."""
    if isinstance(host, bytes):
        host = host.decode()
    if not host or host in ("localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def closed_network():
    """Refuse every connection that leaves this machine, so that no test can download anything.

    Holds for Python's sockets in this process; a command that a test starts has its own.
    """
    unix = getattr(socket, "AF_UNIX", None)

    def guard(name, address_at):
        original = getattr(socket.socket, name)

        def guarded(self, *args):
            address = args[address_at]
            if self.family != unix and not is_local(address[0]):
                raise OutsideConnection(f"a test called {name} to {address!r}")
            return original(self, *args)

        return guarded

    lookup = socket.getaddrinfo

    def local_lookup(host, *args, **kwargs):
        if not is_local(host):
            raise OutsideConnection(f"a test looked up {host!r}")
        return lookup(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guard("connect", 0))
        patch.setattr(socket.socket, "connect_ex", guard("connect_ex", 0))
        patch.setattr(socket.socket, "sendto", guard("sendto", -1))
        patch.setattr(socket, "getaddrinfo", local_lookup)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield
