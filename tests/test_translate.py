"""Images from images on the command line: pairs in folders, trained, translated, measured; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import organza as oz
from organza import api
from organza.decision import lengthened
from organza.model import Model
from organza.nn import TranslatorPair, UNetGenerator
from organza.picture import to_uint8
from organza.plan import Plan
from organza.prior import Normal
from organza.recipes import RECIPES, reduced

LITTLE = ("generator.width=4", "discriminator.width=4", "training.log_every=8", "training.threads=1")
SETTINGS = [word for setting in LITTLE for word in ("--set", setting)]


def write(folder: str, n: int, channels: int = 3, size: tuple[int, int] = (24, 24), seed: int = 0) -> None:
    """Write n images of one bright square on a dark ground, as names of two code points."""
    Path(folder).mkdir()
    chance = np.random.default_rng(seed)
    for i in range(n):
        image = np.zeros((*size, channels), np.uint8)
        top, left = chance.integers(0, 12, 2)
        image[top : top + 10, left : left + 10] = chance.integers(100, 256, channels)
        Image.fromarray(image.squeeze()).save(Path(folder, f"1f{i:03x}-1f3fb.png"))


def sizes(folder: str) -> dict[str, tuple[str, tuple[int, int]]]:
    found = {}
    for path in sorted(Path(folder).iterdir()):
        with Image.open(path) as image:
            found[path.name] = (image.mode, image.size)
    return found


def test_pix2pix_is_trained_translates_and_is_measured(organza) -> None:
    write("x", 8, 3)
    write("y", 8, 1)
    write("held-x", 50, 3, seed=1)
    write("held-y", 50, 1, seed=1)
    code, out, err = organza(
        "train", "x from y", "--recipe", "pix2pix", "--images", "16", *SETTINGS, "--run", "run", "--evaluate", "ssim"
    )
    assert code == 0 and "organza translate run INPUT --out DIR" in out, err
    assert json.loads(Path("run/best.json").read_text())["name"] == "ssim"
    assert json.loads(Path("run/plan.json").read_text())["data"] == "x from y"
    with Image.open("run/samples/16.png") as grid:  # y beside G(y)
        assert grid.size == (3 * 48 + 4, 3 * 24 + 4)
    assert "a longer run is a new one" in organza("resume", "run", "--images", "24")[2]  # its rates are 0

    write("odd", 1, 1, (50, 33))
    Path("held-y/0.png").write_bytes(next(Path("odd").iterdir()).read_bytes())
    for folder, more in (("a", ()), ("b", ()), ("c", ("--noise", "--seed", "1")), ("d", ("--noise",))):
        assert organza("translate", "run", "held-y", "--out", folder, *more)[0] == 0
    found = sizes("a")
    assert len(found) == 51 and set(found) == {path.name for path in Path("held-y").iterdir()}
    assert found.pop("0.png") == ("RGB", (33, 50)) and set(found.values()) == {("RGB", (24, 24))}
    read = {f: Path(f, "1f000-1f3fb.png").read_bytes() for f in "abcd"}
    assert read["a"] == read["b"] != read["d"]
    code, out, _ = organza("translate", "run", "held-y/0.png", "--out", "one", "--json")
    assert code == 0 and json.loads(out)["files"] == ["one/0.png"]
    assert Path("one/0.png").read_bytes() == Path("a/0.png").read_bytes()
    Path("held-y/0.png").unlink()
    assert organza("translate", "run", "held-y[:3]", "--out", "three")[0] == 0
    assert len(sizes("three")) == 3
    assert all(path.read_bytes() == Path("a", path.name).read_bytes() for path in Path("three").iterdir())
    assert organza("translate", "run", "digits[:2]", "--out", "digits")[0] == 0
    assert sizes("digits") == {"000000.png": ("RGB", (28, 28)), "000001.png": ("RGB", (28, 28))}

    deep = np.array(Image.open("held-y/1f000-1f3fb.png"))
    Path("deep").mkdir()
    Image.fromarray(deep.astype(np.uint16) * 257).save("deep/1f000-1f3fb.png")  # the same image in 16 bits
    np.savez("floats.npz", x=np.linspace(0, 1, 2 * 24 * 24, dtype=np.float32).reshape(2, 1, 24, 24))
    assert organza("translate", "run", "deep", "--out", "of deep")[0] == 0
    assert organza("translate", "run", "floats.npz", "--out", "of floats")[0] == 0
    same = [np.array(Image.open(f"{folder}/1f000-1f3fb.png")).astype(int) for folder in ("a", "of deep")]
    assert abs(same[0] - same[1]).max() <= 1

    code, out, _ = organza("evaluate", "run", "--data", "held-x from held-y", "--features", "random", "--json")
    scores = {score["key"]: score for score in json.loads(out)["scores"]}
    assert code == 0 and set(scores) == {"l1", "psnr", "ssim", "high-frequency", "frechet"}
    made = torch.stack([torch.from_numpy(np.array(Image.open(p))) for p in sorted(Path("a").glob("1f*"))])
    true = torch.stack([torch.from_numpy(np.array(Image.open(p))) for p in sorted(Path("held-x").iterdir())])
    l1 = (made.float() - true.float()).abs().mean().item() / 255
    assert scores["l1"]["value"] == pytest.approx(l1, rel=1e-4) and scores["l1"]["protocol"]["n_fake"] == 50

    assert organza("export", "run", "--pretrained", "kept")[0] == 0
    assert json.loads(Path("kept/config.json").read_text())["data"] == "x from y"
    card = Path("kept/README.md").read_text()
    assert "organza translate kept INPUT" in card and "image-to-image" in card and "a label" not in card
    assert "organza translate run INPUT" in Path("run/report.html").read_text()
    assert organza("translate", "kept", "held-y", "--out", "e")[0] == 0
    assert Path("e/1f000-1f3fb.png").read_bytes() == read["a"]

    def refused(*words: str) -> str:
        code, _, err = organza(*words)
        lines = [line for line in err.splitlines() if line.startswith("organza: ")]
        assert code == 2 and len(lines) == 1 and not Path("new").exists(), err
        return lines[0]

    assert "1f000-1f3fb.png has 3 channels: this model takes images of 1" in refused(
        "translate", "run", "held-x", "--out", "new"
    )
    assert "--out a: exists and is no empty folder" in refused("translate", "run", "held-y", "--out", "a")
    assert "goes in one direction only" in refused("translate", "run", "held-y", "--out", "new", "--back")
    assert "unknown data set or file 'nowhere'" in refused("translate", "run", "nowhere", "--out", "new")
    assert "holds vectors of 2" in refused("translate", "run", "ring", "--out", "new")
    assert "organza translate run INPUT --out DIR" in refused("sample", "run")
    Path("held-y/1f000-1f3fb.bmp").write_bytes(Path("held-y/1f000-1f3fb.png").read_bytes())
    assert "two images named 1f000-1f3fb" in refused("translate", "run", "held-y", "--out", "new")
    assert "recipe pix2pix is for pairs" in refused("train", "x", "--recipe", "pix2pix", "--run", "new")


def test_cyclegan_goes_both_ways(organza) -> None:
    write("a", 6)
    write("gray", 2, 1)
    write("b", 4, seed=2)
    settings = [*SETTINGS, "--set", "generator.blocks=1"]
    code, _, err = organza("train", "a and b", "--recipe", "cyclegan", "--images", "8", *settings, "--run", "run")
    assert code == 0, err
    with Image.open("run/samples/8.png") as grid:
        assert grid.mode == "RGB" and grid.size == (3 * 48 + 4, 2 * 24 + 2)
    for out, more in (("there", ()), ("back", ("--back",))):
        assert organza("translate", "run", "a", "--out", out, *more)[0] == 0
    assert sizes("there") == sizes("back") == sizes("a")
    assert organza("translate", "run", "gray", "--out", "colour")[0] == 0
    assert sizes("colour") == dict.fromkeys(sizes("gray"), ("RGB", (24, 24)))
    model = api.load("run", device="cpu")
    y = torch.from_numpy(np.array(Image.open("a/1f000-1f3fb.png"))).permute(2, 0, 1)[None]
    z, signed = torch.zeros(1, 0), y / 127.5 - 1
    with torch.no_grad():
        assert torch.equal(model.translate(y), model.generator.b(z, signed))
        assert torch.equal(model.translate(y, back=True), model.generator.a(z, signed))
    write("many", 50)
    code, out, err = organza("evaluate", "run", "--data", "many and many", "--features", "random", "--json")
    assert code == 0 and [score["key"] for score in json.loads(out)["scores"]] == ["frechet"], err


def test_noise_leaves_the_model_as_it_was() -> None:
    """Dropout and statistics of the images at hand, and the same again for the same seed; evaluation is unchanged."""
    torch.manual_seed(0)
    G = UNetGenerator((1, 32, 32), (1, 32, 32), 4).eval()
    model, y = Model(G, Normal(0), True), torch.rand(3, 1, 32, 32) * 2 - 1
    before, plain = {name: value.clone() for name, value in G.state_dict().items()}, model.translate(y)
    loud = model.translate(y, seed=1, noise=True)
    assert torch.equal(loud, model.translate(y, seed=1, noise=True)) and not G.training
    assert not torch.equal(loud, model.translate(y, seed=2, noise=True)) and not torch.equal(loud, plain)
    assert torch.equal(model.translate(y), plain)
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())
    G.train()
    torch.default_generator.manual_seed(0)
    assert not torch.equal(G(torch.zeros(3, 0), y), plain)


def test_what_does_not_go_from_image_to_image_is_refused() -> None:
    unconditional = Model(oz.load, Normal(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="makes images of noise, not of images"):
        unconditional.translate(torch.zeros(1, 1, 8, 8))
    pair = Model(TranslatorPair((2, 8, 8), 2, 1), Normal(0), True)
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 8\): this model takes 1 channels"):
        pair.translate(torch.zeros(1, 3, 8, 8))


def test_a_part_of_a_pair_names_the_run(organza) -> None:
    write("x", 8)
    data = "x[fold%4!=0] from x[fold%4!=0]"
    assert organza("train", data, "--recipe", "pix2pix", "--images", "2", *SETTINGS)[0] == 0
    (run,) = Path("runs").iterdir()
    assert run.name == "x-fold-4-0-from-x-fold-4-0-pix2pix-1"
    plan = Plan.read({k: v for k, v in json.loads((run / "plan.json").read_text()).items() if k != "organza"})
    assert plan.data == data and reduced(RECIPES["pix2pix"](oz.open_data(data).spec)).recipe == "pix2pix"


def test_a_longer_run_is_one_that_learns_to_its_end() -> None:
    """Where both rates are 0 nothing more is learnt: a total beyond is refused, minutes are cut to where they are."""
    data = oz.open_data("digits[:40] from gray")
    falling = api.prepare(data, "pix2pix", 1000)
    assert lengthened(falling, 400, 1000).training["images"] == 1000
    assert lengthened(falling, 400, 3000, most=True).training["images"] == 1000
    early = falling.set({f"training.{player}_optimizer.lr.images": 100 for player in ("generator", "discriminator")})
    for plan, done, images, most in (
        (falling, 400, 3000, False),
        (falling, 1000, 3000, True),
        (early, 700, 900, False),
    ):
        with pytest.raises(ValueError, match="a longer run is a new one: organza train"):
            lengthened(plan, done, images, most)
    steady = api.prepare(oz.open_data("digits[:40]"), "tiny", 1000)
    assert lengthened(steady, 1000, 3000).training["images"] == 3000
    with pytest.raises(ValueError, match="the run has already seen 1000"):
        lengthened(steady, 1000, 500)


def test_floats_of_two_sets_have_the_scale_of_both(organza) -> None:
    """What was trained as a part of a joined set is translated by the joint scale; bytes by their own."""
    chance = np.random.default_rng(0)
    np.save("a.npy", 0.4 * chance.random((6, 1, 24, 24), np.float32))
    np.save("b.npy", chance.random((6, 1, 24, 24), np.float32))
    words = ("--recipe", "cyclegan", "--images", "4", *SETTINGS, "--set", "generator.blocks=1", "--run", "run")
    assert organza("train", "a.npy and b.npy", *words)[0] == 0
    model, x = api.load("run", device="cpu"), torch.from_numpy(np.load("a.npy"))
    assert organza("translate", "run", "a.npy", "--out", "floats")[0] == 0
    made = np.array(Image.open("floats/000000.png")).astype(int)
    told = to_uint8(model.translate(model.values.inside(x[:1])))[0, 0].numpy().astype(int)
    assert abs(made - told).max() <= 1
    np.save("bytes.npy", (255 * x.numpy()).round().astype(np.uint8))
    assert organza("translate", "run", "bytes.npy", "--out", "bytes")[0] == 0
    told = to_uint8(model.translate(torch.from_numpy(np.load("bytes.npy"))[:1]))[0, 0].numpy().astype(int)
    assert abs(np.array(Image.open("bytes/000000.png")).astype(int) - told).max() <= 1


def test_conditions_of_another_kind_are_told(organza, tmp_path) -> None:
    """Of data that a run is judged by, before anything is made: gray where it learnt colours, classes for images."""
    write("x", 8, 3)
    write("y", 8, 3)
    assert organza("train", "x from y", "--recipe", "pix2pix", "--images", "8", *SETTINGS, "--run", "run")[0] == 0
    write("held-x", 50, 3)
    write("held-y", 50, 1)
    code, _, err = organza("evaluate", "run", "--data", "held-x from held-y")
    assert code == 2 and "conditions of shape (1, 24, 24): this model takes images of 3 channels" in err
    for name in ("a", "b"):
        Path("classes", name).mkdir(parents=True)
        for path in sorted(Path("held-x").iterdir())[:25]:
            (Path("classes", name) / path.name).write_bytes(path.read_bytes())
    code, _, err = organza("evaluate", "run", "--data", "classes")
    assert code == 2 and "conditions of shape (): this model takes images of 3 channels" in err


def test_two_sets_are_drawn_beside_each_other(organza) -> None:
    """And not as one whose transparency is the other."""
    write("a", 4, 1)
    write("b", 4, 1, seed=1)
    assert organza("data", "a and b", "--sheet", "sheet.png")[0] == 0
    with Image.open("sheet.png") as sheet, Image.open(sorted(Path("b").iterdir())[0]) as second:
        assert np.array_equal(np.asarray(sheet.convert("L"))[:24, 24:48], np.asarray(second))
