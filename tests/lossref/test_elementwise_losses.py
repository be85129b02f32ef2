"""Every elementwise loss against the oracle and against what all of them promise."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elementwise_cases import CASES, arrange, inputs_of
from loss_checks import refused, value_and_gradient
from loss_oracle import FLOATS, exact, one_format_up, worst

import lossref

PARAMETERS = [pytest.param(case, id=name) for name, case in CASES.items()]


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_value_and_gradient_hold_their_bounds(case, dtype, place, generator):
    x, t = inputs_of(case, dtype, generator)
    options = arrange(case, dtype, place)
    got, gradient = value_and_gradient(
        case.loss, x.to(place), t.to(place), reduction="none", **options
    )
    # Sums and means take another way to the gradient.
    _, of_sum = value_and_gradient(case.loss, x.to(place), t.to(place), reduction="sum", **options)
    pairs = list(zip(exact(x), exact(t), strict=True))
    for results, formula, scale, bound in (
        ((got,), case.value, case.scale, case.bounds[0]),
        ((gradient, of_sum), case.slope, case.slope_scale, case.bounds[1]),
    ):
        expected = [formula(*pair) for pair in pairs]
        floor = scale and [scale(*pair) for pair in pairs]
        if dtype != torch.float64:
            bound = 1
            floor = floor and one_format_up(floor, dtype)
        for result in results:
            assert worst(result, expected, floor=floor) <= bound


@pytest.mark.parametrize("case", PARAMETERS)
def test_masked_entries_touch_nothing_whatever_they_hold(case, generator):
    x, t = inputs_of(case, torch.float64, generator)
    keep = torch.rand(len(x), generator=generator) > 0.3
    options = arrange(case, torch.float64)
    # Under a mask of their own, since without one the gradient has other roundings.
    kept = value_and_gradient(case.loss, x[keep], t[keep], mask=keep[keep], **options)
    for poison in (math.nan, math.inf, -math.inf):
        x[~keep], t[~keep] = poison, poison
        got = value_and_gradient(case.loss, x, t, mask=keep, **options)
        torch.testing.assert_close(got[0], kept[0], rtol=1e-14, atol=0)
        torch.testing.assert_close(got[1][keep], kept[1], rtol=1e-14, atol=0)
        assert torch.equal(got[1][~keep], torch.zeros_like(got[1][~keep]))


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_mean_over_nothing_is_zero(case):
    x = torch.full((3,), torch.nan)
    mask = torch.zeros(3, dtype=torch.bool)
    got, gradient = value_and_gradient(case.loss, x, x, mask=mask, **arrange(case, torch.float32))
    assert got == 0
    assert torch.equal(gradient, torch.zeros(3))
    options = arrange(case, torch.float32)
    assert case.loss(x, x, mask=mask, nan_if_empty=True, **options).isnan()
    assert case.loss(x[:0], x[:0], **options) == 0


@pytest.mark.parametrize("case", PARAMETERS)
def test_reductions_weights_and_shapes(case, generator):
    x, t = inputs_of(case, torch.float64, generator, count=50)
    x, t = x[:50], t[:50]
    options = arrange(case, torch.float64)
    each = case.loss(x, t, reduction="none", **options)
    finite = each.isfinite()
    x, t, each = x[finite], t[finite], each[finite]
    torch.testing.assert_close(case.loss(x, t, reduction="sum", **options), each.sum())
    torch.testing.assert_close(case.loss(x, t, **options), each.mean())
    torch.testing.assert_close(case.loss(x, t, denominator=7, **options), each.sum() / 7)
    weight = torch.rand(len(x), generator=generator, dtype=torch.float64)
    weighted = case.loss(x, t, weight=weight, reduction="none", **options)
    torch.testing.assert_close(weighted, each * weight)
    grid = torch.stack([x, x]).T
    same = case.loss(grid, torch.stack([t, t]).T, reduction="none", **options)
    torch.testing.assert_close(same, torch.stack([each, each]).T, rtol=1e-15, atol=0)


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_gets_the_same_bits(case, dtype, generator):
    x, t = inputs_of(case, torch.float64, generator, count=20)
    x, t = x.numpy().astype(dtype), t.numpy().astype(dtype)
    options = {
        name: np.asarray(value, dtype) if name == "pos_weight" else value
        for name, value in case.options.items()
    }
    value, gradient = lossref.value_and_grad(case.loss)(x, t, reduction="none", **options)
    assert isinstance(value, np.ndarray)
    assert value.dtype == gradient.dtype == dtype
    tensors = arrange(case, torch.from_numpy(x).dtype)
    expected = value_and_gradient(
        case.loss, torch.from_numpy(x), torch.from_numpy(t), reduction="none", **tensors
    )
    assert np.array_equal(value, expected[0].detach().numpy())
    assert np.array_equal(gradient, expected[1].numpy())


@pytest.mark.parametrize("case", PARAMETERS)
def test_derivatives_to_every_input_and_of_the_second_order(case, generator):
    x = torch.rand(6, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    t = {
        "binary": torch.tensor([0.0, 1.0] * 3),
        "signs": torch.tensor([1.0, -1.0] * 3),
        "soft": torch.rand(6, generator=generator) * 0.9 + 0.05,
        "real": torch.randn(6, generator=generator) * 0.4,
    }[case.targets].double()
    options = arrange(case, torch.float64)
    differentiable = case.targets == "real" or (
        case.targets == "soft" and case.loss is not lossref.sigmoid_focal_loss
    )
    inputs = (x.requires_grad_(), t.requires_grad_(differentiable))

    def loss(x, t):
        return case.loss(x, t, reduction="none", **options)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize("case", PARAMETERS)
def test_transforms_of_torch_func(case, generator):
    x, t = inputs_of(case, torch.float64, generator, count=3)
    x, t = x[:6].reshape(2, 3), t[:6].reshape(2, 3)
    options = arrange(case, torch.float64)

    def loss(x, t):
        return case.loss(x, t, **options)

    expected = torch.stack([loss(a, b) for a, b in zip(x, t, strict=True)])
    torch.testing.assert_close(torch.func.vmap(loss)(x, t), expected)
    got = torch.func.vmap(torch.func.grad(loss))(x, t)
    expected = torch.stack([torch.func.grad(loss)(a, b) for a, b in zip(x, t, strict=True)])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("over", [(0, 0), (None, 0), (0, None)])
def test_vmap_over_either_input_of_more_than_a_chunk(case, over, generator, monkeypatch):
    x, t = inputs_of(case, torch.float64, generator, count=3)
    x, t = torch.stack([x, x.flip(0)]), torch.stack([t, t])
    options = arrange(case, torch.float64)
    monkeypatch.setitem(lossref._rows.CHUNK_ELEMENTS, "cpu", 8)

    def loss(x, t):
        return case.loss(x, t, reduction="none", **options)

    inputs = [value if axis == 0 else value[0] for value, axis in zip((x, t), over, strict=True)]
    each = [
        loss(*(v[row] if axis == 0 else v for v, axis in zip(inputs, over, strict=True)))
        for row in range(2)
    ]
    got = torch.func.vmap(loss, in_dims=over)(*inputs)
    torch.testing.assert_close(got, torch.stack(each), equal_nan=True)


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_gradient_kept_from_the_forward_pass_is_scaled_without_loss(case, dtype, generator):
    x, t = inputs_of(case, dtype, generator)
    options = arrange(case, dtype)
    x.requires_grad_()
    each = case.loss(x, t, reduction="none", **options)
    for reduction, scale in (("sum", 1.0), ("mean", 1 / 64)):
        of_mean = {"denominator": 64} if reduction == "mean" else {}
        of_mean |= {"reduction": reduction}
        whole = case.loss(x, t, **of_mean, **options)
        torch.testing.assert_close(whole, (each.double().sum() * scale).to(dtype))

        def gradient(factor, of_mean=of_mean):
            # Anew, since the kept gradient is given away once.
            return torch.autograd.grad(case.loss(x, t, **of_mean, **options) * factor, x)[0]

        for factor in (3.0, -1.0, 2.0**14):
            (anew,) = torch.autograd.grad(
                each, x, torch.full_like(each, factor * scale), retain_graph=True
            )
            assert torch.equal(gradient(factor).nan_to_num(), anew.nan_to_num())
        limits = torch.finfo(dtype)
        torch.testing.assert_close(
            gradient(0.25),
            gradient(1.0) * 0.25,
            rtol=0,
            atol=limits.tiny * limits.eps,
            equal_nan=True,
        )


@pytest.mark.parametrize("case", PARAMETERS)
def test_chunks_change_no_bit_and_inputs_stay(case, generator, monkeypatch):
    x, t = inputs_of(case, torch.float32, generator)
    copies = x.clone(), t.clone()
    options = arrange(case, torch.float32)
    whole = value_and_gradient(case.loss, x, t, reduction="none", **options)
    whole += value_and_gradient(case.loss, x, t, reduction="sum", **options)
    monkeypatch.setitem(lossref._rows.CHUNK_ELEMENTS, "cpu", 28)
    chunked = value_and_gradient(case.loss, x, t, reduction="none", **options)
    chunked += value_and_gradient(case.loss, x, t, reduction="sum", **options)
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(a, b, rtol=1.2e-7, atol=0, equal_nan=True)
    assert torch.equal(x, copies[0])
    assert torch.equal(t, copies[1])


@pytest.mark.parametrize("case", PARAMETERS)
def test_column_against_vector_is_refused(case):
    x = torch.full((4,), 0.5)
    t = torch.ones(4, 1)
    wrong = r"target must have shape \(4,\).*but has shape \(4, 1\); squeeze or reshape"
    refused(ValueError, wrong, case.loss, x, t, **arrange(case, torch.float32))
    refused(TypeError, r"dtype", case.loss, x, x.double(), **arrange(case, torch.float32))


def test_a_weighted_huber_mean_divides_by_the_weights_unlike_pytorch():
    x, t, weight = torch.tensor([1.0, 3.0]), torch.zeros(2), torch.tensor([1.0, 3.0])
    assert lossref.huber_loss(x, t, weight=weight) == (0.5 + 3 * 2.5) / 4
    assert F.huber_loss(x, t, weight=weight) == (0.5 + 3 * 2.5) / 2


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (3, 4), (2, 3, 4), (2, 1, 1)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_pos_weight_of_every_broadcastable_shape(shape, reduction, generator):
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    t = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    pos_weight = torch.rand(shape, generator=generator, dtype=torch.float64) * 5
    for weight in (None, torch.rand(4, generator=generator, dtype=torch.float64)):
        options = {"pos_weight": pos_weight, "reduction": reduction, "weight": weight}
        got = value_and_gradient(lossref.binary_cross_entropy_with_logits, x, t, **options)
        expected = value_and_gradient(F.binary_cross_entropy_with_logits, x, t, **options)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"denominator": 7}])
def test_backward_of_a_sum_or_mean_takes_no_second_pass(case, options, generator, monkeypatch):
    x, t = inputs_of(case, torch.float32, generator)
    x.requires_grad_()
    total = case.loss(x, t, **options, **arrange(case, torch.float32))
    monkeypatch.delattr(lossref._elementwise, "pullback")
    (total / 4).backward()
    assert x.grad.count_nonzero() > 0


def test_the_sum_of_tiny_losses_keeps_every_digit():
    for count in range(1, 18):
        x = torch.full((count,), 80.0, dtype=torch.float64, requires_grad=True)
        got = lossref.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="sum")
        assert math.isclose(got.item(), count * math.exp(-80.0), rel_tol=1e-15)


BINARY_LOSSES = {
    "bce": lossref.binary_cross_entropy_with_logits,
    "focal": lossref.sigmoid_focal_loss,
    "focal, alpha": partial(lossref.sigmoid_focal_loss, alpha=0.25, gamma=5),
    "focal, root": partial(lossref.sigmoid_focal_loss, alpha=0.9, gamma=0.5),
}


@pytest.mark.parametrize("loss", BINARY_LOSSES.values(), ids=BINARY_LOSSES)
@pytest.mark.parametrize("unsure", [0.0, 1e-30, 0.3], ids=["certain", "tiny", "soft"])
@pytest.mark.parametrize(
    ("low", "high"),
    [(-3, 3), (-103, -70), (-40, -15), (17, 20), (19, 22), (34, 40), (-9e3, 9e3), (0, 0)],
)
def test_float32_sums_are_exact_however_wrong_or_certain(loss, unsure, low, high, generator):
    for count in (1, 31, 32, 33, 700):
        t = torch.randint(2, (count,), generator=generator).float()
        wrong = torch.rand(count, generator=generator) * (high - low) + low
        x = torch.where(t == 1, -wrong, wrong)
        t[0] = t[0] or unsure
        exact_losses, exact_slopes = value_and_gradient(
            loss, x.double(), t.double(), reduction="none"
        )
        got, slopes = value_and_gradient(loss, x, t, reduction="sum")
        for result, expected in ((got, exact_losses.detach().sum()), (slopes, exact_slopes)):
            ulp = np.spacing(np.abs(expected.float().numpy()))
            error = (result.detach().double() - expected).abs().numpy()
            assert np.all(error <= ulp)


def test_infinite_logits_in_a_sum():
    x = torch.tensor([math.inf, -math.inf, 0.0], requires_grad=True)
    t = torch.tensor([1.0, 0.0, 1.0])
    for loss in (lossref.binary_cross_entropy_with_logits, lossref.sigmoid_focal_loss):
        total = loss(x, t, reduction="sum")
        assert total == loss(x[2:], t[2:], reduction="sum")
        assert torch.autograd.grad(total, x)[0][:2].tolist() == [0.0, 0.0]
        assert loss(x, 1 - t, reduction="sum") == math.inf
        assert loss(x * math.nan, t, reduction="sum").isnan()


def test_certain_probabilities():
    p, t = torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    got, gradient = value_and_gradient(lossref.binary_cross_entropy, p, t, reduction="none")
    assert got.tolist() == [0.0, 0.0, math.inf, math.inf]
    assert gradient.tolist() == [1.0, -1.0, math.inf, -math.inf]


def test_infinite_logits():
    x = torch.tensor([math.inf, -math.inf, math.inf, -math.inf])
    t = torch.tensor([1.0, 0.0, 0.0, 1.0])
    for loss in (lossref.binary_cross_entropy_with_logits, lossref.sigmoid_focal_loss):
        got, gradient = value_and_gradient(loss, x, t, reduction="none")
        assert got.tolist() == [0.0, 0.0, math.inf, math.inf]
        assert gradient.tolist() == [0.0, 0.0, 1.0, -1.0]


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinite_logits_of_asymmetric_loss(dtype):
    """Once the gradient of a certainly wrong negative was NaN where nothing is clipped."""
    x = torch.tensor([math.inf, -math.inf, math.inf, -math.inf], dtype=dtype)
    t = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype)
    for clip, wrong, slope in ((0.0, math.inf, 1.0), (0.05, -(0.95**4) * math.log(0.05), 0.0)):
        loss = partial(lossref.asymmetric_loss, clip=clip)
        got, gradient = value_and_gradient(loss, x, t, reduction="none")
        assert got.tolist() == [0.0, 0.0, torch.tensor(wrong, dtype=dtype), math.inf]
        assert gradient.tolist() == [0.0, 0.0, slope, -1.0]


def test_curvature_where_the_two_branches_meet():
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)

    def curvature(loss):
        (slope,) = torch.autograd.grad(loss(zero).sum(), zero, create_graph=True)
        return torch.autograd.grad(slope.sum(), zero)[0].item()

    assert curvature(lossref.softplus) == 0.25
    assert curvature(lossref.log_sigmoid) == -0.25
    assert curvature(lambda x: lossref.binary_cross_entropy_with_logits(x, one)) == 0.25
    focal = curvature(lambda x: lossref.sigmoid_focal_loss(x, one, gamma=0.0))
    assert focal == 0.25
    assert curvature(lambda x: lossref.cross_entropy(torch.stack([x, -x], 1), one.long())) == 1.0


def test_bad_parameters_are_named():
    x, ones = torch.full((3,), 0.5), torch.ones(3)
    soft = lossref.binary_cross_entropy_with_logits
    refused(ValueError, r"target must be in \[0, 1\], but holds 1\.5", soft, x, ones * 1.5)
    refused(ValueError, r"target must be in \[0, 1\], but holds nan", soft, x, ones * math.nan)
    probs = lossref.binary_cross_entropy
    refused(ValueError, r"probs must be in \[0, 1\], but holds -0\.5", probs, -x, ones)
    shape = r"pos_weight must broadcast to shape \(3,\), but has shape \(2,\)"
    refused(ValueError, shape, soft, x, ones, pos_weight=torch.ones(2))
    gamma = r"gamma must be a number in \[0, inf\), got -1"
    refused(ValueError, gamma, lossref.sigmoid_focal_loss, x, ones, gamma=-1)
    alpha = r"alpha must be a number in \[0, 1\], got 2"
    refused(ValueError, alpha, lossref.sigmoid_focal_loss, x, ones, alpha=2)
    refused(ValueError, r"target must be -1 or 1, but holds 0", lossref.hinge_loss, x, ones * 0)
    refused(ValueError, r"delta must be .*\(0, inf\), got 0", lossref.huber_loss, x, x, delta=0)
    refused(ValueError, r"beta must be", lossref.smooth_l1_loss, x, x, beta=-1.0)
    refused(ValueError, r"quantile must be", lossref.quantile_loss, x, x, quantile=1.0)
    negative = r"var must be at least 0, but holds -1"
    refused(ValueError, negative, lossref.gaussian_nll_loss, x, x, var=-ones)
    clip = r"clip must be a number in \[0, 1\), got 1"
    refused(ValueError, clip, lossref.asymmetric_loss, x, ones, clip=1)
    refused(ValueError, r"reduction must be one of", soft, x, ones, reduction="batchmean")
