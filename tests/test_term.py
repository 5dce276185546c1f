"""organza.term: what a term adds by default, thinned terms, reconstruction."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss

from organza.api import prepare, train
from organza.data import Data
from organza.game import Game
from organza.penalty import R1
from organza.prior import Codes, Normal
from organza.round import Verdict
from organza.schedule import Linear
from organza.term import (
    Classification,
    Cycle,
    FeatureMatching,
    Identity,
    Lazy,
    Mismatch,
    MutualInformation,
    Reconstruction,
    Term,
)


class Counting(Term):
    """Says 3 to D and the step to G, and remembers what it was told."""

    paired = True

    def __init__(self, weight=2.0):
        super().__init__(weight)
        self.register_buffer("told", torch.zeros(()))

    def discriminator(self, round):
        return torch.full((2, 2), 3.0)

    def generator(self, round):
        return torch.tensor([float(round.step)])

    def adapt(self, evidence):
        self.told += evidence["x"]


def at_step(step):
    return SimpleNamespace(step=step, real=torch.zeros(2, 3), fake=torch.ones(2, 3))


def test_a_term_adds_nothing_unless_it_says_so():
    term = Term()
    assert term.discriminator(at_step(0)) is term.generator(at_step(0)) is term.adapt({}) is None
    assert (term.weight, term.paired, term.name) == (1.0, False, "Term")


def test_a_lazy_term_weighs_the_same_over_a_period():
    lazy, term = Lazy(Counting(), every=4), Counting()
    parts = [lazy.discriminator(at_step(step)) for step in range(12)]
    assert [step for step, part in enumerate(parts) if part is not None] == [0, 4, 8]
    paid = sum(lazy.weight * part.mean() for part in parts if part is not None)
    assert paid == 12 * term.weight * term.discriminator(at_step(0)).mean()
    assert lazy.generator(at_step(3)) is None
    assert lazy.generator(at_step(4)) == 4  # the log shows the term itself, its weight carries the factor
    assert Lazy(R1(), every=2).generator(at_step(0)) is None
    assert torch.equal(Lazy(Counting(), every=1).discriminator(at_step(7)), term.discriminator(at_step(7)))


def test_a_lazy_term_stands_for_its_term():
    schedule = Linear(1.0, 0.1, 100)
    inner = Counting(schedule)
    lazy = Lazy(inner)
    assert (lazy.paired, lazy.noise, lazy.name, lazy.every) == (True, False, "Counting", 16)
    assert Lazy(MutualInformation()).noise
    assert lazy.weight(50) == 16 * schedule(50)
    game = Game(torch.nn.Identity(), torch.nn.Identity(), Normal(1), terms=[lazy])
    game.adapt({"x": torch.tensor(5.0)})
    assert inner.told == 5.0
    assert "terms.0.term.told" in game.state_dict()


@pytest.mark.parametrize(("norm", "reference"), [("l1", l1_loss), ("l2", mse_loss)])
def test_reconstruction(norm, reference):
    real, fake = torch.randn(2, 4, 1, 3, 3).unbind()
    term = Reconstruction(norm=norm)
    value = term.generator(SimpleNamespace(real=real, fake=fake))
    assert value.shape == real.shape
    torch.testing.assert_close(value.mean(), reference(fake, real))
    assert term.discriminator(SimpleNamespace(real=real, fake=fake)) is None
    assert (term.weight, term.paired) == (100.0, False)


@pytest.mark.parametrize(
    ("build", "said"),
    [(lambda: Lazy(R1(), every=0), "every=0"), (lambda: Reconstruction(norm="l3"), "must be 'l1' or 'l2'")],
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def two_way(z, y):
    """G(z, (a, b)) = (2b, a / 2): each direction undoes the other."""
    a, b = y.chunk(2, 1)
    return torch.cat([2 * b, a / 2], 1)


def test_a_cycle_that_closes_costs_nothing_and_identity_is_of_swapped_halves():
    y = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    a, b = y.chunk(2, 1)
    round = SimpleNamespace(y=y, z=torch.zeros(3, 0), fake=two_way(None, y), generator=two_way)
    assert Cycle().weight == 10 and Identity().weight == 5
    assert not Cycle().generator(round).any() and Cycle().discriminator(round) is None
    torch.testing.assert_close(Identity().generator(round), torch.cat([a.abs(), b.abs() / 2], 1))
    round.generator = lambda z, y: two_way(z, y) + 1
    torch.testing.assert_close(Cycle().generator(round), torch.ones_like(y))


def test_the_weight_of_a_cycle_is_that_of_either_domain():
    """Mean over the pair = half the sum over domains, which is also what the objective's mean over (B, 2, h, w) is."""
    y = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    fake = two_way(None, y)
    round = SimpleNamespace(y=y, z=None, fake=fake, generator=lambda z, y: y)
    each = [l1_loss(f, x) for f, x in zip(fake.chunk(2, 1), y.chunk(2, 1), strict=True)]
    torch.testing.assert_close(Cycle().generator(round).mean(), sum(each) / 2)


