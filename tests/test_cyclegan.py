"""organza.nn.cyclegan and what CycleGAN adds to nn.unet: published sizes, both directions, any size."""

import pytest
import torch
from torch import nn

from organza.nn import PatchDiscriminator, PatchPair, Translator, TranslatorPair, UNetPair
from organza.nn.layers import padded

NOTHING = torch.zeros(2, 0)


def numbers(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_published_sizes() -> None:
    """Those that the authors' program prints for its networks."""
    large, small = (3, 256, 256), (3, 128, 128)
    with torch.device("meta"):
        assert numbers(Translator(large, large)) == numbers(Translator(small, small, blocks=9)) == 11_378_179
        assert numbers(Translator(small, small)) == 7_837_699
        assert numbers(TranslatorPair((6, 256, 256))) == 2 * 11_378_179
        assert numbers(PatchDiscriminator(large, norm="instance")) == 2_764_737
        assert numbers(PatchDiscriminator(large, large)) == 2_768_705
        assert numbers(PatchPair((6, 256, 256))) == 2 * 2_764_737


def test_a_pair_is_two_directions_on_the_other_half() -> None:
    torch.manual_seed(0)
    pair, y = TranslatorPair((2, 12, 16), 4, 1), random(2, 2, 12, 16)
    made = pair(NOTHING, y)
    assert torch.equal(made[:, :1], pair.a(NOTHING, y[:, 1:])) and torch.equal(made[:, 1:], pair.b(NOTHING, y[:, :1]))
    assert pair.condition == (1, 12, 16)
    nets = UNetPair((2, 12, 16), 4).eval()
    made = nets(NOTHING, y)
    assert torch.equal(made[:, :1], nets.a(NOTHING, y[:, 1:])) and torch.equal(made[:, 1:], nets.b(NOTHING, y[:, :1]))
    D = PatchPair((2, 24, 30), 4)
    x = random(2, 2, 24, 30)
    assert torch.equal(D(x), torch.stack([D.a(x[:, :1]), D.b(x[:, 1:])], 1)) and torch.equal(D(x, x), D(x))
    assert D(x).shape == (2, 2, 1, 1)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (33, 50), (1, 30), (64, 12)])
def test_any_size_is_taken_whatever_it_was_made_for(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    translator = Translator((2, 28, 28), (3, 28, 28), 4, 1)
    y = random(2, 2, *size)
    assert translator(NOTHING, y).shape == (2, 3, *size)
    whole, rows, columns = padded(y, 4, least=8)
    assert min(whole.shape[2:]) >= 8 and not any(side % 4 for side in whole.shape[2:])
    assert torch.equal(whole[..., rows, columns], y)
    assert torch.equal(translator(NOTHING, y), translator(NOTHING, whole)[..., rows, columns])


def test_instance_norm_judges_each_image_by_itself() -> None:
    torch.manual_seed(0)
    D, x = PatchDiscriminator((1, 24, 24), width=4, norm="instance"), random(3, 1, 24, 24)
    torch.testing.assert_close(D(x)[1:2], D(x[1:2]))
    assert torch.equal(D.eval()(x), D.train()(x))
    batch = PatchDiscriminator((1, 24, 24), width=4)
    assert not torch.allclose(batch(x)[1:2], batch(x[1:2]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TranslatorPair((3, 28, 28)), "shape=(3, 28, 28): must be (2 channels, height, width)"),
        (lambda: UNetPair((3, 28, 28)), "shape=(3, 28, 28): must be (2 channels, height, width)"),
        (lambda: PatchPair((2, 28)), "shape=(2, 28): must be (2 channels, height, width)"),
        (lambda: PatchPair((2, 23, 28)), "with layers=3 both sides must be 24 or more"),
        (lambda: PatchDiscriminator((1, 28, 28), norm="layer"), "norm='layer': must be one of batch, instance, none"),
        (lambda: Translator((1, 28, 28), (1, 28, 28), blocks=-1), "blocks=-1: must be 1 or more, or 0"),
        (lambda: Translator((1, 28, 28), (1, 28, 30)), "must have the sides of"),
    ],
)
def test_mistakes_are_named(make, said) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value)
