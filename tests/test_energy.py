"""organza.energy: the losses as numbers, how k moves, and the best energy against a search."""

import pytest
import torch
from torch import nn, tensor

from organza import energy
from organza.energy import BoundaryEquilibrium, EnergyMargin
from organza.game import Game
from organza.objective import Scaled
from organza.prior import Normal
from organza.round import Batch, Draw

EVERY = [BoundaryEquilibrium(), BoundaryEquilibrium(0.7, 0.1), EnergyMargin(), EnergyMargin(3.0)]
every = pytest.mark.parametrize("objective", EVERY, ids=lambda o: type(o).__name__)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def equilibrium(k=0.0, **settings):
    objective = BoundaryEquilibrium(**settings)
    objective.k = tensor(k)
    return objective


def told(real, fake):
    """The evidence of D's move, for energies."""
    return {"discriminator/real_logits": tensor(-real), "discriminator/fake_logits": tensor(-fake)}


def laws(seed, n=5):
    return random(2, n, seed=seed).softmax(-1)


# Both.


def test_names_are_sorted_and_all_are_tested():
    assert energy.__all__ == sorted({type(objective).__name__ for objective in EVERY})


@every
@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
def test_losses_are_unreduced_and_the_score_is_the_logit(objective, shape):
    r, f = -random(2, *shape).abs()
    for player in (objective.discriminator, objective.generator):
        whole = player(r, f)
        assert whole.shape == shape
        alone = [player(a.view(1), b.view(1)) for a, b in zip(r.flatten(), f.flatten(), strict=True)]
        torch.testing.assert_close(whole.flatten(), torch.cat(alone))
    assert torch.equal(objective.score(r), r)
    assert torch.equal(objective.generator(None, f), -f)  # G lowers the energy of its own alone
    assert not objective.paired and not objective.anchored


@every
def test_the_players_pull_apart_and_together(objective):
    """Within the margin, and with k above 0, D lowers the energy of data and lifts that of fakes; G lowers it."""
    if isinstance(objective, BoundaryEquilibrium):
        objective = equilibrium(0.3, gamma=objective.gamma, rate=objective.rate)
    real, fake = tensor([[0.5], [0.6]], requires_grad=True).unbind()  # energies
    by_real, by_fake = torch.autograd.grad(objective.discriminator(-real, -fake).sum(), (real, fake))
    (by_g,) = torch.autograd.grad(objective.generator(None, -fake).sum(), fake)
    assert by_real == 1 and by_fake < 0 and by_g == 1


# BEGAN.


def test_d_pays_for_data_less_k_times_fakes():
    real, fake = random(2, 6).abs()  # energies
    torch.testing.assert_close(equilibrium(0.0).discriminator(-real, -fake), real)
    torch.testing.assert_close(equilibrium(0.25).discriminator(-real, -fake), real - fake / 4)
    torch.testing.assert_close(equilibrium(1.0).discriminator(-real, -fake), real - fake)


def test_k_begins_at_zero_and_moves_by_the_rate():
    objective = BoundaryEquilibrium(gamma=0.5, rate=0.1)
    assert objective.k == 0
    objective.adapt(told(4.0, 1.0))  # gamma L(x) - L(G(z)) = 1
    objective.adapt(told(4.0, 1.5))  # 0.5
    assert objective.k.item() == pytest.approx(0.15)
    objective.adapt(told(4.0, 2.3))  # -0.3
    assert objective.k.item() == pytest.approx(0.12)


@pytest.mark.parametrize("gamma", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("k", [0.0, 0.4, 1.0])
def test_k_rests_exactly_at_equilibrium(gamma, k):
    objective = equilibrium(k, gamma=gamma, rate=0.1)
    for real in (0.1, 1.0, 7.0):
        objective.adapt(told(real, gamma * real))
        assert objective.k.item() == pytest.approx(k, abs=1e-15)
    if 0 < k < 1:
        for factor, sign in ((0.9, 1), (1.1, -1)):  # fakes too well reconstructed: D heeds them more
            moved = equilibrium(k, gamma=gamma, rate=0.1)
            moved.adapt(told(1.0, factor * gamma))
            assert (moved.k - k).sign() == sign


def test_k_is_clipped_at_both_ends():
    objective = equilibrium(0.5, rate=0.4)
    for energies, end in (((4.0, 0.0), 1.0), ((0.0, 9.0), 0.0)):
        for _ in range(3):
            objective.adapt(told(*energies))
        assert objective.k == end
        objective.adapt(told(1.0, 0.4 if end == 0 else 0.6))  # and leaves the end again
        assert objective.k.item() == pytest.approx(0.04 if end == 0 else 0.96)


def test_k_holds_the_ratio_where_d_has_its_own_pull():
    """D lifts the energy of fakes in proportion to k and G pulls it down: k ends where the ratio is gamma."""
    objective, real, fake = equilibrium(gamma=0.4, rate=0.05), 1.0, 0.0
    for _ in range(2000):
        fake += 0.1 * (objective.k.item() - fake)
        objective.adapt(told(real, fake))
    assert fake / real == pytest.approx(0.4, abs=1e-6) and objective.k.item() == pytest.approx(0.4, abs=1e-6)


def test_k_is_assigned_anew_and_outside_the_graph():
    """Fakes that both players share keep D's graph alive while k moves: writing into it would spoil the gradient."""
    objective = equilibrium(0.5, rate=0.1)
    before, fake = objective.k, tensor([2.0], requires_grad=True)
    loss = objective.discriminator(tensor([-1.0]), -fake).sum()
    objective.adapt(told(1.0, 2.0))
    assert objective.k is not before and before == 0.5 and not objective.k.requires_grad
    (slope,) = torch.autograd.grad(loss, fake)
    assert slope == -0.5


def test_k_is_saved():
    one, other = equilibrium(0.3), BoundaryEquilibrium()
    assert set(one.state_dict()) == {"k"}
    other.load_state_dict(one.state_dict())
    assert other.k == 0.3


def test_the_move_of_g_tells_k_nothing():
    objective = equilibrium(0.3, rate=0.1)
    for evidence in ({}, {"generator/fake_logits": tensor(-9.0), "generator/objective": tensor(9.0)}):
        objective.adapt(evidence)
        assert objective.k == 0.3


def test_convergence_is_the_papers_measure():
    objective = BoundaryEquilibrium(gamma=0.5)
    for real, fake, measure in ((2.0, 1.0, 2.0), (2.0, 0.4, 2.6), (2.0, 1.7, 2.7), (0.0, 0.0, 0.0)):
        assert objective.measures(tensor(-real), tensor(-fake))["convergence"].item() == pytest.approx(measure)
    real, fake = random(2, 9).abs()  # of a batch: of the means, not the mean of each example's
    expected = real.mean() + (0.5 * real.mean() - fake.mean()).abs()
    torch.testing.assert_close(objective.measures(-real, -fake)["convergence"], expected)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))

    def forward(self, x):
        return -(self.net(x) - x).abs().mean(1)  # (B,)


