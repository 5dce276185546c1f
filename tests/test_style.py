"""The style of strokes: drawn lines whose width and slant are known, and ranks against SciPy's."""

import math

import pytest
import torch

from organza.metrics.style import slant, spearman, width


def stroke(thick: float, lean: float, angle: float = 0.0, size: int = 64) -> torch.Tensor:
    """A straight smooth-edged stroke of this width, leaning right by so many pixels a pixel upwards; (1, 1, H, W)."""
    v, u = torch.meshgrid(*(torch.arange(size).double() - (size - 1) / 2,) * 2, indexing="ij")
    across = (u + lean * v) / math.hypot(1, lean)
    light = (thick / 2 + 0.5 - across.abs()).clamp(0, 1) * (v.abs() < size / 3)
    return (2 * light - 1)[None, None]


@pytest.mark.parametrize("lean", [-0.7, 0.0, 0.4])
def test_slant_is_that_of_a_stroke(lean):
    assert float(slant(stroke(4.0, lean))) == pytest.approx(lean, abs=0.02)


@pytest.mark.parametrize("thick", [2.0, 4.0, 6.0])
def test_width_is_that_of_a_stroke(thick):
    found = float(width(stroke(thick, 0.0)))
    ends = thick / (thick + 42)  # of 42 pixels length: its two ends are outline too
    assert found == pytest.approx(thick * (1 - ends), rel=0.05)


def test_style_does_not_depend_on_the_type_or_place():
    x = stroke(3.0, 0.3)
    bytes_ = ((x + 1) * 127.5).round().to(torch.uint8)
    for measure in (slant, width):
        assert float(measure(bytes_)) == pytest.approx(float(measure(x)), abs=0.01)
        assert float(measure(x.roll(3, -1))) == pytest.approx(float(measure(x)), abs=1e-9)


def test_ranks_agree_with_scipy():
    from scipy.stats import spearmanr

    a, b = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    b = (a + b).round()  # with ties
    assert float(spearman(a, b)) == pytest.approx(float(spearmanr(a, b).statistic), abs=1e-12)
    assert float(spearman(a, a.exp())) == pytest.approx(1) and float(spearman(a, -a)) == pytest.approx(-1)
    assert spearman(torch.stack([a, a]), torch.stack([a, -a])).tolist() == pytest.approx([1, -1])
