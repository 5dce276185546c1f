"""Exact resume of every recipe: cut after any round, it goes on to the bits of the run that was never stopped."""

from __future__ import annotations

import pytest
import torch
from test_recipes import OTHERS, trainable
from test_seam import copy, differing

import organza as oz
from organza.data import open_data
from organza.moves import Alternating
from organza.plan import Plan
from organza.recipes import RECIPES, reduced
from organza.training import State

pytestmark = pytest.mark.usefixtures("as_trained")

ROUNDS = 12


def built(plan: Plan, data, device: torch.device) -> State:
    return State(plan.game(), plan.play(), data, device)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_cut_at_every_step(name: str, device: torch.device) -> None:
    """With k = 2, two micro-batches a turn, and epochs that wrap; two rounds from every cut stand for the rest."""
    trainable(name)
    data = open_data(OTHERS.get(name, "digits[:40]"))
    plan = reduced(RECIPES[name](data.spec, 6400))
    changes = {"training.accumulate": 2, "training.sample_every": 0, "training.batch": max(2, plan.training["batch"])}
    if isinstance(plan.play().moves, Alternating):
        changes["training.moves.k"] = 2
    plan = plan.set(changes)
    uncut, saved, lines = built(plan, data, device), {}, {}
    for step in range(1, ROUNDS + 1):
        uncut.training.moves(uncut, uncut.stream)
        lines[step] = uncut.means()
        saved[step] = copy(uncut)
    assert uncut.images > len(data), "the run must wrap around an epoch's end"
    for cut in range(1, ROUNDS):
        state = built(plan, data, device)
        state.restore(*saved[cut])
        for step in range(cut + 1, min(cut + 2, ROUNDS) + 1):
            torch.default_generator.manual_seed(step)
            state.training.moves(state, state.stream)
            assert state.means() == lines[step], f"cut at {cut}: another line of the log at {step}"
        groups, record = copy(state)
        assert differing(groups, saved[step][0]) == [], f"cut at {cut}"
        assert record == saved[step][1], f"cut at {cut}"


def test_data_that_was_an_array_is_asked_for(tmp_path):
    x = torch.rand(64, 1, 8, 8) * 2 - 1
    small = {"generator.widths": [4], "discriminator.widths": [4]}
    oz.train(x, "mlp", run=tmp_path / "run", images=128, device="cpu", changes=small)
    with pytest.raises(ValueError, match=r"run was trained on array: .*; give the data again, by --data$"):
        oz.resume(tmp_path / "run", images=256)
    assert oz.resume(tmp_path / "run", images=256, data=x, device="cpu") is not None
