"""`organza evaluate` and `organza compare` as people type them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from organza import api, scores
from organza.data import open_data
from organza.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny = {"generator.widths": [16], "discriminator.widths": [16]}
    api.train("digits", "mlp", run=folder, images=256, device="cpu", changes=tiny)
    return str(folder)


def test_evaluate(organza, run: str) -> None:
    code, out, err = organza("evaluate", run, "--metrics", "frechet,recall", "-n", "300")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["score", "value", "error", "floor"]
    assert [line.split()[0] for line in lines[1:6]] == ["FLD", "precision", "recall", "density", "coverage"]
    assert "lower is better" in lines[1] and "±" in lines[1]
    assert "real      digits, test: 2,000 examples" in out and "samples   300, seed 0" in out
    assert "features  digits (" in out and "k = 3, 300 against 300" in out
    assert "!         all: 300 samples are few: at least 1,000 are usual" in out
    assert "floor of frechet" in err  # what is being done; the results alone are on standard output
    code, out, err = organza("evaluate", run, "--metrics", "frechet", "-n", "300", "--json")
    record = json.loads(out)
    assert code == 0 and err == "" and record["run"] == run
    (score,) = record["scores"]
    assert score["key"] == "frechet" and score["protocol"]["n_fake"] == 300 and score["images"] == 256
    assert score["value"] == next(s.value for s in scores.read(Path(run)) if s.key == "frechet")
    assert Path(run, "report.html").read_text(encoding="utf-8").count("FLD") >= 1


def test_a_bar_on_a_terminal(organza, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = organza("evaluate", run, "--metrics", "frechet", "-n", "60", "--no-floors")
    assert code == 0 and "\x1b" in err and "\x1b" not in out


def test_samples_of_another_program(organza) -> None:
    x = open_data("digits").x[:80]
    np.savez("x.npz", x=x.numpy())
    Path("pictures").mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[0].numpy()).save(f"pictures/{i:03d}.png")
    found = []
    for fake in ("x.npz", "pictures/"):
        code, out, _ = organza("evaluate", "--fake", fake, "--real", "digits", "--metrics", "frechet", "--json")
        found.append(json.loads(out)["scores"][0])
        assert code == 0
    assert found[0] == found[1] and found[0]["images"] is None
    assert not Path("scores.json").exists()


def test_compare(organza, run: str, tmp_path: Path) -> None:
    """The better of two runs by each score; scores of two protocols are not ranked, and it says in what they differ."""
    assert organza("evaluate", run, "--metrics", "frechet,coverage", "-n", "300")[0] == 0
    mine = {score.key: score for score in scores.read(Path(run))}
    frechet, coverage = mine["frechet"], mine["coverage"]
    other = Run.create(tmp_path / "other", {"recipe": "none"}).path
    fewer = replace(coverage, protocol=replace(coverage.protocol, n_fake=200, seed=1))
    scores.keep(other, [replace(frechet, value=frechet.value / 2), fewer], torch.empty(0), None)
    code, out, _ = organza("compare", run, "other", "--metrics", "frechet,coverage,recall")
    assert code == 0
    first, second, third = out.splitlines()[1:]
    assert first.startswith("frechet") and first.endswith("best other")
    assert second.startswith("coverage")
    assert "the protocols differ in n_fake: 300 against 200; seed: 0 against 1" in second and "best" not in second
    assert third.startswith("recall") and third.split()[-1] == "-"  # the other run has none
    for images in (5000, 6000):
        other_run = Run(other)
        other_run.save(images, {"game": {}}, {})
    stale = replace(frechet, value=frechet.value / 2, images=5000)
    scores.keep(other, [stale], torch.empty(0), None)
    told = organza("compare", run, "other", "--metrics", "frechet")[1]
    assert "best other; other was measured at 5,000 images and has gone on" in told
    record = json.loads(organza("compare", run, "other", "--json")[1])["metrics"]
    assert record["frechet"]["ranking"] == ["other", run] and record["frechet"]["problem"] == ""
    assert record["coverage"]["ranking"] == [] and "n_fake" in record["coverage"]["problem"]


MISTAKES = [
    (("evaluate",), "give a run to draw samples from, or the samples themselves (--fake, with --real DATA)"),
    (("evaluate", "RUN", "--fake", "x.npz"), "give a run to draw samples from, or the samples themselves"),
    (("evaluate", "nowhere"), "no run at nowhere"),
    (("evaluate", "RUN", "--metrics", "freshet"), "did you mean frechet"),
    (("evaluate", "RUN", "--metrics", "modes", "-n", "60"), "modes cannot be measured here"),
    (("evaluate", "RUN", "--features", "digit"), "did you mean digits"),
    (("evaluate", "RUN", "-n", "0"), "-n"),
    (("evaluate", "RUN", "-n", "20"), "n=20: too few to measure anything; at least 50"),
    (("evaluate", "RUN", "--split", "tset"), "did you mean 'test'"),
    (("evaluate", "RUN", "--data", "ring"), "the samples are 1 x 28 x 28, the real examples of ring 2"),
    (("evaluate", "RUN", "--best"), "has no best checkpoint: train with --evaluate frechet"),
    (("evaluate", "--fake", "x.npz"), "--fake needs --real DATA"),
    (("evaluate", "--fake", "x.npz", "--real", "digits"), "x.npz: there is no such file"),
    (("evaluate", "--fake", "empty", "--real", "digits"), "empty"),
    (("evaluate", "--fake", "digits", "--real", "digits"), "a data set's name, not samples"),
    (("compare", "RUN"), "got 1 run; give two or more"),
    (("compare", "RUN", "nowhere"), "no run at nowhere"),
    (("compare", "RUN", "RUN"), "give each run once"),
    (("evaluate", "--fake", "x.npz", "--real", "digits", "--best"), "--best is of a run"),
    (("evaluate", "--fake", "", "--real", "digits"), "--fake is empty"),
    (("evaluate", "--fake", "mnist[:100]", "--real", "digits"), "a data set's name, not samples"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(organza, run: str, words: tuple[str, ...], said: str) -> None:
    Path("empty").mkdir()
    before = {path: path.stat().st_mtime_ns for path in Path(run).rglob("*")}
    code, out, err = organza(*(run if word == "RUN" else word for word in words))
    told = [line for line in err.splitlines() if line.startswith("organza: ")]
    assert code == 2 and out == "" and len(told) == 1 and said in told[0] and "Traceback" not in err
    assert before == {path: path.stat().st_mtime_ns for path in Path(run).rglob("*")}
    assert [path.name for path in Path().iterdir()] == ["empty"]
