"""organza.data: the built-in data sets are what they claim to be, and MNIST is found, fetched and checked."""

import gzip
import hashlib
import importlib.util
import io
import socket
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
import torch

from organza.data import Spec, mnist, names, open_data, synthetic

ROOT = Path(__file__).resolve().parents[1]
DIGITS_SHA256 = "ec50e1c66312394c2e353fd7024c02a1d8367a464eabd72014397a0f1c6b9aaf"


def refusal(*args, **kwargs):
    """The message of the ValueError that open_data raises, which is one line."""
    with pytest.raises(ValueError) as caught:
        open_data(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Synthetic laws.


@pytest.mark.parametrize("name", synthetic.NAMES)
def test_synthetic_sets_are_fixed(name):
    train, test = open_data(name), open_data(name, "test")
    assert (len(train), len(test)) == (100_000, 10_000)
    assert train.x.dtype == torch.float32 and train.spec.shape == (2,)
    assert train.spec.classes == test.spec.classes == {"ring": 8, "grid25": 25, "grid100": 100}.get(name, 2)
    assert torch.equal(train.x, open_data(name).x) and torch.equal(train.y, open_data(name).y)
    assert not set(map(tuple, test.x.tolist())) <= set(map(tuple, train.x.tolist()))


@pytest.mark.parametrize(("name", "modes", "std"), [("ring", 8, 0.01), ("grid25", 25, 0.05), ("grid100", 100, 0.05)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mixtures_are_what_they_claim(name, modes, std, split):
    c, sigma = synthetic.centres(name)
    assert c.shape == (modes, 2) and c.dtype == torch.float32 and sigma == std
    assert c.mean(dim=0).abs().max() < 1e-6
    data = open_data(name, split)
    n = len(data)
    noise = (data.x - c[data.y]).double() / sigma
    distance = noise.norm(dim=1)
    # In the plane the Mahalanobis distance is Rayleigh: P(d < 3) = 1 - exp(-9/2) = 98.89 %.
    inside = 0.98889
    assert abs(float((distance < 3).double().mean()) - inside) < 4 * (inside * (1 - inside) / n) ** 0.5
    assert torch.equal(torch.cdist(data.x, c).argmin(dim=1), data.y)
    counts = data.y.bincount(minlength=modes).double()
    assert float(((counts - n / modes) ** 2).sum() / (n / modes)) < modes + 5 * (2 * modes) ** 0.5  # chi squared
    zeros, size = torch.zeros(modes, 2, dtype=torch.float64), counts[:, None]
    mean = zeros.index_add(0, data.y, noise) / size
    deviation = (zeros.index_add(0, data.y, noise**2) / size - mean**2).sqrt()
    assert (mean * size.sqrt()).abs().max() < 5
    assert ((deviation - 1) * (2 * size).sqrt()).abs().max() < 5
    assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < 5 / n**0.5


def test_centres_lie_where_the_papers_put_them():
    ring, _ = synthetic.centres("ring")
    assert torch.allclose(ring.norm(dim=1), torch.ones(8))
    assert torch.allclose(ring[[0, 2]], torch.eye(2), atol=1e-6)  # the end point of the circle appears once
    for name, side in (("grid25", {-4, -2, 0, 2, 4}), ("grid100", set(range(-9, 10, 2)))):
        grid, _ = synthetic.centres(name)
        assert {tuple(map(int, c)) for c in grid.tolist()} == {(a, b) for a in side for b in side}
    for name, hint in (("gird25", "did you mean 'grid25'?"), ("moons", "ring, grid25 and grid100")):
        with pytest.raises(ValueError, match="no modes that are known") as caught:
            synthetic.centres(name)
        assert hint in str(caught.value)


def test_moons_and_spiral_lie_along_their_curves():
    t = torch.linspace(0, torch.pi, 2000)
    upper = torch.stack([t.cos(), t.sin()], dim=1)
    moons = [upper, torch.tensor([1, 0.5]) - upper]
    t = torch.linspace(0, 3 * torch.pi, 4000)[:, None]
    arm = t / 3 * torch.cat([-t.cos(), t.sin()], dim=1)
    for name, curves in (("moons", moons), ("spiral", [arm, -arm])):
        data = open_data(name, "test")
        own = torch.stack([torch.cdist(data.x, curve).amin(dim=1) for curve in curves], dim=1)
        to_own = own.gather(1, data.y[:, None])[:, 0]
        assert to_own.max() < 0.1 * 5
        # Off the ends, the distance to a curve is the noise across it: sigma sqrt(2 / pi) on average.
        assert abs(float(to_own.mean()) - 0.1 * (2 / torch.pi) ** 0.5) < 0.005
        assert abs(float(data.y.double().mean()) - 0.5) < 0.02


# Digits and MNIST.


def test_no_test_reaches_outside():
    with socket.socket() as outward, pytest.raises(RuntimeError, match="a test called connect"):
        outward.connect(("192.0.2.1", 80))  # an address reserved for documentation
    with pytest.raises(RuntimeError, match="a test looked up"):
        socket.create_connection(("example.org", 80))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_digits_are_balanced_and_quick():
    start = time.perf_counter()
    train = open_data("digits")
    seconds = time.perf_counter() - start
    test = open_data("digits", "test")
    assert seconds < 2  # 0.04 on an idle core; the slack is for busy machines
    assert train.spec == Spec((1, 28, 28), 10_000, 10) and train.x.dtype == torch.uint8
    assert test.spec == Spec((1, 28, 28), 2_000, 10)
    assert train.y.bincount().tolist() == [1000] * 10 and test.y.bincount().tolist() == [200] * 10
    assert names()[0] == "digits"


def test_digits_are_pinned():
    assert hashlib.sha256(mnist.DIGITS.read_bytes()).hexdigest() == DIGITS_SHA256
    assert mnist.DIGITS.stat().st_size < 3 * 2**20
    assert "CC BY-SA 3.0" in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_digits_are_a_part_of_mnist(organza_data):
    """The first 1,000 training images of each class; of each 200 test images, from one end to the other."""
    for split, n in (("train", 1000), ("test", 200)):
        digits, whole = open_data("digits", split), open_data("mnist", split)
        assert whole.spec == Spec((1, 28, 28), 60_000 if split == "train" else 10_000, 10)
        of_each = [(whole.y == label).nonzero()[:, 0] for label in range(10)]
        chosen = [rows[:n] if split == "train" else rows[torch.arange(n) * len(rows) // n] for rows in of_each]
        positions = torch.cat(chosen).sort().values
        assert torch.equal(digits.x, whole.x[positions]) and torch.equal(digits.y, whole.y[positions])


def test_digits_can_be_made_again(organza_data, tmp_path):
    spec = importlib.util.spec_from_file_location("make_digits", ROOT / "scripts" / "make_digits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make(organza_data / "mnist", tmp_path / "digits.npz")
    with zipfile.ZipFile(mnist.DIGITS) as shipped, zipfile.ZipFile(tmp_path / "digits.npz") as made:
        assert made.namelist() == shipped.namelist()
        assert all(made.read(name) == shipped.read(name) for name in made.namelist())
        # Another zlib may pack otherwise; one that packs to the same size must give the very file.
        same = [m.compress_size for m in made.infolist()] == [m.compress_size for m in shipped.infolist()]
    digest = hashlib.sha256((tmp_path / "digits.npz").read_bytes()).hexdigest()
    assert digest == DIGITS_SHA256 or not same


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """No MNIST on this machine, and two images for the originals; gives {name: gzip file}."""
    contents = {}
    for prefix in ("train", "t10k"):
        pixels = bytes(i % 251 for i in range(2 * 28 * 28))
        contents[f"{prefix}-images-idx3-ubyte.gz"] = bytes.fromhex("00000803 00000002 0000001c 0000001c") + pixels
        contents[f"{prefix}-labels-idx1-ubyte.gz"] = bytes.fromhex("00000801 00000002 0307")
    for name, idx in contents.items():
        monkeypatch.setitem(mnist.FILES, name, hashlib.sha256(idx).hexdigest())
    monkeypatch.delenv("ORGANZA_DATA", raising=False)
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path / "cache"))
    return {name: gzip.compress(idx) for name, idx in contents.items()}


@pytest.fixture
def mirrors(monkeypatch):
    """What the mirrors answer, {address: bytes or an exception}, and the addresses that were asked."""
    answers, asked = {}, []

    def urlopen(address, timeout):
        assert 0 < timeout <= 60
        asked.append(address)
        answer = answers.get(address, urllib.error.URLError("no\nnetwork"))
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return answers, asked


def test_mnist_is_downloaded_once(small_mnist, mirrors, tmp_path):
    answers, asked = mirrors
    images, labels = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
    answers[mnist.MIRRORS[0] + images] = small_mnist[images]
    answers[mnist.MIRRORS[0] + labels] = small_mnist[images]  # not what was asked for: the next mirror has it
    answers[mnist.MIRRORS[1] + labels] = small_mnist[labels]
    data = open_data("mnist")
    assert data.spec == Spec((1, 28, 28), 2, 10) and data.y.tolist() == [3, 7] and data.x[0, 0, 1, 0] == 28
    assert asked == [mnist.MIRRORS[0] + images, mnist.MIRRORS[0] + labels, mnist.MIRRORS[1] + labels]
    assert sorted(p.name for p in (tmp_path / "cache" / "mnist").iterdir()) == [
        images,
        labels,
    ]  # nothing aside
    assert open_data("mnist").digest == data.digest and len(asked) == 3


def test_mnist_is_looked_for_in_two_folders(small_mnist, mirrors, tmp_path, monkeypatch):
    for folder, part in (("data", "images"), ("cache", "labels")):
        (tmp_path / folder / "mnist").mkdir(parents=True)
        for name, packed in small_mnist.items():
            if part in name:
                (tmp_path / folder / "mnist" / name).write_bytes(packed)
    monkeypatch.setenv("ORGANZA_DATA", str(tmp_path / "data"))
    assert len(open_data("mnist", "test")) == 2
    assert mirrors[1] == []


def test_mnist_without_a_network(small_mnist, mirrors, tmp_path, monkeypatch):
    message = refusal("mnist", "test")
    assert "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz" in message
    assert str(tmp_path / "cache" / "mnist") in message and "no network" in message
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("ORGANZA_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert str(tmp_path / ".cache" / "organza" / "mnist") in refusal("mnist")


@pytest.mark.parametrize("answer", [b"", b"<html>", TimeoutError("timed out"), "another", "cut"])
def test_a_wrong_download_is_not_kept(small_mnist, mirrors, tmp_path, answer):
    name = "t10k-images-idx3-ubyte.gz"
    packed = {"another": gzip.compress(b"\0" * 100), "cut": small_mnist[name][:-9]}.get(answer, answer)
    for mirror in mnist.MIRRORS:
        mirrors[0][mirror + name] = packed
    assert ("timed out" if isinstance(answer, TimeoutError) else "is not the original") in refusal("mnist", "test")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_in_the_cache_is_named(small_mnist, mirrors, tmp_path):
    (tmp_path / "cache" / "mnist").mkdir(parents=True)
    path = tmp_path / "cache" / "mnist" / "train-images-idx3-ubyte.gz"
    packed = small_mnist[path.name]
    for damaged in (packed[:-20], packed[:60] + b"\xff" + packed[61:], gzip.compress(b"other"), b""):
        path.write_bytes(damaged)
        message = refusal("mnist")
        assert str(path) in message and "delete or replace it" in message
    assert mirrors[1] == []


def test_idx():
    assert (mnist.read_idx(bytes.fromhex("00000802 00000002 00000003 010203040506")) == [[1, 2, 3], [4, 5, 6]]).all()
    for wrong in ("", "0000", "00000800", "00000801 00000002 01", "00000901 00000001 01", "00000801 000000"):
        with pytest.raises(ValueError, match="not an IDX file"):
            mnist.read_idx(bytes.fromhex(wrong))
