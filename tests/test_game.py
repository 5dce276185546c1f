"""organza.game: what each player pays and sees, and refusals."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from organza.game import Game
from organza.objective import Hinge, Minimax, NonSaturating, RelativisticLogistic, Wasserstein
from organza.penalty import R1, R2, Clip, GradientPenalty
from organza.prior import Normal, Uniform
from organza.round import Batch, Draw, Verdict
from organza.schedule import Linear
from organza.term import Reconstruction, Term

PLAYERS = ("discriminator", "generator")


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Net(nn.Module):
    """A linear map that counts its calls and keeps what it was given."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.inner, self.given = nn.Linear(inputs, outputs), []
        nn.init.normal_(self.inner.weight, generator=torch.Generator().manual_seed(inputs))

    def forward(self, x, y=None):
        self.given.append((x, y))
        return self.inner(x) if y is None else self.inner(x) * (1 + y.unsqueeze(1))


def game(*terms, **settings):
    return Game(Net(2, 3), Net(3, 1), Normal(2), terms=terms, **settings)


def batch(n=6, y=None, rows=None, images=0):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    rows = slice(0, n) if rows is None else rows
    draw = Draw(torch.Generator().manual_seed(2), n, rows)
    return Batch(x[rows], None if y is None else y[rows], draw, images, step=0)


def look(g, turn, b=None):
    b = batch() if b is None else b
    return g.look(b, *g.generate(b), turn)


class Mean(Term):
    """Adds a number to both losses."""

    def __init__(self, value, weight=1.0):
        super().__init__(weight)
        self.value = value

    def discriminator(self, round):
        return torch.full((len(round.real), 2), self.value)

    generator = discriminator


def test_fakes_are_g_of_the_prior():
    g, b = game(), batch()
    z, fake = g.generate(b)
    assert torch.equal(z, Normal(2).draw(6, torch.Generator().manual_seed(2)))
    assert torch.equal(fake, g.generator.inner(z))


def test_the_default_objective_is_the_papers_remedy():
    assert isinstance(game().objective, NonSaturating)
    assert list(game().players) == list(PLAYERS)


@pytest.mark.parametrize("player", PLAYERS)
def test_a_loss_is_the_sum_of_weighted_means(player):
    g = game(R1(3.0), Mean(5.0, Linear(0.0, 1.0, 100)), Mean(7.0))
    round = look(g, player, batch(images=40))
    real = None if player == "generator" else round.real_verdict.logits
    expected = getattr(NonSaturating(), player)(real, round.fake_verdict.logits).mean() + 0.4 * 5 + 7
    if player == "discriminator":
        expected = expected + 3 * 0.5 * g.discriminator.inner.weight.square().sum()
    torch.testing.assert_close(g.loss(round, player), expected)
    names = ["objective", *["R1"] * (player == "discriminator"), "Mean1", "Mean2"]
    assert list(g.losses(round, player)) == names
    weights = {name: weight for name, (weight, _) in g.losses(round, player).items()}
    assert weights["objective"] == 1.0 and weights["Mean1"] == pytest.approx(0.4) and weights["Mean2"] == 1.0


def test_names_of_terms_are_unique():
    g = game(R1(), R2(), R1(), Reconstruction(), R1())
    assert g._names() == ["R11", "R2", "R12", "Reconstruction", "R13"]
    assert game(R1(), R2())._names() == ["R1", "R2"]


@pytest.mark.parametrize("name", ["objective", "Mean1"])
def test_a_name_that_is_taken_is_refused(name):
    """Else one loss would silently replace another."""
    named = Mean(1.0)
    named.name = name
    g = game(named, Mean(2.0), Mean(3.0))
    with pytest.raises(ValueError, match=name):
        g.losses(look(g, "discriminator"), "discriminator")


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("cuts", [(0, 3, 6), (0, 2, 4, 6), (0, 1, 6)])
def test_shares_add_up_to_the_whole(player, paired, cuts):
    g = game(R1(2.0), R2(1.0), GradientPenalty(0.5), Mean(2.0))
    g.objective = RelativisticLogistic() if paired else NonSaturating()
    g.paired = paired
    whole = g.loss(look(g, player), player)
    rows = [slice(*ends) for ends in pairwise(cuts)]
    parts = [g.loss(look(g, player, batch(rows=r)), player) for r in rows]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-13, atol=0)


def test_shapes_are_reduced_before_they_are_added():
    """(B, 1) logits, (B, h, w) patches and a term of another shape never broadcast against each other."""
    for shape in ((), (1,), (2, 2)):

        class Judge(nn.Module):
            def forward(self, x, shape=shape):
                return x.sum(1).view(-1, *[1] * len(shape)).expand(-1, *shape)

        g = Game(Net(2, 3), Judge(), Normal(2), Wasserstein(), [Mean(1.0)])
        round = look(g, "discriminator")
        torch.testing.assert_close(g.loss(round, "discriminator"), (round.fake - round.real).sum(1).mean() + 1)


