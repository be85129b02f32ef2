"""Cross-entropy of a linear layer by chunks of rows."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_checks import refused

import lossref


def layer(generator, rows=11, width=5, vocabulary=17, dtype=torch.float64):
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    target = torch.randint(vocabulary, (rows,), generator=generator)
    target[3] = -100
    leaves = [x.to(dtype).requires_grad_() for x in (hidden, weight, bias)]
    return (*leaves, target)


def naive(hidden, weight, bias, target, smoothing=0.0, zeta=0.0, reduction="mean"):
    logits = F.linear(hidden, weight, bias)
    losses = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
    losses = losses + zeta * torch.where(target >= 0, torch.logsumexp(logits, -1) ** 2, 0)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / (target >= 0).sum()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("zeta", [0.0, 0.01])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_agrees_with_the_layer_and_the_loss(reduction, smoothing, zeta, biased, chunk, generator):
    hidden, weight, bias, target = layer(generator)
    leaves = [hidden, weight, bias] if biased else [hidden, weight]
    got = lossref.linear_cross_entropy(
        hidden,
        weight,
        target,
        bias=bias if biased else None,
        chunk_size=chunk,
        label_smoothing=smoothing,
        z_loss=zeta,
        reduction=reduction,
    )
    expected = naive(hidden, weight, bias if biased else None, target, smoothing, zeta, reduction)
    torch.testing.assert_close(got, expected)
    scale = torch.rand(got.shape, generator=generator, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        torch.autograd.grad((got * scale).sum(), leaves),
        torch.autograd.grad((expected * scale).sum(), leaves),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_formats_are_as_exact_as_a_float32_layer(dtype, place, generator):
    hidden, weight, bias, target = layer(generator, dtype=dtype)
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    ours = [x.detach().to(place).requires_grad_() for x in (hidden, weight, bias)]
    got = lossref.linear_cross_entropy(*ours[:2], target.to(place), bias=ours[2])
    expected = naive(*wide, target)
    assert got.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got.cpu().double(), expected, rtol=eps, atol=1e-6)
    gradients = torch.autograd.grad(got, ours)
    for a, b in zip(gradients, torch.autograd.grad(expected, wide), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.cpu().double(), b, rtol=eps, atol=2e-6)


def test_a_certain_prediction_keeps_its_digits():
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[60.0, 0.0], [0.0, 0.0]])
    got = lossref.linear_cross_entropy(hidden, weight, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(got, hidden)
    assert math.isclose(got.item(), math.exp(-60), rel_tol=1e-6)
    assert math.isclose(gradient[0, 0].item(), -60 * math.exp(-60), rel_tol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ignored_rows_touch_nothing_whatever_they_hold(reduction, generator):
    hidden, weight, bias, target = layer(generator)
    kept = target >= 0
    with torch.no_grad():
        hidden[~kept] = torch.nan
    got = lossref.linear_cross_entropy(hidden, weight, target, bias=bias, reduction=reduction)
    gradients = torch.autograd.grad(got.sum(), [hidden, weight, bias])
    assert got.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    assert gradients[0][~kept].eq(0).all()


@pytest.mark.parametrize("rows", [0, 2])
def test_a_mean_over_nothing_is_zero(rows, generator):
    hidden = torch.randn(rows, 3, generator=generator, requires_grad=True)
    weight = torch.randn(5, 3, generator=generator, requires_grad=True)
    target = torch.full((rows,), -100)
    got = lossref.linear_cross_entropy(hidden, weight, target)
    gradients = torch.autograd.grad(got, [hidden, weight])
    assert got == 0
    assert all((g == 0).all() for g in gradients)
    assert lossref.linear_cross_entropy(hidden, weight, target, nan_if_empty=True).isnan()
    none = lossref.linear_cross_entropy(hidden, weight, target, reduction="none")
    assert torch.equal(none, torch.zeros(rows))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_gradient_can_be_taken_twice_and_backward_called_again(reduction, generator):
    hidden, weight, bias, target = layer(generator, rows=4, width=2, vocabulary=3)

    def loss(hidden, weight, bias):
        return lossref.linear_cross_entropy(
            hidden,
            weight,
            target % 3,
            bias=bias,
            reduction=reduction,
            label_smoothing=0.1,
            z_loss=0.01,
        )

    inputs = (hidden, weight, bias)
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)
    value = loss(*inputs).sum()
    first = torch.autograd.grad(value, inputs, retain_graph=True)
    again = torch.autograd.grad(value, inputs)
    torch.testing.assert_close(first, again)


def test_transforms_shapes_denominators_and_numpy(generator):
    hidden, weight, bias, target = (x.detach() for x in layer(generator, rows=6))
    target[3] = 1
    whole = lossref.linear_cross_entropy(hidden, weight, target, bias=bias)
    grid = lossref.linear_cross_entropy(
        hidden.reshape(2, 3, 5), weight, target.reshape(2, 3), bias=bias
    )
    torch.testing.assert_close(grid, whole)
    parts = [
        lossref.linear_cross_entropy(h, weight, t, bias=bias, denominator=6)
        for h, t in zip(hidden.split(4), target.split(4), strict=True)
    ]
    torch.testing.assert_close(sum(parts), whole)

    def loss(h):
        return lossref.linear_cross_entropy(h, weight, target, bias=bias)

    expected = torch.autograd.functional.jacobian(loss, hidden)
    torch.testing.assert_close(torch.func.grad(loss)(hidden), expected)
    value, gradient = lossref.value_and_grad(lossref.linear_cross_entropy)(
        hidden.numpy(), weight.numpy(), target.numpy(), bias=bias.numpy()
    )
    assert isinstance(gradient, np.ndarray)
    np.testing.assert_allclose(value, whole.numpy())
    np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-12, atol=1e-16)


def test_no_more_than_a_chunk_of_logits_is_alive(generator):
    rows, vocabulary, chunk = 64, 5000, 8
    hidden, weight, _, target = layer(generator, rows, 4, vocabulary, torch.float32)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        lossref.linear_cross_entropy(hidden, weight, target, chunk_size=chunk).backward()
    assert largest <= chunk * vocabulary


def test_bad_input_is_named():
    h, w, y = torch.zeros(4, 3), torch.zeros(5, 3), torch.tensor([0, 1, 2, 1])
    loss = lossref.linear_cross_entropy
    refused(ValueError, r"hidden must have the width of weight, 3", loss, h[:, :2], w, y)
    refused(ValueError, r"weight must have shape \(V, d\)", loss, h, w[0], y)
    refused(ValueError, r"target must have shape \(4,\)", loss, h, w, y[:, None])
    refused(
        ValueError, r"indices in \[0, 5\), or ignore_index=-100, but holds 5", loss, h, w, y + 5
    )
    refused(ValueError, r"bias must have shape \(5,\)", loss, h, w, y, bias=w[:4, 0])
    refused(
        ValueError, r"chunk_size must be a positive integer, got 0", loss, h, w, y, chunk_size=0
    )
    refused(ValueError, r"z_loss must be", loss, h, w, y, z_loss=-1.0)
    refused(TypeError, r"weight must have the dtype of hidden", loss, h, w.double(), y)
