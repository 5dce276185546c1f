"""organza.term: what a term adds by default, thinned terms, reconstruction."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss

from organza.game import Game
from organza.penalty import R1
from organza.prior import Normal
from organza.schedule import Linear
from organza.term import Lazy, Reconstruction, Term


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
    assert (lazy.paired, lazy.name, lazy.every) == (True, "Counting", 16)
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
