"""From samples to scores: what is compared with what, the floor, the flags, and the mistakes."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys_conditional import TOYS  # noqa: F401  (the folder of tests is on the path)

import organza
from organza import api, evaluation, scores
from organza.data import Data, open_data
from organza.evaluation import Reference, draw, evaluate, reference
from organza.metrics import KEYS, METRICS, catalogue
from organza.model import Model
from organza.nn import DCGANGenerator
from organza.prior import Normal


@pytest.fixture(scope="module")
def test_digits() -> Reference:
    return reference("digits")


def values(found: list) -> dict[str, float]:
    return {score.key: score.value for score in found}


def test_what_is_compared_with_what() -> None:
    """By default with the test part; the floor comes from the other part, the training data from the name as given."""
    tested = reference("digits[:6000]")
    assert (len(tested.real), tested.split, len(tested.train), tested.held) == (2000, "test", 6000, tested.train)
    trained = reference("digits", "train")
    assert (len(trained.real), trained.train, len(trained.held)) == (10_000, None, 2000)
    own = (np.zeros((200, 8, 8), np.uint8), None)
    alone = reference(own[0])
    assert (alone.split, alone.train, alone.held) == ("all", None, None)
    other = reference("digits[:6000]", data="digits[6000:]")
    assert (len(other.real), len(other.train)) == (4000, 6000)
    assert reference("digits", data="digits").split == "test"
    with pytest.raises(ValueError, match="did you mean 'test'"):
        reference("digits", "tset")


def test_real_examples_that_were_trained_on_are_not_held_out() -> None:
    """What is named by its part is meant as it stands; training images among it are counted, byte for byte."""
    part = reference("digits", data="digits[:2000]")
    assert (len(part.real), part.train, part.held) == (2000, None, None)
    assert part.split == "part, 2,000 of them training examples"
    mixed = reference("digits[:5000]", data="digits[4900:6000]")
    assert mixed.split == "part, 100 of them training examples" and mixed.train is None
    unknown = reference("gone.npz", data="digits")
    assert (len(unknown.real), unknown.train, unknown.held) == (2000, None, None)
    nobody = reference(None, data="digits[:300]")
    assert (len(nobody.real), nobody.split, nobody.train) == (300, "part", None)
    assert reference(None, data="digits").train is not None  # another program's digits may be copies too


def test_training_data_that_changed_is_told(tmp_path: Path) -> None:
    x = open_data("digits").x[:100].numpy()
    np.save(tmp_path / "x.npy", x)
    tiny = {"generator.widths": [8], "discriminator.widths": [8]}
    api.train(tmp_path / "x.npy", "mlp", run=tmp_path / "run", images=128, device="cpu", changes=tiny)
    assert api.evaluate(tmp_path / "run", metrics=["frechet"], features="pixels", n=60, device="cpu")
    np.save(tmp_path / "x.npy", 255 - x)
    with pytest.raises(ValueError, match="no longer what the run was trained on"):
        api.evaluate(tmp_path / "run", metrics=["frechet"], features="pixels", n=60, device="cpu")
    with pytest.raises(ValueError, match="memorisation cannot be measured here: it needs the training data"):
        api.evaluate(tmp_path / "run", data="digits", metrics=["memorisation"], n=60, device="cpu")
    assert api.evaluate(tmp_path / "run", data="digits", metrics=["frechet"], features="pixels", n=60, device="cpu")


SLOW = [pytest.param(which, marks=pytest.mark.slow) for which in ("samples", "real examples")]


@pytest.mark.parametrize("which", ["both", *SLOW])
def test_samples_without_any_variety_are_flagged(which: str) -> None:
    """No metric falls over, and none of its numbers stands without a word."""
    x = open_data("digits", "test").x[:200]
    same = x[:1].expand(200, 1, 28, 28)
    fake, real = (Data(name, same if which in (name, "both") else x) for name in ("samples", "real examples"))
    for features in ("digits", "pixels"):
        found = evaluate(fake, Reference(real, "all"), None, features, floors=features == "digits" or which != "both")
        for score in found:
            assert any("are the same to these features" in flag for flag in score.flags), score.key
            odd = "there is no such number for these samples"
            assert np.isfinite(score.value) or odd in score.flags, score.key


def test_a_floor_of_another_number_is_flagged(test_digits: Reference) -> None:
    fake = Data("samples", open_data("digits").x[:300])
    alike = evaluate(fake, test_digits, ["frechet"])[0]
    assert "300 of digits" in alike.floor_of and not any("floor" in flag for flag in alike.flags)
    few = evaluate(fake, Reference(Data("few", test_digits.real.x[:400]), "all"), ["frechet"], "digits")[0]
    assert any("the floor is of 200 real examples against 200, not as many as samples" in flag for flag in few.flags)


def test_labels_that_the_model_does_not_know() -> None:
    y = torch.arange(100) % 12 - 1  # -1 is unlabelled, and never asked for
    data = Data("rows", torch.zeros(100, 1, 8, 8, dtype=torch.uint8), y)
    assert int(evaluation.conditions(Reference(data, "all"), 400, 0).min()) == 0
    for G in (Labelled(), DCGANGenerator(64, (1, 8, 8), 4, classes=4)):
        with pytest.raises(ValueError, match="does not know all labels of the real data"):
            draw(Model(G, Normal(64), True), 100, 0, evaluation.conditions(Reference(data, "all"), 100, 0))
    with pytest.raises(ValueError, match="none of the examples has a label"):
        evaluation.conditions(Reference(replace(data, y=torch.full((100,), -1)), "all"), 100, 0)


def test_classes_go_by_their_names() -> None:
    """Data that has other classes first, or lacks some, asks the model for those of the same names."""
    x, y = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, -1, 1])
    pets = Reference(Data("pets", x, y, labels=("dog", "horse")), "all")
    renamed = evaluation.aligned(pets, ["cat", "dog", "horse"]).real
    assert renamed.y.tolist() == [1, 2, -1, 2] and renamed.digest == pets.real.digest
    assert evaluation.aligned(pets, ["dog", "horse"]) == evaluation.aligned(pets, []) == pets
    assert evaluation.aligned(pets, ["0", "1"]).real is pets.real  # which are no names
    digits = Reference(Data("some", x, y, labels=("3", "5")), "all")
    assert evaluation.aligned(digits, list("0123456789")).real.y.tolist() == [3, 5, -1, 5]
    with pytest.raises(
        ValueError, match="pets has the classes horse, which the model does not know: it was trained on cat, dog"
    ):
        evaluation.aligned(pets, ["cat", "dog"])


def test_what_so_few_examples_do_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usual metric that fails is left out with a warning, a floor that fails is None; one that is named is told."""
    few = {name: METRICS[name] for name in ("frechet", "memorisation", "within-classes")}  # the others take long
    monkeypatch.setattr(catalogue, "METRICS", few)
    monkeypatch.setattr(evaluation, "METRICS", few)
    data = open_data("digits")
    rows = torch.cat([(data.y == k).nonzero()[:7, 0] for k in range(10)])  # of which half are too few for k = 5
    real = Reference(Data("few", data.x[rows], data.y[rows]), "all", train=Data("train", data.x[:16]))
    fake = Data("samples", data.x[500:600], data.y[500:600])
    with pytest.warns(UserWarning, match=r"memorisation is left out: .*16 different training examples"):
        found = {each.key: each for each in evaluate(fake, real, None, "digits", conditional=True)}
    within = found["class-coverage"]
    assert within.floor is None and any("without a floor" in flag for flag in within.flags)
    assert found["frechet"].floor is not None and "memorised" not in found
    with pytest.raises(ValueError, match="memorisation cannot be measured here: "):
        evaluate(fake, real, ["memorisation"], "digits")


