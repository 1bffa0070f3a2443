"""The fast linear map: the host's numbers, gradients as ever, and weights that are never out of date."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import madtp.model.linear
from madtp.cost.memory import peak_bytes
from madtp.model.linear import (
    PART,
    SMALL,
    FastLinear,
    FastPatches,
    hasten,
    in_parts,
    linear,
    pack_weights,
    packable,
    spare_rows,
    together,
    unpack_weights,
    with_spare_rows,
)
from madtp.model.presets import random_inputs
from madtp.model.shape import CLASSES, kind_of
from small import nano, nano_model

WIDTH, OUT = 521, 509  # enough weights for oneDNN


@pytest.fixture
def onednn_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps go through oneDNN too, as large ones do."""
    monkeypatch.setattr(madtp.model.linear, "SMALL", 1)


@pytest.fixture
def layer() -> FastLinear:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Linear(WIDTH, OUT))
    hasten(layers)
    return layers[0]


def exact(layer: nn.Linear, x: Tensor) -> Tensor:
    assert layer.bias is not None
    return (x.double() @ layer.weight.double().T + layer.bias.double()).detach()


@pytest.mark.parametrize("shape", [(1, WIDTH), (2, WIDTH), (101, WIDTH), (5, 7, WIDTH), (0, WIDTH)])
@pytest.mark.parametrize("packed", [False, True])
def test_the_hosts_numbers(layer: FastLinear, shape: tuple[int, ...], packed: bool) -> None:
    if packed:
        pack_weights(layer)
        assert layer.packed is not None
    x = torch.randn(shape)
    with torch.inference_mode():
        got = layer(x)
    assert got.shape == (*shape[:-1], OUT)
    torch.testing.assert_close(got.double(), exact(layer, x), atol=3e-5, rtol=0)


def test_rows_that_lie_apart(layer: FastLinear) -> None:
    x = torch.randn(13, 3, WIDTH)[:, 1]
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), exact(layer, x), atol=3e-5, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 3, 13, 22), (1, 3, 11, 5), (0, 3, 10, 10)])
def test_patches_are_the_convolution(size: tuple[int, ...], bias: bool, onednn_for_all: None) -> None:
    torch.manual_seed(5)
    layers = nn.Sequential(nn.Conv2d(3, 17, (5, 3), stride=(5, 3), bias=bias))
    host = copy.deepcopy(layers[0])
    hasten(layers)
    assert type(layers[0]) is FastPatches
    x = torch.randn(size)
    with torch.inference_mode():
        fast, slow = layers[0](x), host(x)
    assert fast.shape == slow.shape
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)
    x.requires_grad_()
    grown = layers[0](x)
    grown.sum().backward()
    assert torch.equal(grown, host(x)) and x.grad is not None


@pytest.mark.parametrize("size", [(2, 3, 4, 22), (2, 3, 22, 2), (2, 4, 13, 22)])
def test_what_the_convolution_refuses_is_refused(size: tuple[int, ...], onednn_for_all: None) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 17, (5, 3), stride=(5, 3)))
    hasten(layers)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"Kernel size|channels"):
        layers(torch.randn(size))
    with torch.inference_mode():
        assert layers(torch.randn(3, 13, 22)).shape == (17, 2, 7)


@pytest.mark.parametrize("other", [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 3}])
def test_other_convolutions_are_left_alone(other: dict[str, int]) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 9, 5, **{"stride": 5, **other}))
    hasten(layers)
    assert type(layers[0]) is nn.Conv2d


def test_gradients_flow_and_see_new_weights_though_packed(layer: FastLinear) -> None:
    pack_weights(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    x = torch.randn(5, WIDTH, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0).expand(5, -1))
    torch.testing.assert_close(layer(x).double(), exact(layer, x), atol=3e-5, rtol=0)


def test_packing_again_sees_new_weights_and_copies_carry_none(layer: FastLinear) -> None:
    pack_weights(layer)
    old = layer.packed
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert isinstance(other, FastLinear) and other.packed is None
        assert torch.equal(other.weight, layer.weight)
    assert layer.packed is old and "packed" not in layer.state_dict()
    x = torch.randn(5, WIDTH)
    with torch.no_grad():
        layer.weight.add_(0.3)
        pack_weights(layer)
        torch.testing.assert_close(layer(x).double(), exact(layer, x), atol=3e-5, rtol=0)
        unpack_weights(layer)
        assert layer.packed is None
        torch.testing.assert_close(layer(x).double(), exact(layer, x), atol=3e-5, rtol=0)