@pytest.mark.parametrize("wrap", [lambda objective: objective, lambda objective: Scaled(objective, d=0.5)])
def test_k_follows_the_game(wrap):
    """By the evidence that the game itself gathers in D's turn, and by nothing in G's."""
    torch.manual_seed(0)
    objective, G, D = equilibrium(0.5, rate=0.1), nn.Linear(3, 2), Autoencoder()
    game = Game(G, D, Normal(3), wrap(objective))
    batch = Batch(random(6, 2), None, Draw(torch.Generator().manual_seed(0), 6), 0, 0)
    z, fake = game.generate(batch)
    expected = 0.5 + 0.1 * (0.5 * -D(batch.x).mean() + D(fake).mean())
    round = game.look(batch, z, fake, "discriminator")
    game.loss(round, "discriminator").backward()
    game.adapt(round.evidence)
    torch.testing.assert_close(objective.k, expected.detach())
    round = game.look(batch, z, fake.detach(), "generator")
    game.loss(round, "generator")
    game.adapt(round.evidence)
    torch.testing.assert_close(objective.k, expected.detach())


# EBGAN.


@pytest.mark.parametrize("margin", [0.5, 1.0, 20.0])
def test_d_pays_for_data_and_for_fakes_within_the_margin(margin):
    real, fake = 2 * margin * torch.rand(2, 50, generator=torch.Generator().manual_seed(0))  # energies
    loss = EnergyMargin(margin).discriminator(-real, -fake)
    within = fake < margin
    assert 0 < within.sum() < 50
    torch.testing.assert_close(loss[within], (real + margin - fake)[within])
    torch.testing.assert_close(loss[~within], real[~within])


@pytest.mark.parametrize("margin", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_energy_and_its_divergence_are_a_searchs(margin, seed):
    """On a grid of energies from 0 to twice the margin, point by point: nothing there is known of lemma 1."""
    (p, q), objective = laws(seed), EnergyMargin(margin)
    grid = torch.linspace(0, 2 * margin, 401).unsqueeze(1)  # energies, (401, 1)

    def loss(p, q, energies):
        zero = torch.zeros_like(energies)  # costs D nothing on data, and the whole margin on fakes
        real, fake = objective.discriminator(-energies, zero) - margin, objective.discriminator(zero, -energies)
        return p * real + q * fake

    best, equal = loss(p, q, grid).min(0), loss(p, p, grid).min(0)
    torch.testing.assert_close(objective.optimum(p, q), -grid[best.indices, 0])
    torch.testing.assert_close(loss(p, q, -objective.optimum(p, q)).sum(), best.values.sum())
    torch.testing.assert_close(objective.divergence(p, q), equal.values.sum() - best.values.sum())
    assert equal.values.sum().item() == pytest.approx(margin)  # theorem 1: V = m at p = q
    assert objective.divergence(p, q) > 0 and objective.divergence(p, p) == 0


def test_at_equality_the_game_states_only_what_all_the_best_share():
    game = Game(nn.Linear(3, 2), Autoencoder(), Normal(3), EnergyMargin(2.0))
    assert game.equilibrium() == {"discriminator/objective": 2.0}


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: BoundaryEquilibrium(gamma=0.0), r"gamma=0.0\): must lie in \(0, 1\]"),
        (lambda: BoundaryEquilibrium(gamma=1.1), "gamma=1.1"),
        (lambda: BoundaryEquilibrium(gamma=float("nan")), "gamma=nan"),
        (lambda: BoundaryEquilibrium(rate=0.0), r"rate=0.0\): must be above 0"),
        (lambda: BoundaryEquilibrium(rate=-1e-3), "rate=-0.001"),
        (lambda: EnergyMargin(0.0), r"margin=0.0\): must be above 0"),
        (lambda: EnergyMargin(-1.0), "margin=-1.0"),
    ],
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()
