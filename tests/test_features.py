"""Features: extracted once, the same whatever the batch, kept by the digest of all they depend on."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from organza import evaluation
from organza.data import Data, open_data
from organza.evaluation import evaluate, reference
from organza.metrics import digits
from organza.metrics.features import NAMES, Extractor, _RandomConvolutions, extract, extractor, kept, matrix


@pytest.fixture
def images() -> torch.Tensor:
    return open_data("digits", "test").x[:120]


@pytest.mark.parametrize("name", ["digits", "random", "pixels"])
def test_any_batch_gives_the_same(name: str, images: torch.Tensor) -> None:
    whole = extract(extractor(name), images, batch=1000)
    for batch in (1, 7, 120):
        parts = extract(extractor(name), images, batch=batch)
        torch.testing.assert_close(parts.embeddings, whole.embeddings, rtol=1e-5, atol=1e-5)
        assert (parts.logits is None) == (whole.logits is None) == (name != "digits")


def test_the_judge_of_digits() -> None:
    """It is at most 1 MB, pinned, and knows the built-in test digits; the accuracy on MNIST is tested below."""
    assert digits.WEIGHTS.stat().st_size <= 1_000_000
    assert hashlib.sha256(digits.WEIGHTS.read_bytes()).hexdigest() == digits.SHA256
    data = open_data("digits", "test")
    found = extract(extractor("digits"), data.x[::4])
    assert float((found.logits.argmax(1) == data.y[::4]).double().mean()) >= 0.99
    assert found.embeddings.shape == (500, 64)


@pytest.mark.slow  # the file is pinned, and the test above knows it by a part of these digits
def test_the_judge_of_digits_on_mnist(organza_data: Path) -> None:
    data = open_data("mnist", "test")
    found = extract(extractor("digits"), data.x, batch=500)
    assert float((found.logits.argmax(1) == data.y).double().mean()) >= 0.994


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="is not the file of this version"):
        extractor("digits")


def test_folding_keeps_the_function() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, x = digits.DigitsNet(norm=True), torch.randn(16, 1, 28, 28)
        network.train()(x)  # so that the running statistics are not those of the start
        network.eval()
        for one, other in zip(network(x), network.folded()(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (4, 9, 9), (2, 64, 64)])
def test_random_features_take_any_shape(shape: tuple[int, ...]) -> None:
    x = torch.randint(0, 256, (5, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = extract(extractor("random"), x).embeddings
    assert found.shape == (5, 448) and len(found.unique(dim=0)) == 5


def test_random_features_are_the_same_for_ever() -> None:
    """Their weights are a function of nothing, and the same bits on every machine."""
    before = torch.random.get_rng_state()
    assert extractor("random").sha256 == "567732543bd82c1d6d6d044f49ea584efc77117b077dc58f7c637505b85faa86"
    assert torch.equal(before, torch.random.get_rng_state())
    for weight in _RandomConvolutions(3).weights:
        assert float(weight.std()) == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.03)


def test_pixels() -> None:
    x = torch.tensor([[[[0, 255]]], [[[51, 102]]]], dtype=torch.uint8)
    torch.testing.assert_close(extract(extractor("pixels"), x).embeddings, torch.tensor([[-1, 1], [-0.6, -0.2]]))
    points = torch.randn(4, 3)
    assert torch.equal(extract(extractor("pixels"), points).embeddings, points)


class Own(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.scale * x[:, :, ::7, ::7], x.flatten(1)[:, :3]


def test_a_network_of_ones_own(images: torch.Tensor) -> None:
    sees = extractor(Own())
    found = extract(sees, images)
    assert (sees.name, sees.short) == ("Own", "FD-Own")
    assert found.embeddings.shape == (120, 16) and found.logits.shape == (120, 3)
    assert float(found.embeddings.min()) >= -1 and float(found.embeddings.max()) <= 1
    assert sees.sha256 != extractor(Own(2.0)).sha256
    small, large = (nn.Sequential(nn.Upsample(side), nn.Flatten()) for side in (14, 56))  # without a weight
    assert extractor(small).sha256 != extractor(large).sha256


@pytest.fixture
def counted() -> tuple[Extractor, list[int]]:
    """A built-in extractor, and how many examples it has seen."""
    sees, seen = extractor("random"), []

    def count(x: torch.Tensor) -> tuple[torch.Tensor, None]:
        seen.extend([1] * len(x))
        return x.flatten(1)[:, 300:310].float(), None

    return replace(sees, see=count), seen


def test_real_features_are_kept(images, counted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path))
    sees, seen = counted
    first = kept(sees, images, "digest")
    again = kept(sees, images, "digest")
    assert len(seen) == 120 and torch.equal(first.embeddings, again.embeddings)
    kept(sees, images, "other data")
    kept(replace(sees, resize="otherwise"), images, "digest")
    kept(replace(sees, sha256="0" * 64), images, "digest")
    assert len(seen) == 4 * 120
    for path in (tmp_path / "features").iterdir():
        path.write_bytes(path.read_bytes()[:50])  # damaged: made again
    assert torch.equal(kept(sees, images, "digest").embeddings, first.embeddings) and len(seen) == 5 * 120


def test_a_cache_that_cannot_be_written_is_no_mistake(
    images, counted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path / "file"))
    assert len(kept(counted[0], images, "digest").embeddings) == 120


def test_a_network_of_ones_own_is_never_kept(images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its weights do not tell what it computes: two poolings have none, and are of one class."""
    monkeypatch.setenv("ORGANZA_CACHE", str(tmp_path))
    mean, most = (nn.Sequential(pool(7), nn.Flatten()) for pool in (nn.AvgPool2d, nn.MaxPool2d))
    one, other = (kept(extractor(network), images, "digest").embeddings for network in (mean, most))
    assert bool((other > one).any()) and not list(tmp_path.iterdir())
    assert mean.training  # as it was


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "digits",
            (3, 28, 28),
            r"digits sees examples of \(1, 28, 28\), these are \(3, 28, 28\); use --features random",
        ),
        ("digits", (1, 32, 32), "--features random"),
        ("digits", (2,), "--features pixels"),
        ("random", (2,), r"random sees images, these examples are \(2,\); use --features pixels"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        extract(extractor(name), torch.zeros(3, *shape))


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=f"there are digits.*{NAMES[-1]}; did you mean digits"):
        extractor("digit")


