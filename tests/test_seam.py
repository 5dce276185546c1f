"""Proof of the seam: every toy game of `toys`, however it is played, goes through the one State and the one `fit`.

Whatever is asked of one is asked of all: cut anywhere and continued, it ends in the same bits; each player moves
itself alone; a batch cut into micro-batches is the same batch. No test asks which toy it has.
"""

import ast
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys_conditional import TOYS

import organza
from organza import moves, objective, optimizer, penalty, prior, schedule, term
from organza.data import Data
from organza.game import Game
from organza.moves import Moves, Simultaneous
from organza.objective import Objective, Wasserstein
from organza.optimizer import SGD, Adam, Optimizer
from organza.prior import Normal, Prior
from organza.run import Run
from organza.schedule import Schedule
from organza.term import Term
from organza.training import State, Training, fit

pytestmark = pytest.mark.usefixtures("as_trained")

ROUNDS, BY_FILE, LOG = 12, 5, 4  # the run's length, the cut that goes through files, the rounds a line of the log
every_toy = pytest.mark.parametrize("name", TOYS)


@pytest.fixture(autouse=True)
def fast():
    """No second thread, for which nets this small only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(name, seed=0, kind=State, device="cpu", **changes):
    """A new state of the toy; the seed is of its networks' weights alone."""
    torch.default_generator.manual_seed(seed)
    toy = TOYS[name]()
    return kind(toy.game, replace(toy.training, **changes), toy.data, torch.device(device))


def turn(state, step):
    """Play one round; return the line of the log that is due after it, if one is."""
    state.training.moves(state, state.stream)
    return state.means() if step % LOG == 0 else None


def copy(state):
    """All that a checkpoint holds."""
    groups = {g: {n: x.detach().clone() for n, x in tensors.items()} for g, tensors in state.tensors().items()}
    return groups, json.loads(json.dumps(state.record()))


def flat(groups):
    return {f"{group}.{name}": x for group, tensors in groups.items() for name, x in tensors.items()}


def differing(one, other):
    """The names of tensors that are not bit-equal in the two."""
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    return [n for n, x in one.items() if x.dtype != other[n].dtype or not torch.equal(x, other[n])]


def disturb(seed):
    """Move every global generator elsewhere, as other code of the same process may."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed is 100 times as slow
    np.random.seed(seed)
    random.seed(seed)
    torch.rand(3), np.random.rand(3), random.random()


def chance():
    """The state of every global generator, to be compared."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


@every_toy
@pytest.mark.parametrize("rounds", [1, pytest.param(ROUNDS, marks=pytest.mark.slow)])
def test_cut_at_any_step_and_continued_it_comes_to_the_same_bits(name, rounds, tmp_path, device):
    """All that a state is is compared, so that a round from every cut stands for the rest; slow plays them all."""
    if device.type == "cuda" and name == "ada":
        pytest.skip("a GPU adds up the slopes of PyTorch's grid_sample in any order")
    uncut, log, saved = build(name, device=device), {}, {}
    for step in range(1, ROUNDS + 1):
        log[step] = turn(uncut, step)
        saved[step] = copy(uncut)
    assert uncut.images > 1.5 * len(uncut.data), "the run must wrap around an epoch's end"
    for cut in range(1, ROUNDS):
        state = build(name, seed=cut, device=device)
        assert differing({"game": saved[cut][0]["game"]}, {"game": state.tensors()["game"]})
        last = min(cut + rounds, ROUNDS)
        if cut == BY_FILE:
            last = ROUNDS
            run = Run.create(tmp_path / "run", {})
            run.save(saved[cut][1]["images"], *saved[cut])
            state.restore(*run.load()[:2])
        else:
            state.restore(*saved[cut])
        for step in range(cut + 1, last + 1):
            disturb(step)
            assert turn(state, step) == log[step], f"cut at {cut}: another line of the log at {step}"
        groups, record = copy(state)
        assert differing(groups, saved[last][0]) == [], f"cut at {cut}"
        assert record == saved[last][1], f"cut at {cut}"