@pytest.mark.parametrize("joint", [False, True])
def test_evidence(joint):
    g = game(R1(2.0), Mean(4.0, 0.5), joint=joint)
    for turn in PLAYERS:
        round = look(g, turn)
        g.loss(round, turn)
        sides = ("real", "fake") if turn == "discriminator" else ("fake",)
        terms = ("R1", "Mean") if turn == "discriminator" else ("Mean",)
        read = ("logits", "score", "accuracy") if turn == "discriminator" else ("logits", "score")
        names = [f"{side}_{what}" for side in sides for what in read] + ["objective", *terms]
        assert sorted(round.evidence) == sorted(f"{turn}/{name}" for name in names)
        assert not any(value.requires_grad or value.ndim for value in round.evidence.values())
        assert round.evidence[f"{turn}/Mean"] == 4.0  # before its weight
        logits = round.fake_verdict.logits
        torch.testing.assert_close(round.evidence[f"{turn}/fake_logits"], logits.mean().detach())
        torch.testing.assert_close(round.evidence[f"{turn}/fake_score"], logits.sigmoid().mean().detach())
        if turn == "discriminator":
            assert float(round.evidence[f"{turn}/fake_accuracy"]) == int((logits < 0).sum()) / len(logits)
            real = round.real_verdict.logits
            assert float(round.evidence[f"{turn}/real_accuracy"]) == int((real > 0).sum()) / len(real)


def test_accuracy_needs_a_border():
    """Where D's zero means nothing, neither does its sign."""
    g = game(objective=RelativisticLogistic())
    assert not any("accuracy" in name for name in look(g, "discriminator").evidence)