def test_what_is_no_matrix_of_features() -> None:
    for bad, said in (
        (torch.zeros(3), "got .3,. of torch.float32; a matrix"),
        (torch.zeros(3, 2, dtype=torch.int64), "a matrix .N, d. of floats"),
        ([[1.0]], "got list"),
        (torch.zeros(1, 2), "at least 2 examples"),
        (torch.zeros(4, 0), "at least 2 examples"),
        (torch.tensor([[1.0], [float("nan")], [float("inf")]]), "2 of 3 examples hold NaN or infinity, first 1"),
    ):
        with pytest.raises(ValueError, match=said):
            matrix(bad)
    x = torch.zeros(2, 2)
    assert matrix(x) is x


def test_a_network_that_gives_nan_is_named(images: torch.Tensor) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2] / 0

    with pytest.raises(ValueError, match="features Broken: 120 of 120 examples hold NaN"):
        extract(extractor(Broken()), images)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each extraction of features was of."""
    seen: list[int] = []
    extract = evaluation.extract

    def counted(sees: object, x: torch.Tensor, **options: object) -> object:
        seen.append(len(x))
        return extract(sees, x, **options)

    monkeypatch.setattr(evaluation, "extract", counted)
    monkeypatch.setattr(evaluation, "kept", lambda sees, x, *_: counted(sees, x))
    return seen


def test_metrics_of_the_values_make_no_features(looks: list[int]) -> None:
    """And lack none of the flags."""
    against = reference("digits[:600]")
    against = replace(against, real=against.real.rows(torch.arange(300)))
    fake = Data("samples", against.real.x[:1].expand(100, 1, 28, 28))
    found = evaluate(fake, against, ["memorisation"], "random")
    assert not looks and found[0].protocol.features == "pixels"
    assert "all samples are the same: no number says much" in found[0].flags


def test_what_cannot_be_measured_is_told_before_features_are_made(looks: list[int]) -> None:
    fake = Data("samples", open_data("digits").x[:300])
    with pytest.raises(ValueError, match="features random know no classes"):
        evaluate(fake, reference("digits"), ["frechet", "classes"], "random")
    assert sum(looks) <= 4
