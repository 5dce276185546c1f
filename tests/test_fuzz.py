"""Files that are damaged or lie, by the thousand: whatever they hold, only our own errors come out, one line each.

In the default suite some tens of cases a format, the same ones each time; in the slow suite 2,000.
"""

from __future__ import annotations

import io
import json
import tarfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import organza as oz
from organza.data import Spec, open_data
from organza.plan import Plan
from organza.recipes import RECIPES, reduced
from organza.run import Run

FEW, MANY = 40, 2_000
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12)
scalars |= st.sampled_from([0, -1, 1e308, 10**9, 10**18, "", "../..", "Normal", "DCGANGenerator", "eval", "__class__"])
values = st.recursive(scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3))


def often(test: Callable[..., None], most: int) -> Callable[..., None]:
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=most, deadline=None, derandomize=True, database=None, suppress_health_check=slow)(test)


def each(*formats: str) -> pytest.MarkDecorator:
    """Every format, a few times and, in the slow suite, many times."""
    few, many = ([pytest.param(f, n, marks=m) for f in formats] for n, m in ((FEW, ()), (MANY, pytest.mark.slow)))
    return pytest.mark.parametrize(("format", "most"), [*few, *many])


def ours(read: Callable[[], object]) -> None:
    """Whatever is read, it succeeds or is one clear line for each mistake, of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except ValueError as error:
            assert str(error).strip() and "Traceback" not in str(error)
            lines = getattr(error, "problems", [str(error)])  # a line for each mistake in a plan
            assert not any("\n" in line for line in lines), str(error)
            at = traceback.extract_tb(error.__traceback__)[-1].filename  # where it was raised
            assert "organza" in at, (at, str(error))


def spoilt(data: bytes, at: int, new: bytes, cut: int) -> bytes:
    """The bytes with others at some place, and without what follows ``cut``."""
    at %= max(1, len(data))
    return (data[:at] + new + data[at + len(new) :])[: len(data) - cut % (len(data) + 1) if cut else None]


bytes_of = {"at": st.integers(0, 4_000), "new": st.binary(max_size=12), "cut": st.just(0) | st.integers(0, 4_000)}


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that a JSON value holds."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def changed(record: Any, which: int, value: Any, how: str) -> Any:
    """A copy of a JSON value in which one thing is another, is missing or has a neighbour."""
    record = json.loads(json.dumps(record))
    *above, last = places(record)[1:][which % (len(places(record)) - 1)]
    node = record
    for key in above:
        node = node[key]
    if how == "missing":
        del node[last]
    elif how == "more" and isinstance(node, dict):
        node[f"{last}s"] = value
    else:
        node[last] = value
    return record


json_of = {
    "which": st.integers(0, 10_000),
    "value": values,
    "how": st.sampled_from(["other", "other", "other", "missing", "more"]),
}
SPECS = {"labels": Spec((1, 8, 8), 9, 3), "images": Spec((3, 16, 16), 9, condition=(3, 16, 16))}


@each("quick", "r3gan-tiny", "modes", "infogan", "conditional")
def test_a_plan(format: str, most: int, tmp_path: Path) -> None:
    plan = reduced(RECIPES[format](SPECS["labels"])).json()

    def test(which: int, value: Any, how: str) -> None:
        spoiled = changed(plan, which, value, how)

        def read() -> None:
            made = Plan.read(spoiled)
            made.fits(SPECS["labels"])
            made.play()

        ours(read)

    often(given(**json_of)(test), most)()


@each("plan.json", "log.jsonl", "best.json")
def test_a_run_folder(format: str, most: int, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", reduced(RECIPES["modes"](Spec((2,), 9))).json())
    run.log({"images": 8, "loss": 0.5})
    run.log({"images": 16, "loss": 0.25})
    run.mark(16, "frechet", 1.0)
    file = run.path / format
    whole = file.read_bytes()

    def test(at: int, new: bytes, cut: int) -> None:
        file.write_bytes(spoilt(whole, at, new, cut))
        ours(lambda: (run.plan, run.records(), run.best))
        ours(lambda: Plan.read({k: v for k, v in run.plan.items() if k != "organza"}))

    often(given(**bytes_of)(test), most)()


@each("state.json", "MANIFEST.json", "game.safetensors")
def test_a_checkpoint(format: str, most: int, tmp_path: Path) -> None:
    """A damaged one is never taken: the one before it is."""
    run = Run.create(tmp_path / "run", {})
    for images in (8, 16):
        run.save(images, {"game": {"w": torch.full((4,), float(images))}}, {"images": images})
    file = run.path / "checkpoints/16" / format
    whole = file.read_bytes()

    def test(at: int, new: bytes, cut: int) -> None:
        data = spoilt(whole, at, new, cut)
        file.write_bytes(data)
        groups, state, lines = run.load()
        same = json_or_none(data) == json_or_none(whole) if format == "MANIFEST.json" else data == whole
        assert state["images"] == (16 if same else 8), lines
        assert float(groups["game"]["w"][0]) == state["images"]

    often(given(**bytes_of)(test), most)()


def json_or_none(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    changes = {"generator.widths": [4], "discriminator.widths": [4], "training.threads": 1}
    oz.train("ring", "modes", run=folder / "run", images=256, changes=changes).save_pretrained(folder / "model")
    return folder / "model"


@each("config.json, as JSON", "config.json", "model.safetensors")
def test_a_model(format: str, most: int, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for each_file in model.iterdir():
        (folder / each_file.name).write_bytes(each_file.read_bytes())
    file = folder / format.partition(",")[0]
    whole = file.read_bytes()
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("sha256")  # so that weights are looked at, not only their hash

    def test_bytes(at: int, new: bytes, cut: int) -> None:
        (folder / "config.json").write_text(json.dumps(config))
        file.write_bytes(spoilt(whole, at, new, cut))
        ours(lambda: oz.load(folder).sample(2))

    def test_json(which: int, value: Any, how: str) -> None:
        file.write_text(json.dumps(changed(config, which, value, how)))
        ours(lambda: oz.load(folder).sample(2))

    test = given(**json_of)(test_json) if "," in format else given(**bytes_of)(test_bytes)
    often(test, most)()


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in ("a/1.png", "a/2.png", "b/1.png"):
            made.writestr(name, png())
        made.writestr("dataset.json", json.dumps({"labels": [["a/1.png", 0], ["a/2.png", 1], ["b/1.png", 0]]}))
    return file.getvalue()


def shard() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, data in (("1.png", png()), ("1.cls", b"0"), ("2.png", png()), ("2.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


def table() -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"image": [png(), png()], "label": [0, 1]}), file)
    return file.getvalue()


def array(name: str) -> bytes:
    file, x = io.BytesIO(), np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    np.save(file, x) if name.endswith("y") else np.savez(file, x=x, y=np.array([0, 1]))
    return file.getvalue()


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF")
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG")
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "x.npy": lambda: array("x.npy"),
    "x.npz": lambda: array("x.npz"),
    "x.zip": archive,
    "x.tar": shard,
    "x.parquet": table,
    "x/1.png": png,
    "x/1.jpg": jpeg,
    "x/1.gif": gif,
    "x/labels.csv": lambda: b"file,label\n1.png,cat\n2.png,dog\n",
    "x/dataset.json": lambda: b'{"labels": [["1.png", 0], ["2.png", 1]]}',
}


@each(*FILES)
def test_data(format: str, most: int, tmp_path: Path) -> None:
    whole, file = FILES[format](), tmp_path / format
    file.parent.mkdir(exist_ok=True)
    if file.suffix in (".csv", ".json"):
        for name in ("1.png", "2.png"):
            (file.parent / name).write_bytes(png())

    def test(at: int, new: bytes, cut: int) -> None:
        file.write_bytes(spoilt(whole, at, new, cut))
        ours(lambda: open_data(str(tmp_path / format.partition("/")[0])))

    often(given(**bytes_of)(test), most)()