def test_every_usual_metric(test_digits: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real training digits as samples: every score that applies, each with its whole protocol, near its floor."""
    few = partial(catalogue.kernel.kernel_distance, subsets=10)  # a hundred take seconds
    monkeypatch.setattr(catalogue.kernel, "kernel_distance", few)
    rows = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:1500]  # neighbours are of one writer
    found = evaluate(Data("samples", open_data("digits").x[rows]), test_digits)
    by_key = {score.key: score for score in found}
    asked = ("frechet", "kernel", "neighbours", "inception-score", "classes", "diversity", "two-sample", "parzen")
    assert list(by_key) == [*(key for name in asked[:-1] for key in METRICS[name].keys), "memorised", "parzen"]
    for key, score in by_key.items():
        protocol = score.protocol
        assert (protocol.real, protocol.split, protocol.n_real, protocol.n_fake) == ("digits", "test", 2000, 1500)
        assert (protocol.seed, protocol.rounding, protocol.resize) == (0, "uint8", "none")
        assert protocol.organza == organza.__version__ and protocol.torch == torch.__version__
        assert protocol.digest == test_digits.real.digest and score.best == KEYS[key][1]
        assert (score.floor is None) == (key == "memorised")
        pixels = METRICS[KEYS[key][0]].sees == "pixels"
        assert (protocol.features, len(protocol.weights)) == (("pixels", 0) if pixels else ("digits", 64))
    assert by_key["frechet"].name == "FLD" and by_key["kernel"].name == "KD-digits"
    assert by_key["frechet"].value < 1.3 * by_key["frechet"].floor
    assert by_key["two-sample"].value == pytest.approx(0.5, abs=0.06)
    assert by_key["memorised"].details["verdict"] == "memorised"  # they are the training images
    assert by_key["precision"].value == pytest.approx(by_key["precision"].floor, abs=0.05)
    assert by_key["class-entropy"].value == pytest.approx(np.log(10), abs=0.01)


def test_only_what_is_asked_for(test_digits: Reference) -> None:
    fake = open_data("digits[:300]")
    found = evaluate(fake, test_digits, ["recall", "frechet"], "random", floors=False)
    assert [score.key for score in found] == ["precision", "recall", "density", "coverage", "frechet"]
    assert all(score.floor is None for score in found)
    assert found[-1].name == "FD-random" and any("300 samples for 448 features" in flag for flag in found[-1].flags)
    with pytest.raises(ValueError, match=r"metric 'freched': there are frechet.*did you mean frechet"):
        evaluate(fake, test_digits, ["freched"])
    with pytest.raises(ValueError, match="modes cannot be measured here: the law is no known mixture"):
        evaluate(fake, test_digits, ["modes"])
    with pytest.raises(ValueError, match="features random know no classes"):
        evaluate(fake, test_digits, ["inception-score"], "random")


def test_the_floor_is_of_held_out_examples() -> None:
    """With one data set only, of its two halves; the floor of the Fréchet distance falls as 1 / n."""
    data = Data("array", open_data("digits").x[:4000])
    fake = Data("fakes", open_data("digits").x[4000:4400])
    few, many = (
        evaluate(replace(fake, x=fake.x[:n]), Reference(data, "all"), ["frechet"], "digits")[0] for n in (100, 400)
    )
    assert few.floor > 2 * many.floor and many.value == pytest.approx(many.floor, rel=0.35)


def test_points() -> None:
    """Vectors: the values themselves are the features, and a known mixture has its modes counted."""
    ring = open_data("ring", "test")
    fake = Data("fakes", torch.cat([ring.x[ring.y < 7][:2000], torch.zeros(500, 2)]))
    found = {score.key: score for score in evaluate(fake, reference("ring"), ["modes", "frechet", "coverage"])}
    assert found["modes"].value == 7 and found["modes"].floor == 8
    assert found["quality"].value == pytest.approx(0.8 * 0.9889, abs=0.01)
    assert found["quality"].floor == pytest.approx(0.9889, abs=0.01)
    assert found["width"].value == pytest.approx(1, abs=0.05)
    assert found["frechet"].name == "FD-pixels" and found["frechet"].protocol.rounding == "none"


def test_weighted_points() -> None:
    """Modes are compared with their true weights: the law's own sample is at the floor, the even law is not."""
    law = reference("grid25[weights=1:4]")
    kl = {}
    for name in ("grid25[weights=1:4]", "grid25"):
        found = {score.key: score for score in evaluate(open_data(name, "test"), law, ["modes"], floors=False)}
        kl[name] = found["reverse-kl"].value
        assert found["modes"].value == 25 and "true law" in str(found["reverse-kl"].protocol)
    assert kl["grid25[weights=1:4]"] < 0.01 < 0.05 < kl["grid25"]


def test_label_accuracy_is_of_what_was_asked_for() -> None:
    test, rows = open_data("digits", "test"), torch.randperm(2000, generator=torch.Generator().manual_seed(0))[:400]
    fake, against = Data("samples", test.x[rows], test.y[rows]), Reference(test, "test")

    def accuracy(fake: Data) -> float:
        (found,) = evaluate(fake, against, ["label-accuracy"], "digits", conditional=True, floors=False)
        return found.value

    assert accuracy(fake) > 0.97 and accuracy(replace(fake, y=(fake.y + 1) % 10)) < 0.05
    with pytest.raises(ValueError, match="the classes of efficientnet-lite0 are not those of the data"):
        evaluate(fake, against, ["label-accuracy"], "efficientnet-lite0", conditional=True)


def test_the_floor_leaves_out_what_a_metric_chose_its_settings_by(test_digits: Reference) -> None:
    """Of the 10,000 training digits a sixth chooses Parzen's sigma."""
    held, rest = evaluation._held(test_digits, test_digits.real, 10**6, 0)
    assert len(held) == 10_000 - 10_000 // 6 and rest is None
    valid = evaluation._context(evaluation.extractor("pixels"), test_digits, test_digits.real, 0, False).valid
    assert not {row.tobytes() for row in valid.numpy()} & {row.tobytes() for row in held.x.numpy()}


def test_stacked_digits() -> None:
    x = open_data("digits", "test").x
    rows = torch.randint(len(x), (300, 3), generator=torch.Generator().manual_seed(0))
    stacked = Data("stacked", x[rows].squeeze(2))  # (300, 3, 28, 28)
    one = Data("one", x[:3].squeeze(1).expand(300, 3, 28, 28))
    found = {score.key: score for score in evaluate(stacked, Reference(stacked, "all"), ["stacked-modes"], "random")}
    assert 225 < found["stacked-modes"].value < 290 and found["stacked-modes"].details["kl_floor"] == 999 / 600
    found = values(evaluate(one, Reference(stacked, "all"), ["stacked-modes"], "random", floors=False))
    assert found["stacked-modes"] == 1 and found["stacked-kl"] == pytest.approx(np.log(1000))


class Labelled(torch.nn.Module):
    """A conditional generator that paints the label: row y is white, with a little noise."""

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = torch.full((len(z), 1, 8, 8), -1.0)
        x[torch.arange(len(z)), 0, y] = 1.0
        return (x + 0.1 * z.view(-1, 1, 8, 8)).clamp(-1, 1)


def test_conditional_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = partial(catalogue.classifier.classification_accuracy, steps=80)  # enough for a white row
    monkeypatch.setattr(catalogue.classifier, "classification_accuracy", brief)
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (800,), generator=generator)
    real = Labelled()(torch.randn(800, 64, generator=generator), y)
    data = Data("rows", ((real + 1) * 127.5).round().to(torch.uint8), y)
    model = Model(Labelled(), Normal(64), conditional=True)
    against = Reference(data, "all")
    labels = evaluation.conditions(against, 500, 3)
    assert torch.equal(labels, evaluation.conditions(against, 500, 3)) and labels.bincount().min() > 80
    fake = draw(model, 500, 3, labels)
    assert torch.equal(fake.y, labels) and fake.x.dtype == torch.uint8
    names = ["within-classes", "cas"]
    found = {each.key: each for each in evaluate(fake, against, names, "pixels", conditional=True)}
    assert found["cas"].value > 0.95 and found["cas"].floor > 0.95
    assert found["class-coverage"].value > 0.8 and len(found["class-coverage"].details["classes"]) == 4
    shuffled = replace(fake, y=labels.flip(0))
    worse = values(evaluate(shuffled, against, names, "pixels", conditional=True, floors=False))
    assert worse["cas"] < 0.6 and worse["intra-frechet"] > 5 * found["intra-frechet"].value
    with pytest.raises(ValueError, match="cas cannot be measured here: the samples have no labels"):
        evaluate(replace(fake, y=None), against, ["cas"], "pixels")


