"""What torchrun starts anew goes on with its own run and no other; and what one process alone has met is told."""

import errno
import json
import shutil

import pytest

from organza import api, training
from organza.cli.training import changes
from organza.run import Run
from organza.training import Training

SMALL = ["--set", "generator.widths=[4]", "--set", "discriminator.widths=[4]", "--set", "training.threads=1"]
TRAIN = ["train", "ring", "--recipe", "modes", "--images", "512", *SMALL]


@pytest.fixture
def again(monkeypatch):
    """As torchrun tells a process that it was started anew."""
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of TRAIN, never changed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    api.train("ring", "modes", run=run, images=512, changes=changes(SMALL[1::2]))
    return run


def test_it_goes_on_with_its_own_run(organza, again, tmp_path):
    run = tmp_path / "run"
    assert organza(*TRAIN, "--seed", "1", "--run", str(run))[0] == 0  # nothing was begun: it begins
    (run / "report.html").unlink()
    code, out, _ = organza(*TRAIN, "--seed", "1", "--run", str(run), "--json")
    assert code == 0 and json.loads(out)["images"] == 512 and (run / "report.html").exists()


@pytest.mark.parametrize(
    "other", [["--seed", "2"], ["--images", "1024"], ["--recipe", "quick"], ["--set", "training.batch=64"]]
)
def test_a_run_of_another_kind_is_refused(organza, again, trained, other):
    run, kept = trained, (trained / "plan.json").read_bytes()
    code, _, said = organza(*TRAIN, *other, "--run", str(run))
    assert code == 2 and f"{run} exists; organza resume" in said and (run / "plan.json").read_bytes() == kept


def test_what_a_kill_left_of_a_beginning_is_no_hindrance(organza, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".plan.json.tmp").write_text("{")
    (tmp_path / "run" / ".lock").touch()
    assert organza(*TRAIN, "--run", str(tmp_path / "run"))[0] == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert "exists and is not a run" in organza(*TRAIN, "--run", str(tmp_path / "other"))[2]


@pytest.mark.parametrize("where", ["replan", "create"])
def test_a_full_disk_is_one_line_wherever_it_comes(organza, trained, tmp_path, monkeypatch, where):
    run = shutil.copytree(trained, tmp_path / "run")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "plan.json")

    monkeypatch.setattr(Run, where, full)
    words = ["resume", str(run), "--images", "1024"] if where == "replan" else [*TRAIN, "--run", str(tmp_path / "new")]
    code, _, said = organza(*words)
    assert code == 2 and "organza: plan.json: No space left on device: make room" in said and "Traceback" not in said


def test_what_one_process_alone_has_met_is_told_by_it(organza, trained, monkeypatch):
    def raised(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("organza.api.resume", fail)
        return organza("resume", str(trained))[2]

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun says it too
    assert "organza: rank 1: no room" in raised(training.OutOfMemory("no room"))
    assert "mistake" not in raised(ValueError("a mistake"))  # which the first tells


@pytest.mark.parametrize(
    ("batch", "generator_batch", "parts", "said"),
    [
        (64, 0, 1, "accumulate=2,"),
        (25, 0, 1, "accumulate=5,"),
        (64, 48, 4, "accumulate=8,"),
        (64, 24, 8, "smaller training.batch"),
        (1, 0, 1, "smaller training.batch"),
    ],
)
def test_the_advice_on_memory_can_be_followed(batch, generator_batch, parts, said):
    plan = Training(batch=batch, generator_batch=generator_batch, accumulate=parts)
    assert said in training._less(plan)
