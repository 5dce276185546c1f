"""organza.data.check and `organza data`: what a data set holds and what may be wrong with it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import check as checking
from organza.data.check import check


def write(path, seed=0, side=24, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    value = np.random.RandomState(seed).randint(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(value).save(path, **options)
    return path


@pytest.fixture
def messy(tmp_path):
    """Two classes with all that people bring."""
    folder = tmp_path / "photos"
    for i in range(6):
        write(folder / "cat" / f"{i}.png", i)
    for i in range(30):
        write(folder / "dog" / f"{i}.png", 100 + i)
    write(folder / "cat" / "copy.png", 3)
    close = np.asarray(Image.open(folder / "dog" / "4.png")).astype(int) + np.random.RandomState(1).randint(
        -3, 4, (24, 24, 3)
    )
    Image.fromarray(close.clip(0, 255).astype(np.uint8)).save(folder / "dog" / "close.png")
    write(folder / "dog" / "large.jpg", 7, 80)
    (folder / "dog" / "empty.png").write_bytes(b"")
    (folder / "dog" / "film.mov").write_bytes(bytes(99))
    frames = [Image.fromarray(np.full((24, 24), i, np.uint8)) for i in (0, 9)]
    frames[0].save(folder / "cat" / "film.gif", save_all=True, append_images=frames[1:])
    return folder


def test_a_messy_folder(messy):
    found, data = check(str(messy))
    assert found.data == data.name == f"{messy}[resize=16][bad=skip]" and found.count == len(data) == 40
    assert found.classes == {"cat": 8, "dog": 32} and found.shape == (3, 16, 16) and found.lossy
    assert found.sizes == {"24 x 24": 39, "80 x 80": 1} and list(found.sizes) == ["24 x 24", "80 x 80"]
    assert found.same == [["cat/3.png", "cat/copy.png"]] and found.near == [["dog/4.png", "dog/close.png"]]
    assert len(found.left_out) == 2 and "1 of 40: has several frames: the first is read" in found.notes
    for word in (
        "40 images are few",
        "8 of cat",
        "2 sizes, 39 of 40",
        "2 files cannot",
        "copies of other examples: 1",
        "loss",
    ):
        assert any(word in line for line in found.warnings), word


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_alike_in_any_numbers_and_not_for_ever(dtype, tmp_path, monkeypatch):
    value = np.random.RandomState(0).randint(0, 100, (6, 20, 20)).astype(dtype)
    value[3], value[5] = value[0] + 1, value[0]
    value[:, 0, 0] = 250
    np.save(tmp_path / "x.npy", value * dtype(257) if dtype == np.uint16 else value)
    found = check(str(tmp_path / "x.npy"))[0]
    assert found.same == [["0", "5"]] and found.near == [["0", "3"]]  # of equal ones the first alone
    steps = np.arange(60).repeat(256).reshape(60, 16, 16) + 100 * (np.arange(256).reshape(16, 16) % 2)
    np.save(tmp_path / "x.npy", (steps * {np.uint16: 257, np.float32: 0.01}.get(dtype, 1)).astype(dtype))
    whole = check(str(tmp_path / "x.npy"))[0]
    assert len(whole.near) > 7 and not whole.cut
    monkeypatch.setattr(checking, "_PAIRS", 7)
    cut = check(str(tmp_path / "x.npy"))[0]
    assert len(cut.near) == 7 and cut.cut


def test_floats_that_differ_as_much_as_bytes_are_as_far_apart(tmp_path):
    """Five of 255 levels apart is not near, whatever the numbers are."""
    value = np.random.RandomState(0).randint(5, 250, (2, 20, 20))
    value[1] = value[0] + 5
    value[:, 0, :2] = [0, 255]
    for kind, scale in ((np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)):
        np.save(tmp_path / "x.npy", (value * np.float64(scale)).astype(kind))
        assert check(str(tmp_path / "x.npy"))[0].near == []


def test_a_file_that_is_cut_short_is_named(messy):
    whole = (messy / "dog" / "9.png").read_bytes()
    for path in (messy / "dog" / "empty.png", messy / "dog" / "film.mov"):
        path.unlink()
    assert check(str(messy))[0].data == f"{messy}[resize=16]"
    (messy / "dog" / "9.png").write_bytes(whole[: len(whole) - 90])  # its header is sound
    found, _ = check(str(messy))
    assert found.data == f"{messy}[resize=16][bad=skip]" and len(found.left_out) == 1 and "9.png" in found.left_out[0]


def test_built_in_and_plain_data():
    found, _ = check("digits[:300]")
    assert found.count == 300 and sum(found.classes.values()) == 300 and not found.sizes and not found.same
    found, _ = check("ring[:100]")
    assert found.shape == (2,) and found.near == [] and found.warnings[0].startswith("classes with fewer")


def test_copies_and_likeness_in_arrays(tmp_path):
    """Near is by the thumbnail; copies of copies are one group; the number of pairs is exact."""
    x = np.random.RandomState(0).randint(0, 250, (3000, 1, 16, 16)).astype(np.uint8)
    x[2990], x[5], x[7] = x[0], x[0], x[1]
    x[2999] = x[2998] + 2
    np.savez(tmp_path / "x.npz", x=x)
    found, _ = check(str(tmp_path / "x.npz"))
    assert found.same == [["0", "5", "2990"], ["1", "7"]] and found.near == [["2998", "2999"]]
    assert found.record()["copies"] == 3 and found.record()["near_pairs"] == 1


def test_likeness_is_found_across_tiles(monkeypatch):
    monkeypatch.setattr(checking, "_MOST", 2100)
    x = torch.randint(0, 256, (2200, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    x[2050], x[2199] = x[3], x[4]
    assert list(checking._alike(x, set())) == [(3, 2050)] and not list(checking._alike(x, {2050}))


def test_the_command(messy, organza, tmp_path, monkeypatch):
    monkeypatch.setattr("organza.decision.measure", lambda *_, **__: 1000.0)  # test_auto measures
    code, out, _ = organza("data", str(messy), "--sheet", str(tmp_path / "sheet.png"), "--json")
    record = json.loads(out)
    assert not code and record["count"] == 40 and record["classes"] == {"cat": 8, "dog": 32} and record["copies"] == 1
    assert {choice["name"] for choice in record["choices"]} >= {"recipe", "parameters", "memory"}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 16 * 6
    _, said, _ = organza("data", str(messy))
    for word in ("cat 8, dog 32", "film.mov", "24 x 24", "same ", "near ", "organza train would choose:"):
        assert word in said, word
    code, _, said = organza("data", "ring[:50]", "--sheet", str(tmp_path / "sheet.jpg"))
    assert code == 2 and "must end in .png" in said


@pytest.mark.parametrize("made", ["missing", "empty", "text", "deep", "film", "one"])
def test_what_is_no_data(made, organza, tmp_path):
    path = tmp_path / "photos"
    if made != "missing":
        path.mkdir()
    if made == "text":
        (path / "notes.txt").write_text("hello")
    elif made == "deep":
        write(path / "a" / "b" / "1.png")
    elif made == "film":
        (path / "film.mp4").write_bytes(bytes(999))
    elif made == "one":
        write(path / "1.png")
    for command in ("data", "train"):
        code, out, said = organza(command, str(path))
        assert code == 2 and not out and "photos" in said.strip().splitlines()[-1] and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_train_reads_as_asked(messy, organza, tmp_path):
    code, _, said = organza("train", str(messy))
    assert code == 2 and "cannot be read" in said and "[bad=skip]" in said
    run = tmp_path / "run"
    options = ["--bad-images", "skip", "--resize", "8", "--recipe", "mlp", "--images", "256", "--run", str(run)]
    code, _, said = organza("train", str(messy), *options)
    assert (
        not code and "left out 2: " in said and "several frames" in said and "labels of 2 classes are not used" in said
    )
    assert json.loads((run / "plan.json").read_text())["data"] == f"{messy}[bad=skip][resize=8]"
    assert organza("resume", str(run), "--images", "512")[0] == 0
    code, _, said = organza("train", str(messy), "--resize", "tiny")
    assert code == 2 and "[resize=tiny]: give a side in pixels" in said
