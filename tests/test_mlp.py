"""What multilayer perceptrons have beside layers: an output law, waves of x, and straight ways from z to x."""

import torch

from organza.nn import MLPDiscriminator, MLPGenerator
from organza.nn.layers import Fourier


def test_sigmoid_output_is_a_pixel_in_unit_range() -> None:
    torch.manual_seed(0)
    generator = MLPGenerator(4, (5,), (8,), output="sigmoid")
    z = torch.randn(3, 4)
    inner = generator.layers[:-1](z)
    torch.testing.assert_close((generator(z) + 1) / 2, inner.sigmoid())


def test_skipping_numbers_of_z_reach_the_last_layer_too() -> None:
    """What x follows them by is the last layer's own columns, beside what goes through the hidden units."""
    torch.manual_seed(0)
    plain, straight = (
        MLPGenerator(6, (1, 2), (8, 8), output="linear"),
        MLPGenerator(6, (1, 2), (8, 8), "leaky", "linear", skip=2),
    )
    assert plain.state_dict().keys() == straight.state_dict().keys()  # weights of before are at home in both
    own = straight.layers[-2].weight[:, 8:]
    states = {name: value[:, :8] if value.shape == (2, 10) else value for name, value in straight.state_dict().items()}
    plain.load_state_dict(states)
    z = torch.randn(5, 6)
    torch.testing.assert_close(straight(z), plain(z) + (z[:, -2:] @ own.T).view(5, 1, 2))


def test_a_normal_z_that_skips_gives_a_normal_x_around_every_place() -> None:
    """Where hidden units do not hear it, x is normal of covariance V V', wherever the rest of z has put its mean."""
    torch.manual_seed(0)
    G = MLPGenerator(3 + 4, (2,), (16,), output="linear", skip=4)
    with torch.no_grad():
        G.layers[0].weight[:, 3:] = 0
        n = torch.randn(200_000, 4)
        for place in torch.eye(3):
            x = G(torch.cat([place.expand(len(n), 3), n], 1))
            V = G.layers[-2].weight[:, 16:]
            y = torch.linalg.solve_triangular(torch.linalg.cholesky(V @ V.T), (x - x.mean(0)).T, upper=False)
            torch.testing.assert_close(y.cov(), torch.eye(2), rtol=0.0, atol=0.02)
            assert (y**4).mean(1).sub(3).abs().max() < 0.06  # the fourth moment of a normal law, of variance 24 / n


def test_waves_beside_x() -> None:
    """x itself, then circles: a^2 (sin^2 + cos^2) = 1 / max(1, f), of frequencies from 1/2 to the highest."""
    waves, x = Fourier(3, 9, highest=32.0), torch.randn(5, 3)
    said = waves(x)
    assert said.shape == (5, 21) and torch.equal(said[:, :3], x)
    f = waves.f.norm(dim=0)
    assert torch.allclose(f, 2.0 ** torch.linspace(-1, 5, 9))
    sine, cosine = said[:, 3:].chunk(2, 1)
    assert torch.allclose(sine**2 + cosine**2, (1 / f.clamp(min=1)).expand(5, 9))
    slope = torch.autograd.functional.jacobian(lambda x: waves(x[None])[0, 3:12], x[0])  # (9, 3)
    assert torch.allclose(slope, (cosine[0] * waves.f).T, atol=1e-5)


def test_waves_in_a_discriminator() -> None:
    D = MLPDiscriminator((1, 2), (8,), waves=5, classes=3)
    assert D(torch.randn(4, 1, 2), torch.tensor([0, 1, 2, 0])).shape == (4,)
    assert D.layers[0].in_features == 2 + 2 * 5 + 3 and "waves.f" in D.state_dict()
