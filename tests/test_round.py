"""organza.round: stable seeds, rows of one global draw, verdicts and slopes."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from organza.round import Draw, Round, Verdict, key


def test_keys_are_the_same_on_every_machine():
    assert key(0) == 2631537505891389924
    assert key(7, "order", "discriminator", 2**40) == 8727950623710441690


def test_keys_are_seeds_and_differ():
    keys = {key(seed, images, player) for seed in range(20) for images in range(20) for player in ("a", "b")}
    assert len(keys) == 800
    assert all(0 <= k < 2**63 for k in keys)
    assert len({key(1, 2), key(12), key("1", 2), key(1, "2"), key((1, 2)), key(2, 1)}) == 6
    assert 0.45 < sum(k >> 62 for k in keys) / 800 < 0.55


@pytest.mark.parametrize("cuts", [(0, 6), (0, 3, 6), (0, 1, 3, 6)])
def test_the_rows_of_micro_batches_make_the_global_draw(cuts):
    def draws(rows=None):
        return Draw(torch.Generator().manual_seed(5), 6, rows)

    def chance(draw):  # two draws of a turn, of different shapes
        return draw(lambda n, g: torch.rand(n, 2, generator=g)), draw(lambda n, g: torch.randn(n, generator=g))

    parts = [draws(slice(*ends)) for ends in pairwise(cuts)]
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    whole = chance(draws())
    for wanted, got in zip(whole, zip(*map(chance, parts), strict=True), strict=True):
        assert torch.equal(torch.cat(got), wanted)
    assert draws().share == 1.0


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2), (5, 4, 3), (5, 1, 3), (1, 1), (1,)])
def test_a_verdict_reads_what_d_returned(shape):
    """(B, 1) becomes (B,); a vector, patches and packs stay as they are."""
    output = torch.randn(shape)
    verdict = Verdict.of(output)
    assert verdict.logits.shape == (shape[:1] if shape[1:] == (1,) else shape)
    assert torch.equal(verdict.logits.flatten(), output.flatten())
    assert not verdict.heads
    heads = {"classes": torch.randn(shape[0], 7)}
    assert Verdict.of(Verdict(output, heads)).heads is heads
    assert torch.equal(Verdict.of(Verdict(output, heads)).logits, verdict.logits)


@pytest.mark.parametrize("output", [None, 0.5, [torch.zeros(2)], (torch.zeros(2), torch.zeros(2)), Verdict(None)])
def test_a_verdict_refuses_what_is_no_tensor(output):
    with pytest.raises(ValueError, match="must return a tensor of logits or a Verdict"):
        Verdict.of(output)


def test_halves():
    real, fake = (Verdict(torch.randn(4, 2, 2), {"features": torch.randn(4, 3)}) for _ in range(2))
    joined = Verdict(
        torch.cat([real.logits, fake.logits]), {"features": torch.cat([real.heads["features"], fake.heads["features"]])}
    )
    for half, wanted in zip(joined.halves(), (real, fake), strict=True):
        assert torch.equal(half.logits, wanted.logits)
        assert torch.equal(half.heads["features"], wanted.heads["features"])


def seen(judge, real, fake, **others):
    context = SimpleNamespace(y=None, z=fake, critic=judge, generator=nn.Identity(), draw=None, images=0, step=0)
    return Round(real=real, fake=fake, **{**vars(context), **others})


def test_slopes_are_kept_and_differentiable():
    real, fake = torch.randn(2, 4, 3, dtype=torch.float64).unbind()
    real.requires_grad_(), fake.requires_grad_()
    calls = []

    def judge(x):
        calls.append(x)
        return Verdict(x.pow(3).sum(1))

    round = seen(judge, real, fake, real_verdict=judge(real), fake_verdict=judge(fake))
    assert torch.equal(round.slope("real"), 3 * real**2)
    assert round.slope("real") is round.slope("real")
    assert set(round.slopes) == {"real"}
    (second,) = torch.autograd.grad(round.slope("fake").sum(), fake)
    assert torch.equal(second, 6 * fake)
    assert len(calls) == 2


def test_a_slope_on_the_real_needs_the_real():
    fake = torch.ones(2, 1, requires_grad=True)
    round = seen(None, torch.ones(2, 1), fake, real_verdict=None, fake_verdict=Verdict(fake.sum(1)))
    assert torch.equal(round.slope("fake"), torch.ones(2, 1))
    with pytest.raises(AssertionError, match="paired"):
        round.slope("real")
