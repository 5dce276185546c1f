"""organza.replay: what the pool keeps and shows, and that a state continues exactly."""

import re

import pytest
import torch
from torch import nn

from organza.game import Game
from organza.moves import Consensus, Simultaneous, Unrolled
from organza.prior import Normal
from organza.replay import ImagePool
from organza.round import Draw
from organza.training import fit


def draw(seed: int, n: int, rows: slice | None = None) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), n, rows)


def numbered(first: int, n: int) -> torch.Tensor:
    return torch.arange(first, first + n).float().view(n, 1, 1, 1).expand(n, 2, 3, 3).clone()


def test_while_there_is_room_new_fakes_are_kept_and_shown() -> None:
    pool = ImagePool(5)
    for first, kept in ((0, 3), (3, 5)):
        fake = numbered(first, 3)[: kept - first]
        assert torch.equal(pool(fake, draw(first, len(fake))), fake) and len(pool.fakes) == kept
    assert torch.equal(pool.fakes, numbered(0, 5))


def test_then_each_second_shown_is_an_old_one_that_leaves() -> None:
    pool = ImagePool(20)
    pool(numbered(0, 20), draw(0, 20))
    old, waits = 0, []
    for step in range(400):
        fake, before = numbered(20 + 4 * step, 4).requires_grad_(), pool.fakes.flatten(1)[:, 0].tolist()
        shown = pool(fake, draw(step, 4))
        assert not shown.requires_grad and not pool.fakes.requires_grad
        numbers = shown.flatten(1)[:, 0].tolist()
        fresh = fake.flatten(1)[:, 0].tolist()
        old += sum(a != b for a, b in zip(numbers, fresh, strict=True))
        waits += [b - a for a, b in zip(numbers, fresh, strict=True) if a != b]
        after = pool.fakes.flatten(1)[:, 0].tolist()
        assert sorted(before + fresh) == sorted(after + numbers), "what is shown and what is kept is all there was"
    assert abs(old / 1600 - 0.5) < 3 * (0.25 / 1600) ** 0.5
    assert sum(waits) / len(waits) == pytest.approx(40, rel=0.15)  # geometric: a place changes at 1 in 2 size


def test_it_depends_on_the_chance_of_the_rows_alone_and_any_cut_of_the_batch_is_the_same() -> None:
    whole, parts = ImagePool(6), ImagePool(6)
    for step in range(9):
        fake = numbered(8 * step, 8)
        shown = whole(fake, draw(step, 8))
        halves = [parts(fake[rows], draw(step, 8, rows)) for rows in (slice(0, 4), slice(4, 8))]
        assert torch.equal(torch.cat(halves), shown) and torch.equal(parts.fakes, whole.fakes)


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_a_saved_pool_goes_on_in_a_fresh_one(kept: int) -> None:
    one, other = ImagePool(4), ImagePool(4)
    other(numbered(50, 3), draw(9, 3))
    if kept:
        one(numbered(0, kept), draw(0, kept))
    state = {name: value.clone() for name, value in one.state_dict().items()}
    other.load_state_dict(state)
    for step in range(5):
        fake = numbered(10 * step + 10, 3)
        assert torch.equal(one(fake, draw(step, 3)), other(fake, draw(step, 3)))
    assert torch.equal(one.fakes, other.fakes)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size=0.*1 or more"):
        ImagePool(0)


def test_a_term_that_asks_for_z_does_not_go_with_old_fakes(organza, tmp_path):
    run = tmp_path / "run"
    pool = 'replay={"kind": "ImagePool", "size": 8}'
    code, _, err = organza("train", "digits", "--recipe", "quick", "--images", "64", "--set", pool, "--run", run)
    assert code == 2
    assert re.search(r"replay=ImagePool\(\.\.\.\): Responsibilities asks D for the z .* leave out one of the two", err)
    assert not run.exists()


@pytest.mark.parametrize("moves", [Simultaneous(), Consensus(), Unrolled()], ids=repr)
def test_moves_that_learn_through_what_d_is_shown_need_new_fakes(moves):
    torch.manual_seed(0)
    game = Game(nn.Linear(2, 2), nn.Linear(2, 1), Normal(2), replay=ImagePool(8))
    with pytest.raises(ValueError, match=rf"replay=ImagePool: with moves={type(moves).__name__} G learns through"):
        fit(game, torch.randn(20, 2), images=8, batch=4, moves=moves, device="cpu")


def test_that_is_told_before_anything_is_written(organza, tmp_path):
    words = ("--set", "replay=ImagePool", "--set", "training.moves=Simultaneous")
    code, _, said = organza("train", "--recipe", "tiny", "--images", "128", *words, "--run", "run")
    assert code == 2 and "replay=ImagePool: with moves=Simultaneous" in said and not (tmp_path / "run").exists()
