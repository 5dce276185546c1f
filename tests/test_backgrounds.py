"""organza.data.backgrounds: images with alpha on a background that is stated."""

import numpy as np
import pytest
import torch

from organza.data import open_data


@pytest.fixture
def rgba(tmp_path):
    x = np.random.RandomState(0).randint(0, 256, (300, 9, 8, 4)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(300))
    return tmp_path / "x.npz", torch.from_numpy(x).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("colour", "rgb"), [("white", (255,) * 3), ("Black", (0,) * 3), (" 1, 20 ,255", (1, 20, 255))])
def test_the_mixture_is_rounded(rgba, colour, rgb):
    path, x = rgba
    data, alpha = open_data(f"{path}[background={colour}]"), x[:, 3:].double() / 255
    exact = alpha * x[:, :3] + (1 - alpha) * torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1)
    assert data.x.dtype == torch.uint8 and data.spec.shape == (3, 9, 8) and data.y.tolist() == list(range(300))
    assert float((data.x - exact).abs().max()) <= 0.5
    assert open_data(data.name).digest == data.digest
    assert open_data(f"{path}[background={colour}][:7]").digest == open_data(f"{path}[:7][background={colour}]").digest


def test_gray_with_alpha(tmp_path):
    np.save(tmp_path / "x.npy", np.full((5, 8, 8, 2), 128, np.uint8))
    assert open_data(f"{tmp_path / 'x.npy'}[background=255,255,255]").x.unique().tolist() == [191]
    with pytest.raises(ValueError, match="these images are gray; give a gray background"):
        open_data(f"{tmp_path / 'x.npy'}[background=255,0,0]")


@pytest.mark.parametrize("part", ["background=pink", "background=256,0,0", "background=1,2", "background="])
def test_other_backgrounds_are_refused(rgba, part):
    with pytest.raises(ValueError, match="a background is white, black or r,g,b of 0 to 255"):
        open_data(f"{rgba[0]}[{part}]")


def test_images_without_alpha_are_refused():
    with pytest.raises(ValueError, match="2 or 4 channels of uint8; these are \\(1, 28, 28\\) of uint8"):
        open_data("digits[background=white]")
