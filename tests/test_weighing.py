"""organza.weighing: what the weights of a prior's components are learnt from."""

from types import SimpleNamespace

import pytest
import torch

from organza.game import Game
from organza.mixture import Cells, Mixture
from organza.prior import Codes
from organza.round import Verdict
from organza.term import Lazy
from organza.weighing import Advantage, Responsibilities


def looked(real, fake, z, heads=({}, {}), total=None):
    return SimpleNamespace(
        real_verdict=Verdict(real, heads[0]),
        fake_verdict=Verdict(fake, heads[1]),
        z=z,
        evidence={},
        draw=SimpleNamespace(total=total or len(z)),
    )


def test_responsibilities_are_counts_of_real_examples():
    """Fakes that are told apart cost nothing; what is said of the real is counted, and is no loss."""
    z, none = Mixture(4, 2).draw(12, torch.Generator().manual_seed(0)), torch.zeros(12)
    of_real = torch.eye(4).repeat(3, 1)[[0, 1, 1, 1, 2, 2, 0, 1, 1, 1, 2, 2]].mul(60).requires_grad_()
    term = Responsibilities()
    round = looked(none, none, z, ({"components": of_real}, {"components": 12 * z[:, :4]}))
    assert float(term.discriminator(round).max()) < 1e-6 and term.generator(round) is None
    assert round.evidence["prior/counts"].tolist() == pytest.approx([2, 6, 4, 0], abs=1e-4)
    assert not round.evidence["prior/counts"].requires_grad
    blind = looked(none, none, z, ({"components": of_real}, {"components": torch.zeros(12, 4)}))
    torch.testing.assert_close(term.discriminator(blind), torch.full((12,), 4.0).log())


@pytest.mark.parametrize("categories", [(6,), (2, 3), (2, 3, 2), (2, 2, 3, 2)])
def test_the_advantages_of_each_cell_are_those_of_its_fakes(categories):
    """As counted one by one; and those of parts of a batch, by their shares in it, add up to those of the whole."""
    g, n = torch.Generator().manual_seed(1), 40
    prior = Cells(categories, 3)
    z, (real, fake) = prior.draw(n, g), torch.randn(2, n, generator=g)
    term, fakes, advantages = Advantage(categories), torch.zeros(len(prior.shares)), torch.zeros(len(prior.shares))
    for row, a in zip(z, 2 * (fake - real).sigmoid() - 1, strict=True):
        cell = 0
        for code in row[: sum(categories)].split([*categories]):
            cell = cell * len(code) + int(code.argmax())
        fakes[cell], advantages[cell] = fakes[cell] + 1, advantages[cell] + a
    whole = looked(real, fake.requires_grad_(), z)
    assert term.discriminator(whole) is None and term.generator(whole) is None
    torch.testing.assert_close(whole.evidence["prior/fakes"], fakes)
    torch.testing.assert_close(whole.evidence["prior/advantages"], advantages)
    parts = [looked(*(each[rows] for each in (real, fake, z)), total=n) for rows in (slice(0, 10), slice(10, n))]
    for part in parts:
        term.discriminator(part)
    for name, value in whole.evidence.items():
        torch.testing.assert_close(sum(len(p.z) / n * p.evidence[name] for p in parts), value)


def test_of_a_judge_of_places_the_mean_counts():
    z = Cells((2, 3), 1).draw(8, torch.Generator().manual_seed(2))
    real, fake = torch.zeros(8, 4, 4), torch.linspace(-1, 1, 16).view(1, 4, 4).expand(8, 4, 4) + 0.3
    round = looked(real, fake, z)
    Advantage((2, 3)).discriminator(round)
    alike = looked(torch.zeros(8), torch.full((8,), 0.3), z)
    Advantage((2, 3)).discriminator(alike)
    torch.testing.assert_close(round.evidence["prior/advantages"], alike.evidence["prior/advantages"])


def test_an_advantage_that_is_nobodys_is_refused():
    z = torch.ones(8, 5)
    with pytest.raises(ValueError, match=r"Advantage\(categories=\[4, 4\]\): needs 8 numbers of z, which has 5"):
        Advantage((4, 4)).discriminator(looked(torch.zeros(8), torch.zeros(8), z))
    with pytest.raises(ValueError, match="D judges 8 fakes by 4 logits; it must judge each by its own"):
        Advantage((2, 2)).discriminator(looked(torch.zeros(4), torch.zeros(4), z))


def test_a_prior_that_would_not_learn_from_them_is_refused():
    G, D = torch.nn.Identity(), torch.nn.Identity()
    refused = (Advantage(), Mixture(8, 2)), (Lazy(Advantage(), 2), Codes((4, 4))), (Responsibilities(), Cells())
    for term, law in refused:
        with pytest.raises(
            ValueError, match=f"{term.name}: the prior {type(law).__name__} does not learn from 'prior/"
        ):
            Game(G, D, law, terms=[term])
    for term, law in ((Lazy(Advantage(), 2), Cells()), (Responsibilities(), Mixture(8, 2))):
        assert Game(G, D, law, terms=[term]).terms[0] is term
