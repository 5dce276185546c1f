"""organza.data.pairs: which image is the condition of which, what is made of one, and what is held out."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from organza.data import Data, added, held_out, open_data
from organza.data.pairs import made
from organza.evaluation import Reference, conditions, reference
from organza.values import signed

NAMES = [f"{code}{suffix}.png" for code in ("1f468", "1f469", "1f3c3", "00a9", "2764") for suffix in ("", "-1f3fb")]


def folder(path: Path, names: list[str], seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> dict[str, np.ndarray]:
    """Write noise by these names."""
    path.mkdir()
    chance = np.random.default_rng(seed)
    images = {name: chance.integers(0, 256, shape, dtype=np.uint8) for name in names}
    for name, image in images.items():
        Image.fromarray(image).save(path / name)
    return images


@pytest.fixture
def two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return folder(Path("a"), NAMES, 0), folder(Path("b"), NAMES, 1)


def pixels(x: torch.Tensor) -> np.ndarray:
    return x.permute(1, 2, 0).numpy()


def test_images_of_one_name_are_pairs(two) -> None:
    data = open_data("a from b")
    assert data.name == "a from b" and data.spec.condition == (3, 8, 8) and not data.spec.joined
    assert sorted(data.files) == sorted(NAMES)
    for x, y, name in zip(data.x, data.y, data.files, strict=True):
        assert (pixels(x) == two[0][name]).all() and (pixels(y) == two[1][name]).all()
    x, y = data.gather(torch.tensor([1]))
    assert y.dtype == torch.float32 and torch.equal(y, data.y[1:2] / 127.5 - 1)
    part = open_data("a[:4] from b[:4]")
    assert torch.equal(part.y, data.y[:4]) and part.files == data.files[:4] and part.name == "a[:4] from b[:4]"


def test_the_ending_of_a_name_does_not_count_and_the_order_is_x_s(two, tmp_path) -> None:
    Path("b", "00a9.png").rename(Path("b", "00a9.bmp"))
    assert torch.equal(open_data("a from b").x, open_data("a").x)


def test_a_part_is_added_to_both_sides(two) -> None:
    assert added("a from b", "[resize=4]") == "a[resize=4] from b[resize=4]"
    assert added("a[:4] and b", "[resize=4]") == "a[:4][resize=4] and b[resize=4]"
    assert added("a from edges", "[resize=4]") == "a[resize=4] from edges"
    assert (added("a", "[resize=4]"), added("a from b", "")) == ("a[resize=4]", "a from b")
    assert added("digits and b", "[resize=28]") == "digits and b[resize=28]"  # of which only files take it
    assert added("x.npy and a", "[resize=4]") == "x.npy and a[resize=4]"
    assert added("digits and mnist", "[resize=4]") == "digits[resize=4] and mnist"  # to be refused
    with pytest.raises(ValueError, match="are for folders and archives"):
        open_data(added("digits from edges", "[resize=14]"))
    assert open_data(added("a from b", "[resize=4]")).spec.condition == (3, 4, 4)


def test_names_that_do_not_agree_are_told(two) -> None:
    def said(source: str) -> str:
        with pytest.raises(ValueError) as caught:
            open_data(source)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    Path("b", "2764.png").unlink()
    assert said("a from b") == "b has no 2764, which a has: pairs are files of one name"
    assert said("b from a") == "b has no 2764, which a has: pairs are files of one name"
    Path("a", "00a9.bmp").write_bytes(Path("a", "00a9.png").read_bytes())
    Path("a", "2764.png").unlink()
    assert "a holds two files named 00a9" in said("a from b")
    folder(Path("c"), NAMES, 2, (8, 10, 3))
    assert "height and width must agree" in said("a from c") and "must be alike" in said("a and c")
    assert "both must be images" in said("ring from edges") and "both must be images" in said("ring and ring")
    assert "names of files" in said("digits from digits[:3]")
    assert "a[:2] from edges" in said("a from edges[:2]")
    assert "unknown data set or file 'nowhere'" in said("a from nowhere")
    with pytest.raises(ValueError, match="split 'test'"):
        open_data("a from b", "test")


def test_a_path_that_exists_is_no_pair(two) -> None:
    for name in ("a from b", "salt and pepper"):
        folder(Path(name), NAMES[:2], 3)
        assert open_data(name).y is None and len(open_data(f"{name}[:1]")) == 1
    assert open_data("salt and pepper from edges").name == "salt and pepper from edges"
    assert open_data("a and a from b").name == "a and a from b"  # the last word beside which both exist
    Path("salt and pepper").rename("pepper")


def test_a_side_may_be_held_out_by_the_first_code_point(two) -> None:
    data, seen = open_data("a"), []
    for fold in range(2):
        part = open_data(f"a[fold%2={fold}]")
        rest = open_data(f"a[fold%2!={fold}]")
        hashes = {name: hashlib.blake2b(name[:-4].partition("-")[0].encode(), digest_size=8).digest() for name in NAMES}
        wanted = [name for name in data.files if int.from_bytes(hashes[name], "little") % 2 == fold]
        assert sorted((*rest.files, *wanted)) == sorted(NAMES)
        assert list(part.files) == wanted and part.name == f"a[fold%2={fold}]"
        seen += wanted
    assert sorted(seen) == sorted(NAMES)
    pair = open_data("a[ fold % 2 != 0 ] from b[fold%2!=0]")
    assert pair.files == open_data("a[fold%2!=0]").files and pair.name == "a[fold%2!=0] from b[fold%2!=0]"
    with pytest.raises(ValueError, match="numbered from 0 to 1"):
        open_data("a[fold%2=2]")
    with pytest.raises(ValueError, match="names of files, and digits has no files"):
        open_data("digits[fold%2=0]")
    with pytest.raises(ValueError, match=r"\[fold%10=0\]"):
        open_data("a[fold=3]")


def test_unpaired_sets_are_joined_in_an_order_that_hides_the_pairs(two) -> None:
    data, a, b = open_data("a and b[:4]"), open_data("a").x, open_data("b[:4]").x
    assert data.y is data.x and data.spec.joined and data.spec.shape == data.spec.condition == (6, 8, 8)
    assert torch.equal(data.x[:, :3], a)
    assert torch.equal(data.x, open_data("a and b[:4]").x)
    places = [next(j for j, image in enumerate(b) if torch.equal(image, x)) for x in data.x[:, 3:]]
    assert sorted(places) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3] and places != sorted(places)
    some = data.rows(torch.tensor([3, 1]))
    assert some.y is some.x and data.to("cpu").spec.joined


GRAY, COLOUR = (torch.rand(2, c, 9, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1 for c in (1, 3))


def test_gray_is_the_luma() -> None:
    torch.testing.assert_close(made("gray", GRAY), GRAY)
    white = torch.ones(1, 3, 4, 4)
    torch.testing.assert_close(made("gray", white), white[:, :1])
    red = torch.tensor([255, 0, 0, 255], dtype=torch.uint8).view(1, 4, 1, 1)
    assert made("gray", red).item() == round(0.299 * 255)
    clear = red * torch.tensor([1, 1, 1, 0], dtype=torch.uint8).view(1, 4, 1, 1)
    assert made("gray", clear).item() == 255 and made("gray", clear[:, [0, 3]]).item() == 255


def test_edges_are_dark_where_the_image_steps() -> None:
    assert torch.equal(made("edges", torch.full((1, 3, 6, 6), 77, dtype=torch.uint8)), torch.full((1, 1, 6, 6), 255))
    step = torch.zeros(1, 1, 6, 6, dtype=torch.uint8)
    step[..., 3:] = 255
    assert made("edges", step)[0, 0].tolist() == [[255, 255, 0, 0, 255, 255]] * 6
    assert torch.equal(made("edges", step), made("edges", 255 - step))
    ramp = (torch.arange(8) / 50).expand(1, 1, 8, 8)  # slope 1/50 in [-1, 1], 1/100 in [0, 1]
    torch.testing.assert_close(made("edges", ramp)[..., 1:-1], torch.full((1, 1, 8, 6), 2 * (1 - 0.02) - 1))


def test_small_keeps_means_and_masked_all_but_the_middle() -> None:
    small = made("small", COLOUR)
    torch.testing.assert_close(small[:, :, :4, :4], COLOUR[:, :, :4, :4].mean((2, 3), True).expand(-1, -1, 4, 4))
    torch.testing.assert_close(small[:, :, 8:, 8:], COLOUR[:, :, 8:, 8:].mean((2, 3), True).expand(-1, -1, 1, 4))
    torch.testing.assert_close(made("small", small), small)
    masked = made("masked", COLOUR)
    assert torch.equal(masked[..., 2:6, 4:8], torch.zeros(2, 3, 4, 4))
    assert int((masked != COLOUR).sum()) == 2 * 3 * 4 * 4


def test_side_by_side_is_cut(tmp_path) -> None:
    images = folder(tmp_path / "p", ["x.png"], 0, (8, 20, 3))
    left, right = (open_data(f"{tmp_path / 'p'} from {side}") for side in ("left", "right"))
    assert torch.equal(left.x, right.y) and torch.equal(left.y, right.x) and left.files == ("x.png",)
    assert (pixels(left.y[0]) == images["x.png"][:, :10]).all()
    with pytest.raises(ValueError, match="15 pixels in width have no two halves"):
        folder(tmp_path / "q", ["x.png"], 0, (8, 15, 3))
        open_data(f"{tmp_path / 'q'} from left")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pairs_of_any_numbers_are_seen_alike(dtype, tmp_path) -> None:
    """Bytes, 16 bits and floats of the same images: x and y come to the networks as the same numbers in [-1, 1]."""
    chance, scale = np.random.default_rng(0), {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    levels = chance.integers(0, 256, (3, 1, 6, 8)).astype(np.uint8)
    levels[:, 0, 0, ::4] = [0, 255]  # in either half, so that floats are scaled alike
    np.save(tmp_path / "a.npy", (levels * np.float64(scale)).astype(dtype))
    seen, whole = torch.from_numpy(levels).float() / 127.5 - 1, f"{tmp_path}/a.npy"
    for source, x, y in (
        ("left", seen[..., 4:], seen[..., :4]),
        ("right", seen[..., :4], seen[..., 4:]),
        ("gray", seen, seen),
    ):
        data = open_data(f"{whole} from {source}")
        for got, wanted in zip(data.gather(torch.arange(3)), (x, y), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
        made = data.values.restore(data.gather(torch.arange(3))[0])
        assert made.dtype == data.x.dtype and torch.allclose(made.float(), data.x.float())
    both = open_data(f"{whole} and {whole}[:2]")
    x, y = both.gather(torch.tensor([2, 0]))
    assert both.spec.joined and x is not y and torch.equal(x, y)
    torch.testing.assert_close(x[:, :1], seen[[2, 0]], atol=1e-5, rtol=0)
    asked = conditions(Reference(both, "all"), 2, 0)
    torch.testing.assert_close(signed(asked), both.gather(torch.arange(2))[1], atol=1e-5, rtol=0)


def test_sets_of_floats_that_are_joined_share_a_scale(tmp_path) -> None:
    x = np.random.default_rng(0).random((3, 1, 6, 6), np.float32)
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", 0.9 * x)
    np.save(tmp_path / "c.npy", 255 * x)
    seen = open_data(f"{tmp_path}/a.npy and {tmp_path}/b.npy").gather(torch.arange(3))[0]
    assert seen[:, 0].max() == 1 and 0.7 < float(seen[:, 1].max()) < 0.9
    with pytest.raises(ValueError, match=r"a.npy span less than a quarter of what both span together"):
        open_data(f"{tmp_path}/a.npy and {tmp_path}/c.npy")


def test_the_built_in_test_data_stay_test_data() -> None:
    test = open_data("digits from edges", "test")
    assert (
        len(test) == 2000 and torch.equal(test.x, open_data("digits", "test").x) and test.spec.condition == (1, 28, 28)
    )
    assert held_out("digits[:50] from edges") == "digits from edges" and held_out("digits[:5]") == "digits"
    assert (
        held_out("digits from small") and held_out("nowhere from edges") is None and held_out(Data("x", GRAY)) is None
    )
    against = reference("digits[:100] from edges")
    assert against.split == "test" and len(against.real) == 2000 and len(against.train) == 100
    assert reference(None, None, "digits[:100] from edges").split == "part"
