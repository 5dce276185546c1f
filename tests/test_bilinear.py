"""Fast layers against PyTorch's own: values and derivatives of first and second order, and what is not computed."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from organza.nn import bilinear
from organza.nn.bilinear import Conv2d, ConvTranspose2d, Linear, conv2d, conv_transpose2d, linear
from organza.nn.mask import Dropout, Largest, Rectifier, rectify

CASES = {
    "linear": (linear, F.linear, ((20, 24), (18, 24), (18,))),
    "linear of maps": (linear, F.linear, ((2, 3, 7), (5, 7), (5,))),
    "conv": (lambda x, w, b: conv2d(x, w, b, 2, 1, 2), lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2),
             ((3, 4, 9, 8), (6, 2, 3, 4), (6,))),
    "conv 1x1": (conv2d, F.conv2d, ((3, 4, 5, 6), (2, 4, 1, 1), (2,))),
    "depthwise": (lambda x, w, b: conv2d(x, w, b, 1, 1, 4), lambda x, w, b: F.conv2d(x, w, b, 1, 1, 1, 4),
                  ((3, 4, 5, 6), (4, 1, 3, 3), (4,))),
    "gray": (lambda x, w, b: conv2d(x, w, b, (2, 1), (1, 2)), lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2)),
             ((3, 1, 9, 8), (16, 1, 3, 4), (16,))),
    "transposed to gray": (lambda x, w, b: conv_transpose2d(x, w, b, 2, 1, 1),
                           lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), ((3, 16, 5, 6), (16, 1, 4, 3), (1,))),
    "many weights for few pixels": (lambda x, w, b: conv2d(x, w, b, (2, 1), (1, 2)),
                                    lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2)),
                                    ((2, 40, 3, 1), (256, 40, 3, 4), (256,))),
    "transposed from one pixel": (lambda x, w, b: conv_transpose2d(x, w, b, (2, 1), (0, 1), (1, 0)),
                                  lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 1), (0, 1), (1, 0)),
                                  ((1, 64, 1, 1), (64, 32, 4, 3), (32,))),
    "transposed": (lambda x, w, b: conv_transpose2d(x, w, b, 2, 1, 1, 2),
                   lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2), ((3, 4, 5, 6), (4, 3, 3, 3), (6,))),
}  # fmt: skip


def derivatives(f, tensors, u, v):
    """f, its gradients along u, and the gradients of those along v."""
    tensors = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    u = u.clone().requires_grad_()
    y = f(*tensors)
    first = torch.autograd.grad(y, tensors, u, create_graph=True)
    total = sum((a * b).sum() for a, b in zip(first, v, strict=True))
    second = torch.autograd.grad(total, [*tensors[:2], u])
    return [y, *first, *second]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "float"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_pytorchs(name, dtype, layout):
    ours, theirs, shapes = CASES[name]
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=dtype) for shape in shapes]
    tensors = [t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in tensors]
    u, v = torch.randn_like(theirs(*tensors)), [torch.randn_like(t) for t in tensors]
    for a, b in zip(derivatives(ours, tensors, u, v), derivatives(theirs, tensors, u, v), strict=True):
        assert torch.allclose(
            a, b, rtol=1e-9 if dtype == torch.float64 else 1e-4, atol=1e-9 if dtype == torch.float64 else 1e-4
        )


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2)])
def test_windows_add_up_where_they_overlap(stride, padding, monkeypatch):
    """Kernels that are whole strides or not, and images that end between two."""
    monkeypatch.setattr(bilinear.Convolution, "_by_windows", lambda *_: True)
    for kernel, height in itertools.product([(1, 1), (1, 3), (2, 4), (3, 2), (4, 5), (5, 1)], (5, 6, 7)):
        x, w = (2, 3, height, 7), torch.randn(4, 3, *kernel, dtype=torch.float64)
        form = bilinear.Convolution(x, tuple(w.shape), stride, (padding, padding), 1)
        y = torch.randn(form.shape(bilinear.Y), dtype=torch.float64)
        found = form.solve(bilinear.X, {bilinear.W: w, bilinear.Y: y}, None)
        assert torch.allclose(found, torch.nn.grad.conv2d_input(x, w, y, stride, padding), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "places"),
    [
        ((64, 512, 4, 4), (1024, 512, 4, 4), "XWY"),
        ((64, 256, 8, 8), (512, 256, 4, 4), "W"),
        ((64, 64, 16, 16), (128, 64, 4, 4), ""),
        ((64, 128, 8, 8), (256, 128, 4, 4), "W"),
        ((32, 64, 14, 14), (128, 64, 4, 4), ""),
        ((64, 3, 32, 32), (64, 3, 4, 4), "X"),
        ((64, 3, 32, 32), (32, 3, 4, 4), ""),
        ((64, 1, 28, 28), (32, 1, 4, 4), "X"),
    ],
)
def test_where_windows_are_faster(x, w, places):
    form = bilinear.Convolution(x, w, (2, 2), (1, 1), 1)
    filled = {bilinear.X: torch.empty(1), bilinear.Y: torch.empty(1)}
    assert "".join(p for i, p in enumerate("XWY") if form._by_windows(i, filled, None)) == places
    assert not form._by_windows(bilinear.W, {at: t.double() for at, t in filled.items()}, None)


@pytest.mark.parametrize(
    ("x", "w", "bias", "stride"),
    [
        ((1, 128, 2, 2), (256, 64, 2, 2), (256,), 1),
        ((1, 32, 6, 6), (4096, 64, 2, 2), (4096,), 6),
        ((1, 64, 4, 4), (64, 64, 6, 6), (64,), 1),
        ((1, 512, 2, 2), (256, 512, 2, 2), (1,), 1),
    ],
    ids=["many channels", "few channels", "small image", "bias"],
)
def test_what_does_not_fit_is_refused(x, w, bias, stride):
    with pytest.raises(RuntimeError):
        conv2d(torch.randn(x), torch.randn(w), torch.randn(bias), stride)


@pytest.mark.parametrize(
    ("y", "w", "stride", "padding"),
    [
        ((2, 64, 4, 4), (64, 3, 4, 4), 2, -1),
        ((2, 8, 1, 1), (8, 3, 1, 1), 1, 1),
        ((2, 64, 2, 2), (64, 3, 2, 2), 1, 2),
        ((2, 64, 4, 4), (64, 3, 0, 4), 1, 0),
    ],
    ids=["negative padding", "no pixel", "less than none", "no window"],
)
def test_what_cannot_be_transposed_is_refused(y, w, stride, padding):
    with pytest.raises(RuntimeError):
        conv_transpose2d(torch.randn(y), torch.randn(w), None, stride, padding)


def test_a_compiler_sees_pytorchs_own_layers(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: True)
    dense = (nn.Flatten(), Linear(128, 8), Largest(2), Dropout(0.5))
    seen, ahead = set(), [nn.Sequential(Conv2d(3, 8, 4, 2, 1), Rectifier(0.2), *dense)(torch.randn(4, 3, 8, 8)).grad_fn]
    while ahead:
        node = ahead.pop()
        seen.add(type(node).__name__.strip("01"))
        ahead += [after for after, _ in node.next_functions if after is not None]
    assert {"ConvolutionBackward", "LeakyReluBackward", "AddmmBackward", "AmaxBackward", "MulBackward"} <= seen
    assert not any(name.startswith("_") for name in seen)


def test_too_much_output_padding_is_refused():
    with pytest.raises(RuntimeError, match="output padding"):
        conv_transpose2d(torch.randn(1, 256, 1, 1), torch.randn(256, 64, 4, 4), None, 1, 0, 1)


@pytest.mark.parametrize("onednn", [False, True])
def test_no_example_has_gradients_of_zero(onednn, monkeypatch):
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: onednn)
    for layer, shape in (
        (Conv2d(64, 32, 3), (0, 64, 5, 5)),
        (Conv2d(1, 32, 3), (0, 1, 5, 5)),
        (Linear(64, 64), (0, 64)),
    ):
        layer(torch.randn(shape)).sum().backward()
        assert not layer.weight.grad.any()


@pytest.mark.parametrize("onednn", [False, True])
def test_matrix_products_by_either_library(onednn, monkeypatch):
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: onednn)
    monkeypatch.setattr(bilinear, "native", lambda x, w: False)
    torch.manual_seed(0)
    tensors = [torch.randn(40, 33), torch.randn(50, 33), torch.randn(50)]
    u, v = torch.randn(40, 50), [torch.randn_like(t) for t in tensors]
    exact = derivatives(F.linear, [t.double() for t in tensors], u.double(), [t.double() for t in v])
    for a, b in zip(derivatives(linear, tensors, u, v), exact, strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-3)


def test_rows_with_gaps_are_closed_before_onednn_sees_them(monkeypatch):
    """Of a part of z, as in a G that splits it: oneDNN has no kernel for a second operand with gaps."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: True)
    monkeypatch.setattr(bilinear, "native", lambda x, w: False)
    dense, multiply = [], torch.ops.mkldnn._linear_pointwise

    def watching(a, b, *rest):
        dense.append(b.is_contiguous() or b.t().is_contiguous())
        return multiply(a, b, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watching)
    torch.manual_seed(0)
    layer, z = Linear(20, 30), torch.randn(40, 64)[:, :20]
    layer(z).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * (z @ layer.weight.t() + layer.bias).t() @ z)
    assert len(dense) == 2 and all(dense)


