"""What samples are compared with, and what is said of it: copies, small images, subsets that are the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch

from organza.data import Data, open_data
from organza.evaluation import Reference, evaluate, reference, some, usual_features
from organza.metrics.catalogue import METRICS


def noise(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_first_examples_by_chance_without_the_others() -> None:
    """The same as to take them first and to choose among them then, of which the copy may not fit into memory."""
    data = Data("x", torch.arange(100.0)[:, None])
    for n in (10, 60, 80):
        assert torch.equal(some(data, n, 3, 60).x, some(data.rows(torch.arange(60)), n, 3).x)
    assert some(data, 100, 3) is data and len(some(data, 100, 3, 60)) == 60


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("digits", "digits"),
        ("MNIST[:500]", "digits"),
        ("mnist from edges", "digits"),
        ("mnist-fashion", ""),
        ("digits-kannada.npz", ""),
        ("mnist/fashion.npz", ""),
    ],
)
def test_who_judges_digits(name: str, found: str) -> None:
    """No folder or file whose name only begins so: the classifier of digits knows none of its classes."""
    other = usual_features(Data("shoes", noise(50, 1, 28, 28)))
    assert other != "digits" and usual_features(Data(name, noise(50, 1, 28, 28))) == (found or other)


def test_copies_are_copies_whatever_labels_are_beside_them() -> None:
    x = noise(60, 1, 8, 8)
    real, y = Data("real", x, torch.arange(60) % 2), torch.zeros(60, dtype=torch.int64)
    for fake in (Data("samples", x), Data("samples", x, y)):
        (score,) = evaluate(fake, Reference(real, "all"), ["frechet"], "pixels", floors=False)
        assert "the samples are the real examples themselves" in score.flags
    (score,) = evaluate(Data("samples", 255 - x), Reference(real, "all"), ["frechet"], "pixels", floors=False)
    assert "the samples are the real examples themselves" not in score.flags


@pytest.mark.parametrize(("fakes", "reals", "error"), [(60, 60, False), (300, 60, False), (2100, 2100, True)])
def test_subsets_that_are_the_whole_have_no_error(fakes: int, reals: int, error: bool) -> None:
    """Of 60 examples there is one subset of 60, whose spread is the rounding."""
    fake, real = Data("samples", noise(fakes, 3, 2, 2)), Data("real", noise(reals, 3, 2, 2, seed=1))
    (score,) = evaluate(fake, Reference(real, "all"), ["kernel"], "pixels", floors=False)
    assert (score.error is not None) is error
    assert any("most of the sample" in flag for flag in score.flags) is not error
    assert score.error_of == ("standard deviation over 100 subsets" if error else "")


@pytest.mark.parametrize("side", [8, 16])
def test_pairs_too_small_for_a_window_are_judged_as_a_set(side: int) -> None:
    real = Data("x from y", noise(50, 3, side, side), noise(50, 3, side, side, seed=1))
    names = Reference(real, "all").answers
    assert names[-1] == "frechet" and ("pairs" in names) is (side == 16) and set(names) <= METRICS.keys()


@pytest.mark.parametrize("name", ["~/cats and dogs", "~/photos [2024]", "~/cats and dogs[:2]"])
def test_a_home_is_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = tmp_path / name.removeprefix("~/").removesuffix("[:2]")
    folder.mkdir()
    from PIL import Image

    for i in range(3):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i}.png")
    assert len(open_data(name)) == (2 if name.endswith("[:2]") else 3)
    assert reference(None, data=name).split == ("part" if name.endswith("[:2]") else "all")
