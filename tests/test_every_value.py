"""Every kind of data goes the whole way by the command: trained on, kept, loaded, and sampled in its own numbers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import organza as oz
from organza.data import open_data
from organza.decision import prepare
from organza.plan import Plan, PlanError

CHANCE = np.random.RandomState(0)
N = 60
SMALL = ("generator.width=4", "discriminator.width=4", "discriminator.dense=8")
NARROW = ("generator.widths=[8]", "discriminator.widths=[8]")


def images(channels, dtype, low=0.0, high=1.0):
    x = CHANCE.uniform(low, high, (N, channels, 20, 33))
    return x.astype(dtype)


KINDS = {f"{c} channels": images(c, np.uint8, 0, 256) for c in (1, 2, 3, 4, 7)}
KINDS |= {
    "uint16": images(1, np.uint16, 0, 65536),
    "uint16 of 3": images(3, np.uint16, 0, 65536),
    "unit": images(3, np.float32),
    "signed": images(1, np.float32, -1, 1),
    "any range": images(2, np.float64, -300, 1e4),
    "any range of 7": images(7, np.float16, 20, 30),
    "signal": CHANCE.randn(N, 1, 64) * 7 + 100,
    "signals": (CHANCE.randn(N, 2, 50) * [[1], [1e3]]).astype(np.float32),
    **{f"vectors of {d}": CHANCE.randn(N, d) * np.logspace(-5, 5, d) + np.logspace(5, -5, d) for d in (1, 2, 3, 5)},
}


@pytest.fixture(autouse=True)
def no_charts(monkeypatch):
    """The report's curves take longer than all the rest, and know nothing of the data."""
    monkeypatch.setattr("organza.report.curves.curves", lambda *_: "")


def train(organza, data, shape):
    settings = [word for each in (SMALL if len(shape) == 3 else NARROW) for word in ("--set", each)]
    words = ("train", data, "--run", "r", "--recipe", "quick", "--images", "256", "--device", "cpu", *settings)
    code, out, err = organza(*words, "--set", "training.batch=32", "--set", "training.threads=1")
    assert code == 0, (out, err)


def sampled(organza, name, *words):
    code, out, err = organza("sample", "r", "-n", "9", "--out", name, "--device", "cpu", *words)
    assert code == 0, (out, err)
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_way(organza, kind, tmp_path):
    x = KINDS[kind]
    np.savez("x.npz", x=x, layout={4: "NCHW", 3: "NCL", 2: "ND"}[x.ndim])
    train(organza, "x.npz", x.shape[1:])
    found = np.load(sampled(organza, "s.npz"))["x"]
    assert found.dtype == x.dtype and found.shape == (9, *x.shape[1:]) and np.isfinite(found).all()
    assert np.array_equal(np.load(sampled(organza, "s.npy")), found)
    again = open_data("s.npz")
    assert again.spec.shape == x.shape[1:]
    if x.ndim == 4:  # G ends in tanh
        assert x.dtype.kind == "u" or (x.min() <= found.min() and found.max() <= x.max())
        if x.dtype.kind == "u":
            assert found.max() > np.iinfo(x.dtype).max / 4
    else:  # of each coordinate or channel the size is the data's, as first weights are near mean 0 and deviation 1
        rows, given = (np.moveaxis(each.astype(float), 1, 0).reshape(x.shape[1], -1) for each in (found, x))
        last = np.abs(given.mean(1)) * 1e-6  # what a float32 can tell apart
        assert (np.abs(rows.mean(1) - given.mean(1)) < 4 * given.std(1) + last).all()
    model = oz.load("r", device="cpu")
    assert np.array_equal(model.restore(model.sample(9)).numpy(), found)
    assert json.loads((tmp_path / "r" / "plan.json").read_text())["values"] == open_data("x.npz").values.json()
    passed_on = oz.Model.from_pretrained(model.save_pretrained("p"), device="cpu")
    assert np.array_equal(passed_on.restore(passed_on.sample(9)).numpy(), found)
    if x.ndim > 2 or x.shape[1] == 2:
        with Image.open(sampled(organza, "s.png")) as picture:
            assert picture.mode in ("L", "RGB")
        assert list((tmp_path / "r" / "samples").glob("*.png"))
    assert (tmp_path / "r" / "report.html").is_file()


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("uint16", "signals")]


