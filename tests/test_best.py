"""The best checkpoint: scores by the way are logged, the best one's checkpoint stays, and survives a kill."""

import json
from pathlib import Path

import pytest
import torch
from toys import points

import organza
from organza import api
from organza.data import Data
from organza.evaluation import Evaluation, scorer
from organza.game import Game
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.plan import Plan, PlanError
from organza.prior import Normal
from organza.run import Run
from organza.training import Judge, Keeper, Training, fit

PLAN = {"recipe": "none"}
NUMBERS = {16: 5.0, 32: 3.0, 48: 4.0, 64: 3.5, 80: 3.0}  # the best of them at 32


def saved(run: Run, images: int) -> None:
    run.save(images, {"game": {"w": torch.full((2,), float(images))}}, {"images": images}, keep=1)


def test_the_best_stays_until_another_is(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", PLAN)
    assert run.best is None
    saved(run, 1)
    run.mark(1, "frechet", 5.0)
    for images in (2, 3, 4):
        saved(run, images)
    assert run.checkpoints() == [1, 4] and run.best == {"images": 1, "name": "frechet", "value": 5.0}
    run.mark(4, "frechet", 4.0)
    saved(run, 5)
    assert run.checkpoints() == [4, 5]
    assert float(run.load(4)[0]["game"]["w"][0]) == 4.0


def test_a_rewind_forgets_a_later_best(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", PLAN)
    run.mark(8, "frechet", 1.0)
    run.rewind(8)
    assert run.best is not None
    run.rewind(7)
    assert run.best is None


def test_a_kill_between_the_mark_and_the_checkpoint_loses_no_best(tmp_path: Path, monkeypatch) -> None:
    """The run goes on from the checkpoint before, forgets the mark, and judges again."""
    saved = Keeper._save

    def killed(keeper: Keeper) -> None:
        if keeper.state.images == 32:
            raise KeyboardInterrupt
        saved(keeper)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Keeper, "_save", killed)
        played(tmp_path / "run")
    run = Run(tmp_path / "run")
    assert json.loads((run.path / "best.json").read_text())["images"] == 32 and run.checkpoints() == [16]
    assert run.best == {"images": 16, "name": "frechet", "value": 5.0}  # which can be loaded
    assert played(tmp_path / "run").best == {"images": 32, "name": "frechet", "value": 3.0}


def test_a_rewind_remembers_the_best_before(tmp_path: Path) -> None:
    """What goes on from an earlier checkpoint has the same rival as what was never stopped."""
    run = Run.create(tmp_path / "run", PLAN)
    for images, value in ((8, 3.0), (16, 2.0)):
        run.mark(images, "frechet", value)
        saved(run, images)
    run.rewind(12)
    assert run.best == {"images": 8, "name": "frechet", "value": 3.0}


def test_a_best_by_another_score_is_no_rival(tmp_path: Path) -> None:
    run = played(tmp_path / "run", images=16)
    run.mark(16, "precision", 0.1)
    assert played(tmp_path / "run", images=32).best == {"images": 32, "name": "frechet", "value": 3.0}


def test_a_judge_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    def score(model: organza.Model) -> dict[str, float]:
        raise ValueError("the samples are odd")

    torch.manual_seed(0)
    game = Game(
        MLPGenerator(latent=2, shape=(2,), widths=(4,), output="linear"), MLPDiscriminator((2,), (4,)), Normal(2)
    )
    with pytest.warns(UserWarning, match="not judged at image 16: the samples are odd"):
        fit(game, points(), Training(images=16, batch=8), run=tmp_path / "run", judge=Judge(score), device="cpu")
    assert Run(tmp_path / "run").checkpoints() == [16]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": "x", "name": "a", "value": 1}', "\x00"])
def test_a_damaged_mark_is_no_mark(tmp_path: Path, text: str) -> None:
    run = Run.create(tmp_path / "run", PLAN)
    (run.path / "best.json").write_text(text)
    assert run.best is None
    saved(run, 1)
    assert run.checkpoints() == [1]


def played(folder: Path, images: int = 80, highest: bool = False) -> Run:
    """A run that is judged every 16 images, by numbers that are known in advance."""
    torch.manual_seed(0)
    generator = MLPGenerator(latent=2, shape=(2,), widths=(4,), output="linear")
    game = Game(generator, MLPDiscriminator(shape=(2,), widths=(4,)), Normal(2))
    asked = []

    def score(model: organza.Model) -> dict[str, float]:
        asked.append(model.sample(3))
        return {"frechet": NUMBERS[16 * len(asked) + begun], "other": 0.0}

    begun = max(Run(folder).checkpoints(), default=0) if (folder / "plan.json").exists() else 0
    judge = Judge(score, every=16, best="frechet", highest=highest)
    training = Training(images=images, batch=8, log_every=8, sample_every=0)
    fit(game, points(), training, run=folder, judge=judge, device="cpu")
    return Run(folder)


def test_training_keeps_the_best(tmp_path: Path) -> None:
    run = played(tmp_path / "run")
    judged = {record["images"]: record["frechet"] for record in run.records() if "frechet" in record}
    assert judged == NUMBERS
    assert run.best == {"images": 32, "name": "frechet", "value": 3.0}  # the first of two that are equal
    assert run.checkpoints() == [32, 80]
    assert played(tmp_path / "high", highest=True).best == {"images": 16, "name": "frechet", "value": 5.0}


def test_judging_changes_nothing_else(tmp_path: Path) -> None:
    """The same bits with a judge that draws samples and without, and when stopped in between."""
    judged, cut = played(tmp_path / "run"), played(tmp_path / "cut", images=48)
    assert cut.best == {"images": 32, "name": "frechet", "value": 3.0}
    cut = played(tmp_path / "cut")
    torch.manual_seed(0)
    generator = MLPGenerator(latent=2, shape=(2,), widths=(4,), output="linear")
    game = Game(generator, MLPDiscriminator(shape=(2,), widths=(4,)), Normal(2))
    training = Training(images=80, batch=8, log_every=8, sample_every=0)
    fit(game, points(), training, run=tmp_path / "plain", device="cpu")
    for other in (cut, Run(tmp_path / "plain")):
        for group, tensors in judged.load(80)[0].items():
            for name, tensor in tensors.items():
                assert torch.equal(tensor, other.load(80)[0][group][name]), (group, name)

    def log(run: Run) -> list[dict[str, object]]:
        return [{k: v for k, v in record.items() if k != "time"} for record in run.records()]

    assert log(cut) == log(judged)


TINY = {"generator.widths": [8], "discriminator.widths": [8], "evaluation": "Evaluation"}


def test_a_plan_asks_for_it(tmp_path: Path) -> None:
    """By `organza train --evaluate` and `--set evaluation.n=...`; the run can be loaded at its best."""
    changes = {**TINY, "evaluation": {"kind": "Evaluation", "n": 100, "every": 256}}
    model = api.train("ring", "mlp", run=tmp_path / "run", images=768, device="cpu", changes=changes)
    run = Run(tmp_path / "run")
    assert run.plan["evaluation"] == {
        "kind": "Evaluation",
        "metric": "frechet",
        "features": "pixels",
        "n": 100,
        "every": 256,
    }
    judged = {record["images"]: record["frechet"] for record in run.records() if "frechet" in record}
    assert list(judged) == [256, 512, 768]
    least = min(judged, key=judged.__getitem__)
    assert run.best == {"images": least, "name": "frechet", "value": judged[least]}
    best = api.load(run.path, device="cpu", best=True)
    assert best.config["images"] == least
    assert torch.equal(best.sample(5), model.sample(5)) == (least == 768)


@pytest.mark.parametrize(("metric", "high"), [("recall", True), ("precision", True), ("frechet", False)])
def test_the_best_is_the_highest_or_the_lowest_as_the_metric_says(metric: str, high: bool) -> None:
    plan = api.prepare(
        organza.open_data("ring"), "mlp", changes={**TINY, "evaluation": {"kind": "Evaluation", "metric": metric}}
    )
    judge = api._judge(plan, organza.open_data("ring"), "cpu")
    assert (judge.best, judge.highest) == (metric, high)


def test_it_is_the_models_samples_that_are_judged() -> None:
    data = Data("normal", torch.randn(400, 2, generator=torch.Generator().manual_seed(0)))
    score = scorer(Evaluation("frechet", n=300), data, False, 0, torch.device("cpu"))
    zeros = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(zeros.weight), torch.nn.init.zeros_(zeros.bias)
    good, bad = (score(organza.Model(G, Normal(2)))["frechet"] for G in (torch.nn.Identity(), zeros))
    assert good < 0.1 < 1.5 < bad


def test_without_a_best_there_is_none_to_load(tmp_path: Path) -> None:
    api.train("ring", "mlp", run=tmp_path / "run", images=128, device="cpu", changes={**TINY, "evaluation": None})
    with pytest.raises(ValueError, match="no best checkpoint: train with --evaluate"):
        api.load(tmp_path / "run", best=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "freshet"}, "metric 'freshet': there are .*did you mean frechet"),
        ({"metric": "parzen"}, "takes too much while a run trains"),
        ({"features": "digit"}, "features 'digit': there are digits"),
        ({"metric": "vendi"}, "metric 'vendi' is best near its floor"),
        ({"n": 3}, "n=3, every=0: n must be 50 or more"),
        ({"nn": 3}, "evaluation.nn: unknown; did you mean n"),
    ],
)
def test_a_wrong_evaluation_is_one_line(changes: dict[str, object], said: str) -> None:
    plan = json.loads(json.dumps(api.prepare(organza.open_data("ring"), "mlp").json()))
    with pytest.raises(PlanError, match=said):
        Plan.read({**plan, "evaluation": {"kind": "Evaluation", **changes}})


def test_a_metric_that_cannot_be_measured_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for changes, said in (({"metric": "classes"}, "know no classes"), ({"features": "digits"}, "digits sees examples")):
        evaluation = {"kind": "Evaluation", "n": 100, **changes}
        with pytest.raises(ValueError, match=said):
            api.train("ring", "mlp", run=tmp_path / "run", images=256, changes={**TINY, "evaluation": evaluation})
        assert not (tmp_path / "run").exists()
