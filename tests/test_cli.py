"""The command line as people type it: results, exit codes, one clear line for each mistake."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from organza.progress import Watch

TINY = ("--recipe", "mlp", "--set", "generator.widths=[16]", "--set", "discriminator.widths=[16]")


def test_train_resume_sample(organza) -> None:
    code, out, _ = organza("train", *TINY, "--images", "1280", "--run", "run")
    assert code == 0 and "done: 1,280 images" in out and "organza sample run" in out
    with Image.open("run/samples/1280.png") as grid:
        assert grid.size == (8 * 28 + 7 * 2, 8 * 28 + 7 * 2)
    assert "<html" in Path("run/report.html").read_text()
    code, out, _ = organza("resume", "run", "--images", "2560", "--json")
    result = json.loads(out)
    assert code == 0 and result["images"] == 2560 and result["run"] == "run" and not result["stopped"]
    assert Path(result["grid"]).exists() and Path(result["report"]).exists()

    def sampled(name: str, seed: str) -> bytes:
        assert organza("sample", "run", "-n", "100", "--seed", seed, "--out", name)[0] == 0
        return Path(name).read_bytes()

    assert sampled("a.png", "1") == sampled("b.png", "1") != sampled("c.png", "2")
    assert sampled("a.npz", "1") == sampled("b.npz", "1")
    with np.load("a.npz") as file:
        assert file["x"].shape == (100, 1, 28, 28) and file["x"].dtype == np.uint8
    assert organza("sample", "run", "-n", "3", "--out", "pictures/")[0] == 0
    assert len(list(Path("pictures").glob("*.png"))) == 3


def test_points(organza) -> None:
    assert organza("train", "ring", *TINY, "--images", "1280", "--run", "run")[0] == 0
    assert organza("sample", "run", "-n", "5", "--out", "x.npz")[0] == 0
    with np.load("x.npz") as file:
        assert file["x"].shape == (5, 2) and file["x"].dtype == np.float32
    assert organza("sample", "run", "-n", "5", "--out", "x.png")[0] == 0
    code, _, err = organza("sample", "run", "--out", "folder/")
    assert code == 2 and "these are vectors" in err


def test_minutes_fix_the_images(organza) -> None:
    code, out, _ = organza("train", *TINY, "--minutes", "0.01", "--run", "run", "--json")
    images = json.loads(out)["images"]
    assert code == 0 and images == json.loads(Path("run/plan.json").read_text())["training"]["images"] > 0


def test_default_folders_are_counted(organza) -> None:
    for number in (1, 2):
        assert organza("train", *TINY, "--images", "128")[0] == 0
        assert Path(f"runs/digits-mlp-{number}/report.html").exists()


MISTAKES = [
    (("trian",), "did you mean 'train'"),
    (("train", "dgits"), "did you mean 'digits'"),
    (("train", "--recipe", "mpl"), "did you mean mlp"),
    (("train", "--set", "training.bath=3"), "did you mean batch"),
    (("train", "--set", "training.batch"), "must be KEY=VALUE"),
    (("train", "--set", "training.batch=many"), "training.batch: input should be a valid integer, got 'many'"),
    (("train", "--images", "0"), "got '0'"),
    (("train", "--images", "many"), "got 'many'"),
    (("train", "--minutes", "-1"), "minutes=-1.0: must be above 0"),
    (("train", "--minutes", "inf"), "minutes=inf: must be above 0 and finite"),
    (("train", "--minutes", "1", "--images", "64"), "give one of the two"),
    (("train", "--minutes", "1", "--set", "training.images=64"), "give one of the two"),
    (("train", "--set", "training.images=many"), "training.images: input should be a valid integer, got 'many'"),
    (("train", "--set", "training.images=-5"), "images=-5: must be above 0 and at most"),
    (("train", "--minutes", "1e13"), "minutes=10000000000000.0: must be at most 527,040, a year"),
    (("train", ""), "the data has no name"),
    (("train", "--set", "data=moons"), "data is no setting: organza train DATA"),
    (("train", "--set", "labels=[]"), "labels is no setting: is read from the data"),
    (("train", "--images", "64", "--set", 'terms=[{"kind":"Cycle"}]'), "Cycle: needs data 'A and B'"),
    (("train", "--set", "conditional=true", "--set", "generator.classes=10"), "set discriminator.classes=10"),
    (("train", "--images", "64", "--set", "training.generator_optimizer.lr=-1"), "lr and eps must be 0 or more"),
    (("train", "--seed", "99999999999999999999"), "--seed"),
    (("train", "--device", "cudaa"), "did you mean cuda"),
    (("train", "--device", "mps:7"), "device='mps:7'"),
    (("train", "--device", "cpu:x"), "device='cpu:x': there is 1 of cpu, counted from 0"),
    (("train", "--bogus"), "--bogus"),
    (("train", "here.npy"), "here.npy"),
    (("train", "."), "."),
    (("train", "ring", "--recipe", "modes", "--images", "64", "--set", "training.jitter=Jitter"), "needs images"),
    (("resume", "nowhere"), "no run at nowhere"),
    (("sample", "nowhere"), "no run at nowhere"),
    (("sample", "nowhere", "-n", "0"), "-n"),
    (("sample", "nowhere", "--out", "x.jpg"), "must end in .png"),
    (("recipes", "mpl"), "did you mean mlp"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_clear_line_and_nothing_is_written(organza, words: tuple[str, ...], said: str) -> None:
    code, out, err = organza(*words)
    assert code == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("organza: ")]
    assert len(lines) == 1 and said.lower() in lines[0].lower()
    assert "Traceback" not in err
    assert not list(Path().iterdir())


def test_the_bare_command_shows_the_help(organza) -> None:
    code, out, err = organza()
    assert code == 0 and out.startswith("Usage: organza") and "resume" in out and err == ""


def test_a_mistake_in_json(organza) -> None:
    code, out, _ = organza("train", "--recipe", "mpl", "--json")
    assert code == 2 and "did you mean mlp" in json.loads(out)["error"][0]


def test_an_existing_run_is_not_overwritten(organza) -> None:
    assert organza("train", *TINY, "--images", "128", "--run", "run")[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, _, err = organza("train", *TINY, "--images", "128", "--run", "run")
    assert code == 2 and "organza resume run" in err
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, _, err = organza("resume", "run", "--images", "64")
    assert code == 2 and "already seen 128" in err


def test_recipes(organza) -> None:
    code, out, _ = organza("recipes")
    assert code == 0 and {line.split()[0] for line in out.splitlines()} >= {"quick", "mlp", "mlp-literal"}
    code, out, _ = organza("recipes", "mlp", "--json")
    assert json.loads(out)["training"]["batch"] == 128
    assert '"widths"' in organza("recipes", "mlp")[1]
    for line in organza("recipes")[1].splitlines():  # every one has data to be shown for
        code, out, said = organza("recipes", line.split()[0], "--json")
        assert code == 0 and json.loads(out)["recipe"] == line.split()[0], said


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "organza", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path: Path) -> None:
    """In a process of its own; of SIGTERM see test_faults."""
    process = _start(tmp_path, "train", *TINY, "--images", "100000000", "--run", "run")
    _wait_for(tmp_path / "run/samples/0.png")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "organza resume run" in out and list((tmp_path / "run/checkpoints").iterdir())


def test_kill_and_resume_end_as_if_never_stopped(organza, tmp_path: Path) -> None:
    """SIGKILL in the middle, `organza resume`: the last checkpoint has the bytes of the uninterrupted run."""
    words = ("train", *TINY, "--images", "15360", "--set", "training.save_every=1280")
    killed = _start(tmp_path, *words, "--run", "killed")
    _wait_for(tmp_path / "killed/checkpoints/2560")
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed/checkpoints/15360").exists(), "killed too late: the test proves nothing"
    assert organza("resume", "killed")[0] == 0
    assert organza(*words, "--run", "whole")[0] == 0
    for file in (tmp_path / "whole/checkpoints/15360").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "killed/checkpoints/15360" / file.name).read_bytes(), file.name

    def log(name: str) -> list[dict[str, float]]:
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]

    assert log("whole") == log("killed")


def test_help_is_light() -> None:
    """`organza --help` loads no heavy library; its time is measured in benchmarks."""
    code = (
        "import sys, io, contextlib; sys.argv = ['organza', '--help']; from organza import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    code = cli.run(cli.app)\n"
        "print(code, [m for m in ('torch', 'numpy', 'pydantic', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_plans_and_samples_need_no_compiler() -> None:
    """PyTorch imports its compiler for the first optimizer, and for chance on the meta device: near a second."""
    run = str(Path(__file__).parent / "golden" / "unversioned")
    code = (
        "import sys, organza as oz; from organza.recipes import RECIPES, example\n"
        "for name, recipe in RECIPES.items():\n    recipe(example(name))\n    assert 'sympy' not in sys.modules, name\n"
        f"model = oz.load({run!r})\nmodel.sample(2), model.interpolate(1, steps=2)\n"
        "assert 'sympy' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_data_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """Brackets are no markup of Rich's, which would leave out the first and fail at the second."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    said = "reading mnist[labels=100] and [/x] of :cat:"
    Watch(as_json=False).say(said)
    assert capsys.readouterr().err == f"{said}\n"


