"""`organza tensorboard`: a run's log and pictures as TensorBoard reads them, made beside the training."""

import json
import math
import threading
import time

import pytest

import organza as oz
from organza.cli import tensorboard as command
from organza.run import Run

pytest.importorskip("tensorboard")
CHANGES = {"generator.widths": [4], "discriminator.widths": [4], "training.threads": 1, "training.log_every": 128}


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


def test_all_of_the_log_and_the_pictures(organza, tmp_path):
    run = tmp_path / "run"
    oz.train("ring", "modes", run=run, images=512, changes=CHANGES)
    code, out, _ = organza("tensorboard", str(run), "--json")
    events, records = read(run / "tensorboard"), Run(run).records()
    assert code == 0 and json.loads(out) == {
        "run": str(run), "out": str(run / "tensorboard"), "lines": len(records), "pictures": 2
    }  # fmt: skip
    for name in records[0].keys() - {"images", "steps", "time"}:
        found = [(event.step, event.value, event.wall_time) for event in events.Scalars(name)]
        expected = [(r["images"], pytest.approx(r[name], rel=1e-6), r["time"]) for r in records if name in r]
        assert found == expected, name
    assert [event.step for event in events.Images("samples")] == [0, 512]
    code, _, said = organza("tensorboard", str(run))
    assert code == 2 and "exists and is no empty folder" in said


def test_it_follows_a_run_to_its_end(organza, tmp_path, monkeypatch):
    """What is written later is shown too; a damaged line at the end, as while it is written, waits."""
    monkeypatch.setattr(command, "_PAUSE", 0.01)
    run = Run.create(tmp_path / "run", {"training": {"images": 300}})
    run.log({"images": 100, "loss": 1.0})

    def go_on():
        for images in (200, 300):
            time.sleep(0.05)
            run.log({"images": images, "loss": 0.5})

    training = threading.Thread(target=go_on)
    training.start()
    code, out, _ = organza("tensorboard", str(run.path), "--follow", "--out", str(tmp_path / "events"))
    training.join()
    assert code == 0 and "3 lines, 0 pictures" in out
    assert [event.step for event in read(tmp_path / "events").Scalars("loss")] == [100, 200, 300]


@pytest.mark.parametrize(
    ("plan", "aim"),
    [
        ({"training": {"images": 300}}, 300),
        ({"python": {"game": {}, "training": {"images": "300"}}}, 300),
        ({"python": {"training": {"images": "many"}}}, math.inf),
        ({"python": True}, math.inf),
        ({}, math.inf),
    ],
)
def test_how_long_a_run_is(plan, aim):
    assert command._aim(plan) == aim


def test_without_tensorboard(organza, tmp_path, monkeypatch):
    import sys

    run = Run.create(tmp_path / "run", {})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, said = organza("tensorboard", str(run.path))
    assert code == 2 and "pip install 'organza[tensorboard]'" in said and not (run.path / "tensorboard").exists()


def test_a_damaged_picture_is_left_out(organza, tmp_path):
    run = tmp_path / "run"
    oz.train("ring", "modes", run=run, images=512, changes=CHANGES)
    whole = (run / "samples" / "0.png").read_bytes()
    (run / "samples" / "0.png").write_bytes(whole[: len(whole) // 2])
    code, out, _ = organza("tensorboard", str(run), "--json")
    assert code == 0 and json.loads(out)["pictures"] == 1
    assert [event.step for event in read(run / "tensorboard").Images("samples")] == [512]