def test_a_restored_state_shares_nothing_with_what_it_was_restored_from():
    one, other = build("minimax"), build("minimax", seed=1)
    turn(one, 1)
    other.restore(one.tensors(), one.record())
    turn(one, 2)
    turn(other, 2)
    assert differing(one.tensors(), other.tensors()) == []


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_channels_last_is_continued_exactly_too(name):
    """A fused optimizer walks weight and moments through memory, so a restored moment must lie as its weight does."""
    uncut = build(name, channels_last=True)
    for step in (1, 2):
        turn(uncut, step)
    state = build(name, seed=1, channels_last=True)
    state.restore(*copy(uncut))
    for step in (3, 4):
        turn(uncut, step)
        turn(state, step)
    assert differing(uncut.tensors(), state.tensors()) == []


@every_toy
def test_accumulation_changes_nothing(name, float64):
    """Unless the toy says why it must: then it has to, so that no exemption outlives its reason."""
    ends = []
    for parts in (1, 2, 4):
        state = build(name, accumulate=parts)
        for step in range(1, 4):
            turn(state, step)
        ends.append(flat(state.tensors()))
    error = max(float((end[n] - x).abs().max()) for end in ends[1:] for n, x in ends[0].items() if x.numel())
    assert error > 1e-6 if TOYS[name]().varies else error <= 1e-12


class Watched(State):
    """A state that holds each player to its own: no gradient and no step reaches the other's parameters."""

    def __init__(self, *args):
        super().__init__(*args)
        self.alive = {f"{p}.{n}": False for p, net in self.game.players.items() for n, _ in net.named_parameters()}

    def others(self, player):
        return [w for p, weights in self.weights.items() if p != player for w in weights]

    def learn(self, player, loss, *rounds, keep=False):
        before = [None if w.grad is None else w.grad.clone() for w in self.others(player)]
        assert loss.isfinite()
        super().learn(player, loss, *rounds, keep=keep)
        for w, grad in zip(self.others(player), before, strict=True):
            assert w.grad is grad is None or torch.equal(w.grad, grad)

    def move(self, player):
        before = [w.detach().clone() for w in self.others(player)]
        for name, w in self.game.players[player].named_parameters():
            assert w.grad.isfinite().all(), f"{player}.{name}"
            self.alive[f"{player}.{name}"] |= bool(w.grad.any())
        super().move(player)
        assert all(torch.equal(w, old) for w, old in zip(self.others(player), before, strict=True))
        assert all(w.grad is None for w in self.weights[player])


@every_toy
def test_each_player_moves_itself_alone_and_all_that_should_move_does(name):
    state = build(name, kind=Watched)
    buffers = {n: x.clone() for n, x in state.game.named_buffers()}
    for step in range(1, 5):
        turn(state, step)
        assert all(w.grad is None for weights in state.weights.values() for w in weights)
    assert [n for n, alive in state.alive.items() if not alive] == []
    assert [n for n, x in state.game.named_buffers() if torch.equal(x, buffers[n])] == []
    average, G = (dict(network.named_buffers()) for network in (state.average, state.game.generator))
    assert differing({"G": average}, {"G": G}) == []


@every_toy
def test_fit_plays_it_and_leaves_the_callers_chance_as_found(name):
    toy = TOYS[name]()
    disturb(3)
    before = chance()
    model = fit(toy.game, toy.data, toy.training, images=64, device="cpu")
    y = toy.data.gather(torch.arange(5))[1] if toy.game.conditional else None
    assert model.sample(5, y=y).shape == (5, *toy.data.x.shape[1:])
    assert chance() == before


class Killed(BaseException):
    """What no `except Exception` stops."""


def play(name, path, weights, stop=None, **changes):
    """Train in a folder, logging before and after each checkpoint, and read the folder."""
    torch.manual_seed(weights)
    toy = TOYS[name]()
    settings = {"images": 160, "log_every": 24, "save_every": 64, "device": "cpu", **changes}
    fit(toy.game, toy.data, toy.training, run=path, watch=stop, **settings)
    records = [{k: v for k, v in line.items() if k != "time"} for line in Run(path).records()]
    return *Run(path).load()[:2], records


