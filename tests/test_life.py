"""The life of a run: moved, damaged, resumed elsewhere, ended on the way: what it comes to is right, or is told."""

import json
import os
import shutil
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy

import organza as oz
from organza import api, evaluation
from organza.augment import DiffAugment, Jitter
from organza.data import Data, open_data
from organza.decision import lengthened
from organza.game import Game
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import Hinge
from organza.prior import Uniform
from organza.progress import playing
from organza.replay import ImagePool
from organza.report import curves
from organza.run import Run
from organza.training import Judge, State, Unwritten, fit
from organza.training.state import changed

TINY = {"generator.widths": [4], "discriminator.widths": [4], "training.threads": 1, "training.save_every": 128}


def trained(folder: Path, **more: object) -> Path:
    api.train("ring", "mlp", run=folder, images=256, device="cpu", changes={**TINY, **more})
    return folder


def spoil(file: Path) -> None:
    """Turn its last bit."""
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_what_does_not_suit_is_told_before_anything_is_written(tmp_path: Path) -> None:
    x = torch.rand(40, 3)
    G, D = MLPGenerator(4, (3,), (4,), classes=2), MLPDiscriminator((3,), (4,), classes=2)
    conditional = Game(G, D, oz.Normal(4), conditional=True)
    plain = Game(MLPGenerator(4, (3,), (4,)), MLPDiscriminator((3,), (4,)), oz.Normal(4))
    for game, data, changes, said in (
        (conditional, x, {}, "the data have no labels or other conditions y"),
        (plain, Data("x", x, torch.rand(40, 2)), {"labelled": True}, "have no labelled examples"),
        (plain, x, {"jitter": Jitter()}, "Jitter: got x of shape (2, 3), needs images"),
    ):
        with pytest.raises(ValueError) as caught:
            fit(game, data, images=64, run=tmp_path / "run", device="cpu", **changes)
        assert said in str(caught.value) and not (tmp_path / "run").exists()


