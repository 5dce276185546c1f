"""organza.data: layouts and values, refusals in one line, and the order of the stream."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import Data, Order, Spec, held_out, open_data
from organza.data.check import check
from organza.evaluation import opened

IMAGES = np.arange(5 * 6 * 7 * 3, dtype=np.uint8).reshape(5, 6, 7, 3)  # N H W C


def refusal(*args, **kwargs):
    """The message of the ValueError that open_data raises, which is one line."""
    with pytest.raises(ValueError) as caught:
        open_data(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The order of the stream.


def stream(order, cuts):
    position, parts = 0, []
    for n in cuts:
        parts.append(order.indices(position, n))
        position += n
    return torch.cat(parts)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_each_epoch_is_a_permutation(count):
    order = Order(count, seed=3)
    epochs = order.indices(0, 4 * count).reshape(4, count)
    assert (epochs.sort(dim=1).values == torch.arange(count)).all()
    if count == 100:
        assert not torch.equal(epochs[0], epochs[1])


def test_the_permutation_is_the_one_promised():
    order = Order(50, seed=2**63 - 2)
    for epoch in range(4):  # the seed wraps at 2**63
        expected = torch.randperm(50, generator=torch.Generator().manual_seed((2**63 - 2 + epoch) % 2**63))
        assert torch.equal(order.indices(50 * epoch, 50), expected)


@pytest.mark.parametrize("replacement", [False, True])
def test_the_stream_depends_on_seed_and_position_alone(replacement):
    whole = Order(10, seed=5, replacement=replacement).indices(0, 60)
    assert whole.dtype == torch.int64
    for cuts in ([1] * 60, [7] * 8 + [4], [25, 0, 35], [60]):
        assert torch.equal(stream(Order(10, seed=5, replacement=replacement), cuts), whole)
    order = Order(10, seed=5, replacement=replacement)
    for position in (43, 0, 59, 12, 43):  # resumed anywhere, in any direction
        assert torch.equal(order.indices(position, 1), whole[position : position + 1])
    ranks = [[Order(10, 5, replacement).indices(k + r, 1) for k in range(0, 60, 4)] for r in range(4)]
    assert torch.equal(torch.stack([torch.cat(rank) for rank in ranks], dim=1).reshape(-1), whole)
    assert not torch.equal(Order(10, seed=6, replacement=replacement).indices(0, 60), whole)


def test_writing_to_indices_leaves_the_stream_alone():
    order = Order(10, seed=0)
    first = order.indices(0, 10)
    kept = first.clone()
    first.zero_()
    assert torch.equal(order.indices(0, 10), kept)


def test_replacement_draws_uniformly_and_independently():
    drawn = Order(10, seed=0, replacement=True).indices(0, 20_000)
    counts = drawn.bincount(minlength=10)
    assert (counts - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    epochs = drawn.reshape(-1, 10)
    distinct = torch.stack([(epochs == i).any(dim=1) for i in range(10)]).double().mean()
    assert abs(float(distinct) - (1 - 0.9**10)) < 0.01  # a permutation would show all


def test_an_order_needs_an_example():
    with pytest.raises(ValueError, match="at least 1"):
        Order(0, seed=0)


@pytest.mark.parametrize("replacement", [False, True])
def test_global_generators_are_left_alone(replacement):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    order = Order(1000, seed=0, replacement=replacement)
    data = open_data("ring")
    data.gather(order.indices(0, 10))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


# Data.


def test_gather_is_the_border_between_uint8_and_float(device):
    x = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    data = open_data((x, torch.arange(256))).to(device)
    index = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    batch, y = data.gather(index)
    assert batch.dtype == torch.float32 and batch.shape == (256, 1, 1, 1)
    assert batch.device == data.x.device and torch.equal(y.cpu(), index)
    last_bits = 0 if device.type == "cpu" else 2**-22  # a GPU multiplies by the inverse
    torch.testing.assert_close(batch.cpu(), x[index].float() / 127.5 - 1, rtol=0, atol=last_bits)
    assert batch.min() == -1 and batch.max() == 1
    assert torch.equal(((batch + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu(), x[index])
    assert torch.equal(data.x.cpu(), x)


def test_gather_copies():
    x = torch.linspace(-9, 9, 10).reshape(5, 2)
    data = Data("points", x)  # made by hand: its values are as they are
    batch, y = data.gather(torch.tensor([4, 0, 4]))
    assert torch.equal(batch, x[[4, 0, 4]]) and y is None
    batch.zero_()
    assert torch.equal(data.x, x) and x[4, 1] == 9


def test_spec_says_shape_count_and_classes():
    assert open_data(IMAGES).spec == Spec((3, 6, 7), 5, 0)
    assert open_data((IMAGES, [0, 3, -1, 0, 1])).spec == Spec((3, 6, 7), 5, 4)
    assert open_data((IMAGES, [-1] * 5)).spec.classes == 0
    assert open_data(np.zeros((4, 3))).spec == Spec((3,), 4, 0)
    assert len(open_data(IMAGES)) == 5


def test_digest_tells_data_apart():
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4), np.array([0, 1])
    expected = hashlib.sha256(b"uint8 (2, 1, 3, 4)\n" + x.tobytes())
    expected.update(b"int64 (2,)\n" + y.astype("<i8").tobytes())
    torch_x = torch.from_numpy(x)
    assert open_data((torch_x, y)).digest == expected.hexdigest()
    variants = [
        torch_x,
        (torch_x, y[::-1]),
        torch_x.reshape(2, 1, 4, 3),
        torch_x.flip(0),
        torch_x.float() / 255,
    ]
    digests = {open_data(v).digest for v in variants} | {expected.hexdigest()}
    assert len(digests) == len(variants) + 1


def test_data_says_what_it_is():
    assert (
        repr(Data("array", torch.zeros(2, 3)))
        == "Data('array', Spec(shape=(3,), count=2, classes=0, condition=(), joined=False), float32)"
    )


# Arrays and files.


def test_layouts_agree():
    x = open_data(IMAGES).x
    assert x.shape == (5, 3, 6, 7) and x.is_contiguous() and x[4, 2, 5, 1] == IMAGES[4, 5, 1, 2]
    for other in (
        IMAGES.transpose(0, 3, 1, 2),
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
    ):
        assert torch.equal(open_data(other).x, x)
    gray = open_data(IMAGES[..., 0]).x
    assert torch.equal(gray, x[:, :1])
    for unusual in ((2, 16, 8, 8), (2, 3, 4, 4), (2, 1, 1, 1)):
        assert open_data(torch.zeros(unusual)).x.shape == unusual
        assert "could be the channels" in refusal(np.zeros(unusual, np.float32))


def test_floats_become_float32():
    values = np.linspace(-1, 1, 2 * 3 * 6 * 7).reshape(2, 3, 6, 7)
    expected = torch.from_numpy(values.astype(np.float32))
    backwards = values[::-1, ::-1].copy()[::-1, ::-1]  # negative strides
    read_only = values.astype(np.float32)
    read_only.flags.writeable = False
    for other in (values, values.astype(">f8"), values.astype(np.longdouble), backwards, read_only):
        x = open_data(other).x
        assert x.dtype == torch.float32 and torch.equal(x, expected)
    assert open_data(values.astype(np.float16)).x.dtype == torch.float32
    assert open_data(torch.from_numpy(values).bfloat16().requires_grad_()).x.requires_grad is False
    vectors = np.array([[1e6, -3.0]])
    assert torch.equal(open_data(vectors).x, torch.tensor([[1e6, -3.0]]))


def test_labels_of_any_integer_type():
    for y in (
        [0, 1, 2, -1, 2],
        np.array([0, 1, 2, -1, 2], np.int8),
        torch.tensor([0, 1, 2, -1, 2], dtype=torch.int16),
    ):
        data = open_data((IMAGES, y))
        assert data.y.dtype == torch.int64 and data.y.tolist() == [0, 1, 2, -1, 2]


def test_conditions_of_several_numbers():
    several = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    for y in (several, several.bool(), several.numpy(), several.double(), several.tolist()):
        data = open_data((IMAGES, y))
        assert data.y.dtype == torch.float32 and torch.equal(data.y, several.float())
        assert data.spec == Spec((3, 6, 7), 5, 0, (3,))
    assert torch.equal(open_data((IMAGES, several * 0.5)).y, several * 0.5)


def test_a_layout_that_is_stated(tmp_path):
    x = np.arange(2 * 7 * 6 * 5, dtype=np.uint8).reshape(2, 7, 6, 5)
    np.savez(tmp_path / "a.npz", x=x, layout="NCHW")
    assert torch.equal(open_data(tmp_path / "a.npz").x, torch.from_numpy(x))
    assert torch.equal(open_data(torch.from_numpy(x)).x, torch.from_numpy(x))
    np.savez(tmp_path / "b.npz", x=x, y=np.arange(2), layout="NHWC")
    assert open_data(tmp_path / "b.npz").spec == Spec((5, 7, 6), 2, 2)
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 4, 8)), layout="NHW")
    assert open_data(tmp_path / "c.npz").x.shape == (2, 1, 4, 8)
    np.savez(tmp_path / "d.npz", x=x, layout="NCL")
    assert "layout 'NCL' for an array of shape (2, 7, 6, 5): give NCHW or NHWC" in refusal(tmp_path / "d.npz")


def test_signals_are_told_from_images():
    for shape, found in (
        ((5, 1, 64), (1, 64)),
        ((5, 4, 8), (4, 8)),
        ((5, 5, 64), (1, 5, 64)),
        ((5, 2, 7), (1, 2, 7)),
    ):
        assert open_data(np.random.RandomState(0).randn(*shape)).spec.shape == found
    assert open_data(np.zeros((5, 2, 50), np.uint8)).spec.shape == (1, 2, 50)  # integers are images


def test_arrays_are_not_copied_without_need():
    x = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    data = open_data(x)
    assert data.x.data_ptr() == x.data_ptr()
    assert data.to("cpu").x.data_ptr() == x.data_ptr()
    assert open_data(data) is data and open_data(data, split="test") is data
    assert data.name == "array"


def test_files(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "b.npz", x=IMAGES, y=np.arange(5))
    np.savez_compressed(tmp_path / "c.npz", IMAGES)
    expected = open_data((IMAGES, np.arange(5)))
    for name, labelled in (("a.npy", False), ("b.npz", True), ("c.npz", False)):
        for source in (tmp_path / name, str(tmp_path / name)):
            data = open_data(source)
            assert data.name == str(tmp_path / name)
            assert torch.equal(data.x, expected.x)
            assert (data.y is not None) == labelled
    assert open_data(tmp_path / "b.npz").digest == expected.digest


def test_a_built_in_name_comes_before_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ring").mkdir()
    assert open_data(" Ring ").name == "ring"
    assert "ring holds no images" in refusal("./ring")
    assert held_out("ring") == held_out(" Ring ").lower() == "ring" and held_out("./ring") is None
    assert held_out("ring[:500]") == "ring" and check("ring[:50]")[0].count == 50
    with pytest.raises(ValueError, match=r"ring: a data set's name, not samples; give a folder, as \./ring"):
        opened("ring")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("ring/1.png")
    assert open_data("./ring").name == os.path.join(".", "ring") == open_data(open_data("./ring").name).name


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((0, 8, 8), np.uint8), "empty"),
        (np.zeros((4, 0)), "empty"),
        (np.zeros((4, 8, 8), np.int64), "type int64 is not supported: give images as uint8"),
        (np.zeros((4, 8), np.uint16), "uint16 data of shape (4, 8) is not images"),
        (np.zeros((4, 8, 8), bool), "type bool"),
        (np.zeros((4, 8), complex), "type complex128"),
        (torch.zeros(4, 8, dtype=torch.int32), "type torch.int32"),
        (np.array([[1, "a"]], object), "type object"),
        (np.array([["a"]]), "type <U1"),
        (np.zeros(4), r"shape (4,) is not supported: give images (N, H, W)"),
        (np.zeros((1, 1, 1, 2, 2), np.uint8), "shape (1, 1, 1, 2, 2)"),
        (np.zeros((4, 784), np.uint8), "reshape it to (N, H, W)"),
        (np.array([[0.0, np.nan]]), "NaN, infinity"),
        (np.array([[0.0, -np.inf]]), "NaN, infinity"),
        (np.array([[0.0, 1e300]]), "beyond float32"),
        (torch.full((2, 1, 8, 8), torch.nan), "NaN"),
        ([1, 2, 3], "type list is not supported: give a built-in name (digits,"),
        (None, "type NoneType"),
        (7, "type int"),
        ((IMAGES,), "type tuple"),
        (([1], [2]), "x of type list"),
        ((IMAGES, [0, 1]), "labels of shape (2,) for 5 examples"),
        ((IMAGES, [0, 1, 2, 3, -2]), "the lowest is -2"),
        ((IMAGES, [0.0] * 5), "labels of type float64"),
        ((IMAGES, 2 * np.eye(5, dtype=int)), "labels of shape (5, 5) are integers beyond 0 and 1"),
        (
            (IMAGES, np.eye(5)[:4]),
            "labels of type float64 are not supported: give integers, 0 to classes - 1, or floats",
        ),
        ((IMAGES, np.full((5, 2), np.nan)), "conditions y hold NaN"),
        ((IMAGES, list("abcde")), "labels of type <U1"),
        ((IMAGES, [[0], [1, 2]]), "one list of integers"),
        ((IMAGES, torch.ones(5, dtype=torch.bool)), "labels of type torch.bool"),
    ],
)
def test_what_cannot_be_used_is_refused(x, said):
    assert said in refusal(x)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digit", "did you mean 'digits'?"),
        ("MNST", "did you mean 'mnist'?"),
        ("grid52", "did you mean 'grid25'?"),
        ("photos", "there are digits, mnist, ring, grid25, grid100, spiral, moons"),
        ("no/such", "no such file"),
        ("nothing.npy", "no such file"),
        ("x" * 5000, "unknown data set"),
        ("a\0b", "unknown data set"),
    ],
)
def test_unknown_names(name, said):
    assert said in refusal(name)


def test_unknown_splits(tmp_path):
    assert "did you mean 'test'?" in refusal("digits", "tset")
    assert "there are train, test" in refusal("digits", "valid")
    np.save(tmp_path / "a.npy", IMAGES)
    for source in (IMAGES, (IMAGES, None), tmp_path / "a.npy"):
        assert "only built-in data sets" in refusal(source, "test")


def test_files_that_cannot_be_used(tmp_path):
    def written(name, contents):
        (tmp_path / name).write_bytes(contents)
        return refusal(tmp_path / name)

    good = io.BytesIO()
    np.savez(good, x=IMAGES)
    objects, pairs = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    np.savez(pairs, images=IMAGES, names=IMAGES)
    huge = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**45, 1, 1)}
    np.lib.format.write_array_header_1_0(huge, header)

    assert "never loaded" in written("objects.npy", objects.getvalue())
    assert "cannot be read" in written("text.npy", b"hello")
    assert "cannot be read" in written("empty.npy", b"")
    assert "cannot be read" in written("half.npz", good.getvalue()[:-30])
    assert "cannot be read" in written("changed.npz", good.getvalue().replace(IMAGES.tobytes()[:9], b"\xff" * 9))
    assert "cannot be read" in written("huge.npy", huge.getvalue())
    assert "holds the arrays images, names: give x" in written("pairs.npz", pairs.getvalue())
    assert "type int64" in (np.save(tmp_path / "i.npy", np.zeros((2, 3), int)), refusal(tmp_path / "i.npy"))[1]
    assert "needed is a file of arrays (.npy or .npz), a folder of images or a .zip" in written("cat.png", b"")
    assert "photos.zip cannot be read as a zip archive" in written("photos.zip", b"hello")


def test_no_object_is_ever_unpickled(tmp_path):
    class Canary:
        def __reduce__(self):
            return Path.touch, (tmp_path / "canary",)

    for name, save in (("a.npy", np.save), ("b.npz", lambda file, x: np.savez(file, x=x))):
        save(tmp_path / name, np.array([Canary()], object))
        assert "never loaded" in refusal(tmp_path / name)
    assert not (tmp_path / "canary").exists()


def test_a_part_of_a_data_set() -> None:
    whole, part = open_data("digits"), open_data("digits[10:250]")
    assert part.name == "digits[10:250]" and open_data(part.name).digest == part.digest != whole.digest
    assert whole.y is not None and part.y is not None
    assert torch.equal(part.x, whole.x[10:250]) and torch.equal(part.y, whole.y[10:250])
    assert len(open_data("digits[:100]")) == 100 and len(open_data("digits[9990:]")) == 10
    assert "there are 10000 examples" in refusal("digits[5:20000]") and "start < stop" in refusal("digits[5:5]")


def test_the_mean_example() -> None:
    data = open_data("digits[:6001]")
    assert data.mean.shape == (1, 28, 28)
    torch.testing.assert_close(data.mean, (data.x.double() / 127.5 - 1).mean(0).float(), rtol=0, atol=1e-6)