def looked(real=None, fake=None, y=None, z=None, labelled=None, critic=None):
    """A round in which D said these heads."""
    verdicts = [
        None if heads is None else Verdict(torch.zeros(len(next(iter(heads.values())))), heads)
        for heads in (real, fake)
    ]
    return SimpleNamespace(
        real_verdict=verdicts[0], fake_verdict=verdicts[1], y=y, z=z, labelled=labelled, critic=critic
    )


def test_classification_is_the_cross_entropy_of_what_is_known():
    logits, y = torch.randn(4, 3), torch.tensor([0, 2, -1, 1])
    surprise = [-float(logits.log_softmax(1)[i, k]) if k >= 0 else 0.0 for i, k in enumerate(y)]
    round = looked({"classes": logits}, {"classes": logits.flip(0)}, y)
    alone = Classification(fakes=False)
    assert alone.discriminator(round).tolist() == pytest.approx(surprise) and alone.generator(round) is None
    both = Classification()
    assert torch.equal(both.discriminator(round), alone.discriminator(round) + both.generator(round))
    several = looked({"classes": logits}, {"classes": logits}, (logits > 0).float())
    p = logits.sigmoid()
    wanted = -torch.where(logits > 0, p.log(), (1 - p).log()).mean(1)
    torch.testing.assert_close(Classification(fakes=False).discriminator(several), wanted)


def test_classification_prefers_the_labelled_examples_beside_the_batch():
    logits, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    round = looked({"classes": -logits}, None, torch.full((4,), -1), labelled=("x", y), critic=lambda x: heads[x])
    heads = {"x": Verdict(torch.zeros(4), {"classes": logits})}
    got = Classification(fakes=False).discriminator(round)
    torch.testing.assert_close(got, torch.nn.functional.cross_entropy(logits, y, reduction="none"))
    round.fake_verdict, round.y = Verdict(torch.zeros(4), {"classes": 2 * logits}), y.flip(0)
    both = Classification().discriminator(round)  # and fakes are named as well
    torch.testing.assert_close(both, got + torch.nn.functional.cross_entropy(2 * logits, y.flip(0), reduction="none"))


def test_mismatch_asks_of_real_examples_with_the_condition_of_another():
    asked = []

    def critic(x, y):
        asked.append((x, y))
        return Verdict(torch.tensor([0.0, 1.0, -2.0]))

    real, y = torch.randn(3, 2), torch.tensor([4, 5, 6])
    round = SimpleNamespace(real=real, y=y, critic=critic)
    paid = Mismatch().discriminator(round)
    torch.testing.assert_close(paid, -(1 - torch.tensor([0.0, 1.0, -2.0]).sigmoid()).log())
    assert torch.equal(asked[0][0], real) and asked[0][1].tolist() == [6, 4, 5]
    assert Mismatch().generator(round) is None
    assert Mismatch().discriminator(SimpleNamespace(real=real[:1], y=y[:1], critic=critic)) is None
    images = torch.randn(3, 1, 2, 2)
    assert torch.equal(Mismatch().discriminator(SimpleNamespace(real=real, y=images, critic=critic)), paid)


