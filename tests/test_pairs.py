"""organza.metrics.pairs: closed forms, identities, a reference implementation, and what D says of mismatched pairs."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from organza.data import Data
from organza.evaluation import Reference, evaluate
from organza.metrics.pairs import high_frequency, l1, matched_pairs, psnr, ssim
from organza.values import Values


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_images() -> None:
    x = random(3, 2, 16, 20)
    assert not l1(x, x).any() and high_frequency(x, x) == 0
    torch.testing.assert_close(ssim(x, x), torch.ones(3).double())
    assert psnr(x, x).tolist() == pytest.approx([10 * math.log10(12 * 255**2)] * 3)


def test_a_shift_of_all_values() -> None:
    """|x - t| = c; 10 log10 of 1 / c^2; and between constants a, b only the means count."""
    x = random(2, 1, 16, 16) / 2
    torch.testing.assert_close(l1(x + 0.25, x), torch.full((2,), 0.25).double())
    torch.testing.assert_close(psnr(x + 0.25, x), torch.full((2,), -20 * math.log10(0.25)).double())
    a, b = torch.full((1, 3, 12, 11), 0.2).double(), torch.full((1, 3, 12, 11), 0.7).double()
    assert ssim(a, b).item() == pytest.approx((2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4))
    assert high_frequency(a, b) == 0 and high_frequency(a, x) == math.inf


def test_ssim_is_symmetric_at_most_one_and_negative_for_a_negative() -> None:
    x, t = random(4, 1, 24, 24), random(4, 1, 24, 24, seed=1)
    torch.testing.assert_close(ssim(x, t), ssim(t, x))
    assert ssim(x, t).max() < 1 and ssim(x, 1 - x).max() < 0


def test_bytes_and_parts_are_the_same() -> None:
    x, t = ((random(300, 1, 12, 12, seed=s) * 255).round() for s in (0, 1))
    for measure in (l1, psnr, ssim):
        whole = measure(x.to(torch.uint8), t.to(torch.uint8))
        assert whole.shape == (300,)
        torch.testing.assert_close(whole[290:], measure(x[290:] / 255, t[290:] / 255))
    assert high_frequency(x.to(torch.uint8), t.to(torch.uint8)) == pytest.approx(high_frequency(x / 255, t / 255))


@pytest.mark.parametrize("kind", ["floats", "16 bits"])
def test_scores_of_pairs_are_of_values_in_0_to_1_whatever_the_data_is(kind: str) -> None:
    """The same images as bytes, as floats and in 16 bits: the same scores."""
    x, t = ((random(60, 1, 12, 12, seed=s) * 255).round() for s in (0, 1))
    x[0, 0, 0, :2] = t[0, 0, 0, :2] = torch.tensor([0.0, 255.0])
    y = torch.zeros(60, 1, 12, 12, dtype=torch.uint8)

    def scores(x: torch.Tensor, t: torch.Tensor) -> dict[str, float]:
        sides = [Data(name, each, y, values=Values.of(each)) for name, each in (("x", x), ("t", t))]
        against = Reference(sides[1], "all")
        found = evaluate(sides[0], against, ["pairs"], "pixels", conditional=True, floors=False)
        return {each.key: each.value for each in found}

    other = [each.float() / 255 if kind == "floats" else (each * 257).to(torch.uint16) for each in (x, t)]
    wanted = scores(x.to(torch.uint8), t.to(torch.uint8))
    assert scores(*other) == pytest.approx(wanted, rel=1e-4) and 0 < wanted["l1"] < 1


def test_ssim_and_psnr_are_those_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x = random(3, 3, 32, 40)
    t = (x + 0.1 * random(3, 3, 32, 40, seed=1)).clamp(0, 1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for i, (a, b) in enumerate(zip(x.numpy(), t.numpy(), strict=True)):
        assert ssim(x, t)[i].item() == pytest.approx(metrics.structural_similarity(a, b, channel_axis=0, **settings))
        assert psnr(x, t)[i].item() == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=1.0))


def test_high_frequency_sees_blur_and_no_shift_and_scales_with_contrast() -> None:
    x = random(5, 1, 32, 32)
    blurred = avg_pool2d(x, 3, 1, 1)
    assert high_frequency(blurred, x) > 1 and high_frequency(x.roll(3, 3), x) == pytest.approx(0, abs=1e-9)
    assert high_frequency(x / 2, x) == pytest.approx(math.log(4)) == high_frequency(x, x / 2)
    ramp = torch.arange(32).double()
    for cycles, seen in ((7, False), (8, False), (9, True), (16, True)):  # of 32: beyond 8 is high
        wave = (2 * math.pi * cycles * ramp / 32).cos().expand(1, 1, 32, 32)
        assert (high_frequency(wave, wave + x[:1]) < 5) == seen


class Comparing(nn.Module):
    """D(x, y): how near y is to x, a logit a pixel; in training it would say nothing."""

    def forward(self, x, y):
        return -(x - y).square().sum(1) * (0 if self.training else 1)


def test_a_d_that_compares_knows_which_condition_belongs_to_an_example() -> None:
    x = random(50, 2, 4, 4)
    D = Comparing()
    assert matched_pairs(D, x, x + 0.01, batch=7) == (1.0, 0.0) and D.training
    share, error = matched_pairs(D, x, random(50, 2, 4, 4, seed=1))
    assert abs(share - 0.5) < 4 * error and error == pytest.approx((share * (1 - share) / 50) ** 0.5)
    assert matched_pairs(D, x[:2], x[:2].flip(0)) == (0.0, 0.0), "of two, the other is the only one"
    assert matched_pairs(lambda_ignoring(), x, x)[0] == 0.0, "a tie is no preference"
    with pytest.raises(ValueError, match="2 or more"):
        matched_pairs(D, x[:1], x[:1])


def lambda_ignoring() -> nn.Module:
    class Ignoring(nn.Module):
        def forward(self, x, y):
            return x.sum((1, 2, 3))

    return Ignoring()


def by(x: torch.Tensor, y: torch.Tensor, name: str = "pairs") -> Data:
    return Data(name, (x * 255).to(torch.uint8), (y * 255).to(torch.uint8))


def test_pairs_some_of_which_are_equal_are_paired() -> None:
    """Two drawings in three were left as they are: whichever are looked at first."""
    x, y = random(60, 1, 16, 16), random(60, 1, 16, 16, seed=1)
    real = by(x, torch.where(torch.arange(60).view(-1, 1, 1, 1) % 3 > 0, x, y))
    for seed in range(4):
        found = evaluate(real, Reference(real, "all"), ["l1"], "pixels", seed, conditional=True)
        assert found[0].value == 0


def test_the_catalogue_measures_pairs_and_only_pairs() -> None:
    x, y = random(60, 1, 16, 16), random(60, 1, 16, 16, seed=1)
    real, fake = by(x, y), by((x + 0.05).clamp(max=1), y)
    found = {s.key: s for s in evaluate(fake, Reference(real, "all"), ["pairs"], "pixels", conditional=True)}
    assert list(found) == ["l1", "psnr", "ssim", "high-frequency"]
    assert found["l1"].value == pytest.approx(l1(fake.x, real.x).mean().item()) and found["l1"].floor is None
    assert found["psnr"].error == pytest.approx(psnr(fake.x, real.x).std().item() / 60**0.5)
    for other, said in (
        (by(x, y.flip(0)), "not made from the conditions of the real examples"),
        (by(x[:50], y[:50]), "not made from the conditions"),
        (Data("s", fake.x), "not made from images"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate(other, Reference(real, "all"), ["ssim"], "pixels", conditional=True)
    with pytest.raises(ValueError, match="unpaired"):
        evaluate(by(x, x), Reference(by(x, x), "all"), ["ssim"], "pixels", conditional=True)
    with pytest.raises(ValueError, match="no labels"):
        evaluate(fake, Reference(real, "all"), ["cas"], "pixels", conditional=True)