@pytest.mark.parametrize("kind", ["any range of 7", "vectors of 5", *SLOW])
def test_evaluation_is_in_the_numbers_of_the_data(organza, kind):
    x = KINDS[kind]
    np.savez("x.npz", x=x, layout={4: "NCHW", 3: "NCL", 2: "ND"}[x.ndim])
    train(organza, "x.npz", x.shape[1:])
    metrics, features = (["two-sample"], "random") if x.ndim == 4 else (["frechet", "two-sample"], "pixels")
    own = oz.evaluate("r", n=50, metrics=metrics, features=features, device="cpu", floors=False)
    code, out, err = organza("sample", "r", "-n", "50", "--out", "s.npz", "--device", "cpu")
    assert code == 0, (out, err)
    files = oz.evaluate(fake="s.npz", data="x.npz", n=50, metrics=metrics, features=features, floors=False)
    for mine, other in zip(own, files, strict=True):
        assert mine.value == pytest.approx(other.value, rel=0.05) and np.isfinite(mine.value)


@pytest.mark.parametrize("part", ["", "[background=white]"])
def test_alpha_is_kept_or_composed(organza, tmp_path, part):
    for i in range(N):
        path = tmp_path / "photos" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(CHANCE.randint(0, 256, (20, 33, 4)).astype(np.uint8)).save(path)
    train(organza, f"photos{part}", (3, 20, 33))
    sampled(organza, "s/")
    data = open_data("s")
    assert len(data) == 9 and data.spec.shape == (3 if part else 4, 20, 33) and data.x.dtype == torch.uint8
    sampled(organza, "n.png", "--nearest")
    code, out, err = organza("interpolate", "r", "-n", "2", "--steps", "3", "--out", "film.gif")
    assert code == 0, (out, err)


def test_signals_and_vectors_are_no_pictures(organza):
    np.save("x.npy", KINDS["signals"])
    train(organza, "x.npy", (2, 50))
    code, out, err = organza("resume", "r", "--images", "320")
    assert code == 0, (out, err)
    for words, said in (
        (("sample", "r", "--out", "s/"), "these are signals; use FILE.npz or FILE.png"),
        (("interpolate", "r"), "this generator makes (2, 50)"),
        (("sample", "r", "--nearest"), "this generator makes (2, 50)"),
    ):
        code, _, err = organza(*words)
        assert code == 2 and said in err


def test_gray_of_16_bits_comes_back_as_files(organza):
    np.save("x.npy", KINDS["uint16"][:, 0])
    train(organza, "x.npy", (1, 20, 33))
    sampled(organza, "s/")
    found = np.load(sampled(organza, "s.npy"))
    assert np.array_equal(open_data("s").x.numpy(), found)
    sampled(organza, "n.png", "--nearest")


def test_a_model_of_nothing_known_makes_bytes_of_images():
    model = oz.Model(torch.nn.Identity(), oz.Normal(2))
    assert model.restore(torch.tensor([[[[-1.0, 1.0]]]])).tolist() == [[[[0, 255]]]]
    assert model.restore(torch.ones(2, 3)).tolist() == [[1.0] * 3] * 2


def test_values_of_a_plan_are_checked():
    data = open_data(KINDS["vectors of 3"])
    plan = prepare(data, "quick", 256)
    assert plan.values == data.values.json() and Plan.read(plan.json()) == plan
    for wrong in ({"dtype": "int8"}, {"scale": 0}, {"more": 1}, [1]):
        with pytest.raises(PlanError, match="values"):
            plan.set({"values": wrong})
    with pytest.raises(ValueError, match="values is no setting"):
        prepare(data, "quick", 256, {"values": None})
