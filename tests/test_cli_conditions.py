"""Conditions on the command line: labels by name, the grid of the lectures, codes, and what is refused."""

import errno
import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import organza as oz
from organza import api
from organza.data import open_data

SMALL = ("--set", "generator.width=4", "--set", "discriminator.width=4", "--set", "discriminator.dense=8")


def make_classes(folder: str) -> None:
    """Two classes of 20 noisy pictures of 12 x 9: bars that lie, bars that stand."""
    chance = np.random.default_rng(0)
    for name in ("lying", "standing"):
        Path(folder, name).mkdir(parents=True)
        for i in range(20):
            x = chance.integers(0, 60, (12, 9)).astype(np.uint8)
            x[(slice(4, 7), slice(None)) if name == "lying" else (slice(None), slice(3, 6))] += 150
            Image.fromarray(x).save(Path(folder, name, f"{i}.png"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short run, never changed."""
    folder = tmp_path_factory.mktemp("runs")
    make_classes(f"{folder}/bars")
    small = {"generator.width": 4, "discriminator.width": 4, "discriminator.dense": 8}
    oz.train(f"{folder}/bars", "conditional", run=folder / "run", images=320, device="cpu", changes=small)
    return str(folder / "run")


def test_labels_by_name_number_and_all(organza, run) -> None:
    code, out, _ = organza("sample", run, "--label", "standing", "--label", "0", "-n", "3", "--out", "a.npz", "--json")
    assert code == 0 and json.loads(out)["labels"] == ["standing", "0"]
    with np.load("a.npz") as file:
        assert file["x"].shape == (6, 1, 12, 9) and file["y"].tolist() == [1, 1, 1, 0, 0, 0]
    model = oz.load(run, device="cpu")
    grid = model.across(torch.tensor([1, 0]), 3, 0)
    assert grid.shape == (2, 3, 1, 12, 9)
    for row, label in zip(grid, (1, 0), strict=True):  # the same z in a column; a batch of 6 may round unlike one of 3
        assert torch.allclose(row, model.sample(3, 0, torch.full((3,), label)), rtol=0, atol=1e-6)
    assert not torch.allclose(grid[0], grid[1], rtol=0, atol=1e-4)
    code, out, _ = organza("sample", run, "-n", "5", "--out", "all.png")
    assert code == 0 and "a row for each of lying, standing" in out
    with Image.open("all.png") as picture:
        assert picture.size == (5 * 9 + 4 * 2, 2 * 12 + 2)
    assert organza("sample", run, "-n", "2", "--out", "made/")[0] == 0
    assert sorted(str(p) for p in Path("made").rglob("*.png"))[0] == str(Path("made/lying/000000.png"))
    assert open_data("made").labels == ("lying", "standing")


def test_pictures_of_a_run_have_a_row_for_each_label(run) -> None:
    with Image.open(f"{run}/samples/320.png") as picture:
        assert picture.size == (8 * 9 + 7 * 2, 2 * 12 + 2)


def test_names_stay_with_the_model(organza, run) -> None:
    assert organza("export", run, "--pretrained", "mine")[0] == 0
    assert organza("sample", "mine", "--label", "lying", "-n", "2", "--out", "a.npz")[0] == 0
    assert organza("interpolate", "mine", "--label", "lying", "-n", "2", "--steps", "3", "--out", "way.png")[0] == 0


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("stending", "did you mean standing?"),
        ("2", "there are lying, standing"),
        ("0.5,x", "there are lying, standing"),
    ],
)
def test_a_label_that_is_none(organza, run, label, said) -> None:
    code, _, err = organza("sample", run, "--label", label)
    assert code == 2 and said in err and err.count("\n") == 1


def test_several_labels_at_once_as_numbers(organza, run) -> None:
    assert organza("sample", run, "--label", "0.5,0.5", "--label", "1,0", "-n", "2", "--out", "a.npz")[0] == 0
    with np.load("a.npz") as file:
        assert file["y"].tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0], [1, 0]]
    code, _, err = organza("sample", run, "--label", "0.5,0.5", "--label", "lying")
    assert code == 2 and "either classes or numbers" in err


@pytest.mark.parametrize("recipe", ["conditional", "acgan", "cgan2014", "semi-supervised"])
def test_data_without_labels_is_refused(organza, recipe) -> None:
    np.savez("plain.npz", x=np.zeros((20, 12, 9), np.uint8))
    code, _, err = organza("train", "plain.npz", "--recipe", recipe, "--run", "run")
    assert code == 2 and f"recipe {recipe} is conditional, and the data has no labels" in err
    assert not Path("run").exists()


def test_a_label_for_a_run_without_conditions_is_refused(organza) -> None:
    tiny = ("--recipe", "mlp", "--set", "generator.widths=[8]", "--set", "discriminator.widths=[8]")
    assert organza("train", *tiny, "--images", "128", "--run", "run")[0] == 0
    code, _, err = organza("sample", "run", "--label", "3")
    assert code == 2 and "is not conditional" in err
    code, _, err = organza("interpolate", "run", "--code", "0")
    assert code == 2 and "has no codes" in err


def test_labels_as_folders_stay_in_the_folder_that_was_asked_for(organza, run) -> None:
    """Whoever named the classes of a model: neither "..", nor a path, leads out of it."""
    assert organza("export", run, "--pretrained", "mine")[0] == 0
    config = json.loads(Path("mine/config.json").read_text())
    Path("mine/config.json").write_text(json.dumps(config | {"labels": ["..", "C:\\x/y"]}))
    before = {str(path) for path in Path().rglob("*.png")}
    assert organza("sample", "mine", "-n", "2", "--out", "in/made/")[0] == 0
    made = {str(path) for path in Path().rglob("*.png")} - before
    assert len(made) == 4 and {Path(path).parent.name for path in made} == {"%2E%2E", "C%3A%5Cx%2Fy"}, made
    assert all(Path(path).parent.parent == Path("in/made") for path in made)
    Path("mine/config.json").write_text(json.dumps(config | {"labels": [1, 2]}))
    code, _, err = organza("sample", "mine")
    assert code == 2 and "labels must be a list of texts" in err


def test_one_number_as_condition(organza) -> None:
    Path("ages").mkdir()
    for i in range(20):
        Image.fromarray(np.full((12, 9), 10 * i, np.uint8)).save(f"ages/{i}.png")
    Path("ages/labels.csv").write_text("".join(f"{i}.png,{i / 20}\n" for i in range(20)))
    code, _, err = organza("train", "ages", "--recipe", "conditional", *SMALL, "--images", "64", "--run", "aged")
    assert code == 0, err
    assert organza("sample", "aged", "--label", "0.5", "--label", "0.7", "-n", "2", "--out", "a.npz")[0] == 0
    with np.load("a.npz") as file:
        assert file["y"].tolist() == np.float32([[0.5], [0.5], [0.7], [0.7]]).tolist()
    for wrong in ("0.5,1", "old"):
        code, _, err = organza("sample", "aged", "--label", wrong)
        assert code == 2 and "needed are 1 numbers with commas" in err


def test_vectors_as_conditions(organza) -> None:
    chance = np.random.default_rng(0)
    x = chance.integers(0, 255, (40, 12, 9)).astype(np.uint8)
    y = chance.random((40, 3)).astype(np.float32)
    torch.manual_seed(0)
    data = oz.open_data((torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y)))
    assert data.spec.condition == (3,)
    model = oz.train(data, "conditional", images=64, run="run", device="cpu", changes={"generator.width": 4})
    assert model.sample(2, y=torch.rand(2, 3)).shape == (2, 1, 12, 9)
    assert organza("sample", "run", "--label", "0.1,0.2,0.3", "-n", "2", "--out", "a.png")[0] == 0
    code, _, err = organza("sample", "run")
    assert code == 2 and "takes 3 numbers as a condition" in err


def test_codes_are_led_through_their_values(organza) -> None:
    assert organza("train", "digits", "--recipe", "infogan", *SMALL, "--images", "64", "--run", "run")[0] == 0
    code, out, _ = organza("interpolate", "run", "--code", "0", "-n", "2", "--json")
    assert code == 0 and json.loads(out)["steps"] == 10
    with Image.open(json.loads(out)["out"]) as picture:
        assert picture.size == (10 * 28 + 9 * 2, 2 * 28 + 2)
    assert organza("interpolate", "run", "--code", "1", "-n", "2", "--steps", "5", "--out", "c.gif")[0] == 0
    code, _, err = organza("interpolate", "run", "--code", "3")
    assert code == 2 and "there are 3 codes" in err


def test_the_whole_game_of_a_run_can_be_had(organza) -> None:
    small = ("--set", "generator.width=4", "--set", "discriminator.widths=[16]")
    args = ("--recipe", "semi-supervised", *small, "--images", "100", "--run", "run")
    assert organza("train", "digits[labels=20]", *args)[0] == 0
    game = api.game("run", device="cpu")
    x, y = open_data("digits[labels=20]").gather(torch.arange(5))
    verdict = game.discriminator(x)
    assert verdict.heads["classes"].shape == (5, 10) and not game.training and y is not None


def test_what_is_said_to_be_next_can_be_typed(organza, run, tmp_path) -> None:
    """Of a run on labels, and of one on numbers, whose names no command can know."""
    x = np.random.default_rng(0).integers(0, 256, (40, 12, 9, 1), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=np.random.default_rng(1).random((40, 3)).astype(np.float32))
    words = ("train", str(tmp_path / "x.npz"), "--recipe", "conditional", "--images", "64", "--run", "numbers")
    assert organza(*words, *SMALL)[0] == 0
    for folder in (run, "numbers"):
        code, out, _ = organza("export", folder, "--pretrained", f"mine-{Path(folder).name}")
        said = next(line for line in out.splitlines() if line.startswith("next"))
        words = shlex.split(said)[2:]
        assert code == 0 and organza(*words, "--out", "a.npz")[0] == 0
        page = Path(folder, "report.html").read_text("utf-8")
        code = html.unescape(re.search(r"<pre>(import organza.*?)</pre>", page, re.DOTALL)[1])
        names: dict = {}
        exec(code, names)
        assert len(names["x"]) == 64


def test_options_that_would_do_nothing_are_refused(organza, run) -> None:
    for words, said in (
        (("sample", run, "--data", "digits"), "add --nearest"),
        (("interpolate", run, "--code", "0", "--label", "lying"), "neither --kind nor --label"),
        (("interpolate", run, "--code", "0", "--kind", "linear"), "neither --kind nor --label"),
        (("recipes", "--data", "digits"), "give the recipe's NAME too"),
    ):
        code, _, err = organza(*words)
        assert code == 2 and said in err


def test_one_of_several_processes_speaks(organza, run, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert organza("sample", run, "-n", "2", "--out", "a.npz", "--json")[1]  # alone, whatever a scheduler has said
    assert "no run at nowhere" in organza("sample", "nowhere")[2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert organza("sample", run, "-n", "2", "--out", "a.npz", "--json")[:2] == (0, "")
    assert organza("sample", "nowhere") == (2, "", "")


def test_an_array_is_written_at_once(organza, run, monkeypatch) -> None:
    """A full disk leaves the old file as it was; folders are made."""
    assert organza("sample", run, "-n", "2", "--out", "new/deep/a.npz")[0] == 0 and Path("new/deep/a.npz").exists()
    for name in ("a.npz", "a.npy"):
        Path(name).write_bytes(b"old")
        with monkeypatch.context() as full:
            full.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            code, _, err = organza("sample", run, "-n", "2", "--out", name)
        assert code == 2 and "make room on the disk" in err and Path(name).read_bytes() == b"old"
