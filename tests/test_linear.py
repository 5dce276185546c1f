"""Linear programmes: against another solver, by their own certificates, and where there is no solution."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from organza.theory.linear import programme


def random_programme(seed: int):
    """A programme with a known pair of feasible points; every other has no interior, some have dependent rows."""
    generator = torch.Generator().manual_seed(seed)
    m = int(torch.randint(1, 15, (), generator=generator))
    n = m + int(torch.randint(0, 25, (), generator=generator))
    A = torch.randn(m, n, generator=generator, dtype=torch.float64)
    if seed % 3 == 1:
        A = torch.randint(-2, 3, (m, n), generator=generator).double()
    if seed % 5 == 0:
        A = torch.cat([A, A[:1] - 2 * A[-1:]])
    x, s = torch.rand(2, n, generator=generator, dtype=torch.float64)
    if seed % 2:
        x, s = x * (torch.rand(n, generator=generator) < 0.5), s * (torch.rand(n, generator=generator) < 0.5)
    return A.T @ torch.randn(len(A), generator=generator, dtype=torch.float64) + s, A, A @ x


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_another_solver(seed):
    c, A, b = random_programme(seed)
    found, other = programme(c, A, b), linprog(c.numpy(), A_eq=A.numpy(), b_eq=b.numpy(), method="highs")
    assert other.status == 0
    assert found.value == pytest.approx(other.fun, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_the_certificate_is_true(seed):
    c, A, b = random_programme(seed)
    found = programme(c, A, b)
    assert float(found.x.min()) >= 0.0
    assert found.value == float(c @ found.x) and found.dual == float(b @ found.y)
    assert abs(found.gap) <= 1e-9 and found.gap == found.value - found.dual
    assert float((A @ found.x - b).abs().max()) <= found.infeasibility <= 1e-9
    assert float((A.T @ found.y - c).max()) <= found.infeasibility


def test_a_matrix_game_by_hand():
    # Matching pennies: max v with the row player's mixture x, v <= x_0 - x_1 and v <= x_1 - x_0; v = plus - minus.
    A = [[1.0, 1.0, 0, 0, 0, 0], [1, -1, -1, 1, -1, 0], [-1, 1, -1, 1, 0, -1]]
    found = programme(torch.tensor([0.0, 0, -1, 1, 0, 0]), torch.tensor(A), torch.tensor([1.0, 0, 0]))
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert np.allclose(found.x[:2], 0.5, atol=1e-6)


def test_of_many_solutions_one_inside():
    found = programme(torch.ones(4), torch.ones(1, 4), torch.ones(1))
    assert torch.allclose(found.x, torch.full((4,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize(
    "c, A, b, words",
    [
        ([1.0, 1.0], [[1.0, 1.0]], [-1.0], "no x is feasible"),
        ([-1.0, 0.0], [[1.0, -1.0]], [0.0], "no lower bound"),
        ([1.0, 1.0], [[1.0, 1.0], [2.0, 2.0]], [1.0, 3.0], "infeasible"),
        ([1.0, 1.0], [[1.0, 1.0, 1.0]], [1.0], "need"),
    ],
)
def test_no_solution_is_refused(c, A, b, words):
    with pytest.raises(ValueError, match=words):
        programme(torch.tensor(c), torch.tensor(A), torch.tensor(b))
