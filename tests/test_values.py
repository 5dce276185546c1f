"""organza.values: numbers of the data become numbers for networks, and come back as they were."""

import json

import numpy as np
import pytest
import torch

from organza.data import open_data
from organza.values import Values

CHANCE = np.random.RandomState(0)
KINDS = {
    "uint8": CHANCE.randint(0, 256, (50, 3, 8, 9)).astype(np.uint8),
    "uint16": CHANCE.randint(0, 65536, (50, 8, 9)).astype(np.uint16),
    "signed images": CHANCE.uniform(-1, 1, (50, 8, 9)).astype(np.float32),
    "unit images": CHANCE.uniform(0, 1, (50, 8, 9)),
    "images": CHANCE.uniform(-40, 1000, (50, 8, 9)).astype(np.float16),
    "signals": CHANCE.randn(50, 2, 16) * [[3], [100]] + [[-7], [1e4]],
    "vectors": CHANCE.randn(50, 3) * [1e-6, 1, 1e6] + [5e-6, 0, 1e7],
}


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind):
    x = KINDS[kind]
    data = open_data(x)
    values = Values.read(json.loads(json.dumps(data.values.json())))
    assert values == data.values
    inside, _ = data.gather(torch.arange(50))
    assert inside.dtype == torch.float32
    restored = values.restore(inside)
    assert restored.numpy().dtype == x.dtype
    found, given = (each.reshape(50, -1).astype(np.float64) for each in (restored.numpy(), x))
    if kind in ("uint8", "uint16", "signed images"):
        assert np.array_equal(found, given.reshape(found.shape))
    else:
        spread = given.std(0)
        assert (
            np.abs(found - given) <= 1e-3 * spread if kind == "images" else np.abs(found - given) <= 1e-4 * spread
        ).all()
    if inside.ndim == 4:
        assert -1 <= float(inside.min()) <= -0.98 and 0.98 <= float(inside.max()) <= 1
    else:
        rows = inside.transpose(0, 1).flatten(1)
        assert rows.mean(1).abs().max() < 1e-4 and (rows.std(1, correction=0) - 1).abs().max() < 1e-4


def test_the_type_comes_back_of_any_order_of_bytes():
    x = np.arange(12.0).reshape(4, 3)
    for given, dtype in (
        (x.astype(">f8"), "float64"),
        (x.astype(np.longdouble), "float32"),
        (torch.ones(4, 3).half(), "float16"),
    ):
        assert open_data(given).values.dtype == dtype


def test_bytes_are_exactly_as_ever():
    x = torch.arange(256, dtype=torch.uint8)
    values = Values.integers("uint8")
    assert torch.equal(values.inside(x), x.float() / 127.5 - 1) and torch.equal(values.restore(values.inside(x)), x)
    odd = torch.tensor([-9.0, 9.0, torch.nan, -torch.inf])
    assert values.restore(odd).tolist() == [0, 255, 0, 0]


def test_laws_of_the_plane_are_standardised_by_their_training_data():
    train, test = open_data("grid25"), open_data("grid25", "test")
    assert train.values == test.values == Values.of(train.x, "float32")
    inside = train.gather(torch.arange(len(train)))[0]
    assert inside.mean(0).abs().max() < 1e-5 and (inside.std(0, correction=0) - 1).abs().max() < 1e-5


def test_a_part_has_the_values_of_the_whole(tmp_path):
    np.save(tmp_path / "x.npy", KINDS["vectors"])
    whole, part = open_data(tmp_path / "x.npy"), open_data(f"{tmp_path / 'x.npy'}[:10]")
    assert part.values == whole.values != open_data(KINDS["vectors"][:10]).values


def test_what_is_constant_stays_so():
    x = np.stack([np.full(9, 4.0), np.arange(9)], 1)
    inside, _ = open_data(x).gather(torch.arange(9))
    assert inside[:, 0].tolist() == [0] * 9
    assert np.allclose(open_data(x).values.restore(inside).numpy(), x, atol=1e-5)
    noisy = open_data(np.stack([np.full(9, 4e5), np.zeros(9)], 1)).values.restore(torch.randn(9, 2))
    assert np.allclose(noisy, [[4e5, 0]], rtol=1e-6, atol=1e-6)
    flat = open_data(np.full((4, 8, 8), 7.0))
    assert flat.gather(torch.arange(4))[0].abs().max() == 0


@pytest.mark.parametrize(
    "values",
    [{"dtype": "int8"}, {"scale": 0.0}, {"scale": [1.0, 0.0]}, {"offset": float("nan")}, {"offset": "a"}, {"other": 1}],
)
def test_other_values_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        Values.read(values)


def test_what_inference_has_made_serves_training() -> None:
    values, x = Values.of(torch.rand(4, 3)), torch.rand(4, 3, requires_grad=True)
    with torch.inference_mode():
        values.restore(torch.rand(2, 3))
    values.restore(x).sum().backward()
    assert x.grad is not None and bool((x.grad > 0).all())