def test_mismatch_leaves_out_what_is_no_mismatch():
    """Rows beside one of the same label, or of none, add nothing, whatever shape D's logits have."""
    y = torch.tensor([4, 4, 6, -1])  # beside -1, 4, 4, 6

    def critic(x, y):
        return Verdict(torch.ones(4, 1, 2, 2))

    paid = Mismatch().discriminator(SimpleNamespace(real=torch.randn(4, 2), y=y, critic=critic))
    assert (paid > 0).flatten(1).all(1).tolist() == [False, False, True, False] and (paid == 0).sum() == 12
    packs = SimpleNamespace(real=paid, y=torch.tensor([1, 2, 3, 3]), critic=lambda x, y: Verdict(torch.ones(2)))
    assert (Mismatch().discriminator(packs) > 0).tolist() == [True, False]  # (3, 1), (2, 3) and (3, 3), (3, ..)
    alike = torch.zeros(4, 1, 2, 2)
    assert not Mismatch().discriminator(SimpleNamespace(real=paid, y=alike, critic=critic)).any()


@pytest.mark.parametrize("term", [Mismatch(), Lazy(Mismatch(), 4)])
def test_mismatch_is_for_a_d_that_is_shown_the_conditions(term):
    G, D = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    with pytest.raises(ValueError, match="Mismatch: D must be shown the conditions"):
        Game(G, D, Normal(2), terms=[term])
    Game(G, D, Normal(2), terms=[term], conditional=True)


@pytest.mark.parametrize("odd", [37.5, -2.0])
def test_classification_has_a_lower_bound(odd, tmp_path):
    """The binary cross-entropy of numbers outside 0 ... 1 has none: they are refused, wherever they stand."""
    x, y = torch.zeros(300, 1, 8, 8, dtype=torch.uint8), torch.full((300, 2), 0.5)
    assert Lazy(Classification(), 4).bounded and prepare(Data("x", x, y), "acgan").recipe == "acgan"
    y[299, 1] = odd
    with pytest.raises(ValueError, match=r"Classification: the conditions go from .* to .*; scale them to 0 \.\.\. 1"):
        train((x, y), "acgan", images=64, run=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_feature_matching_is_zero_at_equal_means_alone():
    real, fake = torch.randn(2, 5, 3)
    pulls = FeatureMatching()
    assert pulls.paired
    gap = pulls.generator(looked({"features": real}, {"features": fake}))
    torch.testing.assert_close(gap, (real.mean(0) - fake.mean(0)) ** 2)
    assert not pulls.generator(looked({"features": real}, {"features": real.flip(0)})).abs().max() > 1e-12


def test_mutual_information_is_bounded_by_the_entropy_of_the_codes():
    """-log Q of what cannot be read is H(c); of what is read exactly it is 0; in between is -log of the posterior."""
    prior = Codes((4,), 1, 2)
    z = prior.draw(4000, torch.Generator().manual_seed(0))
    term = MutualInformation(1.0, (4,), 1)
    blind = torch.zeros(4000, 5)
    paid = term.generator(looked(fake={"codes": blind}, z=z))
    continuous = z[:, 4]
    torch.testing.assert_close(paid, torch.full((4000,), 4.0).log() + continuous**2 / 2)
    sure = torch.cat([60 * z[:, :4], z[:, 4:5]], 1)
    assert float(term.discriminator(looked(fake={"codes": sure}, z=z)).max()) < 1e-6
    sharp = MutualInformation(1.0, (4,), 1, sigma=0.5)
    torch.testing.assert_close(
        sharp.generator(looked(fake={"codes": blind}, z=z)), torch.full((4000,), 4.0).log() + 2 * continuous**2
    )


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (Classification(), "D says nothing of classes"),
        (FeatureMatching(), "D says nothing of features"),
        (MutualInformation(), "codes=12 gives one"),
        (MutualInformation(categories=(3,), continuous=0), "the codes are 3 numbers, but D reads 2"),
    ],
)
def test_a_missing_head_is_named(term, said):
    heads = {"codes": torch.zeros(2, 2)} if "D reads" in said else {"other": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match=said):
        term.generator(looked(heads, heads, torch.zeros(2, dtype=torch.long), torch.zeros(2, 20)))
    with pytest.raises(ValueError, match="sigma=0"):
        MutualInformation(sigma=0)
