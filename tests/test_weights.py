"""organza.metrics.weights: where weights are found, that nothing reads a file of another hash, and that none is run."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from organza.data import Data
from organza.evaluation import usual_features
from organza.metrics import efficientnet, lpips, weights

TENSORS = {"w": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)}


class Trap:
    """What runs the moment it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that are looked in, in their order, each of them empty."""
    monkeypatch.setenv("ORGANZA_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    found = [tmp_path / place for place in ("own", "cache/weights", "torch/hub/checkpoints", "also")]
    for folder in found:
        folder.mkdir(parents=True)
    return found


def test_the_first_place_counts(folders):
    """Of the same file in all places, under either name, each is found once those before it are gone."""
    paths = [folder / name for folder in folders for name in ("a.pth", "b.pth")]
    for path in paths:
        path.write_bytes(b"weights")
    for path in paths:
        assert weights.find("a.pth", "b.pth", sha256=sha(path), also=[folders[-1]]) == path
        path.unlink()


def test_missing_weights_are_asked_for_in_one_line(folders):
    with pytest.raises(weights.Missing) as error:
        weights.find("a.pth", "b.pth", sha256="ab12", advice="a shop sells it", also=[folders[-1]])
    assert str(error.value) == (
        f"a.pth or b.pth (SHA-256 ab12) is not on this machine: put it into {folders[0]}; a shop sells it"
    )


def test_without_variables_they_belong_in_the_home_folder(tmp_path, monkeypatch):
    for name in ("ORGANZA_WEIGHTS", "ORGANZA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    folder = tmp_path / ".cache" / "organza" / "weights"
    with pytest.raises(ValueError) as error:
        weights.find("a.pth", sha256="ab12")
    assert str(error.value).endswith(f"put it into {folder}")
    folder.mkdir(parents=True)
    (folder / "a.pth").write_bytes(b"weights")
    assert weights.find("a.pth", sha256=sha(folder / "a.pth")) == folder / "a.pth"


def test_another_file_is_refused_even_if_a_good_one_lies_further_on(folders):
    for folder, contents in zip(folders, (b"damaged", b"weights"), strict=False):
        (folder / "a.pth").write_bytes(contents)
    bad, good = (sha(folder / "a.pth") for folder in folders[:2])
    with pytest.raises(ValueError) as error:
        weights.find("a.pth", sha256=good)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in (str(folders[0] / "a.pth"), bad, good))


def test_a_file_is_hashed_again_only_when_it_changes(tmp_path, monkeypatch):
    path, digest, calls = tmp_path / "a.safetensors", hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: calls.append(1) or digest(*args))
    save_file(TENSORS, path)
    good = sha(path)
    for _ in range(3):
        weights.load(path, good)
    assert len(calls) == 1
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1  # of the same length
    path.write_bytes(changed)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
    with pytest.raises(ValueError, match="is not the published file"):
        weights.load(path, good)
    assert len(calls) == 2


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_pth_and_safetensors_hold_the_same(tmp_path, zipped):
    torch.save(TENSORS, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    save_file(TENSORS, tmp_path / "a.safetensors")
    for path in tmp_path.iterdir():
        found = weights.load(path, sha(path))
        assert found.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_nothing_is_run(tmp_path):
    """A pickle that is a program never runs: neither with a wrong hash, nor with the right one."""
    path, canary = tmp_path / "a.pth", tmp_path / "canary"
    torch.save({"w": Trap(canary)}, path)
    with pytest.raises(ValueError, match="is not the published file"):
        weights.load(path, sha256="ab12")
    with pytest.raises(pickle.UnpicklingError, match=r"(?i)weights only"):
        weights.load(path, sha(path))
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists(), "the trap is none"


def test_what_may_be_missing_may_not_be_damaged(folders, monkeypatch):
    """What is chosen by itself does without weights that are not here, and names a file that is the wrong one."""
    color = Data("x", torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    monkeypatch.setattr(weights, "packaged", lambda *_: [])
    monkeypatch.setattr(lpips, "network", lpips.network.__wrapped__)
    assert "is not on this machine" in lpips.missing((3, 32, 32)) and usual_features(color) == "random"
    for name in (lpips.FILE, efficientnet.LITE0.file):
        (folders[0] / name).write_bytes(b"damaged")
    for asked in (lambda: lpips.missing((3, 32, 32)), lambda: usual_features(color)):
        with pytest.raises(ValueError, match="is not the published file, or is damaged"):
            asked()