def test_samples_are_rounded_and_drawn_as_the_model_draws() -> None:
    torch.manual_seed(0)
    model = Model(
        torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Unflatten(1, (1, 8, 8))), Normal(3)
    )
    drawn = draw(model, 600, seed=5)
    expected = ((model.sample(600, seed=5) + 1) * 127.5).round().to(torch.uint8)
    assert (drawn.x.int() - expected.int()).abs().max() <= 1 and (drawn.x == expected).double().mean() > 0.999


def test_a_generator_that_diverged_is_told() -> None:
    class Broken(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.full((len(z), 1, 8, 8), float("nan"))

    with pytest.raises(ValueError, match="100 of 100 samples hold NaN or infinity: the generator diverged"):
        draw(Model(Broken(), Normal(3)), 100)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny = {"generator.widths": [16], "discriminator.widths": [16]}
    api.train("digits[:2000]", "mlp", run=folder, images=640, device="cpu", changes=tiny)
    return folder


METRICS_OF_THE_RUN = ("frechet", "neighbours", "classes", "memorisation")


def test_a_run_keeps_its_scores(run: Path) -> None:
    found = api.evaluate(run, metrics=METRICS_OF_THE_RUN, n=400, device="cpu")
    assert scores.read(run) == found and {score.images for score in found} == {640}
    assert "Scores" in (run / "report.html").read_text(encoding="utf-8")
    again = api.evaluate(run, metrics=["frechet"], n=400, device="cpu")
    assert again[0] == found[0]  # the same number, to the last bit
    kept = scores.read(run)
    assert len(kept) == len(found) and kept[-1] == found[0]
    with Image.open(run / "evaluation" / "nearest.png") as picture:
        assert picture.size == (4 * (2 * 28 + 4 + 2) - 2, 4 * (28 + 4 + 2) - 2)


def test_scores_of_another_version_are_left_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps([{"key": "frechet"}]))
    assert scores.read(tmp_path) == []
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(ValueError, match="delete it and evaluate again"):
        scores.read(tmp_path)


