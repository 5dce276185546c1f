"""What the loop owes every game, by numbers that it did not make: order, chance, rates, bounds, averages, time."""

from pathlib import Path

import pytest
import torch
from toys import points, toy

from organza.moves import Alternating
from organza.optimizer import SGD, Adam
from organza.penalty import Clip
from organza.run import Run
from organza.schedule import Linear
from organza.training import Diverged, State, Training, fit


def state(seed: int = 0, made=None, **settings) -> State:
    torch.manual_seed(0)
    made = made or toy()
    return State(made.game, Training(seed=seed, **settings), points(), torch.device("cpu"))


def test_each_turn_sees_the_next_examples_and_noise_of_its_own() -> None:
    """D's examples are all of them once an epoch; no two turns, players or seeds share a z; terms know the time."""
    one, seen, noise = state(batch=4), [], []
    for _ in range(5):
        (batch,) = one.stream("discriminator")
        assert (batch.images, batch.step) == (one.images, one.steps)
        seen.append(batch.x)
        noise.append(batch.draw(one.game.prior.draw))
        one.images += 4  # as after a move of D
    assert sorted(torch.cat(seen).tolist()) == sorted(points().x.tolist())
    (mine,) = one.stream("generator")
    noise.append(mine.draw(one.game.prior.draw))
    one.steps += 1
    (next_,) = one.stream("generator")
    noise.append(next_.draw(one.game.prior.draw))
    assert not torch.equal(mine.x, next_.x) and not set(map(tuple, mine.x.tolist())) & set(map(tuple, next_.x.tolist()))
    other = state(1, batch=4)
    (batch,) = other.stream("discriminator")
    noise.append(batch.draw(other.game.prior.draw))
    assert not torch.equal(batch.x, seen[0])
    assert len({z for each in noise for z in map(tuple, each.tolist())}) == 4 * len(noise)


def test_optimizers_follow_their_schedules() -> None:
    """Each move at the rate, and the momentum, of the images that D has been shown by then."""
    down, up = Linear(1e-2, 0.0, 64), Linear(0.0, 0.9, 64)
    played = state(batch=8, moves=Alternating(1), generator_optimizer=SGD(down, up), discriminator_optimizer=Adam(down))
    for shown in (8, 16, 24):
        played.training.moves(played, played.stream)
        assert played.images == shown
        assert played.optimizers["discriminator"].param_groups[0]["lr"] == pytest.approx(down(shown - 8))
        group = played.optimizers["generator"].param_groups[0]
        assert (group["momentum"], 1 - group["dampening"]) == pytest.approx((up(shown), down(shown)))


def test_constraints_hold_after_each_move_and_for_whom_they_are() -> None:
    played = state(made=toy(constraints=[Clip(0.05)]), batch=8)
    for _ in range(3):
        played.training.moves(played, played.stream)
        assert all(float(w.detach().abs().max()) < 0.0501 for w in played.game.discriminator.parameters())
    assert any(float(w.detach().abs().max()) > 0.1 for w in played.game.generator.parameters())


def test_the_average_forgets_by_images() -> None:
    """With k = 2 and batches of 8 each move of G comes 16 images after the last: half of the half-life of 32."""
    played = state(batch=8, moves=Alternating(2), half_life=32, generator_optimizer=SGD(0.5))
    told = [w.detach().clone() for w in played.game.generator.parameters()]
    for _ in range(4):
        played.training.moves(played, played.stream)
        told = [m.lerp(w.detach(), 1 - 0.5**0.5) for m, w in zip(told, played.game.generator.parameters(), strict=True)]
    for mean, kept in zip(told, played.average.parameters(), strict=True):
        torch.testing.assert_close(kept.detach(), mean)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, True), (1e9, False)])
def test_checkpoints_are_made_by_the_clock(tmp_path: Path, seconds: float, kept: bool) -> None:
    """A run that says nothing of checkpoints is saved every so many seconds, and so survives a kill."""
    made, seen = toy(), []
    fit(
        made.game,
        points(),
        Training(images=64, batch=8, log_every=64, sample_every=0),
        run=tmp_path / "run",
        device="cpu",
        save_seconds=seconds,
        watch=lambda now: seen.append(Run(tmp_path / "run").checkpoints()),
    )
    assert any(0 < images < 64 for found in seen for images in found) == kept
    assert Run(tmp_path / "run").checkpoints()[-1] == 64


def test_a_mean_that_is_not_finite_is_named() -> None:
    played = state(batch=8)
    played.sums, played.counts = {"discriminator/objective": torch.tensor(float("nan"))}, {"discriminator/objective": 1}
    with pytest.raises(Diverged, match="discriminator/objective became nan before image 0"):
        played.means()