@pytest.mark.parametrize("objective", [Minimax(), RelativisticLogistic()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("joint", [False, True])
def test_who_is_looked_at(objective, joint):
    """D sees both, in one call if joint; in G's turn it sees the real only where the game is paired, with no graph."""
    g = game(objective=objective, joint=joint)
    for turn, sides in (("discriminator", 2), ("generator", 2 if objective.paired else 1)):
        g.discriminator.given.clear()
        round = look(g, turn)
        assert (round.real_verdict is None) == (sides == 1)
        joined = joint and turn == "discriminator"
        assert [len(x) for x, _ in g.discriminator.given] == ([12] if joined else [6] * sides)
        if turn == "generator" and round.real_verdict is not None:
            assert not round.real_verdict.logits.requires_grad
        for side in ("real", "fake")[2 - sides :]:
            verdict, x = getattr(round, f"{side}_verdict"), getattr(round, side)
            torch.testing.assert_close(verdict.logits, g.discriminator.inner(x).squeeze(1))
        assert round.real.requires_grad == (turn == "discriminator")
        assert round.fake.requires_grad


def test_a_paired_objective_says_how_often_pairs_are_right():
    for objective in (RelativisticLogistic(), NonSaturating()):
        g = game(objective=objective)
        for turn in PLAYERS:
            round = look(g, turn)
            said = round.evidence.get("discriminator/pairs_right")
            assert (said is not None) == (objective.paired and turn == "discriminator")
            if said is not None:
                right = (round.real_verdict.logits > round.fake_verdict.logits).sum()
                assert float(said) == int(right) / 6


def test_a_paired_term_makes_the_game_paired():
    class Matching(Term):
        paired = True

    assert game(Matching()).paired and not game(R1()).paired
    assert look(game(Matching()), "generator").real_verdict is not None


def test_a_detached_fake_can_be_sloped_in_ds_turn():
    g, b = game(), batch()
    z, fake = g.generate(b)
    round = g.look(b, z, fake.detach(), "discriminator")
    torch.testing.assert_close(round.slope("fake"), g.discriminator.inner.weight.expand(6, 3))
    assert torch.autograd.grad(round.fake_verdict.logits.sum(), fake, allow_unused=True)[0] is None


@pytest.mark.parametrize("joint", [False, True])
def test_conditional_networks_are_given_the_conditions(joint):
    g, y = game(conditional=True, joint=joint), torch.arange(6.0)
    round = look(g, "discriminator", batch(y=y))
    assert torch.equal(g.generator.given[0][1], y)
    assert torch.equal(torch.cat([given for _, given in g.discriminator.given]), torch.cat([y, y]))
    for verdict, x in ((round.real_verdict, round.real), (round.fake_verdict, round.fake)):
        torch.testing.assert_close(verdict.logits, g.discriminator.inner(x).squeeze(1) * (1 + y))
    torch.testing.assert_close(round.critic(round.real).logits, round.real_verdict.logits)
    assert torch.equal(round.y, y)


def test_a_conditional_game_needs_conditions():
    with pytest.raises(ValueError, match="conditional"):
        game(conditional=True).generate(batch())


def test_unconditional_networks_are_given_none():
    g = game()
    round = look(g, "discriminator", batch(y=torch.arange(6.0)))
    assert all(y is None for _, y in g.generator.given + g.discriminator.given)
    assert round.y is not None  # terms always see it


@pytest.mark.parametrize("joint", [False, True])
def test_d_sees_all_through_the_augmentation(joint):
    """Real and fake alike, each with chance of its own, in both turns and where terms ask elsewhere."""

    def augment(x, y, draw):
        return -2 * x + draw(lambda n, g: torch.rand(n, 1, generator=g)), None if y is None else 10 * y

    g = game(augment=augment, joint=joint, conditional=True)
    for turn in PLAYERS:
        g.discriminator.given.clear()
        round = look(g, turn, batch(y=torch.arange(6.0)))
        sides = [round.real, round.fake] if turn == "discriminator" else [round.fake]
        round.critic(round.fake)
        seen = torch.cat([x for x, _ in g.discriminator.given])
        added = seen + 2 * torch.cat([*sides, round.fake])
        assert (added.std(1) < 1e-12).all() and ((added >= 0) & (added <= 1)).all()
        assert len(added[:, 0].detach().unique()) == len(added)
        conditions = torch.cat([y for _, y in g.discriminator.given])
        assert torch.equal(conditions, 10 * torch.arange(6.0).repeat(len(sides) + 1))


def test_replay_is_ds_alone():
    g = game(replay=lambda fake, draw: torch.full_like(fake.detach(), 0.5))
    round = look(g, "discriminator")
    assert (round.fake == 0.5).all() and round.fake.requires_grad
    torch.testing.assert_close(round.fake_verdict.logits, g.discriminator.inner(round.fake).squeeze(1))
    assert not (look(g, "generator").fake == 0.5).any()


def test_another_d_may_judge():
    g, b = game(R1()), batch()
    z, fake = g.generate(b)
    round = g.look(b, z, fake, "discriminator", lambda x: Verdict(3 * x.sum(1), {"said": x}))
    assert not g.discriminator.given
    torch.testing.assert_close(round.slope("real"), torch.full((6, 3), 3.0))
    assert "said" in round.critic(round.fake).heads


def test_all_that_adapts_is_told_and_is_state():
    class Adapting(Term):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def adapt(self, evidence):
            self.seen.copy_(evidence["x"])

    class Augment(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("p", torch.zeros(()))

        def forward(self, x, y, draw):
            return x, y

        def adapt(self, evidence):
            self.p.copy_(evidence["x"] / 2)

    g = game(Adapting(), augment=Augment())
    g.adapt({"x": torch.tensor(3.0)})
    state = g.state_dict()
    assert state["terms.0.seen"] == 3.0 and state["augment.p"] == 1.5


@pytest.mark.parametrize(
    ("play", "said"),
    [
        (lambda: Game(Net, Net(3, 1), Normal(2)), r"Game\(generator=...\): got type"),
        (lambda: Game(Net(2, 3), lambda x: x, Normal(2)), r"Game\(discriminator=...\): got function"),
        (lambda: look(Game(Net(2, 4), Net(4, 1), Normal(2)), "generator"), r"\(6, 4\) for data of shape \(6, 3\)"),
        (lambda: look(Game(Net(3, 3), nn.LSTM(3, 1), Uniform(3)), "discriminator"), "D returned tuple"),
    ],
)
def test_refusals(play, said):
    with pytest.raises(ValueError, match=said):
        play()


def test_equilibrium_says_only_what_is_known():
    """Where a shift of all logits is as good, neither D(x) nor a loss that depends on the shift has a value."""
    assert game(objective=NonSaturating(0.9)).equilibrium()["discriminator/real_score"] == pytest.approx(0.45)
    minimax = game(objective=Minimax()).equilibrium()
    assert minimax["discriminator/objective"] == pytest.approx(math.log(4)) and len(minimax) == 4
    assert game(objective=RelativisticLogistic()).equilibrium() == {
        "discriminator/objective": pytest.approx(math.log(2)),
        "generator/objective": pytest.approx(math.log(2)),
    }
    assert game(objective=Hinge()).equilibrium() == {"discriminator/objective": 2.0}
    assert game(objective=Wasserstein()).equilibrium() == {}


def test_parts_may_come_from_an_iterator():
    parts = {"terms": (R1(weight) for weight in (1.0,)), "constraints": iter([Clip(0.1)])}
    made = Game(Net(2, 3), Net(3, 1), Normal(2), **parts)
    assert [term.name for term in made.terms] == ["R1"] and len(made.constraints) == 1
    with pytest.raises(ValueError, match=r"Game\(terms=...\): got one R1, needs a list: \[R1\(...\)\]"):
        Game(Net(2, 3), Net(3, 1), Normal(2), terms=R1(1.0))