def pictures(folder: Path, x: torch.Tensor, suffix: str) -> Path:
    folder.mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:04d}{suffix}")
    return folder


def test_samples_of_another_program(tmp_path: Path) -> None:
    """A folder of pictures, an .npz file and the array itself are the same samples, of the same scores."""
    x = open_data("digits").x[:200]
    np.savez(tmp_path / "x.npz", x=x.numpy())
    folder = pictures(tmp_path / "pictures", x, ".png")
    sources = (str(folder), tmp_path / "x.npz", x)
    found = [api.evaluate(fake=fake, data="digits", metrics=["frechet"], device="cpu") for fake in sources]
    assert found[0] == found[1] == found[2] and found[0][0].images is None
    few = api.evaluate(fake=x, data="digits", metrics=["frechet"], n=100, device="cpu")[0]
    assert few.protocol.n_fake == 100


def test_lossy_samples_are_flagged(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", open_data("digits").x[:100], ".jpg")
    found = api.evaluate(fake=folder, data="digits", metrics=["frechet"], device="cpu")[0]
    assert any("lossy files (JPEG)" in flag for flag in found.flags)
    assert any("100 samples are few" in flag for flag in found.flags)


def test_real_examples_as_samples_are_flagged() -> None:
    found = api.evaluate(fake=open_data("digits", "test"), data="digits", metrics=["frechet"], n=2000, floors=False)[0]
    assert "the samples are the real examples themselves" in found.flags and found.value < 1e-8


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give a run to draw samples from, or the samples themselves"),
        ({"fake": torch.zeros(60, 1, 28, 28)}, "--fake needs --real DATA"),
        ({"fake": torch.zeros(60, 1, 28, 28, dtype=torch.uint8)[:9], "data": "digits"}, "9 samples: too few"),
        ({"fake": torch.zeros(60, 3, 8, 8, dtype=torch.uint8), "data": "digits"}, "samples are 3 x 8 x 8, the real"),
        ({"fake": torch.zeros(60, 1, 28, 28), "data": "digits"}, "give both as bytes"),
        ({"fake": torch.full((60, 1, 28, 28), float("nan")), "data": "digits"}, "NaN"),
        ({"fake": "digits", "data": "digits"}, "a data set's name, not samples"),
        ({"fake": "nowhere/", "data": "digits"}, "nowhere"),
        ({"fake": torch.zeros(60, 1, 28, 28, dtype=torch.uint8), "data": "digits", "n": 2}, "n=2: too few"),
    ],
)
def test_mistakes(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        api.evaluate(**given)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path.name)):
        api.evaluate(fake=tmp_path, data="digits")


def test_compare(run: Path, tmp_path: Path) -> None:
    found = scores.read(run) or api.evaluate(run, metrics=["frechet", "neighbours"], n=400, device="cpu")
    other = organza.run.Run.create(tmp_path / "other", {"recipe": "none"})
    with pytest.raises(ValueError, match="other has no scores yet: organza evaluate"):
        api.compare([run, other.path])
    scores.keep(other.path, [replace(found[0], value=1.0)], torch.empty(0), None)
    both = api.compare([run, other.path])
    assert both[found[0].key][1].value == 1.0 and both[found[-1].key][1] is None
    with pytest.raises(ValueError, match="no run has a score 'kernl'"):
        api.compare([run, other.path], ["kernl"])