class Products(TorchDispatchMode):
    """Counts the matrix products that are computed, by whichever node."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return func(*args, **(kwargs or {}))

    def new(self):
        """How many since the last call."""
        count, self.count = self.count, 0
        return count


@pytest.mark.parametrize("native", [True, False])
def test_only_what_is_asked_for_is_computed(native, monkeypatch):
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: False)
    monkeypatch.setattr(bilinear, "native", lambda x, w: native)
    layers = nn.Sequential(Linear(8, 8), Rectifier(0.2), Linear(8, 8))
    x = torch.randn(4, 8, requires_grad=True)
    with Products() as products:
        y = layers(x).sum()
        assert products.new() == 2
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        assert products.new() == 2  # no gradient of a weight
        slope.square().sum().backward(inputs=list(layers.parameters()), retain_graph=True)
        # Both weights', and what comes to the last layer's through the first; x is not asked for.
        assert products.new() == 3
        y.backward(inputs=[layers[0].weight])
        assert products.new() == 2  # through the last layer, and the weight


def test_places_that_are_open_are_those_asked_for(monkeypatch):
    """The same of our own nodes: which contraction, one for each that is computed."""
    monkeypatch.setattr(bilinear, "native", lambda x, w: False)
    places, solve = [], bilinear.Matrix.solve

    def counting(self, place, filled, bias):
        places.append(place)
        return solve(self, place, filled, bias)

    monkeypatch.setattr(bilinear.Matrix, "solve", counting)
    layers = nn.Sequential(Linear(8, 8), Rectifier(0.2), Linear(8, 8))
    x = torch.randn(4, 8, requires_grad=True)
    y = layers(x).sum()
    assert places == [bilinear.Y] * 2
    places.clear()
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    assert places == [bilinear.X] * 2
    places.clear()
    slope.square().sum().backward(inputs=list(layers.parameters()), retain_graph=True)
    assert sorted(places) == [bilinear.W, bilinear.W, bilinear.Y]
    places.clear()
    y.backward(inputs=[layers[0].weight])
    assert sorted(places) == [bilinear.X, bilinear.W]


@pytest.mark.parametrize(("size", "own"), [(15, True), (100, True), (200, False)])
def test_large_products_alone_are_worth_other_nodes(size, own, monkeypatch):
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: True)
    x, w = torch.randn(size, size), torch.randn(size, size)
    assert bilinear.native(x, w) is own
    assert bilinear.native(x.double(), w.double())
    assert bilinear.native(x, w[:, 1:])  # which PyTorch refuses
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: False)
    assert bilinear.native(x, w)


def test_a_bias_of_another_size_is_pytorchs_to_judge(monkeypatch):
    monkeypatch.setattr(bilinear, "_by_onednn", lambda: True)
    x, w = torch.randn(200, 200), torch.randn(200, 200)
    assert torch.equal(linear(x, w, torch.ones(1)), F.linear(x, w, torch.ones(1)))
    with pytest.raises(RuntimeError):
        linear(x, w, torch.ones(3))


def test_an_engine_that_does_not_say_gets_all(monkeypatch):
    monkeypatch.setattr(bilinear, "native", lambda x, w: False)
    monkeypatch.setattr(torch._C, "_will_engine_execute_node", lambda node: False)
    layer, x = Linear(8, 8), torch.randn(4, 8, requires_grad=True)
    layer(x).sum().backward()
    assert all(t.grad is not None for t in (x, layer.weight, layer.bias))


def test_without_gradients_nothing_is_kept():
    x = torch.randn(4, 8)
    layer = Linear(8, 8)
    with torch.no_grad():
        assert layer(x).grad_fn is None
    assert layer.requires_grad_(False)(x).grad_fn is None


@pytest.mark.parametrize(
    ("ours", "theirs", "x"),
    [
        (Conv2d(3, 6, 3, 2, 1), nn.Conv2d(3, 6, 3, 2, 1), torch.randn(2, 3, 9, 9)),
        (ConvTranspose2d(3, 6, 4, 2, 1), nn.ConvTranspose2d(3, 6, 4, 2, 1), torch.randn(2, 3, 5, 5)),
        (Linear(5, 4, bias=False), nn.Linear(5, 4, bias=False), torch.randn(2, 5)),
    ],
    ids=["conv", "transposed", "linear"],
)
def test_layers_have_pytorchs_names_and_values(ours, theirs, x):
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_rectifier(slope):
    torch.manual_seed(0)
    x, v = torch.randn(50, dtype=torch.float64, requires_grad=True), torch.randn(50, dtype=torch.float64)
    y = rectify(x, slope)
    assert torch.equal(y, torch.where(x > 0, x, slope * x))
    (g,) = torch.autograd.grad(y, x, v, create_graph=True)
    assert torch.equal(g, torch.where(x > 0, v, slope * v))
    assert not g.requires_grad  # constant in x, and v has no history
    w = v.clone().requires_grad_()
    (g,) = torch.autograd.grad(rectify(x, slope), x, w, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), w)
    assert torch.equal(h, torch.where(x > 0, torch.ones_like(x), slope * torch.ones_like(x)))


def test_a_rectifier_after_a_flatten_keeps_the_layout():
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    (g,) = torch.autograd.grad((rectify(x, 0.2).flatten(1) * torch.randn(2, 48)).sum(), x)
    assert g.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("p", [0.0, 0.001, 0.3, 0.5, 0.9, 0.999])
def test_dropout_is_inverted_dropout(p):
    torch.manual_seed(0)
    x = torch.ones(401, 500, requires_grad=True)
    y = Dropout(p)(x)
    share = float((y == 0).double().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-8  # one call's threshold is a byte
    assert set(y.detach().unique().tolist()) <= {0.0, float(torch.tensor(1 / (1 - p)))}
    columns = (y == 0).double().mean(0)  # no structure of words of eight
    assert float((columns - share).abs().max()) < 6 * (share * (1 - share) / 401) ** 0.5 + 1e-9
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(g, y.detach())
    assert Dropout(p).eval()(x) is x or torch.equal(Dropout(p).eval()(x), x)
    shares = torch.stack([(Dropout(p)(x) == 0).double().mean() for _ in range(200)])
    assert abs(float(shares.mean()) - p) < 5 * 2**-9 / 200**0.5 + 5 * (p * (1 - p) / x.numel() / 200) ** 0.5


def test_under_transforms_of_functions():
    """torch.func's transforms see PyTorch's own layers; the Jacobian is that of ours."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(Conv2d(2, 4, 3, 1, 1), Rectifier(0.2), ConvTranspose2d(4, 3, 4, 2, 1), Rectifier(), nn.Flatten(0)),
        *(Linear(3 * 8 * 8, 20), Rectifier(0.2), Linear(20, 5)),
    ).double()  # fmt: skip
    x = torch.randn(2, 4, 4, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(net, x)
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    found = torch.func.jacrev(lambda at: torch.func.functional_call(net, weights, (at,)))(x)
    assert torch.allclose(found, expected, atol=1e-10)
    batch = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    assert torch.allclose(torch.vmap(net)(batch), torch.stack([net(each) for each in batch]), atol=1e-10)


@pytest.mark.parametrize(
    ("ours", "theirs", "size"),
    [
        (Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), ()),
        (Conv2d(3, 4, 3, padding="same"), nn.Conv2d(3, 4, 3, padding="same"), ()),
        (Conv2d(3, 4, 3, dilation=2), nn.Conv2d(3, 4, 3, dilation=2), ()),
        (ConvTranspose2d(3, 4, 3, 2), nn.ConvTranspose2d(3, 4, 3, 2), ([14, 14],)),
        (ConvTranspose2d(3, 4, 3, dilation=2), nn.ConvTranspose2d(3, 4, 3, dilation=2), ()),
    ],
    ids=["reflect", "same", "dilated", "of a size", "dilated, transposed"],
)
def test_what_the_forms_do_not_know_is_pytorchs(ours, theirs, size):
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 6, 6)
    assert torch.allclose(ours(x, *size), theirs(x, *size), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "x", "said"),
    [
        (Linear(30, 18), torch.randn(20, 24), "cannot be multiplied"),
        (Conv2d(4, 6, 3), torch.randn(2, 5, 8, 8), "to have 4 channels, but got 5"),
        (ConvTranspose2d(4, 6, 3), torch.randn(2, 5, 8, 8), "to have 4 channels, but got 5"),
    ],
    ids=["linear", "conv", "transposed"],
)
def test_what_does_not_fit_is_said_clearly(layer, x, said):
    with pytest.raises(RuntimeError, match=said):
        layer(x)


def test_maxout():
    torch.manual_seed(0)
    x = torch.randn(3, 8, 2, dtype=torch.float64, requires_grad=True)
    y = Largest(4)(x)
    assert torch.equal(y, x.unflatten(1, (4, 2)).amax(1)) and y.shape == (3, 2, 2)
    assert torch.autograd.gradcheck(Largest(4), x) and torch.autograd.gradgradcheck(Largest(4), x)
    v = torch.randn_like(y)
    (ours,) = torch.autograd.grad(y, x, v)
    (theirs,) = torch.autograd.grad(x.unflatten(1, (4, 2)).amax(1), x, v)
    assert torch.equal(ours, theirs)
    tied = torch.ones(1, 4, requires_grad=True)
    (g,) = torch.autograd.grad(Largest(2)(tied).sum(), tied)
    assert torch.equal(g, torch.full_like(tied, 0.5))