def test_bar_on_a_terminal(organza, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar draws itself; elsewhere the lines are plain."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = organza("train", *TINY, "--images", "1280", "--run", "run")
    assert code == 0 and "images/s" in err and "\x1b" in err
    assert "\x1b" not in out


def test_resume_finds_data_that_moved(organza) -> None:
    np.save("here.npy", np.random.RandomState(0).randint(0, 255, (64, 28, 28), np.uint8))
    assert organza("train", "here.npy", *TINY, "--images", "128", "--run", "run")[0] == 0
    Path("here.npy").rename("there.npy")
    code, _, err = organza("resume", "run", "--images", "256")
    assert code == 2 and "here.npy" in err
    assert organza("resume", "run", "--images", "256", "--data", "there.npy")[0] == 0
    np.save("other.npy", np.zeros((64, 28, 28), np.uint8))
    code, _, err = organza("resume", "run", "--images", "384", "--data", "other.npy")
    assert code == 2 and "other data" in err


def test_a_longer_run_is_written_into_the_plan(organza) -> None:
    assert organza("train", *TINY, "--images", "128", "--run", "run", "--set", "training.seed=5")[0] == 0
    assert organza("resume", "run", "--images", "256")[0] == 0
    training = json.loads(Path("run/plan.json").read_text())["training"]
    assert training["images"] == 256 and training["seed"] == 5
    assert "done: 256 images" in organza("resume", "run")[1]


def test_a_refused_resume_writes_nothing(organza) -> None:
    assert organza("train", *TINY, "--images", "128", "--run", "run")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("[!.]*")}  # not .lock: who was there
    code, _, err = organza("resume", "run", "--images", "256", "--data", "ring")
    assert code == 2 and "Traceback" not in err
    assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("[!.]*")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Short runs, never changed: on pictures and on points, and the first as it is passed on."""
    from organza import api

    folder = tmp_path_factory.mktemp("runs")
    tiny = {"generator.widths": [16], "discriminator.widths": [16]}
    for data in ("digits", "ring"):
        api.train(data, "mlp", run=folder / data, images=128, device="cpu", changes=tiny)
    api.load(folder / "digits").save_pretrained(folder / "shipped")
    return {name: str(folder / name) for name in ("digits", "ring", "shipped")}


def test_interpolate(organza, runs: dict[str, str]) -> None:
    code, out, _ = organza("interpolate", runs["digits"], "-n", "3", "--steps", "5", "--seed", "2", "--out", "a.png")
    assert code == 0 and "a.png" in out
    with Image.open("a.png") as picture:
        assert picture.size == (5 * 30 - 2, 3 * 30 - 2)
    words = ("interpolate", runs["digits"], "-n", "3", "--steps", "5", "--seed", "2")
    assert organza(*words, "--kind", "spherical", "--out", "b.png")[0] == 0
    assert organza(*words, "--kind", "linear", "--out", "c.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() != Path("c.png").read_bytes()
    assert json.loads(organza(*words, "--out", "d.gif", "--json")[1]) == {"out": "d.gif", "n": 3, "steps": 5, "seed": 2}
    with Image.open("a.png") as picture, Image.open("d.gif") as film:
        assert film.size == (3 * 30 - 2, 28) and film.n_frames == 8
        rows = np.asarray(picture.convert("L")).astype(int)
        for frame, step in enumerate((1, 2, 3, 4, 3, 2, 1, 0)):  # to and fro
            film.seek(frame)
            shown = np.asarray(film.convert("L")).astype(int)
            for pair in range(3):
                x, y = 30 * step, 30 * pair
                assert abs(shown[:, y : y + 28] - rows[y : y + 28, x : x + 28]).max() <= 2, (frame, pair)


def test_interpolate_has_a_default_place(organza, runs: dict[str, str]) -> None:
    path = Path(runs["shipped"]) / "interpolate-4.png"
    assert organza("interpolate", runs["shipped"], "--seed", "4")[0] == 0 and path.exists()
    path.unlink()


def test_nearest(organza, runs: dict[str, str]) -> None:
    """The left halves are the samples, the right halves training examples, at the distances that are told."""
    from organza import open_data

    words = ("sample", runs["digits"], "-n", "5", "--seed", "1")
    code, out, _ = organza(*words, "--nearest", "--out", "pairs.png")
    assert code == 0 and "seed 1, not selected; median distance " in out
    result = json.loads(organza(*words, "--nearest", "--out", "pairs.png", "--json")[1])
    assert organza(*words, "--out", "x.npz")[0] == 0
    with Image.open("pairs.png") as picture, np.load("x.npz") as file:
        assert picture.size == (2 * 58 - 2, 3 * 30 - 2)
        cells, x = np.asarray(picture), file["x"]
    examples = open_data("digits").x.numpy()
    for i, index in enumerate(result["index"]):
        cell = cells[30 * (i // 2) :, 58 * (i % 2) :][:28, :56]
        assert (cell[:, :28] == x[i, 0]).all() and (cell[:, 28:] == examples[index, 0]).all()
        distance = ((x[i] / 127.5 - examples[index] / 127.5) ** 2).sum() ** 0.5
        assert abs(distance - result["distance"][i]) < 0.1  # of bytes: the samples are rounded
    assert result["median"] == sorted(result["distance"])[2]
    assert f"{result['median']:.2f}" in out
    code, _, _ = organza("sample", runs["shipped"], "-n", "5", "--seed", "1", "--nearest", "--out", "again.png")
    assert code == 0 and Path("again.png").read_bytes() == Path("pairs.png").read_bytes()


def test_nearest_finds_data_that_moved(organza) -> None:
    np.save("here.npy", np.random.RandomState(0).randint(0, 255, (64, 28, 28), np.uint8))
    assert organza("train", "here.npy", *TINY, "--images", "128", "--run", "run")[0] == 0
    Path("here.npy").rename("there.npy")
    code, out, err = organza("sample", "run", "--nearest")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "needs the training data: here.npy: there is no such file or folder; give it by --data" in err
    assert organza("sample", "run", "-n", "4", "--nearest", "--data", "there.npy")[0] == 0
    assert Path("run/nearest-4-0.png").exists()
    code, _, err = organza("sample", "run", "--nearest", "--data", "ring")
    assert code == 2 and "100000 examples of (2,) for samples of (1, 28, 28)" in err


def test_vectors_without_a_name_are_written_as_numbers(organza) -> None:
    np.save("v.npy", np.random.default_rng(0).normal(size=(64, 5)))
    code, out, _ = organza("train", "v.npy", *TINY, "--images", "128", "--run", "run")
    assert code == 0 and "organza sample run -n 100 --seed 1\n" in out
    assert organza("sample", "run", "-n", "100", "--seed", "1")[1].endswith("sample-100-1.npz\n")
    Path("run/samples").mkdir(exist_ok=True)
    Path("run/samples/mine.png").write_bytes(b"")  # what others put there is no picture of the run
    code, out, err = organza("resume", "run", "--images", "256")
    assert code == 0 and "done: 256 images" in out, err
    code, _, err = organza("sample", "run", "--out", "v.npy/a.npz")
    assert code == 2 and "choose another name" in err and err.count("\n") == 1


def test_truncation(organza, runs: dict[str, str]) -> None:
    def sampled(*words: str) -> np.ndarray:
        assert organza("sample", runs["ring"], "-n", "200", "--out", "x.npz", *words)[0] == 0
        with np.load("x.npz") as file:
            return file["x"]

    assert (sampled("--truncation", "20") == sampled()).all()
    assert sampled("--truncation", "0.3").std() < 0.6 * sampled().std()
    assert organza("sample", runs["ring"], "-n", "4", "--truncation", "0.5")[1].endswith("sample-4-0-0.5.png\n")


def test_export(organza, runs: dict[str, str]) -> None:
    code, out, _ = organza("export", runs["digits"], "--pretrained", "models/mine")
    assert code == 0 and "organza sample models/mine" in out and "license" in out
    for name in ("config.json", "model.safetensors", "README.md"):
        assert Path("models/mine", name).exists() and name in out
    for run, name in ((runs["digits"], "a.npz"), ("models/mine", "b.npz")):
        assert organza("sample", run, "--out", name)[0] == 0
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    files = ["README.md", "config.json", "model.safetensors"]
    code, out, _ = organza("export", "models/mine", "--pretrained", "models/mine", "--json")
    assert code == 0 and json.loads(out) == {"pretrained": "models/mine", "files": files}
    card = Path("models/mine/README.md")
    card.write_text(mine := card.read_text("utf-8").replace("license: other", "license: mit"), "utf-8")
    code, out, _ = organza("export", runs["digits"], "--pretrained", "models/mine")
    assert code == 0 and "README.md was edited, and is as it was" in out and card.read_text("utf-8") == mine


MISTAKES_WITH_A_RUN = [
    (("interpolate", "digits", "--out", "x.jpg"), "must end in .png (a row for each pair) or .gif"),
    (("interpolate", "digits", "--out", "folder/"), "must end in .png"),
    (("interpolate", "digits", "--steps", "1"), "--steps"),
    (("interpolate", "digits", "-n", "0"), "-n"),
    (("interpolate", "digits", "--kind", "cubic"), "kind='cubic': must be one of spherical, linear"),
    (("interpolate", "ring", "--out", "x.png"), "interpolate shows pictures, and this generator makes (2,)"),
    (("interpolate", "nowhere"), "no run at nowhere"),
    (("sample", "ring", "--nearest", "--out", "x.png"), "--nearest shows pictures, and this generator makes (2,)"),
    (("sample", "digits", "--nearest", "--out", "x.npz"), "must end in .png (a grid of pairs)"),
    (("sample", "digits", "--nearest", "--data", "dgits"), "did you mean 'digits'"),
    (("sample", "digits", "--truncation", "0"), "truncation=0.0: must be above 0"),
    (("sample", "digits", "--truncation", "nan"), "truncation=nan: must be above 0"),
    (("sample", "digits", "--truncation", "half"), "got 'half'"),
    (("export", "digits"), "--pretrained"),
    (("export", "digits", "--pretrained", "ring"), "holds something else than a pretrained model"),
    (("export", "nowhere", "--pretrained", "x"), "no run at nowhere"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES_WITH_A_RUN, ids=[" ".join(w) for w, _ in MISTAKES_WITH_A_RUN])
def test_a_mistake_with_a_run(organza, runs: dict[str, str], words: tuple[str, ...], said: str) -> None:
    before = {path for name in runs for path in Path(runs[name]).rglob("*")}
    code, out, err = organza(*(runs.get(word, word) for word in words))
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("organza: ") and said in err
    assert before == {path for name in runs for path in Path(runs[name]).rglob("*")} and not list(Path().iterdir())