def products(maps: tuple[nn.Module, ...], x: Tensor) -> tuple[list[Tensor], int]:
    """What `together` makes, and of how many products."""
    made: list[Tensor] = []
    product = madtp.model.linear.product
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(madtp.model.linear, "product", lambda *each: made.append(product(*each)) or made[-1])
        out = together(maps, x)
    return out, len(made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_maps_that_meet_go_as_one(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(*(nn.Linear(WIDTH, out) for out in (OUT, 307, 311))).to(dtype)
    hasten(model)
    maps, x = tuple(model), torch.randn(37, WIDTH).to(dtype)
    alone = not packable(model[0].weight)  # a machine that does not compute in this type
    close = {"atol": 3e-5, "rtol": 1e-5} if dtype is torch.float32 else {"atol": 3e-2, "rtol": 1e-2}

    def check(expected: int) -> None:
        out, count = products(maps, x)
        assert alone or count == expected
        for got, each in zip(out, maps, strict=True):
            wide = x.double() @ each.weight.double().T + each.bias.double()
            torch.testing.assert_close(got.double(), wide, **close)

    check(3)
    pack_weights(model)
    check(1)
    assert all(each.packed is None for each in maps)  # not held three times
    assert copy.deepcopy(model[0]).joint is None
    out, _ = products((maps[0], maps[2]), x)  # others than have met go one by one
    torch.testing.assert_close(out[1].float(), F.linear(x, maps[2].weight, maps[2].bias).float(), atol=3e-2, rtol=0)
    with torch.no_grad():
        maps[1].weight.add_(0.3)
    pack_weights(model)
    check(1)
    maps[2].bias = nn.Parameter(torch.ones(311, dtype=dtype))
    check(3)
    pack_weights(model)
    check(1)
    unpack_weights(model)
    check(3)


def test_maps_that_are_watched_or_without_bias_go_by_themselves(layer: FastLinear) -> None:
    other = copy.deepcopy(layer)
    model, x = nn.ModuleList([layer, other]), torch.randn(5, WIDTH)
    pack_weights(model)
    assert products((layer, other), x)[1] == 1
    seen: list[Tensor] = []
    handle = other.register_forward_hook(lambda *each: seen.append(each[2]))
    assert products((layer, other), x)[1] == 2 and len(seen) == 1
    handle.remove()
    assert products((layer, other), x)[1] == 1
    other.bias = None
    pack_weights(model)
    out, count = products((layer, other), x)
    assert count == 2 and layer.joint is None
    torch.testing.assert_close(out[1], F.linear(x, other.weight), atol=3e-5, rtol=0)


def test_what_onednn_does_not_take_goes_the_ordinary_way(layer: FastLinear) -> None:
    assert packable(layer.weight) and not packable(layer.weight.to("meta"))
    layer.double()
    pack_weights(layer)
    assert layer.packed is None
    x = torch.randn(5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
        assert torch.equal(linear(x, layer.weight), x @ layer.weight.T)


def test_autocast_decides_the_type(layer: FastLinear) -> None:
    pack_weights(layer)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(5, WIDTH)).dtype is torch.bfloat16


def test_small_maps_are_left_to_torch() -> None:
    layer = FastLinear(29, 31)
    x = torch.randn(7, 29)
    assert layer.weight.numel() < SMALL <= WIDTH * OUT and not packable(layer.weight)
    with torch.inference_mode():
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert packable(layer.weight.bfloat16()) == packable(torch.randn(WIDTH, OUT).bfloat16())


def test_maps_of_the_same_tokens_at_once(layer: FastLinear) -> None:
    x = torch.randn(19, WIDTH)
    other = FastLinear(WIDTH, 7)
    with torch.inference_mode():
        for got, each in zip(together((layer, other), x), (layer, other), strict=True):
            assert len(got) == 19
            torch.testing.assert_close(got.double(), exact(each, x), atol=3e-5, rtol=0)
    assert all(got.requires_grad for got in together((layer, other), x))


@pytest.mark.usefixtures("onednn_for_all")
@pytest.mark.parametrize("kind", CLASSES)
def test_a_models_numbers_through_onednn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nano(kind, temperature=8.0).eval()
    inputs = random_inputs(kind, model.config, 3, 7)

    def run() -> list[tuple[Tensor, Tensor | None]]:
        with torch.inference_mode():
            blocks = model.encode(**inputs).trace.blocks
        assert any(bool((block.tokens_out < block.tokens_in).any()) for block in blocks)
        return [(block.tokens_out, block.threshold) for block in blocks]

    laid_out, packed = run(), model.pack_weights() and run()
    unpack_weights(model)
    monkeypatch.setattr(madtp.model.linear, "SMALL", SMALL)
    plain = run()
    torch.testing.assert_close(laid_out, plain)
    torch.testing.assert_close(packed, plain)


@pytest.mark.usefixtures("onednn_for_all")
def test_a_model_lets_go_when_its_weights_may_change() -> None:
    model = nano_model().eval()
    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert maps and all(isinstance(module, FastLinear) for module in maps)

    def packed() -> int:
        return sum(module.packed is not None for module in maps if isinstance(module, FastLinear))

    names = list(model.state_dict())
    assert model.pack_weights() is model and packed() == len(maps) and list(model.state_dict()) == names
    model.eval()
    assert packed() == len(maps)
    model.train()
    assert packed() == 0

    def joints() -> int:
        with torch.inference_mode():
            model.encode(**random_inputs(kind_of(model), model.config, 2, 5))
        return sum(module.joint is not None for module in maps if isinstance(module, FastLinear))

    for change in (model.train, lambda: model.to(torch.float64)):
        assert model.eval().pack_weights() is model and joints() and packed()
        change()
        assert packed() == 0 and not any(module.joint for module in maps if isinstance(module, FastLinear))


@pytest.mark.parametrize("rows", [0, 7, PART, PART + 1, 2 * PART + 13])
def test_parts_are_the_whole(rows: int) -> None:
    torch.manual_seed(5)
    values = torch.randn(rows, 3)
    inner, outer = torch.randn(3, 53), torch.randn(53, 3)

    def work(part: Tensor) -> Tensor:
        return part + (part @ inner).relu() @ outer

    with torch.no_grad():
        torch.testing.assert_close(in_parts(work, values), work(values), atol=1e-4, rtol=0)
        # what lies between is that of one part, however many rows there are
        between = min(rows, PART) * 4 * (2 * 53 + 2 * 3)
        assert peak_bytes(lambda: in_parts(work, values)) <= values.nbytes + between
    values.requires_grad_(True)
    with torch.enable_grad():
        assert in_parts(work, values).requires_grad


@pytest.mark.usefixtures("onednn_for_all")
def test_few_numbers_of_rows() -> None:
    made = {rows + spare_rows(rows) for rows in range(1, PART + 1)}
    assert len(made) <= 136 and max(made) == PART
    for rows in range(1, 3 * PART):
        assert 0 <= spare_rows(rows) <= rows / 11 * (rows > 32)
    layer = FastLinear(3, 5).eval()
    with torch.no_grad():
        for packed in (None, torch.ops.mkldnn._reorder_linear_weight(layer.weight)):
            layer.packed = packed
            for rows in (0, 1, 7, 33, 63, 65, 257, PART - 1, PART + 1):
                x = torch.randn(rows, 3)
                assert layer(x).shape == (rows, 5)
                filled = with_spare_rows(x)
                assert torch.equal(filled[:rows], x) and len(filled) == rows + spare_rows(rows)
                assert not filled[rows:].any()
                torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.usefixtures("onednn_for_all")
def test_a_lone_row_takes_packed_weights() -> None:
    layer, x = FastLinear(3, 5).eval(), torch.randn(1, 3)
    with torch.no_grad():
        other = layer.weight * 7
        layer.packed = torch.ops.mkldnn._reorder_linear_weight(other)  # tells which of the two was read
        torch.testing.assert_close(layer(x), F.linear(x, other, layer.bias))
