"""docs/json.md: what --json prints is what stands there, command by command, key by key."""

import json
import re
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import organza as oz
from organza.cli import app

TABLES = Path(__file__).parent.parent / "docs" / "json.md"
TYPES = {"text": str, "number": int | float, "integer": int, "yes or no": bool, "list": list, "object": dict}


def documented():
    """{"train": {"run": ["text"], ...}}: the tables of the page."""
    found = {}
    for name, body in re.findall(r"^## ([\w -]+)\n(.*?)(?=^## |\Z)", TABLES.read_text(), re.M | re.S):
        rows = re.findall(r"^\| `([\w.]+)` \| ([\w ,]+?) \|", body, re.M)
        found[name] = {key: [kind.strip() for kind in kinds.split(",")] for key, kinds in rows}
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small = {"generator.width": 2, "discriminator.width": 2, "training.threads": 1}
    for i in (1, 2):
        oz.train("digits[:100]", "quick", run=folder / f"{i}", images=64, seed=i, device="cpu", changes=small)
    images = np.random.RandomState(0).randint(0, 256, (2, 6, 16, 16, 3), np.uint8)
    for name, some in zip("ab", images, strict=True):
        (folder / name).mkdir()
        for i, image in enumerate(some):
            Image.fromarray(image).save(folder / name / f"{i}.png")
    changes = {"generator.width": 2, "discriminator.width": 2, "training.threads": 1, "generator.blocks": 1}
    oz.train(
        f"{folder / 'a'} and {folder / 'b'}", "cyclegan", run=folder / "3", images=6, device="cpu", changes=changes
    )
    return folder


def commands(runs, tmp_path):
    judged = ["--features", "random", "--metrics", "frechet", "-n", "64", "--data", "digits[:100]"]
    quick = ["--recipe", "quick", "--set", "generator.width=2", "--set", "discriminator.width=2", "--images", "64"]
    for i in (1, 2):
        yield None, ["evaluate", str(runs / f"{i}"), *judged]
    yield "evaluate", ["evaluate", str(runs / "1"), *judged]
    yield "compare", ["compare", str(runs / "1"), str(runs / "2")]
    yield "train", ["train", "digits[:100]", *quick, "--run", str(tmp_path / "new")]
    yield "train --dry-run", ["train", "digits[:100]", *quick, "--dry-run"]
    yield "resume", ["resume", str(tmp_path / "new"), "--images", "96"]
    yield "data", ["data", "ring[:100]", "--sheet", str(tmp_path / "sheet.png")]
    yield "recipes", ["recipes", "quick"]
    yield "sample", ["sample", str(runs / "1"), "-n", "4"]
    yield "interpolate", ["interpolate", str(runs / "1"), "--out", str(tmp_path / "film.gif")]
    yield "export", ["export", str(runs / "1"), "--pretrained", str(tmp_path / "model")]
    yield "translate", ["translate", str(runs / "3"), str(runs / "a"), "--out", str(tmp_path / "made")]
    yield "lab", ["lab", "saturation", "--out", str(tmp_path / "lab")]
    yield "tensorboard", ["tensorboard", str(runs / "1"), "--out", str(tmp_path / "events")]


@pytest.mark.slow
def test_each_command_prints_what_the_page_says(organza, runs, tmp_path):
    pages, seen = documented(), {}
    for name, words in commands(runs, tmp_path):
        code, out, said = organza(*words, "--json")
        assert code == 0, (words, said)
        assert len(out.strip().splitlines()) == 1, words
        record = json.loads(out)
        if name is not None:
            seen[name] = {key: type(value).__name__ for key, value in record.items()}
            known = pages.get(name, {})
            assert record.keys() == known.keys(), f"{name}: {sorted(record.keys() ^ known.keys())}"
            for key, value in record.items():
                fits = any(value is None if kind == "null" else isinstance(value, TYPES[kind]) for kind in known[key])
                assert fits, f"{name}: {key} is {value!r}, not {known[key]}"
    assert seen.keys() == pages.keys()
    every = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert every == {name.split()[0] for name in seen}


def test_a_mistake_is_an_object_too(organza):
    code, out, said = organza("train", "nowhere", "--json")
    assert (
        code == 2
        and json.loads(out).keys() == {"error"}
        and said.strip().splitlines()[-1] == f"organza: {json.loads(out)['error'][0]}"
    )


def test_tab_completes(organza, monkeypatch):
    monkeypatch.setenv("_ORGANZA_COMPLETE", "complete_bash")

    def completed(words):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        return organza()[1].split()

    assert completed("organza tr") == ["train", "translate"]
    command = str(Path(sysconfig.get_path("scripts")) / "organza")  # as it is installed
    done = subprocess.run([command], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["train", "translate"]
    assert completed("organza train --re") == ["--recipe", "--resize"]
    assert completed("organza train --recipe wg") == completed("organza recipes wg") == ["wgan", "wgan-gp"]
    assert completed("organza lab s") == ["saturation", "stability"]
    assert completed("organza train --device c") == ["cpu", "cuda"]


def test_what_tab_completes_is_what_there_is():
    from organza import lab, recipes
    from organza.cli import shell

    assert shell.recipes() == list(recipes.RECIPES) and shell.experiments() == list(lab.NAMES)