def test_a_programs_own_names_and_jitter(tmp_path: Path) -> None:
    """A G may call what it likes its condition, and a jitter is given the conditions that the data have."""

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.condition, self.out = torch.nn.Embedding(2, 4), torch.nn.Linear(6, 3)

        def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.out(torch.cat([z, self.condition(y)], 1))

    data = Data("x", torch.rand(40, 3), torch.arange(40) % 2, labels=("a", "b"))
    game = Game(Own(), MLPDiscriminator((3,), (4,), classes=2), oz.Normal(2), conditional=True)
    before = torch.random.get_rng_state()
    jitter = lambda x, y, draw: (x + 0 * torch.rand(1), y.clone())  # noqa: E731
    model = fit(game, data, images=64, run=tmp_path / "run", device="cpu", jitter=jitter)
    assert model.sample(4, y=torch.tensor([0, 1, 0, 1])).shape == (4, 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_device_is_told() -> None:
    made = toy()
    now = State(made.game, made.training, made.data, torch.device("cpu")).record()
    (line,) = changed({**now, "device": "cuda"}, now)
    assert line == "the run goes on with device cpu, not cuda, which draws other numbers"
    assert (
        changed({name: value for name, value in now.items() if name != "device"}, now) == []
    )  # from before it was kept


def test_a_run_folder_that_is_renamed_is_not_made_anew(tmp_path: Path) -> None:
    made = toy()

    def rename(state: State) -> None:
        if state.images == 32:
            (tmp_path / "run").rename(tmp_path / "other")

    play = {"images": 4096, "run": tmp_path / "run", "device": "cpu", "watch": rename, "save_seconds": 0.0}
    with pytest.raises(Unwritten, match=r"run is no longer there, or has no plan.json: was it renamed or removed\?"):
        fit(made.game, made.data, made.training, **play)
    assert not (tmp_path / "run").exists() and Run(tmp_path / "other").checkpoints()


def test_a_run_whose_checkpoints_are_gone_is_not_wiped(tmp_path: Path) -> None:
    made, run = toy(), tmp_path / "run"
    play = {"images": 64, "log_every": 8, "run": run, "device": "cpu"}
    fit(made.game, made.data, made.training, **play)
    shutil.rmtree(run / "checkpoints")
    with pytest.warns(UserWarning, match="was stopped before its first checkpoint"):  # all within the first minute
        fit(made.game, made.data, made.training, **play)
    shutil.rmtree(run / "checkpoints")
    lines = [{**line, "time": 100.0 * i} for i, line in enumerate(Run(run).records())]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    with pytest.raises(ValueError, match="went on to image 64 by its log, but holds no checkpoint"):
        fit(made.game, made.data, made.training, **play)
    assert before == {file: file.read_bytes() for file in before}


def test_a_resume_judges_with_the_same_eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {**TINY, "evaluation": {"kind": "Evaluation", "n": 60, "every": 128}}
    api.train("digits[:200]", "mlp", run=tmp_path / "run", images=128, device="cpu", changes=changes)
    assert Run(tmp_path / "run").plan["evaluation"]["features"] == "digits"
    seen, made = [], evaluation.extractor
    monkeypatch.setattr(evaluation, "extractor", lambda which: seen.append(which) or made(which))
    data = open_data("digits[:200]")
    np.savez(tmp_path / "moved.npz", x=data.x.numpy(), y=data.y.numpy())
    api.resume(tmp_path / "run", data=str(tmp_path / "moved.npz"), images=256, device="cpu")
    assert set(seen) == {"digits"}


def test_an_older_checkpoint_is_not_taken_in_silence(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    spoil(run / "checkpoints/256/ema.safetensors")
    for load in (api.load, api.game):
        with pytest.warns(UserWarning, match=r"checkpoint 256 skipped: ema.safetensors .* that at 128 is taken"):
            load(run, device="cpu")


OTHERS = {"objective": Hinge(), "prior": Uniform(3), "augment": DiffAugment(("translation",)), "replay": ImagePool(4)}


@pytest.mark.parametrize("part", OTHERS)
def test_another_game_is_refused(part: str, tmp_path: Path) -> None:
    made, other = toy(), toy()
    setattr(other.game, part, OTHERS[part])
    fit(made.game, made.data, made.training, images=32, run=tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match=rf"run was trained with {part}=\w+, not {type(OTHERS[part]).__name__}"):
        fit(other.game, other.data, other.training, images=64, run=tmp_path / "run", device="cpu")


def test_a_run_begun_anew_with_another_game_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing had been saved of the first, so that it binds nobody."""
    made, other = toy(), toy()
    other.game.objective = Hinge()
    play = {"run": tmp_path / "run", "device": "cpu"}
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(State, "learn", lambda *given, **more: 1 / 0)
        fit(made.game, made.data, made.training, images=32, **play)
    for images in (32, 64):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it was stopped before its first checkpoint
            fit(other.game, other.data, other.training, images=images, **play)
    assert max(Run(tmp_path / "run").checkpoints()) == 64


def test_a_longer_run_of_own_parts_is_written_into_the_plan(tmp_path: Path) -> None:
    made = toy()
    for images in (32, 64):
        fit(made.game, made.data, made.training, images=images, run=tmp_path / "run", device="cpu")
    assert api.report.planned(Run(tmp_path / "run").plan) == 64


def test_a_kill_within_a_rewind_loses_no_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(tmp_path / "run", {"recipe": "mine"})
    for images, value in ((8, 3.0), (16, 2.0)):
        run.mark(images, "frechet", value)
        run.save(images, {"game": {}}, {})

    def killed(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("organza.run._write", killed)
        run.rewind(12)
    run.rewind(12)
    assert run.best == {"images": 8, "name": "frechet", "value": 3.0}


def test_a_rate_that_only_begins_at_0_is_no_end() -> None:
    rate = {"kind": "Linear", "start": 0.0, "end": 1e-3, "images": 20_000, "hold": 5_000}
    changes = {f"training.{player}_optimizer.lr": rate for player in ("generator", "discriminator")}
    plan = api.prepare(open_data("ring"), "mlp", 40_000, changes)
    for done in (0, 4_096):
        assert lengthened(plan, done, 50_000).training["images"] == 50_000


def test_a_p_that_leaves_its_range_is_told_before_it_begins(organza) -> None:
    p = '{"kind":"Linear","start":0,"end":1.5,"images":1000}'
    augment = f'augment={{"kind":"ADA","p":{p}}}'
    code, _, said = organza("train", "--recipe", "quick", "--images", "2000", "--set", augment)
    assert code == 2 and "augment: ADA(p=" in said and "must lie in [0, 1]" in said and not list(Path().iterdir())


def test_a_run_that_cannot_be_written_is_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)
    before = sorted(run.rglob("*"))
    with pytest.warns(UserWarning, match="the scores are shown, and not kept"):
        assert api.evaluate(run, metrics=["frechet"], features="pixels", n=60, device="cpu", floors=False)
    assert sorted(run.rglob("*")) == before


ERRORS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), torch.linalg.LinAlgError("it did not converge")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_judge_that_fails_does_not_end_the_training(tmp_path: Path, error: Exception) -> None:
    def score(model: object) -> dict[str, float]:
        raise error

    made = toy()
    with pytest.warns(UserWarning, match="not judged at image 32"):
        fit(made.game, made.data, made.training, images=32, run=tmp_path / "run", judge=Judge(score), device="cpu")
    assert Run(tmp_path / "run").checkpoints() == [32]


def test_a_signal_after_the_end_is_no_stop(capsys, tmp_path: Path) -> None:
    made = toy()
    with playing(as_json=True) as watch:
        model = fit(made.game, made.data, made.training, images=32, run=tmp_path / "run", device="cpu", watch=watch)
    watch.signal = signal.SIGINT
    assert watch.close(model) == 0 and not json.loads(capsys.readouterr().out)["stopped"]


def test_the_report_is_where_the_run_is(tmp_path: Path) -> None:
    """Which may be beyond the last line of its log."""
    run = Run(trained(tmp_path / "run", **{"training.log_every": 256}))
    run.save(300, *run.load()[:2])
    assert "300 images" in api.report.write(run).read_text("utf-8")


def test_a_slow_half_is_no_pause() -> None:
    """A run that was begun on a slow machine, and went on on one of forty times its speed, with a night between."""
    times = np.cumsum([20.0] * 30 + [30_000.0] + [0.5] * 70)
    (at, rate), seconds = curves.speed(np.arange(1.0, 102) * 1000, times)
    assert seconds == pytest.approx(times[-1] - 30_000 + 20, rel=0.05) and len(at) == 99
    assert (rate[:28] == 50).all() and (rate[-60:] == 2000).all()


def test_nearest_asks_for_the_data_that_were_trained_on(organza) -> None:
    x = np.random.RandomState(0).randint(0, 255, (64, 8, 8), np.uint8)
    np.save("here.npy", x)
    sizes = ("--set", "generator.widths=[4]", "--set", "discriminator.widths=[4]")
    assert organza("train", "here.npy", "--recipe", "mlp", *sizes, "--images", "128", "--run", "run")[0] == 0
    np.save("here.npy", 255 - x)
    code, _, said = organza("sample", "run", "--nearest")
    assert code == 2 and "no longer what the model was trained on" in said and "--data" in said


def test_a_best_is_of_a_run(tmp_path: Path) -> None:
    model = oz.load(trained(tmp_path / "run"))
    with pytest.raises(ValueError, match="best: give the folder of a run"):
        oz.evaluate(model, best=True)