@pytest.mark.parametrize("name", ["cyclegan", "rpgan", "path length", "callables"])
def test_fit_again_continues_a_run(name, tmp_path):
    def kill(state):
        if state.images >= 96:
            raise Killed

    groups, record, log = play(name, tmp_path / "uncut", 0)
    with pytest.raises(Killed):
        play(name, tmp_path / "killed", 0, kill)
    disturb(4)
    again, record_again, log_again = play(name, tmp_path / "killed", 1)
    assert (differing(groups, again), record, log) == ([], record_again, log_again)
    _, at_stop, _ = play(name, tmp_path / "stopped", 0, lambda state: state.images >= 80)
    assert 80 <= at_stop["images"] < 160
    again, record_again, _ = play(name, tmp_path / "stopped", 1)
    assert (differing(groups, again), record) == ([], record_again)


def test_fit_refuses_a_run_that_was_made_otherwise(tmp_path):
    def refusal(**changes):
        with pytest.raises(ValueError) as caught:
            play("minimax", tmp_path, 0, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    play("minimax", tmp_path, 0)
    message = refusal(generator_optimizer=Adam(5e-3))
    assert "generator_optimizer=Adam(lr=0.01" in message and "not Adam(lr=0.005" in message
    assert "seed=0, not 1" in refusal(seed=1)
    toy = TOYS["minimax"]()
    other = Data("points", toy.data.x + 1, toy.data.y)
    with pytest.raises(ValueError, match="other data"):
        fit(toy.game, other, toy.training, run=tmp_path, device="cpu", images=160)


class Shift(nn.Module):
    """G(z) = z + b."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(2))

    def forward(self, z):
        return z + self.b


class Masked(nn.Module):
    """D(x) = <w, m x> with a dropout mask m, which it keeps with what it was shown."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.seen = []

    def forward(self, x):
        mask = nn.functional.dropout(torch.ones_like(x), 0.5)
        self.seen.append((x.detach(), mask))
        return (self.w * mask * x).sum(1)


def test_simultaneous_moves_share_one_dropout_mask():
    data = Data("points", torch.randn(20, 2, generator=torch.Generator().manual_seed(0)))
    rule = SGD(1.0)
    training = Training(batch=8, moves=Simultaneous(), generator_optimizer=rule, discriminator_optimizer=rule)
    game = Game(Shift(), Masked(), Normal(2), Wasserstein())
    state = State(game, training, data, torch.device("cpu"))
    turn(state, 1)
    (real, real_mask), (fake, fake_mask) = game.discriminator.seen
    assert not torch.equal(real_mask, fake_mask)
    torch.testing.assert_close(game.discriminator.w, 1 + (real_mask * real - fake_mask * fake).mean(0))
    torch.testing.assert_close(game.generator.b, fake_mask.mean(0))


FAMILIES = (Objective, Term, Moves, Prior, Optimizer, Schedule)
BASES = {family.__name__ for family in FAMILIES}
KINDS = {"Clip", "MaxColumnNorm"} | {
    name
    for module in (moves, objective, optimizer, penalty, prior, schedule, term)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, FAMILIES) and value not in FAMILIES
}
DEFAULTS = {name: [] for name in ("training/state.py", "training/__init__.py", "training/keeper.py", "moves.py")}
DEFAULTS |= {"training/settings.py": ["Adam", "Adam", "Alternating"], "game.py": ["NonSaturating"]}


def names_of_kinds(source):
    """Each use of a kind's name: as a value or as text, and of a family's in a question about types."""
    body = [node for node in ast.parse(source).body if not ast.unparse(node).startswith("__all__")]
    found = []
    for node in (inner for outer in body for inner in ast.walk(outer)):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "value", None)
        if isinstance(name, str) and name in KINDS:
            found.append(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass", "type"):
            found += [n.id for arg in node.args for n in ast.walk(arg) if getattr(n, "id", None) in BASES]
    return sorted(found)


@pytest.mark.parametrize("file", DEFAULTS)
def test_no_loop_asks_for_a_kind(file):
    source = (Path(organza.__file__).parent / file).read_text()
    assert names_of_kinds(source) == DEFAULTS[file]
    for check in ("isinstance(g.objective, RelativisticLogistic)", "type(t) is R1", "isinstance(t, Term)"):
        assert names_of_kinds(source + f"\n{check}\n") != DEFAULTS[file]
    assert names_of_kinds(source + "\ntype(t).__name__ == 'R1'\n") != DEFAULTS[file]
